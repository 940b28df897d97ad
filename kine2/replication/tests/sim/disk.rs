//! A disk of one part: what is durable, and what a crash may take.

use std::collections::VecDeque;

use kine2_replication::{
    DataState, Entry, HardState, History, Incarnation, LoadedPart, LogIndex, Position, Record,
    Write, WriteId,
};

/// What is on one part's disk.
#[derive(Clone, Debug)]
pub struct Image {
    pub storage: Incarnation,
    pub data: DataState,
    pub base: Position,
    /// The entries up to `base`, which the state was made of.
    pub past: Vec<Position>,
    pub entries: Vec<Entry>,
    /// What the snapshot that is being received was made of.
    pub incoming: Vec<Position>,
    /// How often something that was there was given up.
    pub overwritten: u64,
    /// On the lead's disk only.
    pub hard: Option<HardState>,
    /// The state's checkpoint: applied up to here.
    pub checkpoint: LogIndex,
}

impl Image {
    pub fn empty(storage: Incarnation, hard: Option<HardState>) -> Self {
        Self {
            storage,
            data: DataState::Complete,
            base: Position::START,
            past: Vec::new(),
            entries: Vec::new(),
            incoming: Vec::new(),
            overwritten: 0,
            hard,
            checkpoint: LogIndex(0),
        }
    }

    pub fn last(&self) -> Position {
        self.entries.last().map_or(self.base, |e| e.position)
    }

    /// The position of an entry that is there, or of the base.
    pub fn position(&self, index: LogIndex) -> Option<Position> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.entry(index).map(|entry| entry.position)
    }

    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let at = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(at).unwrap())
    }

    /// The position of an entry that is there, in the log or in the state.
    pub fn holds(&self, index: LogIndex) -> Option<Position> {
        let at = usize::try_from(index.0).unwrap().checked_sub(1)?;
        let past = self.past.get(at).copied();
        past.or_else(|| self.entry(index).map(|entry| entry.position))
    }

    /// Its first entries, as many as it has up to there.
    pub fn first(&self, count: LogIndex) -> Vec<Position> {
        let all = (1..=count.0).map_while(|index| self.holds(LogIndex(index)));
        all.collect()
    }

    fn apply(&mut self, record: &Record) {
        match record {
            Record::Hard(hard) => self.hard = Some((**hard).clone()),
            Record::Truncate(to) => {
                assert_eq!(self.position(to.index), Some(*to), "cut where it is equal");
                self.overwritten += 1;
                self.entries.retain(|e| e.position.index <= to.index);
            }
            Record::Entries(entries) => {
                for entry in entries {
                    let next = self.last().extend(entry.position.term, &entry.payload);
                    assert_eq!(next, entry.position, "entries follow each other");
                    self.entries.push(entry.clone());
                }
            }
            Record::Reset(position) => {
                self.base = *position;
                self.entries.clear();
                self.overwritten += 1;
                self.past = std::mem::take(&mut self.incoming);
                let last = self.past.last().copied().unwrap_or(Position::START);
                assert_eq!(last, *position, "the snapshot that was received");
                self.checkpoint = position.index;
            }
            Record::Data(data) => self.data = *data,
            Record::Storage(storage) => {
                self.storage = *storage;
                self.overwritten += 1;
            }
        }
    }

    pub fn cut(&mut self, base: Position) {
        let gone = self.entries.iter().map(|e| e.position);
        self.past.extend(gone.filter(|p| p.index <= base.index));
        self.entries.retain(|e| e.position.index > base.index);
        self.base = base;
    }

    pub fn loaded(&self) -> LoadedPart {
        let mut history = History::new(self.base);
        for entry in &self.entries {
            history.push(entry.position);
        }
        LoadedPart {
            storage: self.storage,
            data: self.data,
            history,
            commit: self.checkpoint,
        }
    }
}

/// A disk with writes under way.
#[derive(Clone, Debug)]
pub struct Disk {
    pub durable: Image,
    /// With all writes done.
    pub live: Image,
    under_way: VecDeque<Write>,
}

impl Disk {
    pub fn new(image: Image) -> Self {
        Self {
            live: image.clone(),
            durable: image,
            under_way: VecDeque::new(),
        }
    }

    pub fn write(&mut self, write: Write) {
        for record in &write.records {
            self.live.apply(record);
        }
        self.under_way.push_back(write);
    }

    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The first `count` writes under way become durable.
    pub fn sync(&mut self, count: usize) -> Option<WriteId> {
        let mut through = None;
        for _ in 0..count.min(self.under_way.len()) {
            let write = self.under_way.pop_front().unwrap();
            for record in &write.records {
                self.durable.apply(record);
            }
            through = Some(write.id);
        }
        through
    }

    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// A crash: the first `kept` writes under way survive, by chance, the rest is gone.
    pub fn crash(&mut self, kept: usize) {
        self.sync(kept);
        self.under_way.clear();
        self.live = self.durable.clone();
    }

    /// A snapshot made of these entries is on its way.
    pub fn receive(&mut self, made_of: &[Position]) {
        for image in [&mut self.durable, &mut self.live] {
            image.incoming = made_of.to_vec();
        }
    }

    /// The state is durable up to `checkpoint`, and the log before `base` is given up.
    pub fn checkpoint(&mut self, checkpoint: LogIndex, base: Option<Position>) {
        for image in [&mut self.durable, &mut self.live] {
            image.checkpoint = image.checkpoint.max(checkpoint);
            if let Some(base) = base {
                image.cut(base);
            }
        }
    }
}
