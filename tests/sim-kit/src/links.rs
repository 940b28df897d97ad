//! Which ways are cut.

use std::collections::BTreeSet;

/// Ways between numbered ends, each in its direction.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// From, to.
    cut: BTreeSet<(usize, usize)>,
}

impl Links {
    /// Whether nothing gets from one to the other.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Cuts both ways.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Cuts one way.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Opens both ways.
    pub fn open(&mut self, a: usize, b: usize) {
        self.cut.remove(&(a, b));
        self.cut.remove(&(b, a));
    }

    /// Whether all ways are open.
    #[must_use]
    pub fn are_whole(&self) -> bool {
        self.cut.is_empty()
    }

    /// Opens all ways.
    pub fn heal(&mut self) {
        self.cut.clear();
    }
}
