//! Which terms a log consists of, and where two logs part (`repl section 7`, Common point).

use kine2_wal::{LogIndex, Position, Term};

/// Entries of one term that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Their term.
    pub term: Term,
    /// The last of them.
    pub end: Position,
}

/// The terms of a log, in order, from its base on. Small: a term is an activation of a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The entry before the first kept one.
    base: Position,
    /// Terms rise; `end` rises; the first span begins after `base`.
    spans: Vec<Span>,
}

impl History {
    /// A log that is empty after `base`.
    #[must_use]
    pub fn new(base: Position) -> Self {
        let spans = Vec::new();
        Self { base, spans }
    }

    /// A log whose terms end at these positions after `base`; `None` if terms or indexes do not
    /// rise.
    #[must_use]
    pub fn from_ends(base: Position, ends: impl IntoIterator<Item = Position>) -> Option<Self> {
        let mut history = Self::new(base);
        for end in ends {
            let last = history.last();
            let rises = match history.spans.last() {
                Some(span) => end.term > span.term,
                None => end.term >= base.term,
            };
            if end.index <= last.index || !rises {
                return None;
            }
            history.push(end);
        }
        Some(history)
    }

    /// The entry before the first kept one.
    #[must_use]
    pub fn base(&self) -> Position {
        self.base
    }

    /// The spans after the base.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The last entry; the base if there is none.
    #[must_use]
    pub fn last(&self) -> Position {
        self.spans.last().map_or(self.base, |span| span.end)
    }

    /// The log grew up to `position`, by entries of its term.
    ///
    /// # Panics
    /// If the index does not rise or the term falls.
    pub fn push(&mut self, position: Position) {
        let last = self.last();
        assert!(position.index > last.index, "a log grows at its end");
        assert!(
            position.term >= last.term,
            "terms never decrease along a log"
        );
        match self.spans.last_mut() {
            Some(span) if span.term == position.term => span.end = position,
            _ => self.spans.push(Span {
                term: position.term,
                end: position,
            }),
        }
    }

    /// The log ends at `to`, which must be one of its positions.
    ///
    /// # Panics
    /// If it is not.
    pub fn truncate(&mut self, to: Position) {
        assert!(
            self.holds(to.index, to.term),
            "a log is cut at an entry it holds"
        );
        self.spans.retain(|span| span.end.index <= to.index);
        if self.last().index < to.index {
            self.push(to);
        }
    }

    /// The log begins after `base`: what lies before was given up for a checkpoint or snapshot.
    ///
    /// # Panics
    /// If the log does not hold `base`.
    pub fn cut(&mut self, base: Position) {
        assert!(
            self.holds(base.index, base.term),
            "a log is cut at an entry it holds"
        );
        self.spans.retain(|span| span.end.index > base.index);
        self.base = base;
    }

    /// Term of the entry at `index`, if the log reaches from its base to there.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index {
            return None;
        }
        let at = self.spans.partition_point(|span| span.end.index < index);
        self.spans.get(at).map(|span| span.term)
    }

    /// True if the entry at `index` is of `term`: by log matching it and all before it are the
    /// same as in any log of which that is true.
    #[must_use]
    pub fn holds(&self, index: LogIndex, term: Term) -> bool {
        self.term_at(index) == Some(term)
    }

    /// The position at `index` if its chain is known here: at the end of a term, and at the base.
    #[must_use]
    pub fn position_at(&self, index: LogIndex) -> Option<Position> {
        let ends = self.spans.iter().map(|span| span.end);
        ends.chain([self.base]).find(|end| end.index == index)
    }

    /// The newest position before `index` whose chain is known here.
    #[must_use]
    pub fn position_before(&self, index: LogIndex) -> Option<Position> {
        let ends = self.spans.iter().rev().map(|span| span.end);
        ends.chain([self.base]).find(|end| end.index < index)
    }

    /// The last entry that this log and `other` have in common: in the newest term that is found
    /// in both, the earlier of its ends. Nothing if no term is found in both.
    #[must_use]
    pub fn common_point(&self, other: &Self) -> Option<(LogIndex, Term)> {
        let terms = self.spans.iter().rev().map(|span| span.term);
        for term in terms.chain([self.base.term]) {
            if let (Some(own), Some(theirs)) = (self.end_of(term), other.end_of(term)) {
                return Some((own.min(theirs), term));
            }
        }
        None
    }

    /// Index of the last entry of `term`.
    fn end_of(&self, term: Term) -> Option<LogIndex> {
        let span = self.spans.iter().rfind(|span| span.term == term);
        let base = (self.base.term == term).then_some(self.base.index);
        span.map(|span| span.end.index).or(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(spans: &[(u64, u32, u64)]) -> History {
        let mut history = History::new(Position::START);
        let mut last = Position::START;
        for (epoch, run, end) in spans {
            while last.index.0 < *end {
                last = last.extend(Term::new(*epoch, *run), b"x");
                history.push(last);
            }
        }
        history
    }

    fn point(a: &[(u64, u32, u64)], b: &[(u64, u32, u64)]) -> u64 {
        let (a, b) = (log(a), log(b));
        let point = a.common_point(&b);
        assert_eq!(point, b.common_point(&a));
        point.unwrap().0.0
    }

    #[test]
    fn the_common_point_is_the_earlier_end_of_the_newest_common_term() {
        assert_eq!(point(&[], &[]), 0);
        assert_eq!(point(&[(1, 1, 5)], &[]), 0);
        assert_eq!(point(&[(1, 1, 5)], &[(1, 1, 3)]), 3);
        // A tail of 2.1 that only the first has, and one of 1.1 that only the second has.
        assert_eq!(point(&[(1, 1, 5), (2, 1, 9)], &[(1, 1, 7)]), 5);
        assert_eq!(point(&[(1, 1, 5), (3, 1, 6)], &[(1, 1, 5), (2, 1, 8)]), 5);
        assert_eq!(point(&[(2, 1, 4)], &[(1, 1, 4)]), 0);
    }

    #[test]
    fn a_log_without_its_beginning_may_have_nothing_in_common() {
        let whole = log(&[(1, 1, 5), (2, 1, 9)]);
        let mut cut = whole.clone();
        cut.cut(whole.position_at(LogIndex(5)).unwrap());
        assert_eq!(cut.common_point(&whole).unwrap().0, LogIndex(9));
        cut.cut(whole.last());
        assert_eq!(cut.common_point(&log(&[(1, 1, 5)])), None);
        assert_eq!(cut.term_at(LogIndex(4)), None);
    }

    #[test]
    fn truncation_ends_the_log_in_the_middle_of_a_term() {
        let whole = log(&[(1, 1, 5), (2, 1, 9)]);
        let mut cut = whole.clone();
        let at = log(&[(1, 1, 3)]).last();
        cut.truncate(at);
        assert_eq!(cut.last(), at);
        assert_eq!(cut, log(&[(1, 1, 3)]));
    }
}
