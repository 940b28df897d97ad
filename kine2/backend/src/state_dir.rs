//! The directory of the state: which engine lies in it, opening it, changing it, deleting it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use kine2_mvcc::{Backend, BackendError};
use thiserror::Error;

use crate::block_store::BlockStore;
use crate::engine::{Engine, EngineOptions};
use crate::kept::Kept;
use crate::notes::{PROMISED, UNPROVEN, Unproven};
use crate::redb_engine::RedbEngine;
#[cfg(feature = "sled")]
use crate::sled_engine::SledEngine;
use crate::stream::{StreamError, export, import};

/// What a change of engine builds before it takes its place.
const CONVERTING: &str = "converting";

/// How a state is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The engine. A state that another one wrote is converted.
    pub engine: EngineKind,
    /// Bytes of pages the engine keeps in memory.
    pub cache_bytes: usize,
    /// Whether a state counts as damaged that the program did not come to the end of opening, again
    /// and again. Right where it can be built again: an engine may have panicked on it. Wrong where
    /// it cannot: the program may have been killed each time.
    pub unfinished_is_damage: bool,
}

impl Options {
    /// Cache unless said otherwise: newest records are cached above the engine.
    pub const CACHE_BYTES: usize = 16 << 20;
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine: EngineKind::Redb,
            cache_bytes: Self::CACHE_BYTES,
            unfinished_is_damage: true,
        }
    }
}

/// The engines of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// redb: the default.
    Redb,
    /// sled 0.34: everything is verified at each open, because its flush alone does not survive
    /// every power cut.
    #[cfg(feature = "sled")]
    Sled,
}

impl EngineKind {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Redb,
        #[cfg(feature = "sled")]
        Self::Sled,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Redb => "redb",
            #[cfg(feature = "sled")]
            Self::Sled => "sled",
        }
    }

    /// Its file or directory within the state's.
    const fn file_name(self) -> &'static str {
        match self {
            Self::Redb => REDB_FILE,
            #[cfg(feature = "sled")]
            Self::Sled => SLED_DIR,
        }
    }
}

const REDB_FILE: &str = "state.redb";
const SLED_DIR: &str = "sled";

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no engine of this build.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "unknown state engine {0:?}: this build has {list} (sled needs the cargo feature `sled`)",
    list = EngineKind::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
)]
pub struct UnknownEngine(pub String);

impl FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        let found = Self::ALL.iter().find(|kind| kind.name() == name);
        found.copied().ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

/// Opens the state in `dir`, or makes an empty one.
///
/// # Errors
/// [`BackendError::Damaged`] if it contradicts itself or is older than it was: [`destroy`] it and build it again.
/// [`BackendError::Version`] if a newer program wrote it. [`BackendError::Io`] if the medium
/// fails, another process has it open, or it is of an engine this build lacks.
pub fn open(dir: &Path, options: &Options) -> Result<Arc<dyn Backend>, BackendError> {
    create_dir(dir)?;
    let unproven = Unproven::mark(dir, options.unfinished_is_damage)?;
    let opened = open_marked(dir, options, unproven.found());
    unproven.opened()?;
    let opened = opened?;
    // What this process sees may be the work of one that was killed before it had made the names
    // durable: a state renamed into place must not go back to an older one, or to none, once the
    // log is cut.
    sync(dir)?;
    Ok(match opened {
        Opened::Redb(store) => Arc::new(Kept::new(store, dir, unproven)?),
        #[cfg(feature = "sled")]
        Opened::Sled(store) => Arc::new(Kept::new(store, dir, unproven)?),
    })
}

/// Deletes the state in `dir`, whatever engine it is of, and nothing else there.
///
/// # Errors
/// If the file system refuses.
pub fn destroy(dir: &Path) -> Result<(), BackendError> {
    if !dir.try_exists()? {
        return Ok(());
    }
    for name in [
        REDB_FILE,
        "state.redb.new",
        SLED_DIR,
        CONVERTING,
        UNPROVEN,
        PROMISED,
    ] {
        remove(&dir.join(name))?;
    }
    sync(dir)
}

