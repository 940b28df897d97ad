//! The narrow trait a key-value engine is adapted to; blocks are made of it in
//! [`BlockStore`](crate::block_store::BlockStore).
//!
//! An engine orders keys by their bytes, applies a batch atomically, shows readers a consistent
//! view, and makes things durable only when told. It knows nothing of records.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use kine2_mvcc::{BackendError, ChangeId};

/// What a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Block id → directory of its live records.
    Meta,
    /// Block id → the records themselves.
    Data,
    /// The head and the named cells.
    Cells,
}

/// Puts and deletes that happen together, in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct WriteBatch {
    ops: BTreeMap<(Table, Vec<u8>), Option<Vec<Bytes>>>,
}

impl WriteBatch {
    /// Sets a value, given in pieces that are stored one after the other.
    pub(crate) fn put(&mut self, table: Table, key: &[u8], pieces: Vec<Bytes>) {
        self.ops.insert((table, key.to_vec()), Some(pieces));
    }

    pub(crate) fn delete(&mut self, table: Table, key: &[u8]) {
        self.ops.insert((table, key.to_vec()), None);
    }

    pub(crate) fn put_block(&mut self, id: ChangeId, directory: Bytes, data: Vec<Bytes>) {
        self.put(Table::Meta, &id.to_bytes(), vec![directory]);
        self.put(Table::Data, &id.to_bytes(), data);
    }

    pub(crate) fn delete_block(&mut self, id: ChangeId) {
        self.delete(Table::Meta, &id.to_bytes());
        self.delete(Table::Data, &id.to_bytes());
    }

    /// The operations of one table, ascending; `None` deletes.
    pub(crate) fn of(&self, table: Table) -> impl Iterator<Item = (&[u8], Option<&[Bytes]>)> {
        self.ops
            .range((table, Vec::new())..)
            .take_while(move |((of, _), _)| *of == table)
            .map(|((_, key), value)| (&key[..], value.as_deref()))
    }
}

/// How to open an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineOptions {
    /// Bytes of pages kept in memory.
    pub(crate) cache_bytes: usize,
    /// Whether to check every page first, at the price of reading them all.
    pub(crate) verify: bool,
}

/// An ordered key-value engine.
///
/// One thread writes ([`prepare`](Self::prepare), [`commit`](Self::commit),
/// [`checkpoint`](Self::checkpoint), [`defragment`](Self::defragment)); any thread takes views.
pub(crate) trait Engine: Send + Sync + fmt::Debug + Sized {
    /// Whether a state that it opens after a crash needs no reading through.
    const TRUSTED_AFTER_CRASH: bool;

    /// A consistent state to read.
    type View<'a>: View
    where
        Self: 'a;
    /// A batch that only has to be made visible.
    type Prepared<'a>
    where
        Self: 'a;

    /// Opens what lies at `path`, or makes it.
    fn open(path: &Path, options: EngineOptions) -> Result<Self, BackendError>;

    /// The state as of the last commit. Never waits for a checkpoint.
    fn view(&self) -> Result<Self::View<'_>, BackendError>;

    /// Does the work of a batch that readers need not wait for.
    fn prepare(&self, batch: &WriteBatch) -> Result<Self::Prepared<'_>, BackendError>;

    /// Makes the batch visible, not yet durable.
    fn commit(&self, prepared: Self::Prepared<'_>) -> Result<(), BackendError>;

    /// Makes everything committed durable.
    fn checkpoint(&self) -> Result<(), BackendError>;

    /// Gives space back to the file system; what is visible stays the same and becomes durable.
    fn defragment(&self) -> Result<(), BackendError>;

    /// Bytes of the files.
    fn file_bytes(&self) -> Result<u64, BackendError>;
}

/// A consistent state of an engine.
pub(crate) trait View {
    /// Hands the value of `key` to `read`, if there is one.
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, BackendError>;

    /// Hands the entries at `from` and above to `visit`, ascending, until it breaks.
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, BackendError>,
    ) -> Result<(), BackendError>;
}
