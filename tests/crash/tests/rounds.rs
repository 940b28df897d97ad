//! A few rounds of each, as CI runs them; `tests/full` runs many.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]
#![expect(clippy::print_stdout, reason = "the seed and the figures")]

use kine2_crash::block_on;
use kine2_crash::campaign::{End, Outcome, Plan};

fn run(end: End, rounds: u64, seed: u64, mutation: Option<&str>) -> Outcome {
    let plan = Plan {
        end,
        rounds,
        seed,
        load_ms: 500,
        mutation: mutation.map(str::to_owned),
        keep: None,
        verbose: false,
    };
    let outcome = block_on(plan.run()).unwrap().unwrap();
    println!("seed {seed}: {outcome}");
    outcome
}

#[test]
fn a_killed_server_comes_back_with_all_it_had_acknowledged() {
    let outcome = run(End::Kill, 5, 11, None);
    assert!(outcome.bad.is_empty(), "{outcome}");
    assert!(outcome.acknowledged > 0, "{outcome}");
}

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let outcome = run(End::Power, 6, 12, None);
    assert!(outcome.bad.is_empty(), "{outcome}");
    assert!(outcome.cuts > 0, "{outcome}");
}

/// The harness has to see a log whose flushes do nothing.
#[test]
fn a_log_that_is_not_flushed_is_found_out() {
    let outcome = run(End::Power, 20, 13, Some("sync,log,1,0,drop"));
    assert_eq!(outcome.bad.len(), 1, "{outcome}");
}
