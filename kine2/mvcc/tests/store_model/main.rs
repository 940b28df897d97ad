//! The store against a model that keeps a copy of everything for every revision: random commands,
//! reads at random revisions, batches that reach the backend late, restarts from any checkpoint.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod backend;
mod model;
mod mutations;

use std::sync::Arc;

use backend::Shelf;
use bytes::Bytes;
use kine2_mvcc::{
    Answer, Command, Compact, Compare, Delete, HashJob, KeyRange, LeaseGrant, LogPosition, Operand,
    Put, RangeQuery, ReadError, Refusal, Relation, Revision, RevisionBounds, Sort, SortBy, Store,
    StoreOptions, Txn, TxnOp,
};
use model::{Model, passes_duplicate_check, record};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Txn(Txn),
    Grant(i64),
    Revoke(i64),
    Compact(i64),
    Read(RangeQuery),
    /// The backend applies what there is.
    Save,
    /// A slice of a compaction.
    Step,
    /// Back to what the backend holds, and the log again from there.
    Restart,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0)], 1..4).prop_map(Bytes::from)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    let end =
        prop_oneof![3 => Just(Bytes::new()), 1 => Just(Bytes::from_static(b"\0")), 3 => key()];
    (key(), end).prop_map(|(start, end)| KeyRange::from_wire(start, end))
}

fn put() -> impl Strategy<Value = Put> {
    let value = prop_oneof![Just(Bytes::new()), key()];
    (
        key(),
        value,
        prop_oneof![4 => Just(0), 1 => 1i64..4],
        any::<bool>(),
        0u8..6,
    )
        .prop_map(|(key, value, lease, prev_kv, flags)| {
            let (ignore_value, ignore_lease) = (flags == 4, flags == 5);
            let value = if ignore_value { Bytes::new() } else { value };
            let lease = if ignore_lease { 0 } else { lease };
            Put {
                key,
                value,
                lease,
                prev_kv,
                ignore_value,
                ignore_lease,
            }
        })
}

fn query() -> impl Strategy<Value = RangeQuery> {
    let sort = prop_oneof![
        3 => Just(None),
        2 => (0usize..5, any::<bool>()).prop_map(|(by, descending)| {
            let by = [SortBy::Key, SortBy::Version, SortBy::Create, SortBy::Mod, SortBy::Value][by];
            Some(Sort { by, descending })
        }),
    ];
    let bound = || prop_oneof![6 => Just(0i64), 1 => 1i64..20];
    let bounds = (bound(), bound(), bound(), bound());
    let revision = prop_oneof![3 => Just(0i64), 3 => 1i64..40, 1 => -5i64..0];
    (key_range(), revision, -1i64..5, sort, 0u8..5, bounds).prop_map(
        |(range, revision, limit, sort, flags, (min_mod, max_mod, min_create, max_create))| {
            let bounds = RevisionBounds {
                min_mod,
                max_mod,
                min_create,
                max_create,
            };
            let (keys_only, count_only) = (flags == 3, flags == 4);
            RangeQuery {
                range,
                revision,
                limit,
                sort,
                keys_only,
                count_only,
                uncounted: false,
                bounds,
            }
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation = prop_oneof![
        Just(Relation::Equal),
        Just(Relation::NotEqual),
        Just(Relation::Greater),
        Just(Relation::Less)
    ];
    let operand = prop_oneof![
        (0i64..3).prop_map(Operand::Version),
        (0i64..15).prop_map(Operand::Create),
        (0i64..15).prop_map(Operand::Mod),
        (0i64..4).prop_map(Operand::Lease),
        key().prop_map(Operand::Value),
    ];
    (key_range(), relation, operand).prop_map(|(range, relation, operand)| Compare {
        range,
        relation,
        operand,
    })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        4 => put().prop_map(TxnOp::Put),
        1 => (key_range(), any::<bool>()).prop_map(|(range, prev_kv)| TxnOp::Delete(Delete { range, prev_kv })),
        1 => query().prop_map(TxnOp::Range),
    ];
    let level = |op: BoxedStrategy<TxnOp>| {
        let ops = || prop::collection::vec(op.clone(), 0..4);
        (prop::collection::vec(compare(), 0..2), ops(), ops()).prop_map(
            |(compares, success, failure)| Txn {
                compares,
                success,
                failure,
            },
        )
    };
    let inner = level(leaf.clone().boxed());
    let op = prop_oneof![4 => leaf, 1 => inner.prop_map(TxnOp::Txn)];
    level(op.boxed()).prop_filter("a static check refuses it", passes_duplicate_check)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => txn().prop_map(Op::Txn),
        1 => (1i64..4).prop_map(Op::Grant),
        1 => (1i64..4).prop_map(Op::Revoke),
        1 => (-1i64..30).prop_map(Op::Compact),
        6 => query().prop_map(Op::Read),
        3 => Just(Op::Save),
        3 => Just(Op::Step),
        1 => Just(Op::Restart),
    ]
}

