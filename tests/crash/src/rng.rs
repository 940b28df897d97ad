//! Random choices from a seed (SplitMix64).

use std::ops::Range;
use std::time::Duration;

/// A generator; the same seed makes the same choices.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number within a range that is not empty.
    pub const fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True so many times of a hundred.
    pub const fn percent(&mut self, chance: u64) -> bool {
        self.within(0..100) < chance
    }

    /// A time within a range of milliseconds.
    pub const fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// A generator of its own for a part of the work.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// A seed nobody chose.
///
/// # Errors
/// If the kernel gives no random bytes.
pub fn fresh_seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    // Few digits, so that it is easily typed again.
    Ok(u64::from_le_bytes(bytes) % 1_000_000_000)
}
