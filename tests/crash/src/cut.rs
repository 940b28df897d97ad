//! A power cut: of what was not durable, a part is taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::rng::Rng;
use crate::undo::{Step, Undo, What};

/// What a disk writes at once in most file systems.
const PAGE_BYTES: u64 = 4096;
/// What a disk writes at once, at least.
const SECTOR_BYTES: u64 = 512;

/// Which part is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    All,
    /// All after some moment.
    Prefix,
    /// Each page of a file, and each change of a directory, by chance.
    Pages,
    /// As pages, with pieces of 512 bytes.
    Sectors,
}

impl Mode {
    /// One of them.
    pub fn any(rng: &mut Rng) -> Self {
        match rng.within(0..10) {
            0 | 1 => Self::All,
            2 | 3 => Self::Prefix,
            4..8 => Self::Pages,
            _ => Self::Sectors,
        }
    }
}

/// What a cut has done.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// How it chose.
    pub mode: Mode,
    /// Steps that were not durable.
    pub pending: usize,
    /// Pieces of files taken back.
    pub pieces: usize,
    /// Changes of directories taken back.
    pub names: usize,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            mode,
            pending,
            pieces,
            names,
        } = self;
        write!(
            f,
            "cut {mode:?}: {pending} steps not durable, {pieces} pieces and {names} names taken back"
        )
    }
}

/// Cuts the power of what lies below `root`, as [`Mode::any`] says; `graves` has the deleted files.
///
/// # Errors
/// If the files cannot be changed, or a file that has to come back is not there.
pub fn cut(root: &Path, graves: &Path, undo: &Undo, rng: &mut Rng) -> anyhow::Result<Cut> {
    cut_as(Mode::any(rng), root, graves, undo, rng)
}

/// The same in one mode.
///
/// # Errors
/// As [`cut`].
pub fn cut_as(
    mode: Mode,
    root: &Path,
    graves: &Path,
    undo: &Undo,
    rng: &mut Rng,
) -> anyhow::Result<Cut> {
    let mut cut = Cut {
        mode,
        pending: undo.pending.len(),
        pieces: 0,
        names: 0,
    };
    let moment = match &undo.pending[..] {
        [] => return Ok(cut),
        pending => {
            let at = rng.within(0..pending.len() as u64);
            pending[usize::try_from(at)?].at
        }
    };
    let mut files: BTreeMap<u64, Vec<&Step>> = BTreeMap::new();
    let mut directories: BTreeMap<u64, Vec<&Step>> = BTreeMap::new();
    for step in &undo.pending {
        let of = match &step.what {
            What::Write { .. } => &mut files,
            What::Name { .. } | What::Rename { .. } => &mut directories,
        };
        of.entry(step.inode).or_default().push(step);
    }
    let paths = paths_below(&[root, graves])?;
    for (inode, steps) in files {
        let path = paths.get(&inode);
        let path = path.with_context(|| format!("no file has inode {inode}"))?;
        cut.pieces += cut_file(path, &steps, mode, moment, rng)
            .with_context(|| format!("cut {}", path.display()))?;
    }
    // The deepest first, so that the paths of the others stay.
    let mut directories: Vec<_> = directories
        .into_iter()
        .map(|(inode, steps)| {
            let path = paths.get(&inode);
            let path = path.with_context(|| format!("no directory has inode {inode}"))?;
            Ok((path.clone(), steps))
        })
        .collect::<anyhow::Result<_>>()?;
    directories.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
    for (path, steps) in directories {
        cut.names += cut_directory(&path, graves, &steps, mode, moment, rng)
            .with_context(|| format!("cut {}", path.display()))?;
    }
    Ok(cut)
}

/// Every file and directory by its inode.
fn paths_below(roots: &[&Path]) -> anyhow::Result<BTreeMap<u64, PathBuf>> {
    let mut paths = BTreeMap::new();
    let mut left: Vec<PathBuf> = roots.iter().map(|root| root.to_path_buf()).collect();
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
        paths.insert(metadata.ino(), path);
    }
    Ok(paths)
}

/// From which moment on the changes of one piece are taken back: that of the first, or of a later
/// one, or none.
fn fate(mode: Mode, moment: u64, steps: &[&Step], rng: &mut Rng) -> u64 {
    match mode {
        Mode::All => 0,
        Mode::Prefix => moment,
        Mode::Pages | Mode::Sectors => match rng.within(0..10) {
            0..4 => 0,
            4..8 => u64::MAX,
            _ => {
                let at = rng.within(0..steps.len() as u64);
                steps[usize::try_from(at).unwrap_or_default()].at
            }
        },
    }
}