/// The store with its log and backend.
struct Subject {
    store: Store,
    shelf: Arc<Shelf>,
    log: Vec<Command>,
}

impl Subject {
    fn new() -> Self {
        let shelf = Arc::new(Shelf::default());
        Self {
            store: open(&shelf),
            shelf,
            log: Vec::new(),
        }
    }

    fn apply(&mut self, command: Command) -> Result<Answer, Refusal> {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        assert_eq!(Command::decode(&bytes).as_ref(), Ok(&command));
        self.log.push(command);
        self.apply_logged(self.log.len())
    }

    fn apply_logged(&mut self, index: usize) -> Result<Answer, Refusal> {
        let position = LogPosition {
            epoch: 1,
            run: 1,
            index: index as u64,
        };
        let applied = self.store.apply(position, &self.log[index - 1]).unwrap();
        applied.map(|applied| {
            assert_eq!(applied.revision, self.store.revision());
            applied.answer
        })
    }

    fn save(&mut self) {
        if let Some(batch) = self.store.take_batch() {
            self.shelf.put(&batch);
            self.store
                .batch_applied(batch.revision, batch.record_bytes());
        }
    }

    fn restart(&mut self) {
        self.store = open(&self.shelf);
        let from = usize::try_from(self.store.applied().index).unwrap();
        for index in from + 1..=self.log.len() {
            let _ = self.apply_logged(index);
        }
    }

    fn hash(&self, revision: i64) -> Result<u32, Refusal> {
        let mut job = HashJob::start(&self.store, Revision(revision))?;
        loop {
            match job.step(&self.store) {
                Ok(Some(hash)) => return Ok(hash.hash),
                Ok(None) => {}
                Err(ReadError::Refused(refusal)) => return Err(refusal),
                Err(ReadError::Backend(error)) => panic!("{error}"),
            }
        }
    }
}

fn open(shelf: &Arc<Shelf>) -> Store {
    // Small bounds, so that reads come from the backend, the ring and the cache alike.
    let options = StoreOptions {
        cache_bytes: 200,
        ring_events_max: 4,
        ring_bytes_max: 1_000,
    };
    Store::open(Arc::clone(shelf) as _, options).unwrap()
}

fn read(subject: &mut Subject, model: &Model, query: &RangeQuery) {
    let found = match subject.store.range(query) {
        Ok(answer) => Ok(answer),
        Err(ReadError::Refused(refusal)) => Err(refusal),
        Err(ReadError::Backend(error)) => panic!("{error}"),
    };
    assert_eq!(
        found,
        model.range(query),
        "{query:?} at {}",
        model.revision()
    );
}

