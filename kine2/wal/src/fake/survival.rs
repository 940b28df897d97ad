//! What a power cut leaves, drawn from a seed.

/// How much of what was not flushed survives a power cut.
#[derive(Clone, Copy, Debug)]
pub(super) enum Survival {
    Nothing,
    All,
    /// The first ones, in the order written.
    Prefix,
    /// The last ones.
    Suffix,
    /// Each one by itself, with this chance of 256.
    Each(u64),
}

impl Survival {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        match dice.below(8) {
            0 => Self::Nothing,
            1 => Self::All,
            2 => Self::Prefix,
            3 => Self::Suffix,
            4 => Self::Each(240),
            5 => Self::Each(16),
            _ => Self::Each(128),
        }
    }

    /// Does change `at` of `count` survive?
    pub(super) fn draw_change(self, dice: &mut Dice, at: u64, count: u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            // The border moves with each change; that only blurs it.
            Self::Prefix => at < dice.below(count + 1),
            Self::Suffix => at >= dice.below(count + 1),
            Self::Each(chance) => dice.below(256) < chance,
        }
    }
}

/// SplitMix64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
