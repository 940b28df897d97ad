//! The keys a request or a watch speaks of.

use std::ops::Bound;

use bytes::Bytes;

/// A set of keys that lie together in byte order, as `key` and `range_end` name it (`etcd S7`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// Where the range ends.
    pub end: RangeEnd,
}

/// The end of a [`KeyRange`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RangeEnd {
    /// `range_end` empty: the one key.
    Single,
    /// All keys before this one; nothing at all if it is not above the start.
    Before(Bytes),
    /// `range_end` = `\0`: to the end of the key space.
    Unbounded,
}

impl KeyRange {
    /// From the two fields of the wire.
    #[must_use]
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        };
        Self { start: key, end }
    }

    /// The two fields of the wire.
    #[must_use]
    pub fn to_wire(&self) -> (Bytes, Bytes) {
        let end = match &self.end {
            RangeEnd::Single => Bytes::new(),
            RangeEnd::Before(end) => end.clone(),
            RangeEnd::Unbounded => Bytes::from_static(b"\0"),
        };
        (self.start.clone(), end)
    }

    /// The range of one key.
    #[must_use]
    pub const fn single(key: Bytes) -> Self {
        Self {
            start: key,
            end: RangeEnd::Single,
        }
    }

    /// Whether the range is one key.
    #[must_use]
    pub const fn is_single(&self) -> bool {
        matches!(self.end, RangeEnd::Single)
    }

    /// Whether no key can lie in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if *end <= self.start)
    }

    /// Whether `key` lies in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start,
            RangeEnd::Before(end) => key >= &self.start[..] && key < &end[..],
            RangeEnd::Unbounded => key >= &self.start[..],
        }
    }

    /// The bounds for an ordered map. The caller handles an empty range first: a map's `range`
    /// panics on bounds in the wrong order.
    #[must_use]
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match &self.end {
            RangeEnd::Single => Bound::Included(&self.start[..]),
            RangeEnd::Before(end) => Bound::Excluded(&end[..]),
            RangeEnd::Unbounded => Bound::Unbounded,
        };
        (Bound::Included(&self.start[..]), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::from_wire(Bytes::from_static(key), Bytes::from_static(end))
    }

    #[test]
    fn forms_of_range_end() {
        assert!(range(b"a", b"").contains(b"a") && !range(b"a", b"").contains(b"a\0"));
        assert!(range(b"b", b"\0").contains(b"\xff\xff") && !range(b"b", b"\0").contains(b"a"));
        assert!(range(b"\0", b"\0").contains(b"\0"));
        assert!(range(b"a", b"b").contains(b"a\xff") && !range(b"a", b"b").contains(b"b"));
        assert!(range(b"b", b"a").is_empty() && !range(b"b", b"a").contains(b"b"));
        assert!(range(b"a", b"a").is_empty());
    }
}
