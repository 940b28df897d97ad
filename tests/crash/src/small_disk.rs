//! A file system of a given size, to be filled.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

/// A tmpfs, gone when it is dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one over a directory; `None` where mounting is not allowed.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn mount(path: &Path, options: &str) -> anyhow::Result<Option<Self>> {
        let options = CString::new(options)?;
        match mount("kine2-crash", path, "tmpfs", MountFlags::empty(), &*options) {
            Ok(()) => Ok(Some(Self(path.to_owned()))),
            Err(Errno::PERM | Errno::ACCESS) => Ok(None),
            Err(error) => Err(error).context("mount a tmpfs"),
        }
    }

    /// Changes its size or whether it can be written.
    ///
    /// # Errors
    /// If it cannot be mounted anew.
    pub fn remount(&self, flags: MountFlags, options: &str) -> anyhow::Result<()> {
        mount_remount(&*self.0, flags, options).context("mount the tmpfs anew")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&*self.0, UnmountFlags::DETACH);
    }
}
