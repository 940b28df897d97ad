//! The disk the servers write to: what it was given to write, and how long a small durable write
//! takes right now.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use rustix::fs::{major, minor, syncfs};
use serde::{Deserialize, Serialize};

const PROBE_WRITE_BYTES: usize = 4096;
const PROBE_WRITES: usize = 100;
/// The unit of `/sys/dev/block/*/stat`, whatever the device's own is.
const SECTOR_BYTES: u64 = 512;

/// The file system that holds a directory.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    dir: File,
    /// The block device's counters; none if the file system is not on one.
    stat: Option<PathBuf>,
}

/// What a block device has done since it came up, for everybody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    /// Requests to make what was written durable.
    pub(crate) flushes: u64,
}

/// Time for `pwrite` of 4 KiB in place and `fdatasync`, in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Disk {
    pub(crate) fn of(path: &Path) -> anyhow::Result<Self> {
        let dir = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let device = dir.metadata()?.dev();
        let stat = format!("/sys/dev/block/{}:{}/stat", major(device), minor(device));
        let stat = Some(PathBuf::from(stat)).filter(|stat| stat.exists());
        Ok(Self {
            path: path.to_owned(),
            dir,
            stat,
        })
    }

    /// Lets the file system write what it put off, and counts. The kernel's count for a process,
    /// `write_bytes`, does not do: it adds a whole folio of the page cache, up to 2 MiB, for each
    /// small write into a file that was filled in large pieces.
    pub(crate) fn written(&self) -> anyhow::Result<Option<Written>> {
        let Some(stat) = &self.stat else {
            return Ok(None);
        };
        syncfs(&self.dir)?;
        let stat = fs::read_to_string(stat)?;
        let fields: Vec<&str> = stat.split_whitespace().collect();
        let field = |number: usize| {
            let field = fields
                .get(number - 1)
                .context("a block device's counters are short")?;
            field.parse::<u64>().context("a block device's counter")
        };
        Ok(Some(Written {
            bytes: field(7)? * SECTOR_BYTES,
            flushes: field(16)?,
        }))
    }

    pub(crate) fn latency(&self) -> anyhow::Result<Latency> {
        let path = self.path.join("probe");
        let mut file = File::create(&path)?;
        file.write_all(&[0; PROBE_WRITE_BYTES * PROBE_WRITES])?;
        file.sync_all()?;
        let mut micros = Vec::with_capacity(PROBE_WRITES);
        for number in 0..PROBE_WRITES {
            let begun = Instant::now();
            let offset = (number * PROBE_WRITE_BYTES) as u64;
            file.write_all_at(&[1; PROBE_WRITE_BYTES], offset)?;
            file.sync_data()?;
            micros.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        fs::remove_file(path)?;
        micros.sort_by(f64::total_cmp);
        let last = PROBE_WRITES - 1;
        Ok(Latency {
            p50_us: micros[last / 2],
            p99_us: micros[last * 99 / 100],
        })
    }
}

impl Written {
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            bytes: self.bytes - earlier.bytes,
            flushes: self.flushes - earlier.flushes,
        }
    }
}
