//! The log of a simulated node: the real one over a disk in memory, with writes that take time.

use std::collections::{BTreeMap, VecDeque};

use kine2_node::{LogRecord, LogWrite};
use kine2_replication::{Durable, Entry, HardState, History, LogIndex, Position, WriteId};
use kine2_wal::fake::FakeDisk;
use kine2_wal::{Recovery, Wal, WalError, WalOptions};

/// Small segments, so that short runs roll and cut them.
const SEGMENT_BYTES: u64 = 64 << 10;

/// What is durable, known beside the log itself: what a crash must not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// What the node keeps beside the entries.
    pub own: Durable,
    /// The log begins after it.
    pub base: Position,
    /// Positions of the entries.
    pub entries: Vec<Position>,
}

impl OnDisk {
    /// The hard state.
    ///
    /// # Panics
    /// Never: the log of a lead part has one.
    #[must_use]
    pub fn hard(&self) -> &HardState {
        self.own.hard.as_ref().expect("the lead part has one")
    }

    /// The end of the log.
    #[must_use]
    pub fn last(&self) -> Position {
        self.entries.last().copied().unwrap_or(self.base)
    }

    /// The position of an entry, or of the base.
    #[must_use]
    pub fn position(&self, index: LogIndex) -> Option<Position> {
        if index == self.base.index {
            return Some(self.base);
        }
        let at = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?).copied()
    }

    /// Terms of the log.
    #[must_use]
    pub fn history(&self) -> History {
        let mut history = History::new(self.base);
        for position in &self.entries {
            history.push(*position);
        }
        history
    }

    fn apply(&mut self, record: &LogRecord) {
        match record {
            LogRecord::Hard(bytes) => self.own = decode(bytes),
            LogRecord::Truncate(to) => {
                assert_eq!(self.position(to.index), Some(*to), "cut where it is equal");
                self.entries.retain(|position| position.index <= to.index);
            }
            LogRecord::Entries(entries) => {
                let positions = entries.iter().map(|entry| entry.position);
                self.entries.extend(positions);
            }
            LogRecord::Reset(position, bytes) => {
                self.base = *position;
                self.entries.clear();
                self.own = decode(bytes);
            }
        }
    }

    fn cut(&mut self, base: Position) {
        self.entries.retain(|position| position.index > base.index);
        self.base = base;
    }
}

/// A log that is open.
#[derive(Debug)]
pub struct Log {
    wal: Wal<FakeDisk>,
    /// Writes on their way to the disk.
    under_way: VecDeque<LogWrite>,
    /// Entries given to the disk lately.
    recent: BTreeMap<LogIndex, Entry>,
}

/// What a flush did.
#[derive(Debug, Default)]
pub struct Flushed {
    /// The last write that is durable now.
    pub through: Option<WriteId>,
}

impl Log {
    /// Opens the log on a disk.
    ///
    /// # Errors
    /// When the log is damaged or the disk fails.
    pub fn open(disk: &FakeDisk, seed: u64) -> Result<(Self, Recovery), WalError> {
        let options = WalOptions {
            segment_bytes: SEGMENT_BYTES,
            recycle_max: 2,
            seed,
        };
        let (wal, recovery) = Wal::open(disk.clone(), options)?;
        let log = Self {
            wal,
            under_way: VecDeque::new(),
            recent: BTreeMap::new(),
        };
        Ok((log, recovery))
    }

