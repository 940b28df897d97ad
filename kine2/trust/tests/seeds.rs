//! The inputs the fuzzers found worth keeping.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;

fn run(target: &str, check: fn(&[u8])) {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/testdata/fuzz/");
    let mut count = 0;
    for seed in fs::read_dir(format!("{seeds}{target}")).unwrap() {
        check(&fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} seeds in {seeds}{target}");
}

#[test]
fn the_seeds_of_the_code_fuzzer_pass() {
    run("code", kine2_trust::fuzz::code);
}

#[test]
fn the_seeds_of_the_stranger_fuzzer_pass() {
    run("stranger", kine2_trust::fuzz::stranger);
}
