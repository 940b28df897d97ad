//! The keys in memory: for each its newest record's fields and the changes below it that history
//! still needs.
//!
//! Keys lie in order in chunks of at most [`CHUNK_MAX`], and each chunk counts its live keys, so
//! that a range is counted by adding up chunks and not by walking it: a page of a list of 100,000
//! keys costs what its 500 keys cost. Nothing here survives a crash; it is rebuilt from the
//! backend's metadata.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use crate::key_heads::KeyHeads;
use crate::key_range::KeyRange;
use crate::record::Record;
use crate::revision::{ChangeId, Revision};

/// Most keys of a chunk; a full one is cut in half.
const CHUNK_MAX: usize = 128;

/// A key, shared by the index and the lease it hangs on.
pub(crate) type Key = Arc<[u8]>;

/// A change of a key below its newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    // A ChangeId taken apart: there are as many of these as updates between two compactions.
    main: Revision,
    sub: u32,
    pub(crate) tombstone: bool,
}

const _: () = assert!(size_of::<Past>() == 16);

impl Past {
    pub(crate) const fn new(id: ChangeId, tombstone: bool) -> Self {
        let ChangeId { main, sub } = id;
        Self {
            main,
            sub,
            tombstone,
        }
    }

    pub(crate) const fn id(&self) -> ChangeId {
        ChangeId {
            main: self.main,
            sub: self.sub,
        }
    }
}

/// One key.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// The newest change.
    pub(crate) newest: ChangeId,
    /// create_revision of the newest record; 0 if the key is deleted.
    pub(crate) create_revision: i64,
    /// version of the newest record; 0 if the key is deleted.
    pub(crate) version: i64,
    /// lease of the newest record.
    pub(crate) lease: i64,
    /// The newest record, if it is in memory; never a tombstone.
    pub(crate) cached: Option<Record>,
    /// Read since the cache's hand last passed.
    pub(crate) recently_read: bool,
    /// Older changes that are kept, ascending.
    pub(crate) older: Vec<Past>,
}

impl Entry {
    /// Whether the key is there now.
    pub(crate) const fn is_live(&self) -> bool {
        self.create_revision != 0
    }

    /// The newest change as history will see it.
    pub(crate) const fn newest_as_past(&self) -> Past {
        Past::new(self.newest, !self.is_live())
    }

    /// The change that a read at `revision` finds; `None` if the key was absent then.
    pub(crate) fn at(&self, revision: Revision) -> Option<ChangeId> {
        if self.newest.main <= revision {
            return self.is_live().then_some(self.newest);
        }
        let after = self.older.partition_point(|past| past.main <= revision);
        let past = self.older[..after].last()?;
        (!past.tombstone).then_some(past.id())
    }
}

#[derive(Debug, Default)]
#[expect(
    clippy::vec_box,
    reason = "an insert moves pointers, not entries of 150 bytes"
)]
struct Chunk {
    /// Not above its first key, and above the last key of the chunk before.
    lower: Key,
    heads: KeyHeads,
    entries: Vec<Box<Entry>>,
    live: usize,
}

impl Chunk {
    /// A chunk of these keys, of which there is at least one.
    #[expect(clippy::vec_box, reason = "as in the chunk")]
    fn of(entries: Vec<Box<Entry>>) -> Self {
        Self {
            lower: Key::clone(&entries[0].key),
            heads: KeyHeads::of(entries.len(), |at| &entries[at].key),
            live: entries.iter().filter(|entry| entry.is_live()).count(),
            entries,
        }
    }
}

/// The keys in order. There is always at least one chunk, and only the sole chunk may be empty.
#[derive(Debug)]
pub(crate) struct Index {
    chunks: Vec<Chunk>,
    /// Of the chunks' lower bounds.
    lowers: KeyHeads,
    keys: usize,
}

/// A place in the index; valid until the index changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    chunk: usize,
    entry: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            chunks: vec![Chunk::default()],
            lowers: KeyHeads::of(1, |_| &[]),
            keys: 0,
        }
    }
}

impl Index {
    /// Keys, deleted ones with history among them.
    pub(crate) const fn len(&self) -> usize {
        self.keys
    }

    /// Keys that are there now.
    pub(crate) fn live(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.live).sum()
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<Place> {
        self.seek(key).ok()
    }

    pub(crate) fn entry(&self, place: Place) -> &Entry {
        &self.chunks[place.chunk].entries[place.entry]
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.find(key).map(|place| self.entry(place))
    }

    /// The entry, for changes that leave the key as live as it is.
    pub(crate) fn entry_mut(&mut self, place: Place) -> &mut Entry {
        &mut self.chunks[place.chunk].entries[place.entry]
    }

    /// Changes an entry in any way.
    pub(crate) fn update<R>(&mut self, place: Place, change: impl FnOnce(&mut Entry) -> R) -> R {
        let chunk = &mut self.chunks[place.chunk];
        let entry = &mut chunk.entries[place.entry];
        let before = entry.is_live();
        let result = change(entry);
        match (before, entry.is_live()) {
            (false, true) => chunk.live += 1,
            (true, false) => chunk.live -= 1,
            (false, false) | (true, true) => {}
        }
        result
    }

