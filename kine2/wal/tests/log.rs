//! What a log does while nothing fails.

mod support;

use bytes::Bytes;
use kine2_wal::fake::{FakeDisk, Operation};
use kine2_wal::{
    Chain, Disk, FileDisk, LogIndex, MAX_HARD_STATE_BYTES, MAX_PAYLOAD_BYTES, MIN_SEGMENT_BYTES,
    Position, Prepared, Term, Wal, WalError, WalOptions,
};
use support::*;

#[test]
fn a_new_log_is_empty_and_stays_so() {
    let disk = FakeDisk::new();
    for _ in 0..2 {
        let (wal, recovery) = open(&disk);
        assert_eq!(
            (recovery.base, recovery.last),
            (Position::START, Position::START)
        );
        assert_eq!((recovery.hard_state, recovery.torn_tail), (None, None));
        assert_eq!(
            (wal.first_index(), wal.last_index()),
            (LogIndex(1), LogIndex(0))
        );
        assert_eq!(wal.entries(range(1..9), 1).unwrap(), []);
        assert_eq!(wal.term_at(LogIndex(0)), Some(term(0)));
        assert_eq!(wal.term_at(LogIndex(1)), None);
    }
}

#[test]
fn entries_come_back_after_a_restart() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    let mut positions = vec![];
    for number in 1..=100 {
        positions.push(
            wal.append(term(number / 30), &payload(number, 10 * number))
                .unwrap(),
        );
    }
    assert_eq!(
        (wal.last_index(), wal.durable_index()),
        (LogIndex(100), LogIndex(0))
    );
    assert_eq!(wal.entries(range(1..101), 1 << 20).unwrap(), []);
    wal.sync().unwrap();
    assert_eq!(wal.durable_index(), LogIndex(100));

    for _ in 0..2 {
        let entries = all_entries(&wal);
        assert_chained(&wal, &entries);
        assert_eq!(entries.len(), 100);
        for (entry, position) in entries.iter().zip(&positions) {
            assert_eq!(entry.position, *position);
            let index = position.index;
            assert_eq!(entry.payload, payload(index.0, 10 * index.0));
            assert_eq!(wal.term_at(index), Some(position.term));
            assert_eq!(wal.position_at(index).unwrap().chain, position.chain);
        }
        let recovery;
        (wal, recovery) = open(&disk);
        assert_eq!((recovery.last, recovery.torn_tail), (positions[99], None));
    }
}

#[test]
fn one_batch_is_one_write_and_one_flush() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    let (writes, syncs) = (disk.count(Operation::Write), disk.count(Operation::Sync));
    let before = wal.stats();
    for number in 0..16 {
        wal.append(term(1), &payload(number, 1024)).unwrap();
    }
    wal.sync().unwrap();
    wal.sync().unwrap();
    assert_eq!(disk.count(Operation::Write), writes + 1);
    assert_eq!(disk.count(Operation::Sync), syncs + 1);
    let stats = wal.stats();
    assert_eq!((stats.entries, stats.syncs), (16, before.syncs + 1));
    assert_eq!(stats.record_bytes - before.record_bytes, 16 * (1024 + 48));
    assert!(stats.written_bytes - before.written_bytes < 16 * (1024 + 48) + 4096);
}

#[test]
fn a_prepared_roll_flushes_no_directory() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    while wal.prepare_next().unwrap() == Prepared::More {}
    let (files, flushes) = (
        disk.count(Operation::Create),
        disk.count(Operation::SyncDir),
    );
    for number in 0..2 {
        wal.append(term(1), &payload(number, 40_000)).unwrap();
        wal.sync().unwrap();
    }
    assert_eq!(wal.size_bytes(), 2 * MIN_SEGMENT_BYTES);
    assert_eq!(disk.count(Operation::Create), files);
    assert_eq!(disk.count(Operation::SyncDir), flushes);
    let (wal, recovery) = open(&disk);
    assert_eq!(recovery.last.index, LogIndex(2));
    assert_chained(&wal, &all_entries(&wal));
}

#[test]
fn equal_logs_have_equal_chains_however_they_lie() {
    let chain = |segment_bytes, batch: u64, seed| -> Chain {
        let options = WalOptions {
            segment_bytes,
            recycle_max: 0,
            seed,
        };
        let (mut wal, _) = Wal::open(FakeDisk::new(), options).unwrap();
        for number in 1..=200 {
            wal.append(term(3), &payload(number, 1500)).unwrap();
            if number % batch == 0 {
                wal.sync().unwrap();
            }
        }
        wal.sync().unwrap();
        wal.last().chain
    };
    assert_eq!(chain(MIN_SEGMENT_BYTES, 1, 1), chain(1 << 20, 64, 2));
}