/// Every key at every revision that is kept.
fn read_all(subject: &mut Subject, model: &Model) {
    for revision in model.compacted.max(1)..=model.revision() {
        let all = KeyRange::from_wire(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
        for (limit, count_only) in [(0, false), (2, false), (0, true)] {
            let query = RangeQuery {
                revision,
                limit,
                count_only,
                ..RangeQuery::all(all.clone())
            };
            read(subject, model, &query);
        }
        let page = RangeQuery {
            revision,
            limit: 2,
            ..RangeQuery::all(all)
        };
        let counted = subject.store.range(&page).unwrap();
        let uncounted = RangeQuery {
            uncounted: true,
            ..page
        };
        let uncounted = subject.store.range(&uncounted).unwrap();
        assert_eq!(
            (uncounted.records, uncounted.more),
            (counted.records, counted.more)
        );
    }
}

fn run(ops: Vec<Op>) {
    let (mut subject, mut model) = (Subject::new(), Model::new());
    for op in ops {
        match op {
            Op::Txn(txn) => {
                let before = model.events.len();
                let expected = model.txn(&txn).map(Answer::Txn);
                let revision = model.revision();
                assert_eq!(subject.apply(Command::Txn(txn)), expected);
                let seen: Vec<_> = subject
                    .store
                    .events_since(Revision(revision))
                    .map(|event| event.record().clone())
                    .collect();
                let told = model.events[before..]
                    .iter()
                    .map(|(revision, key, now, _)| match now {
                        Some(item) => record(key, item),
                        None => kine2_mvcc::Record::tombstone(key, *revision),
                    });
                if model.events.len() > before {
                    assert_eq!(seen, told.collect::<Vec<_>>());
                }
            }
            Op::Grant(id) => {
                let fresh = model.leases.insert(id, 60).is_none();
                let grant = LeaseGrant {
                    id,
                    ttl_seconds: 60,
                };
                let expected = if fresh {
                    Ok(Answer::LeaseGranted(grant))
                } else {
                    Err(Refusal::LeaseExists)
                };
                assert_eq!(subject.apply(Command::LeaseGrant(grant)), expected);
            }
            Op::Revoke(id) => {
                let expected = model.revoke(id).map(|()| Answer::LeaseRevoked);
                assert_eq!(subject.apply(Command::LeaseRevoke { id }), expected);
            }
            Op::Compact(revision) => {
                let expected = model.compact(revision).map(|()| Answer::Compacted);
                let compact = Compact {
                    revision,
                    physical: false,
                };
                assert_eq!(subject.apply(Command::Compact(compact)), expected);
            }
            Op::Read(query) => read(&mut subject, &model, &query),
            Op::Save => subject.save(),
            Op::Step => subject.store.compact_step(),
            Op::Restart => subject.restart(),
        }
        assert_eq!(subject.store.revision(), Revision(model.revision()));
    }
    for (id, ttl) in &model.leases {
        assert_eq!(subject.store.lease_ttl(*id), Some(*ttl));
        let attached = model.keys().iter().filter(|(_, item)| item.lease == *id);
        let attached: Vec<Bytes> = attached.map(|(key, _)| key.clone()).collect();
        assert_eq!(subject.store.lease_keys(*id), attached);
    }
    read_all(&mut subject, &model);
    let (newest, oldest) = (subject.hash(0), subject.hash(model.compacted.max(1)));
    while subject.store.compacting() {
        subject.store.compact_step();
        subject.save();
    }
    read_all(&mut subject, &model);
    subject.save();
    subject.restart();
    read_all(&mut subject, &model);
    assert_eq!(
        (subject.hash(0), subject.hash(model.compacted.max(1))),
        (newest, oldest)
    );
    assert_eq!(subject.store.unsaved_bytes(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_store_does_what_the_model_does(ops in prop::collection::vec(op(), 0..60)) {
        run(ops);
    }
}

#[test]
fn reads_alone_keep_to_the_budget_of_the_cache() {
    let budget = StoreOptions {
        cache_bytes: 1_000,
        ..StoreOptions::default()
    };
    let shelf = Arc::new(Shelf::default());
    let mut store = Store::open(Arc::clone(&shelf) as _, budget).unwrap();
    for n in 0..100u8 {
        let command = Command::Put(Put {
            key: vec![b'k', n].into(),
            value: vec![n; 100].into(),
            ..Put::default()
        });
        let position = LogPosition {
            epoch: 1,
            run: 1,
            index: u64::from(n) + 1,
        };
        store.apply(position, &command).unwrap().unwrap();
    }
    shelf.put(&store.take_batch().unwrap());
    drop(store);
    let mut store = Store::open(Arc::clone(&shelf) as _, budget).unwrap();
    let all = RangeQuery::all(KeyRange::from_wire("k".into(), "l".into()));
    for _ in 0..3 {
        assert_eq!(store.range(&all).unwrap().records.len(), 100);
        assert!(store.stats().cache_bytes <= 1_000, "{:?}", store.stats());
    }
    store.set_caching(false);
    assert_eq!(store.range(&all).unwrap().records.len(), 100);
    let put = Command::Put(Put {
        key: b"new".as_slice().into(),
        ..Put::default()
    });
    let before = store.stats().cache_bytes;
    let index = store.applied().index + 1;
    let position = LogPosition {
        epoch: 1,
        run: 1,
        index,
    };
    store.apply(position, &put).unwrap().unwrap();
    assert!(store.stats().cache_bytes <= before, "nothing is added");
}
