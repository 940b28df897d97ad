//! Logs that versions 1 and 2 of the format wrote stay readable, and version 2 is what is written.
//!
//! A change of the format brings a new directory beside those in `tests/testdata/wal` and keeps them.

mod support;

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use kine2_wal::fake::FakeDisk;
use kine2_wal::{Disk, LogIndex, Origin, Position, Prepared, Recovery, Term, Wal};
use support::*;

fn kept(version: &str) -> PathBuf {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/testdata/wal");
    PathBuf::from(dir).join(version)
}

fn open_kept(version: &str) -> (FakeDisk, Wal<FakeDisk>, Recovery) {
    let disk = FakeDisk::new();
    for file in fs::read_dir(kept(version)).expect("it is kept") {
        let file = file.expect("it is readable");
        disk.put(
            &file.file_name().into_string().expect("it is text"),
            &fs::read(file.path()).expect("it is readable"),
        );
    }
    let (wal, recovery) = open(&disk);
    (disk, wal, recovery)
}

/// The term of the last entries of both logs, but for what a forced promotion adds.
fn newest(run: u32) -> Term {
    Term::new(1 << 32 | 6, run)
}

const ORIGIN: Origin = Origin(0xf0ce);

/// Every kind of record, a roll, a cut, a prepared segment, entries after a forced promotion.
fn write_log(disk: &FakeDisk) -> Wal<FakeDisk> {
    let (mut wal, _) = open(disk);
    let base = Position {
        index: LogIndex(1000),
        term: Term::new(4, 2),
        ..Position::START
    };
    wal.reset_to(base, Some(Bytes::from_static(b"first hard state")))
        .expect("the disk is good");
    for number in 1..=5 {
        wal.append(Term::new(5, 1), &payload(number, 30_000))
            .expect("the disk is good");
        wal.sync().expect("the disk is good");
    }
    wal.cut_below(LogIndex(1003)).expect("the disk is good");
    wal.truncate_after(LogIndex(1004))
        .expect("the disk is good");
    wal.set_hard_state(Bytes::from_static(b"second hard state"))
        .expect("the disk is good");
    for (run, payload) in [(1, &b""[..]), (2, b"last")] {
        let term = Term {
            origin: ORIGIN,
            ..newest(run)
        };
        wal.append(term, payload).expect("the disk is good");
    }
    wal.mark().expect("the disk is good");
    while wal.prepare_next().expect("the disk is good") == Prepared::More {}
    wal
}

#[track_caller]
fn check(version: &str, origin: Origin) -> Wal<FakeDisk> {
    let (_, wal, recovery) = open_kept(version);
    assert_eq!(
        recovery.hard_state.as_deref(),
        Some(&b"second hard state"[..])
    );
    assert_eq!(recovery.torn_tail, None);
    assert_eq!(recovery.base.index, LogIndex(1002));
    assert_eq!(recovery.last.index, LogIndex(1006));
    let last = newest(2);
    assert_eq!(recovery.last.term, Term { origin, ..last });
    let entries = all_entries(&wal);
    assert_chained(&wal, &entries);
    assert_eq!(entries[0].payload, payload(3, 30_000));
    assert_eq!(entries[1].payload, payload(4, 30_000));
    assert_eq!(
        (&entries[2].payload[..], &entries[3].payload[..]),
        (&b""[..], &b"last"[..])
    );
    wal
}

#[test]
fn a_log_of_version_1_is_read() {
    check("v1", Origin::NONE);
}

#[test]
fn a_log_of_version_2_is_read() {
    let mut wal = check("v2", ORIGIN);
    assert_eq!(wal.prepare_next().unwrap(), Prepared::Done);
}

#[test]
fn a_log_of_version_1_goes_on_in_a_segment_of_version_2_once_there_is_an_origin() {
    let (disk, mut wal, _) = open_kept("v1");
    let rolls = wal.stats().rolls;
    wal.append(newest(3), b"still the old one").unwrap();
    assert_eq!(wal.stats().rolls, rolls);
    let origin = ORIGIN;
    let forced = Term {
        epoch: 2 << 32 | 7,
        run: 1,
        origin,
    };
    wal.append(forced, b"the new one").unwrap();
    assert_eq!(wal.stats().rolls, rolls + 1);
    wal.sync().unwrap();
    drop(wal);
    let (_, recovery) = open(&disk);
    assert_eq!(recovery.last.term, forced);
}

#[test]
fn version_2_is_written_as_ever() {
    let disk = FakeDisk::new();
    drop(write_log(&disk));
    let (names, kept) = (disk.list().unwrap(), kept("v2"));
    if std::env::var_os("KINE2_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(&kept).unwrap();
        for name in &names {
            fs::write(kept.join(name), disk.bytes_of(name)).unwrap();
        }
    }
    assert_eq!(fs::read_dir(&kept).unwrap().count(), names.len());
    for name in &names {
        assert!(
            fs::read(kept.join(name)).unwrap() == disk.bytes_of(name),
            "{name} differs"
        );
    }
}
