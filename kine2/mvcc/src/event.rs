//! A change as watchers see it.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};

use crate::record::Record;
use crate::revision::ChangeId;
use crate::wire::{put_varint, varint_len};

/// One change of one key, with what its key was before (`etcd S36`).
///
/// The wire forms of `mvccpb.Event`, with and without the previous record, are made once, when
/// the first watcher needs them, and shared by all.
#[derive(Debug)]
pub struct Event {
    id: ChangeId,
    record: Record,
    previous: Previous,
    plain: OnceLock<Bytes>,
    with_prev: OnceLock<Bytes>,
}

/// What the key was before the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Previous {
    /// It was absent, or its record is compacted.
    Absent,
    /// This record, in memory.
    Known(Record),
    /// The record of this change, which the backend has.
    Stored(ChangeId),
}

impl Event {
    /// A change and what it replaced.
    #[must_use]
    pub const fn new(id: ChangeId, record: Record, previous: Previous) -> Self {
        Self {
            id,
            record,
            previous,
            plain: OnceLock::new(),
            with_prev: OnceLock::new(),
        }
    }

    /// The change.
    #[must_use]
    pub const fn id(&self) -> ChangeId {
        self.id
    }

    /// What the key became; a tombstone for a delete.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// What it was.
    #[must_use]
    pub const fn previous(&self) -> &Previous {
        &self.previous
    }

    /// Whether the key was deleted.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        self.record.is_tombstone()
    }

    /// Bytes it keeps in memory, without the shared wire forms.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let previous = match &self.previous {
            Previous::Known(record) => record.len(),
            Previous::Absent | Previous::Stored(_) => 0,
        };
        size_of::<Self>() + self.record.len() + previous
    }

    /// Wire form of `mvccpb.Event` without the previous record.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        self.plain.get_or_init(|| self.encode(None))
    }

    /// Wire form with the previous record. `fetch` reads one that is not in memory; it answers
    /// `None` for one that is compacted.
    ///
    /// # Errors
    /// What `fetch` fails with.
    pub fn encoded_with_prev<E>(
        &self,
        fetch: impl FnOnce(ChangeId) -> Result<Option<Record>, E>,
    ) -> Result<&Bytes, E> {
        if let Some(encoded) = self.with_prev.get() {
            return Ok(encoded);
        }
        let fetched;
        let previous = match &self.previous {
            Previous::Absent => None,
            Previous::Known(record) => Some(record),
            Previous::Stored(id) => {
                fetched = fetch(*id)?;
                fetched.as_ref()
            }
        };
        let encoded = self.encode(previous);
        Ok(self.with_prev.get_or_init(|| encoded))
    }

    /// `mvccpb.Event`: type = 1 (PUT 0, DELETE 1), kv = 2, prev_kv = 3.
    fn encode(&self, previous: Option<&Record>) -> Bytes {
        const TYPE: u8 = 1 << 3;
        const KV: u8 = 2 << 3 | 2;
        const PREV_KV: u8 = 3 << 3 | 2;
        let field_len = |record: &Record| 1 + varint_len(record.len() as u64) + record.len();
        let len = 2 + field_len(&self.record) + previous.map_or(0, field_len);
        let mut out = BytesMut::with_capacity(len);
        if self.is_delete() {
            out.put_slice(&[TYPE, 1]);
        }
        for (tag, record) in [(KV, Some(&self.record)), (PREV_KV, previous)] {
            if let Some(record) = record {
                out.put_u8(tag);
                put_varint(&mut out, record.len() as u64);
                out.put_slice(record.as_bytes());
            }
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::KeyValue;
    use crate::revision::Revision;

    #[test]
    fn s36_a_delete_carries_key_and_revision_and_the_previous_record_only_if_asked() {
        let id = ChangeId::first_of(Revision(3));
        let before = KeyValue {
            key: b"k",
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            ..Default::default()
        }
        .to_record();
        let event = Event::new(
            id,
            Record::tombstone(b"k", 3),
            Previous::Known(before.clone()),
        );
        assert_eq!(
            event.encoded().as_ref(),
            b"\x08\x01\x12\x05\x0a\x01k\x18\x03"
        );
        let with_prev = event.encoded_with_prev(|_| Ok::<_, ()>(None)).unwrap();
        assert!(with_prev.ends_with(before.as_bytes()));
    }
}
