//! The running log: what is staged, what is durable, and how one becomes the other.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use kine2_mutation::{Mutation, mutated};

use crate::disk::Disk;
use crate::error::WalError;
use crate::index::Index;
use crate::limits::{DATA_START, MAX_BATCH_BYTES, MAX_HARD_STATE_BYTES, PAGE_BYTES, WalOptions};
use crate::position::{Entry, LogIndex, Position, Term};
use crate::prepare::{Prepared, Supply};
use crate::read;
use crate::record::{self, FLAG_HARD_STATE, FLAG_RESET, Kind, NewRecord};
use crate::recovery::{self, Recovery};
use crate::scan::in_memory;
use crate::segment::{FIRST_SEQUENCE, Segment};

/// The log of a part.
///
/// `append`, `set_hard_state` and `truncate_after` stage records; [`sync`](Self::sync) makes all that
/// is staged durable. When more is staged than a batch or the segment holds, the part staged before is
/// made durable at once.
#[derive(Debug)]
pub struct Wal<D: Disk> {
    disk: D,
    options: WalOptions,
    /// Those that hold records, in order, without gaps; records go to the last.
    segments: VecDeque<Segment<D::File>>,
    supply: Supply<D::File>,
    index: Index,
    hard_state: Option<Bytes>,
    /// Last entry known durable; `<=` the index's last.
    durable: Position,
    /// Records not written yet; they go to offset `synced` of the last segment.
    staged: Vec<u8>,
    /// Everything before this offset of the last segment is durable.
    synced: u64,
    /// The last record says that all before it is durable.
    marked: bool,
    /// The first failure; nothing is done any more.
    failure: Option<String>,
    stats: WalStats,
}

/// What the log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Entries staged.
    pub entries: u64,
    /// Bytes of records of any kind, with their headers.
    pub record_bytes: u64,
    /// Bytes handed to the disk for these records: whole pages at the end of each write.
    pub written_bytes: u64,
    /// Flushes of segments.
    pub syncs: u64,
    /// Segments begun.
    pub rolls: u64,
}

impl<D: Disk> Wal<D> {
    /// Opens the log in `disk`, or begins a new one when the disk holds none.
    ///
    /// On return all that it tells is durable, and a torn tail is gone for good. The time taken grows
    /// with the log kept, which is read once.
    ///
    /// # Errors
    /// [`WalError::Damaged`] when the log says something that was never written, or lacks something
    /// that was durable; nothing was changed then.
    pub fn open(disk: D, options: WalOptions) -> Result<(Self, Recovery), WalError> {
        options.check()?;
        let recovered = recovery::recover(&disk, &options)?;
        let recovery = recovered.report();
        let mut wal = Self {
            disk,
            options,
            segments: recovered.segments,
            supply: recovered.supply,
            durable: recovered.index.last(),
            index: recovered.index,
            hard_state: recovered.hard_state,
            staged: Vec::new(),
            synced: recovered.end,
            marked: recovered.marked,
            failure: None,
            stats: WalStats::default(),
        };
        if wal.segments.is_empty() {
            wal.begin_segment(FIRST_SEQUENCE, Position::START, 0)?;
            wal.flush()?;
        }
        for (sequence, bytes) in recovered.obsolete {
            // Of the log before a reset that was durable, but not finished.
            wal.supply.retire(&wal.disk, sequence, bytes)?;
        }
        Ok((wal, recovery))
    }

    /// Stages an entry and gives its position.
    ///
    /// # Panics
    /// When `term` is lower than that of the last entry: terms never decrease along a log.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] (nothing was staged), or a failure of the disk, which is final.
    pub fn append(&mut self, term: Term, payload: &[u8]) -> Result<Position, WalError> {
        self.refuse_after_failure()?;
        let max = self.options.max_payload_bytes();
        if payload.len() > max {
            return Err(WalError::TooLarge {
                bytes: payload.len(),
                max,
            });
        }
        assert!(
            term >= self.index.last().term,
            "terms never decrease along a log"
        );
        let position = self.index.last().extend(term, payload);
        let offset = self.guarded(|wal| wal.stage(Kind::Entry, position, payload))?;
        self.index
            .append(position, self.current().file.sequence, offset);
        self.stats.entries += 1;
        if mutated(Mutation::LogDurableEarly) {
            self.durable = position;
        }
        Ok(position)
    }

