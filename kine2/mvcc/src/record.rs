//! One change of one key, kept in the very bytes clients will read.
//!
//! A [`Record`] holds a `mvccpb.KeyValue` in wire form: key = 1, create_revision = 2,
//! mod_revision = 3, version = 4, value = 5, lease = 6, zero fields left out (`etcd S13`). It is
//! made once, when the command is applied, and from then on shared: a range answer or a watch
//! event copies it into its response without taking it apart.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::{Reader, put_bytes, put_varint, varint_len};

const KEY: u8 = 1 << 3 | 2;
const CREATE_REVISION: u8 = 2 << 3;
const MOD_REVISION: u8 = 3 << 3;
const VERSION: u8 = 4 << 3;
const VALUE: u8 = 5 << 3 | 2;
const LEASE: u8 = 6 << 3;

/// The fields of one [`Record`], borrowed from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key; never empty.
    pub key: &'a [u8],
    /// Revision of the first put since the key was absent; 0 in a tombstone.
    pub create_revision: i64,
    /// Revision of this change.
    pub mod_revision: i64,
    /// Puts since the key was absent, from 1; 0 in a tombstone.
    pub version: i64,
    /// The value; may be empty.
    pub value: &'a [u8],
    /// Id of the lease the key hangs on; 0 for none.
    pub lease: i64,
}

impl KeyValue<'_> {
    /// Bytes of the wire form.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let bytes_len = |b: &[u8]| {
            if b.is_empty() {
                0
            } else {
                1 + varint_len(b.len() as u64) + b.len()
            }
        };
        let int_len = |n: i64| {
            if n == 0 {
                0
            } else {
                1 + varint_len(n.cast_unsigned())
            }
        };
        bytes_len(self.key)
            + int_len(self.create_revision)
            + int_len(self.mod_revision)
            + int_len(self.version)
            + bytes_len(self.value)
            + int_len(self.lease)
    }

    /// Appends the wire form to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let put_field = |out: &mut _, tag, bytes: &[u8]| {
            if !bytes.is_empty() {
                BufMut::put_u8(out, tag);
                put_bytes(out, bytes);
            }
        };
        let put_number = |out: &mut _, tag, number: i64| {
            if number != 0 {
                BufMut::put_u8(out, tag);
                put_varint(out, number.cast_unsigned());
            }
        };
        put_field(out, KEY, self.key);
        put_number(out, CREATE_REVISION, self.create_revision);
        put_number(out, MOD_REVISION, self.mod_revision);
        put_number(out, VERSION, self.version);
        put_field(out, VALUE, self.value);
        put_number(out, LEASE, self.lease);
    }

    /// An owned record of these fields.
    #[must_use]
    pub fn to_record(&self) -> Record {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode(&mut out);
        Record(out.freeze())
    }
}

/// A `mvccpb.KeyValue` in wire form; cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(Bytes);

impl Record {
    /// Takes bytes that came from disk or a peer. `None` unless they are a well-formed record
    /// with a key.
    #[must_use]
    pub fn parse(bytes: Bytes) -> Option<Self> {
        let fields = decode(&bytes)?;
        (!fields.key.is_empty()).then_some(Self(bytes))
    }

    /// The record of a deletion: key and revision, all else zero (`etcd S36`).
    #[must_use]
    pub fn tombstone(key: &[u8], mod_revision: i64) -> Self {
        KeyValue {
            key,
            mod_revision,
            ..KeyValue::default()
        }
        .to_record()
    }

    /// The fields.
    #[must_use]
    pub fn view(&self) -> KeyValue<'_> {
        decode(&self.0).expect("a record is checked when it is made")
    }

    /// Whether it marks a deletion: only a tombstone has no create_revision.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.view().create_revision == 0
    }

    /// The same record without its value (`etcd S12`).
    #[must_use]
    pub fn without_value(&self) -> Self {
        KeyValue {
            value: &[],
            ..self.view()
        }
        .to_record()
    }

    /// Bytes of the wire form.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a record has a key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The wire form.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The wire form, handed over.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.view().fmt(f)
    }
}

fn decode(bytes: &[u8]) -> Option<KeyValue<'_>> {
    let mut reader = Reader::new(bytes);
    let mut fields = KeyValue::default();
    while !reader.is_empty() {
        match reader.byte()? {
            KEY => fields.key = reader.bytes()?,
            CREATE_REVISION => fields.create_revision = reader.int64()?,
            MOD_REVISION => fields.mod_revision = reader.int64()?,
            VERSION => fields.version = reader.int64()?,
            VALUE => fields.value = reader.bytes()?,
            LEASE => fields.lease = reader.int64()?,
            _ => return None,
        }
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_round_trip_and_zero_fields_take_no_bytes() {
        let full = KeyValue {
            key: b"k",
            create_revision: 2,
            mod_revision: 300,
            version: 7,
            value: b"v\0",
            lease: -1,
        };
        let record = full.to_record();
        assert_eq!(record.len(), full.encoded_len());
        assert_eq!(record.view(), full);
        assert_eq!(
            Record::tombstone(b"k", 9).as_bytes().as_ref(),
            b"\x0a\x01k\x18\x09"
        );
    }

    #[test]
    fn without_value_keeps_the_lease() {
        let record = KeyValue {
            key: b"k",
            value: b"v",
            lease: 5,
            ..KeyValue::default()
        }
        .to_record();
        assert_eq!(
            record.without_value().view(),
            KeyValue {
                value: b"",
                ..record.view()
            }
        );
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let record = KeyValue {
            key: b"key",
            mod_revision: 2,
            value: b"value",
            ..KeyValue::default()
        }
        .to_record();
        for cut in 0..record.len() {
            let parsed = Record::parse(record.as_bytes().slice(..cut));
            assert!(parsed.is_none_or(|r| r.len() == cut));
        }
        assert!(Record::parse(Bytes::from_static(b"\x7f\x01")).is_none());
        assert!(Record::parse(Bytes::new()).is_none());
    }
}