    /// Makes what the node keeps beside the entries durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn keep(&mut self, own: &Durable) -> Result<(), WalError> {
        self.wal.set_hard_state(own.encode())?;
        self.wal.sync()
    }

    /// Whether it holds what a node keeps beside the entries: not so if nothing was ever durable.
    #[must_use]
    pub fn is_set_up(&self) -> bool {
        self.wal.hard_state().is_some()
    }

    /// What is durable after opening.
    ///
    /// # Panics
    /// When what was opened cannot be read.
    #[must_use]
    pub fn on_disk(&self) -> OnDisk {
        let bytes = self.wal.hard_state().expect("a log is set up with one");
        let entries = self.read(
            self.wal.first_index(),
            self.wal.last_index().next(),
            usize::MAX,
        );
        OnDisk {
            own: decode(bytes),
            base: self.wal.base(),
            entries: entries.iter().map(|entry| entry.position).collect(),
        }
    }

    /// Takes in a write; it is durable after [`flush`](Self::flush).
    pub fn write(&mut self, write: LogWrite) {
        for record in &write.records {
            match record {
                LogRecord::Entries(entries) => {
                    let recent = entries.iter().map(|e| (e.position.index, e.clone()));
                    self.recent.extend(recent);
                }
                LogRecord::Truncate(to) => {
                    self.recent.split_off(&to.index.next());
                }
                LogRecord::Reset(..) => self.recent.clear(),
                LogRecord::Hard(_) => {}
            }
        }
        self.under_way.push_back(write);
    }

    /// Writes on their way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// What the node keeps beside the entries, if a write of it is on its way.
    #[must_use]
    pub fn own_under_way(&self) -> Option<Durable> {
        let records = self.under_way.iter().flat_map(|write| &write.records);
        let bytes = records.filter_map(|record| match record {
            LogRecord::Hard(bytes) | LogRecord::Reset(_, bytes) => Some(bytes),
            LogRecord::Truncate(_) | LogRecord::Entries(_) => None,
        });
        bytes.last().map(|bytes| decode(bytes))
    }

    /// Makes the first `count` writes under way durable by one flush.
    ///
    /// # Errors
    /// When the disk fails: nothing is done any more.
    ///
    /// # Panics
    /// When the log is not what was written.
    pub fn flush(&mut self, count: usize, on_disk: &mut OnDisk) -> Result<Flushed, WalError> {
        let mut flushed = Flushed::default();
        let count = count.min(self.under_way.len());
        // They stay under way until all of them are durable: a failure leaves any part.
        let writes: Vec<LogWrite> = self.under_way.iter().take(count).cloned().collect();
        for write in &writes {
            for record in &write.records {
                self.stage(record)?;
            }
            flushed.through = Some(write.id);
        }
        self.wal.sync()?;
        self.under_way.drain(..count);
        for record in writes.iter().flat_map(|write| &write.records) {
            on_disk.apply(record);
        }
        assert_eq!(
            (self.wal.base(), self.wal.last()),
            (on_disk.base, on_disk.last()),
            "the log is what was written"
        );
        Ok(flushed)
    }

    /// Uses quiet time as the program does: makes the next segment ready, and notes that the last
    /// batch was durable. Answers whether the disk has no room for that segment.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn use_quiet_time(&mut self) -> Result<bool, WalError> {
        match self.wal.prepare_next() {
            Ok(_) => self.wal.mark().map(|()| false),
            Err(error) if error.is_no_space() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Where the log may end after a power cut: at what is durable, or anywhere on the way of the
    /// writes that are not.
    #[must_use]
    pub fn possible_ends(&self, on_disk: &OnDisk) -> Vec<Position> {
        let mut at = on_disk.clone();
        let mut ends = vec![at.last()];
        for record in self.under_way.iter().flat_map(|write| &write.records) {
            if let LogRecord::Entries(entries) = record {
                ends.extend(entries.iter().map(|entry| entry.position));
            }
            at.apply(record);
            ends.push(at.last());
        }
        ends
    }

    /// An entry that was written lately, or is durable.
    ///
    /// # Panics
    /// When there is none, or it cannot be read.
    #[must_use]
    pub fn entry(&self, index: LogIndex) -> Entry {
        match self.recent.get(&index) {
            Some(entry) => entry.clone(),
            None => self.read(index, index.next(), usize::MAX).remove(0),
        }
    }

    /// Entries in `[from, end)` that are durable and there, up to so many bytes.
    ///
    /// # Panics
    /// When the disk does not give back what it took.
    #[must_use]
    pub fn read(&self, from: LogIndex, end: LogIndex, bytes_max: usize) -> Vec<Entry> {
        let read = self.wal.entries(from..end, bytes_max);
        read.unwrap_or_else(|error| panic!("read the log from {from}: {error}"))
    }

    /// Gives up the log below an index, as far as segments allow, and tells the new base.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn cut_below(
        &mut self,
        keep: LogIndex,
        on_disk: &mut OnDisk,
    ) -> Result<Option<Position>, WalError> {
        let before = self.wal.base();
        self.wal.cut_below(keep)?;
        let base = self.wal.base();
        if base == before {
            return Ok(None);
        }
        on_disk.cut(base);
        Ok(Some(base))
    }

    /// Forgets entries in memory that are applied.
    pub fn forget_through(&mut self, applied: LogIndex) {
        self.recent = self.recent.split_off(&applied.next());
    }

    fn stage(&mut self, record: &LogRecord) -> Result<(), WalError> {
        match record {
            LogRecord::Hard(bytes) => self.wal.set_hard_state(bytes.clone()),
            LogRecord::Truncate(to) => self.wal.truncate_after(to.index),
            LogRecord::Entries(entries) => entries.iter().try_for_each(|entry| {
                let position = self.wal.append(entry.position.term, &entry.payload)?;
                assert_eq!(position, entry.position, "entries follow each other");
                Ok(())
            }),
            LogRecord::Reset(position, bytes) => self.wal.reset_to(*position, Some(bytes.clone())),
        }
    }
}

fn decode(bytes: &[u8]) -> Durable {
    Durable::decode(bytes).expect("what was encoded")
}
