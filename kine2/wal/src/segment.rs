//! A segment file: its name, its header, and what the running log knows about it.
//!
//! ```text
//!  0  8  magic "KINE2WAL"
//!  8  4  format version
//! 12  4  zero
//! 16  8  segment id, drawn at random for each use of a file
//! 24  8  sequence number, also the file's name
//! 32  8  length of the segment in bytes
//! 40 20  zero
//! 60  4  CRC32C over bytes 0..60
//! 64     zeros up to 4096, where records begin
//! ```
//!
//! The header is durable before the file gets its name, and is never written again. What is only known
//! when the segment is first used (the position before it) is its first record.

use crate::disk::{Disk, DiskFile};
use crate::error::WalError;
use crate::limits::{MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, PAGE, PAGE_BYTES};
use crate::position::{Origin, Position, Term};
use crate::record::{Salt, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"KINE2WAL";
/// Format version of new segments; those of [`VERSION_WITHOUT_ORIGINS`] are read, too.
pub(crate) const VERSION: u32 = 2;
/// Its records name no origins.
pub(crate) const VERSION_WITHOUT_ORIGINS: u32 = 1;
const HEADER_BYTES: usize = 64;
const CHECKED_BYTES: usize = 60;

const SEGMENT_SUFFIX: &str = ".wal";
const RECYCLE_SUFFIX: &str = ".recycle";

/// Number of the first segment of a new log.
pub(crate) const FIRST_SEQUENCE: u64 = 1;

/// A file that is being filled with zeros.
pub(crate) const PREPARE_NAME: &str = "prepare.tmp";

/// A file of the log's directory, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A segment in use, or the next one, prepared.
    Segment(u64),
    /// A segment that was cut; its bytes mean nothing any more.
    Recycle(u64),
    /// [`PREPARE_NAME`].
    Prepare,
}

impl FileName {
    /// `None` for a name the log does not use.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if name == PREPARE_NAME {
            return Some(Self::Prepare);
        }
        if let Some(digits) = name.strip_suffix(SEGMENT_SUFFIX) {
            return sequence(digits).map(Self::Segment);
        }
        name.strip_suffix(RECYCLE_SUFFIX)
            .and_then(sequence)
            .map(Self::Recycle)
    }
}

fn sequence(digits: &str) -> Option<u64> {
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    (digits == format!("{sequence:016x}")).then_some(sequence)
}

pub(crate) fn segment_name(sequence: u64) -> String {
    format!("{sequence:016x}{SEGMENT_SUFFIX}")
}

pub(crate) fn recycle_name(sequence: u64) -> String {
    format!("{sequence:016x}{RECYCLE_SUFFIX}")
}

