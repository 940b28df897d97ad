//! The inputs the fuzzer found worth keeping.

use std::fs;

#[test]
fn the_seeds_of_the_record_fuzzer_pass() {
    let seeds = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/testdata/fuzz/own_record"
    );
    let mut count = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        kine2_replication::fuzz::own_record(&fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} seeds in {seeds}");
}
