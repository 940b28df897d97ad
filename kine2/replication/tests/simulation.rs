//! Seeded runs of two units and a witness, with faults; the invariants hold after every event.
//!
//! `SEED=n cargo test -p kine2-replication --test simulation one` runs one seed, with `TRACE=1`
//! showing each event.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "all of it is a test"
)]

mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind};

use sim::truth::Counts;
use sim::{Plan, Sim};

fn run(seed: u64) -> Counts {
    let mut sim = Sim::new(Plan::of_seed(seed));
    sim.run();
    sim.truth.counts
}

fn run_seeds(seeds: impl Iterator<Item = u64>) -> Counts {
    let mut counts = Counts::default();
    let mut failed = Vec::new();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(one) => counts.add(&one),
            Err(_) => {
                println!("seed {seed} failed");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?} failed");
    counts
}

/// `SEEDS=n` runs more.
#[test]
fn the_invariants_hold_under_every_seed() {
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok());
    let counts = run_seeds(0..seeds.unwrap_or(60));
    println!("{counts:?}");
    // What the runs are for was reached, and not by chance only once.
    let reached = [
        ("acknowledged writes", counts.acknowledged, 1000),
        ("reads at the other node", counts.reads_at_secondary, 1000),
        ("confirmed reads", counts.reads_mirrored, 1000),
        ("tails cut", counts.truncations, 3),
        ("takeovers", counts.takeovers, 20),
        ("additions", counts.additions, 50),
        ("removals", counts.removals, 20),
        ("drops", counts.drops, 1),
        ("swaps", counts.swaps, 5),
        ("abdications", counts.abdications, 1),
        ("changes of the arbiter", counts.moves, 5),
        ("snapshots", counts.snapshots, 20),
        ("losses that were accepted", counts.forced, 5),
        ("commits in doubt", counts.joint_commits, 20),
    ];
    for (what, count, least) in reached {
        assert!(count >= least, "{what}: {count}, at least {least} wanted");
    }
}

#[test]
fn one_seed() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    println!("{:?}", run(seed.unwrap_or(1)));
}
