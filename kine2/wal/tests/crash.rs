//! Power cuts, failed operations and full disks: what was synced is there, and nothing else than what
//! was staged.
//!
//! `KINE2_CRASH_RUNS` asks for more runs of the random schedules; a failing run prints its seed.

mod support;

use std::io::ErrorKind;

use kine2_wal::fake::{FakeDisk, Operation};
use kine2_wal::{LogIndex, Prepared, Wal, WalError};
use support::driver::{Dice, Driver, power_cuts, run_until_cut};
use support::*;

fn runs(few: u64) -> u64 {
    std::env::var("KINE2_CRASH_RUNS").map_or(few, |runs| runs.parse().expect("a number of runs"))
}

/// Tells the seed of a run that fails.
struct Seed(&'static str, u64);

#[expect(
    clippy::print_stderr,
    reason = "what a failed run needs to be run again"
)]
impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: seed {}", self.0, self.1);
        }
    }
}

#[test]
fn the_power_is_cut_at_every_operation_of_a_workload() {
    const STEPS: u64 = 350;
    // A workload that rolls, recycles, cuts, truncates and resets.
    let whole = FakeDisk::new();
    let mut driver = Driver::begin(&whole, 11).unwrap();
    driver.steps(STEPS).unwrap();
    let stats = driver.wal.stats();
    assert!(
        stats.rolls >= 10 && whole.count(Operation::Rename) >= 12,
        "{stats:?}"
    );
    assert!(
        whole.count(Operation::Create) < stats.rolls,
        "some files were used again"
    );

    for cut in 0..whole.changes() {
        let before = FakeDisk::new();
        before.cut_power_after(cut);
        let staged = run_until_cut(&before, 11, STEPS);
        for seed in 0..runs(6) {
            let _seed = Seed("crash", cut << 32 | seed);
            let disk = before.fork();
            disk.crash(seed);
            let mut driver = Driver::reopen(&disk, staged.clone(), seed);
            // It goes on, and a second cut, in the middle of the recovery or after it, does no harm.
            driver.steps(10).unwrap();
            driver.sync().unwrap();
            let model = driver.model;
            disk.cut_power_after(seed);
            let _ = try_open(&disk);
            disk.crash(seed + 1000);
            Driver::reopen(&disk, model, seed);
        }
    }
}

#[test]
fn the_power_is_cut_again_and_again() {
    for seed in 0..runs(150) {
        let _seed = Seed("again", seed);
        power_cuts(seed);
    }
}

#[test]
fn any_failed_operation_is_final_and_loses_nothing_synced() {
    let operations = [
        Operation::Create,
        Operation::Open,
        Operation::Rename,
        Operation::Remove,
        Operation::SyncDir,
        Operation::Write,
        Operation::Sync,
    ];
    for seed in 0..runs(40) {
        for operation in operations {
            let _seed = Seed("failure", seed);
            let mut dice = Dice(seed);
            let disk = FakeDisk::new();
            let mut driver = Driver::begin(&disk, seed).unwrap();
            disk.fail_nth(operation, 1 + dice.below(40), ErrorKind::Other);
            let Err(error) = driver.steps(400) else {
                continue;
            };
            assert!(matches!(error, WalError::Io { .. }), "{error}");
            assert_refuses_all(&mut driver.wal);
            // Killed and started again: the kernel still shows what the flush lost.
            let model = driver.model;
            let mut driver = Driver::reopen(&disk, model, seed);
            // What was found then, and what comes after it, survives a power cut.
            driver.model.check(&driver.wal);
            driver.steps(seed % 60).unwrap();
            driver.sync().unwrap();
            disk.crash(seed);
            Driver::reopen(&disk, driver.model, seed);
        }
    }
}

fn assert_refuses_all(wal: &mut Wal<FakeDisk>) {
    let index = wal.last_index();
    let refused = [
        wal.append(wal.last().term, b"x").map(drop),
        wal.sync(),
        wal.mark(),
        wal.set_hard_state(bytes::Bytes::new()),
        wal.truncate_after(index),
        wal.cut_below(index),
        wal.reset_to(wal.last(), None),
        wal.prepare_next().map(drop),
        wal.entries(range(1..9), 1).map(drop),
        wal.position_at(index).map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(WalError::Failed { .. })), "{result:?}");
    }
}

