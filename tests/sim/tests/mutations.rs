//! Rules broken on purpose: what clients see must tell, or an invariant. `ONLY=Name SEEDS=n` hunts
//! for one of all.

use kine2_mutation::{Mutation, Room, asked, hunt};
use kine2_sim::plan::Plan;
use kine2_sim::world::World;

/// Found within few seeds by a store alone.
const SOON: &[Mutation] = &[
    Mutation::AckBeforeDurable,
    Mutation::AsyncCommit,
    Mutation::LocalRead,
    Mutation::NoRun,
];
/// Seeds after which one of them is given up.
const SOON_SEEDS: u64 = 60;

#[test]
fn each_broken_rule_is_found() {
    let (mutations, seeds) = asked(Mutation::of(Room::Replication), SOON, SOON_SEEDS);
    hunt(&mutations, seeds, |seed| {
        if let Err(story) = World::run(Plan::of(seed)) {
            // What failed comes last.
            let what = story.lines().rfind(|line| !line.starts_with(' '));
            panic!("{}", what.unwrap_or_default());
        }
    });
}
