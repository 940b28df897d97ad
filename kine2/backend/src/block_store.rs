//! Records packed into blocks over an [`Engine`]: the [`Backend`] of every engine on disk.
//!
//! Records of consecutive changes share a block of about 16 KiB: `DATA[block]` holds their bytes,
//! `META[block]` their directory. A batch extends the last block while there is room, so that
//! small batches do not leave small blocks. Compaction rewrites directories and lets the bytes lie
//! until half of them are dead. The format is in docs/state-format.md.

use std::ops::ControlFlow;

use bytes::Bytes;
use kine2_mvcc::{
    Backend, BackendError, BackendStats, Change, ChangeId, Held, HistoryPage, KeyRange,
    LogPosition, Meta, Record, Revision, StateBatch,
};
use parking_lot::{Mutex, RwLock};

use crate::block::{BLOCK_BYTES, BlockBuilder, Stored};
use crate::block_index::BlockIndex;
use crate::directory::{Directory, Entry, RecordPlace, damaged};
use crate::engine::{Engine, Table, View, WriteBatch};
use crate::head::{self, Head, Tally};
use crate::history::Pager;
use crate::removal::Removal;

/// A backend over an engine on disk.
#[derive(Debug)]
pub(crate) struct BlockStore<E> {
    engine: E,
    /// The blocks of the engine's newest view: both change under this lock.
    index: RwLock<BlockIndex>,
    writer: Mutex<Writer>,
}

/// What only the thread that applies needs.
#[derive(Debug)]
struct Writer {
    head: Head,
    /// The newest change there ever was in this run; the next one is above it.
    last: ChangeId,
    /// The last block, while it has room and nothing of it was removed.
    tail: Option<Tail>,
    /// Set before the engine writes and cleared when it has: what failed once is not tried again.
    failed: bool,
}

#[derive(Debug)]
struct Tail {
    block: BlockBuilder,
    stored: Stored,
}

impl<E: Engine> BlockStore<E> {
    /// Takes over an engine: checks that all blocks and cells are there that were written, and
    /// with `verify` each record.
    pub(crate) fn open(engine: E, verify: bool) -> Result<Self, BackendError> {
        let view = engine.view()?;
        let held = head::read_held(&view)?;
        let head = Head::read(&view)?;
        let (index, last) = read_index(&view, &head)?;
        if last.main > held.revision {
            return Err(BackendError::Damaged(format!(
                "change {last} is there at revision {}",
                held.revision
            )));
        }
        if verify {
            verify_records(&view)?;
        }
        drop(view);
        Ok(Self {
            engine,
            index: RwLock::new(index),
            writer: Mutex::new(Writer {
                head,
                last,
                tail: None,
                failed: false,
            }),
        })
    }

    /// The last block of the index, ready to be extended, if it has room.
    fn load_tail(&self, view: &impl View) -> Result<Option<Tail>, BackendError> {
        let Some((id, size)) = self.index.read().last() else {
            return Ok(None);
        };
        if size.live < size.data || size.data >= BLOCK_BYTES {
            return Ok(None);
        }
        let mut block = BlockBuilder::new(id);
        let stored = load_block(view, id, |entry, record| block.push_entry(entry, record))?;
        Ok(Some(Tail { block, stored }))
    }

    fn write(&self, writer: &mut Writer, batch: &StateBatch) -> Result<(), BackendError> {
        let view = self.engine.view()?;
        let mut out = WriteBatch::default();
        let mut head = Head {
            applied: batch.applied,
            revision: batch.revision,
            ..writer.head
        };
        let (removed_at_once, removed) = split_removed(batch);
        let mut updates = Updates::default();

        if !removed.is_empty() {
            let index = self.index.read();
            Removal::new(&view, &index, &removed)?.store(&mut out, &mut updates)?;
        }
        // What was removed from, or merged, is not extended any more.
        let touched = |tail: &Tail| updates.touch(tail.stored.id);
        let mut tail = writer.tail.take().filter(|tail| !touched(tail));
        let mut changes = batch
            .changes
            .iter()
            .filter(|change| removed_at_once.binary_search(&change.id).is_err())
            .peekable();
        let mut last = writer.last;
        if tail.is_none() && changes.peek().is_some() {
            tail = self.load_tail(&view)?.filter(|tail| !touched(tail));
        }
        let mut block = tail.map(|tail| {
            updates.old.push(tail.stored);
            tail.block
        });
        let mut new_tail = None;
        for change in changes {
            assert!(change.id > last, "changes ascend");
            last = change.id;
            if let Some(full) = block.take_if(|block| !block.has_room(change.record.len())) {
                updates.new.push(full.store(&mut out));
            }
            block
                .get_or_insert_with(|| BlockBuilder::new(change.id))
                .push(change.id, &change.record);
        }
        if let Some(block) = block {
            let stored = block.clone().store(&mut out);
            updates.new.push(stored);
            new_tail = (stored.size.data < BLOCK_BYTES).then_some(Tail { block, stored });
        }

        head::store_cells(&batch.cells, &view, &mut head.cells, &mut out)?;
        for old in &updates.old {
            head.blocks.subtract(old.crc);
        }
        for new in &updates.new {
            head.blocks.add(new.crc);
        }
        head.store(&mut out);
        drop(view);

        let prepared = self.engine.prepare(&out)?;
        {
            let mut index = self.index.write();
            self.engine.commit(prepared)?;
            updates.publish(&mut index);
        }
        *writer = Writer {
            head,
            last,
            tail: new_tail,
            failed: false,
        };
        Ok(())
    }
}