    /// Adds a key where [`seek`](Self::seek) said it would be put.
    pub(crate) fn insert_at(&mut self, place: Place, entry: Entry) {
        let (at, pos) = (place.chunk, place.entry);
        if self.keys == 0 {
            // Whatever comes below goes to the first chunk as well.
            self.chunks[0].lower = Key::clone(&entry.key);
            self.lowers = KeyHeads::of(1, |_| &entry.key);
        }
        let chunk = &mut self.chunks[at];
        chunk.live += usize::from(entry.is_live());
        chunk.entries.insert(pos, Box::new(entry));
        chunk.heads.insert(pos, |at| &chunk.entries[at].key);
        self.keys += 1;
        if chunk.entries.len() > CHUNK_MAX {
            self.split(at);
        }
    }

    /// Takes keys out for good.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        let Some(Place {
            chunk: at,
            entry: pos,
        }) = self.find(key)
        else {
            return;
        };
        let chunk = &mut self.chunks[at];
        let entry = chunk.entries.remove(pos);
        chunk.heads.remove(pos);
        chunk.live -= usize::from(entry.is_live());
        self.keys -= 1;
        if chunk.entries.is_empty() && self.chunks.len() > 1 {
            self.chunks.remove(at);
            self.lowers.remove(at);
        }
    }

    /// The places of all keys in `range`, in order.
    pub(crate) fn places(&self, range: &KeyRange) -> Places<'_> {
        let (from, until) = self.span(range);
        Places {
            index: self,
            at: from,
            until,
        }
    }

    /// Keys of `range` that are there now.
    pub(crate) fn live_in(&self, range: &KeyRange) -> usize {
        let (from, until) = self.span(range);
        let live = |entries: &[Box<Entry>]| entries.iter().filter(|e| e.is_live()).count();
        match from.chunk.cmp(&until.chunk) {
            Ordering::Greater => 0,
            Ordering::Equal => self
                .chunks
                .get(from.chunk)
                .and_then(|chunk| chunk.entries.get(from.entry..until.entry))
                .map_or(0, live),
            Ordering::Less => {
                let head = live(&self.chunks[from.chunk].entries[from.entry..]);
                let middle: usize = self.chunks[from.chunk + 1..until.chunk]
                    .iter()
                    .map(|chunk| chunk.live)
                    .sum();
                let tail = self
                    .chunks
                    .get(until.chunk)
                    .map_or(0, |chunk| live(&chunk.entries[..until.entry]));
                head + middle + tail
            }
        }
    }

    /// The place of the first key at or after `key`, or the end.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> Place {
        match self.seek(key) {
            Ok(place) => place,
            Err(place) => self.normal(place),
        }
    }

    /// The place after `place`, or the end.
    pub(crate) fn after(&self, place: Place) -> Place {
        self.normal(Place {
            entry: place.entry + 1,
            ..place
        })
    }

    /// The place after `place`, which may have gone stale, and after the last the first again.
    ///
    /// # Panics
    /// If there is no key.
    pub(crate) fn next_cyclic(&self, place: Place) -> Place {
        assert!(self.keys > 0, "an empty index has no places");
        let next = self.after(place);
        let there = self
            .chunks
            .get(next.chunk)
            .is_some_and(|c| next.entry < c.entries.len());
        if there { next } else { Place::default() }
    }

    /// Whether `place` is behind the last key.
    pub(crate) fn is_end(&self, place: Place) -> bool {
        place.chunk >= self.chunks.len() || self.keys == 0
    }

    /// Where the key is (`Ok`) or would be put (`Err`).
    pub(crate) fn seek(&self, key: &[u8]) -> Result<Place, Place> {
        let found = self.lowers.search(key, |at| &self.chunks[at].lower);
        // The first chunk also takes what lies below its bound.
        let chunk = found.unwrap_or_else(|at| at.saturating_sub(1));
        let Chunk { heads, entries, .. } = &self.chunks[chunk];
        let place = |entry| Place { chunk, entry };
        let found = heads.search(key, |at| &entries[at].key);
        found.map(place).map_err(place)
    }

    /// The half-open span of places `[from, until)` of a range.
    fn span(&self, range: &KeyRange) -> (Place, Place) {
        let end = Place {
            chunk: self.chunks.len(),
            entry: 0,
        };
        if range.is_empty() || self.keys == 0 {
            return (end, end);
        }
        let (from, found) = match self.seek(&range.start) {
            Ok(place) => (place, true),
            Err(place) => (self.normal(place), false),
        };
        let until = match range.bounds().1 {
            Bound::Unbounded => end,
            Bound::Excluded(key) => self.lower_bound(key),
            Bound::Included(_start) if found => self.after(from),
            Bound::Included(_start) => from,
        };
        (from, until)
    }

    /// Moves a place behind the last entry of a chunk to the start of the next.
    fn normal(&self, place: Place) -> Place {
        match self.chunks.get(place.chunk) {
            Some(chunk) if place.entry >= chunk.entries.len() => Place {
                chunk: place.chunk + 1,
                entry: 0,
            },
            _ => place,
        }
    }

    fn split(&mut self, at: usize) {
        // Keys that arrive in order fill the last chunk: leave it full rather than half empty.
        let cut = if at + 1 == self.chunks.len() {
            CHUNK_MAX
        } else {
            CHUNK_MAX / 2
        };
        let mut lower = std::mem::take(&mut self.chunks[at].entries);
        let upper = lower.split_off(cut);
        // One after the other, each with its bound: when a bound shortens what all have in common,
        // the heads are made anew from the chunks as they are then.
        // Of the lower half as well: the first chunk may have got keys below its bound.
        self.chunks[at] = Chunk::of(lower);
        self.lowers.remove(at);
        self.lowers.insert(at, |at| &self.chunks[at].lower);
        self.chunks.insert(at + 1, Chunk::of(upper));
        self.lowers.insert(at + 1, |at| &self.chunks[at].lower);
    }
}

