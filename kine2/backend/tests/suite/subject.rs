//! A backend under test and where it lies.

use std::path::Path;
use std::sync::Arc;

use kine2_backend::mem::MemBackend;
use kine2_backend::{Backend, EngineKind, Options, open};
use kine2_mvcc::StateBatch;
use tempfile::TempDir;

use crate::common::Model;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mem,
    Disk(EngineKind),
}

impl Kind {
    pub(crate) fn all() -> Vec<Self> {
        let disk = EngineKind::ALL.iter().map(|kind| Self::Disk(*kind));
        std::iter::once(Self::Mem).chain(disk).collect()
    }
}

/// A backend with the models of every batch it may be found at after a restart.
#[derive(Debug)]
pub(crate) struct Subject {
    kind: Kind,
    dir: TempDir,
    mem: Option<Arc<MemBackend>>,
    backend: Option<Arc<dyn Backend>>,
    /// From the last checkpoint to now.
    models: Vec<Model>,
}

impl Subject {
    pub(crate) fn new(kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mem = (kind == Kind::Mem).then(|| Arc::new(MemBackend::default()));
        let mut subject = Self {
            kind,
            dir,
            mem,
            backend: None,
            models: vec![Model::default()],
        };
        subject.open();
        subject
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &**self.backend.as_ref().unwrap()
    }

    pub(crate) fn shared(&self) -> Arc<dyn Backend> {
        Arc::clone(self.backend.as_ref().unwrap())
    }

    pub(crate) fn model(&self) -> &Model {
        self.models.last().unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn apply(&mut self, batch: &StateBatch) {
        self.backend().apply(batch).unwrap();
        let mut model = self.model().clone();
        model.apply(batch);
        self.models.push(model);
    }

    pub(crate) fn checkpoint(&mut self) {
        let durable = self.backend().checkpoint().unwrap();
        assert_eq!(durable, self.model().held.applied);
        self.models.drain(..self.models.len() - 1);
    }

    /// Closes and opens: what is there is the state of one of the batches since the checkpoint.
    pub(crate) fn restart(&mut self) {
        self.close();
        self.open();
        let found = self.backend().held().unwrap().applied;
        let at = self.models.iter().position(|m| m.held.applied == found);
        let at = at.unwrap_or_else(|| panic!("{found:?} is not since the checkpoint"));
        self.models.truncate(at + 1);
        self.check();
    }

    pub(crate) fn close(&mut self) {
        self.backend = None;
        if let Some(mem) = &self.mem {
            mem.crash();
        }
    }

    pub(crate) fn open(&mut self) {
        self.backend = Some(match self.kind {
            Kind::Mem => Arc::clone(self.mem.as_ref().unwrap()) as Arc<dyn Backend>,
            Kind::Disk(engine) => open(self.path(), &options(engine)).unwrap(),
        });
    }

    #[track_caller]
    pub(crate) fn check(&self) {
        self.model().check(self.backend());
    }
}

/// A small cache, so that pages go to the file and come back.
pub(crate) fn options(engine: EngineKind) -> Options {
    Options {
        engine,
        cache_bytes: 256 << 10,
        ..Options::default()
    }
}
