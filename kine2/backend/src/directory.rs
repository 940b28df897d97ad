//! The directory of a block: what the index needs to know of each live record, and where its bytes
//! lie. Its format is in docs/state-format.md.
//!
//! A directory answers for the whole block: it checks itself, and it holds a checksum of each
//! record, so that a DATA value that is stale, swapped or flipped is noticed where it is read.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kine2_mvcc::wire::{Reader, put_bytes, put_int64, put_varint};
use kine2_mvcc::{BackendError, ChangeId, Revision};

/// Bytes before the first entry: checksum, count, data bytes, live bytes.
const HEADER_LEN: usize = 16;

/// Sizes a directory states of its block, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockSize {
    /// The directory.
    pub(crate) directory: u32,
    /// The DATA value.
    pub(crate) data: u32,
    /// The live records in it; `<= data`.
    pub(crate) live: u32,
}

/// One live record of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) id: ChangeId,
    pub(crate) key: &'a [u8],
    pub(crate) create_revision: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
    pub(crate) place: RecordPlace,
}

/// Where a record lies in its block's DATA value, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordPlace {
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

impl RecordPlace {
    /// The record's bytes out of the block's DATA value; `None` if they are not what was written.
    pub(crate) fn of<'d>(&self, data: &'d [u8]) -> Option<&'d [u8]> {
        let start = usize::try_from(self.offset).ok()?;
        let len = usize::try_from(self.len).ok()?;
        let record = data.get(start..start.checked_add(len)?)?;
        (crc32c::crc32c(record) == self.crc).then_some(record)
    }
}

/// A directory that passed its check, borrowed from where it is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory<'a> {
    id: ChangeId,
    crc: u32,
    count: u32,
    size: BlockSize,
    entries: &'a [u8],
}

impl<'a> Directory<'a> {
    /// Checks the directory of block `id`.
    pub(crate) fn parse(id: ChangeId, bytes: &'a [u8]) -> Result<Self, BackendError> {
        let parsed = Self::checked(id, bytes);
        parsed.ok_or_else(|| damaged(id, "its directory fails its checksum"))
    }

    fn checked(id: ChangeId, bytes: &'a [u8]) -> Option<Self> {
        let (mut header, entries) = bytes.split_at_checked(HEADER_LEN)?;
        let crc = header.get_u32_le();
        if crc != checksum(id, &bytes[4..]) {
            return None;
        }
        Some(Self {
            id,
            crc,
            count: header.get_u32_le(),
            size: BlockSize {
                directory: u32::try_from(bytes.len()).ok()?,
                data: header.get_u32_le(),
                live: header.get_u32_le(),
            },
            entries,
        })
    }

    /// The block's id.
    pub(crate) const fn id(&self) -> ChangeId {
        self.id
    }

    pub(crate) const fn size(&self) -> BlockSize {
        self.size
    }

    /// What the head sums up, to notice a directory that is missing or of another time.
    pub(crate) const fn crc(&self) -> u32 {
        self.crc
    }

    /// The entries, ascending.
    pub(crate) const fn entries(&self) -> Entries<'a> {
        Entries {
            block: self.id,
            last: self.id,
            end: 0,
            left: self.count,
            reader: Reader::new(self.entries),
        }
    }

    /// Where the record of a change lies, if the block has it.
    pub(crate) fn find(&self, id: ChangeId) -> Result<Option<RecordPlace>, BackendError> {
        for entry in self.entries() {
            let entry = entry?;
            if entry.id >= id {
                return Ok((entry.id == id).then_some(entry.place));
            }
        }
        Ok(None)
    }
}

/// The entries of a [`Directory`].
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    block: ChangeId,
    last: ChangeId,
    end: u32,
    left: u32,
    reader: Reader<'a>,
}

impl<'a> Entries<'a> {
    fn decode(&mut self) -> Option<Entry<'a>> {
        let main = self.last.main.0;
        let id = ChangeId {
            main: Revision(main.checked_add(i64::try_from(self.reader.varint()?).ok()?)?),
            sub: u32::try_from(self.reader.varint()?).ok()?,
        };
        let key = self.reader.bytes()?;
        let create_revision = match self.reader.varint()? {
            0 => 0,
            age => id.main.0.checked_sub(i64::try_from(age - 1).ok()?)?,
        };
        let version = self.reader.int64()?;
        let lease = self.reader.int64()?;
        let gap = u32::try_from(self.reader.varint()?).ok()?;
        let offset = self.end.checked_add(gap)?;
        let len = u32::try_from(self.reader.varint()?).ok()?;
        let crc = u32::from_le_bytes(self.reader.array()?);
        self.last = id;
        self.end = offset.checked_add(len)?;
        Some(Entry {
            id,
            key,
            create_revision,
            version,
            lease,
            place: RecordPlace { offset, len, crc },
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, BackendError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = self.decode();
        Some(entry.ok_or_else(|| damaged(self.block, "an entry of its directory does not parse")))
    }
}

/// Writes a directory, entry by entry.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryWriter {
    id: ChangeId,
    last: ChangeId,
    /// End of the last record in DATA.
    end: u32,
    count: u32,
    live: u32,
    out: BytesMut,
}

