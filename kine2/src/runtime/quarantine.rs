//! What this node held beyond what counts after a forced promotion, put away in files of the data
//! directory before it is cut (`repl Q1`).
//!
//! `quarantine/PART-AFTER-ORIGIN.entries` holds the log from the last common entry on (the format is
//! in docs/wal-format.md), `.state` beside it the state, if the log does not reach back so far (as
//! in docs/state-format.md). A file has its name only once all of it is durable; a quarantine that
//! is asked for again is written again.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::BytesMut;
use kine2_mvcc::Backend;
use kine2_replication::{NodeRef, Quarantine, QuarantineHeader, RegisterKey, write_quarantined};

use super::log_thread::Log;

/// The directory within the data directory.
pub(super) const QUARANTINE_DIR: &str = "quarantine";
/// Bytes of log read at once.
const READ_BYTES: usize = 512 << 10;

/// What is to be put away, and whose it is.
#[derive(Clone, Debug)]
pub(super) struct ToPutAway {
    pub(super) key: RegisterKey,
    pub(super) node: NodeRef,
    pub(super) what: Quarantine,
}

/// Writes the entries, durably.
///
/// # Errors
/// If the log cannot be read or the file not be written.
pub(super) fn put_away_entries(
    log: &Log,
    data_dir: &Path,
    wanted: &ToPutAway,
) -> anyhow::Result<()> {
    let what = &wanted.what;
    let base = log.position_at(what.after).context("read the log")?;
    let header = QuarantineHeader {
        key: wanted.key.clone(),
        node: wanted.node.clone(),
        what: what.clone(),
        base,
    };
    write_file(data_dir, what, "entries", |file| {
        file.write_all(&header.encode())?;
        let mut last = base.index;
        let mut bytes = BytesMut::new();
        while last < what.through {
            let range = last.next()..what.through.next();
            let entries = log.entries(range, READ_BYTES).context("read the log")?;
            for entry in &entries {
                bytes.clear();
                write_quarantined(&mut bytes, entry);
                file.write_all(&bytes)?;
                last = entry.position.index;
            }
            anyhow::ensure!(!entries.is_empty(), "the log ends with entry {last}");
        }
        Ok(())
    })
}

/// Writes the state, durably. Nothing may be applied to it meanwhile.
///
/// # Errors
/// If the state cannot be read or the file not be written.
pub(super) fn put_away_state(
    backend: &dyn Backend,
    data_dir: &Path,
    what: &Quarantine,
) -> anyhow::Result<()> {
    write_file(data_dir, what, "state", |file| {
        Ok(kine2_backend::export(backend, file)?)
    })
}

fn write_file(
    data_dir: &Path,
    what: &Quarantine,
    ending: &str,
    write: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let dir = data_dir.join(QUARANTINE_DIR);
    let path = dir.join(format!("{}.{ending}", stem(what)));
    let write = || {
        fs::create_dir_all(&dir)?;
        File::open(data_dir)?.sync_all()?;
        let unfinished = PathBuf::from(format!("{}.tmp", path.display()));
        let mut file = BufWriter::new(File::create(&unfinished)?);
        write(&mut file)?;
        let file = file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(&dir)?.sync_all()?;
        Ok::<_, anyhow::Error>(())
    };
    write().with_context(|| format!("put away what was overruled in {}", path.display()))
}

/// Name of the files, but for the ending. Names of parts are free; a file's is not.
fn stem(what: &Quarantine) -> String {
    let mut stem = String::new();
    for byte in what.part.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => stem.push(char::from(byte)),
            _ => stem.push_str(&format!("%{byte:02x}")),
        }
    }
    // A file's name has 255 bytes at most.
    stem.truncate(PART_BYTES_MAX);
    format!("{stem}-{:x}-{}", what.after.0, what.by.origin)
}

/// Of the part's name in that of its files.
const PART_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use kine2_backend::mem::MemBackend;
    use kine2_replication::{
        ClusterId, ConfigId, Epoch, Incarnation, Origin, Position, Term, read_quarantined,
    };
    use kine2_wal::{FileDisk, LogIndex, Wal, WalOptions};

    use super::*;

    fn wanted(after: u64, through: u64) -> ToPutAway {
        ToPutAway {
            key: RegisterKey {
                cluster: ClusterId(1),
                unit: "main".into(),
            },
            node: NodeRef::new("a", 7),
            what: Quarantine {
                part: "till/1".into(),
                storage: Incarnation(3),
                after: LogIndex(after),
                through: LogIndex(through),
                with_state: true,
                by: ConfigId {
                    epoch: Epoch::new(1, 4),
                    uid: 9,
                    origin: Origin(0xf0ce),
                },
            },
        }
    }

    #[test]
    fn what_was_put_away_is_read_entry_by_entry() {
        let dir = tempfile::tempdir().unwrap();
        let log_dir = dir.path().join("log");
        fs::create_dir(&log_dir).unwrap();
        let disk = FileDisk::open(&log_dir).unwrap();
        let (mut log, _) = Wal::open(disk, WalOptions::with_seed(1)).unwrap();
        for number in 0..9u8 {
            let payload = vec![number; 1000];
            log.append(Term::new(1, 1), &payload).unwrap();
        }
        log.sync().unwrap();
        let wanted = wanted(4, 9);
        for _ in 0..2 {
            put_away_entries(&log, dir.path(), &wanted).unwrap();
        }
        let dir_of_files = dir.path().join(QUARANTINE_DIR);
        let bytes = fs::read(dir_of_files.join("till%2f1-4-0000f0ce.entries")).unwrap();
        let (header, mut at) = QuarantineHeader::decode(&bytes).unwrap();
        assert_eq!(
            (header.node, header.what),
            (wanted.node, wanted.what.clone())
        );
        let mut last: Position = header.base;
        for number in 4..9u8 {
            let (entry, length) = read_quarantined(last, &bytes[at..]).unwrap();
            assert_eq!(entry.payload, vec![number; 1000]);
            (last, at) = (entry.position, at + length);
        }
        assert_eq!((last, at), (log.last(), bytes.len()));
        put_away_state(&MemBackend::default(), dir.path(), &wanted.what).unwrap();
        assert_eq!(fs::read_dir(dir_of_files).unwrap().count(), 2);
    }
}
