//! What the store answers.

use thiserror::Error;

use crate::command::{Alarm, LeaseGrant};
use crate::record::Record;
use crate::revision::Revision;

/// Result of a command: the store's revision after it, for the response header (`etcd S3`), and
/// what it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Revision of the store once the command had been applied.
    pub revision: Revision,
    /// The answer proper.
    pub answer: Answer,
}

/// Answer to a command that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of [`Command::Noop`](crate::Command::Noop).
    Nothing,
    /// Of a put.
    Put(PutAnswer),
    /// Of a delete.
    Delete(DeleteAnswer),
    /// Of a transaction.
    Txn(TxnAnswer),
    /// Of a compaction: the logical effect is there.
    Compacted,
    /// Of a grant: what was granted.
    LeaseGranted(LeaseGrant),
    /// Of a revocation.
    LeaseRevoked,
    /// Of an alarm change: the alarms it changed.
    Alarms(Vec<Alarm>),
}

/// Answer to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeAnswer {
    /// Records found, at most the limit.
    pub records: Vec<Record>,
    /// More would match (`etcd S9`).
    pub more: bool,
    /// Keys in the range at that revision, whatever limit and bounds say (`etcd S9`).
    pub count: i64,
}

/// Answer to a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutAnswer {
    /// The record before, if asked for and there.
    pub prev: Option<Record>,
}

/// Answer to a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteAnswer {
    /// Keys deleted.
    pub deleted: i64,
    /// Their last records in key order, if asked for.
    pub prevs: Vec<Record>,
}

/// Answer to a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnAnswer {
    /// Whether the compares held.
    pub succeeded: bool,
    /// An answer for each operation of the branch taken.
    pub ops: Vec<OpAnswer>,
}

/// Answer to one operation of a transaction, with the revision its header shows (`etcd S18`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpAnswer {
    /// Of a range.
    Range(Revision, RangeAnswer),
    /// Of a put.
    Put(Revision, PutAnswer),
    /// Of a delete.
    Delete(Revision, DeleteAnswer),
    /// Of a transaction within; its header is empty (`etcd S4`).
    Txn(TxnAnswer),
}

/// Why a request was refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The log has no room for a command of this size.
    #[error("request is too large")]
    TooLarge,
    /// The revision's history is gone.
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    /// The revision is yet to come.
    #[error("mvcc: required revision is a future revision")]
    FutureRevision,
    /// `ignore_value` or `ignore_lease` on a key that is not there.
    #[error("key not found")]
    KeyNotFound,
    /// No such lease.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// The lease id is taken.
    #[error("lease already exists")]
    LeaseExists,
    /// The NOSPACE alarm is raised.
    #[error("mvcc: database space exceeded")]
    NoSpace,
    /// The CORRUPT alarm is raised.
    #[error("corrupt cluster")]
    Corrupt,
}
