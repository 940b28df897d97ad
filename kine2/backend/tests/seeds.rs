//! The inputs the fuzzers found worth keeping.

use std::fs;

#[test]
fn the_seeds_of_the_import_fuzzer_pass() {
    let seeds = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/testdata/fuzz/state_import"
    );
    let mut count = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        kine2_backend::fuzz::state_import(&fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} seeds in {seeds}");
}