/// How a batch changes the set of blocks.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    /// Blocks that are replaced or gone.
    pub(crate) old: Vec<Stored>,
    /// Blocks that are new or replace one of the same id.
    pub(crate) new: Vec<Stored>,
}

impl Updates {
    fn touch(&self, id: ChangeId) -> bool {
        self.old.iter().any(|old| old.id == id)
    }

    fn publish(self, index: &mut BlockIndex) {
        for old in self.old {
            index.remove(old.id);
        }
        for new in self.new {
            index.insert(new);
        }
    }
}

impl<E: Engine> Backend for BlockStore<E> {
    fn held(&self) -> Result<Held, BackendError> {
        head::read_held(&self.engine.view()?)
    }

    fn apply(&self, batch: &StateBatch) -> Result<(), BackendError> {
        let mut writer = self.writer.lock();
        writer.begin()?;
        self.write(&mut writer, batch)
    }

    fn checkpoint(&self) -> Result<LogPosition, BackendError> {
        let mut writer = self.writer.lock();
        writer.begin()?;
        self.engine.checkpoint()?;
        writer.failed = false;
        Ok(writer.head.applied)
    }

    fn get(&self, id: ChangeId) -> Result<Option<Record>, BackendError> {
        let (block, view) = {
            let index = self.index.read();
            (index.block_of(id), self.engine.view()?)
        };
        let Some(block) = block else { return Ok(None) };
        let key = block.to_bytes();
        let place = view.get(Table::Meta, &key, |bytes| {
            Directory::parse(block, bytes)?.find(id)
        })?;
        let Some(place) = place.ok_or_else(|| no_directory(block))?? else {
            return Ok(None);
        };
        let record = view.get(Table::Data, &key, |data| {
            place.of(data).map(Bytes::copy_from_slice)
        })?;
        let bytes = record.flatten().ok_or_else(|| no_record(id))?;
        parse_record(id, bytes).map(Some)
    }

