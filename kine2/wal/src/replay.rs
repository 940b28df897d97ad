//! Reading the segments of a log one after the other: what their records say, and how the last ends.

use kine2_mutation::{Mutation, mutated};
use std::collections::VecDeque;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::error::WalError;
use crate::index::Index;
use crate::limits::{DATA_START, PAGE_BYTES};
use crate::position::{LogIndex, Position};
use crate::read;
use crate::record::{FLAG_HARD_STATE, Header, Kind, Malformed, u64_at};
use crate::recovery::{TornTail, Unused};
use crate::scan::Window;
use crate::segment::{Segment, SegmentFile};
use crate::wal::lower_bases;

/// No log comes this far; from here on indexes can be counted up without care.
const MAX_BASE_INDEX: LogIndex = LogIndex(1 << 62);

/// The log as far as it was read.
#[derive(Debug)]
pub(crate) struct Replay<F> {
    pub(crate) segments: VecDeque<Segment<F>>,
    pub(crate) index: Index,
    pub(crate) hard_state: Option<Bytes>,
    /// Of the last segment.
    pub(crate) tail: Option<Tail>,
}

/// Where the records of a segment end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) end: u64,
    /// What is there instead of a record.
    malformed: Malformed,
    /// Where the last record's batch begins; all before it was flushed.
    pub(crate) last_batch: u64,
    pub(crate) marked: bool,
}

impl<F> Default for Replay<F> {
    fn default() -> Self {
        let index = Index::new(Position::START);
        Self {
            segments: VecDeque::new(),
            index,
            hard_state: None,
            tail: None,
        }
    }
}

impl<F: DiskFile> Replay<F> {
    /// Reads the next segment up to its first bad record.
    pub(crate) fn segment(&mut self, file: SegmentFile<F>) -> Result<(), WalError> {
        let mut window = Window::new(&file);
        let base = match window.record(DATA_START)? {
            Ok((header, payload)) => self.base(&file, &header, payload).map(|()| header)?,
            Err(malformed) => return Err(file.damaged(DATA_START, malformed.to_string())),
        };
        let mut tail = Tail {
            end: DATA_START + base.record_bytes(),
            malformed: Malformed::NoRecord,
            last_batch: base.synced,
            marked: false,
        };
        // Before the records, since a truncation lowers the bases of all segments so far.
        self.segments.push_back(Segment {
            file,
            base: base.position,
        });
        let file = &self.segments.back().expect("it was just pushed").file;
        let mut replay = Records {
            segments: &self.segments,
            index: &mut self.index,
            hard_state: &mut self.hard_state,
            truncated_to: None,
        };
        let mut window = Window::new(file);
        loop {
            match window.record(tail.end)? {
                Ok((header, payload)) => {
                    replay.record(file, tail.end, &header, payload)?;
                    tail.end += header.record_bytes();
                    tail.last_batch = header.synced;
                    tail.marked = header.kind == Kind::Mark as u8;
                }
                Err(malformed) => {
                    tail.malformed = malformed;
                    break;
                }
            }
        }
        if let Some(to) = replay.truncated_to {
            lower_bases(&mut self.segments, to);
        }
        self.tail = Some(tail);
        Ok(())
    }

    /// A segment's first record goes on where the segment before ended.
    fn base(
        &mut self,
        file: &SegmentFile<F>,
        header: &Header,
        payload: &[u8],
    ) -> Result<(), WalError> {
        if payload.len() < 8 {
            return Err(file.damaged(DATA_START, "a base without the id of the segment before"));
        }
        if header.position.index > MAX_BASE_INDEX {
            let index = header.position.index;
            return Err(file.damaged(DATA_START, format!("a base at impossible index {index}")));
        }
        let (id, hard_state) = payload.split_at(8);
        if let (Some(before), Some(tail)) = (self.segments.back(), &self.tail) {
            let before = &before.file;
            if u64_at(id, 0) != before.id {
                let what = format!(
                    "it was written behind another {} than is there",
                    before.name
                );
                return Err(file.damaged(DATA_START, what));
            }
            if header.position != self.index.last() {
                let (found, went_on) = (self.index.last().index, header.position.index);
                let what = format!(
                    "{} after entry {found}, but {} goes on after entry {went_on}",
                    tail.malformed, file.name
                );
                return Err(before.damaged(tail.end, what));
            }
        } else {
            self.index = Index::new(header.position);
        }
        self.hard_state =
            (header.flags & FLAG_HARD_STATE != 0).then(|| Bytes::copy_from_slice(hard_state));
        Ok(())
    }

