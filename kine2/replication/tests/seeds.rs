//! The inputs the fuzzer found worth keeping.

use std::fs;

#[test]
fn the_seeds_of_the_quarantine_fuzzer_pass() {
    let seeds = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/testdata/fuzz/quarantine"
    );
    let mut count = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        kine2_replication::fuzz::quarantine(&fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 3, "{count} seeds in {seeds}");
}

/// One of the records that version 2 wrote is among the seeds.
#[test]
fn a_record_of_version_2_is_read() {
    let seeds = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/testdata/fuzz/own_record"
    );
    let whole = |bytes: Vec<u8>| {
        let read = kine2_replication::Durable::decode(&bytes).ok();
        bytes[0] == 2 && read.is_some_and(|durable| durable.hard.is_some())
    };
    let mut seeds = fs::read_dir(seeds).unwrap();
    assert!(seeds.any(|seed| whole(fs::read(seed.unwrap().path()).unwrap())));
}

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