/// The id of segment `sequence` of a log with this seed (SplitMix64): never the same for two numbers,
/// so a file is never used twice with one id.
pub(crate) fn segment_id(seed: u64, sequence: u64) -> u64 {
    let mut z = seed.wrapping_add(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The first page of a segment.
pub(crate) fn encode_header(id: u64, sequence: u64, bytes: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    page[0..8].copy_from_slice(MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    page[16..24].copy_from_slice(&id.to_le_bytes());
    page[24..32].copy_from_slice(&sequence.to_le_bytes());
    page[32..40].copy_from_slice(&bytes.to_le_bytes());
    let checksum = crc32c::crc32c(&page[..CHECKED_BYTES]);
    page[CHECKED_BYTES..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// An open segment file with a good header.
#[derive(Debug)]
pub(crate) struct SegmentFile<F> {
    pub(crate) file: F,
    pub(crate) name: String,
    pub(crate) sequence: u64,
    pub(crate) id: u64,
    pub(crate) salt: Salt,
    pub(crate) version: u32,
    /// Length of the file.
    pub(crate) bytes: u64,
}

impl<F: DiskFile> SegmentFile<F> {
    /// Wraps a file whose header was just written.
    pub(crate) fn new(file: F, sequence: u64, id: u64, bytes: u64) -> Self {
        Self {
            file,
            name: segment_name(sequence),
            sequence,
            id,
            salt: Salt::new(id),
            version: VERSION,
            bytes,
        }
    }

    /// Opens segment `sequence` and checks its header.
    pub(crate) fn open<D: Disk<File = F>>(disk: &D, sequence: u64) -> Result<Self, WalError> {
        let name = segment_name(sequence);
        let damaged = |offset, what: String| {
            Err(WalError::Damaged {
                file: name.clone(),
                offset,
                what,
            })
        };
        let file = disk.open(&name).map_err(WalError::io("open", &name))?;
        let size = file.size().map_err(WalError::io("measure", &name))?;
        if size < PAGE_BYTES {
            return damaged(
                0,
                format!("the file has {size} bytes, a header has {PAGE_BYTES}"),
            );
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)
            .map_err(WalError::io("read", &name))?;
        if &header[0..8] != MAGIC {
            return damaged(0, "the segment header's magic is missing".to_owned());
        }
        if u32_at(&header, CHECKED_BYTES) != crc32c::crc32c(&header[..CHECKED_BYTES]) {
            return damaged(0, "the segment header's checksum does not match".to_owned());
        }
        let version = u32_at(&header, 8);
        if !(VERSION_WITHOUT_ORIGINS..=VERSION).contains(&version) {
            return Err(WalError::UnsupportedVersion {
                file: name,
                version,
                supported: VERSION,
            });
        }
        let (named, bytes) = (u64_at(&header, 24), u64_at(&header, 32));
        if named != sequence {
            return damaged(24, format!("the header is that of segment {named:016x}"));
        }
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&bytes)
            || !bytes.is_multiple_of(PAGE_BYTES)
        {
            return damaged(
                32,
                format!("the header names an impossible length, {bytes}"),
            );
        }
        if size != bytes {
            return damaged(
                size.min(bytes),
                format!("the file has {size} bytes, not {bytes}"),
            );
        }
        Ok(Self {
            version,
            ..Self::new(file, sequence, u64_at(&header, 16), bytes)
        })
    }

    /// Whether records of this term can lie in the segment: an older program would take one with an
    /// origin for no record, and cut it.
    pub(crate) fn may_hold(&self, term: Term) -> bool {
        self.version > VERSION_WITHOUT_ORIGINS || term.origin == Origin::NONE
    }

    pub(crate) fn damaged(&self, offset: u64, what: impl Into<String>) -> WalError {
        WalError::damaged(&self.name, offset, what)
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), WalError> {
        assert!(
            offset + bytes.len() as u64 <= self.bytes,
            "a segment never grows"
        );
        self.file
            .write_all_at(bytes, offset)
            .map_err(WalError::io("write", &self.name))
    }

    pub(crate) fn sync(&self) -> Result<(), WalError> {
        self.file
            .sync_data()
            .map_err(WalError::io("flush", &self.name))
    }
}

/// A segment that holds records.
#[derive(Debug)]
pub(crate) struct Segment<F> {
    pub(crate) file: SegmentFile<F>,
    /// Position before the first live entry that lies in this segment or a later one. Its base
    /// record's, or lower after a truncation below that.
    pub(crate) base: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_strictly() {
        assert_eq!(
            FileName::parse(&segment_name(0x1f)),
            Some(FileName::Segment(0x1f))
        );
        assert_eq!(
            FileName::parse(&recycle_name(u64::MAX)),
            Some(FileName::Recycle(u64::MAX))
        );
        assert_eq!(FileName::parse(PREPARE_NAME), Some(FileName::Prepare));
        for foreign in [
            "1.wal",
            "000000000000001F.wal",
            "+00000000000001f.wal",
            "x",
            ".wal",
        ] {
            assert_eq!(FileName::parse(foreign), None, "{foreign}");
        }
    }
}