    /// Is what follows the last good record a torn batch, damage, or nothing?
    pub(crate) fn judge_tail(
        &self,
        unused: Option<&Unused<F>>,
    ) -> Result<Option<TornTail>, WalError> {
        let unused_torn = unused.and_then(|unused| Some((&unused.file.name, unused.torn_end?)));
        let (Some(segment), Some(tail)) = (self.segments.back(), &self.tail) else {
            return Ok(unused_torn.map(|(name, end)| torn_tail(name, DATA_START, end)));
        };
        let (file, end) = (&segment.file, tail.end);
        let mut window = Window::new(file);
        let remnants = window.remnants(end)?;
        if let Some(proof) = remnants.proof {
            return Err(file.damaged(end, once_durable(tail.malformed, &file.name, proof)));
        }
        // A batch ends with zeros up to the end of its page.
        let page_end = end.next_multiple_of(PAGE_BYTES);
        let torn = remnants.any()
            || tail.malformed != Malformed::NoRecord
            || !window.is_zero(end, page_end)?;
        match unused_torn {
            Some((name, _)) if torn => {
                Err(file.damaged(end, once_durable(tail.malformed, name, DATA_START)))
            }
            Some((name, torn_end)) => Ok(Some(torn_tail(name, DATA_START, torn_end))),
            None if torn => {
                let page_end = (end + 1).next_multiple_of(PAGE_BYTES);
                let torn_end = remnants.end.unwrap_or(page_end);
                Ok(Some(torn_tail(&file.name, end, torn_end)))
            }
            None => Ok(None),
        }
    }
}

/// What the records of one segment change.
struct Records<'r, F> {
    segments: &'r VecDeque<Segment<F>>,
    index: &'r mut Index,
    hard_state: &'r mut Option<Bytes>,
    truncated_to: Option<Position>,
}

impl<F: DiskFile> Records<'_, F> {
    /// Takes a record that is whole. It must fit to what was before: else the log holds something
    /// that was never written so.
    fn record(
        &mut self,
        file: &SegmentFile<F>,
        offset: u64,
        header: &Header,
        payload: &[u8],
    ) -> Result<(), WalError> {
        let (last, position) = (self.index.last(), header.position);
        let damaged = |what: String| Err(file.damaged(offset, what));
        match Kind::from_byte(header.kind) {
            Some(Kind::Entry) => {
                if position.index != last.index.next() || position.term < last.term {
                    let (index, term) = (position.index, position.term);
                    return damaged(format!(
                        "entry {index} of term {term} follows entry {} of term {}",
                        last.index, last.term
                    ));
                }
                if position != last.extend(position.term, payload) {
                    return damaged(format!("entry {} does not match its chain", position.index));
                }
                self.index.append(position, file.sequence, offset);
            }
            Some(Kind::HardState) => *self.hard_state = Some(Bytes::copy_from_slice(payload)),
            Some(Kind::Truncate) if mutated(Mutation::LogTruncationIgnored) => {}
            Some(Kind::Truncate) => {
                if !self.holds(position)? {
                    return damaged(format!(
                        "a truncation to entry {} of term {}, which is not there",
                        position.index, position.term
                    ));
                }
                self.index.truncate(position);
                let lowest = self.truncated_to.unwrap_or(position);
                self.truncated_to = Some(if position.index < lowest.index {
                    position
                } else {
                    lowest
                });
            }
            Some(Kind::Mark) => {
                if position != last {
                    return damaged(format!(
                        "a mark at entry {}, not {}",
                        position.index, last.index
                    ));
                }
            }
            Some(Kind::Base) => return damaged("a base inside of a segment".to_owned()),
            None => {
                return damaged(format!(
                    "a record of kind {}, which this program does not know",
                    header.kind
                ));
            }
        }
        Ok(())
    }

    /// Could a log that came this far have been truncated to this position?
    fn holds(&self, position: Position) -> Result<bool, WalError> {
        let (base, last) = (self.index.base(), self.index.last());
        Ok(match position.index {
            // The segments with the entries that were kept are cut since.
            index if index < base.index => true,
            index if index == base.index => position == base,
            index if index > last.index => false,
            index => {
                let entry = read::entries(self.segments, self.index, index..index.next(), 0)?;
                entry[0].position == position
            }
        })
    }
}

fn torn_tail(file: &str, offset: u64, end: u64) -> TornTail {
    TornTail {
        file: file.to_owned(),
        offset,
        bytes: end - offset,
    }
}

/// Why a hole is damage.
pub(crate) fn once_durable(malformed: Malformed, file: &str, proof: u64) -> String {
    format!(
        "{malformed}, but the record at {file} offset {proof} was written after this was flushed"
    )
}
