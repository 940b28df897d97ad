//! A mark that an opened state has not shown yet that it can be worked with.
//!
//! An engine may panic on a file that something else has changed, and this program stops at a
//! panic. So that the next start does not run into the same, a file `unproven` lies beside the
//! state from before it is opened until its first checkpoint. An open that finds it checks
//! everything; if it then comes back unfinished as well, the state counts as damaged. The file is
//! not synced: it has to outlive the process, not the machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kine2_mvcc::BackendError;

/// Unfinished opens in a row, with everything checked in the last of them, that mean damage.
const UNFINISHED_MAX: u32 = 2;

/// The mark of this run.
#[derive(Debug)]
pub(crate) struct Unproven {
    path: PathBuf,
    found: bool,
}

impl Unproven {
    /// Marks the state in `dir` before it is opened.
    pub(crate) fn mark(dir: &Path) -> Result<Self, BackendError> {
        let path = dir.join("unproven");
        let unfinished = match fs::read_to_string(&path) {
            // A mark that does not parse is one that was being written.
            Ok(text) => Some(text.trim().parse::<u32>().unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let begun = unfinished.unwrap_or(0);
        if begun >= UNFINISHED_MAX {
            return Err(BackendError::Damaged(format!(
                "the program stopped {begun} times while it opened it"
            )));
        }
        fs::write(&path, (begun + 1).to_string())?;
        let found = unfinished.is_some();
        Ok(Self { path, found })
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
    pub(crate) fn proved(self) -> Result<(), BackendError> {
        Ok(fs::remove_file(self.path)?)
    }
}