/// Iterator over [`Index::places`].
#[derive(Debug)]
pub(crate) struct Places<'a> {
    index: &'a Index,
    at: Place,
    until: Place,
}

impl Iterator for Places<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let (at, until) = (self.at, self.until);
        if (at.chunk, at.entry) >= (until.chunk, until.entry) {
            return None;
        }
        self.at = self.index.after(at);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn entry(key: &[u8], live: bool) -> Entry {
        Entry {
            key: key.into(),
            newest: ChangeId::first_of(Revision(2)),
            create_revision: i64::from(live) * 2,
            version: i64::from(live),
            lease: 0,
            cached: None,
            recently_read: false,
            older: Vec::new(),
        }
    }

    /// Keys that begin unlike all before fill up the first chunk: its split shortens what the
    /// chunks' bounds have in common, and keys of the last chunk were lost from sight by it.
    #[test]
    fn keys_below_all_others_leave_those_in_sight() {
        let mut index = Index::default();
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for (prefix, count) in [("/k/", 4 * CHUNK_MAX), ("/d/", 2 * CHUNK_MAX)] {
            for number in 0..count {
                keys.push(format!("{prefix}{number:04}").into_bytes());
                let key = keys.last().unwrap();
                let place = index.seek(key).unwrap_err();
                index.insert_at(place, entry(key, true));
                for key in &keys {
                    let found = index.find(key).expect("it was inserted");
                    assert_eq!(index.entry(found).key[..], key[..]);
                }
            }
        }
    }

    #[test]
    fn a_key_at_a_revision_is_its_last_change_up_to_there() {
        let mut key = entry(b"k", true);
        key.newest = ChangeId::first_of(Revision(9));
        key.older = vec![
            Past::new(ChangeId::first_of(Revision(3)), false),
            Past::new(ChangeId::first_of(Revision(5)), true),
        ];
        let at = |revision| key.at(Revision(revision)).map(|id| id.main.0);
        assert_eq!(
            [at(2), at(3), at(4), at(5), at(8), at(9), at(10)],
            [None, Some(3), Some(3), None, None, Some(9), Some(9)]
        );
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(Vec<u8>, bool),
        Remove(Vec<u8>),
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        // A wide alphabet at low depth fills many chunks; deep keys share prefixes.
        prop::collection::vec(prop_oneof![0u8..255, Just(0), Just(255)], 1..3)
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            5 => (key(), any::<bool>()).prop_map(|(key, live)| Op::Put(key, live)),
            1 => key().prop_map(Op::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_an_ordered_map(
            ops in prop::collection::vec(op(), 0..1500),
            ranges in prop::collection::vec((key(), prop::option::of(key())), 20),
        ) {
            let (mut index, mut model) = (Index::default(), BTreeMap::new());
            for op in ops {
                match op {
                    Op::Put(key, live) => {
                        match index.seek(&key) {
                            Ok(place) => index.update(place, |e| e.create_revision = i64::from(live)),
                            Err(place) => index.insert_at(place, entry(&key, live)),
                        }
                        model.insert(key, live);
                    }
                    Op::Remove(key) => {
                        index.remove(&key);
                        model.remove(&key);
                    }
                }
            }
            prop_assert_eq!(index.len(), model.len());
            prop_assert_eq!(index.live(), model.values().filter(|live| **live).count());
            for (start, end) in ranges {
                for end in [Some(Vec::new()), Some(vec![0]), end] {
                    let Some(end) = end else { continue };
                    let range = KeyRange::from_wire(Bytes::from(start.clone()), Bytes::from(end));
                    let expected: Vec<_> = model.iter().filter(|(key, _)| range.contains(key)).collect();
                    let found: Vec<_> = index.places(&range).map(|p| index.entry(p).key.to_vec()).collect();
                    prop_assert_eq!(&found, &expected.iter().map(|(key, _)| (*key).clone()).collect::<Vec<_>>());
                    let live = expected.iter().filter(|(_, live)| **live).count();
                    prop_assert_eq!(index.live_in(&range), live);
                }
            }
        }
    }
}