#[test]
fn reading_is_bounded_by_bytes_but_gives_one() {
    let (mut wal, _) = open(&FakeDisk::new());
    for number in 1..=10 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
    }
    wal.sync().unwrap();
    let count = |range, max| wal.entries(range, max).unwrap().len();
    assert_eq!(count(range(1..11), 3000), 3);
    assert_eq!(count(range(1..11), 2999), 2);
    assert_eq!(count(range(1..11), 0), 1);
    assert_eq!(count(range(4..6), 1 << 20), 2);
    assert_eq!(count(range(10..99), 1 << 20), 1);
    assert_eq!(count(range(11..99), 1 << 20), 0);
}

#[test]
fn the_newest_hard_state_survives_rolls_and_cuts() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    for number in 1..=300_u64 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
        if number == 20 {
            wal.set_hard_state(Bytes::from_static(b"old")).unwrap();
            wal.set_hard_state(Bytes::from_static(b"new")).unwrap();
        }
        wal.sync().unwrap();
    }
    wal.cut_below(LogIndex(290)).unwrap();
    assert!(wal.first_index() > LogIndex(200));
    let (wal, recovery) = open(&disk);
    assert_eq!(recovery.hard_state.as_deref(), Some(&b"new"[..]));
    assert_eq!(wal.hard_state().map(|bytes| &bytes[..]), Some(&b"new"[..]));
}

#[test]
fn the_last_segments_with_so_many_bytes_are_found() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    for number in 1..=500 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
    }
    wal.sync().unwrap();
    assert_eq!(wal.first_of_last(u64::MAX), LogIndex(1));
    assert_eq!(wal.first_of_last(wal.size_bytes()), LogIndex(1));
    assert!(wal.first_of_last(0) > LogIndex(400));
    let half = wal.first_of_last(wal.size_bytes() / 2);
    wal.cut_below(half).unwrap();
    assert_eq!(wal.first_index(), half);
    assert!(wal.size_bytes() * 2 >= 500_000, "{}", wal.size_bytes());
}

#[test]
fn cutting_gives_back_whole_segments_and_keeps_the_index_asked_for() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    for number in 1..=500 {
        wal.append(term(number / 100), &payload(number, 1000))
            .unwrap();
    }
    wal.sync().unwrap();
    let size = wal.size_bytes();
    for keep in [1, 30, 100, 101, 350, 500, 501] {
        wal.cut_below(LogIndex(keep)).unwrap();
        for _ in 0..2 {
            let first = wal.first_index().0;
            assert!(first <= keep && keep - first < 70, "{first} {keep}");
            let entries = all_entries(&wal);
            assert_chained(&wal, &entries);
            assert_eq!(entries.len() as u64, 501 - first);
            assert_eq!(wal.term_at(LogIndex(first)), Some(term(first / 100)));
            assert_eq!(wal.term_at(LogIndex(first - 1)), Some(wal.base().term));
            if first > 1 {
                assert_eq!(wal.term_at(LogIndex(first - 2)), None);
                let cut = wal.entries(range(1..9), 1).unwrap_err();
                assert!(
                    matches!(cut, WalError::Cut { first: f, .. } if f.0 == first),
                    "{cut}"
                );
            }
            wal = open(&disk).0;
        }
    }
    assert!(wal.size_bytes() < size / 4);
    // Two files wait to be used again.
    let names = disk.list().unwrap();
    assert_eq!(
        names
            .iter()
            .filter(|name| name.ends_with(".recycle"))
            .count(),
        2,
        "{names:?}"
    );
}

#[test]
fn cut_segments_are_used_again() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    for number in 1..=2000 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
        wal.sync().unwrap();
        wal.cut_below(LogIndex(number)).unwrap();
    }
    // The first, and at most two before the first cut; all later ones are old files.
    assert!(
        disk.count(Operation::Create) <= 3,
        "{}",
        disk.count(Operation::Create)
    );
    let (wal, recovery) = open(&disk);
    assert_eq!(recovery.last.index, LogIndex(2000));
    assert_eq!(recovery.torn_tail, None);
    assert_chained(&wal, &all_entries(&wal));
}

