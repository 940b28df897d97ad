//! A backend in a map, which applies a batch only when the test says so.

use std::collections::BTreeMap;
use std::sync::Mutex;

use kine2_mvcc::{
    Backend, BackendError, BackendStats, Change, ChangeId, Held, HistoryPage, KeyRange,
    LogPosition, Meta, Record, Revision, StateBatch,
};

#[derive(Debug)]
pub(crate) struct Shelf(Mutex<(Held, BTreeMap<ChangeId, Record>)>);

impl Default for Shelf {
    fn default() -> Self {
        let held = Held {
            revision: Revision::FRESH,
            ..Held::default()
        };
        Self(Mutex::new((held, BTreeMap::new())))
    }
}

impl Shelf {
    pub(crate) fn put(&self, batch: &StateBatch) {
        let (held, records) = &mut *self.0.lock().unwrap();
        (held.applied, held.revision) = (batch.applied, batch.revision);
        records.extend(
            batch
                .changes
                .iter()
                .map(|change| (change.id, change.record.clone())),
        );
        assert!(batch.removed.is_sorted(), "removals ascend");
        for id in &batch.removed {
            assert!(records.remove(id).is_some(), "{id} is removed once");
        }
        for (name, value) in &batch.cells {
            match value {
                Some(value) => held.cells.insert(name.clone(), value.clone()),
                None => held.cells.remove(name),
            };
        }
    }
}

impl Backend for Shelf {
    fn held(&self) -> Result<Held, BackendError> {
        Ok(self.0.lock().unwrap().0.clone())
    }

    fn apply(&self, batch: &StateBatch) -> Result<(), BackendError> {
        self.put(batch);
        Ok(())
    }

    fn checkpoint(&self) -> Result<LogPosition, BackendError> {
        Ok(self.0.lock().unwrap().0.applied)
    }

    fn get(&self, id: ChangeId) -> Result<Option<Record>, BackendError> {
        Ok(self.0.lock().unwrap().1.get(&id).cloned())
    }

    fn metas(&self, visit: &mut dyn FnMut(Meta<'_>)) -> Result<(), BackendError> {
        for (id, record) in &self.0.lock().unwrap().1 {
            let fields = record.view();
            visit(Meta {
                id: *id,
                key: fields.key,
                create_revision: fields.create_revision,
                version: fields.version,
                lease: fields.lease,
                record_len: u32::try_from(record.len()).unwrap(),
            });
        }
        Ok(())
    }

    fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        until: Revision,
        _limit_bytes: usize,
    ) -> Result<HistoryPage, BackendError> {
        let held = self.0.lock().unwrap();
        let within = held
            .1
            .range(ChangeId::first_of(from)..ChangeId::first_of(until));
        let changes = within
            .filter(|(_, record)| range.contains(record.view().key))
            .map(|(id, record)| Change {
                id: *id,
                record: record.clone(),
            })
            .collect();
        Ok(HistoryPage {
            changes,
            next: None,
        })
    }

    fn defragment(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn stats(&self) -> Result<BackendStats, BackendError> {
        Ok(BackendStats::default())
    }
}