    fn metas(&self, visit: &mut dyn FnMut(Meta<'_>)) -> Result<(), BackendError> {
        let view = self.engine.view()?;
        let head = Head::read(&view)?;
        let mut tally = Tally::default();
        scan_directories(&view, ChangeId::default(), |directory| {
            tally.add(directory.crc());
            for entry in directory.entries() {
                let entry = entry?;
                visit(Meta {
                    id: entry.id,
                    key: entry.key,
                    create_revision: entry.create_revision,
                    version: entry.version,
                    lease: entry.lease,
                    record_len: entry.place.len,
                });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        check_tally(tally, &head)
    }

    fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        until: Revision,
        limit_bytes: usize,
    ) -> Result<HistoryPage, BackendError> {
        let from = ChangeId::first_of(from);
        let (start, view) = {
            let index = self.index.read();
            (index.block_of(from), self.engine.view()?)
        };
        let mut pager = Pager::new(until, limit_bytes);
        scan_directories(&view, start.unwrap_or_default(), |directory| {
            for entry in directory.entries() {
                let entry = entry?;
                if entry.id < from {
                    continue;
                }
                let found = range.contains(entry.key).then(|| {
                    let len = usize::try_from(entry.place.len).expect("32 bits");
                    ((directory.id(), entry.id, entry.place), len)
                });
                if pager.offer(entry.id, found).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let (found, next) = pager.finish();
        let mut changes = Vec::with_capacity(found.len());
        for of_block in found.chunk_by(|a, b| a.0 == b.0) {
            let places: Vec<_> = of_block
                .iter()
                .map(|(_, id, place)| (*id, *place))
                .collect();
            let records = load_records(&view, of_block[0].0, &places)?;
            for ((id, _), bytes) in places.into_iter().zip(records) {
                let record = parse_record(id, bytes)?;
                changes.push(Change { id, record });
            }
        }
        Ok(HistoryPage { changes, next })
    }

    fn defragment(&self) -> Result<(), BackendError> {
        let mut writer = self.writer.lock();
        writer.begin()?;
        self.engine.defragment()?;
        writer.failed = false;
        Ok(())
    }

    fn stats(&self) -> Result<BackendStats, BackendError> {
        let used_bytes = self.index.read().bytes();
        Ok(BackendStats {
            // What was written lately may have no place in the file yet.
            file_bytes: self.engine.file_bytes()?.max(used_bytes),
            used_bytes,
        })
    }
}

impl Writer {
    /// Refuses to go on after a failure; the state is to be opened anew.
    fn begin(&mut self) -> Result<(), BackendError> {
        if self.failed {
            let error = "it failed before and must be opened anew";
            return Err(BackendError::Io(std::io::Error::other(error)));
        }
        self.failed = true;
        Ok(())
    }
}

/// The changes that a batch adds and removes at once, and the others it removes; both ascending.
fn split_removed(batch: &StateBatch) -> (Vec<ChangeId>, Vec<ChangeId>) {
    // Batches of two compactions may have been joined.
    let mut removed = batch.removed.clone();
    removed.sort_unstable();
    removed.dedup();
    removed.into_iter().partition(|id| {
        let added = batch.changes.binary_search_by_key(id, |change| change.id);
        added.is_ok()
    })
}

/// Reads all directories; answers the index and the newest change.
fn read_index(view: &impl View, head: &Head) -> Result<(BlockIndex, ChangeId), BackendError> {
    let mut index = BlockIndex::default();
    let mut tally = Tally::default();
    scan_directories(view, ChangeId::default(), |directory| {
        tally.add(directory.crc());
        index.insert(stored(&directory));
        Ok(ControlFlow::Continue(()))
    })?;
    check_tally(tally, head)?;
    let mut last = ChangeId::default();
    if let Some((id, _)) = index.last() {
        scan_directories(view, id, |directory| {
            for entry in directory.entries() {
                last = entry?.id;
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok((index, last))
}

fn check_tally(found: Tally, head: &Head) -> Result<(), BackendError> {
    if found == head.blocks {
        return Ok(());
    }
    Err(BackendError::Damaged(format!(
        "the {} blocks that are there are not the {} that were written",
        found.count, head.blocks.count
    )))
}

/// Reads every record and checks it.
fn verify_records(view: &impl View) -> Result<(), BackendError> {
    scan_directories(view, ChangeId::default(), |directory| {
        let places: Result<Vec<_>, _> = directory
            .entries()
            .map(|entry| entry.map(|entry| (entry.id, entry.place)))
            .collect();
        load_records(view, directory.id(), &places?)?;
        Ok(ControlFlow::Continue(()))
    })
}

/// Visits the directories of block `from` and those above.
fn scan_directories(
    view: &impl View,
    from: ChangeId,
    mut visit: impl FnMut(Directory<'_>) -> Result<ControlFlow<()>, BackendError>,
) -> Result<(), BackendError> {
    view.scan(Table::Meta, &from.to_bytes(), |key, bytes| {
        let id = ChangeId::from_bytes(key).ok_or_else(|| {
            BackendError::Damaged(format!("{} names no block", key.escape_ascii()))
        })?;
        visit(Directory::parse(id, bytes)?)
    })
}

/// All records of a block with nothing dead in it, in order.
fn load_block(
    view: &impl View,
    id: ChangeId,
    mut each: impl FnMut(Entry<'_>, Bytes),
) -> Result<Stored, BackendError> {
    let key = id.to_bytes();
    let bytes = view.get(Table::Meta, &key, Bytes::copy_from_slice)?;
    let bytes = bytes.ok_or_else(|| no_directory(id))?;
    let directory = Directory::parse(id, &bytes)?;
    let entries: Vec<_> = directory.entries().collect::<Result<_, _>>()?;
    let places: Vec<_> = entries
        .iter()
        .map(|entry| (entry.id, entry.place))
        .collect();
    let records = load_records(view, id, &places)?;
    for (entry, record) in entries.into_iter().zip(records) {
        each(entry, record);
    }
    Ok(stored(&directory))
}

/// Copies records out of one block, each checked. They do not share memory: one that is kept for
/// long does not keep the others.
pub(crate) fn load_records(
    view: &impl View,
    block: ChangeId,
    places: &[(ChangeId, RecordPlace)],
) -> Result<Vec<Bytes>, BackendError> {
    let records = view.get(Table::Data, &block.to_bytes(), |data| {
        let copy = |(id, place): &(ChangeId, RecordPlace)| {
            let record = place.of(data).ok_or_else(|| no_record(*id))?;
            Ok(Bytes::copy_from_slice(record))
        };
        places.iter().map(copy).collect()
    })?;
    records.unwrap_or_else(|| Err(damaged(block, "its records are not there")))
}

pub(crate) fn stored(directory: &Directory<'_>) -> Stored {
    Stored {
        id: directory.id(),
        crc: directory.crc(),
        size: directory.size(),
    }
}

fn parse_record(id: ChangeId, bytes: Bytes) -> Result<Record, BackendError> {
    let record = Record::parse(bytes).filter(|record| record.view().mod_revision == id.main.0);
    record.ok_or_else(|| no_record(id))
}

pub(crate) fn no_directory(block: ChangeId) -> BackendError {
    damaged(block, "its directory is not there")
}

fn no_record(id: ChangeId) -> BackendError {
    BackendError::Damaged(format!("the record of change {id} is not what was written"))
}
