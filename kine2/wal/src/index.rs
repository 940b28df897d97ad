//! What the log knows about its live entries without reading them: their range, their terms, and
//! where on disk to begin looking for one.

use std::collections::VecDeque;

use crate::position::{LogIndex, Position, Term};

/// Bytes of a segment between two points; a look-up reads about this much.
const POINT_SPACING_BYTES: u64 = 64 << 10;

/// Where an entry lies.
///
/// The live entries from here up to the next point's index follow each other in this segment; dead
/// ones lie only behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) index: LogIndex,
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
}

/// A map of the live entries. Memory: 24 bytes for each 64 KiB of log, and as much for each term.
#[derive(Debug)]
pub(crate) struct Index {
    base: Position,
    last: Position,
    /// Each term with its first live index.
    terms: VecDeque<(LogIndex, Term)>,
    points: VecDeque<Point>,
    /// The next entry does not lie behind the one before it.
    point_due: bool,
}

impl Index {
    /// An empty log that begins after `base`.
    pub(crate) fn new(base: Position) -> Self {
        let (terms, points) = (VecDeque::new(), VecDeque::new());
        Self {
            base,
            last: base,
            terms,
            points,
            point_due: true,
        }
    }

    /// Position before the first live entry.
    pub(crate) fn base(&self) -> Position {
        self.base
    }

    /// Position of the last live entry, or the base.
    pub(crate) fn last(&self) -> Position {
        self.last
    }

    /// Adds the entry that lies at `offset` of segment `sequence`.
    pub(crate) fn append(&mut self, position: Position, sequence: u64, offset: u64) {
        assert_eq!(position.index, self.last.index.next(), "a log has no gaps");
        assert!(
            position.term >= self.last.term,
            "terms never decrease along a log"
        );
        let index = position.index;
        let near = |point: &Point| {
            point.sequence == sequence && offset - point.offset < POINT_SPACING_BYTES
        };
        if self.point_due || !self.points.back().is_some_and(near) {
            self.points.push_back(Point {
                index,
                sequence,
                offset,
            });
            self.point_due = false;
        }
        if self
            .terms
            .back()
            .is_none_or(|(_, term)| *term != position.term)
        {
            self.terms.push_back((index, position.term));
        }
        self.last = position;
    }

    /// Forgets the entries after `to`; if the log begins later, it becomes empty after `to`.
    pub(crate) fn truncate(&mut self, to: Position) {
        if to.index < self.base.index {
            *self = Self::new(to);
            return;
        }
        while self
            .points
            .back()
            .is_some_and(|point| point.index > to.index)
        {
            self.points.pop_back();
        }
        while self
            .terms
            .back()
            .is_some_and(|(first, _)| *first > to.index)
        {
            self.terms.pop_back();
        }
        self.last = to;
        self.point_due = true;
    }

    /// Forgets the entries up to `base`; those after it lie in segment `first_sequence` or later.
    pub(crate) fn cut(&mut self, base: Position, first_sequence: u64) {
        assert!(
            self.base.index <= base.index && base.index <= self.last.index,
            "cut within the log"
        );
        while self
            .points
            .front()
            .is_some_and(|point| point.sequence < first_sequence)
        {
            self.points.pop_front();
        }
        while self
            .terms
            .get(1)
            .is_some_and(|(first, _)| *first <= base.index.next())
        {
            self.terms.pop_front();
        }
        self.base = base;
        if base.index == self.last.index {
            self.terms.clear();
            self.point_due = true;
        }
        let first = self.points.front().map(|point| point.index);
        assert!(
            first.is_none_or(|first| first == base.index.next()),
            "a segment begins a point"
        );
    }

    /// Term of a live entry or of the base.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last.index {
            return None;
        }
        let after = self.terms.partition_point(|(first, _)| *first <= index);
        Some(self.terms[after - 1].1)
    }

    /// Index of the last live entry of each term, in order.
    pub(crate) fn term_ends(&self) -> Vec<LogIndex> {
        let firsts = self.terms.iter().skip(1);
        let mut ends: Vec<_> = firsts.map(|(first, _)| LogIndex(first.0 - 1)).collect();
        if !self.terms.is_empty() {
            ends.push(self.last.index);
        }
        ends
    }

    /// The point at or before a live entry, and the first index beyond the entries it leads to.
    pub(crate) fn find(&self, index: LogIndex) -> (Point, LogIndex) {
        assert!(
            self.base.index < index && index <= self.last.index,
            "only live entries are sought"
        );
        let after = self.points.partition_point(|point| point.index <= index);
        let end = self.points.get(after).map(|point| point.index);
        (
            self.points[after - 1],
            end.unwrap_or_else(|| self.last.index.next()),
        )
    }
}
