//! redb as an [`Engine`]: one file, commits without durability, checkpoints in two phases with the
//! allocator's state, so that the next open is quick after any crash.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kine2_mvcc::BackendError;
use parking_lot::RwLock;
use redb::{
    Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition,
    WriteTransaction,
};

use crate::contain::{DropContained, contained};
use crate::engine::{Engine, EngineOptions, Table, View, WriteBatch};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const TABLES: [Table; 3] = [Table::Meta, Table::Data, Table::Cells];

/// Bytes a batch of the copy that defragments may hold.
const COPY_BATCH_BYTES: usize = 4 << 20;

const fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Data => "data",
        Table::Cells => "cells",
    })
}

/// A redb file.
#[derive(Debug)]
pub(crate) struct RedbEngine {
    path: PathBuf,
    cache_bytes: usize,
    /// Replaced when the file is rewritten; views keep the one they were taken of.
    database: RwLock<SharedDatabase>,
}

/// Whoever lets go of it last closes the file.
type SharedDatabase = DropContained<Arc<Database>>;

impl RedbEngine {
    fn database(&self) -> SharedDatabase {
        DropContained::new(Arc::clone(&self.database.read()))
    }
}

impl Engine for RedbEngine {
    /// It is copy-on-write with a commit in two phases, and passed every power cut.
    const TRUSTED_AFTER_CRASH: bool = true;

    type View<'a> = RedbView;
    type Prepared<'a> = WriteTransaction;

    fn open(path: &Path, options: EngineOptions) -> Result<Self, BackendError> {
        let new_path = rewritten(path);
        remove_if_there(&new_path)?;
        let database = if path.try_exists()? {
            contained(|| builder(options).open(path).map_err(failed))?
        } else {
            let database = create(&new_path, options)?;
            rename(&new_path, path)?;
            database
        };
        Ok(Self {
            path: path.to_owned(),
            cache_bytes: options.cache_bytes,
            database: RwLock::new(DropContained::new(Arc::new(database))),
        })
    }

    fn view(&self) -> Result<RedbView, BackendError> {
        let database = self.database();
        let transaction = contained(|| database.begin_read().map_err(failed))?;
        Ok(RedbView {
            transaction: DropContained::new(transaction),
            _database: database,
        })
    }

    fn prepare(&self, batch: &WriteBatch) -> Result<WriteTransaction, BackendError> {
        let database = self.database();
        contained(|| {
            let transaction = begin(&database)?;
            for table in TABLES {
                fill(&transaction, table, batch.of(table))?;
            }
            Ok(transaction)
        })
    }

    fn commit(&self, prepared: WriteTransaction) -> Result<(), BackendError> {
        contained(|| prepared.commit().map_err(failed))
    }

    fn checkpoint(&self) -> Result<(), BackendError> {
        checkpoint(&self.database())
    }

    /// Copies what is visible into a new file, which then takes the old one's name. Readers go on
    /// meanwhile; for a moment both files take space.
    fn defragment(&self) -> Result<(), BackendError> {
        let new_path = rewritten(&self.path);
        remove_if_there(&new_path)?;
        let options = EngineOptions {
            cache_bytes: self.cache_bytes,
            verify: false,
        };
        let new = DropContained::new(Arc::new(create(&new_path, options)?));
        let view = self.view()?;
        for table in TABLES {
            copy(&view, table, &new)?;
        }
        checkpoint(&new)?;
        rename(&new_path, &self.path)?;
        *self.database.write() = new;
        Ok(())
    }

    /// What the file system has given. The length doubles when the file is full and says nothing
    /// of what is stored: by it a quota would be reached at half.
    fn file_bytes(&self) -> Result<u64, BackendError> {
        let metadata = std::fs::metadata(&self.path)?;
        Ok(metadata.len().min(metadata.blocks() * 512))
    }
}

/// A read transaction.
pub(crate) struct RedbView {
    transaction: DropContained<ReadTransaction>,
    /// A database that closes takes its read transactions with it.
    _database: SharedDatabase,
}

impl RedbView {
    fn table(
        &self,
        table: Table,
    ) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, BackendError> {
        self.transaction
            .open_table(definition(table))
            .map_err(failed)
    }
}

