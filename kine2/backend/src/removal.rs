//! What compaction does to blocks.
//!
//! A block that loses records keeps its DATA value and gets a new directory. When half of the bytes
//! are dead it is written anew, together with neighbours that are no more than half full, as many
//! as fit. A block that lost everything is deleted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use kine2_mvcc::{BackendError, ChangeId};

use crate::block::{BLOCK_BYTES, BlockBuilder, Stored};
use crate::block_index::BlockIndex;
use crate::block_store::{Updates, load_records, no_directory, stored};
use crate::directory::{BlockSize, Directory, DirectoryWriter};
use crate::engine::{Table, View, WriteBatch};

/// A block with no more live bytes than this may be joined by a neighbour that is written anew.
const SPARSE_BYTES: u32 = BLOCK_BYTES / 2;

/// The blocks that one batch removes from.
#[derive(Debug)]
pub(crate) struct Removal<'a, V> {
    view: &'a V,
    index: &'a BlockIndex,
    touched: BTreeMap<ChangeId, Touched<'a>>,
}

#[derive(Debug)]
struct Touched<'a> {
    directory: Bytes,
    removed: &'a [ChangeId],
    /// Bytes that stay.
    live: u32,
}

impl<'a, V: View> Removal<'a, V> {
    /// Finds out what removing `removed`, ascending, does to each block. Changes that are not
    /// there are passed over: a batch may be applied again after a crash.
    pub(crate) fn new(
        view: &'a V,
        index: &'a BlockIndex,
        mut removed: &'a [ChangeId],
    ) -> Result<Self, BackendError> {
        let mut touched = BTreeMap::new();
        while let Some(first) = removed.first() {
            let Some(id) = index.block_of(*first) else {
                removed = &removed[1..];
                continue;
            };
            let end = index.after(id).next();
            let len = end.map_or(removed.len(), |(end, _)| {
                removed.partition_point(|change| *change < end)
            });
            let (here, rest) = removed.split_at(len);
            removed = rest;
            let directory = read_directory(view, id)?;
            let parsed = Directory::parse(id, &directory)?;
            let mut live = 0;
            for entry in parsed.entries() {
                let entry = entry?;
                if here.binary_search(&entry.id).is_err() {
                    live += entry.place.len;
                }
            }
            if live < parsed.size().live {
                let block = Touched {
                    directory,
                    removed: here,
                    live,
                };
                touched.insert(id, block);
            }
        }
        Ok(Self {
            view,
            index,
            touched,
        })
    }

    /// Puts the changed blocks into the batch.
    pub(crate) fn store(
        &self,
        batch: &mut WriteBatch,
        updates: &mut Updates,
    ) -> Result<(), BackendError> {
        let runs = self.runs();
        let mut rewritten = BTreeSet::<ChangeId>::new();
        for run in &runs {
            self.rewrite(run, batch, updates)?;
            rewritten.extend(run);
        }
        for (id, block) in &self.touched {
            if rewritten.contains(id) {
                continue;
            }
            let directory = Directory::parse(*id, &block.directory)?;
            updates.old.push(stored(&directory));
            if block.live == 0 {
                batch.delete_block(*id);
                continue;
            }
            let mut writer = DirectoryWriter::new(*id);
            for entry in directory.entries() {
                let entry = entry?;
                if block.removed.binary_search(&entry.id).is_err() {
                    writer.push(&entry);
                }
            }
            let (bytes, crc, size) = writer.finish(directory.size().data);
            batch.put(Table::Meta, &id.to_bytes(), vec![bytes]);
            updates.new.push(Stored { id: *id, crc, size });
        }
        Ok(())
    }

    /// Neighbouring blocks that become one, ascending.
    fn runs(&self) -> Vec<VecDeque<ChangeId>> {
        let mut runs = Vec::new();
        let mut taken = BTreeSet::new();
        for (id, block) in &self.touched {
            let data = self.index.size(*id).map_or(0, |size| size.data);
            let half_dead = block.live > 0 && block.live <= data / 2;
            if !half_dead || taken.contains(id) {
                continue;
            }
            let mut run = VecDeque::from([*id]);
            let mut bytes = block.live;
            for (neighbour, size) in self.index.before(*id) {
                match self.joins(neighbour, size, bytes, &taken) {
                    Joins::Dead => {}
                    Joins::No => break,
                    Joins::Bytes(live) => {
                        bytes += live;
                        run.push_front(neighbour);
                    }
                }
            }
            for (neighbour, size) in self.index.after(*id) {
                match self.joins(neighbour, size, bytes, &taken) {
                    Joins::Dead => {}
                    Joins::No => break,
                    Joins::Bytes(live) => {
                        bytes += live;
                        run.push_back(neighbour);
                    }
                }
            }
            taken.extend(&run);
            runs.push(run);
        }
        runs
    }

    fn joins(
        &self,
        id: ChangeId,
        size: BlockSize,
        bytes: u32,
        taken: &BTreeSet<ChangeId>,
    ) -> Joins {
        let live = self.touched.get(&id).map_or(size.live, |block| block.live);
        if live == 0 {
            Joins::Dead
        } else if live > SPARSE_BYTES || bytes + live > BLOCK_BYTES || taken.contains(&id) {
            Joins::No
        } else {
            Joins::Bytes(live)
        }
    }

    /// Writes a run of blocks as one under the id of the first.
    fn rewrite(
        &self,
        run: &VecDeque<ChangeId>,
        batch: &mut WriteBatch,
        updates: &mut Updates,
    ) -> Result<(), BackendError> {
        let mut joined = BlockBuilder::new(run[0]);
        for id in run {
            let (bytes, removed) = match self.touched.get(id) {
                Some(block) => (block.directory.clone(), block.removed),
                None => (read_directory(self.view, *id)?, &[][..]),
            };
            let directory = Directory::parse(*id, &bytes)?;
            updates.old.push(stored(&directory));
            batch.delete_block(*id);
            let mut kept = Vec::new();
            for entry in directory.entries() {
                let entry = entry?;
                if removed.binary_search(&entry.id).is_err() {
                    kept.push(entry);
                }
            }
            let places: Vec<_> = kept.iter().map(|entry| (entry.id, entry.place)).collect();
            let records = load_records(self.view, *id, &places)?;
            for (entry, record) in kept.into_iter().zip(records) {
                joined.push_entry(entry, record);
            }
        }
        updates.new.push(joined.store(batch));
        Ok(())
    }
}

/// Whether a neighbour is written anew with a block.
enum Joins {
    No,
    /// It is about to vanish and does not stand between its neighbours.
    Dead,
    Bytes(u32),
}

fn read_directory(view: &impl View, id: ChangeId) -> Result<Bytes, BackendError> {
    view.get(Table::Meta, &id.to_bytes(), Bytes::copy_from_slice)?
        .ok_or_else(|| no_directory(id))
}
