//! What clients and operators can ask of the store, as it stands in the log.
//!
//! A command is complete: ids that a server picks were picked before it was logged, and no clock
//! is read when it is applied, so every replica reaches the same state. The byte form is in
//! `codec.rs`.

use bytes::Bytes;

use crate::key_range::KeyRange;

/// An entry of the log that changes the store, or may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing; holds a place in the log.
    Noop,
    /// One put.
    Put(Put),
    /// One delete of a key or range.
    Delete(Delete),
    /// A transaction.
    Txn(Txn),
    /// Forget history below a revision (`etcd S25`).
    Compact(Compact),
    /// Make a lease.
    LeaseGrant(LeaseGrant),
    /// End a lease and delete its keys (`etcd S48`); expiry is the same command.
    LeaseRevoke {
        /// The lease.
        id: i64,
    },
    /// Raise or clear an alarm (`etcd S53`).
    Alarm(AlarmChange),
}

/// `etcd S14`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// The key; not empty.
    pub key: Bytes,
    /// The value; empty with `ignore_value`.
    pub value: Bytes,
    /// The lease to hang the key on; 0 for none.
    pub lease: i64,
    /// Answer with the record before.
    pub prev_kv: bool,
    /// Keep the value the key has; it must exist.
    pub ignore_value: bool,
    /// Keep the lease the key has; it must exist.
    pub ignore_lease: bool,
}

impl Put {
    /// Whether it keeps something of the key it writes, which must then be there (`etcd S14`).
    #[must_use]
    pub const fn keeps(&self) -> bool {
        self.ignore_value || self.ignore_lease
    }
}

/// `etcd S15`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// What to delete.
    pub range: KeyRange,
    /// Answer with the deleted records.
    pub prev_kv: bool,
}

/// Read of a key or range, alone or in a transaction (`etcd S7`–`S13`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// What to read.
    pub range: KeyRange,
    /// At which revision; 0 and below is the newest, except in a transaction (`etcd S23`).
    pub revision: i64,
    /// Most records to answer; 0 and below is all.
    pub limit: i64,
    /// Order other than by key ascending.
    pub sort: Option<Sort>,
    /// Leave values out.
    pub keys_only: bool,
    /// Answer the count alone.
    pub count_only: bool,
    /// Whether the count may leave out what the limit cut off: of use to who reads on and knows it.
    pub uncounted: bool,
    /// Bounds on revisions; 0 for none (`etcd S10`).
    pub bounds: RevisionBounds,
}

impl RangeQuery {
    /// Everything in `range`, newest, in key order.
    #[must_use]
    pub fn all(range: KeyRange) -> Self {
        Self {
            range,
            revision: 0,
            limit: 0,
            sort: None,
            keys_only: false,
            count_only: false,
            uncounted: false,
            bounds: RevisionBounds::default(),
        }
    }
}

/// Inclusive bounds a record must lie in; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevisionBounds {
    /// Least mod_revision.
    pub min_mod: i64,
    /// Greatest mod_revision.
    pub max_mod: i64,
    /// Least create_revision.
    pub min_create: i64,
    /// Greatest create_revision.
    pub max_create: i64,
}

/// Order of a range's answer (`etcd S11`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub by: SortBy,
    /// Largest first.
    pub descending: bool,
}

/// Field a range is sorted by; ties keep key order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// The key.
    Key,
    /// Its version.
    Version,
    /// Its create_revision.
    Create,
    /// Its mod_revision.
    Mod,
    /// Its value.
    Value,
}

/// `etcd S16`–`S24`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `success` to run.
    pub compares: Vec<Compare>,
    /// Operations if they hold.
    pub success: Vec<TxnOp>,
    /// Operations if not.
    pub failure: Vec<TxnOp>,
}

impl Txn {
    /// Whether neither branch has anything but reads. One with a transaction inside counts as a
    /// write (`etcd S24`).
    #[must_use]
    pub fn only_reads(&self) -> bool {
        let mut ops = self.success.iter().chain(&self.failure);
        ops.all(|op| matches!(op, TxnOp::Range(_)))
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOp {
    /// Read.
    Range(RangeQuery),
    /// Write.
    Put(Put),
    /// Delete.
    Delete(Delete),
    /// A transaction within.
    Txn(Txn),
}

/// A condition on every key of a range (`etcd S16`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The keys.
    pub range: KeyRange,
    /// How the key's field must stand to the operand.
    pub relation: Relation,
    /// The field and the operand.
    pub operand: Operand,
}

/// Relation of a [`Compare`], the key's field on its left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Equal.
    Equal,
    /// Greater.
    Greater,
    /// Less.
    Less,
    /// Not equal.
    NotEqual,
}

/// Field of a [`Compare`] and what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// version.
    Version(i64),
    /// create_revision.
    Create(i64),
    /// mod_revision.
    Mod(i64),
    /// value; false for every relation when the key is absent.
    Value(Bytes),
    /// lease.
    Lease(i64),
}

/// `etcd S25`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact {
    /// History below it goes.
    pub revision: i64,
    /// Answer only after the space work is done and durable.
    pub physical: bool,
}

/// `etcd S45`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGrant {
    /// The id; not 0, which the server has replaced by one of its own.
    pub id: i64,
    /// Time to live in seconds, as granted.
    pub ttl_seconds: i64,
}

/// `etcd S53`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmChange {
    /// Set it.
    Raise(Alarm),
    /// Clear it.
    Clear(Alarm),
}

/// An alarm a member raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Who raised it.
    pub member_id: u64,
    /// What is wrong.
    pub kind: AlarmKind,
}

/// What an alarm means for writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The quota is reached: writes that need space are refused.
    NoSpace,
    /// Replicas differ: every write is refused.
    Corrupt,
}
