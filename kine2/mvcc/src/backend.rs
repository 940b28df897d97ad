//! Where records rest: the trait an engine is adapted to.
//!
//! The backend is a cache with a promise. It never holds more than the log has committed, it says
//! which log entry it has applied, and after any crash it opens at the last checkpoint or later.
//! One that does not open, or fails its check, is thrown away and rebuilt from the log.
//!
//! Records are laid down in the order of their [`ChangeId`]s; the index by key lives in memory
//! ([`Store`](crate::Store)). Calls are synchronous and answer errors, never panic.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::key_range::KeyRange;
use crate::record::Record;
use crate::revision::{ChangeId, Revision};

/// An entry of the log, by its term and index (`repl section 2`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Epoch of the entry's term.
    pub epoch: u64,
    /// Run of the entry's term.
    pub run: u32,
    /// Index of the entry; 0 before the first.
    pub index: u64,
}

/// One change of one key, named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub id: ChangeId,
    /// What the key became; a tombstone for a delete.
    pub record: Record,
}

/// Everything about a record but its value: what the index in memory is rebuilt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta<'a> {
    /// The change.
    pub id: ChangeId,
    /// The key.
    pub key: &'a [u8],
    /// As in the record; 0 marks a tombstone.
    pub create_revision: i64,
    /// As in the record.
    pub version: i64,
    /// As in the record.
    pub lease: i64,
    /// Bytes of the whole record in wire form.
    pub record_len: u32,
}

/// What a batch does to the state; all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct StateBatch {
    /// The last log entry whose effects are in this batch or before it.
    pub applied: LogPosition,
    /// Revision of the store after it.
    pub revision: Revision,
    /// New records, ascending, all above any the backend has.
    pub changes: Vec<Change>,
    /// Records that compaction frees, ascending. A tombstone goes with or after the records it
    /// hides, never in an earlier batch.
    pub removed: Vec<ChangeId>,
    /// Small named values to set, or with `None` to delete: leases, alarms, the compacted
    /// revision.
    pub cells: BTreeMap<Bytes, Option<Bytes>>,
}

impl StateBatch {
    /// Joins the batch that follows this one.
    pub fn append(&mut self, next: Self) {
        self.applied = next.applied;
        self.revision = next.revision;
        self.changes.extend(next.changes);
        self.removed.extend(next.removed);
        self.cells.extend(next.cells);
    }

    /// Bytes of the records it adds.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.changes.iter().map(|change| change.record.len()).sum()
    }
}

/// What a backend holds when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The last log entry it has applied.
    pub applied: LogPosition,
    /// Revision of the store there; [`Revision::FRESH`] for a new one.
    pub revision: Revision,
    /// All cells.
    pub cells: BTreeMap<Bytes, Bytes>,
}

/// Space a backend takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendStats {
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Bytes of them in use.
    pub used_bytes: u64,
}

/// A page of history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// Changes of the range in order, whole transactions.
    pub changes: Vec<Change>,
    /// Where to go on; `None` when the backend has no more.
    pub next: Option<Revision>,
}

/// Why a backend did not do what it was asked.
#[derive(Debug, Error)]
pub enum BackendError {
    /// The medium failed.
    #[error("state engine: {0}")]
    Io(#[from] std::io::Error),
    /// What it holds contradicts itself: it is rebuilt, where the log reaches back far enough.
    #[error("state is damaged: {0}")]
    Damaged(String),
    /// Written by a newer program.
    #[error("state has format version {found}, this program reads up to {known}")]
    Version {
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
}

/// A store of records by [`ChangeId`] plus a few named cells.
///
/// Readers and the one writer may be on different threads: [`apply`](Self::apply) and
/// [`checkpoint`](Self::checkpoint) come from one thread, reads from any.
pub trait Backend: Send + Sync + fmt::Debug {
    /// What it holds.
    ///
    /// # Errors
    /// If the engine cannot be read.
    fn held(&self) -> Result<Held, BackendError>;

    /// Applies a batch atomically: visible on return, not yet durable.
    ///
    /// # Errors
    /// If the engine fails; the backend is then to be thrown away.
    fn apply(&self, batch: &StateBatch) -> Result<(), BackendError>;

    /// Makes everything applied durable and says up to which log entry: the only thing that
    /// permits cutting the log.
    ///
    /// # Errors
    /// If the engine fails.
    fn checkpoint(&self) -> Result<LogPosition, BackendError>;

    /// The record of a change, if it is there.
    ///
    /// # Errors
    /// If the engine fails or the record does not parse.
    fn get(&self, id: ChangeId) -> Result<Option<Record>, BackendError>;

    /// Shows the metadata of every record, ascending, without reading values.
    ///
    /// # Errors
    /// If the engine fails or a record does not parse.
    fn metas(&self, visit: &mut dyn FnMut(Meta<'_>)) -> Result<(), BackendError>;

    /// Changes of keys in `range` at revisions `[from, until)`, whole transactions, at most
    /// `limit_bytes` of records (but at least one transaction). A read that passed very many
    /// changes of other keys may stop early, even with none: `next` says where to go on.
    ///
    /// # Errors
    /// If the engine fails or a record does not parse.
    fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        until: Revision,
        limit_bytes: usize,
    ) -> Result<HistoryPage, BackendError>;

    /// Gives space back to the file system where the engine can.
    ///
    /// # Errors
    /// If the engine fails.
    fn defragment(&self) -> Result<(), BackendError>;

    /// Space it takes.
    ///
    /// # Errors
    /// If the engine fails.
    fn stats(&self) -> Result<BackendStats, BackendError>;
}
