//! A model of a backend, and batches made from a seed.

use std::collections::BTreeMap;

use bytes::Bytes;
use kine2_mvcc::{
    Backend, Change, ChangeId, Held, KeyRange, KeyValue, LogPosition, Record, Revision, StateBatch,
};

/// splitmix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// What a backend should hold.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) held: Held,
    pub(crate) records: BTreeMap<ChangeId, Record>,
}

impl Default for Model {
    fn default() -> Self {
        let held = Held {
            revision: Revision::FRESH,
            ..Held::default()
        };
        Self {
            held,
            records: BTreeMap::new(),
        }
    }
}

impl Model {
    pub(crate) fn apply(&mut self, batch: &StateBatch) {
        self.held.applied = batch.applied;
        self.held.revision = batch.revision;
        let added = batch.changes.iter().cloned();
        self.records
            .extend(added.map(|change| (change.id, change.record)));
        self.records.retain(|id, _| !batch.removed.contains(id));
        for (name, value) in &batch.cells {
            match value {
                Some(value) => self.held.cells.insert(name.clone(), value.clone()),
                None => self.held.cells.remove(name),
            };
        }
    }

    /// Compares everything that can be read.
    #[track_caller]
    pub(crate) fn check(&self, backend: &dyn Backend) {
        assert_eq!(backend.held().unwrap(), self.held);
        let mut expected = self.records.iter();
        backend
            .metas(&mut |meta| {
                let (id, record) = expected.next().expect("no more than in the model");
                let fields = record.view();
                assert_eq!(meta.id, *id);
                assert_eq!(meta.key, fields.key, "key of {id}");
                assert_eq!(meta.create_revision, fields.create_revision);
                assert_eq!((meta.version, meta.lease), (fields.version, fields.lease));
                assert_eq!(usize::try_from(meta.record_len).unwrap(), record.len());
            })
            .unwrap();
        assert_eq!(expected.next(), None, "the model has more");
        for (id, record) in &self.records {
            assert_eq!(backend.get(*id).unwrap().as_ref(), Some(record), "{id}");
            let beside = ChangeId {
                sub: id.sub + 1,
                ..*id
            };
            assert_eq!(
                backend.get(beside).unwrap().as_ref(),
                self.records.get(&beside)
            );
        }
        assert_eq!(backend.get(ChangeId::default()).unwrap(), None);
    }

    /// Reads history page by page and compares.
    #[track_caller]
    pub(crate) fn check_history(
        &self,
        backend: &dyn Backend,
        range: &KeyRange,
        (from, until): (i64, i64),
        limit: usize,
    ) {
        let expected: Vec<Change> = self
            .records
            .iter()
            .filter(|(id, record)| {
                (from..until).contains(&id.main.0) && range.contains(record.view().key)
            })
            .map(|(id, record)| Change {
                id: *id,
                record: record.clone(),
            })
            .collect();
        let (mut found, mut next) = (Vec::new(), Some(Revision(from)));
        while let Some(start) = next {
            let page = backend
                .history(range, start, Revision(until), limit)
                .unwrap();
            let bytes: usize = page.changes.iter().map(|c| c.record.len()).sum();
            let mains = page.changes.chunk_by(|a, b| a.id.main == b.id.main).count();
            assert!(bytes <= limit || mains <= 1, "{bytes} of {limit}");
            if let Some(next) = page.next {
                assert!(next > start && next.0 < until, "it goes on");
                assert!(page.changes.iter().all(|c| c.id.main < next));
            }
            found.extend(page.changes);
            next = page.next;
        }
        assert_eq!(found, expected);
    }
}

/// How large the values of a workload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    Small,
    Mixed,
    Kilobyte,
}

/// Batches made from a seed: the same ones in every process.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    random: Random,
    sizes: Sizes,
    keys: usize,
    pub(crate) model: Model,
    /// Newest change and version of each key; version 0 for a deleted one.
    newest: BTreeMap<Vec<u8>, (ChangeId, i64, i64)>,
}

impl Workload {
    pub(crate) fn new(seed: u64, sizes: Sizes, keys: usize) -> Self {
        Self {
            random: Random(seed),
            sizes,
            keys,
            model: Model::default(),
            newest: BTreeMap::new(),
        }
    }

    /// The batch of the next log entry, already applied to the model: up to `changes_max` changes,
    /// some cells, and with a chance of `compact_percent` the removal of changes that were
    /// overwritten.
    pub(crate) fn batch(&mut self, changes_max: usize, compact_percent: usize) -> StateBatch {
        let mut batch = StateBatch {
            applied: LogPosition {
                epoch: 1,
                run: 1,
                index: self.model.held.applied.index + 1,
            },
            revision: self.model.held.revision,
            ..StateBatch::default()
        };
        for _ in 0..self.random.below(changes_max + 1) {
            let id = match batch.changes.last() {
                Some(last) if self.random.chance(30) => ChangeId {
                    sub: last.id.sub + 1,
                    ..last.id
                },
                _ => ChangeId::first_of(batch.revision.next()),
            };
            batch.revision = id.main;
            let record = self.record(id);
            batch.changes.push(Change { id, record });
        }
        for _ in 0..self.random.below(3) {
            let name = Bytes::from(format!("cell {}", self.random.below(20)));
            let len = self.random.below(30);
            let value = self
                .random
                .chance(70)
                .then(|| self.random.bytes(len).into());
            batch.cells.insert(name, value);
        }
        if self.random.chance(compact_percent) {
            let share = [5, 50, 90, 100][self.random.below(4)];
            let all = self.model.records.iter().map(|(id, record)| (*id, record));
            let new = batch.changes.iter().map(|c| (c.id, &c.record));
            for (id, record) in all.chain(new) {
                let key = record.view().key;
                let (newest, version, _) = self.newest[key];
                let dead = id != newest || version == 0;
                if dead && self.random.chance(share) {
                    batch.removed.push(id);
                }
            }
        }
        self.model.apply(&batch);
        batch
    }

    fn record(&mut self, id: ChangeId) -> Record {
        let key = format!("/registry/things/{:05}", self.random.below(self.keys)).into_bytes();
        let (_, version, created) = self.newest.get(&key).copied().unwrap_or((id, 0, 0));
        if version > 0 && self.random.chance(15) {
            self.newest.insert(key.clone(), (id, 0, 0));
            return Record::tombstone(&key, id.main.0);
        }
        let created = if version > 0 { created } else { id.main.0 };
        self.newest.insert(key.clone(), (id, version + 1, created));
        let len = match self.sizes {
            Sizes::Small => self.random.below(60),
            Sizes::Kilobyte => 1024,
            Sizes::Mixed => match self.random.below(100) {
                0 => self.random.below(400_000),
                1..10 => self.random.below(20_000),
                _ => self.random.below(1_500),
            },
        };
        let value = self.random.bytes(len);
        let lease = if self.random.chance(20) { 77 } else { 0 };
        KeyValue {
            key: &key,
            create_revision: created,
            mod_revision: id.main.0,
            version: version + 1,
            value: &value,
            lease,
        }
        .to_record()
    }
}
