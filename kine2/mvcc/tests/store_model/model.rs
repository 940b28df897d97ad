//! The simplest store that can be right: a full copy of the keys for every revision.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kine2_mvcc::{
    Compare, Delete, KeyRange, OpAnswer, Operand, Put, RangeAnswer, RangeQuery, Record, Refusal,
    Relation, Revision, SortBy, Txn, TxnOp,
};
use kine2_mvcc::{DeleteAnswer, KeyValue, PutAnswer, TxnAnswer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) value: Bytes,
    pub(crate) lease: i64,
}

pub(crate) type Keys = BTreeMap<Bytes, Item>;

/// One change as a watcher sees it: revision, key, the item it became, the item it was.
pub(crate) type Seen = (i64, Bytes, Option<Item>, Option<Item>);

#[derive(Debug)]
pub(crate) struct Model {
    /// The keys after each revision; the first is revision 1's.
    history: Vec<Keys>,
    pub(crate) events: Vec<Seen>,
    pub(crate) leases: BTreeMap<i64, i64>,
    pub(crate) compacted: i64,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            history: vec![Keys::new()],
            events: Vec::new(),
            leases: BTreeMap::new(),
            compacted: -1,
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        i64::try_from(self.history.len()).unwrap()
    }

    pub(crate) fn keys(&self) -> &Keys {
        self.history.last().unwrap()
    }

    fn keys_at(&self, revision: i64) -> &Keys {
        &self.history[usize::try_from(revision).unwrap() - 1]
    }

    pub(crate) fn range(&self, query: &RangeQuery) -> Result<RangeAnswer, Refusal> {
        let revision = query.revision;
        if revision > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        if revision > 0 && revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        let keys = if revision > 0 {
            self.keys_at(revision)
        } else {
            self.keys()
        };
        Ok(range(keys, query))
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<TxnAnswer, Refusal> {
        let before = self.keys().clone();
        self.check(&before, &mut before.clone(), txn)?;
        let mut writing = Writing {
            keys: before.clone(),
            changes: Vec::new(),
        };
        let answer = self.run(&before, &mut writing, txn);
        self.commit(&before, writing);
        Ok(answer)
    }

    pub(crate) fn revoke(&mut self, id: i64) -> Result<(), Refusal> {
        self.leases.remove(&id).ok_or(Refusal::LeaseNotFound)?;
        let before = self.keys().clone();
        let mut writing = Writing {
            keys: before.clone(),
            changes: Vec::new(),
        };
        for key in before
            .iter()
            .filter(|(_, item)| item.lease == id)
            .map(|(key, _)| key)
        {
            writing.keys.remove(key);
            writing.changes.push(key.clone());
        }
        self.commit(&before, writing);
        Ok(())
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = revision;
        Ok(())
    }

    fn commit(&mut self, before: &Keys, writing: Writing) {
        if writing.changes.is_empty() {
            return;
        }
        let revision = self.revision() + 1;
        for key in writing.changes {
            let (now, was) = (writing.keys.get(&key), before.get(&key));
            self.events
                .push((revision, key, now.cloned(), was.cloned()));
        }
        self.history.push(writing.keys);
    }

    /// `left` is what earlier operations have left of the keys.
    fn check(&self, before: &Keys, left: &mut Keys, txn: &Txn) -> Result<(), Refusal> {
        for op in branch(txn, before) {
            match op {
                TxnOp::Put(put) => {
                    if (put.ignore_value || put.ignore_lease) && !left.contains_key(&put.key) {
                        return Err(Refusal::KeyNotFound);
                    }
                    if put.lease != 0 && !self.leases.contains_key(&put.lease) {
                        return Err(Refusal::LeaseNotFound);
                    }
                }
                TxnOp::Range(query) => {
                    if query.revision > self.revision() {
                        return Err(Refusal::FutureRevision);
                    }
                    if query.revision != 0 && query.revision < self.compacted {
                        return Err(Refusal::Compacted);
                    }
                }
                TxnOp::Delete(delete) => {
                    left.retain(|key, _| !delete.range.contains(key));
                }
                TxnOp::Txn(inner) => self.check(before, left, inner)?,
            }
        }
        Ok(())
    }

    fn run(&self, before: &Keys, writing: &mut Writing, txn: &Txn) -> TxnAnswer {
        let succeeded = txn.compares.iter().all(|compare| holds(before, compare));
        let mut ops = Vec::new();
        for op in branch(txn, before) {
            let answer = match op {
                TxnOp::Put(put) => {
                    let answer = self.put(writing, put);
                    OpAnswer::Put(self.shown(writing), answer)
                }
                TxnOp::Delete(delete) => {
                    let answer = remove(writing, delete);
                    OpAnswer::Delete(self.shown(writing), answer)
                }
                TxnOp::Range(query) => {
                    let keys = if query.revision > 0 {
                        self.keys_at(query.revision)
                    } else {
                        &writing.keys
                    };
                    OpAnswer::Range(self.shown(writing), range(keys, query))
                }
                TxnOp::Txn(inner) => OpAnswer::Txn(self.run(before, writing, inner)),
            };
            ops.push(answer);
        }
        TxnAnswer { succeeded, ops }
    }

    fn shown(&self, writing: &Writing) -> Revision {
        Revision(self.revision() + i64::from(!writing.changes.is_empty()))
    }

    fn put(&self, writing: &mut Writing, put: &Put) -> PutAnswer {
        let revision = self.revision() + 1;
        let was = writing.keys.get(&put.key).cloned();
        let kept = was.as_ref();
        let item = Item {
            create: kept.map_or(revision, |item| item.create),
            modified: revision,
            version: kept.map_or(0, |item| item.version) + 1,
            value: if put.ignore_value {
                kept.unwrap().value.clone()
            } else {
                put.value.clone()
            },
            lease: if put.ignore_lease {
                kept.unwrap().lease
            } else {
                put.lease
            },
        };
        writing.keys.insert(put.key.clone(), item);
        writing.changes.push(put.key.clone());
        PutAnswer {
            prev: was
                .filter(|_| put.prev_kv)
                .map(|item| record(&put.key, &item)),
        }
    }
}

