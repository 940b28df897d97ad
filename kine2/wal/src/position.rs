//! Where an entry stands in the log, and the checksum over all that lies before it.

use std::fmt;

use bytes::Bytes;
use twox_hash::XxHash3_64;

/// Index of an entry: 1 for the first, without gaps; 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("2^64 entries are never written"),
        )
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The forced promotion that something descends from (`repl section 12`, Q2): a number drawn at
/// random with it, or [`Origin::NONE`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(pub u32);

impl Origin {
    /// No promotion was ever forced.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Term of an entry (`repl section 2`); never decreases along a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// Number of the configuration the entry was ordered in.
    pub epoch: u64,
    /// Which activation of the primary within that epoch.
    pub run: u32,
    /// The forced promotion that the configuration descends from: two of them may make the same
    /// epoch, and what they order is not the same (`repl section 12`, Q3).
    pub origin: Origin,
}

impl Term {
    /// A term that no forced promotion led to.
    #[must_use]
    pub const fn new(epoch: u64, run: u32) -> Self {
        let origin = Origin::NONE;
        Self { epoch, run, origin }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.run)?;
        match self.origin {
            Origin::NONE => Ok(()),
            origin => write!(f, ".{origin}"),
        }
    }
}

/// Running checksum over all entries of a log up to and including one; 0 before the first.
///
/// It depends on the entries only, not on how they lie in segments or batches: equal logs have equal
/// chains, so two nodes compare whole prefixes by one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chain(pub u64);

impl Chain {
    /// The chain of the entry that follows this one.
    ///
    /// XXH3-64 over 44 bytes, little endian: this chain, index, epoch, run (4), payload length, and
    /// XXH3-64 of the payload; with an origin over 48, which it ends.
    #[must_use]
    pub fn extend(self, index: LogIndex, term: Term, payload: &[u8]) -> Self {
        let mut link = [0; 48];
        link[0..8].copy_from_slice(&self.0.to_le_bytes());
        link[8..16].copy_from_slice(&index.0.to_le_bytes());
        link[16..24].copy_from_slice(&term.epoch.to_le_bytes());
        link[24..28].copy_from_slice(&term.run.to_le_bytes());
        link[28..36].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        link[36..44].copy_from_slice(&XxHash3_64::oneshot(payload).to_le_bytes());
        link[44..48].copy_from_slice(&term.origin.0.to_le_bytes());
        // Logs from before there were origins keep their chains.
        let used = if term.origin == Origin::NONE { 44 } else { 48 };
        Self(XxHash3_64::oneshot(&link[..used]))
    }
}

/// An entry's place in its log, and the check that everything up to it is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Index of the entry; 0 before the first.
    pub index: LogIndex,
    /// Term of the entry.
    pub term: Term,
    /// Chain up to and including the entry.
    pub chain: Chain,
}

impl Position {
    /// Before the first entry of a log that begins at index 1.
    pub const START: Self = Self {
        index: LogIndex(0),
        term: Term::new(0, 0),
        chain: Chain(0),
    };

    /// The position of the entry that follows.
    #[must_use]
    pub fn extend(self, term: Term, payload: &[u8]) -> Self {
        let index = self.index.next();
        Self {
            index,
            term,
            chain: self.chain.extend(index, term, payload),
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index, term and chain.
    pub position: Position,
    /// What the entry says; opaque here.
    pub payload: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_the_one_of_the_written_format() {
        let term = Term::new(3, 1);
        let one = Position::START.extend(term, b"a");
        let two = one.extend(term, b"");
        assert_eq!(one.index, LogIndex(1));
        // Fixed for ever: replicas of different versions compare these numbers.
        assert_eq!(
            (one.chain.0, two.chain.0),
            (10317200816686658676, 1690575797457869846)
        );
        let origin = Origin(0x0102_0304);
        let three = two.extend(Term { origin, ..term }, b"b");
        assert_eq!(three.chain.0, 11276694205512919251);
    }

    #[test]
    fn the_chain_tells_every_field() {
        let term = Term::new(3, 1);
        let base = Chain(7).extend(LogIndex(1), term, b"a");
        let others = [
            Chain(8).extend(LogIndex(1), term, b"a"),
            Chain(7).extend(LogIndex(2), term, b"a"),
            Chain(7).extend(LogIndex(1), Term::new(4, 1), b"a"),
            Chain(7).extend(LogIndex(1), Term::new(3, 2), b"a"),
            Chain(7).extend(
                LogIndex(1),
                Term {
                    origin: Origin(1),
                    ..term
                },
                b"a",
            ),
            Chain(7).extend(LogIndex(1), term, b"b"),
            Chain(7).extend(LogIndex(1), term, b""),
        ];
        assert!(others.iter().all(|other| *other != base));
    }
}
