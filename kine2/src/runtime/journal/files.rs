//! The journal's two files: `current`, and `previous`, which it becomes when it is full. A line is
//! an event in JSON. What a crash left of a line is not read, and taken away before the next one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::entry::Entry;

const DIR: &str = "events";
const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
/// Bytes of a file. Both together hold the last few thousand events.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an event's sentence.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// What is asked for of a journal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask {
    /// Only events after this one.
    pub(crate) after: u64,
    /// The last of them, at most; zero for all.
    pub(crate) last: usize,
}

/// Reads a journal, the oldest event first. There may be none.
///
/// # Errors
/// If a file that is there cannot be read.
pub(crate) fn read(data_dir: &Path, ask: Ask) -> std::io::Result<Vec<Entry>> {
    let dir = data_dir.join(DIR);
    let mut entries = BTreeMap::new();
    // If they change places meanwhile, it is read twice, and nothing in between is missing.
    for name in [CURRENT, PREVIOUS] {
        let bytes = match fs::read(dir.join(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Ok(entry) = serde_json::from_slice::<Entry>(line)
                && entry.number > ask.after
            {
                entries.insert(entry.number, entry);
            }
        }
    }
    let too_many = match ask.last {
        0 => 0,
        last => entries.len().saturating_sub(last),
    };
    Ok(entries.into_values().skip(too_many).collect())
}

/// The files, to be written.
#[derive(Debug)]
pub(super) struct Files {
    data_dir: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Bytes of whole events in it.
    bytes: u64,
    /// Number of the last event.
    last: u64,
}

impl Files {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            open: None,
        }
    }

    /// Writes events and flushes them. After an error the files are looked at again.
    ///
    /// # Errors
    /// If they cannot be written; then not all events are.
    pub(super) fn append(&mut self, entries: impl Iterator<Item = Entry>) -> std::io::Result<()> {
        let entries: Vec<Entry> = entries.collect();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.look()?,
        };
        for mut entry in entries {
            open.last += 1;
            entry.number = open.last;
            shorten(&mut entry.text);
            let mut line = serde_json::to_vec(&entry)?;
            line.push(b'\n');
            if open.bytes + line.len() as u64 > FILE_BYTES_MAX {
                open = self.turn(open)?;
            }
            open.file.write_all(&line)?;
            open.bytes += line.len() as u64;
        }
        open.file.sync_data()?;
        self.open = Some(open);
        Ok(())
    }

    /// Opens what is there, and takes away what a crash left of a line.
    fn look(&self) -> std::io::Result<Open> {
        let dir = self.data_dir.join(DIR);
        fs::create_dir_all(&dir)?;
        File::open(&self.data_dir)?.sync_all()?;
        let last = read(&self.data_dir, Ask::default())?;
        let last = last.last().map_or(0, |entry| entry.number);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(dir.join(CURRENT))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n');
        let bytes = whole.map_or(0, |end| end as u64 + 1);
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        File::open(&dir)?.sync_all()?;
        Ok(Open { file, bytes, last })
    }

    /// Goes on in a new file.
    fn turn(&self, full: Open) -> std::io::Result<Open> {
        full.file.sync_data()?;
        let dir = self.data_dir.join(DIR);
        fs::rename(dir.join(CURRENT), dir.join(PREVIOUS))?;
        let file = File::create(dir.join(CURRENT))?;
        File::open(&dir)?.sync_all()?;
        let (bytes, last) = (0, full.last);
        Ok(Open { file, bytes, last })
    }
}

fn shorten(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev();
        let end = end.into_iter().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        Entry {
            number: 0,
            at: "2026-01-31T12:00:00.250Z".to_owned(),
            kind: "start".to_owned(),
            text: text.to_owned(),
            measured: None,
        }
    }

    fn texts(dir: &Path, ask: Ask) -> Vec<String> {
        let entries = read(dir, ask).unwrap();
        entries.into_iter().map(|entry| entry.text).collect()
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_the_next_event_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let events = [entry("one"), entry("two")];
        Files::new(dir.path()).append(events.into_iter()).unwrap();
        let path = dir.path().join("events/current");
        let whole = fs::read(&path).unwrap();
        for cut in 1..whole.len() / 2 {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(texts(dir.path(), Ask::default())[..1], ["one"]);
            let mut files = Files::new(dir.path());
            files.append(std::iter::once(entry("three"))).unwrap();
            let read = texts(dir.path(), Ask::default());
            assert_eq!(read, ["one", "three"], "{cut} bytes were missing");
        }
    }

    #[test]
    fn old_events_go_and_the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path());
        let long = "x".repeat(5000);
        for _ in 0..100 {
            let batch = (0..10).map(|_| entry(&long));
            files.append(batch).unwrap();
        }
        let entries = read(dir.path(), Ask::default()).unwrap();
        assert_eq!(entries.last().unwrap().number, 1000);
        assert!(
            entries.len() > 250 && entries.len() < 520,
            "{}",
            entries.len()
        );
        let numbers = entries
            .windows(2)
            .all(|two| two[0].number + 1 == two[1].number);
        assert!(numbers, "none is missing in between");
        let size = |name| {
            fs::metadata(dir.path().join("events").join(name))
                .unwrap()
                .len()
        };
        assert!(size(CURRENT) <= FILE_BYTES_MAX && size(PREVIOUS) <= FILE_BYTES_MAX);
        let ask = Ask {
            after: 990,
            last: 3,
        };
        let some = read(dir.path(), ask).unwrap();
        let numbers: Vec<u64> = some.iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, [998, 999, 1000]);
    }
}
