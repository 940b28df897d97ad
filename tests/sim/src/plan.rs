//! What goes wrong under a seed, and how much.

use std::time::Duration;

use kine2_replication::{Arbiter, LonePolicy, Timers, WitnessId};
use kine2_sim_kit::Rng;

use crate::episodes::Episode;

/// So many milliseconds.
#[must_use]
pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed all else is drawn from.
    pub seed: u64,
    /// The arbiter of the first configuration.
    pub arbiter: Arbiter,
    /// The unit's timers.
    pub timers: Timers,
    /// Frames lost, in percent.
    pub loss: u64,
    /// Frames repeated, in percent.
    pub repeats: u64,
    /// Shortest way of a frame between the nodes.
    pub delay_min: Duration,
    /// Longest; one in ten takes more than a twentieth of it.
    pub delay_max: Duration,
    /// Way of a call to the witness, at least.
    pub witness_delay: Duration,
    /// How long a flush takes at most.
    pub flush_max: Duration,
    /// Time with faults.
    pub chaos: Duration,
    /// Mean time between faults; zero for none by chance.
    pub fault_every: Duration,
    /// Clients.
    pub clients: usize,
    /// Longest pause of a client.
    pub pause_max: Duration,
    /// Clients write only, and as fast as they are answered.
    pub probes: bool,
    /// The operator swaps, stops and changes the arbiter.
    pub operator: bool,
    /// Disks fail, fill up and are wiped.
    pub disks: bool,
    /// Clients have history forgotten, and read what there is of it.
    pub compacts: bool,
    /// Clients raise alarms.
    pub alarms: bool,
    /// Bytes of the state from which on nodes raise NOSPACE; 0 for no limit.
    pub quota_bytes: u64,
    /// Disks turn bits over while their machines are down.
    pub rot: bool,
    /// Longer stories that a run is interrupted for, and when each may begin.
    pub episodes: Vec<(Duration, Episode)>,
    /// Checkpoints come so often that logs are cut.
    pub checkpoint_every: Duration,
}

/// The arbiter that is a witness of this number.
#[must_use]
pub fn witness(id: u128) -> Arbiter {
    Arbiter::Witness {
        id: WitnessId(id),
        address: format!("w{id}"),
    }
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(1));
        let lone = rng.percent(12);
        let far = rng.percent(20);
        let mut plan = Self {
            seed,
            arbiter: if lone {
                Arbiter::None(LonePolicy::PreferPrimary)
            } else {
                witness(1)
            },
            timers: short_pauses(),
            loss: rng.choose(&[0, 0, 1, 5, 20]),
            repeats: rng.choose(&[0, 5, 20]),
            delay_min: Duration::from_micros(50),
            delay_max: ms(rng.choose(&[2, 10, 60, 400])),
            witness_delay: if far { ms(75) } else { ms(1) },
            flush_max: ms(rng.choose(&[1, 5, 40])),
            chaos: ms(rng.choose(&[4_000, 10_000, 20_000])),
            fault_every: ms(rng.choose(&[250, 800, 2_500])),
            clients: 2 + rng.pick(4),
            pause_max: ms(rng.choose(&[20, 100, 300])),
            probes: false,
            operator: rng.percent(60),
            disks: rng.percent(50),
            checkpoint_every: ms(rng.choose(&[200, 1_500, 10_000])),
            compacts: rng.percent(40),
            alarms: rng.percent(10),
            quota_bytes: rng.choose(&[0, 0, 0, 0, 0, 0, 0, 0, 20_000, 60_000]),
            rot: rng.percent(30),
            episodes: Vec::new(),
        };
        let some = [
            Episode::Forced,
            Episode::Reverted,
            Episode::Reverted,
            Episode::WitnessReverted,
        ];
        if rng.percent(30) {
            let when = plan.chaos / 10 * (1 + u32::try_from(rng.below(9)).expect("few"));
            plan.episodes.push((when, rng.choose(&some)));
        }
        plan
    }

    /// Whether nothing is left to chance.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.delay_max.is_zero()
    }

    /// No chance at all: the network of a shop and a witness near by, with the timers as they
    /// are.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            seed: 1,
            arbiter: witness(1),
            timers: Timers::default(),
            loss: 0,
            repeats: 0,
            delay_min: Duration::from_micros(300),
            delay_max: Duration::ZERO,
            witness_delay: ms(1),
            flush_max: ms(2),
            chaos: Duration::ZERO,
            fault_every: Duration::ZERO,
            clients: 0,
            pause_max: ms(5),
            probes: true,
            operator: false,
            disks: false,
            checkpoint_every: ms(30_000),
            compacts: false,
            alarms: false,
            quota_bytes: 0,
            rot: false,
            episodes: Vec::new(),
        }
    }
}

/// The timers as they are, but for the long pauses.
fn short_pauses() -> Timers {
    Timers {
        readd_backoff_min: ms(500),
        readd_backoff_max: ms(2000),
        readd_backoff_memory: ms(5000),
        swap_back_delay: ms(500),
        failback_delay: ms(1_500),
        ..Timers::default()
    }
}
