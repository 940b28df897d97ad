//! A record of the log as bytes: a header of 48 bytes, a payload, zeros up to a multiple of 8.
//!
//! ```text
//!  0  4  CRC32C over segment id (8), offset of the record in the segment (8), bytes 4.. of the record
//!  4  4  length of the payload
//!  8  2  tag, 16 bits made of the segment id
//! 10  1  kind
//! 11  1  flags
//! 12  4  synced: everything before this offset of the segment was flushed when the record was written
//! 16  8  index
//! 24  8  epoch
//! 32  4  run
//! 36  4  origin
//! 40  8  chain
//! 48     payload, zeros up to a multiple of 8
//! ```
//!
//! All numbers are little endian. `docs/wal-format.md` says what each kind means.

use crate::limits::{DATA_START, MAX_PAYLOAD_BYTES};
use crate::position::{Chain, LogIndex, Origin, Position, Term};
use kine2_mutation::{Mutation, mutated};

pub(crate) const HEADER_BYTES: usize = 48;

/// Records begin at multiples of this.
pub(crate) const ALIGN_BYTES: u64 = 8;

/// Size on disk of a record with a payload of this length.
pub(crate) const fn record_bytes(payload_bytes: usize) -> u64 {
    (HEADER_BYTES + payload_bytes).next_multiple_of(8) as u64
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An entry of the log.
    Entry = 1,
    /// The node's hard state from here on.
    HardState = 2,
    /// The log ends at this position; what followed it is void.
    Truncate = 3,
    /// First record of a segment: the position before it, the hard state, the previous segment's id.
    Base = 4,
    /// Nothing new: proves that all before it was flushed.
    Mark = 5,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Entry,
            Self::HardState,
            Self::Truncate,
            Self::Base,
            Self::Mark,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// On a base: the log begins anew here, everything before is obsolete (`repl N4`).
pub(crate) const FLAG_RESET: u8 = 1;

/// On a base: its payload holds a hard state.
pub(crate) const FLAG_HARD_STATE: u8 = 2;

/// What makes records of one segment unlike those of any other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Salt {
    crc: u32,
    tag: u16,
}

impl Salt {
    pub(crate) fn new(segment_id: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = segment_id.to_le_bytes();
        let tag = u16::from_le_bytes([a ^ c ^ e ^ g, b ^ d ^ f ^ h]);
        // Never 0: zeros are no record.
        Self {
            crc: crc32c::crc32c(&segment_id.to_le_bytes()),
            tag: tag.max(1),
        }
    }

    pub(crate) fn tag(self) -> u16 {
        self.tag
    }

    /// CRC of a record at `offset`; `rest` is the record from its byte 4 on.
    fn checksum(self, offset: u64, rest: &[u8]) -> u32 {
        let seed = crc32c::crc32c_append(self.crc, &offset.to_le_bytes());
        crc32c::crc32c_append(seed, rest)
    }
}

/// A record but for its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// A byte, since a newer program may write kinds this one does not know.
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) payload_bytes: usize,
    /// Offset in the segment.
    pub(crate) synced: u64,
    pub(crate) position: Position,
}

impl Header {
    /// Size of the whole record on disk.
    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(self.payload_bytes)
    }

    /// Reads what claims to be a record's first 48 bytes at `offset`; only [`verify`] tells whether it
    /// is one.
    pub(crate) fn parse(
        bytes: &[u8; HEADER_BYTES],
        salt: Salt,
        offset: u64,
    ) -> Result<Self, Malformed> {
        if u16_at(bytes, 8) != salt.tag {
            return Err(Malformed::NoRecord);
        }
        let payload_bytes = usize::try_from(u32_at(bytes, 4)).unwrap_or(usize::MAX);
        let synced = u64::from(u32_at(bytes, 12));
        if payload_bytes > MAX_PAYLOAD_BYTES || !(DATA_START..=offset).contains(&synced) {
            return Err(Malformed::Impossible);
        }
        Ok(Self {
            kind: bytes[10],
            flags: bytes[11],
            payload_bytes,
            synced,
            position: Position {
                index: LogIndex(u64_at(bytes, 16)),
                term: Term {
                    epoch: u64_at(bytes, 24),
                    run: u32_at(bytes, 32),
                    origin: Origin(u32_at(bytes, 36)),
                },
                chain: Chain(u64_at(bytes, 40)),
            },
        })
    }
}