    /// Stages the node's hard state; it replaces the one before and survives cutting.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] (nothing was staged), or a failure of the disk, which is final.
    pub fn set_hard_state(&mut self, hard_state: Bytes) -> Result<(), WalError> {
        self.refuse_after_failure()?;
        check_hard_state(&hard_state)?;
        let position = self.index.last();
        self.guarded(|wal| wal.stage(Kind::HardState, position, &hard_state))?;
        self.hard_state = Some(hard_state);
        Ok(())
    }

    /// Stages a truncation: the log ends at `last`, and the entries after it never were.
    ///
    /// What was staged before is made durable first.
    ///
    /// # Errors
    /// [`WalError::Cut`] and [`WalError::Beyond`] (nothing was staged), or a failure of the disk,
    /// which is final.
    pub fn truncate_after(&mut self, last: LogIndex) -> Result<(), WalError> {
        self.sync()?;
        let to = self.position_at(last)?;
        if to == self.index.last() {
            return Ok(());
        }
        self.guarded(|wal| wal.stage(Kind::Truncate, to, &[]))?;
        self.index.truncate(to);
        self.durable = to;
        lower_bases(&mut self.segments, to);
        Ok(())
    }

    /// Makes all that is staged durable: one write and one flush. Does nothing when nothing is staged.
    ///
    /// # Errors
    /// A failure of the disk, which is final: what of the batch survives is unknown until the log is
    /// opened again, and nothing of it may be acknowledged.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.guarded(Self::flush)
    }

    /// Has the disk say that all before is durable, unless it does already.
    ///
    /// Damage to the very last batch looks like a write torn by a power cut. After a mark it does
    /// not. Worth a flush when the log has been idle for a while, and at the end.
    ///
    /// # Errors
    /// A failure of the disk, which is final.
    pub fn mark(&mut self) -> Result<(), WalError> {
        self.sync()?;
        if self.marked {
            return Ok(());
        }
        let position = self.index.last();
        self.guarded(|wal| {
            wal.stage(Kind::Mark, position, &[])?;
            wal.flush()?;
            wal.marked = true;
            Ok(())
        })
    }

    /// Begins the log anew after `base`, a snapshot's position, in one durable step with the hard
    /// state, if one is given (`repl N4`). Durable on return; all earlier entries are gone.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] (nothing was done), or a failure of the disk, which is final.
    pub fn reset_to(&mut self, base: Position, hard_state: Option<Bytes>) -> Result<(), WalError> {
        self.refuse_after_failure()?;
        if let Some(hard_state) = &hard_state {
            check_hard_state(hard_state)?;
        }
        self.guarded(|wal| {
            wal.flush()?;
            if hard_state.is_some() {
                wal.hard_state = hard_state;
            }
            let sequence = wal.current().file.sequence + 1;
            let flag = match mutated(Mutation::LogResetKeeps) {
                true => 0,
                false => FLAG_RESET,
            };
            wal.begin_segment(sequence, base, flag)?;
            wal.index = Index::new(base);
            wal.flush()?;
            while wal.segments.len() > 1 {
                wal.retire_first()?;
            }
            Ok(())
        })
    }

    /// Gives back the segments that hold only entries before `index`, the first one to keep.
    ///
    /// What is staged is made durable first.
    ///
    /// # Errors
    /// A failure of the disk, which is final.
    pub fn cut_below(&mut self, index: LogIndex) -> Result<(), WalError> {
        self.guarded(|wal| {
            wal.flush()?;
            while wal
                .segments
                .get(1)
                .is_some_and(|second| second.base.index < index)
            {
                wal.retire_first()?;
            }
            let first = &wal.segments[0];
            if first.base.index > wal.index.base().index {
                wal.index.cut(first.base, first.file.sequence);
            }
            Ok(())
        })
    }

    /// The first entry of so many whole segments at the end that they have `bytes`; the first of
    /// the log if it has fewer.
    #[must_use]
    pub fn first_of_last(&self, bytes: u64) -> LogIndex {
        let mut sum = 0;
        let enough = self.segments.iter().rev().find(|segment| {
            sum += segment.file.bytes;
            sum >= bytes
        });
        let base = enough.unwrap_or(&self.segments[0]).base;
        base.index.next()
    }

    /// Brings the next segment nearer, so that a roll does not have to wait for it. To be called
    /// when idle, until it is done. What is staged is made durable first.
    ///
    /// # Errors
    /// A failure of the disk, which is final; except that a full disk ([`WalError::is_no_space`])
    /// leaves the log as it is: the current segment goes on until it is full too.
    pub fn prepare_next(&mut self) -> Result<Prepared, WalError> {
        // Also so that no segment is prepared behind one whose first batch is not durable.
        self.sync()?;
        let sequence = self.current().file.sequence + 1;
        let result = self.supply.step(&self.disk, sequence);
        if let Err(error) = &result
            && !error.is_no_space()
        {
            self.failure = Some(error.to_string());
        }
        result
    }

    /// Bytes that the disk must still have for the next segment; 0 when it is ready, or a file
    /// that was cut is there to be used again.
    #[must_use]
    pub fn preparation_bytes(&self) -> u64 {
        self.supply.missing_bytes()
    }

    /// Size of the current segment.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.current().file.bytes
    }

    /// Durable entries in `[range.start, range.end)`, from the first on: as many as are there and
    /// have at most `max_bytes` of payload together, but at least one.
    ///
    /// # Errors
    /// [`WalError::Cut`] when the log begins later, [`WalError::Damaged`] when an entry cannot be
    /// read back as it was written.
    pub fn entries(
        &self,
        range: Range<LogIndex>,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, WalError> {
        self.refuse_after_failure()?;
        let end = range.end.min(self.durable.index.next());
        let next = range.start;
        if next < self.first_index() && next < range.end {
            return Err(WalError::Cut {
                index: next,
                first: self.first_index(),
            });
        }
        read::entries(&self.segments, &self.index, next..end, max_bytes)
    }

    /// Positions of the last entry of each term, in order: the log's history (`repl section 3`).
    ///
    /// # Errors
    /// A failed read.
    pub fn term_ends(&self) -> Result<Vec<Position>, WalError> {
        let ends = self.index.term_ends();
        ends.into_iter()
            .map(|index| self.position_at(index))
            .collect()
    }

    /// Term of an entry, or of the position the log begins after; `None` outside.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.index.term_at(index)
    }

    /// Position before the first entry kept: the log begins after it.
    #[must_use]
    pub fn base(&self) -> Position {
        self.index.base()
    }

    /// Index of the first entry kept, or of the next one when none is.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.index.base().index.next()
    }

    /// Position of the last entry, staged ones included; the base when there is none.
    #[must_use]
    pub fn last(&self) -> Position {
        self.index.last()
    }

    /// Index of the last entry, staged ones included.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.index.last().index
    }

    /// Index of the last entry that is durable (`dur` in `repl section 3`).
    #[must_use]
    pub fn durable_index(&self) -> LogIndex {
        self.durable.index
    }

    /// The hard state, staged or durable.
    #[must_use]
    pub fn hard_state(&self) -> Option<&Bytes> {
        self.hard_state.as_ref()
    }

    /// Largest payload that [`append`](Self::append) takes.
    #[must_use]
    pub fn max_payload_bytes(&self) -> usize {
        self.options.max_payload_bytes()
    }

    /// Bytes of records that are staged.
    #[must_use]
    pub fn staged_bytes(&self) -> u64 {
        self.staged.len() as u64
    }

    /// Bytes on disk of the segments that hold the log.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.file.bytes).sum()
    }

    /// What was done since the log was opened.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        self.stats
    }

    /// Puts a record behind what is staged and gives its offset.
    fn stage(&mut self, kind: Kind, position: Position, payload: &[u8]) -> Result<u64, WalError> {
        let bytes = record::record_bytes(payload.len());
        if self.staged_bytes() + bytes > MAX_BATCH_BYTES {
            self.flush()?;
        }
        let file = &self.current().file;
        if self.synced + self.staged_bytes() + bytes > file.bytes || !file.may_hold(position.term) {
            self.flush()?;
            let sequence = self.current().file.sequence + 1;
            self.begin_segment(sequence, self.index.last(), 0)?;
        }
        Ok(self.encode(kind, 0, position, &[payload]))
    }

    /// Goes on in segment `sequence`; its first record is staged. The segment before is durable.
    fn begin_segment(&mut self, sequence: u64, base: Position, flags: u8) -> Result<(), WalError> {
        assert!(
            self.staged.is_empty(),
            "what was staged went to the segment before"
        );
        let previous_id = self.segments.back().map_or(0, |segment| segment.file.id);
        let file = self.supply.take(&self.disk, sequence)?;
        self.segments.push_back(Segment { file, base });
        self.synced = DATA_START;
        self.stats.rolls += 1;
        let hard_state = match mutated(Mutation::LogHardStateLost) {
            true => None,
            false => self.hard_state.clone(),
        };
        let flags = flags
            | if hard_state.is_some() {
                FLAG_HARD_STATE
            } else {
                0
            };
        let payload = [
            &previous_id.to_le_bytes(),
            hard_state.as_deref().unwrap_or_default(),
        ];
        self.encode(Kind::Base, flags, base, &payload);
        Ok(())
    }

    fn encode(&mut self, kind: Kind, flags: u8, position: Position, payload: &[&[u8]]) -> u64 {
        let before = self.staged.len();
        let offset = self.synced + before as u64;
        let salt = self.current().file.salt;
        let record = NewRecord {
            kind,
            flags,
            synced: self.synced,
            position,
            payload,
        };
        record::encode(&mut self.staged, salt, offset, &record);
        self.stats.record_bytes += (self.staged.len() - before) as u64;
        self.marked = false;
        offset
    }

    /// Writes and flushes what is staged.
    fn flush(&mut self) -> Result<(), WalError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let end = self.synced + self.staged_bytes();
        let segment = &self.segments.back().expect("a log has a segment").file;
        // The rest of the last page goes out as zeros: it is dirtied anyway, a page that is written
        // as a whole need not be read first, and the log ends in zeros also in a recycled file.
        let padded = in_memory(end.next_multiple_of(PAGE_BYTES) - self.synced);
        self.staged.resize(padded, 0);
        segment.write(&self.staged, self.synced)?;
        if !mutated(Mutation::LogNoFlush) {
            segment.sync()?;
        }
        self.stats.written_bytes += self.staged.len() as u64;
        self.stats.syncs += 1;
        self.staged.clear();
        self.synced = end;
        self.durable = self.index.last();
        Ok(())
    }

    fn retire_first(&mut self) -> Result<(), WalError> {
        let first = self
            .segments
            .pop_front()
            .expect("the caller keeps one segment");
        self.supply
            .retire(&self.disk, first.file.sequence, first.file.bytes)
    }

    /// Runs what may fail for good.
    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, WalError>,
    ) -> Result<T, WalError> {
        self.refuse_after_failure()?;
        let result = work(self);
        if let Err(error) = &result {
            self.failure = Some(error.to_string());
        }
        result
    }

    fn refuse_after_failure(&self) -> Result<(), WalError> {
        match &self.failure {
            Some(what) => Err(WalError::Failed { what: what.clone() }),
            None => Ok(()),
        }
    }

    /// Position of a durable entry, or the one the log begins after.
    ///
    /// # Errors
    /// [`WalError::Cut`] and [`WalError::Beyond`] outside of the durable log, or a failed read.
    pub fn position_at(&self, index: LogIndex) -> Result<Position, WalError> {
        self.refuse_after_failure()?;
        let (base, durable) = (self.index.base(), self.durable);
        if index < base.index {
            return Err(WalError::Cut {
                index,
                first: self.first_index(),
            });
        }
        if index > durable.index {
            return Err(WalError::Beyond {
                index,
                last: durable.index,
            });
        }
        match index {
            _ if index == base.index => Ok(base),
            _ if index == durable.index => Ok(durable),
            _ => Ok(self.entries(index..index.next(), 0)?[0].position),
        }
    }

    fn current(&self) -> &Segment<D::File> {
        self.segments.back().expect("a log has a segment")
    }
}

/// After a truncation to `to` no later segment has live entries at or below it.
pub(crate) fn lower_bases<F>(segments: &mut VecDeque<Segment<F>>, to: Position) {
    for segment in segments
        .iter_mut()
        .rev()
        .take_while(|s| s.base.index > to.index)
    {
        segment.base = to;
    }
}

fn check_hard_state(hard_state: &[u8]) -> Result<(), WalError> {
    let (bytes, max) = (hard_state.len(), MAX_HARD_STATE_BYTES);
    if bytes > max {
        Err(WalError::TooLarge { bytes, max })
    } else {
        Ok(())
    }
}

/// A batch that is padded to its page stays within what recovery clears.
const _: () = assert!(MAX_BATCH_BYTES.is_multiple_of(PAGE_BYTES));