enum Opened {
    Redb(BlockStore<RedbEngine>),
    #[cfg(feature = "sled")]
    Sled(BlockStore<SledEngine>),
}

impl Opened {
    fn open(kind: EngineKind, path: &Path, options: EngineOptions) -> Result<Self, BackendError> {
        Ok(match kind {
            EngineKind::Redb => Self::Redb(open_blocks(path, options)?),
            #[cfg(feature = "sled")]
            EngineKind::Sled => Self::Sled(open_blocks(path, options)?),
        })
    }

    fn backend(&self) -> &dyn Backend {
        match self {
            Self::Redb(store) => store,
            #[cfg(feature = "sled")]
            Self::Sled(store) => store,
        }
    }
}

fn open_blocks<E: Engine>(
    path: &Path,
    options: EngineOptions,
) -> Result<BlockStore<E>, BackendError> {
    let verify = options.verify || !E::TRUSTED_AFTER_CRASH;
    BlockStore::open(E::open(path, options)?, verify)
}

fn open_marked(dir: &Path, options: &Options, verify: bool) -> Result<Opened, BackendError> {
    let path = dir.join(options.engine.file_name());
    let engine_options = EngineOptions {
        cache_bytes: options.cache_bytes,
        verify,
    };
    remove(&dir.join(CONVERTING))?;
    let other = match options.engine {
        EngineKind::Redb => dir.join(SLED_DIR),
        #[cfg(feature = "sled")]
        EngineKind::Sled => dir.join(REDB_FILE),
    };
    if other.try_exists()? {
        if !path.try_exists()? {
            convert(dir, &other, options.engine, engine_options)?;
        }
        // The new engine's state got its name only when it was whole and durable.
        remove(&other)?;
        sync(dir)?;
    }
    Opened::open(options.engine, &path, engine_options)
}

/// Builds the state of engine `to` beside that of another one, and then names it.
fn convert(
    dir: &Path,
    other: &Path,
    to: EngineKind,
    options: EngineOptions,
) -> Result<(), BackendError> {
    let from = EngineKind::ALL
        .iter()
        .find(|kind| other.ends_with(kind.file_name()))
        .ok_or_else(|| {
            let what = format!(
                "{} is of an engine this build lacks; build with the cargo feature `sled`",
                other.display()
            );
            io::Error::new(io::ErrorKind::Unsupported, what)
        })?;
    let source = Opened::open(*from, other, options)?;
    let building = dir.join(CONVERTING);
    fs::create_dir(&building)?;
    let target = building.join(to.file_name());
    let built = Opened::open(to, &target, options)?;
    let (reader, mut writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let from = source.backend();
        let sending = scope.spawn(move || export(from, &mut writer));
        let received = import(built.backend(), reader);
        match sending.join().expect("export does not panic") {
            Err(error @ StreamError::Backend(_)) => Err(error),
            // If the reader stopped, that is why the sender could not go on.
            _ => received,
        }
    })
    .map_err(|error| match error {
        StreamError::Io(error) => BackendError::Io(error),
        StreamError::Backend(error) => error,
        error => BackendError::Damaged(error.to_string()),
    })?;
    drop((source, built));
    fs::rename(&target, dir.join(to.file_name()))?;
    sync(dir)?;
    remove(&building)
}

/// Makes the directory if it is not there; durable on return, whoever made it.
fn create_dir(dir: &Path) -> Result<(), BackendError> {
    fs::create_dir_all(dir)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or_else(|| Path::new(".")))
}

/// Removes a file or a directory, if it is there.
fn remove(path: &PathBuf) -> Result<(), BackendError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable.
fn sync(dir: &Path) -> Result<(), BackendError> {
    Ok(File::open(dir)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_named_as_in_the_configuration() {
        for kind in EngineKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(*kind));
        }
        let error = "bolt".parse::<EngineKind>().unwrap_err().to_string();
        assert!(
            error.contains("\"bolt\"") && error.contains("redb"),
            "{error}"
        );
    }
}
