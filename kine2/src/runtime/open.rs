//! Opening a data directory: the log, the state, and the state brought up to the log.

use std::fs::File;
use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use kine2_backend::Options as BackendOptions;
use kine2_mvcc::{Backend, BackendError, Command, LogPosition, Store, StoreOptions};
use kine2_replication::{Config, History, Loaded};
use kine2_wal::{
    Chain, Entry, FileDisk, LogIndex, Origin, Position, Recovery, Term, Wal, WalOptions,
};
use tracing::{info, warn};

use super::identity::{NodeIdentity, random_id};
use super::log_space::DISK_FULL;
use super::log_thread::Log;
use super::own_record;

/// The log within the data directory.
pub(super) const LOG_DIR: &str = "store/wal";
/// The state within the data directory; one that came as a snapshot has its position in its name,
/// [`snapshot_dir`].
pub(super) const STATE_DIR: &str = "store/state";
/// What the name of a state that came as a snapshot begins with.
const SNAPSHOT_PREFIX: &str = "state-";
/// Bytes of log read at once when the state is brought up to it.
const REPLAY_BYTES: usize = 512 << 10;
/// What opening needs to know.
#[derive(Clone, Debug)]
pub(super) struct OpenOptions {
    pub(super) data_dir: PathBuf,
    /// What a new node is called.
    pub(super) name: String,
    /// The configuration that a node which joined begins with.
    pub(super) joined: Option<Config>,
    pub(super) segment_bytes: u64,
    pub(super) state: StateOptions,
}

/// How a state is opened.
#[derive(Clone, Debug)]
pub(super) struct StateOptions {
    pub(super) backend: BackendOptions,
    pub(super) store: StoreOptions,
}

/// A data directory that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) identity: NodeIdentity,
    pub(super) log: Log,
    pub(super) backend: Arc<dyn Backend>,
    /// Where the backend is.
    pub(super) state_dir: PathBuf,
    pub(super) store: Store,
    /// This node's half of its unit.
    pub(super) loaded: Loaded,
}

/// Opens a data directory, making it if it is new.
///
/// # Errors
/// If the directory is in use, unreadable or damaged; says what can be done.
pub(super) fn open(options: &OpenOptions) -> anyhow::Result<Opened> {
    let data_dir = &options.data_dir;
    let log_dir = data_dir.join(LOG_DIR);
    std::fs::create_dir_all(&log_dir)
        .with_context(|| format!("make the data directory {}", data_dir.display()))?;
    let (mut log, recovery) = open_log(&log_dir, options.segment_bytes)?;
    sync_names(data_dir, &log_dir)
        .with_context(|| format!("make the name of {} durable", data_dir.display()))?;
    // The identity is durable before the first start notes its run in the log.
    let identity = if recovery.hard_state.is_none() {
        NodeIdentity::load_or_create(data_dir)?
    } else {
        NodeIdentity::load(data_dir)?
    };
    let (me, durable) =
        own_record::load(&recovery, identity, &options.name, options.joined.as_ref())?;
    let state_dir = settle_state_dirs(data_dir, &log)?;
    // Where nobody else has a say, all of the log is committed (`repl A1`).
    let replayed = own_record::is_alone(&me, &durable).then(|| log.last_index());
    let (backend, store) = open_state(&state_dir, options, &log, replayed)?;
    // This start is counted before anything is said in it.
    let noted = log.set_hard_state(durable.encode());
    noted.and_then(|()| log.sync()).map_err(|error| {
        let hint = if error.is_no_space() { DISK_FULL } else { "" };
        anyhow!(
            "note the start in the log in {}: {error}{hint}",
            log_dir.display()
        )
    })?;
    let mut history = History::new(log.base());
    for end in log.term_ends().context("read the log")? {
        history.push(end);
    }
    let committed = LogIndex(store.applied().index);
    let loaded = Loaded::of_lead(me, durable, history, committed, random_id()?);
    Ok(Opened {
        identity,
        log,
        backend,
        state_dir,
        store,
        loaded: loaded.expect("the record has a configuration"),
    })
}

