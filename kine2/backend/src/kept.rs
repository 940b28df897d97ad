//! A backend with its [notes](crate::notes): what every open state on disk is.

use std::path::Path;

use kine2_mvcc::{
    Backend, BackendError, BackendStats, ChangeId, Held, HistoryPage, KeyRange, LogPosition, Meta,
    Record, Revision, StateBatch,
};
use parking_lot::Mutex;

use crate::notes::{Promise, Unproven};

/// A backend that notes how it fares.
#[derive(Debug)]
pub(crate) struct Kept<B> {
    backend: B,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    unproven: Unproven,
    promise: Promise,
}

impl<B: Backend> Kept<B> {
    /// Takes over a backend that was opened under the mark.
    ///
    /// # Errors
    /// If it is older than it promised to be.
    pub(crate) fn new(backend: B, dir: &Path, unproven: Unproven) -> Result<Self, BackendError> {
        let promise = Promise::read(dir)?;
        promise.check(backend.held()?.applied)?;
        Ok(Self {
            backend,
            notes: Mutex::new(Notes { unproven, promise }),
        })
    }

    /// Has the next open check everything if this call met damage.
    fn noted<T>(&self, result: Result<T, BackendError>) -> Result<T, BackendError> {
        if let Err(BackendError::Damaged(_)) = &result {
            self.notes.lock().unproven.doubt();
        }
        result
    }
}

impl<B: Backend> Backend for Kept<B> {
    fn held(&self) -> Result<Held, BackendError> {
        self.noted(self.backend.held())
    }

    fn apply(&self, batch: &StateBatch) -> Result<(), BackendError> {
        self.noted(self.backend.apply(batch))
    }

    fn checkpoint(&self) -> Result<LogPosition, BackendError> {
        let durable = self.noted(self.backend.checkpoint())?;
        let mut notes = self.notes.lock();
        notes.promise.give(durable)?;
        notes.unproven.prove()?;
        Ok(durable)
    }

    fn get(&self, id: ChangeId) -> Result<Option<Record>, BackendError> {
        self.noted(self.backend.get(id))
    }

    fn metas(&self, visit: &mut dyn FnMut(Meta<'_>)) -> Result<(), BackendError> {
        self.noted(self.backend.metas(visit))
    }

    fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        until: Revision,
        limit_bytes: usize,
    ) -> Result<HistoryPage, BackendError> {
        self.noted(self.backend.history(range, from, until, limit_bytes))
    }

    fn defragment(&self) -> Result<(), BackendError> {
        self.noted(self.backend.defragment())
    }

    fn stats(&self) -> Result<BackendStats, BackendError> {
        self.noted(self.backend.stats())
    }
}
