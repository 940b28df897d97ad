//! Ranges, read in slices so that a long one keeps neither the thread nor the memory to itself
//! (`etcd S7`–`S13`, `S57`).

use bytes::{BufMut, Bytes, BytesMut};
use kine2_mvcc::{RangeAnswer, RangeQuery, Record, Refusal, Revision, RevisionBounds};

use crate::member::{Member, RequestError};

/// How a range is cut. Slices grow and shrink towards the size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SliceSize {
    first_records: i64,
    bytes: usize,
}

/// For an answer in one piece: the first slice is a page of an apiserver.
pub(crate) const ANSWER_SLICES: SliceSize = SliceSize {
    first_records: 500,
    bytes: 512 << 10,
};
/// For a stream, of which the client reads as much as it likes.
pub(crate) const STREAM_SLICES: SliceSize = SliceSize {
    first_records: 16,
    bytes: 128 << 10,
};
/// Most records of a slice.
const SLICE_RECORDS_MAX: i64 = 10_000;

/// A range under way. Every slice shows the revision of the first.
#[derive(Debug)]
pub(crate) struct SlicedRange {
    /// What is left; its limit is what the client still wants.
    query: RangeQuery,
    serializable: bool,
    slice_records: i64,
    slice_bytes: usize,
    /// The store's revision when the first slice was read.
    started_at: Option<Revision>,
    sent: i64,
    count: i64,
}

/// A piece of an answer.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) records: Vec<Record>,
    pub(crate) bytes: usize,
    /// Set with the last slice.
    pub(crate) end: Option<RangeEnd>,
}

/// What the last slice tells of the whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangeEnd {
    /// The store's revision when the first slice was read (`etcd S57`).
    pub(crate) revision: Revision,
    pub(crate) more: bool,
    pub(crate) count: i64,
}

impl SlicedRange {
    pub(crate) const fn new(query: RangeQuery, serializable: bool, size: SliceSize) -> Self {
        Self {
            query,
            serializable,
            slice_records: size.first_records,
            slice_bytes: size.bytes,
            started_at: None,
            sent: 0,
            count: 0,
        }
    }

    /// Whether the answer is a key or a number, so that no slicing is needed.
    pub(crate) const fn is_small(query: &RangeQuery) -> bool {
        query.count_only || query.range.is_single()
    }

    /// Reads on. Not to be called after the end.
    pub(crate) async fn next<M: Member>(&mut self, member: &M) -> Result<Slice, RequestError> {
        let whole = Self::is_small(&self.query) || !in_key_order(&self.query);
        if whole {
            let (revision, answer) = member.range(&self.query, self.serializable).await?;
            return Ok(Slice::last(revision, answer));
        }
        let wanted = self.query.limit;
        let mut query = self.query.clone();
        // Only the first count is told.
        query.uncounted = self.started_at.is_some();
        if wanted <= 0 || wanted > self.slice_records {
            query.limit = self.slice_records;
        }
        let (revision, answer) = member.range(&query, self.serializable).await?;
        if self.started_at.is_none() {
            self.started_at = Some(revision);
            self.count = answer.count;
            if self.query.revision <= 0 {
                self.query.revision = revision.0;
            }
        }
        Ok(self.advance(answer))
    }

    fn advance(&mut self, answer: RangeAnswer) -> Slice {
        let read = i64::try_from(answer.records.len()).expect("records fit in memory");
        let bytes = answer.records.iter().map(Record::len).sum();
        self.sent += read;
        let limit_reached = self.query.limit > 0 && read == self.query.limit;
        if self.query.limit > 0 {
            self.query.limit -= read;
        }
        let done = !answer.more || limit_reached;
        if let Some(last) = answer.records.last() {
            self.query.range.start = next_key(last.view().key);
        }
        if bytes < self.slice_bytes / 2 {
            self.slice_records = (self.slice_records * 2).min(SLICE_RECORDS_MAX);
        } else if bytes > self.slice_bytes {
            self.slice_records = (self.slice_records / 2).max(1);
        }
        let revision = self.started_at.expect("set with the first slice");
        Slice {
            records: answer.records,
            bytes,
            end: done.then_some(RangeEnd {
                revision,
                more: self.count > self.sent,
                count: self.count,
            }),
        }
    }
}

impl Slice {
    fn last(revision: Revision, answer: RangeAnswer) -> Self {
        Self {
            bytes: answer.records.iter().map(Record::len).sum(),
            records: answer.records,
            end: Some(RangeEnd {
                revision,
                more: answer.more,
                count: answer.count,
            }),
        }
    }
}

/// Whether an error means that the store forgot a revision that it chose itself: the range is
/// then to be read anew.
pub(crate) fn overtaken(query: &RangeQuery, error: &RequestError) -> bool {
    query.revision <= 0 && matches!(error, RequestError::Refused(Refusal::Compacted))
}

/// Whether slices of keys, put one behind the other, are the answer.
fn in_key_order(query: &RangeQuery) -> bool {
    query.sort.is_none() && query.bounds == RevisionBounds::default()
}

/// The least key above `key`.
fn next_key(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
