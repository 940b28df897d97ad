//! sled 0.34 as an [`Engine`]: one tree, a letter before each key for its table.
//!
//! Its `flush` asks the kernel for write-back only, so a checkpoint syncs its files afterwards.
//! After a power cut it may still refuse, panic, or show another state than the last one; so all
//! that it holds is verified when it is opened, and any doubt is [`BackendError::Damaged`].

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kine2_mvcc::BackendError;
use parking_lot::{RwLock, RwLockReadGuard};

use crate::contain::{DropContained, contained};
use crate::engine::{Engine, EngineOptions, Table, View, WriteBatch};

/// Longest wait for sled's own threads to let go of a directory.
const RELEASE_MAX: Duration = Duration::from_secs(2);
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// A sled directory.
#[derive(Debug)]
pub(crate) struct SledEngine {
    path: PathBuf,
    db: DropContained<sled::Db>,
    /// Held by views and, alone, by a commit: sled's own reads are not of one state.
    state: RwLock<()>,
}

impl Engine for SledEngine {
    const TRUSTED_AFTER_CRASH: bool = false;

    type View<'a> = SledView<'a>;
    type Prepared<'a> = sled::Batch;

    fn open(path: &Path, options: EngineOptions) -> Result<Self, BackendError> {
        let cache_bytes = u64::try_from(options.cache_bytes).expect("64 bits");
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None);
        Ok(Self {
            path: path.to_owned(),
            db: DropContained::new(open_released(&config)?),
            state: RwLock::new(()),
        })
    }

    fn view(&self) -> Result<SledView<'_>, BackendError> {
        Ok(SledView {
            db: &self.db,
            _state: self.state.read(),
        })
    }

    fn prepare(&self, batch: &WriteBatch) -> Result<sled::Batch, BackendError> {
        let mut prepared = sled::Batch::default();
        for table in [Table::Meta, Table::Data, Table::Cells] {
            for (key, value) in batch.of(table) {
                match value {
                    Some(pieces) => prepared.insert(with_letter(table, key), pieces.concat()),
                    None => prepared.remove(with_letter(table, key)),
                }
            }
        }
        Ok(prepared)
    }

    fn commit(&self, prepared: sled::Batch) -> Result<(), BackendError> {
        let _state = self.state.write();
        guarded(|| self.db.apply_batch(prepared))
    }

    fn checkpoint(&self) -> Result<(), BackendError> {
        guarded(|| self.db.flush())?;
        sync_all(&self.path)
    }

    /// sled moves its segments by itself.
    fn defragment(&self) -> Result<(), BackendError> {
        self.checkpoint()
    }

    fn file_bytes(&self) -> Result<u64, BackendError> {
        guarded(|| self.db.size_on_disk())
    }
}

/// Opens sled once those who had it open before have let go of its lock: its own threads do that
/// some time after the last handle is dropped.
fn open_released(config: &sled::Config) -> Result<sled::Db, BackendError> {
    let begun = Instant::now();
    loop {
        match guarded(|| config.open()) {
            Err(BackendError::Io(error)) if is_locked(&error) && begun.elapsed() < RELEASE_MAX => {
                #[expect(clippy::disallowed_methods, reason = "a start waits for a file lock")]
                std::thread::sleep(RELEASE_POLL);
            }
            opened => return opened,
        }
    }
}

/// sled tells it in words only.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// sled while nothing is committed to it.
pub(crate) struct SledView<'a> {
    db: &'a sled::Db,
    _state: RwLockReadGuard<'a, ()>,
}

impl View for SledView<'_> {
    fn get<R>(
        &self,
        table: Table,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, BackendError> {
        let value = guarded(|| self.db.get(with_letter(table, key)))?;
        Ok(value.map(|value| read(&value)))
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, BackendError>,
    ) -> Result<(), BackendError> {
        let end = [letter(table) + 1];
        let mut entries = guarded(|| Ok(self.db.range(with_letter(table, from)..end.to_vec())))?;
        while let Some((key, value)) = guarded(|| entries.next().transpose())? {
            if visit(&key[1..], &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

const fn letter(table: Table) -> u8 {
    match table {
        Table::Meta => b'm',
        Table::Data => b'd',
        Table::Cells => b'c',
    }
}

fn with_letter(table: Table, key: &[u8]) -> Vec<u8> {
    [&[letter(table)], key].concat()
}

fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, BackendError> {
    contained(|| {
        work().map_err(|error| match error {
            // What is not there, or not long enough, was written once.
            sled::Error::Io(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
                ) =>
            {
                BackendError::Io(error)
            }
            error => BackendError::Damaged(error.to_string()),
        })
    })
}

/// Syncs every file below `dir`, then the names. sled removes files in the background: one that has
/// gone since it was listed needs no sync.
fn sync_all(dir: &Path) -> Result<(), BackendError> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
            continue;
        }
        match File::open(entry.path()) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(File::open(dir)?.sync_all()?)
}
