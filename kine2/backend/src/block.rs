//! A block while it is written: records of consecutive changes and their directory.

use bytes::Bytes;
use kine2_mvcc::{ChangeId, Record};

use crate::directory::{BlockSize, DirectoryWriter, Entry, RecordPlace};
use crate::engine::WriteBatch;

/// Bytes of records a block takes before the next one begins.
///
/// With an engine's own header and the key it fills a page of 16 KiB. A record that is larger has a
/// block of its own.
pub(crate) const BLOCK_BYTES: u32 = 16 * 1024 - 48;

/// What a stored block is known by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) id: ChangeId,
    /// Checksum of its directory.
    pub(crate) crc: u32,
    pub(crate) size: BlockSize,
}

/// Records on their way into a block.
#[derive(Clone, Debug)]
pub(crate) struct BlockBuilder {
    directory: DirectoryWriter,
    records: Vec<Bytes>,
}

impl BlockBuilder {
    /// An empty block; its id is at or below its first record's.
    pub(crate) fn new(id: ChangeId) -> Self {
        Self {
            directory: DirectoryWriter::new(id),
            records: Vec::new(),
        }
    }

    pub(crate) const fn id(&self) -> ChangeId {
        self.directory.id()
    }

    /// Whether a record of `len` bytes still belongs into it.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        let used = usize::try_from(self.directory.live()).expect("32 bits");
        self.directory.is_empty() || used + len <= usize::try_from(BLOCK_BYTES).expect("32 bits")
    }

    /// Adds the next change.
    pub(crate) fn push(&mut self, id: ChangeId, record: &Record) {
        let fields = record.view();
        let entry = Entry {
            id,
            key: fields.key,
            create_revision: fields.create_revision,
            version: fields.version,
            lease: fields.lease,
            place: RecordPlace {
                offset: 0,
                len: u32::try_from(record.len()).expect("a record is far below 4 GiB"),
                crc: crc32c::crc32c(record.as_bytes()),
            },
        };
        self.push_entry(entry, record.as_bytes().clone());
    }

    /// Adds a record that was in a block before; its place is set anew.
    pub(crate) fn push_entry(&mut self, mut entry: Entry<'_>, record: Bytes) {
        entry.place.offset = self.directory.live();
        self.directory.push(&entry);
        self.records.push(record);
    }

    /// Puts the block into a batch.
    pub(crate) fn store(self, batch: &mut WriteBatch) -> Stored {
        let (id, data) = (self.id(), self.directory.live());
        let (directory, crc, size) = self.directory.finish(data);
        batch.put_block(id, directory, self.records);
        Stored { id, crc, size }
    }
}
