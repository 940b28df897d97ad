//! A backend in memory that can crash: what is live and what is durable are kept apart.

use std::collections::BTreeMap;

use kine2_mvcc::{
    Backend, BackendError, BackendStats, Change, ChangeId, Held, HistoryPage, KeyRange,
    LogPosition, Meta, Record, Revision, StateBatch,
};
use parking_lot::RwLock;

use crate::history::Pager;

/// A backend in memory, for tests and simulations.
#[derive(Debug, Default)]
pub struct MemBackend {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    live: State,
    durable: State,
    /// What was durable before the last checkpoint.
    before: Option<State>,
    /// What `live` has and `durable` has not.
    since_checkpoint: Vec<StateBatch>,
}

#[derive(Clone, Debug)]
struct State {
    held: Held,
    records: BTreeMap<ChangeId, Record>,
}

impl MemBackend {
    /// Another backend that holds what is durable in this one, as an image of its disk does.
    #[must_use]
    pub fn image(&self) -> Self {
        let durable = self.inner.read().durable.clone();
        let inner = Inner {
            live: durable.clone(),
            durable,
            before: None,
            since_checkpoint: Vec::new(),
        };
        Self {
            inner: RwLock::new(inner),
        }
    }

    /// Falls back to the last checkpoint, as a crash does at worst.
    pub fn crash(&self) {
        let mut inner = self.inner.write();
        inner.since_checkpoint.clear();
        inner.live = inner.durable.clone();
    }

    /// Falls back to the checkpoint before the last, if there was one that held anything: an
    /// engine that finds its newest one torn does so. Answers whether it did.
    pub fn crash_further(&self) -> bool {
        let before = self.inner.write().before.take();
        let before = before.filter(|before| before.held.applied != LogPosition::default());
        let falls = before.is_some();
        if let Some(before) = before {
            self.inner.write().durable = before;
        }
        self.crash();
        falls
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            held: Held {
                revision: Revision::FRESH,
                ..Held::default()
            },
            records: BTreeMap::new(),
        }
    }
}

impl State {
    fn apply(&mut self, batch: &StateBatch) {
        self.held.applied = batch.applied;
        self.held.revision = batch.revision;
        for change in &batch.changes {
            let last = self.records.last_key_value();
            assert!(
                last.is_none_or(|(last, _)| *last < change.id),
                "changes ascend"
            );
            self.records.insert(change.id, change.record.clone());
        }
        for id in &batch.removed {
            self.records.remove(id);
        }
        for (name, value) in &batch.cells {
            match value {
                Some(value) => self.held.cells.insert(name.clone(), value.clone()),
                None => self.held.cells.remove(name),
            };
        }
    }
}

impl Backend for MemBackend {
    fn held(&self) -> Result<Held, BackendError> {
        Ok(self.inner.read().live.held.clone())
    }

    fn apply(&self, batch: &StateBatch) -> Result<(), BackendError> {
        let mut inner = self.inner.write();
        inner.live.apply(batch);
        inner.since_checkpoint.push(batch.clone());
        Ok(())
    }

    fn checkpoint(&self) -> Result<LogPosition, BackendError> {
        let mut inner = self.inner.write();
        let Inner {
            durable,
            before,
            since_checkpoint,
            ..
        } = &mut *inner;
        *before = Some(durable.clone());
        for batch in since_checkpoint.drain(..) {
            durable.apply(&batch);
        }
        Ok(inner.durable.held.applied)
    }

    fn get(&self, id: ChangeId) -> Result<Option<Record>, BackendError> {
        Ok(self.inner.read().live.records.get(&id).cloned())
    }

    fn metas(&self, visit: &mut dyn FnMut(Meta<'_>)) -> Result<(), BackendError> {
        for (id, record) in &self.inner.read().live.records {
            let fields = record.view();
            visit(Meta {
                id: *id,
                key: fields.key,
                create_revision: fields.create_revision,
                version: fields.version,
                lease: fields.lease,
                record_len: u32::try_from(record.len()).expect("a record is far below 4 GiB"),
            });
        }
        Ok(())
    }

    fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        until: Revision,
        limit_bytes: usize,
    ) -> Result<HistoryPage, BackendError> {
        let mut pager = Pager::new(until, limit_bytes);
        let inner = self.inner.read();
        for (id, record) in inner.live.records.range(ChangeId::first_of(from)..) {
            let found = range.contains(record.view().key).then(|| {
                let record = record.clone();
                let len = record.len();
                (Change { id: *id, record }, len)
            });
            if pager.offer(*id, found).is_break() {
                break;
            }
        }
        let (changes, next) = pager.finish();
        Ok(HistoryPage { changes, next })
    }

    fn defragment(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn stats(&self) -> Result<BackendStats, BackendError> {
        let records = &self.inner.read().live.records;
        let bytes: usize = records.values().map(Record::len).sum();
        let bytes = u64::try_from(bytes).expect("64 bits");
        Ok(BackendStats {
            file_bytes: bytes,
            used_bytes: bytes,
        })
    }
}
