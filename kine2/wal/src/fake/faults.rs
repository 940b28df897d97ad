//! Operations of a fake disk, and how they fail on command.

use std::collections::BTreeMap;
use std::io;

/// What a disk is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// [`Disk::list`].
    List,
    /// [`Disk::create`].
    Create,
    /// [`Disk::open`].
    Open,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`DiskFile::read_exact_at`].
    Read,
    /// [`DiskFile::write_all_at`].
    Write,
    /// [`DiskFile::sync_data`].
    Sync,
}

impl Operation {
    pub(super) fn is_change(self) -> bool {
        match self {
            Self::List | Self::Open | Self::Read => false,
            Self::Create
            | Self::Rename
            | Self::Remove
            | Self::SyncDir
            | Self::Write
            | Self::Sync => true,
        }
    }
}

/// What is planned to go wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// By operation: how many more succeed, and the error after them.
    pub(super) errors: BTreeMap<Operation, (u64, io::ErrorKind)>,
    /// How many more writes succeed, and how many bytes of the next are written before it fails.
    pub(super) short_write: Option<(u64, usize)>,
    /// Most bytes all files may have together.
    pub(super) capacity_bytes: Option<u64>,
    /// Changes until the power is gone.
    pub(super) changes_left: Option<u64>,
}

impl Faults {
    /// Fails an operation if that was planned.
    pub(super) fn begin(&mut self, operation: Operation) -> io::Result<()> {
        if operation.is_change()
            && let Some(left) = &mut self.changes_left
            && *left > 0
        {
            *left -= 1;
        } else if self.changes_left == Some(0) {
            return Err(io::Error::other("the power is off"));
        }
        match self.errors.get_mut(&operation) {
            Some((0, kind)) => {
                let kind = *kind;
                self.errors.remove(&operation);
                Err(kind.into())
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
