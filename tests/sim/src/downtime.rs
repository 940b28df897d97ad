//! How long clients go without an answer, row by row of the failure table (`repl section 14`).
//!
//! One client writes through both nodes, 100 ms an attempt. Nothing is left to chance: frames take
//! 0.3 ms, flushes 2 ms, the witness is 1 ms away or as a row says, and all timers are as in the
//! program.

use std::time::Duration;

use kine2_replication::{Arbiter, Command, LonePolicy};
use kine2_wal::fake::Operation;

use crate::due::Due;
use crate::network::WITNESS;
use crate::plan::{Plan, ms, witness};
use crate::world::World;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What happens.
    pub event: &'static str,
    /// The longest time without an answer that is promised. Where it ends only when somebody
    /// comes back, that is counted from then.
    pub promise: Duration,
    /// What is other than usual.
    pub setting: Setting,
    /// Makes it happen; answers how long nobody can be expected to answer at all.
    pub script: fn(&mut World) -> Duration,
}

/// What is other than usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A witness near by.
    Usual,
    /// A witness 75 ms away, each way.
    Far,
    /// No witness, policy stop.
    Stop,
    /// No witness, policy prefer-primary.
    PreferPrimary,
    /// No witness, policy ping.
    Ping,
}

impl Row {
    /// Plays it, and answers the longest time without an answer that somebody is to blame for.
    ///
    /// # Panics
    /// When an invariant does not hold, or nobody serves at the end.
    #[must_use]
    pub fn measure(&self) -> Duration {
        let mut plan = Plan::calm();
        plan.arbiter = match self.setting {
            Setting::Usual | Setting::Far => witness(1),
            Setting::Stop => Arbiter::None(LonePolicy::Stop),
            Setting::PreferPrimary => Arbiter::None(LonePolicy::PreferPrimary),
            Setting::Ping => Arbiter::None(LonePolicy::Ping(vec![[192, 0, 2, 1].into()])),
        };
        if self.setting == Setting::Far {
            plan.witness_delay = ms(75);
        }
        let mut world = World::new(plan);
        if self.setting == Setting::Stop {
            // Without anybody to change the configuration the pair is set up as a mirror.
            world.set_up_mirror();
        }
        world.add_client();
        world.run_until(ms(20_000), "a pair", |world| world.is_mirrored());
        world.run_for(ms(6_000));
        world.clients.longest_gap = Duration::ZERO;
        let excused = (self.script)(&mut world);
        world.run_for(ms(18_000));
        let since = world.now.saturating_sub(world.clients.last_answer);
        let gap = world.clients.longest_gap.max(since);
        gap.saturating_sub(excused)
    }
}

const NOBODY: Duration = Duration::ZERO;

