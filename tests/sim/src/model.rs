//! etcd's data model for the few keys of a simulation: what a request does, and its answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{
    Ask, Changes, Compare, Key, LeaseId, Op, Put, Relation, Reply, Seen, Target, Txn,
};

/// The revision of an empty store.
pub const FRESH: i64 = 1;

/// A store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Model {
    /// Its revision.
    pub revision: i64,
    /// Keys that are there.
    pub keys: BTreeMap<Key, Seen>,
    /// Leases that are there.
    pub leases: BTreeSet<LeaseId>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            revision: FRESH,
            keys: BTreeMap::new(),
            leases: BTreeSet::new(),
        }
    }
}

/// What a request did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its answer.
    pub reply: Reply,
    /// What became of the keys: nothing if the revision is as before.
    pub changes: Changes,
}

impl Model {
    /// Carries out a request.
    pub fn apply(&mut self, ask: &Ask) -> Done {
        let mut changes = Changes::new();
        let reply = match ask {
            Ask::Get(one) => Reply::Records(self.revision, self.range(*one)),
            Ask::Put(put) if !self.has_lease(put) => Reply::LeaseNotFound,
            Ask::Put(put) => {
                let prev = self.put(&mut changes, *put);
                Reply::Put(self.close(&changes), prev)
            }
            Ask::Delete(key) => {
                let prev = self.delete(&mut changes, *key);
                Reply::Deleted(self.close(&changes), prev)
            }
            Ask::Txn(txn) => self.txn(&mut changes, txn),
            Ask::Grant(lease) => {
                self.leases.insert(*lease);
                Reply::Granted
            }
            Ask::Renew(_) | Ask::GetAt(..) | Ask::Compact { .. } | Ask::Alarm { .. } => {
                unreachable!("{ask:?} is judged elsewhere")
            }
            Ask::Revoke(lease) if !self.leases.contains(lease) => Reply::LeaseNotFound,
            Ask::Revoke(lease) => {
                self.leases.remove(lease);
                let attached = self.keys.iter().filter(|(_, seen)| seen.lease == *lease);
                let keys: Vec<Key> = attached.map(|(key, _)| *key).collect();
                for key in keys {
                    self.delete(&mut changes, key);
                }
                Reply::Revoked(self.close(&changes))
            }
        };
        Done { reply, changes }
    }

    fn txn(&mut self, changes: &mut Changes, txn: &Txn) -> Reply {
        let succeeded = self.holds(txn.compare);
        let steps = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let is_refused = |op: &Op| match op {
            Op::Put(put) => !self.has_lease(put),
            Op::Get(_) | Op::Delete(_) => false,
        };
        if steps.iter().any(is_refused) {
            return Reply::LeaseNotFound;
        }
        let answers = steps
            .iter()
            .map(|op| match op {
                Op::Get(key) => self.keys.get(key).copied(),
                Op::Put(put) => self.put(changes, *put),
                Op::Delete(key) => self.delete(changes, *key),
            })
            .collect();
        Reply::Txn(self.close(changes), succeeded, answers)
    }

    fn holds(&self, compare: Compare) -> bool {
        let seen = self.keys.get(&compare.key);
        let is = seen.map_or(0, |seen| match compare.target {
            Target::Version => seen.version,
            Target::Create => seen.create,
            Target::Mod => seen.modified,
        });
        match compare.relation {
            Relation::Equal => is == compare.than,
            Relation::Greater => is > compare.than,
            Relation::Less => is < compare.than,
            Relation::NotEqual => is != compare.than,
        }
    }

    fn has_lease(&self, put: &Put) -> bool {
        put.lease == 0 || self.leases.contains(&put.lease)
    }

    fn range(&self, one: Option<Key>) -> Vec<(Key, Seen)> {
        let wanted = |key: &Key| one.is_none_or(|one| one == *key);
        let there = self.keys.iter().filter(|(key, _)| wanted(key));
        there.map(|(key, seen)| (*key, *seen)).collect()
    }

    fn put(&mut self, changes: &mut Changes, put: Put) -> Option<Seen> {
        let prev = self.keys.get(&put.key).copied();
        let modified = self.revision + 1;
        let seen = Seen {
            value: put.value,
            create: prev.map_or(modified, |prev| prev.create),
            modified,
            version: prev.map_or(1, |prev| prev.version + 1),
            lease: put.lease,
        };
        self.keys.insert(put.key, seen);
        changes.insert(put.key, Some(seen));
        prev
    }

    fn delete(&mut self, changes: &mut Changes, key: Key) -> Option<Seen> {
        let prev = self.keys.remove(&key);
        if prev.is_some() {
            changes.insert(key, None);
        }
        prev
    }

    /// Ends a request: what changed has a revision of its own.
    fn close(&mut self, changes: &Changes) -> i64 {
        if !changes.is_empty() {
            self.revision += 1;
        }
        self.revision
    }
}
