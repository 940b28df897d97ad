//! What clients asked for and what they were told: the facts a store is held to after a crash.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// One change a write makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The key gets a value, and a lease if it is not 0.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
        /// Its lease.
        lease: i64,
    },
    /// The key goes, if it is there.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Effect {
    /// The key it is about.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// A write that changes the store, if its compares hold.
#[derive(Clone, Debug)]
pub struct Write {
    /// Keys and the revision each has to have; 0 for a key that must not be there.
    pub compares: Vec<(Bytes, i64)>,
    /// All of them happen at one revision, in this order, or none.
    pub effects: Vec<Effect>,
    /// Where it was acknowledged; `None` while that is not known.
    pub revision: Option<i64>,
}

/// What is known of a lease.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Seconds.
    pub ttl: i64,
    /// It was acknowledged.
    pub granted: bool,
    /// Before the grant was sent: it cannot expire before its TTL after this.
    pub asked_at: Instant,
    /// Somebody wanted it gone, and whether that was acknowledged.
    pub revoked: Option<bool>,
}

impl Lease {
    /// It may not be there any more, and be there.
    #[must_use]
    pub const fn is_doubtful(&self) -> bool {
        !self.granted || matches!(self.revoked, Some(false)) || self.may_expire()
    }

    /// Its time may run out during a test.
    #[must_use]
    pub const fn may_expire(&self) -> bool {
        self.ttl < 600
    }

    /// Its time had run out by then.
    #[must_use]
    pub fn has_expired(&self, at: Instant) -> bool {
        let ttl = Duration::from_secs(u64::try_from(self.ttl).unwrap_or_default());
        self.may_expire() && at >= self.asked_at + ttl
    }
}

/// An answer to a read.
#[derive(Clone, Debug)]
pub struct Read {
    /// Revision it was answered at.
    pub at: i64,
    /// The key.
    pub key: Bytes,
    /// The key's revision and version; 0 if it was not there.
    pub found: (i64, i64),
}

/// All of it.
#[derive(Debug, Default)]
pub struct History {
    /// Writes not found in the store's own history yet, by id.
    pub writes: BTreeMap<u64, Write>,
    /// By id.
    pub leases: BTreeMap<i64, Lease>,
    /// Not judged yet.
    pub reads: Vec<Read>,
    /// Newest revision anybody was told of, in whatever way.
    pub revision_seen: i64,
    /// Newest compaction that was acknowledged.
    pub compacted: i64,
    /// Newest compaction that was asked for.
    pub compaction_asked: i64,
    /// Acknowledged writes since the start.
    pub acknowledged: u64,
    /// Writes whose outcome was never learned, since the start.
    pub unknown: u64,
    next_id: u64,
}

impl History {
    /// Notes that somebody was told of this revision.
    pub fn see(&mut self, revision: i64) {
        self.revision_seen = self.revision_seen.max(revision);
    }

    /// An id for the next write.
    pub const fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A write is on its way.
    pub fn sent(&mut self, id: u64, compares: Vec<(Bytes, i64)>, effects: Vec<Effect>) {
        let write = Write {
            compares,
            effects,
            revision: None,
        };
        self.writes.insert(id, write);
        self.unknown += 1;
    }

    /// It was acknowledged.
    pub fn done(&mut self, id: u64, revision: i64) {
        self.see(revision);
        self.unknown -= 1;
        self.acknowledged += 1;
        if let Some(write) = self.writes.get_mut(&id) {
            write.revision = Some(revision);
        }
    }

    /// It was refused, or changed nothing.
    pub fn without_effect(&mut self, id: u64) {
        self.unknown -= 1;
        self.writes.remove(&id);
    }
}
