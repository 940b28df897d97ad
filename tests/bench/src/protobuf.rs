//! Just enough Protocol Buffers to ask and to read what is needed of an answer.

use bytes::Bytes;

/// Bytes before each message: a flag (0, not compressed) and the length, big-endian.
pub(crate) const FRAME_HEADER_BYTES: usize = 5;

const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;

/// A message written from its last byte to its first, so that a nested message's length is known
/// when it is written: one buffer, one pass. Fields are put in reverse.
#[derive(Debug)]
pub(crate) struct Writer {
    buffer: Vec<u8>,
    /// The first byte written; those before it are free.
    at: usize,
}

impl Writer {
    /// `capacity`: at least the bytes of the whole message and its frame header.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            buffer: vec![0; capacity],
            at: capacity,
        }
    }

    pub(crate) fn int(&mut self, field: u8, value: i64) {
        self.varint(value.cast_unsigned());
        self.put(&[field << 3 | VARINT]);
    }

    pub(crate) fn bytes(&mut self, field: u8, value: &[u8]) {
        self.nested(field, |writer| writer.put(value));
    }

    pub(crate) fn nested(&mut self, field: u8, fill: impl FnOnce(&mut Self)) {
        let end = self.at;
        fill(self);
        self.varint((end - self.at) as u64);
        self.put(&[field << 3 | LENGTH_DELIMITED]);
    }

    /// The message as gRPC sends it.
    pub(crate) fn frame(mut self) -> Bytes {
        let len = u32::try_from(self.buffer.len() - self.at).expect("a message under 4 GiB");
        self.put(&len.to_be_bytes());
        self.put(&[0]);
        Bytes::from(self.buffer).slice(self.at..)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.at -= bytes.len();
        self.buffer[self.at..self.at + bytes.len()].copy_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        let mut bytes = [0; 10];
        let mut len = 0;
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            bytes[len] = if value == 0 { low & 0x7f } else { low | 0x80 };
            len += 1;
            if value == 0 {
                return self.put(&bytes[..len]);
            }
        }
    }
}

/// A field that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

/// The fields of a message; ends early on what it cannot read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Int(self.varint()?.cast_signed()),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                let (value, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Field::Bytes(value)
            }
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}

impl<'a> Fields<'a> {
    /// The number in a field, 0 if it is not there.
    pub(crate) fn int(mut self, field: u64) -> i64 {
        self.find_map(|(number, value)| match value {
            Field::Int(value) if number == field => Some(value),
            Field::Int(_) | Field::Bytes(_) => None,
        })
        .unwrap_or_default()
    }

    /// The bytes in a field, empty if it is not there.
    pub(crate) fn bytes(self, field: u64) -> &'a [u8] {
        self.all_bytes(field).next().unwrap_or_default()
    }

    /// The fields of the message in a field, none if it is not there.
    pub(crate) fn message(self, field: u64) -> Self {
        Self(self.bytes(field))
    }

    /// What a repeated field holds.
    pub(crate) fn all_bytes(self, field: u64) -> impl Iterator<Item = &'a [u8]> {
        self.filter_map(move |(number, value)| match value {
            Field::Bytes(value) if number == field => Some(value),
            Field::Int(_) | Field::Bytes(_) => None,
        })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut writer = Writer::new(600);
        writer.nested(4, |inner| {
            inner.bytes(2, &[7; 300]);
            inner.int(1, -1);
        });
        writer.int(3, 300);
        let frame = writer.frame();
        assert_eq!(frame[..5], [0, 0, 0, 1, 64]);
        let message = Fields(&frame[FRAME_HEADER_BYTES..]);
        assert_eq!(message.int(3), 300);
        assert_eq!(message.message(4).int(1), -1);
        assert_eq!(message.message(4).bytes(2), [7; 300]);
        assert_eq!(message.int(9), 0);
        assert!(message.bytes(9).is_empty());
    }
}
