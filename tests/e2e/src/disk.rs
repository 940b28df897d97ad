//! Where a node keeps its data, and what happens to it there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use kine2_crash::cut::cut;
use kine2_crash::rng::Rng;
use kine2_crash::server::Launch;
use kine2_crash::shim::Shim;
use kine2_crash::small_disk::SmallDisk;
use kine2_crash::undo::Undo;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// What a disk can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    /// Nothing but keep the data.
    #[default]
    Good,
    /// Its flushes can be made to fail, and it is a file system of its own that can be filled. Takes
    /// root and a C compiler.
    Failing,
    /// Its flushes can be made to fail, and what was not flushed can be lost. Takes a C compiler.
    Volatile,
}

/// Size of a disk that can be filled.
const SMALL: &str = "size=256m";
/// Every flush fails from the moment that the rule counts.
const FLUSHES_FAIL: &str = "sync,any,1,0,eio";
/// What fills the disk.
const FILLER: &str = "filler";

/// The disk of a node: `DIR/disk/data` is its data directory.
#[derive(Debug)]
pub(crate) struct Disk {
    medium: Medium,
    shim: Shim,
    image: PathBuf,
    _small: Option<SmallDisk>,
}

impl Disk {
    /// Below this directory.
    pub(crate) fn below(dir: &Path, medium: Medium) -> Self {
        let shim = Shim::below(dir).unwrap();
        let small = match medium {
            Medium::Failing => {
                let mounted = SmallDisk::mount(&shim.root, SMALL).unwrap();
                Some(mounted.expect("mounting takes root"))
            }
            Medium::Good | Medium::Volatile => None,
        };
        Self {
            medium,
            shim,
            image: dir.join("image"),
            _small: small,
        }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.shim.root.join("data")
    }

    /// Has a start of the program run on it.
    pub(crate) fn prepare(&self, command: &mut Command) {
        let launch = Launch::below(&self.shim.root);
        let launch = match self.medium {
            Medium::Good => return,
            Medium::Failing => launch,
            Medium::Volatile => self.shim.record(launch).unwrap(),
        };
        let launch = self.shim.fail(launch, FLUSHES_FAIL).unwrap();
        command.envs(launch.environment);
    }

    /// From now on flushes fail, until the next start.
    pub(crate) fn fail_flushes(&self) {
        self.shim.arm().unwrap();
    }

    /// Whether they fail for the process that was started last.
    pub(crate) fn fails(&self) -> bool {
        self.shim.arm.exists()
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let room = statvfs(&self.shim.root).unwrap();
        let filler = File::create(self.shim.root.join(FILLER)).unwrap();
        let bytes = room.f_bavail * room.f_frsize;
        // The node takes some of it meanwhile.
        if bytes > 0 {
            let _ = fallocate(&filler, FallocateFlags::empty(), 0, bytes);
        }
    }

    /// There is room again.
    pub(crate) fn make_room(&self) {
        let _ = fs::remove_file(self.shim.root.join(FILLER));
    }

    /// Loses all of it.
    pub(crate) fn wipe(&self) {
        fs::remove_dir_all(self.data_dir()).unwrap();
        self.forget();
    }

    pub(crate) fn has_image(&self) -> bool {
        self.image.exists()
    }

    /// Keeps a copy of what is there; the node does not run.
    pub(crate) fn take_image(&self) {
        let _ = fs::remove_dir_all(&self.image);
        copy(&self.data_dir(), &self.image);
    }

    /// Brings back what was there when the image was made; the node does not run.
    pub(crate) fn restore_image(&self) {
        fs::remove_dir_all(self.data_dir()).unwrap();
        copy(&self.image, &self.data_dir());
        self.forget();
    }

    /// Loses what was not flushed, as chance has it; the node was killed.
    pub(crate) fn cut_power(&self, rng: &mut Rng) {
        assert_eq!(self.medium, Medium::Volatile);
        // The power was cut already, and it was not started since.
        if !self.shim.undo.exists() {
            return;
        }
        let undo = Undo::read(&self.shim.undo).unwrap();
        cut(&self.shim.root, &self.shim.graves, &undo, rng).unwrap();
        self.forget();
    }

    /// What is there now is durable.
    fn forget(&self) {
        if self.shim.undo.exists() {
            self.shim.forget().unwrap();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(
        copied.unwrap().success(),
        "{} is not copied",
        from.display()
    );
}
