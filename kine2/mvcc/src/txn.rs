//! Puts, deletes and transactions (`etcd S14`–`S24`).
//!
//! A transaction is judged before anything is changed: first every compare, also of transactions
//! within, against the state before it (`etcd S17`), and with them what can only be checked on
//! the path they choose (`etcd S22`). From then on nothing can refuse it.

use kine2_mutation::{Mutation, mutated};
use std::collections::BTreeSet;

use crate::answer::{DeleteAnswer, OpAnswer, PutAnswer, Refusal, TxnAnswer};
use crate::backend::BackendError;
use crate::command::{Compare, Delete, Operand, Put, RangeQuery, Relation, Txn, TxnOp};
use crate::index::{Entry, Key, Place};
use crate::key_range::KeyRange;
use crate::record::{KeyValue, Record};
use crate::revision::{ChangeId, Revision};
use crate::store::Store;

/// The changes of one command: they share a revision that is used up only if there are any.
#[derive(Debug)]
struct Writing {
    before: Revision,
    changes: u32,
}

impl Writing {
    /// The revision that a header inside the transaction shows now (`etcd S18`).
    fn revision(&self) -> Revision {
        if self.changes == 0 {
            self.before
        } else {
            self.before.next()
        }
    }

    fn next_id(&mut self) -> ChangeId {
        let id = ChangeId {
            main: self.before.next(),
            sub: self.changes,
        };
        self.changes += 1;
        id
    }
}

impl Store {
    pub(crate) fn put_alone(
        &mut self,
        put: &Put,
    ) -> Result<Result<PutAnswer, Refusal>, BackendError> {
        // A put alone names a missing lease before a missing key, one in a transaction after it:
        // so does etcd.
        let checked = self.check_lease(put).and_then(|()| self.check_target(put));
        if let Err(refusal) = checked {
            return Ok(Err(refusal));
        }
        let mut writing = self.begin();
        let answer = self.put(&mut writing, put)?;
        self.finish(&writing);
        Ok(Ok(answer))
    }

    pub(crate) fn delete_alone(&mut self, delete: &Delete) -> Result<DeleteAnswer, BackendError> {
        let mut writing = self.begin();
        let answer = self.delete(&mut writing, delete)?;
        self.finish(&writing);
        Ok(answer)
    }

    /// Deletes these keys in one transaction, as far as they are there.
    pub(crate) fn delete_keys(&mut self, keys: &BTreeSet<Key>) -> Result<(), BackendError> {
        let mut writing = self.begin();
        for key in keys {
            if let Some(place) = self
                .index
                .find(key)
                .filter(|p| self.index.entry(*p).is_live())
            {
                self.bury(&mut writing, place);
            }
        }
        self.finish(&writing);
        Ok(())
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<Result<TxnAnswer, Refusal>, BackendError> {
        let mut path = Vec::new();
        self.choose(txn, &mut path)?;
        if let Err(refusal) = self.check_txn(txn, &mut path.iter().copied(), &mut Vec::new()) {
            return Ok(Err(refusal));
        }
        let mut writing = self.begin();
        let before = self.done.sum();
        let answer = self.run(&mut writing, txn, &mut path.iter().copied())?;
        self.done.txns += u64::from(self.done.sum() > before + 1);
        self.finish(&writing);
        Ok(Ok(answer))
    }

    fn begin(&self) -> Writing {
        Writing {
            before: self.revision,
            changes: 0,
        }
    }

    fn finish(&mut self, writing: &Writing) {
        self.revision = writing.revision();
    }

    /// Decides the branch of the transaction and of each one within on the chosen path, in the
    /// order they will run.
    fn choose(&mut self, txn: &Txn, path: &mut Vec<bool>) -> Result<(), BackendError> {
        let mut succeeded = true;
        for compare in &txn.compares {
            if !self.holds(compare)? {
                succeeded = false;
                break;
            }
        }
        path.push(succeeded);
        for op in branch(txn, succeeded) {
            if let TxnOp::Txn(inner) = op {
                self.choose(inner, path)?;
            }
        }
        Ok(())
    }

    /// `etcd S22`: lease and target exist, revision is kept. What the transaction deletes before a
    /// put is no target of it any more; etcd finds that out when it is too late, and crashes.
    fn check_txn<'a>(
        &self,
        txn: &'a Txn,
        path: &mut impl Iterator<Item = bool>,
        deleted: &mut Vec<&'a KeyRange>,
    ) -> Result<(), Refusal> {
        let succeeded = path.next().expect("a choice for each transaction");
        for op in branch(txn, succeeded) {
            match op {
                TxnOp::Put(put) => {
                    self.check_target(put)?;
                    if put.keeps() && deleted.iter().any(|range| range.contains(&put.key)) {
                        return Err(Refusal::KeyNotFound);
                    }
                    self.check_lease(put)?;
                }
                TxnOp::Range(query) => self.check_range(query)?,
                TxnOp::Delete(delete) => deleted.push(&delete.range),
                TxnOp::Txn(inner) => self.check_txn(inner, path, deleted)?,
            }
        }
        Ok(())
    }

