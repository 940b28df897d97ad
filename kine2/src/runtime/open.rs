//! Opening a data directory: the log, the state, and the state brought up to the log.

use std::fs::File;
use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use kine2_backend::Options as BackendOptions;
use kine2_mvcc::{Backend, BackendError, LogPosition, Store, StoreOptions};
use kine2_node::{LogEntry, Node};
use kine2_wal::{FileDisk, LogIndex, Recovery, Term, Wal, WalOptions};
use tracing::{info, warn};

use super::identity::{NodeIdentity, random_id};
use super::log_space::DISK_FULL;
use super::log_thread::Log;
use super::shared::Waiter;

/// The log within the data directory.
pub(super) const LOG_DIR: &str = "store/wal";
/// The state within the data directory.
pub(super) const STATE_DIR: &str = "store/state";
/// Bytes of log read at once when the state is brought up to it.
const REPLAY_BYTES: usize = 512 << 10;
/// Epoch of a node that has never had a peer (`repl section 10`, bootstrap).
const FIRST_EPOCH: u64 = 1;

/// What opening needs to know.
#[derive(Clone, Debug)]
pub(super) struct OpenOptions {
    pub(super) data_dir: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) backend: BackendOptions,
    pub(super) store: StoreOptions,
}

/// A data directory that is open.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) identity: NodeIdentity,
    pub(super) log: Log,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) store: Store,
    /// The term of what this start appends.
    pub(super) term: Term,
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
    let state_dir = data_dir.join(STATE_DIR);
    let (backend, store) = open_state(&state_dir, options, &log, &recovery)?;
    let term = next_term(&recovery)?;
    // A node never goes on in a run that it may have used before it stopped (`repl A5`).
    let noted = log.set_hard_state(encode_hard_state(term));
    noted.and_then(|()| log.sync()).map_err(|error| {
        let hint = if error.is_no_space() { DISK_FULL } else { "" };
        anyhow!(
            "note the new run in the log in {}: {error}{hint}",
            log_dir.display()
        )
    })?;
    Ok(Opened {
        identity,
        log,
        backend,
        store,
        term,
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

fn open_state(
    dir: &Path,
    options: &OpenOptions,
    log: &Log,
    recovery: &Recovery,
) -> anyhow::Result<(Arc<dyn Backend>, Store)> {
    let first = recovery.base.index.next();
    let options = &OpenOptions {
        backend: BackendOptions {
            unfinished_is_damage: first == LogIndex(1),
            ..options.backend
        },
        ..options.clone()
    };
    match try_open_state(dir, options, log) {
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
            try_open_state(dir, options, log)
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
    options: &OpenOptions,
    log: &Log,
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
    replay(&mut store, options.store.cache_bytes, backend.as_ref(), log)?;
    Ok((backend, store))
}

/// Brings the state up to the log. The backend gets what it lacks step by step, so that a long log
/// does not have to fit into memory.
fn replay(
    store: &mut Store,
    cache_bytes: usize,
    backend: &dyn Backend,
    log: &Log,
) -> anyhow::Result<()> {
    let (from, last) = (store.applied().index + 1, log.last_index().0);
    let mut next = from;
    store.set_cache_bytes(0);
    while next <= last {
        let entries = log
            .entries(LogIndex(next)..LogIndex(last + 1), REPLAY_BYTES)
            .context("read the log")?;
        for entry in entries {
            let Term { epoch, run } = entry.position.term;
            let position = LogPosition {
                epoch,
                run,
                index: entry.position.index.0,
            };
            Node::<Waiter>::replay(
                store,
                &LogEntry {
                    position,
                    payload: entry.payload,
                },
            )?;
            next += 1;
        }
        if let Some(batch) = store.take_batch() {
            backend.apply(&batch)?;
            store.batch_applied(batch.revision, batch.record_bytes());
        }
    }
    store.set_cache_bytes(cache_bytes);
    if last >= from {
        info!(from, last, "applied the log to the state");
    }
    Ok(())
}

/// The run after the last one used (`repl A1`, `A5`).
fn next_term(recovery: &Recovery) -> anyhow::Result<Term> {
    let used = decode_hard_state(recovery.hard_state.as_deref().unwrap_or_default())?
        .max(recovery.last.term);
    let run = used
        .run
        .checked_add(1)
        .context("the run counter is used up")?;
    Ok(Term {
        epoch: used.epoch.max(FIRST_EPOCH),
        run,
    })
}

/// `version:u8 epoch:u64 run:u32`, little endian.
fn encode_hard_state(term: Term) -> Bytes {
    let mut out = Vec::with_capacity(13);
    out.push(1);
    out.extend_from_slice(&term.epoch.to_le_bytes());
    out.extend_from_slice(&term.run.to_le_bytes());
    out.into()
}

fn decode_hard_state(bytes: &[u8]) -> anyhow::Result<Term> {
    match bytes {
        [] => Ok(Term::default()),
        [1, epoch @ .., a, b, c, d] if epoch.len() == 8 => Ok(Term {
            epoch: u64::from_le_bytes(epoch.try_into().context("eight bytes")?),
            run: u32::from_le_bytes([*a, *b, *c, *d]),
        }),
        [version, ..] => bail!(
            "the log's hard state has version {version} and {} bytes, expected version 1 and 13",
            bytes.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use kine2_mvcc::Command;
    use kine2_wal::Position;

    use super::*;

    #[test]
    fn a5_every_start_has_a_run_of_its_own() {
        let recovery = |hard_state| Recovery {
            base: Position::START,
            last: Position::START,
            hard_state,
            torn_tail: None,
        };
        let first = next_term(&recovery(None)).unwrap();
        assert_eq!(first, Term { epoch: 1, run: 1 });
        let second = next_term(&recovery(Some(encode_hard_state(first)))).unwrap();
        assert_eq!(second, Term { epoch: 1, run: 2 });
        assert!(next_term(&recovery(Some(Bytes::from_static(&[9, 0])))).is_err());
    }

    fn options(data_dir: &Path) -> OpenOptions {
        OpenOptions {
            data_dir: data_dir.to_owned(),
            segment_bytes: 1 << 20,
            backend: BackendOptions::default(),
            store: StoreOptions::default(),
        }
    }

    /// Puts `entries` noops into the log and the state.
    fn filled(data_dir: &Path, entries: u64) {
        let mut opened = open(&options(data_dir)).unwrap();
        let mut noop = Vec::new();
        Command::Noop.encode(&mut noop);
        for _ in 0..entries {
            let placed = opened.log.append(opened.term, &noop).unwrap();
            let position = LogPosition {
                epoch: opened.term.epoch,
                run: opened.term.run,
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
        filled(dir.path(), 3);
        let wal = dir.path().join("store/wal");
        std::fs::remove_dir_all(&wal).unwrap();
        let old = tempfile::tempdir().unwrap();
        filled(old.path(), 1);
        std::fs::rename(old.path().join("store/wal"), &wal).unwrap();
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
    fn a_state_that_is_gone_is_rebuilt_from_a_whole_log() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 3);
        std::fs::remove_dir_all(dir.path().join("store/state")).unwrap();
        let opened = open(&options(dir.path())).unwrap();
        assert_eq!(opened.store.applied().index, 3);
    }
}
