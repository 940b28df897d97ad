//! What goes wrong in a run.

use std::time::Duration;

use kine2_replication::{Arbiter, LonePolicy, NodeName};

use kine2_sim_kit::Rng;

use super::{arbiter, gateway, ms};

/// How much goes wrong.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Of the arbiter of the first configuration.
    pub arbiter: Arbiter,
    /// Frames lost, repeated; in percent.
    pub loss: u64,
    pub repeats: u64,
    /// Longest delay of a frame, a disk write, a call.
    pub delay_max: Duration,
    /// Time with faults.
    pub chaos: Duration,
    /// Mean time between faults.
    pub fault_every: Duration,
    /// Logs are cut at checkpoints, so that snapshots are needed.
    pub cuts: bool,
    /// The operator swaps, stops and changes the arbiter.
    pub operator: bool,
    /// Disks fail, and are wiped.
    pub disks: bool,
    /// Of the operator's ambushes those that move the arbiter, in percent.
    pub moves: u64,
    /// A peer that was dropped is added again at once.
    pub hasty: bool,
    /// Faults that wait for their moment, in percent of all.
    pub ambushes: u64,
    /// The witness comes back as it was before.
    pub rolls: bool,
    /// How often the operator promotes a node by force, whatever it lacks and whoever lives.
    pub forces: u64,
    /// The losing side of policy `ping` gives up by itself.
    pub auto_discard: bool,
    /// No chance at all: a story to be read. Frames and disks take 1 ms.
    pub calm: bool,
    /// The node that shall be primary when both are well.
    pub preferred: Option<NodeName>,
    /// One way to the witness, in a calm run.
    pub witness: Duration,
}

impl Plan {
    /// Nothing goes wrong by itself.
    pub fn calm() -> Self {
        Self {
            seed: 1,
            arbiter: arbiter(1),
            loss: 0,
            repeats: 0,
            delay_max: ms(1),
            chaos: Duration::ZERO,
            fault_every: ms(1000),
            cuts: false,
            operator: false,
            disks: false,
            moves: 0,
            hasty: false,
            ambushes: 0,
            rolls: false,
            forces: 0,
            auto_discard: false,
            calm: true,
            preferred: None,
            witness: ms(5),
        }
    }

    /// What goes wrong under a seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(31));
        let lone = rng.percent(15);
        let mut plan = Self {
            seed,
            arbiter: if lone {
                Arbiter::None(LonePolicy::PreferPrimary)
            } else {
                arbiter(1)
            },
            loss: [0, 1, 5, 20][rng.pick(4)],
            repeats: [0, 5, 20][rng.pick(3)],
            delay_max: ms([5, 60, 400][rng.pick(3)]),
            chaos: ms(30_000),
            fault_every: ms([300, 1200, 4000][rng.pick(3)]),
            cuts: rng.percent(50),
            operator: rng.percent(60),
            disks: rng.percent(40),
            moves: if !lone && rng.percent(20) { 90 } else { 20 },
            hasty: rng.percent(35),
            rolls: !lone && rng.percent(25),
            ambushes: [5, 30, 80][rng.pick(3)],
            forces: 0,
            auto_discard: false,
            calm: false,
            preferred: None,
            witness: Duration::ZERO,
        };
        if plan.moves > 50 {
            plan.operator = true;
            plan.ambushes = 90;
            plan.fault_every = ms(600);
            plan.loss = 0;
        }
        if plan.rolls {
            // Only a witness that both nodes can tell of it notices that it went back.
            plan.loss = 0;
            plan.operator = false;
        }
        // Of its own dice, so that the other seeds are what they were.
        let mut rng = Rng::new(seed.wrapping_mul(53) ^ 0xf0ce);
        if !lone && !plan.rolls && plan.moves <= 50 && rng.percent(35) {
            plan.forces = 1 + rng.below(3);
            plan.disks = false;
            plan.ambushes = 0;
        }
        // Again of its own dice.
        let mut rng = Rng::new(seed.wrapping_mul(71) ^ 0x9a7e);
        if plan.forces == 0 && !plan.rolls && plan.moves <= 50 && rng.percent(15) {
            plan.arbiter = gateway();
            plan.ambushes = 0;
            plan.auto_discard = rng.percent(50);
        }
        plan
    }
}
