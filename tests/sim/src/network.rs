//! Ways between the two nodes and the witnesses.

use std::time::Duration;

use kine2_sim_kit::{Links, Rng};

use crate::plan::Plan;

/// The witnesses, as an end of a link; 0 and 1 are the nodes.
pub const WITNESS: usize = 2;

/// The network.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Which ways are cut.
    pub links: Links,
    /// Added to each way between the nodes.
    pub slow: Duration,
    /// No chance any more: nothing is lost, and ways are short.
    pub healed: bool,
}

impl Network {
    /// Whether nothing gets from one to the other.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links.is_cut(from, to)
    }

    /// Cuts both ways.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.links.cut(a, b);
    }

    /// Cuts one way.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.links.cut_one_way(from, to);
    }

    /// All ways are open, and fast.
    pub fn heal(&mut self) {
        self.links.heal();
        self.slow = Duration::ZERO;
    }

    /// Whether a frame is lost.
    pub fn loses(&self, plan: &Plan, rng: &mut Rng) -> bool {
        !self.healed && rng.percent(plan.loss)
    }

    /// Whether a frame comes twice.
    pub fn repeats(&self, plan: &Plan, rng: &mut Rng) -> bool {
        !self.healed && rng.percent(plan.repeats)
    }

    /// How long a frame is on its way between the nodes: mostly short, sometimes long.
    pub fn delay(&self, plan: &Plan, rng: &mut Rng) -> Duration {
        if plan.delay_max.is_zero() {
            return plan.delay_min + self.slow;
        }
        let max = if self.healed || rng.percent(90) {
            plan.delay_max / 20
        } else {
            plan.delay_max
        };
        plan.delay_min + self.slow + up_to(max, rng)
    }

    /// How long a call to a witness is on its way.
    pub fn witness_delay(&self, plan: &Plan, rng: &mut Rng) -> Duration {
        plan.witness_delay + self.delay(plan, rng)
    }
}

/// A time up to this one.
pub fn up_to(max: Duration, rng: &mut Rng) -> Duration {
    let micros = u64::try_from(max.as_micros()).expect("short");
    Duration::from_micros(rng.below(micros + 1))
}
