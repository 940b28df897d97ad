//! An [`Engine`] in memory: what the fuzzer lays blocks over.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kine2_mvcc::BackendError;
use parking_lot::RwLock;

use crate::engine::{Engine, EngineOptions, Table, View, WriteBatch};

type Entries = BTreeMap<(Table, Vec<u8>), Bytes>;

/// A map; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct MapEngine(Arc<RwLock<Arc<Entries>>>);

impl Engine for MapEngine {
    const TRUSTED_AFTER_CRASH: bool = true;

    type View<'a> = Arc<Entries>;
    type Prepared<'a> = Arc<Entries>;

    fn open(_path: &Path, _options: EngineOptions) -> Result<Self, BackendError> {
        Ok(Self::default())
    }

    fn view(&self) -> Result<Arc<Entries>, BackendError> {
        Ok(Arc::clone(&self.0.read()))
    }

    fn prepare(&self, batch: &WriteBatch) -> Result<Arc<Entries>, BackendError> {
        let mut entries = Entries::clone(&self.0.read());
        for table in [Table::Meta, Table::Data, Table::Cells] {
            for (key, value) in batch.of(table) {
                let key = (table, key.to_vec());
                match value {
                    Some(pieces) => entries.insert(key, pieces.concat().into()),
                    None => entries.remove(&key),
                };
            }
        }
        Ok(Arc::new(entries))
    }

    fn commit(&self, prepared: Arc<Entries>) -> Result<(), BackendError> {
        *self.0.write() = prepared;
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn defragment(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn file_bytes(&self) -> Result<u64, BackendError> {
        Ok(0)
    }
}

impl View for Arc<Entries> {
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, BackendError> {
        let value = Entries::get(self, &(table, key.to_vec()));
        Ok(value.map(|value| read(value)))
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, BackendError>,
    ) -> Result<(), BackendError> {
        for ((of, key), value) in self.range((table, from.to_vec())..) {
            if *of != table || visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
