//! Whether the disk has room for the log's next segment.

use std::path::PathBuf;

use kine2_node::Cut;
use kine2_wal::{LogIndex, Prepared, WalError};
use tracing::{info, warn};

use super::log_thread::Log;
use super::shared::{Finished, Shared};

/// The part of a segment that its preparation leaves free on the disk, for the state: it goes on
/// growing a little while history is compacted.
const RESERVE_PART: u64 = 2;

/// What stands behind the error of a log that met a full disk.
pub(super) const DISK_FULL: &str =
    " (what was answered is safe: make room on the disk, and kine2 starts again)";

/// The share of the disk that a log kept for a peer that is out may have.
const KEEP_PART: u64 = 10;

/// The log's directory, whether its disk was found full, and what is kept of the log for a peer
/// that is out.
#[derive(Debug)]
pub(super) struct LogSpace {
    dir: PathBuf,
    is_full: bool,
    /// Bytes of log kept at most (`repl L6`, log_keep).
    keep_bytes: u64,
    /// What only the peer needs begins before this entry.
    spared: Option<LogIndex>,
}

impl LogSpace {
    /// `keep_bytes` is for a disk that has ten times as much.
    pub(super) fn new(dir: PathBuf, keep_bytes: u64) -> Self {
        let disk = rustix::fs::statvfs(&dir)
            .map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        Self {
            dir,
            is_full: false,
            keep_bytes: keep_bytes.min(disk / KEEP_PART),
            spared: None,
        }
    }

    /// The first entry to keep. For a peer that is out the log is kept back to `keep_bytes`, but
    /// not where there is no room for the next segment.
    pub(super) fn first_to_keep(&mut self, log: &Log, cut: Cut) -> LogIndex {
        self.spared = None;
        if !cut.peer_is_out || self.is_full {
            return cut.below;
        }
        let first = log.first_of_last(self.keep_bytes).min(cut.below);
        self.spared = (first < cut.below).then_some(cut.below);
        first
    }

    /// Once the disk is full: below which entry the log goes after all.
    pub(super) fn take_spared(&mut self) -> Option<LogIndex> {
        self.is_full.then(|| self.spared.take()).flatten()
    }

    /// Whether the next segment could not be made ready.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Brings the next segment nearer if there is room for all of it. Answers whether there is
    /// more to do at once. The node is told when this begins to fail, while the current segment
    /// still takes what frees space, and when it succeeds again.
    ///
    /// # Errors
    /// As [`kine2_wal::Wal::prepare_next`], but for a full disk.
    pub(super) fn prepare(&mut self, log: &mut Log, shared: &Shared) -> Result<bool, WalError> {
        let bytes = log.preparation_bytes();
        if bytes > 0 && !self.has_room(bytes + log.segment_bytes() / RESERVE_PART) {
            self.note(true, shared);
            return Ok(false);
        }
        match log.prepare_next() {
            Ok(Prepared::More) => Ok(true),
            Ok(Prepared::Done) => {
                self.note(false, shared);
                Ok(false)
            }
            Err(error) if error.is_no_space() => {
                self.note(true, shared);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the disk has so much free space. One that does not tell is tried.
    fn has_room(&self, bytes: u64) -> bool {
        rustix::fs::statvfs(&self.dir).map_or(true, |disk| {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            free >= bytes
        })
    }

    fn note(&mut self, is_full: bool, shared: &Shared) {
        if self.is_full == is_full {
            return;
        }
        self.is_full = is_full;
        if is_full {
            warn!(
                dir = %self.dir.display(),
                "the disk has no room for the log's next segment: what needs space is refused \
                 until there is room and the alarm NOSPACE is disarmed"
            );
        } else {
            info!("the disk has room for the log's next segment again");
        }
        shared.finish(Finished::LogFull(is_full));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_disk_has_and_a_disk_that_does_not_tell_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let space = LogSpace::new(dir.path().to_owned(), 0);
        assert!(!space.has_room(u64::MAX));
        assert!(!space.has_room(1 << 60));
        assert!(LogSpace::new("/is/not/there".into(), 0).has_room(1));
    }
}
