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
    pub entries: Vec<Entry>,
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
            entries: Vec::new(),
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

    fn apply(&mut self, record: &Record) {
        match record {
            Record::Hard(hard) => self.hard = Some((**hard).clone()),
            Record::Truncate(to) => {
                assert_eq!(self.position(to.index), Some(*to), "cut where it is equal");
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
                self.checkpoint = position.index;
            }
            Record::Data(data) => self.data = *data,
        }
    }

    pub fn cut(&mut self, base: Position) {
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
