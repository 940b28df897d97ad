//! What was put away of a part, as the bytes of a file: a header that says whose and why, then the
//! entries, each with its chain, so that damage is found at the entry that it is in.
//!
//! The layout is written down in `docs/wal-format.md`, "Quarantine".

use bytes::{BufMut, Bytes, BytesMut};
use kine2_wal::{Chain, Entry, LogIndex, Origin, Position, Term};
use thiserror::Error;

use crate::config::ConfigId;
use crate::epoch::Epoch;
use crate::fields::{Reader, RecordError, put_node, put_text};
use crate::ids::{ClusterId, Incarnation, NodeRef, RegisterKey};
use crate::quarantine::Quarantine;

const MAGIC: &[u8; 8] = b"KINE2QUA";
const VERSION: u32 = 1;
/// Magic, version and length of the rest of the header.
const PREFIX_BYTES: usize = 16;
/// Length, epoch, run, origin and chain, before an entry's payload.
const ENTRY_BYTES: usize = 28;
/// Longest header, its checksum included.
pub const QUARANTINE_HEADER_BYTES_MAX: usize = 2048;
/// Longest payload of an entry.
const PAYLOAD_BYTES_MAX: usize = kine2_wal::MAX_PAYLOAD_BYTES;

/// Whose entries are in quarantine, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineHeader {
    /// The cluster and the unit.
    pub key: RegisterKey,
    /// The node that held them.
    pub node: NodeRef,
    /// What was to be put away.
    pub what: Quarantine,
    /// The position before the first entry of the file.
    pub base: Position,
}

/// Why bytes are not a quarantine.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QuarantineError {
    /// They do not begin as one.
    #[error("it does not begin with the magic of a quarantine")]
    Magic,
    /// The header's checksum does not match.
    #[error("the header's checksum does not match")]
    Checksum,
    /// The header is longer than any can be.
    #[error("a header of {0} bytes; at most {QUARANTINE_HEADER_BYTES_MAX} are accepted")]
    Header(usize),
    /// A field of the header.
    #[error("the header: {0}")]
    Field(#[from] RecordError),
    /// An entry is not what was written.
    #[error("entry {0} does not match its chain, or is longer than any can be")]
    Entry(LogIndex),
    /// The bytes end before the last entry does.
    #[error("it ends within entry {0}")]
    Short(LogIndex),
}

impl QuarantineHeader {
    /// The bytes that the file begins with.
    ///
    /// # Panics
    /// If a name is longer than [`NAME_BYTES_MAX`](crate::NAME_BYTES_MAX): it is refused where it
    /// comes in.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut fields = BytesMut::with_capacity(512);
        fields.put_u128_le(self.key.cluster.0);
        put_text(&mut fields, self.key.unit.as_str());
        put_node(&mut fields, &self.node);
        let what = &self.what;
        put_text(&mut fields, what.part.as_str());
        fields.put_u128_le(what.storage.0);
        fields.put_u64_le(what.after.0);
        fields.put_u64_le(what.through.0);
        fields.put_u8(u8::from(what.with_state));
        fields.put_u64_le(what.by.epoch.0);
        fields.put_u64_le(what.by.uid);
        fields.put_u32_le(what.by.origin.0);
        fields.put_u64_le(self.base.index.0);
        put_term(&mut fields, self.base.term);
        fields.put_u64_le(self.base.chain.0);

        let mut out = BytesMut::with_capacity(PREFIX_BYTES + fields.len() + 8);
        out.put_slice(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(u32::try_from(fields.len()).expect("names are bounded"));
        out.put_slice(&fields);
        let checksum = checksum(&out);
        out.put_u64_le(checksum);
        out.freeze()
    }

    /// Reads what the file begins with: the header, and how many bytes it has. `bytes` are the
    /// first [`QUARANTINE_HEADER_BYTES_MAX`] of the file, or all of it.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), QuarantineError> {
        let version = VERSION.try_into().expect("it is small");
        let mut reader = Reader { bytes, version };
        if reader.take(MAGIC.len(), "magic")? != MAGIC {
            return Err(QuarantineError::Magic);
        }
        let found = reader.u32("version")?;
        if found != VERSION {
            let (least, most) = (VERSION, VERSION);
            return Err(RecordError::Version { found, least, most }.into());
        }
        let length = reader.u32("length")? as usize;
        if length > QUARANTINE_HEADER_BYTES_MAX {
            return Err(QuarantineError::Header(length));
        }
        let fields = reader.take(length, "header")?;
        let checked = PREFIX_BYTES + length;
        if reader.u64("checksum")? != checksum(&bytes[..checked]) {
            return Err(QuarantineError::Checksum);
        }
        let mut reader = Reader {
            bytes: fields,
            version,
        };
        let header = Self {
            key: RegisterKey {
                cluster: ClusterId(reader.u128("cluster")?),
                unit: reader.text("unit")?.into(),
            },
            node: reader.node()?,
            what: Quarantine {
                part: reader.text("part")?.into(),
                storage: Incarnation(reader.u128("storage")?),
                after: LogIndex(reader.u64("after")?),
                through: LogIndex(reader.u64("through")?),
                with_state: reader.flag("with state")?,
                by: ConfigId {
                    epoch: Epoch(reader.u64("epoch")?),
                    uid: reader.u64("uid")?,
                    origin: Origin(reader.u32("origin")?),
                },
            },
            base: Position {
                index: LogIndex(reader.u64("base")?),
                term: term(&mut reader)?,
                chain: Chain(reader.u64("chain")?),
            },
        };
        match reader.bytes.len() {
            0 => Ok((header, checked + 8)),
            rest => Err(RecordError::Long(rest).into()),
        }
    }
}

