//! What the log asks of a disk.

use std::fmt::Debug;
use std::io;

/// One directory that belongs to the log alone.
///
/// Names are plain file names. What an operation changed is seen at once by this process; what
/// survives a power cut is said at each. Between two syncs the medium may keep any subset of the
/// changes, in any order.
pub trait Disk: Debug {
    /// A file that is open for reading and writing.
    type File: DiskFile;

    /// Names of all files, in any order.
    ///
    /// # Errors
    /// What the disk says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file. Its name survives after [`sync_dir`](Self::sync_dir).
    ///
    /// # Errors
    /// `AlreadyExists`, or what the disk says.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file.
    ///
    /// # Errors
    /// `NotFound`, or what the disk says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, atomically; survives after [`sync_dir`](Self::sync_dir).
    ///
    /// # Errors
    /// What the disk says. The log never renames onto an existing name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Deletes a file; survives after [`sync_dir`](Self::sync_dir).
    ///
    /// # Errors
    /// What the disk says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and deletions so far survive a power cut.
    ///
    /// # Errors
    /// What the disk says. What then survives is unknown.
    fn sync_dir(&self) -> io::Result<()>;
}

/// A file of a [`Disk`].
pub trait DiskFile: Debug {
    /// Reads all of `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before, or what the disk says.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; the file grows as needed. Survives after
    /// [`sync_data`](Self::sync_data).
    ///
    /// # Errors
    /// What the disk says. Any part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Writes `count` zeros at `offset`, as [`write_all_at`](Self::write_all_at) does. For files that
    /// will be written again in small pieces: a disk may do it in the way that makes these cheap.
    ///
    /// # Errors
    /// What the disk says. Any part may have been written.
    fn zero_at(&self, offset: u64, count: usize) -> io::Result<()> {
        self.write_all_at(&vec![0; count], offset)
    }

    /// Makes all writes to this file so far, and its length, survive a power cut.
    ///
    /// # Errors
    /// What the disk says. What then survives is unknown, also after a later success.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// What the disk says.
    fn size(&self) -> io::Result<u64>;
}
