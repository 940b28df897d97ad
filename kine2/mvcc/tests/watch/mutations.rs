//! Rules of watches broken on purpose: the model must show each of them.
//!
//! `SEEDS=n` says after how many random histories to give up, `ONLY=Name` runs one.

use kine2_mutation::{Mutation, Room, asked, hunt};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::property::{op, run};

#[test]
fn each_broken_rule_is_found() {
    let of_this = |m: &Mutation| m.to_string().starts_with("Watch");
    let all: Vec<_> = Mutation::of(Room::Store)
        .into_iter()
        .filter(of_this)
        .collect();
    let (mutations, histories) = asked(all.clone(), &all, 2000);
    hunt(&mutations, histories, |history| {
        let config = Config {
            rng_seed: RngSeed::Fixed(history),
            ..Config::default()
        };
        let ops = prop::collection::vec(op(), 0..60);
        let tree = ops.new_tree(&mut TestRunner::new(config));
        run(tree.expect("no filter is that strict").current());
    });
}
