//! A part's log as the core sees it: its terms, how far it is durable, and what is on its way to
//! the disk. Entries that are durable are on the disk only.

use std::collections::VecDeque;

use kine2_mutation::{Mutation, mutated};
use kine2_wal::{Entry, LogIndex, Position, Term};

use crate::history::History;
use crate::output::WriteId;

/// A log of one part.
#[derive(Clone, Debug)]
pub(crate) struct PartLog {
    history: History,
    /// Durable up to here; `<= last().index`.
    durable: LogIndex,
    /// Writes under way, and where the log ends once each is done.
    writes: VecDeque<(WriteId, LogIndex)>,
    /// The entries after `durable`.
    tail: VecDeque<Entry>,
    /// Bytes of payload in `tail`.
    tail_bytes: usize,
    /// The position before the first entry of `tail`.
    tail_base: Position,
}

impl PartLog {
    /// A log as it was found on the disk, all of it durable.
    pub(crate) fn new(history: History) -> Self {
        let last = history.last();
        Self {
            history,
            durable: last.index,
            writes: VecDeque::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_base: last,
        }
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn last(&self) -> Position {
        self.history.last()
    }

    /// Index of the last entry.
    pub(crate) fn end(&self) -> LogIndex {
        self.history.last().index
    }

    pub(crate) fn durable(&self) -> LogIndex {
        self.durable
    }

    pub(crate) fn holds(&self, index: LogIndex, term: Term) -> bool {
        self.history.holds(index, term)
    }

    /// Bytes and number of the entries that are not durable yet.
    pub(crate) fn tail_size(&self) -> (usize, usize) {
        (self.tail_bytes, self.tail.len())
    }

    /// Entries were given to the disk by `write`.
    pub(crate) fn append(&mut self, entries: &[Entry], write: WriteId) {
        for entry in entries {
            self.history.push(entry.position);
            self.tail_bytes += entry.payload.len();
            self.tail.push_back(entry.clone());
        }
        self.writes.push_back((write, self.end()));
    }

    /// The log was cut to end at `to` by `write`. What was durable beyond is not counted any more.
    pub(crate) fn truncate(&mut self, to: Position, write: WriteId) {
        self.history.truncate(to);
        self.durable = self.durable.min(to.index);
        for (_, end) in &mut self.writes {
            *end = (*end).min(to.index);
        }
        self.writes.push_back((write, to.index));
        while self
            .tail
            .back()
            .is_some_and(|e| e.position.index > to.index)
        {
            let gone = self.tail.pop_back().expect("it has a last entry");
            self.tail_bytes -= gone.payload.len();
        }
        if self.tail.is_empty() && self.tail_base.index > to.index {
            self.tail_base = to;
        }
    }

    /// The log begins anew after a snapshot's position, once `write` is durable.
    pub(crate) fn reset(&mut self, base: Position, write: WriteId) {
        *self = Self::new(History::new(base));
        if !mutated(Mutation::ResetCountsAtOnce) {
            self.durable = LogIndex(0);
        }
        self.writes.push_back((write, base.index));
    }

    /// The entries before `base` were given up.
    pub(crate) fn cut(&mut self, base: Position) {
        self.history.cut(base);
    }

    /// All writes up to `through` are durable. True if the log is durable further than before.
    pub(crate) fn on_written(&mut self, through: WriteId) -> bool {
        let before = self.durable;
        while let Some((_, end)) = self.writes.pop_front_if(|(write, _)| *write <= through) {
            // A truncation can come after entries in one list; what follows it is not durable yet.
            self.durable = self.durable.max(end).min(self.end());
        }
        while let Some(entry) = self.tail.pop_front_if(|e| e.position.index <= self.durable) {
            self.tail_bytes -= entry.payload.len();
            self.tail_base = entry.position;
        }
        self.durable > before
    }

    /// The entries from `from` on, with the position before them, if they are all in memory.
    pub(crate) fn entries_from(&self, from: LogIndex) -> Option<(Position, Vec<Entry>)> {
        let skip = usize::try_from(from.0.checked_sub(self.tail_base.index.next().0)?).ok()?;
        let prev = match skip {
            0 => self.tail_base,
            _ => self.tail.get(skip - 1)?.position,
        };
        Some((prev, self.tail.iter().skip(skip).cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entries(after: Position, epoch: u64, count: u64) -> Vec<Entry> {
        let mut last = after;
        let term = Term::new(epoch, 1);
        (0..count)
            .map(|_| {
                last = last.extend(term, b"x");
                Entry {
                    position: last,
                    payload: Bytes::from_static(b"x"),
                }
            })
            .collect()
    }

    #[test]
    fn what_a_truncation_cut_is_not_durable_whatever_write_ends() {
        let mut log = PartLog::new(History::new(Position::START));
        let first = entries(Position::START, 1, 5);
        log.append(&first, WriteId(1));
        log.truncate(first[1].position, WriteId(2));
        log.append(&entries(first[1].position, 2, 2), WriteId(3));
        log.on_written(WriteId(1));
        assert_eq!(log.durable(), LogIndex(2));
        log.on_written(WriteId(3));
        assert_eq!(log.durable(), LogIndex(4));
    }

    #[test]
    fn entries_under_way_are_at_hand() {
        let mut log = PartLog::new(History::new(Position::START));
        let all = entries(Position::START, 1, 3);
        log.append(&all[..2], WriteId(1));
        log.append(&all[2..], WriteId(2));
        log.on_written(WriteId(1));
        assert_eq!(log.entries_from(LogIndex(2)), None);
        let (prev, rest) = log.entries_from(LogIndex(3)).unwrap();
        assert_eq!((prev, &rest[..]), (all[1].position, &all[2..]));
        let (prev, rest) = log.entries_from(LogIndex(4)).unwrap();
        assert_eq!((prev, rest.len()), (all[2].position, 0));
        assert_eq!(log.entries_from(LogIndex(5)), None);
    }
}