/// Is `record`, all of its bytes, what was written at `offset`?
pub(crate) fn verify(record: &[u8], salt: Salt, offset: u64) -> Result<(), Malformed> {
    let good = u32_at(record, 0) == salt.checksum(offset, &record[4..]);
    if good || mutated(Mutation::LogNoChecksum) {
        Ok(())
    } else {
        Err(Malformed::Checksum)
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("no record of this segment")]
    NoRecord,
    #[error("a record header with impossible values")]
    Impossible,
    #[error("a record longer than the segment")]
    TooLong,
    #[error("a record whose checksum does not match")]
    Checksum,
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRecord<'p> {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) synced: u64,
    pub(crate) position: Position,
    /// The payload's parts, one behind the other.
    pub(crate) payload: &'p [&'p [u8]],
}

/// Appends a record to `out`; it will lie at `offset` of its segment.
pub(crate) fn encode(out: &mut Vec<u8>, salt: Salt, offset: u64, record: &NewRecord<'_>) {
    let payload_bytes: usize = record.payload.iter().map(|part| part.len()).sum();
    assert!(
        payload_bytes <= MAX_PAYLOAD_BYTES,
        "the caller checked the payload's length"
    );
    assert!(
        offset.is_multiple_of(ALIGN_BYTES),
        "records begin at multiples of 8"
    );
    let length = u32::try_from(payload_bytes).expect("bounded by MAX_PAYLOAD_BYTES");
    let synced = u32::try_from(record.synced).expect("bounded by MAX_SEGMENT_BYTES");
    let position = &record.position;

    let start = out.len();
    let mut header = [0; HEADER_BYTES];
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..10].copy_from_slice(&salt.tag.to_le_bytes());
    header[10] = record.kind as u8;
    header[11] = record.flags;
    header[12..16].copy_from_slice(&synced.to_le_bytes());
    header[16..24].copy_from_slice(&position.index.0.to_le_bytes());
    header[24..32].copy_from_slice(&position.term.epoch.to_le_bytes());
    header[32..36].copy_from_slice(&position.term.run.to_le_bytes());
    header[36..40].copy_from_slice(&position.term.origin.0.to_le_bytes());
    header[40..48].copy_from_slice(&position.chain.0.to_le_bytes());
    out.extend_from_slice(&header);
    for part in record.payload {
        out.extend_from_slice(part);
    }
    out.resize(
        start + (HEADER_BYTES + payload_bytes).next_multiple_of(8),
        0,
    );
    let checksum = salt.checksum(offset, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("the slice has 2 bytes"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the slice has 4 bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has 8 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OFFSET: u64 = 4096 + 64;

    fn encoded(kind: Kind, position: &Position, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let payload = &[payload];
        let record = NewRecord {
            kind,
            flags: 0,
            synced: 4096,
            position: *position,
            payload,
        };
        encode(&mut out, Salt::new(42), OFFSET, &record);
        out
    }

    fn decoded(bytes: &[u8], salt: Salt, offset: u64) -> Result<Header, Malformed> {
        let header = bytes[..HEADER_BYTES].try_into().unwrap();
        let header = Header::parse(header, salt, offset)?;
        let bytes = bytes.get(..usize::try_from(header.record_bytes()).unwrap());
        verify(bytes.ok_or(Malformed::TooLong)?, salt, offset)?;
        Ok(header)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            index: u64, epoch: u64, run: u32, origin: u32, chain: u64,
            payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let position = Position {
                index: LogIndex(index), term: Term { epoch, run, origin: Origin(origin) }, chain: Chain(chain),
            };
            let bytes = encoded(Kind::Entry, &position, &payload);
            prop_assert_eq!(bytes.len() as u64, record_bytes(payload.len()));
            let header = decoded(&bytes, Salt::new(42), OFFSET).unwrap();
            prop_assert_eq!(header.position, position);
            prop_assert_eq!(&bytes[HEADER_BYTES..HEADER_BYTES + header.payload_bytes], payload);
            prop_assert_eq!(Kind::from_byte(header.kind), Some(Kind::Entry));
        }

        #[test]
        fn any_bytes_are_judged(bytes: [u8; HEADER_BYTES], offset: u64) {
            let _ = Header::parse(&bytes, Salt::new(42), offset);
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = encoded(
            Kind::Entry,
            &Position::START.extend(Term::default(), b"x"),
            b"hello",
        );
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decoded(&bad, Salt::new(42), OFFSET).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_counts_only_in_its_segment_and_at_its_place() {
        let good = encoded(Kind::Mark, &Position::START, b"");
        assert!(decoded(&good, Salt::new(42), OFFSET).is_ok());
        assert!(decoded(&good, Salt::new(43), OFFSET).is_err());
        assert_eq!(
            decoded(&good, Salt::new(42), OFFSET + 8),
            Err(Malformed::Checksum)
        );
    }
}
