//! Forgetting history in slices (`etcd S25`–`S27`).
//!
//! The logical effect is immediate: reads below the compacted revision are refused. The space
//! work follows in slices: first the index is walked and what it frees is noted, then the notes
//! go to the backend in the order of the changes, so that a tombstone never goes before the
//! records it hides and a crash in between resurrects nothing.

use crate::index::{Entry, Index, Key};
use crate::revision::{ChangeId, Revision};
use kine2_mutation::{Mutation, mutated};

/// Space work that is under way.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    phase: Phase,
    /// Freed changes not handed to the backend yet; descending once they are being handed out.
    freed: Vec<ChangeId>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// Keys from this one on are still to be walked.
    Walking { target: Revision, from: Option<Key> },
    /// The index is done.
    Freeing,
}

impl Compaction {
    /// Starts over with a new target; what earlier work freed is kept.
    pub(crate) fn start(&mut self, target: Revision) {
        self.phase = Phase::Walking { target, from: None };
    }

    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Does up to `keys` keys or `changes` changes of work. The changes that the backend is to
    /// remove are appended to `removed`, ascending.
    pub(crate) fn step(
        &mut self,
        index: &mut Index,
        keys: usize,
        changes: usize,
        removed: &mut Vec<ChangeId>,
    ) {
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Walking { target, from } => {
                let next = walk(index, *target, from.as_ref(), keys, &mut self.freed);
                if next.is_some() {
                    *from = next;
                } else {
                    self.freed.sort_unstable_by(|a, b| b.cmp(a));
                    self.phase = Phase::Freeing;
                }
            }
            Phase::Freeing => {
                let keep = self.freed.len().saturating_sub(changes);
                removed.extend(self.freed.drain(keep..).rev());
                if self.freed.is_empty() {
                    self.freed = Vec::new();
                    self.phase = Phase::Idle;
                }
            }
        }
    }
}

/// Prunes up to `keys` entries from `from` on; answers where to go on.
fn walk(
    index: &mut Index,
    target: Revision,
    from: Option<&Key>,
    keys: usize,
    freed: &mut Vec<ChangeId>,
) -> Option<Key> {
    let mut place = index.lower_bound(from.map_or(&[], |key| &key[..]));
    let mut dead = Vec::new();
    for _ in 0..keys {
        if index.is_end(place) {
            break;
        }
        let entry = index.entry_mut(place);
        if prune(entry, target, freed) {
            dead.push(Key::clone(&entry.key));
        }
        place = index.after(place);
    }
    let next = (!index.is_end(place)).then(|| Key::clone(&index.entry(place).key));
    for key in dead {
        index.remove(&key);
    }
    next
}

/// Drops from `entry` what a compaction at `target` frees, and notes it. True if the key itself
/// can be forgotten.
fn prune(entry: &mut Entry, target: Revision, freed: &mut Vec<ChangeId>) -> bool {
    let up_to = entry.older.partition_point(|past| past.id().main <= target);
    if entry.newest.main <= target {
        freed.extend(entry.older.drain(..).map(|past| past.id()));
        entry.older = Vec::new();
        // A tombstone at the target itself stays for watchers that start there (`etcd S26`).
        let forget = !entry.is_live() && entry.newest.main < target
            || !entry.is_live() && mutated(Mutation::WatchTombstoneGone);
        if forget {
            freed.push(entry.newest);
        }
        return forget;
    }
    let keeps_last = entry.older[..up_to]
        .last()
        .is_some_and(|past| !past.tombstone || past.id().main == target)
        && !mutated(Mutation::CompactTooMuch);
    let gone = up_to - usize::from(keeps_last);
    freed.extend(entry.older.drain(..gone).map(|past| past.id()));
    entry.older.shrink_to_fit();
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Past;

    fn id(main: i64) -> ChangeId {
        ChangeId::first_of(Revision(main))
    }

    /// A key with changes at these revisions; negative ones are deletes.
    fn key(changes: &[i64]) -> Entry {
        let past = |n: &i64| Past::new(id(n.abs()), *n < 0);
        let (newest, older) = changes.split_last().unwrap();
        Entry {
            key: b"k"[..].into(),
            newest: id(newest.abs()),
            create_revision: (*newest).max(0),
            version: 1,
            lease: 0,
            cached: None,
            recently_read: false,
            older: older.iter().map(past).collect(),
        }
    }

    #[track_caller]
    fn check(changes: &[i64], target: i64, kept: &[i64]) {
        let (mut entry, mut freed) = (key(changes), Vec::new());
        let forgotten = prune(&mut entry, Revision(target), &mut freed);
        let mut left: Vec<i64> = entry.older.iter().map(|past| past.id().main.0).collect();
        if !forgotten {
            left.push(entry.newest.main.0);
        }
        assert_eq!(left, kept, "{changes:?} compacted at {target}");
        assert_eq!(left.len() + freed.len(), changes.len());
    }

    #[test]
    fn s26_the_newest_up_to_the_target_stays_if_live_or_a_tombstone_right_there() {
        check(&[2, 4, 6], 5, &[4, 6]);
        check(&[2, 4, 6], 6, &[6]);
        check(&[2, 4, 6], 9, &[6]);
        check(&[2, -4, 6], 5, &[6]);
        check(&[2, -4, 6], 4, &[4, 6]);
        check(&[2, -4], 4, &[4]);
        check(&[2, -4], 5, &[]);
        check(&[2, -4], 3, &[2, 4]);
        check(&[7], 3, &[7]);
    }

    #[test]
    fn freed_changes_go_out_ascending_over_slices_and_keys() {
        let mut index = Index::default();
        for (name, changes) in [("a", [2, 8, -9]), ("b", [3, 5, 20]), ("c", [4, 6, 7])] {
            let place = index.seek(name.as_bytes()).unwrap_err();
            let entry = Entry {
                key: name.as_bytes().into(),
                ..key(&changes)
            };
            index.insert_at(place, entry);
        }
        let (mut compaction, mut removed) = (Compaction::default(), Vec::new());
        compaction.start(Revision(10));
        let mut steps = 0;
        while !compaction.is_idle() {
            compaction.step(&mut index, 1, 2, &mut removed);
            steps += 1;
        }
        let mains: Vec<i64> = removed.iter().map(|id| id.main.0).collect();
        assert_eq!(mains, [2, 3, 4, 6, 8, 9]);
        assert!(index.get(b"a").is_none() && index.len() == 2 && steps >= 6);
    }
}