/// Makes the names on the way to the log durable: else a power cut takes all that is synced below
/// them. Whoever made them may have been killed before it came to that, so directories that are
/// there already count too; those above the data directory until it has an identity, which comes
/// after this.
fn sync_names(data_dir: &Path, log_dir: &Path) -> std::io::Result<()> {
    let log_dir = std::path::absolute(log_dir)?;
    let data_dir = std::path::absolute(data_dir)?;
    let is_new = !NodeIdentity::is_in(&data_dir);
    for dir in log_dir.ancestors().skip(1) {
        if !is_new && !dir.starts_with(&data_dir) && data_dir.parent() != Some(dir) {
            break;
        }
        match File::open(dir).and_then(|dir| dir.sync_all()) {
            // We cannot have made what lies in a directory that we must not read or that cannot
            // be written.
            Err(error) if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => {}
            other => other?,
        }
    }
    Ok(())
}

fn open_log(dir: &Path, segment_bytes: u64) -> anyhow::Result<(Log, Recovery)> {
    let disk = match FileDisk::open(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!(
                "{} is in use by another kine2: stop it first",
                dir.display()
            )
        }
        other => other.with_context(|| format!("open the log directory {}", dir.display()))?,
    };
    let wal_options = WalOptions {
        segment_bytes,
        ..WalOptions::with_seed(random_id()?)
    };
    let (log, recovery) = Wal::open(disk, wal_options)
        .with_context(|| format!("open the log in {}", dir.display()))?;
    if let Some(torn) = &recovery.torn_tail {
        info!(
            ?torn,
            "cut off what a crash had left half-written; it was never acknowledged"
        );
    }
    Ok((log, recovery))
}

/// Where the state is that came as the snapshot of this position.
pub(super) fn snapshot_dir(data_dir: &Path, position: &Position) -> PathBuf {
    let Position { index, term, chain } = position;
    let name = format!(
        "{SNAPSHOT_PREFIX}{index}-{}-{}-{}-{:016x}",
        term.epoch, term.run, term.origin, chain.0
    );
    data_dir.join(STATE_DIR).with_file_name(name)
}

/// The position in the name of a snapshot's directory.
fn snapshot_position(name: &str) -> Option<Position> {
    let mut parts = name.strip_prefix(SNAPSHOT_PREFIX)?.split('-');
    let position = Position {
        index: LogIndex(parts.next()?.parse().ok()?),
        term: Term {
            epoch: parts.next()?.parse().ok()?,
            run: parts.next()?.parse().ok()?,
            origin: Origin(u32::from_str_radix(parts.next()?, 16).ok()?),
        },
        chain: Chain(u64::from_str_radix(parts.next()?, 16).ok()?),
    };
    parts.next().is_none().then_some(position)
}

/// The directory of the state that goes with the log. N4: the log says whether it was switched to
/// a snapshot: it begins after its position then. The other directory is deleted.
fn settle_state_dirs(data_dir: &Path, log: &Log) -> anyhow::Result<PathBuf> {
    let first = data_dir.join(STATE_DIR);
    let parent = first.parent().expect("it is below the data directory");
    let mut snapshots = Vec::new();
    let names = std::fs::read_dir(parent).with_context(|| format!("read {}", parent.display()))?;
    for name in names {
        let name = name.with_context(|| format!("read {}", parent.display()))?;
        if let Some(position) = name.file_name().to_str().and_then(snapshot_position) {
            snapshots.push((position, name.path()));
        }
    }
    let is_switched_to = |position: &Position| *position == log.base();
    let current = snapshots
        .iter()
        .find(|(position, _)| is_switched_to(position))
        // The log has gone on since: the state before was deleted when it was switched.
        .or_else(|| snapshots.first().filter(|_| !first.exists()));
    let current = current.map_or_else(|| first.clone(), |(_, dir)| dir.clone());
    let all = snapshots.into_iter().map(|(_, dir)| dir).chain([first]);
    for dir in all.filter(|dir| *dir != current && dir.exists()) {
        info!(dir = %dir.display(), "deletes a state that the log does not go with");
        remove_state(&dir).with_context(|| format!("delete {}", dir.display()))?;
    }
    Ok(current)
}