/// The rows that apply to a store without volumes.
pub const ROWS: &[Row] = &[
    row("primary process dies", 400, |world| {
        world.kill(0);
        NOBODY
    }),
    row("primary host dies", 1200, |world| {
        world.cut_power(0);
        NOBODY
    }),
    row("primary freezes for 15 s", 1200, |world| {
        world.freeze(0, ms(15_000));
        NOBODY
    }),
    far("primary process dies, witness 150 ms away", 400, |world| {
        world.kill(0);
        NOBODY
    }),
    far("primary host dies, witness 150 ms away", 1200, |world| {
        world.cut_power(0);
        NOBODY
    }),
    row("secondary process dies", 300, |world| {
        world.kill(1);
        NOBODY
    }),
    row("secondary host dies", 800, |world| {
        world.cut_power(1);
        NOBODY
    }),
    far("secondary host dies, witness 150 ms away", 800, |world| {
        world.cut_power(1);
        NOBODY
    }),
    row("secondary's disk hangs", 2300, |world| {
        world.machines[1].is_slow = true;
        NOBODY
    }),
    row(
        "nodes cut from each other, both see the witness",
        800,
        |world| {
            world.network.cut(0, 1);
            NOBODY
        },
    ),
    row(
        "nodes cut, only the secondary sees the witness",
        1200,
        |world| {
            world.network.cut(0, 1);
            world.cut_witness(0);
            NOBODY
        },
    ),
    row(
        "nodes cut, only the primary sees the witness",
        800,
        |world| {
            world.network.cut(0, 1);
            world.cut_witness(1);
            NOBODY
        },
    ),
    row("secondary is not heard by the primary", 800, |world| {
        world.network.cut_one_way(1, 0);
        NOBODY
    }),
    row("primary is not heard by the secondary", 800, |world| {
        world.network.cut_one_way(0, 1);
        NOBODY
    }),
    row("witness dies and restarts", 50, |world| {
        world.crash_witness(0);
        world.push(ms(3_000), Due::StartWitness(0));
        NOBODY
    }),
    row("primary cut from the witness", 50, |world| {
        world.cut_witness(0);
        NOBODY
    }),
    row(
        "witness lost, then the secondary; the secondary is back",
        1500,
        |world| {
            world.crash_witness(0);
            world.run_for(ms(1_000));
            world.cut_power(1);
            world.push(ms(5_000), Due::Start(1));
            ms(5_000)
        },
    ),
    row(
        "witness lost, then the secondary; the witness is back",
        5500,
        |world| {
            world.crash_witness(0);
            world.run_for(ms(1_000));
            world.cut_power(1);
            world.push(ms(5_000), Due::StartWitness(0));
            ms(5_000)
        },
    ),
    row(
        "witness lost, then the primary; the primary is back",
        3500,
        |world| {
            world.crash_witness(0);
            world.run_for(ms(1_000));
            world.cut_power(0);
            world.push(ms(5_000), Due::Start(0));
            ms(5_000)
        },
    ),
    row("alone, witness lost, primary restarts", 5500, |world| {
        world.cut_power(1);
        world.run_for(ms(3_000));
        world.crash_witness(0);
        world.kill(0);
        world.push(ms(1_000), Due::Start(0));
        ms(1_000)
    }),
    row("both lose power, both return", 1500, |world| {
        for n in 0..2 {
            world.cut_power(n);
            world.push(ms(2_000), Due::Start(n));
        }
        ms(2_000)
    }),
    row(
        "both lose power, only the secondary returns",
        4000,
        |world| {
            for n in 0..2 {
                world.cut_power(n);
            }
            world.push(ms(2_000), Due::Start(1));
            ms(2_000)
        },
    ),
    row("flush fails at the primary", 300, |world| {
        fail_flush(world, 0);
        NOBODY
    }),
    row("flush fails at the secondary", 300, |world| {
        fail_flush(world, 1);
        NOBODY
    }),
    row(
        "flush fails at a primary that is alone; restarted after 1 s",
        3000,
        |world| {
            world.cut_power(1);
            world.run_for(ms(3_000));
            fail_flush(world, 0);
            world.push(ms(1_000), Due::Restart(0));
            ms(1_000)
        },
    ),
    row("secondary loses its disk and joins again", 800, |world| {
        world.cut_power(1);
        world.run_for(ms(3_000));
        world.replace(1);
        world.start(1);
        NOBODY
    }),
    row("swap", 300, |world| {
        world.command(0, Command::Swap { partial: false });
        NOBODY
    }),
    row("the operator stops the primary", 300, |world| {
        world.command(0, Command::Stop { force: false });
        NOBODY
    }),
    row("the operator stops the secondary", 300, |world| {
        world.command(1, Command::Stop { force: false });
        NOBODY
    }),
    row("the witness is replaced by another", 50, |world| {
        let (arbiter, old_lost) = (witness(2), false);
        world.command(0, Command::ChangeArbiter { arbiter, old_lost });
        NOBODY
    }),
    row("the witness is lost and replaced by another", 50, |world| {
        world.crash_witness(0);
        let (arbiter, old_lost) = (witness(2), true);
        world.command(0, Command::ChangeArbiter { arbiter, old_lost });
        NOBODY
    }),
    lone(
        "no witness, stop: secondary lost, and back",
        1500,
        Setting::Stop,
        |world| {
            world.kill(1);
            world.push(ms(5_000), Due::Start(1));
            ms(5_000)
        },
    ),
    lone(
        "no witness, stop: primary lost, and back",
        3500,
        Setting::Stop,
        |world| {
            world.kill(0);
            world.push(ms(5_000), Due::Start(0));
            ms(5_000)
        },
    ),
    lone(
        "no witness, prefer-primary: secondary lost",
        800,
        Setting::PreferPrimary,
        |world| {
            world.cut_power(1);
            NOBODY
        },
    ),
    lone(
        "no witness, prefer-primary: primary lost, and back",
        3500,
        Setting::PreferPrimary,
        |world| {
            world.kill(0);
            world.push(ms(5_000), Due::Start(0));
            ms(5_000)
        },
    ),
    lone(
        "no witness, ping: secondary lost",
        800,
        Setting::Ping,
        |world| {
            world.cut_power(1);
            NOBODY
        },
    ),
    lone(
        "no witness, ping: primary lost",
        3500,
        Setting::Ping,
        |world| {
            world.kill(0);
            NOBODY
        },
    ),
    row("the witness's way is cut at both nodes", 50, |world| {
        for n in 0..2 {
            world.network.cut(n, WITNESS);
        }
        NOBODY
    }),
];

const fn row(event: &'static str, promise: u64, script: fn(&mut World) -> Duration) -> Row {
    lone(event, promise, Setting::Usual, script)
}

const fn far(event: &'static str, promise: u64, script: fn(&mut World) -> Duration) -> Row {
    lone(event, promise, Setting::Far, script)
}

const fn lone(
    event: &'static str,
    promise: u64,
    setting: Setting,
    script: fn(&mut World) -> Duration,
) -> Row {
    Row {
        event,
        promise: ms(promise),
        setting,
        script,
    }
}

fn fail_flush(world: &mut World, n: usize) {
    let disk = &world.machines[n].disk;
    disk.fail_nth(Operation::Sync, 1, std::io::ErrorKind::Other);
}
