//! What clients asked and were told, as they saw it.
//!
//! Keys are small numbers and every value is written once, so that what is seen tells who wrote it.

use std::collections::BTreeMap;

use crate::alarms::Alarm;
use crate::model::Model;

/// A key.
pub type Key = u8;
/// A value; no two writes have the same.
pub type Value = u64;
/// A lease's id.
pub type LeaseId = i64;

/// Order of what clients see: two things never have the same.
pub type Moment = u64;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// One key, or all of them; linearizable.
    Get(Option<Key>),
    /// One key set.
    Put(Put),
    /// One key deleted.
    Delete(Key),
    /// If this holds, that, else the other.
    Txn(Txn),
    /// A lease made. The client picks the id.
    Grant(LeaseId),
    /// A lease ended, with its keys: by a client, or by time.
    Revoke(LeaseId),
    /// A lease made to live longer: no part of what is judged by order, as all that follows.
    Renew(LeaseId),
    /// One key, or all of them, as they were at a revision.
    GetAt(Option<Key>, i64),
    /// History before a revision forgotten.
    Compact {
        /// The revision.
        revision: i64,
        /// Answered once its space is free.
        physical: bool,
    },
    /// An alarm raised, or cleared.
    Alarm {
        /// Which.
        alarm: Alarm,
        /// Raised.
        raise: bool,
    },
}

/// A key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Key,
    /// What it is set to.
    pub value: Value,
    /// The lease it hangs on; 0 for none.
    pub lease: LeaseId,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    /// The condition.
    pub compare: Compare,
    /// What is done if it holds.
    pub success: Vec<Op>,
    /// What is done if not.
    pub failure: Vec<Op>,
}

/// A condition on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Key,
    /// What of it; 0 in all for a key that is not there.
    pub target: Target,
    /// How it must stand to `than`.
    pub relation: Relation,
    /// What it is compared with.
    pub than: i64,
}

/// What of a key is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Number of its changes since it was made.
    Version,
    /// Revision that made it.
    Create,
    /// Revision of its last change.
    Mod,
}

/// How two numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// The key's is larger.
    Greater,
    /// The key's is smaller.
    Less,
    /// Not the same.
    NotEqual,
}

/// A step of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read a key.
    Get(Key),
    /// Set a key.
    Put(Put),
    /// Delete a key.
    Delete(Key),
}

/// A key as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Its value.
    pub value: Value,
    /// Revision that made it.
    pub create: i64,
    /// Revision of its last change.
    pub modified: i64,
    /// Number of its changes since it was made.
    pub version: i64,
    /// The lease it hangs on.
    pub lease: LeaseId,
}

/// An answer. Revisions are those of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Keys that are there.
    Records(i64, Vec<(Key, Seen)>),
    /// Set; what was there before.
    Put(i64, Option<Seen>),
    /// Deleted; what was there before.
    Deleted(i64, Option<Seen>),
    /// Whether the condition held, and what each step gave: read, or there before.
    Txn(i64, bool, Vec<Option<Seen>>),
    /// The lease is there.
    Granted,
    /// The lease and its keys are gone.
    Revoked(i64),
    /// The lease lives so many seconds from now; 0 if there is none.
    Renewed(i64),
    /// No such lease.
    LeaseNotFound,
    /// History before the revision that was named is forgotten.
    Compacted,
    /// Nothing was done: history that it needs is gone.
    Gone,
    /// Nothing was done: the revision is yet to come.
    Future,
    /// The alarm is as was wanted.
    AlarmSet,
    /// Nothing was done: an alarm is raised.
    Refused(Alarm),
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Known(Moment, Reply),
    /// Not answered, or by an error that leaves open whether it was carried out.
    Unknown,
}

/// A request and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was sent.
    pub invoked: Moment,
    /// What was asked.
    pub ask: Ask,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a revision did to the keys: what each became, or that it was deleted.
pub type Changes = BTreeMap<Key, Option<Seen>>;

/// All that clients saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The store when it began.
    pub first: Model,
    /// Requests, in the order sent.
    pub operations: Vec<Operation>,
    /// Revisions that a watch of all keys told of.
    pub watched: BTreeMap<i64, Changes>,
    /// Revisions that wrote values, as watches of single keys told.
    pub glimpsed: BTreeMap<Value, i64>,
}

impl Ask {
    /// Whether it can change anything.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self, Self::Get(_) | Self::GetAt(..) | Self::Renew(_))
    }

    /// Whether what it does is judged by the order of all that was done.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        match self {
            Self::Get(_)
            | Self::Put(_)
            | Self::Delete(_)
            | Self::Txn(_)
            | Self::Grant(_)
            | Self::Revoke(_) => true,
            Self::Renew(_) | Self::GetAt(..) | Self::Compact { .. } | Self::Alarm { .. } => false,
        }
    }

    /// The values it may write.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        self.puts().map(|put| put.value)
    }

    /// Whether it speaks of this lease.
    #[must_use]
    pub fn names_lease(&self, lease: LeaseId) -> bool {
        match self {
            Self::Grant(id) | Self::Revoke(id) | Self::Renew(id) => *id == lease,
            _ => self.puts().any(|put| put.lease == lease),
        }
    }

    fn puts(&self) -> impl Iterator<Item = Put> {
        let (alone, steps) = match self {
            Self::Put(put) => (Some(*put), Vec::new()),
            Self::Txn(txn) => (
                None,
                txn.success.iter().chain(&txn.failure).copied().collect(),
            ),
            _ => (None, Vec::new()),
        };
        let in_steps = steps.into_iter().filter_map(|op| match op {
            Op::Put(put) => Some(put),
            Op::Get(_) | Op::Delete(_) => None,
        });
        alone.into_iter().chain(in_steps)
    }
}

impl Reply {
    /// The header's revision.
    #[must_use]
    pub fn revision(&self) -> Option<i64> {
        match self {
            Self::Records(revision, _)
            | Self::Put(revision, _)
            | Self::Deleted(revision, _)
            | Self::Txn(revision, ..)
            | Self::Revoked(revision) => Some(*revision),
            _ => None,
        }
    }

    /// The records it shows.
    pub fn seen(&self) -> impl Iterator<Item = Seen> {
        let seen: Vec<Seen> = match self {
            Self::Records(_, records) => records.iter().map(|(_, seen)| *seen).collect(),
            Self::Put(_, prev) | Self::Deleted(_, prev) => prev.iter().copied().collect(),
            Self::Txn(_, _, steps) => steps.iter().flatten().copied().collect(),
            _ => Vec::new(),
        };
        seen.into_iter()
    }
}