/// Deletes a state and its directory.
pub(super) fn remove_state(dir: &Path) -> Result<(), BackendError> {
    kine2_backend::destroy(dir)?;
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn open_state(
    dir: &Path,
    options: &OpenOptions,
    log: &Log,
    replayed: Option<LogIndex>,
) -> anyhow::Result<(Arc<dyn Backend>, Store)> {
    let first = log.first_index();
    let options = &StateOptions {
        backend: BackendOptions {
            unfinished_is_damage: first == LogIndex(1),
            ..options.state.backend
        },
        ..options.state.clone()
    };
    match try_open_state(dir, options, log, replayed) {
        Ok(opened) => Ok(opened),
        Err(error) if !is_damage(&error) => {
            Err(error.context(format!("open the state in {}", dir.display())))
        }
        Err(error) => {
            if first > LogIndex(1) {
                return Err(error.context(format!(
                    "the state in {} cannot be rebuilt, since the log begins with entry {first}; \
                     leave both as they are, and restore this node from a backup",
                    dir.display()
                )));
            }
            warn!(
                error = format!("{error:#}"),
                "the state is rebuilt from the log"
            );
            kine2_backend::destroy(dir)
                .with_context(|| format!("delete the state in {}", dir.display()))?;
            try_open_state(dir, options, log, replayed)
        }
    }
}

/// Whether the state is what failed: it is a cache, and can be built again from the log.
fn is_damage(error: &anyhow::Error) -> bool {
    let of_state = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(BackendError::Damaged(_)))
    };
    error.chain().any(of_state)
}

fn try_open_state(
    dir: &Path,
    options: &StateOptions,
    log: &Log,
    replayed: Option<LogIndex>,
) -> anyhow::Result<(Arc<dyn Backend>, Store)> {
    let backend = kine2_backend::open(dir, &options.backend)?;
    let mut store = Store::open(Arc::clone(&backend), options.store)?;
    let held = store.applied().index;
    let (first, last) = (log.first_index().0, log.last_index().0);
    if held > last {
        // The state never holds more than the log has made durable, so it is the log that lacks
        // something. Going on with less would take back what was acknowledged.
        bail!(
            "the state has entry {held}, the log ends with {last}: entries that were acknowledged \
             are missing from the log. Was an older copy of it put back, or has the disk lost what \
             it had confirmed? Nothing was changed; put the right log back, or restore this node \
             from a backup"
        );
    }
    if held + 1 < first {
        let what = format!("the state ends with entry {held}, the log begins with {first}");
        return Err(BackendError::Damaged(what).into());
    }
    if let Some(last) = replayed {
        replay(&mut store, backend.as_ref(), log, last)?;
    }
    Ok((backend, store))
}

