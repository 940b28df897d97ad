//! Rules of the log broken on purpose: power cuts must show each of them.
//!
//! `SEEDS=n` says after how many seeds to give up, `ONLY=Name` runs one.

mod support;

use kine2_mutation::{Mutation, Room, asked, hunt};
use support::driver::{failed_flush, power_cuts};

#[test]
fn each_broken_rule_is_found() {
    let all = Mutation::of(Room::Log);
    let (mutations, seeds) = asked(all.clone(), &all, 400);
    hunt(&mutations, seeds, |seed| {
        power_cuts(seed);
        failed_flush(seed);
    });
}