/// Appends an entry; entries follow each other from the header's base to its last.
pub fn write_quarantined(out: &mut BytesMut, entry: &Entry) {
    let length = u32::try_from(entry.payload.len()).expect("payloads are bounded");
    out.put_u32_le(length);
    put_term(out, entry.position.term);
    out.put_u64_le(entry.position.chain.0);
    out.put_slice(&entry.payload);
}

/// Reads the entry after `prev` and says how many bytes it has.
///
/// # Errors
/// If it is not what was written.
pub fn read_quarantined(prev: Position, bytes: &[u8]) -> Result<(Entry, usize), QuarantineError> {
    let index = LogIndex(prev.index.0.wrapping_add(1));
    let short = |_| QuarantineError::Short(index);
    let mut reader = Reader { bytes, version: 0 };
    let length = reader.u32("length").map_err(short)? as usize;
    let term = term(&mut reader).map_err(short)?;
    let chain = Chain(reader.u64("chain").map_err(short)?);
    if length > PAYLOAD_BYTES_MAX {
        return Err(QuarantineError::Entry(index));
    }
    let payload = reader.take(length, "payload").map_err(short)?;
    let position = Position { index, term, chain };
    if chain != prev.chain.extend(index, term, payload) {
        return Err(QuarantineError::Entry(index));
    }
    let payload = Bytes::copy_from_slice(payload);
    Ok((Entry { position, payload }, ENTRY_BYTES + length))
}

fn put_term(out: &mut BytesMut, term: Term) {
    out.put_u64_le(term.epoch);
    out.put_u32_le(term.run);
    out.put_u32_le(term.origin.0);
}

fn term(reader: &mut Reader<'_>) -> Result<Term, RecordError> {
    Ok(Term {
        epoch: reader.u64("epoch")?,
        run: reader.u32("run")?,
        origin: Origin(reader.u32("origin")?),
    })
}

/// The chain of an entry of index 0 and no term that holds these bytes.
fn checksum(bytes: &[u8]) -> u64 {
    Chain(0).extend(LogIndex(0), Term::default(), bytes).0
}

const _: () = assert!(ENTRY_BYTES == 4 + 8 + 4 + 4 + 8);
/// Four names and the numbers.
const _: () = assert!(PREFIX_BYTES + 4 * 256 + 256 < QUARANTINE_HEADER_BYTES_MAX);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(base: Position, count: u64) -> QuarantineHeader {
        QuarantineHeader {
            key: RegisterKey {
                cluster: ClusterId(7),
                unit: "main".into(),
            },
            node: NodeRef::new("a", 3),
            what: Quarantine {
                part: "store".into(),
                storage: Incarnation(9),
                after: base.index,
                through: LogIndex(base.index.0 + count),
                with_state: count == 0,
                by: ConfigId {
                    epoch: Epoch::new(1, 8),
                    uid: 5,
                    origin: Origin(0xf0ce),
                },
            },
            base,
        }
    }

    fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
        let base = Position::START.extend(Term::new(1, 1), b"common");
        let mut out = BytesMut::from(&header(base, payloads.len() as u64).encode()[..]);
        let mut last = base;
        for payload in payloads {
            last = last.extend(Term::new(2, 1), payload);
            let payload = Bytes::copy_from_slice(payload);
            let position = last;
            write_quarantined(&mut out, &Entry { position, payload });
        }
        out.to_vec()
    }

    fn read(bytes: &[u8]) -> Result<(QuarantineHeader, Vec<Entry>), QuarantineError> {
        let (header, mut at) = QuarantineHeader::decode(bytes)?;
        let mut last = header.base;
        let mut entries = Vec::new();
        while last.index < header.what.through {
            let (entry, bytes) = read_quarantined(last, &bytes[at..])?;
            at += bytes;
            last = entry.position;
            entries.push(entry);
        }
        Ok((header, entries))
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5)
    }

    proptest! {
        #[test]
        fn what_is_put_away_is_read(payloads in payloads(), cut in any::<prop::sample::Index>()) {
            let bytes = file(&payloads);
            let (header, entries) = read(&bytes).unwrap();
            prop_assert_eq!(header.what.part.as_str(), "store");
            let read_back: Vec<_> = entries.iter().map(|e| e.payload.to_vec()).collect();
            prop_assert_eq!(read_back, payloads);
            prop_assert!(read(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn a_flipped_byte_is_noticed(
            payloads in payloads(), at in any::<prop::sample::Index>(), flip in 1..=255u8,
        ) {
            let mut bytes = file(&payloads);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = read_quarantined(Position::START, &bytes);
        }
    }
}