/// Brings the state up to the log's entry `last`, so that damage that this meets is met while the
/// state can be built again. The backend gets what it lacks step by step, so that a long log does
/// not have to fit into memory.
fn replay(
    store: &mut Store,
    backend: &dyn Backend,
    log: &Log,
    last: LogIndex,
) -> anyhow::Result<()> {
    let from = LogIndex(store.applied().index).next();
    let mut next = from;
    store.set_caching(false);
    while next <= last {
        let entries = log
            .entries(next..last.next(), REPLAY_BYTES)
            .context("read the log")?;
        for Entry { position, payload } in entries {
            let command = Command::decode(&payload)
                .with_context(|| format!("log entry {}", position.index))?;
            let Term { epoch, run, .. } = position.term;
            let index = position.index.0;
            // A refusal is an outcome like any other: it was answered when the entry was new.
            let _ = store.apply(LogPosition { epoch, run, index }, &command)?;
            next = position.index.next();
        }
        if let Some(batch) = store.take_batch() {
            backend.apply(&batch)?;
            store.batch_applied(batch.revision, batch.record_bytes());
        }
    }
    store.set_caching(true);
    if last >= from {
        info!(%from, %last, "applied the log to the state");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(data_dir: &Path) -> OpenOptions {
        OpenOptions {
            data_dir: data_dir.to_owned(),
            name: "shop".to_owned(),
            joined: None,
            segment_bytes: 1 << 20,
            state: StateOptions {
                backend: BackendOptions::default(),
                store: StoreOptions::default(),
            },
        }
    }

    /// Puts `entries` noops into the log and the state.
    fn filled(data_dir: &Path, entries: u64) {
        let mut opened = open(&options(data_dir)).unwrap();
        let mut noop = Vec::new();
        Command::Noop.encode(&mut noop);
        for _ in 0..entries {
            let term = Term::new(1, 1);
            let placed = opened.log.append(term, &noop).unwrap();
            let position = LogPosition {
                epoch: term.epoch,
                run: term.run,
                index: placed.index.0,
            };
            opened
                .store
                .apply(position, &Command::Noop)
                .unwrap()
                .unwrap();
        }
        opened.log.sync().unwrap();
        if let Some(batch) = opened.store.take_batch() {
            opened.backend.apply(&batch).unwrap();
        }
        opened.backend.checkpoint().unwrap();
    }

    #[test]
    fn a_log_that_lost_its_end_is_not_taken_for_a_state_to_rebuild() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 1);
        let wal = dir.path().join("store/wal");
        let old = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&wal).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), old.path().join(file.file_name())).unwrap();
        }
        filled(dir.path(), 2);
        std::fs::remove_dir_all(&wal).unwrap();
        std::fs::rename(old.path(), &wal).unwrap();
        let error = format!("{:#}", open(&options(dir.path())).unwrap_err());
        assert!(
            error.contains("state has entry 3") && error.contains("log ends with 1"),
            "{error}"
        );
        assert!(open(&options(dir.path())).is_err(), "it was left as it was");
    }

    #[test]
    fn a_log_without_its_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 1);
        std::fs::remove_file(dir.path().join("identity")).unwrap();
        let error = format!("{:#}", open(&options(dir.path())).unwrap_err());
        assert!(error.contains("identity"), "{error}");
    }

    #[test]
    fn n4_the_log_says_which_state_counts() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 3);
        let state = dir.path().join(STATE_DIR);
        let position = Position {
            index: LogIndex(9),
            ..Position::START
        };
        let snapshot = snapshot_dir(dir.path(), &position);
        let name = snapshot.file_name().unwrap().to_str().unwrap();
        assert_eq!(snapshot_position(name), Some(position));
        // It was received, and the log was not switched to it.
        std::fs::create_dir(&snapshot).unwrap();
        let opened = open(&options(dir.path())).unwrap();
        assert_eq!(opened.state_dir, state);
        assert!(!snapshot.exists());
        drop(opened);
        // It was switched to.
        let (mut log, _) = open_log(&dir.path().join(LOG_DIR), 1 << 20).unwrap();
        log.reset_to(position, None).unwrap();
        log.sync().unwrap();
        std::fs::create_dir(&snapshot).unwrap();
        assert_eq!(settle_state_dirs(dir.path(), &log).unwrap(), snapshot);
        assert!(!state.exists());
        assert_eq!(settle_state_dirs(dir.path(), &log).unwrap(), snapshot);
    }

    #[test]
    fn a_state_that_is_gone_is_rebuilt_from_a_whole_log() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 3);
        std::fs::remove_dir_all(dir.path().join("store/state")).unwrap();
        let opened = open(&options(dir.path())).unwrap();
        assert_eq!(opened.store.applied().index, 3);
    }
}
