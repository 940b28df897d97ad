//! What is known of a state besides itself: two small files next to the engine's.
//!
//! `unproven` is a mark that an opened state has not shown yet that it can be worked with. It lies
//! there from before the engine is opened until the first checkpoint, and comes back when damage is
//! found later. An open that finds it checks everything. So a state that stops the program is
//! looked at closely by the next start, and one that stopped it twice while it was opened counts as
//! damaged, unless nothing could replace it: the program may have been killed. The file is not
//! synced: it has to outlive the process, not the machine.
//!
//! `promised` holds the log entry of the last checkpoint, synced. An engine that finds its newest
//! pages damaged may open at an older state without a word; the promise tells. The formats are in
//! docs/state-format.md.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};
use kine2_mvcc::{BackendError, LogPosition};

pub(crate) const UNPROVEN: &str = "unproven";
pub(crate) const PROMISED: &str = "promised";

/// Unfinished opens in a row, with everything checked in the last of them, that mean damage.
const UNFINISHED_MAX: u32 = 2;
const PROMISE_VERSION: u32 = 1;
const PROMISE_LEN: usize = 28;

/// The mark of this run.
#[derive(Debug)]
pub(crate) struct Unproven {
    path: PathBuf,
    found: bool,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unproven,
    Proven,
    /// Damage was found: only a full check of the next open clears it.
    Doubted,
}

