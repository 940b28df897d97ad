//! Rules broken on purpose: the simulator must notice each of them.
//!
//! Without more ado the ones run that are found soon. `SEEDS=n` runs all, each until it is found or
//! `n` seeds are over, and prints the table of `docs/mutations.md`; `ONLY=Name` runs one.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "all of it is a test"
)]

mod sim;

use kine2_mutation::{Mutation, Room, asked, hunt};
use sim::{Plan, Sim};

/// Found within few seeds, one for each group of rules.
const SOON: &[Mutation] = &[
    Mutation::BlindCas,
    Mutation::NoCas,
    Mutation::TakeoverAllParts,
    Mutation::CfgVolatile,
    Mutation::ServeForeign,
    Mutation::AckBeforeDurable,
    Mutation::AsyncCommit,
    Mutation::NoTruncation,
    Mutation::NoRun,
    Mutation::LocalRead,
    Mutation::AddNotCaughtUp,
    Mutation::NoSwapBack,
];
/// Seeds after which one of [`SOON`] is given up.
const SOON_SEEDS: u64 = 40;

#[test]
fn each_broken_rule_is_found() {
    let (mut mutations, seeds) = asked(Mutation::of(Room::Replication), SOON, SOON_SEEDS);
    // The disks here forget nothing; `tests/sim` sets machines back.
    mutations.retain(|m| !matches!(m, Mutation::NoFloorAtWitness | Mutation::NoFloorAtPeer));
    hunt(&mutations, seeds, |seed| {
        Sim::new(Plan::of_seed(seed)).run();
    });
}