impl View for RedbView {
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, BackendError> {
        let found = contained(|| self.table(table)?.get(key).map_err(failed))?;
        let Some(guard) = found else { return Ok(None) };
        let value = contained(|| Ok(guard.value()))?;
        Ok(Some(read(value)))
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, BackendError>,
    ) -> Result<(), BackendError> {
        let mut entries = contained(|| self.table(table)?.range(from..).map_err(failed))?;
        while let Some((key, value)) = contained(|| entries.next().transpose().map_err(failed))? {
            let (key, value) = contained(|| Ok((key.value(), value.value())))?;
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn builder(options: EngineOptions) -> redb::Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(options.cache_bytes)
        .set_check_integrity_on_open(options.verify);
    builder
}

/// A new file with its tables. It gets its name only then, so that in a file that is there an
/// absent table is damage and never taken for a fresh state.
fn create(path: &Path, options: EngineOptions) -> Result<Database, BackendError> {
    contained(|| {
        let database = builder(options).create(path).map_err(failed)?;
        let mut transaction = database.begin_write().map_err(failed)?;
        transaction.set_quick_repair(true);
        for table in TABLES {
            transaction.open_table(definition(table)).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        Ok(database)
    })
}

/// A transaction that becomes visible but not durable.
fn begin(database: &Database) -> Result<WriteTransaction, BackendError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction
        .set_durability(Durability::None)
        .map_err(failed)?;
    Ok(transaction)
}

fn fill<'b>(
    transaction: &WriteTransaction,
    table: Table,
    ops: impl Iterator<Item = (&'b [u8], Option<&'b [Bytes]>)>,
) -> Result<(), BackendError> {
    let mut ops = ops.peekable();
    if ops.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(definition(table)).map_err(failed)?;
    for (key, value) in ops {
        let Some(pieces) = value else {
            table.remove(key).map_err(failed)?;
            continue;
        };
        let len = pieces.iter().map(Bytes::len).sum();
        let mut place = table.insert_reserve(key, len).map_err(failed)?;
        let mut rest = place.as_mut();
        for piece in pieces {
            let (here, after) = rest.split_at_mut(piece.len());
            here.copy_from_slice(piece);
            rest = after;
        }
    }
    Ok(())
}

fn checkpoint(database: &Database) -> Result<(), BackendError> {
    contained(|| {
        let mut transaction = database.begin_write().map_err(failed)?;
        transaction.set_quick_repair(true);
        transaction.commit().map_err(failed)
    })
}

/// Copies one table in batches.
fn copy(view: &RedbView, table: Table, to: &Database) -> Result<(), BackendError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let flush = |batch: &mut Vec<(Vec<u8>, Bytes)>| -> Result<(), BackendError> {
        contained(|| {
            let transaction = begin(to)?;
            let ops = batch
                .iter()
                .map(|(key, value)| (&key[..], Some(std::slice::from_ref(value))));
            fill(&transaction, table, ops)?;
            transaction.commit().map_err(failed)
        })?;
        batch.clear();
        Ok(())
    };
    view.scan(table, &[], |key, value| {
        batch.push((key.to_vec(), Bytes::copy_from_slice(value)));
        bytes += value.len();
        if bytes >= COPY_BATCH_BYTES {
            flush(&mut batch)?;
            bytes = 0;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    flush(&mut batch)
}

fn rewritten(path: &Path) -> PathBuf {
    path.with_extension("redb.new")
}

fn remove_if_there(path: &Path) -> Result<(), BackendError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Renames, durably.
fn rename(from: &Path, to: &Path) -> Result<(), BackendError> {
    std::fs::rename(from, to)?;
    let parent = to.parent().unwrap_or_else(|| Path::new("."));
    Ok(File::open(parent)?.sync_all()?)
}

/// The engine's errors by what the caller can do: the medium failed, or the file is no good.
fn failed(error: impl Into<redb::Error>) -> BackendError {
    match error.into() {
        // A file that ends before what it speaks of was cut.
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            BackendError::Damaged(error.to_string())
        }
        redb::Error::Io(error) => BackendError::Io(error),
        redb::Error::DatabaseAlreadyOpen => BackendError::Io(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another process has the state open",
        )),
        error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed) => {
            BackendError::Io(io::Error::other(error))
        }
        error => BackendError::Damaged(error.to_string()),
    }
}