impl Unproven {
    /// Marks the state in `dir` before it is opened.
    pub(crate) fn mark(dir: &Path, unfinished_is_damage: bool) -> Result<Self, BackendError> {
        let path = dir.join(UNPROVEN);
        let unfinished = match fs::read(&path) {
            // A mark that does not parse is one that was being written.
            Ok(text) => Some(parse_count(&text).unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let begun = unfinished.unwrap_or(0);
        if unfinished_is_damage && begun >= UNFINISHED_MAX {
            // If it cannot be built again, the start after this one tries it once more: what
            // stopped the program may have been something else.
            fs::write(&path, "0")?;
            return Err(BackendError::Damaged(format!(
                "the program stopped {begun} times while it opened it"
            )));
        }
        fs::write(&path, begun.saturating_add(1).to_string())?;
        Ok(Self {
            path,
            found: unfinished.is_some(),
            standing: Standing::Unproven,
        })
    }

    /// Whether the run before left its mark, so that everything is to be checked.
    pub(crate) const fn found(&self) -> bool {
        self.found
    }

    /// The open has come to its end, with a state or an error.
    pub(crate) fn opened(&self) -> Result<(), BackendError> {
        Ok(fs::write(&self.path, "0")?)
    }

    /// Reading, writing and a checkpoint went well.
    pub(crate) fn prove(&mut self) -> Result<(), BackendError> {
        if self.standing == Standing::Unproven {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => self.standing = Standing::Proven,
            }
        }
        Ok(())
    }

    /// Damage was found. The caller has an error to report already, so this gives none.
    pub(crate) fn doubt(&mut self) {
        if self.standing != Standing::Doubted {
            let _ = fs::write(&self.path, "0");
            self.standing = Standing::Doubted;
        }
    }
}

fn parse_count(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// The log entry that was durable once.
#[derive(Debug)]
pub(crate) struct Promise {
    dir: PathBuf,
    /// What the file said when it was opened; index 0 if it said nothing.
    found: LogPosition,
    file: Option<File>,
}

impl Promise {
    /// Reads the promise in `dir`. One that does not parse says nothing: it was being written, and
    /// the log still begins where the one before it asks for.
    pub(crate) fn read(dir: &Path) -> Result<Self, BackendError> {
        let found = match fs::read(dir.join(PROMISED)) {
            Ok(bytes) => parse_promise(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => LogPosition::default(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            dir: dir.to_owned(),
            found,
            file: None,
        })
    }

    /// Whether a state at `applied` is what it should be.
    pub(crate) fn check(&self, applied: LogPosition) -> Result<(), BackendError> {
        if applied.index >= self.found.index {
            return Ok(());
        }
        Err(BackendError::Damaged(format!(
            "it is at log entry {}, but was durable at entry {}",
            applied.index, self.found.index
        )))
    }

    /// Notes, durably, that the state is durable at `applied`.
    pub(crate) fn give(&mut self, applied: LogPosition) -> Result<(), BackendError> {
        let is_new = self.file.is_none();
        let file = match &self.file {
            Some(file) => file,
            None => {
                let path = self.dir.join(PROMISED);
                let mut how = OpenOptions::new();
                how.write(true).create(true).truncate(false);
                self.file.insert(how.open(path)?)
            }
        };
        // One sector: a power cut leaves this or the one before.
        file.write_all_at(&encode_promise(applied), 0)?;
        file.sync_data()?;
        if is_new {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }
}

fn encode_promise(applied: LogPosition) -> Vec<u8> {
    let mut out = Vec::with_capacity(PROMISE_LEN);
    out.put_u32_le(PROMISE_VERSION);
    out.put_u64_le(applied.epoch);
    out.put_u32_le(applied.run);
    out.put_u64_le(applied.index);
    out.put_u32_le(crc32c::crc32c(&out));
    out
}

fn parse_promise(bytes: &[u8]) -> Option<LogPosition> {
    let (mut fields, mut crc) = bytes.get(..PROMISE_LEN)?.split_at(PROMISE_LEN - 4);
    if crc.get_u32_le() != crc32c::crc32c(fields) {
        return None;
    }
    (fields.get_u32_le() == PROMISE_VERSION).then(|| LogPosition {
        epoch: fields.get_u64_le(),
        run: fields.get_u32_le(),
        index: fields.get_u64_le(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: LogPosition = LogPosition {
        epoch: 3,
        run: 1 << 20,
        index: 1 << 40,
    };

    #[test]
    fn a_promise_round_trips_and_a_damaged_one_says_nothing() {
        let bytes = encode_promise(POSITION);
        assert_eq!(bytes.len(), PROMISE_LEN);
        assert_eq!(parse_promise(&bytes), Some(POSITION));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_promise(&flipped), None);
        }
        for cut in 0..bytes.len() {
            assert_eq!(parse_promise(&bytes[..cut]), None);
        }
    }

    #[test]
    fn an_older_state_breaks_the_promise() {
        let dir = tempfile::tempdir().unwrap();
        let mut promise = Promise::read(dir.path()).unwrap();
        promise.check(LogPosition::default()).unwrap();
        promise
            .give(LogPosition {
                index: 9,
                ..POSITION
            })
            .unwrap();
        promise.give(POSITION).unwrap();
        let promise = Promise::read(dir.path()).unwrap();
        promise.check(POSITION).unwrap();
        let older = LogPosition {
            index: 9,
            ..POSITION
        };
        let error = promise.check(older).unwrap_err().to_string();
        assert!(error.contains("at log entry 9"), "{error}");
    }

    #[test]
    fn a_state_that_may_be_sound_is_not_refused_for_good() {
        let dir = tempfile::tempdir().unwrap();
        for unfinished in [false, true] {
            assert_eq!(
                Unproven::mark(dir.path(), true).unwrap().found(),
                unfinished
            );
        }
        assert!(Unproven::mark(dir.path(), true).is_err());
        assert!(Unproven::mark(dir.path(), true).unwrap().found());
    }

    #[test]
    fn doubt_outlives_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let mut mark = Unproven::mark(dir.path(), true).unwrap();
        mark.opened().unwrap();
        mark.prove().unwrap();
        assert!(!dir.path().join(UNPROVEN).exists());
        mark.doubt();
        mark.prove().unwrap();
        assert!(Unproven::mark(dir.path(), true).unwrap().found());
    }
}