#[test]
fn a_truncated_tail_is_replaced() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    for number in 1..=200 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
    }
    wal.sync().unwrap();
    // Below the segment's beginning.
    wal.truncate_after(LogIndex(10)).unwrap();
    assert_eq!(
        (wal.last_index(), wal.durable_index()),
        (LogIndex(10), LogIndex(10))
    );
    for number in 11..=30 {
        wal.append(term(2), &payload(1000 + number, 1000)).unwrap();
    }
    wal.sync().unwrap();
    wal.truncate_after(LogIndex(20)).unwrap();
    wal.truncate_after(LogIndex(20)).unwrap();
    wal.append(term(3), b"last").unwrap();
    wal.sync().unwrap();
    for _ in 0..2 {
        let entries = all_entries(&wal);
        assert_chained(&wal, &entries);
        let terms: Vec<u64> = entries
            .iter()
            .map(|entry| entry.position.term.epoch)
            .collect();
        assert_eq!(terms, [vec![1; 10], vec![2; 10], vec![3]].concat());
        assert_eq!(entries[10].payload, payload(1011, 1000));
        assert_eq!(wal.term_at(LogIndex(15)), Some(term(2)));
        assert_eq!(wal.term_at(LogIndex(22)), None);
        wal = open(&disk).0;
    }
    // The segment of the entries that were kept may go; the truncation below its base stays valid.
    wal.cut_below(LogIndex(20)).unwrap();
    assert_eq!(wal.first_index(), LogIndex(11));
    let (wal, recovery) = open(&disk);
    assert_eq!(recovery.base.index, LogIndex(10));
    assert_eq!(all_entries(&wal).len(), 11);
}

#[test]
fn truncation_stays_within_the_log() {
    let (mut wal, _) = open(&FakeDisk::new());
    for number in 1..=200 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
    }
    let beyond = wal.truncate_after(LogIndex(201)).unwrap_err();
    assert!(matches!(beyond, WalError::Beyond { .. }), "{beyond}");
    wal.cut_below(LogIndex(150)).unwrap();
    let cut = wal.truncate_after(LogIndex(5)).unwrap_err();
    assert!(matches!(cut, WalError::Cut { .. }), "{cut}");
    // To the very base: the log is empty and goes on.
    let base = wal.base();
    wal.truncate_after(base.index).unwrap();
    assert_eq!(wal.last(), base);
    let position = wal.append(term(2), b"x").unwrap();
    assert_eq!(position, base.extend(term(2), b"x"));
}

#[test]
fn a_reset_begins_the_log_after_a_snapshot() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    for number in 1..=200 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
    }
    wal.set_hard_state(Bytes::from_static(b"kept")).unwrap();
    let base = Position {
        index: LogIndex(7000),
        term: Term::new(5, 2),
        chain: Chain(77),
    };
    wal.reset_to(base, None).unwrap();
    assert_eq!((wal.base(), wal.last()), (base, base));
    assert_eq!(wal.size_bytes(), MIN_SEGMENT_BYTES);
    let (mut wal, recovery) = open(&disk);
    assert_eq!((recovery.base, recovery.last), (base, base));
    assert_eq!(recovery.hard_state.as_deref(), Some(&b"kept"[..]));
    let next = wal.append(base.term, b"next").unwrap();
    assert_eq!(next, base.extend(base.term, b"next"));
    // Back to an earlier position, with another hard state in the same step.
    wal.reset_to(Position::START, Some(Bytes::from_static(b"changed")))
        .unwrap();
    let (_, recovery) = open(&disk);
    assert_eq!(
        (recovery.base, recovery.last),
        (Position::START, Position::START)
    );
    assert_eq!(recovery.hard_state.as_deref(), Some(&b"changed"[..]));
}

#[test]
fn a_mark_costs_one_flush_until_something_follows() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    wal.append(term(1), b"x").unwrap();
    wal.mark().unwrap();
    let syncs = disk.count(Operation::Sync);
    wal.mark().unwrap();
    let (mut wal, _) = {
        drop(wal);
        assert_eq!(disk.count(Operation::Sync), syncs);
        open(&disk)
    };
    let syncs = disk.count(Operation::Sync);
    wal.mark().unwrap();
    assert_eq!(disk.count(Operation::Sync), syncs);
    wal.append(term(1), b"y").unwrap();
    wal.mark().unwrap();
    assert_eq!(disk.count(Operation::Sync), syncs + 2);
}

