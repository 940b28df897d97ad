//! The number of a configuration.

use std::fmt;

/// Number of a configuration: `generation << 32 | counter`, compared as one integer.
///
/// Ordinary changes raise the counter. A change of the arbiter and a forced promotion also raise
/// the generation, so that nothing written under the old arbiter can ever be the newest.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of this generation and counter.
    #[must_use]
    pub const fn new(generation: u32, counter: u32) -> Self {
        Self((generation as u64) << 32 | counter as u64)
    }

    /// Which arbiter or forced promotion it stands under.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The number of changes so far.
    #[must_use]
    pub const fn counter(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// The epoch of the next ordinary change.
    ///
    /// # Panics
    /// After 2³² changes.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.generation(), self.next_counter())
    }

    /// The epoch of a change to this generation, which must be higher than the own one.
    ///
    /// # Panics
    /// If the generation is not higher, and after 2³² changes.
    #[must_use]
    pub const fn next_in_generation(self, generation: u32) -> Self {
        assert!(generation > self.generation(), "a new generation is higher");
        Self::new(generation, self.next_counter())
    }

    const fn next_counter(self) -> u32 {
        assert!(self.counter() < u32::MAX, "2^32 changes are never made");
        self.counter() + 1
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.generation() == 0 {
            write!(f, "{}", self.counter())
        } else {
            write!(f, "{}:{}", self.generation(), self.counter())
        }
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_generation_is_newer_than_any_counter() {
        assert!(Epoch::new(1, 0) > Epoch::new(0, u32::MAX));
        assert!(Epoch::new(1, 3) < Epoch::new(1, 4));
        assert_eq!(Epoch::new(2, 7).next(), Epoch::new(2, 8));
        assert_eq!(Epoch::new(2, 7).next_in_generation(5), Epoch::new(5, 8));
    }
}
