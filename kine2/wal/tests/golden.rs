//! A log that version 1 of the format wrote stays readable, and version 1 is still what is written.
//!
//! A change of the format brings a new directory beside `tests/testdata/wal/v1` and keeps this one.

mod support;

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use kine2_wal::fake::FakeDisk;
use kine2_wal::{Disk, LogIndex, Position, Prepared, Term, Wal};
use support::*;

fn v1() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/testdata/wal/v1").into()
}

/// Every kind of record, a roll, a cut, a prepared segment.
fn write_log(disk: &FakeDisk) -> Wal<FakeDisk> {
    let (mut wal, _) = open(disk);
    let base = Position {
        index: LogIndex(1000),
        term: Term { epoch: 4, run: 2 },
        ..Position::START
    };
    wal.reset_to(base, Some(Bytes::from_static(b"first hard state")))
        .expect("the disk is good");
    for number in 1..=5 {
        wal.append(Term { epoch: 5, run: 1 }, &payload(number, 30_000))
            .expect("the disk is good");
        wal.sync().expect("the disk is good");
    }
    wal.cut_below(LogIndex(1003)).expect("the disk is good");
    wal.truncate_after(LogIndex(1004))
        .expect("the disk is good");
    wal.set_hard_state(Bytes::from_static(b"second hard state"))
        .expect("the disk is good");
    wal.append(
        Term {
            epoch: 1 << 32 | 6,
            run: 1,
        },
        b"",
    )
    .expect("the disk is good");
    wal.append(
        Term {
            epoch: 1 << 32 | 6,
            run: 2,
        },
        b"last",
    )
    .expect("the disk is good");
    wal.mark().expect("the disk is good");
    while wal.prepare_next().expect("the disk is good") == Prepared::More {}
    wal
}

#[test]
fn a_log_of_version_1_is_read() {
    let disk = FakeDisk::new();
    for file in fs::read_dir(v1()).unwrap() {
        let file = file.unwrap();
        disk.put(
            &file.file_name().into_string().unwrap(),
            &fs::read(file.path()).unwrap(),
        );
    }
    let (mut wal, recovery) = open(&disk);
    assert_eq!(
        recovery.hard_state.as_deref(),
        Some(&b"second hard state"[..])
    );
    assert_eq!(recovery.torn_tail, None);
    assert_eq!(recovery.base.index, LogIndex(1002));
    assert_eq!(recovery.last.index, LogIndex(1006));
    assert_eq!(
        recovery.last.term,
        Term {
            epoch: 1 << 32 | 6,
            run: 2
        }
    );
    let entries = all_entries(&wal);
    assert_chained(&wal, &entries);
    assert_eq!(entries[0].payload, payload(3, 30_000));
    assert_eq!(entries[1].payload, payload(4, 30_000));
    assert_eq!(
        (&entries[2].payload[..], &entries[3].payload[..]),
        (&b""[..], &b"last"[..])
    );
    assert_eq!(wal.prepare_next().unwrap(), Prepared::Done);
}

#[test]
fn version_1_is_written_as_ever() {
    let disk = FakeDisk::new();
    drop(write_log(&disk));
    let names = disk.list().unwrap();
    if std::env::var_os("KINE2_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(v1()).unwrap();
        for name in &names {
            fs::write(v1().join(name), disk.bytes_of(name)).unwrap();
        }
    }
    assert_eq!(fs::read_dir(v1()).unwrap().count(), names.len());
    for name in &names {
        assert!(
            fs::read(v1().join(name)).unwrap() == disk.bytes_of(name),
            "{name} differs"
        );
    }
}