#[test]
fn what_is_too_large_is_refused_and_the_log_goes_on() {
    let (mut wal, _) = Wal::open(FakeDisk::new(), WalOptions::with_seed(1)).unwrap();
    let large = vec![1; MAX_PAYLOAD_BYTES + 1];
    let refused = wal.append(term(1), &large).unwrap_err();
    assert!(
        matches!(
            refused,
            WalError::TooLarge {
                max: MAX_PAYLOAD_BYTES,
                ..
            }
        ),
        "{refused}"
    );
    let large_state = Bytes::from(vec![1; MAX_HARD_STATE_BYTES + 1]);
    assert!(matches!(
        wal.set_hard_state(large_state.clone()),
        Err(WalError::TooLarge { .. })
    ));
    assert!(matches!(
        wal.reset_to(wal.base(), Some(large_state)),
        Err(WalError::TooLarge { .. })
    ));
    // More than a batch: what does not fit goes out at once.
    for _ in 0..5 {
        wal.append(term(1), &large[1..]).unwrap();
    }
    wal.sync().unwrap();
    assert_eq!(wal.entries(range(1..9), usize::MAX).unwrap().len(), 5);

    // Small segments take small records: also behind the largest hard state.
    let (mut wal, _) = open(&FakeDisk::new());
    let max = small().max_payload_bytes();
    wal.set_hard_state(Bytes::from(vec![1; MAX_HARD_STATE_BYTES]))
        .unwrap();
    assert!(matches!(
        wal.append(term(1), &vec![1; max + 1]),
        Err(WalError::TooLarge { .. })
    ));
    wal.append(term(1), &vec![1; max]).unwrap();
    wal.append(term(1), &vec![1; max]).unwrap();
    wal.sync().unwrap();
    assert_eq!(all_entries(&wal).len(), 2);
}

#[test]
fn wrong_options_are_named() {
    for bytes in [0, 4096, MIN_SEGMENT_BYTES + 1, 2 << 30] {
        let options = WalOptions {
            segment_bytes: bytes,
            ..small()
        };
        let refused = Wal::open(FakeDisk::new(), options).unwrap_err().to_string();
        assert!(
            refused.contains(&bytes.to_string()) && refused.contains("65536"),
            "{refused}"
        );
    }
}

#[test]
fn another_segment_size_counts_from_the_next_segment_on() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    for number in 1..=200 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
    }
    wal.sync().unwrap();
    wal.cut_below(LogIndex(150)).unwrap();
    while wal.prepare_next().unwrap() == Prepared::More {}
    let old = wal.size_bytes();
    drop(wal);
    let options = WalOptions {
        segment_bytes: 1 << 20,
        ..small()
    };
    let (mut wal, recovery) = Wal::open(disk.clone(), options).unwrap();
    assert_eq!(recovery.last.index, LogIndex(200));
    for number in 201..=300 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
    }
    wal.sync().unwrap();
    assert_eq!(wal.size_bytes(), old + (1 << 20));
    let (wal, recovery) = open(&disk);
    assert_eq!(recovery.last.index, LogIndex(300));
    assert_chained(&wal, &all_entries(&wal));
}

#[test]
fn real_files_do_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wal");
    let (mut wal, _) = Wal::open(FileDisk::open(&path).unwrap(), small()).unwrap();
    wal.set_hard_state(Bytes::from_static(b"hard")).unwrap();
    for number in 1..=300 {
        wal.append(term(1), &payload(number, 1000)).unwrap();
        if number % 7 == 0 {
            wal.sync().unwrap();
        }
    }
    wal.sync().unwrap();
    wal.cut_below(LogIndex(200)).unwrap();
    while wal.prepare_next().unwrap() == Prepared::More {}
    let last = wal.last();
    assert!(FileDisk::open(&path).is_err(), "the directory is locked");
    drop(wal);
    let (wal, recovery) = Wal::open(FileDisk::open(&path).unwrap(), small()).unwrap();
    assert_eq!((recovery.last, recovery.torn_tail), (last, None));
    assert_eq!(recovery.hard_state.as_deref(), Some(&b"hard"[..]));
    let entries = wal
        .entries(wal.first_index()..LogIndex(301), usize::MAX)
        .unwrap();
    assert_eq!(entries.last().unwrap().position, last);
}
