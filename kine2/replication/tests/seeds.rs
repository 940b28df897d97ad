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

/// A record that each version wrote is among the seeds.
#[test]
fn records_of_all_versions_are_read() {
    let seeds = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/testdata/fuzz/own_record"
    );
    let seeds = fs::read_dir(seeds).unwrap();
    let seeds: Vec<_> = seeds
        .map(|seed| fs::read(seed.unwrap().path()).unwrap())
        .collect();
    for version in 2..=4 {
        let whole = |bytes: &Vec<u8>| {
            let read = kine2_replication::Durable::decode(bytes).ok();
            bytes[0] == version && read.is_some_and(|durable| durable.hard.is_some())
        };
        assert!(seeds.iter().any(whole), "version {version}");
    }
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
