//! A [`Disk`] that is a directory of the machine.
#![expect(
    clippy::disallowed_types,
    reason = "the one place of the log that opens real files"
)]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile};
use crate::limits::PAGE;

/// Held by the process that uses the directory.
const LOCK_NAME: &str = "lock";

/// A directory, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    directory: File,
    /// The lock ends with the descriptor, also when the process is killed.
    _lock: File,
}

impl FileDisk {
    /// Opens the directory at `path`, makes it if it is missing, and locks it.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds the directory, or what the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
        fs::create_dir_all(&path)?;
        for parent in missing.iter().filter_map(|path| path.parent()) {
            // Else a power cut could take the directory with everything that was synced inside it.
            File::open(parent)?.sync_all()?;
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_NAME))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{} is in use by another process", path.display()),
            ),
            TryLockError::Error(error) => error,
        })?;
        let directory = File::open(&path)?;
        Ok(Self {
            path,
            directory,
            _lock: lock,
        })
    }
}

impl Disk for FileDisk {
    type File = RealFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().into_string().map_err(|name| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("file name {name:?} is not UTF-8"),
                )
            })?;
            if name != LOCK_NAME {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        Ok(RealFile {
            file: options.open(self.path.join(name))?,
        })
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        Ok(RealFile {
            file: options.open(self.path.join(name))?,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }
}

/// A file of a [`FileDisk`].
#[derive(Debug)]
pub struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// A page at a time. The kernel keeps what one call wrote in one piece of its cache, and later
    /// accounts for, and on some file systems writes, the whole piece when a record dirties a page
    /// of it: 57 KB for an update where pages of 4 KiB make it 3 KB.
    fn zero_at(&self, offset: u64, count: usize) -> io::Result<()> {
        let page = [0; PAGE];
        let mut at = offset;
        for piece in (0..count).step_by(PAGE) {
            let zeros = &page[..PAGE.min(count - piece)];
            self.file.write_all_at(zeros, at)?;
            at += zeros.len() as u64;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("store/wal");
        let disk = FileDisk::open(&path).unwrap();
        assert_eq!(
            FileDisk::open(&path).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(disk);
        FileDisk::open(&path).unwrap();
    }

    #[test]
    fn files_are_listed_renamed_and_removed() {
        let parent = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(parent.path()).unwrap();
        let file = disk.create("a").unwrap();
        file.write_all_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        assert_eq!(
            disk.create("a").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        let mut bytes = [9; 8];
        let file = disk.open("b").unwrap();
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((&bytes, file.size().unwrap()), (b"\0\0\0hello", 8));
        assert_eq!(
            file.read_exact_at(&mut bytes, 1).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        disk.remove("b").unwrap();
        assert!(disk.list().unwrap().is_empty());
    }
}