    fn check_target(&self, put: &Put) -> Result<(), Refusal> {
        if put.keeps() && !self.index.get(&put.key).is_some_and(Entry::is_live) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn check_lease(&self, put: &Put) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains(put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        Ok(())
    }

    /// `etcd S23`: the newest is the revision before the transaction, and a negative revision is
    /// compared as it is.
    fn check_range(&self, query: &RangeQuery) -> Result<(), Refusal> {
        let revision = Revision(query.revision);
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if revision.0 != 0 && revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(())
    }

    fn run(
        &mut self,
        writing: &mut Writing,
        txn: &Txn,
        path: &mut impl Iterator<Item = bool>,
    ) -> Result<TxnAnswer, BackendError> {
        let succeeded = path.next().expect("a choice for each transaction");
        let chosen = branch(txn, succeeded);
        let mut ops = Vec::with_capacity(chosen.len());
        for op in chosen {
            ops.push(match op {
                TxnOp::Range(query) => {
                    let at = if query.revision > 0 {
                        Revision(query.revision)
                    } else {
                        writing.revision()
                    };
                    let answer = self.range_at(query, at)?;
                    OpAnswer::Range(writing.revision(), answer)
                }
                TxnOp::Put(put) => {
                    let answer = self.put(writing, put)?;
                    OpAnswer::Put(writing.revision(), answer)
                }
                TxnOp::Delete(delete) => {
                    let answer = self.delete(writing, delete)?;
                    OpAnswer::Delete(writing.revision(), answer)
                }
                TxnOp::Txn(inner) => OpAnswer::Txn(self.run(writing, inner, path)?),
            });
        }
        Ok(TxnAnswer { succeeded, ops })
    }

    fn put(&mut self, writing: &mut Writing, put: &Put) -> Result<PutAnswer, BackendError> {
        self.done.puts += 1;
        let place = self.index.seek(&put.key);
        let there = place
            .ok()
            .filter(|place| self.index.entry(*place).is_live());
        let wants_record = put.prev_kv || put.ignore_value;
        let prev = match there {
            Some(place) if wants_record => Some(self.newest_record(place)?),
            _ => None,
        };
        let id = writing.next_id();
        let (create_revision, version, old_lease) = match there {
            Some(place) => {
                let entry = self.index.entry(place);
                let create = match mutated(Mutation::CreateMoves) {
                    true => id.main.0,
                    false => entry.create_revision,
                };
                let raised = i64::from(!mutated(Mutation::VersionNotRaised));
                (create, entry.version + raised, entry.lease)
            }
            None => (id.main.0, 1, 0),
        };
        let lease = if put.ignore_lease {
            old_lease
        } else {
            put.lease
        };
        let kept_value = prev.as_ref().filter(|_| put.ignore_value).map(Record::view);
        let record = KeyValue {
            key: &put.key,
            create_revision,
            mod_revision: id.main.0,
            version,
            value: kept_value.map_or(&put.value[..], |fields| fields.value),
            lease,
        }
        .to_record();
        self.set(place, id, record, create_revision, version, lease);
        Ok(PutAnswer {
            prev: prev.filter(|_| put.prev_kv),
        })
    }

    fn delete(
        &mut self,
        writing: &mut Writing,
        delete: &Delete,
    ) -> Result<DeleteAnswer, BackendError> {
        self.done.deletes += 1;
        let live = |place: &Place| self.index.entry(*place).is_live();
        let places: Vec<Place> = self.index.places(&delete.range).filter(live).collect();
        let mut prevs = Vec::new();
        for place in &places {
            if delete.prev_kv {
                prevs.push(self.newest_record(*place)?);
            }
        }
        for place in &places {
            self.bury(writing, *place);
        }
        let deleted = i64::try_from(places.len()).expect("keys fit in memory");
        Ok(DeleteAnswer { deleted, prevs })
    }

    /// Deletes a live key; its place stays.
    fn bury(&mut self, writing: &mut Writing, place: Place) {
        let id = writing.next_id();
        let tombstone = Record::tombstone(&self.index.entry(place).key, id.main.0);
        self.set(Ok(place), id, tombstone, 0, 0, 0);
    }

    /// Whether every key of the range stands as asked; a range without keys stands for one absent
    /// key (`etcd S16`).
    fn holds(&mut self, compare: &Compare) -> Result<bool, BackendError> {
        let live = |place: &Place| self.index.entry(*place).is_live();
        if compare.range.is_single() {
            let place = self.index.find(&compare.range.start).filter(live);
            return place.map_or_else(
                || Ok(holds_for_absent(compare)),
                |place| self.holds_at(place, compare),
            );
        }
        let places: Vec<Place> = self.index.places(&compare.range).filter(live).collect();
        if places.is_empty() {
            return Ok(holds_for_absent(compare));
        }
        for place in places {
            if !self.holds_at(place, compare)? {
                return Ok(false);
            }
            if mutated(Mutation::CompareFirstOnly) {
                break;
            }
        }
        Ok(true)
    }

    fn holds_at(&mut self, place: Place, compare: &Compare) -> Result<bool, BackendError> {
        let entry = self.index.entry(place);
        Ok(match &compare.operand {
            Operand::Version(operand) => relates(&entry.version, compare.relation, operand),
            Operand::Create(operand) => relates(&entry.create_revision, compare.relation, operand),
            Operand::Mod(operand) => relates(&entry.newest.main.0, compare.relation, operand),
            Operand::Lease(operand) => relates(&entry.lease, compare.relation, operand),
            Operand::Value(operand) => {
                let record = self.newest_record(place)?;
                relates(record.view().value, compare.relation, &operand[..])
            }
        })
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[TxnOp] {
    if succeeded {
        &txn.success
    } else {
        &txn.failure
    }
}

fn holds_for_absent(compare: &Compare) -> bool {
    match &compare.operand {
        Operand::Value(_) => false,
        Operand::Version(n) | Operand::Create(n) | Operand::Mod(n) | Operand::Lease(n) => {
            relates(&0, compare.relation, n)
        }
    }
}

fn relates<T: Ord + ?Sized>(field: &T, relation: Relation, operand: &T) -> bool {
    match relation {
        Relation::Equal => field == operand,
        Relation::NotEqual => field != operand,
        Relation::Greater => field > operand,
        Relation::Less => field < operand,
    }
}
