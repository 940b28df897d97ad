//! Leases and the keys that hang on them. Time is not here: the node's clock decides when one
//! has expired and proposes its revocation (`repl T1`).

use kine2_mutation::{Mutation, mutated};
use std::collections::{BTreeMap, BTreeSet};

use crate::index::Key;

/// A lease.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// Time to live in seconds, as granted.
    pub(crate) ttl_seconds: i64,
    /// Attached keys.
    pub(crate) keys: BTreeSet<Key>,
}

/// All leases by id.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    leases: BTreeMap<i64, Lease>,
}

impl LeaseTable {
    pub(crate) fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Adds a lease; `false` if the id is taken.
    pub(crate) fn grant(&mut self, id: i64, ttl_seconds: i64) -> bool {
        let fresh = !self.leases.contains_key(&id);
        if fresh {
            self.leases.insert(
                id,
                Lease {
                    ttl_seconds,
                    keys: BTreeSet::new(),
                },
            );
        }
        fresh
    }

    pub(crate) fn revoke(&mut self, id: i64) -> Option<Lease> {
        self.leases.remove(&id)
    }

    /// Moves a key from one lease to another; 0 is none (`etcd S14`, `S50`).
    pub(crate) fn move_key(&mut self, key: &Key, from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(lease) = self.leases.get_mut(&from)
            && !mutated(Mutation::LeaseNotMoved)
        {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&to) {
            lease.keys.insert(Key::clone(key));
        }
    }
}
