//! What this node held beyond what counts after a forced promotion, put away in files of the data
//! directory before it is cut (`repl Q1`).
//!
//! `quarantine/PART-AFTER-ORIGIN.entries` holds the log from the last common entry on (the format is
//! in docs/wal-format.md), `.state` beside it the state, if the log does not reach back so far (as
//! in docs/state-format.md). A file has its name only once all of it is durable; a quarantine that
//! is asked for again is written again.

mod compare;
mod contents;
mod plain;
mod shelf;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::BytesMut;
use kine2_mvcc::Backend;
use kine2_replication::{NodeRef, Quarantine, QuarantineHeader, RegisterKey, write_quarantined};

use super::journal::{Kind, words};
use super::log_thread::Log;
use super::shared::Shared;

pub(crate) use compare::{Difference, Writes};
pub(crate) use contents::{Contents, export};
pub(crate) use shelf::{Kept, discard, list, size};

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

/// Tells the operator if quarantine has more than it should: nothing of it goes by itself.
pub(super) fn tell_if_large(shared: &Shared, bytes_max: u64) {
    let bytes = size(&shared.data_dir);
    if bytes > bytes_max {
        let text = words::quarantine_large(bytes, bytes_max);
        tracing::warn!("{text}");
        shared.note(Kind::QuarantineLarge, text);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kine2_backend::mem::MemBackend;
    use kine2_mvcc::{Command, Delete, KeyRange, Put, Txn, TxnOp};
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

    /// A quarantine of the commands, the first of which is entry 1.
    fn put_away(dir: &Path, commands: &[Command]) -> String {
        let log_dir = dir.join("log");
        fs::create_dir(&log_dir).unwrap();
        let disk = FileDisk::open(&log_dir).unwrap();
        let (mut log, _) = Wal::open(disk, WalOptions::with_seed(1)).unwrap();
        for command in commands {
            let mut payload = BytesMut::new();
            command.encode(&mut payload);
            log.append(Term::new(1, 1), &payload).unwrap();
        }
        log.sync().unwrap();
        let mut wanted = wanted(0, commands.len() as u64);
        wanted.what.with_state = false;
        put_away_entries(&log, dir, &wanted).unwrap();
        stem(&wanted.what)
    }

    fn put(key: &'static str, value: &'static str) -> Put {
        Put {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(value.as_bytes()),
            ..Put::default()
        }
    }

    fn delete(key: &'static str, end: &'static [u8]) -> Delete {
        let (key, end) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(end));
        Delete {
            range: KeyRange::from_wire(key, end),
            prev_kv: false,
        }
    }

    fn commands() -> Vec<Command> {
        vec![
            Command::Put(put("same", "1")),
            Command::Put(put("other", "1")),
            Command::Put(put("gone", "1")),
            Command::Put(put("ranged", "1")),
            Command::Delete(delete("gone", b"")),
            Command::Delete(delete("ranged", b"rangee")),
            Command::Txn(Txn {
                success: vec![TxnOp::Put(put("txn", "2"))],
                failure: vec![TxnOp::Put(put("never", "2"))],
                ..Txn::default()
            }),
            Command::LeaseRevoke { id: 3 },
        ]
    }

    #[test]
    fn what_is_in_quarantine_is_listed_and_goes_only_when_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(list(dir.path()).unwrap(), []);
        let id = put_away(dir.path(), &commands());
        let [kept] = &list(dir.path()).unwrap()[..] else {
            panic!("there is one")
        };
        let header = kept.header.as_ref().unwrap();
        assert_eq!((&kept.id, header.first, header.last), (&id, 1, 8));
        assert_eq!(
            (header.part.as_str(), header.node.as_str()),
            ("till/1", "a")
        );
        assert!(!kept.has_state);
        assert_eq!(kept.bytes, size(dir.path()));
        for name in ["", "..", "../joined", "x"] {
            let error = discard(dir.path(), name).unwrap_err().to_string();
            assert!(error.contains(&id), "{error}");
        }
        // What a crash left of another one is not touched.
        let unfinished = dir.path().join("quarantine/till-9.entries.tmp");
        fs::write(&unfinished, "x").unwrap();
        assert_eq!(discard(dir.path(), &id).unwrap(), kept.bytes);
        assert!(unfinished.exists());
        assert_eq!(list(dir.path()).unwrap(), []);
    }

    #[test]
    fn one_without_entries_counts_as_unfinished_and_can_be_discarded() {
        let dir = tempfile::tempdir().unwrap();
        put_away_state(&MemBackend::default(), dir.path(), &wanted(4, 9).what).unwrap();
        let [kept] = &list(dir.path()).unwrap()[..] else {
            panic!("there is one")
        };
        assert!(kept.header.is_err() && kept.has_state);
        discard(dir.path(), &kept.id).unwrap();
        assert_eq!(size(dir.path()), 0);
    }

    #[test]
    fn entries_are_exported_as_the_commands_that_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let id = put_away(dir.path(), &commands());
        let file = dir.path().join("export");
        assert_eq!(export(dir.path(), &id, &file).unwrap(), 8);
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<serde_json::Value> = lines.collect();
        assert_eq!(lines[0]["index"], 1);
        assert_eq!(lines[0]["command"]["key"], "same");
        assert_eq!(lines[5]["command"]["before"], "rangee");
        assert_eq!(lines[6]["command"]["then"][0]["value"], "2");
        // A file that is there is not written over.
        assert!(export(dir.path(), &id, &file).is_err());
    }

    #[test]
    fn damage_is_named_with_its_entry() {
        let dir = tempfile::tempdir().unwrap();
        let id = put_away(dir.path(), &commands());
        let path = dir
            .path()
            .join(QUARANTINE_DIR)
            .join(format!("{id}.entries"));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = export(dir.path(), &id, &dir.path().join("export")).unwrap_err();
        assert!(format!("{error:#}").contains("entry 8"), "{error:#}");
        bytes.truncate(bytes.len() - 3);
        fs::write(&path, &bytes).unwrap();
        let mut contents = Contents::open(dir.path(), &id).unwrap();
        let error = Writes::of(&mut contents).unwrap_err();
        assert!(format!("{error:#}").contains("entry 8"), "{error:#}");
    }

    #[test]
    fn keys_that_differ_are_told_from_those_that_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let id = put_away(dir.path(), &commands());
        let mut contents = Contents::open(dir.path(), &id).unwrap();
        let writes = Writes::of(&mut contents).unwrap();
        let now = |key: &Bytes| match &key[..] {
            b"same" => Some(Bytes::from_static(b"1")),
            b"other" | b"ranged" => Some(Bytes::from_static(b"9")),
            _ => None,
        };
        let now: Vec<_> = writes.keys().iter().map(now).collect();
        let found = writes.beside(&contents, &now);
        assert_eq!((found.entries, found.keys, found.same), (8, 5, 2));
        let keys: Vec<&str> = found
            .differing
            .iter()
            .map(|one| one.key.as_str().unwrap())
            .collect();
        assert_eq!(keys, ["other", "ranged", "txn"]);
        assert_eq!(found.differing[1].put_away, None);
        assert!(found.differing[2].is_conditional);
        assert_eq!(found.remarks.len(), 1, "{:?}", found.remarks);
    }
}
