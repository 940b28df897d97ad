//! How much of the values stays in memory.
//!
//! Records lie in the index entries themselves; this counts them and, beyond the budget, passes a
//! hand over the index that drops those nobody has read since its last round (CLOCK).

use crate::index::{Index, Place};

/// Budget and hand.
#[derive(Debug)]
pub(crate) struct Cache {
    bytes: usize,
    budget_bytes: usize,
    is_paused: bool,
    hand: Place,
}

impl Cache {
    pub(crate) fn new(budget_bytes: usize) -> Self {
        Self {
            bytes: 0,
            budget_bytes,
            is_paused: false,
            hand: Place::default(),
        }
    }

    pub(crate) const fn set_on(&mut self, is_on: bool) {
        self.is_paused = !is_on;
    }

    /// Whether anything is to be kept at all.
    pub(crate) const fn is_on(&self) -> bool {
        self.budget_bytes > 0 && !self.is_paused
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn added(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(crate) const fn dropped(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Drops records until the budget holds.
    pub(crate) fn shrink(&mut self, index: &mut Index) {
        // Two rounds: the first may only clear marks.
        let mut steps = index.len().saturating_mul(2);
        while self.bytes > self.budget_bytes && steps > 0 {
            steps -= 1;
            self.hand = index.next_cyclic(self.hand);
            let entry = index.entry_mut(self.hand);
            if std::mem::take(&mut entry.recently_read) {
                continue;
            }
            if let Some(record) = entry.cached.take() {
                self.bytes -= record.len();
            }
        }
    }
}
