//! Varints and length-delimited fields as Protocol Buffers write them: the form in which records,
//! commands and the state engines' blocks are kept. gRPC messages are not made here.

use bytes::{BufMut, Bytes};

/// Bytes of `value` as a varint.
#[must_use]
pub fn varint_len(value: u64) -> usize {
    // One byte for each started group of seven bits; zero takes one as well.
    let bits = 64 - (value | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).expect("at most ten")
}

/// Appends `value` as a varint.
pub fn put_varint(out: &mut impl BufMut, mut value: u64) {
    let low_bits = |value: u64| u8::try_from(value & 0x7f).expect("seven bits");
    while value >= 0x80 {
        out.put_u8(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.put_u8(low_bits(value));
}

/// Signed numbers travel as their two's complement, as `int64` does in Protocol Buffers.
pub fn put_int64(out: &mut impl BufMut, value: i64) {
    put_varint(out, value.cast_unsigned());
}

/// Appends the length as a varint, then the bytes.
pub fn put_bytes(out: &mut impl BufMut, value: &[u8]) {
    put_varint(out, value.len() as u64);
    out.put_slice(value);
}

/// Reads the same forms from bytes that may be damaged: every method answers `None` instead of
/// reading past the end.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all is read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }

    /// A varint of at most 64 bits.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                return None;
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A signed number ([`put_int64`]).
    pub fn int64(&mut self) -> Option<i64> {
        self.varint().map(u64::cast_signed)
    }

    /// A length and that many bytes ([`put_bytes`]).
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// The same, copied.
    pub fn owned(&mut self) -> Option<Bytes> {
        self.bytes().map(Bytes::copy_from_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_know_their_length() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX >> 1,
            u64::MAX,
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "length of {value}");
            assert_eq!(Reader::new(&out).varint(), Some(value));
        }
    }

    #[test]
    fn a_varint_that_overflows_or_never_ends_is_refused() {
        assert_eq!(Reader::new(&[0xff; 9]).varint(), None);
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).varint(),
            None
        );
    }

    #[test]
    fn bytes_longer_than_what_is_left_are_refused() {
        assert_eq!(Reader::new(&[5, 1, 2]).bytes(), None);
    }
}
