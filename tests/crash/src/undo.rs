//! The undo log that the shim keeps; the format stands in `shim/shim.c`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, bail, ensure};

const MAGIC: u32 = 0x5afe_0ce5;
const HEADER_BYTES: usize = 48;

/// Something that was done and may not be durable.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its place in time.
    pub at: u64,
    /// The file, or the directory of names.
    pub inode: u64,
    /// What.
    pub what: What,
}

/// What was done.
#[derive(Clone, Debug)]
pub enum What {
    /// Bytes were written, or cut off.
    Write {
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
        /// What was there; shorter than `len` if the file ended before.
        old: Vec<u8>,
        /// Size of the file before.
        old_size: u64,
    },
    /// A name means another inode now; 0 is none.
    Name {
        /// The name.
        name: String,
        /// What it meant.
        before: u64,
        /// What it means.
        now: u64,
    },
    /// A name became another one, in the same directory.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
        /// What the new name meant before.
        before: u64,
        /// The file.
        inode: u64,
    },
}

/// What a log tells.
#[derive(Debug, Default)]
pub struct Undo {
    /// What no flush has made durable, in the order it was done.
    pub pending: Vec<Step>,
    /// Steps of any kind that the shim saw.
    pub seen: usize,
    /// Flushes it saw.
    pub flushes: usize,
}

impl Undo {
    /// Reads a log, and cuts off a record that a kill left unfinished.
    ///
    /// # Errors
    /// If it cannot be read, or the program did what the shim does not cover.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(path).with_context(|| {
            format!(
                "no undo log at {}: the shim was not loaded (is kine2 linked statically?)",
                path.display()
            )
        })?;
        let mut steps = Vec::new();
        // Of each file or directory, the newest place in time that a flush has covered.
        let mut flushed: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut at, mut flushes) = (0, 0);
        while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
            let word = |from: usize| {
                let word = header[from..from + 8].try_into().unwrap_or_default();
                u64::from_le_bytes(word)
            };
            let kind = word(0) >> 32;
            ensure!(
                word(0) & 0xffff_ffff == u64::from(MAGIC),
                "no record at {at} of the undo log"
            );
            let (inode, offset, len, old_size) = (word(8), word(16), word(24), word(32));
            let body = at + HEADER_BYTES;
            let end = body + usize::try_from(word(40))?;
            let Some(old) = bytes.get(body..end) else {
                break;
            };
            let text = || String::from_utf8(old.to_vec()).context("a name");
            let place = u64::try_from(at)?;
            let what = match kind {
                1 => Some(What::Write {
                    offset,
                    len,
                    old: old.to_vec(),
                    old_size,
                }),
                2 => {
                    let covered = flushed.entry(inode).or_default();
                    *covered = offset.max(*covered);
                    flushes += 1;
                    None
                }
                3 | 4 => Some(What::Name {
                    name: text()?,
                    before: len,
                    now: old_size,
                }),
                5 => {
                    let names = text()?;
                    let (from, to) = names.split_once('\0').context("two names")?;
                    Some(What::Rename {
                        from: from.to_owned(),
                        to: to.to_owned(),
                        before: len,
                        inode: old_size,
                    })
                }
                6 => bail!("kine2 did what the shim does not cover: {}", text()?),
                _ => bail!("kind {kind} at {at} of the undo log"),
            };
            if let Some(what) = what {
                let at = place;
                steps.push(Step { at, inode, what });
            }
            at = end;
        }
        if at < bytes.len() {
            let file = File::options().write(true).open(path)?;
            file.set_len(u64::try_from(at)?)?;
        }
        let seen = steps.len();
        steps.retain(|step| flushed.get(&step.inode).is_none_or(|to| step.at >= *to));
        Ok(Self {
            pending: steps,
            seen,
            flushes,
        })
    }
}