impl DirectoryWriter {
    pub(crate) fn new(id: ChangeId) -> Self {
        let mut out = BytesMut::with_capacity(1024);
        out.put_bytes(0, HEADER_LEN);
        Self {
            id,
            last: id,
            end: 0,
            count: 0,
            live: 0,
            out,
        }
    }

    pub(crate) const fn id(&self) -> ChangeId {
        self.id
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the records it lists.
    pub(crate) const fn live(&self) -> u32 {
        self.live
    }

    /// Adds a record behind the ones there: its id and place are above theirs.
    pub(crate) fn push(&mut self, entry: &Entry<'_>) {
        let (id, place) = (entry.id, entry.place);
        assert!(
            place.offset >= self.end && (self.count == 0 && id >= self.last || id > self.last),
            "records of a block ascend"
        );
        let varint = |out: &mut BytesMut, difference: i64| {
            put_varint(out, u64::try_from(difference).expect("ids ascend"));
        };
        let out = &mut self.out;
        varint(out, id.main.0 - self.last.main.0);
        put_varint(out, u64::from(id.sub));
        put_bytes(out, entry.key);
        match entry.create_revision {
            0 => put_varint(out, 0),
            created => varint(out, id.main.0 - created + 1),
        }
        put_int64(out, entry.version);
        put_int64(out, entry.lease);
        put_varint(out, u64::from(place.offset - self.end));
        put_varint(out, u64::from(place.len));
        out.put_u32_le(place.crc);
        self.last = id;
        self.end = place.offset + place.len;
        self.live += place.len;
        self.count += 1;
    }

    /// The directory of a block whose DATA value has `data` bytes, with its checksum.
    pub(crate) fn finish(mut self, data: u32) -> (Bytes, u32, BlockSize) {
        let size = BlockSize {
            directory: u32::try_from(self.out.len()).expect("a directory is far below 4 GiB"),
            data,
            live: self.live,
        };
        self.out[4..8].copy_from_slice(&self.count.to_le_bytes());
        self.out[8..12].copy_from_slice(&data.to_le_bytes());
        self.out[12..16].copy_from_slice(&self.live.to_le_bytes());
        let crc = checksum(self.id, &self.out[4..]);
        self.out[..4].copy_from_slice(&crc.to_le_bytes());
        (self.out.freeze(), crc, size)
    }
}

/// An error that names the block.
pub(crate) fn damaged(id: ChangeId, what: &str) -> BackendError {
    BackendError::Damaged(format!("block {id}: {what}"))
}

/// The block's id is under the checksum, so that a directory stored under another id fails.
fn checksum(id: ChangeId, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&id.to_bytes()), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(main: i64, sub: u32) -> ChangeId {
        ChangeId {
            main: Revision(main),
            sub,
        }
    }

    fn entry(id: ChangeId, key: &[u8], offset: u32, len: u32) -> Entry<'_> {
        Entry {
            id,
            key,
            create_revision: id.main.0,
            version: 1,
            lease: 7,
            place: RecordPlace {
                offset,
                len,
                crc: 9,
            },
        }
    }

    #[test]
    fn entries_round_trip_with_gaps_and_tombstones() {
        let block = id(5, 2);
        let entries = [
            entry(id(6, 0), b"a", 10, 20),
            entry(id(6, 3), b"b", 30, 5),
            Entry {
                create_revision: 0,
                version: 0,
                lease: 0,
                ..entry(id(900, 0), b"c", 40, 1)
            },
            Entry {
                create_revision: 2,
                version: i64::MAX,
                lease: -1,
                ..entry(id(i64::MAX, u32::MAX), b"", 41, 1 << 20)
            },
        ];
        let mut writer = DirectoryWriter::new(block);
        for entry in &entries {
            writer.push(entry);
        }
        let (bytes, crc, size) = writer.finish(2 << 20);
        let directory = Directory::parse(block, &bytes).unwrap();
        assert_eq!((directory.crc(), directory.size()), (crc, size));
        assert_eq!(size.live, 26 + (1 << 20));
        let read: Result<Vec<_>, _> = directory.entries().collect();
        assert_eq!(read.unwrap(), entries);
        assert_eq!(directory.find(id(6, 3)).unwrap(), Some(entries[1].place));
        assert_eq!(directory.find(id(6, 1)).unwrap(), None);
        assert!(Directory::parse(id(5, 1), &bytes).is_err(), "another block");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut writer = DirectoryWriter::new(id(2, 0));
        writer.push(&entry(id(2, 0), b"key", 0, 3));
        let (bytes, ..) = writer.finish(3);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Directory::parse(id(2, 0), &flipped).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(Directory::parse(id(2, 0), &bytes[..cut]).is_err());
        }
    }
}
