//! The inputs the fuzzers found worth keeping.

use std::fs;

#[test]
fn the_seeds_of_the_config_fuzzer_pass() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/testdata/fuzz/config");
    let mut count = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        kine2::fuzz::config(&fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} seeds in {seeds}");
}