#[test]
fn a_failed_flush_is_final_though_the_next_one_would_succeed() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    wal.append(term(1), b"first").unwrap();
    wal.sync().unwrap();
    wal.append(term(1), b"second").unwrap();
    disk.fail_nth(Operation::Sync, 1, ErrorKind::Other);
    let error = wal.sync().unwrap_err().to_string();
    assert!(error.contains("flush 0000000000000001.wal"), "{error}");
    let later = wal.sync().unwrap_err().to_string();
    assert!(later.contains("flush 0000000000000001.wal"), "{later}");
    assert_refuses_all(&mut wal);
}

#[test]
fn a_short_write_is_final() {
    for bytes in [0, 1, 47, 48, 100, 5000] {
        let disk = FakeDisk::new();
        let (mut wal, _) = open(&disk);
        wal.append(term(1), b"first").unwrap();
        wal.sync().unwrap();
        wal.append(term(1), &payload(2, 5000)).unwrap();
        disk.short_nth_write(1, bytes);
        wal.sync().unwrap_err();
        assert_refuses_all(&mut wal);
        let (wal, recovery) = open(&disk);
        assert_eq!(wal.last_index(), LogIndex(1));
        assert_eq!(recovery.torn_tail.is_some(), bytes > 0);
    }
}

#[test]
fn a_failed_read_is_told_and_not_taken_for_the_end() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    for number in 1..=100 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
    }
    wal.sync().unwrap();
    disk.fail_nth(Operation::Read, 1, ErrorKind::Other);
    assert!(matches!(
        wal.entries(range(1..9), 1),
        Err(WalError::Io {
            operation: "read",
            ..
        })
    ));
    // A read changes nothing: the log goes on.
    assert_eq!(all_entries(&wal).len(), 100);
    let reads = disk.count(Operation::Read);
    open(&disk);
    for nth in 1..=disk.count(Operation::Read) - reads {
        disk.fail_nth(Operation::Read, nth, ErrorKind::Other);
        assert!(matches!(
            try_open(&disk),
            Err(WalError::Io {
                operation: "read",
                ..
            })
        ));
    }
    assert_eq!(open(&disk).1.last.index, LogIndex(100));
}

#[test]
fn a_full_disk_is_noticed_while_there_is_room_in_the_segment() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    disk.limit_bytes(Some(100_000));
    let full = wal.prepare_next().unwrap_err();
    assert!(full.is_no_space(), "{full}");
    assert_eq!(wal.preparation_bytes(), wal.segment_bytes());
    assert_eq!(
        kine2_wal::Disk::list(&disk).unwrap(),
        ["0000000000000001.wal"]
    );
    for index in 1..=50 {
        wal.append(term(1), &payload(index, 1000)).unwrap();
        wal.sync().unwrap();
    }
    // There is room again.
    disk.limit_bytes(None);
    while wal.prepare_next().unwrap() == Prepared::More {}
    assert_eq!(wal.preparation_bytes(), 0);
    wal.append(term(1), &payload(51, 44_000)).unwrap();
    wal.sync().unwrap();
    let (wal, recovery) = open(&disk);
    assert_eq!(recovery.last.index, LogIndex(51));
    assert_eq!(all_entries(&wal).len(), 51);
}

#[test]
fn a_disk_that_is_full_at_a_roll_ends_the_work_and_loses_nothing() {
    for capacity in (MIN_CAPACITY..2 * MIN_CAPACITY).step_by(7919) {
        let disk = FakeDisk::new();
        let mut driver = Driver::begin(&disk, capacity).unwrap();
        disk.limit_bytes(Some(capacity));
        let Err(error) = driver.steps(1000) else {
            panic!("it rolls within so many steps");
        };
        if driver.wal.sync().is_err() {
            assert_refuses_all(&mut driver.wal);
        }
        assert!(error.is_no_space(), "{error}");
        let model = driver.model;
        disk.limit_bytes(None);
        Driver::reopen(&disk, model, 1).steps(100).unwrap();
    }
}

const MIN_CAPACITY: u64 = kine2_wal::MIN_SEGMENT_BYTES;
