//! The inputs the fuzzers found worth keeping.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;

fn run(target: &str, check: fn(&[u8])) {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/testdata/fuzz/");
    let mut count = 0;
    for seed in fs::read_dir(format!("{seeds}{target}")).unwrap() {
        check(&fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} seeds in {seeds}{target}");
}

#[test]
fn the_seeds_of_the_state_fuzzer_pass() {
    run("witness_state", kine2_witness::fuzz::state);
}

#[test]
fn the_seeds_of_the_message_fuzzer_pass() {
    run("witness_message", kine2_witness::fuzz::message);
}
