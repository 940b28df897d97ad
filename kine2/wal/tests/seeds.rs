//! The inputs the fuzzers found worth keeping.

use std::fs;

#[test]
fn the_seeds_of_the_record_fuzzer_pass() {
    let seeds = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/testdata/fuzz/wal_record"
    );
    let mut count = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        kine2_wal::fuzz::wal_record(&fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} seeds in {seeds}");
}
