//! The supply of segment files: filled with zeros ahead of use, or taken from those that were cut.
//!
//! A segment is never shorter than its header says and its blocks are allocated before its first
//! record: an append changes no metadata of the file system, and a full disk is noticed here.

use kine2_mutation::{Mutation, mutated};
use std::collections::VecDeque;
use std::io;

use crate::disk::{Disk, DiskFile};
use crate::error::WalError;
use crate::limits::{PAGE_BYTES, WalOptions, ZERO_STEP_BYTES};
use crate::scan::in_memory;
use crate::segment::{
    PREPARE_NAME, SegmentFile, encode_header, recycle_name, segment_id, segment_name,
};

/// How far the next segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// It is ready: a roll costs no more than an append.
    Done,
    /// Call again: each call writes at most 1 MiB.
    More,
}

/// Segment files that are not in use yet, or not any more.
#[derive(Debug)]
pub(crate) struct Supply<F> {
    options: WalOptions,
    /// Ready to be used, under its own name.
    next: Option<SegmentFile<F>>,
    zeroing: Option<Zeroing<F>>,
    /// Sequence numbers of files that were cut, under their recycle name; all of
    /// `options.segment_bytes`.
    pool: VecDeque<u64>,
}

/// [`PREPARE_NAME`] on its way.
#[derive(Debug)]
struct Zeroing<F> {
    file: F,
    /// `<= options.segment_bytes`; all of it flushed.
    written: u64,
}

impl<F: DiskFile> Supply<F> {
    /// `next`: the prepared segment, `pool`: what can be recycled, as found on disk.
    pub(crate) fn new(
        options: WalOptions,
        next: Option<SegmentFile<F>>,
        pool: VecDeque<u64>,
    ) -> Self {
        Self {
            options,
            next,
            zeroing: None,
            pool,
        }
    }

    /// Brings segment `sequence` nearer.
    ///
    /// When the disk is full the half-made file is removed, and nothing of the log is touched.
    pub(crate) fn step<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        sequence: u64,
    ) -> Result<Prepared, WalError> {
        if let Some(next) = &self.next {
            assert_eq!(next.sequence, sequence, "segments are used in order");
            return Ok(Prepared::Done);
        }
        if let Some(old) = self.pool.pop_front() {
            let name = recycle_name(old);
            let file = disk.open(&name).map_err(WalError::io("open", &name))?;
            self.finish(disk, file, &name, sequence)?;
            return Ok(Prepared::Done);
        }
        match self.zero(disk) {
            Ok(None) => Ok(Prepared::More),
            Ok(Some(file)) => {
                self.finish(disk, file, PREPARE_NAME, sequence)?;
                Ok(Prepared::Done)
            }
            Err(error) if error.is_no_space() => match disk.remove(PREPARE_NAME) {
                Ok(()) => Err(error),
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => Err(error),
                Err(worse) => Err(WalError::io("remove", PREPARE_NAME)(worse)),
            },
            Err(error) => Err(error),
        }
    }

    /// Bytes that the disk must still have until [`step`](Self::step) is done.
    pub(crate) fn missing_bytes(&self) -> u64 {
        if self.next.is_some() || !self.pool.is_empty() {
            return 0;
        }
        let written = self.zeroing.as_ref().map_or(0, |zeroing| zeroing.written);
        self.options.segment_bytes - written
    }

    /// Segment `sequence`, made now if it is not ready.
    pub(crate) fn take<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        sequence: u64,
    ) -> Result<SegmentFile<F>, WalError> {
        while self.step(disk, sequence)? == Prepared::More {}
        Ok(self.next.take().expect("the preparation is done"))
    }

    /// Takes back a segment the log does not need any more; durable on return.
    pub(crate) fn retire<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        sequence: u64,
        bytes: u64,
    ) -> Result<(), WalError> {
        let name = segment_name(sequence);
        if self.pool.len() < self.options.recycle_max && bytes == self.options.segment_bytes {
            let recycled = recycle_name(sequence);
            disk.rename(&name, &recycled)
                .map_err(WalError::io("rename", &name))?;
            self.pool.push_back(sequence);
        } else {
            disk.remove(&name).map_err(WalError::io("remove", &name))?;
        }
        // Before the next segment goes: else a power cut could leave a gap. And before the file gets a
        // new header: else it could come back under its old name.
        sync_dir(disk)
    }

    /// Writes and flushes the next zeros; gives the file when it is full.
    fn zero<D: Disk<File = F>>(&mut self, disk: &D) -> Result<Option<F>, WalError> {
        let mut zeroing = match self.zeroing.take() {
            Some(zeroing) => zeroing,
            None => {
                let file = disk.create(PREPARE_NAME);
                Zeroing {
                    file: file.map_err(WalError::io("create", PREPARE_NAME))?,
                    written: 0,
                }
            }
        };
        let count = ZERO_STEP_BYTES.min(self.options.segment_bytes - zeroing.written);
        let zeroed = zeroing.file.zero_at(zeroing.written, in_memory(count));
        zeroed.map_err(WalError::io("write", PREPARE_NAME))?;
        zeroing
            .file
            .sync_data()
            .map_err(WalError::io("flush", PREPARE_NAME))?;
        zeroing.written += count;
        if zeroing.written == self.options.segment_bytes {
            return Ok(Some(zeroing.file));
        }
        self.zeroing = Some(zeroing);
        Ok(None)
    }

    /// Gives a full-length file its header, and then its name: a segment is never seen without.
    fn finish<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        file: F,
        name: &str,
        sequence: u64,
    ) -> Result<(), WalError> {
        let (id, bytes) = (
            match mutated(Mutation::LogSameId) {
                true => segment_id(self.options.seed, 0),
                false => segment_id(self.options.seed, sequence),
            },
            self.options.segment_bytes,
        );
        let header = encode_header(id, sequence, bytes);
        file.write_all_at(&header, 0)
            .map_err(WalError::io("write", name))?;
        file.sync_data().map_err(WalError::io("flush", name))?;
        let segment = SegmentFile::new(file, sequence, id, bytes);
        disk.rename(name, &segment.name)
            .map_err(WalError::io("rename", name))?;
        sync_dir(disk)?;
        self.next = Some(segment);
        Ok(())
    }
}

pub(crate) fn sync_dir<D: Disk>(disk: &D) -> Result<(), WalError> {
    if mutated(Mutation::LogNoDirectoryFlush) {
        return Ok(());
    }
    disk.sync_dir()
        .map_err(WalError::io("flush", "the directory"))
}

const _: () = assert!(ZERO_STEP_BYTES.is_multiple_of(PAGE_BYTES));