fn cut_file(
    path: &Path,
    steps: &[&Step],
    mode: Mode,
    moment: u64,
    rng: &mut Rng,
) -> anyhow::Result<usize> {
    let file = File::options().write(true).open(path)?;
    let piece_bytes = if mode == Mode::Sectors {
        SECTOR_BYTES
    } else {
        PAGE_BYTES
    };
    let size_from = fate(mode, moment, steps, rng);
    let mut size = file.metadata()?.len();
    let mut fates: BTreeMap<u64, u64> = BTreeMap::new();
    let mut taken_back = BTreeSet::new();
    for step in steps.iter().rev() {
        let What::Write {
            offset,
            len,
            old,
            old_size,
        } = &step.what
        else {
            continue;
        };
        if step.at >= size_from {
            size = *old_size;
        }
        let mut from = *offset;
        while from < offset + len {
            let piece = from / piece_bytes;
            let to = ((piece + 1) * piece_bytes).min(offset + len);
            let fate = *fates
                .entry(piece)
                .or_insert_with(|| fate(mode, moment, steps, rng));
            if step.at >= fate {
                taken_back.insert(piece);
                // Where the file had ended, there is nothing but zeros.
                let mut bytes = vec![0; usize::try_from(to - from)?];
                let known = old
                    .get(usize::try_from(from - offset)?..)
                    .unwrap_or_default();
                let known = &known[..known.len().min(bytes.len())];
                bytes[..known.len()].copy_from_slice(known);
                file.write_all_at(&bytes, from)?;
            }
            from = to;
        }
    }
    file.set_len(size)?;
    Ok(taken_back.len())
}

fn cut_directory(
    directory: &Path,
    graves: &Path,
    steps: &[&Step],
    mode: Mode,
    moment: u64,
    rng: &mut Rng,
) -> anyhow::Result<usize> {
    // What the names meant when the directory was last flushed, then what survives of the changes.
    let mut names: BTreeMap<&str, u64> = BTreeMap::new();
    for step in steps {
        match &step.what {
            What::Name { name, before, .. } => drop(names.entry(name).or_insert(*before)),
            What::Rename {
                from,
                to,
                before,
                inode,
            } => {
                names.entry(from).or_insert(*inode);
                names.entry(to).or_insert(*before);
            }
            What::Write { .. } => {}
        }
    }
    let mut taken_back = 0;
    for step in steps {
        let survives = match mode {
            Mode::All => false,
            Mode::Prefix => step.at < moment,
            Mode::Pages | Mode::Sectors => rng.percent(50),
        };
        if !survives {
            taken_back += 1;
            continue;
        }
        match &step.what {
            What::Name { name, now, .. } => drop(names.insert(name, *now)),
            What::Rename {
                from, to, inode, ..
            } => {
                names.insert(from, 0);
                names.insert(to, *inode);
            }
            What::Write { .. } => {}
        }
    }
    for name in names.keys() {
        bury(&directory.join(name), graves)?;
    }
    for (name, inode) in names {
        if inode != 0 {
            raise(inode, graves, &directory.join(name))?;
        }
    }
    Ok(taken_back)
}

/// Takes a name away; what it meant stays in the graves.
fn bury(path: &Path, graves: &Path) -> anyhow::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let grave = graves.join(metadata.ino().to_string());
    if grave.try_exists()? {
        fs::remove_file(path)?;
    } else {
        fs::rename(path, grave)?;
    }
    Ok(())
}

fn raise(inode: u64, graves: &Path, path: &Path) -> anyhow::Result<()> {
    let grave = graves.join(inode.to_string());
    let metadata = fs::symlink_metadata(&grave)
        .with_context(|| format!("inode {inode} for {}", path.display()))?;
    if metadata.is_dir() {
        fs::rename(grave, path)?;
    } else {
        fs::hard_link(grave, path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: u64, offset: u64, old: &[u8], old_size: u64) -> Step {
        let what = What::Write {
            offset,
            len: 4,
            old: old.to_vec(),
            old_size,
        };
        Step { at, inode: 0, what }
    }

    #[test]
    fn all_of_a_file_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"abXXYYZZ").unwrap();
        // It was "abcd"; then XXYY was written at 2 and YYZZ at 4.
        let steps = [write(1, 2, b"cd", 4), write(2, 4, b"YY", 6)];
        let steps: Vec<&Step> = steps.iter().collect();
        let mut rng = Rng::new(1);
        cut_file(&path, &steps, Mode::Prefix, 2, &mut rng).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abXXYY");
        cut_file(&path, &steps, Mode::All, 0, &mut rng).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abcd");
    }

    #[test]
    fn a_rename_that_was_not_flushed_may_go_back() {
        let base = tempfile::tempdir().unwrap();
        let (dir, graves) = (base.path().join("dir"), base.path().join("graves"));
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(&graves).unwrap();
        fs::write(dir.join("old"), b"old").unwrap();
        fs::write(dir.join("new"), b"new").unwrap();
        let inode = |name: &str| fs::metadata(dir.join(name)).unwrap().ino();
        let (before, moved) = (inode("old"), inode("new"));
        fs::hard_link(dir.join("old"), graves.join(before.to_string())).unwrap();
        fs::rename(dir.join("new"), dir.join("old")).unwrap();
        let step = Step {
            at: 1,
            inode: 0,
            what: What::Rename {
                from: "new".to_owned(),
                to: "old".to_owned(),
                before,
                inode: moved,
            },
        };
        let mut rng = Rng::new(1);
        cut_directory(&dir, &graves, &[&step], Mode::All, 0, &mut rng).unwrap();
        assert_eq!(fs::read(dir.join("old")).unwrap(), b"old");
        assert_eq!(fs::read(dir.join("new")).unwrap(), b"new");
    }
}
