//! The entries of a quarantine, one after the other, as the commands that they are.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::Context;
use kine2_mvcc::Command;
use kine2_replication::{Position, QuarantineHeader, read_quarantined};
use serde_json::json;

use super::QUARANTINE_DIR;
use super::plain::command;
use super::shelf::{Kept, find};

/// Length, term and chain of an entry, before its payload.
const ENTRY_BYTES: usize = 28;
/// Magic, version and length of the header.
const PREFIX_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;

/// A quarantine that is read.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) kept: Kept,
    pub(crate) header: QuarantineHeader,
    file: BufReader<File>,
    last: Position,
}

impl Contents {
    /// Opens the one of this name.
    ///
    /// # Errors
    /// If there is none, or its header is damaged.
    pub(crate) fn open(data_dir: &Path, id: &str) -> anyhow::Result<Self> {
        let kept = find(data_dir, id)?;
        let path = data_dir.join(QUARANTINE_DIR).join(format!("{id}.entries"));
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let mut file = BufReader::new(file);
        let mut bytes = vec![0; PREFIX_BYTES];
        file.read_exact(&mut bytes).context("read the header")?;
        let length = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let length = (length as usize).min(kine2_replication::QUARANTINE_HEADER_BYTES_MAX);
        bytes.resize(PREFIX_BYTES + length + CHECKSUM_BYTES, 0);
        let rest = &mut bytes[PREFIX_BYTES..];
        file.read_exact(rest).context("read the header")?;
        let (header, _) = QuarantineHeader::decode(&bytes)?;
        Ok(Self {
            last: header.base,
            kept,
            header,
            file,
        })
    }

    /// The next entry; nothing behind the last.
    ///
    /// # Errors
    /// If it is damaged: what comes after it cannot be read either.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<(Position, Command)>> {
        if self.last.index >= self.header.what.through {
            return Ok(None);
        }
        let index = self.last.index.next();
        let mut bytes = vec![0; ENTRY_BYTES];
        let read = self.file.read_exact(&mut bytes);
        read.with_context(|| format!("read entry {index}"))?;
        let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        // A length that cannot be is refused below.
        bytes.resize(ENTRY_BYTES + length.min(kine2_wal::MAX_PAYLOAD_BYTES), 0);
        let read = self.file.read_exact(&mut bytes[ENTRY_BYTES..]);
        read.with_context(|| format!("read entry {index}"))?;
        let (entry, _) = read_quarantined(self.last, &bytes)?;
        self.last = entry.position;
        let command = Command::decode(&entry.payload);
        let command = command.with_context(|| format!("read entry {index}"))?;
        Ok(Some((entry.position, command)))
    }
}

/// Writes all entries of a quarantine to a file, a line of JSON each. Answers how many.
///
/// # Errors
/// If one is damaged, or the file is there already or cannot be written.
pub(crate) fn export(data_dir: &Path, id: &str, path: &Path) -> anyhow::Result<u64> {
    let mut contents = Contents::open(data_dir, id)?;
    let file = File::create_new(path).with_context(|| format!("make {}", path.display()))?;
    let mut out = BufWriter::new(file);
    let mut count = 0;
    while let Some((position, what)) = contents.next()? {
        let line = json!({
            "index": position.index.0,
            "epoch": position.term.epoch,
            "run": position.term.run,
            "command": command(&what),
        });
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
        count += 1;
    }
    let file = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(count)
}