struct Writing {
    keys: Keys,
    changes: Vec<Bytes>,
}

fn remove(writing: &mut Writing, delete: &Delete) -> DeleteAnswer {
    let found = within(&writing.keys, &delete.range);
    let mut answer = DeleteAnswer {
        deleted: i64::try_from(found.len()).unwrap(),
        prevs: vec![],
    };
    for (key, item) in found {
        if delete.prev_kv {
            answer.prevs.push(record(&key, &item));
        }
        writing.keys.remove(&key);
        writing.changes.push(key);
    }
    answer
}

fn branch<'a>(txn: &'a Txn, before: &Keys) -> &'a [TxnOp] {
    let succeeded = txn.compares.iter().all(|compare| holds(before, compare));
    if succeeded {
        &txn.success
    } else {
        &txn.failure
    }
}

fn within(keys: &Keys, range: &KeyRange) -> Vec<(Bytes, Item)> {
    let inside = keys.iter().filter(|(key, _)| range.contains(key));
    inside
        .map(|(key, item)| (key.clone(), item.clone()))
        .collect()
}

pub(crate) fn record(key: &[u8], item: &Item) -> Record {
    let fields = KeyValue {
        key,
        create_revision: item.create,
        mod_revision: item.modified,
        version: item.version,
        value: &item.value,
        lease: item.lease,
    };
    fields.to_record()
}

fn range(keys: &Keys, query: &RangeQuery) -> RangeAnswer {
    let mut found = within(keys, &query.range);
    let count = i64::try_from(found.len()).unwrap();
    if query.count_only {
        return RangeAnswer {
            count,
            ..RangeAnswer::default()
        };
    }
    let bounds = query.bounds;
    found.retain(|(_, item)| {
        (bounds.min_mod == 0 || item.modified >= bounds.min_mod)
            && (bounds.max_mod == 0 || item.modified <= bounds.max_mod)
            && (bounds.min_create == 0 || item.create >= bounds.min_create)
            && (bounds.max_create == 0 || item.create <= bounds.max_create)
    });
    if let Some(sort) = query.sort {
        let compare = |a: &(Bytes, Item), b: &(Bytes, Item)| match sort.by {
            SortBy::Key => a.0.cmp(&b.0),
            SortBy::Version => a.1.version.cmp(&b.1.version),
            SortBy::Create => a.1.create.cmp(&b.1.create),
            SortBy::Mod => a.1.modified.cmp(&b.1.modified),
            SortBy::Value => a.1.value.cmp(&b.1.value),
        };
        if sort.descending {
            found.sort_by(|a, b| compare(b, a));
        } else {
            found.sort_by(compare);
        }
    }
    let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0);
    let limit = limit.unwrap_or(usize::MAX);
    let more = found.len() > limit;
    found.truncate(limit);
    let shown = |(key, item): (Bytes, Item)| {
        let record = record(&key, &item);
        if query.keys_only {
            record.without_value()
        } else {
            record
        }
    };
    RangeAnswer {
        records: found.into_iter().map(shown).collect(),
        more,
        count,
    }
}

fn holds(keys: &Keys, compare: &Compare) -> bool {
    let found = within(keys, &compare.range);
    let relates = |order: std::cmp::Ordering| match compare.relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    };
    let absent = Item {
        create: 0,
        modified: 0,
        version: 0,
        value: Bytes::new(),
        lease: 0,
    };
    if found.is_empty() {
        return match &compare.operand {
            Operand::Value(_) => false,
            operand => relates(order(&absent, operand)),
        };
    }
    found
        .iter()
        .all(|(_, item)| relates(order(item, &compare.operand)))
}

fn order(item: &Item, operand: &Operand) -> std::cmp::Ordering {
    match operand {
        Operand::Version(n) => item.version.cmp(n),
        Operand::Create(n) => item.create.cmp(n),
        Operand::Mod(n) => item.modified.cmp(n),
        Operand::Lease(n) => item.lease.cmp(n),
        Operand::Value(value) => item.value.cmp(value),
    }
}

/// Whether static checks of the API would let this transaction through (`etcd S21`): a key put
/// twice, or put and deleted, in one branch.
pub(crate) fn passes_duplicate_check(txn: &Txn) -> bool {
    branch_keys(&txn.success).is_some() && branch_keys(&txn.failure).is_some()
}

/// Keys a branch may put and ranges it may delete; `None` if they collide.
fn branch_keys(ops: &[TxnOp]) -> Option<(BTreeSet<Bytes>, Vec<KeyRange>)> {
    let (mut puts, mut deletes) = (BTreeSet::new(), Vec::new());
    for op in ops {
        match op {
            TxnOp::Put(put) => {
                if !puts.insert(put.key.clone()) {
                    return None;
                }
            }
            TxnOp::Delete(delete) => deletes.push(delete.range.clone()),
            TxnOp::Txn(inner) => {
                let (mut below, mut ranges) = branch_keys(&inner.success)?;
                let (other, more) = branch_keys(&inner.failure)?;
                below.extend(other);
                ranges.extend(more);
                if below.iter().any(|key| !puts.insert(key.clone())) {
                    return None;
                }
                deletes.extend(ranges);
            }
            TxnOp::Range(_) => {}
        }
    }
    let collide = puts
        .iter()
        .any(|key| deletes.iter().any(|range| range.contains(key)));
    (!collide).then_some((puts, deletes))
}
