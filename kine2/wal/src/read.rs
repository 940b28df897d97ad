//! Reading entries back: for the replay at start, and for a peer that lags.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::error::WalError;
use crate::index::Index;
use crate::position::{Entry, LogIndex};
use crate::record::Kind;
use crate::scan::{Window, in_memory};
use crate::segment::{Segment, SegmentFile};

/// The live entries in `[range.start, range.end)`, all of which are written: at most `max_bytes` of
/// payload, but at least one entry.
pub(crate) fn entries<F: DiskFile>(
    segments: &VecDeque<Segment<F>>,
    index: &Index,
    range: Range<LogIndex>,
    max_bytes: usize,
) -> Result<Vec<Entry>, WalError> {
    let mut portion = Portion {
        entries: Vec::new(),
        bytes: 0,
        max_bytes,
    };
    let mut next = range.start;
    while next < range.end {
        let (point, point_end) = index.find(next);
        let first = segments[0].file.sequence;
        let file = &segments[in_memory(point.sequence - first)].file;
        let mut window = Window::new(file);
        let mut offset = point.offset;
        let end = point_end.min(range.end);
        for expected in point.index.0..end.0 {
            let (entry, after) = entry_at(file, &mut window, offset, LogIndex(expected))?;
            offset = after;
            if expected >= next.0 && !portion.take(entry) {
                return Ok(portion.entries);
            }
        }
        next = end;
    }
    Ok(portion.entries)
}

/// The next entry from `offset` on, which must be this one, and where it ends.
fn entry_at<F: DiskFile>(
    file: &SegmentFile<F>,
    window: &mut Window<'_, F>,
    mut offset: u64,
    expected: LogIndex,
) -> Result<(Entry, u64), WalError> {
    loop {
        let (header, payload) = match window.record(offset)? {
            Ok(record) => record,
            Err(malformed) => return Err(file.damaged(offset, malformed.to_string())),
        };
        let after = offset + header.record_bytes();
        if header.kind == Kind::Entry as u8 {
            let found = header.position.index;
            if found != expected {
                let what = format!("entry {found} where entry {expected} was written");
                return Err(file.damaged(offset, what));
            }
            let payload = Bytes::copy_from_slice(payload);
            return Ok((
                Entry {
                    position: header.position,
                    payload,
                },
                after,
            ));
        }
        offset = after;
    }
}

/// Entries up to a bound.
#[derive(Debug)]
struct Portion {
    entries: Vec<Entry>,
    bytes: usize,
    max_bytes: usize,
}

impl Portion {
    /// Adds an entry unless the portion is full.
    fn take(&mut self, entry: Entry) -> bool {
        self.bytes += entry.payload.len();
        if self.bytes > self.max_bytes && !self.entries.is_empty() {
            return false;
        }
        self.entries.push(entry);
        true
    }
}
