//! The journal: why roles changed, and what else an operator should know, one sentence each.
//!
//! It lies in `DATA_DIR/events` and survives restarts. A thread of its own writes it, so that
//! nobody who serves waits for it; what comes faster than it writes is counted, and the count told.

mod entry;
mod files;
mod kind;
pub(super) mod words;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use parking_lot::Mutex;
use tracing::warn;

pub(crate) use entry::{Entry, Measured, utc};
pub(crate) use files::{Ask, read};
pub(crate) use kind::Kind;

use files::Files;

/// Entries that wait to be written.
const WAITING_MAX: usize = 256;

/// The way to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    thread: Mutex<Option<(SyncSender<Entry>, JoinHandle<()>)>>,
    left_out: AtomicU64,
}

impl Journal {
    /// Begins to write on in the journal of a data directory.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn open(data_dir: &Path) -> std::io::Result<Self> {
        let (sender, entries) = sync_channel(WAITING_MAX);
        let files = Files::new(data_dir);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || run(files, &entries))?;
        Ok(Self {
            thread: Mutex::new(Some((sender, thread))),
            left_out: AtomicU64::new(0),
        })
    }

    /// One that keeps nothing.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self {
            thread: Mutex::new(None),
            left_out: AtomicU64::new(0),
        }
    }

    /// Notes something. It never waits.
    pub(super) fn note(&self, kind: Kind, text: String, measured: Option<Measured>) {
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        let entry = Entry {
            number: 0,
            at: utc(SystemTime::now()),
            kind: kind.name().to_owned(),
            text: match left_out {
                0 => text,
                count => format!("{text} ({count} events before this one were not kept)"),
            },
            measured,
        };
        let thread = self.thread.lock();
        let sent = thread
            .as_ref()
            .is_some_and(|(entries, _)| entries.try_send(entry).is_ok());
        if !sent {
            self.left_out.fetch_add(left_out + 1, Ordering::Relaxed);
        }
    }

    /// Waits until all that was noted is written; nothing is noted any more.
    pub(super) fn close(&self) {
        let Some((entries, thread)) = self.thread.lock().take() else {
            return;
        };
        drop(entries);
        thread.join().expect("the journal's thread does not panic");
    }
}

/// Writes all that waits, then flushes once.
fn run(mut files: Files, entries: &Receiver<Entry>) {
    let mut is_told = false;
    while let Ok(first) = entries.recv() {
        let batch = std::iter::once(first).chain(entries.try_iter());
        match files.append(batch) {
            Ok(()) => is_told = false,
            Err(error) if !is_told => {
                is_told = true;
                warn!(%error, "the journal of events cannot be written; its events are lost");
            }
            Err(_) => {}
        }
    }
}

/// How the last run of the program ended, if there was one: whether it was asked to.
pub(super) fn ended_well(data_dir: &Path) -> Option<bool> {
    let entries = read(data_dir, Ask::default()).unwrap_or_default();
    let ends = [Kind::Stop, Kind::Failed].map(Kind::name);
    let starts_or_ends =
        |entry: &&Entry| entry.kind == Kind::Start.name() || ends.contains(&entry.kind.as_str());
    let last = entries.iter().rev().find(starts_or_ends)?;
    Some(last.kind == Kind::Stop.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(dir: &Path) -> Vec<Entry> {
        read(dir, Ask::default()).unwrap()
    }

    #[test]
    fn what_was_noted_is_there_after_a_restart_and_numbers_go_on() {
        let dir = tempfile::tempdir().unwrap();
        for run in 0..3 {
            let journal = Journal::open(dir.path()).unwrap();
            journal.note(Kind::Start, format!("run {run}"), None);
            journal.note(Kind::Stop, "an end".to_owned(), None);
            journal.close();
            journal.note(Kind::Stop, "too late".to_owned(), None);
        }
        let entries = all(dir.path());
        let numbers: Vec<u64> = entries.iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
        assert_eq!(entries[4].text, "run 2");
        assert_eq!(entries[4].kind, "start");
    }
}
