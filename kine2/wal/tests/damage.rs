//! What is cut, what is refused, and that nothing wrong is ever read in silence.

mod support;

use bytes::Bytes;
use kine2_wal::fake::FakeDisk;
use kine2_wal::{
    Disk, Entry, LogIndex, MIN_SEGMENT_BYTES, Prepared, Recovery, Wal, WalError, WalOptions,
};
use support::*;

const FIRST: &str = "0000000000000001.wal";
const SECOND: &str = "0000000000000002.wal";
const THIRD: &str = "0000000000000003.wal";

/// Where the records of a segment end that has only zeros behind them.
fn end_of_records(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| (last + 1).next_multiple_of(8))
}

fn assert_damaged(disk: &FakeDisk, in_file: &str) -> (u64, String) {
    let before = disk.changes();
    let error = try_open(disk).expect_err("damage is refused");
    let WalError::Damaged { file, offset, what } = error else {
        panic!("{error}");
    };
    assert_eq!(file, in_file, "{what}");
    assert_eq!(
        disk.changes(),
        before,
        "a log that is refused is left as it is"
    );
    (offset, what)
}

/// Some entries, synced one by one.
fn append(wal: &mut Wal<FakeDisk>, numbers: std::ops::RangeInclusive<u64>, bytes: u64) {
    for number in numbers {
        wal.append(term(1), &payload(number, bytes))
            .expect("the disk is good");
        wal.sync().expect("the disk is good");
    }
}

/// A log of three segments with a prepared fourth.
fn three_segments() -> (FakeDisk, Vec<Entry>) {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1..=5, 30_000);
    while wal.prepare_next().expect("the disk is good") == Prepared::More {}
    assert_eq!(wal.size_bytes(), 3 * MIN_SEGMENT_BYTES);
    let entries = all_entries(&wal);
    (disk, entries)
}

/// A disk whose first segment was used before, with 2 synced entries and a batch of 3 behind them:
/// the segment's name, its bytes before and after that batch, and where the batch begins and ends.
fn with_last_batch(recycled: bool) -> (FakeDisk, String, Vec<u8>, Vec<u8>, usize, usize) {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    if recycled {
        append(&mut wal, 1..=200, 1000);
        wal.cut_below(LogIndex(201)).expect("the disk is good");
        wal.reset_to(kine2_wal::Position::START, None)
            .expect("the disk is good");
    }
    append(&mut wal, 1..=1, 300);
    append(&mut wal, 2..=2, 2888);
    let names = disk.list().expect("the disk is good");
    let name = names
        .iter()
        .rfind(|name| name.ends_with(".wal"))
        .expect("the disk is good")
        .clone();
    let before = disk.bytes_of(&name);
    assert_eq!(before[60_000..].iter().all(|byte| *byte == 0), !recycled);
    for number in 3..=5 {
        wal.append(term(1), &payload(number, 700))
            .expect("the disk is good");
    }
    wal.sync().expect("the disk is good");
    let after = disk.bytes_of(&name);
    // The base record, two entries, then the batch; its first entry ends with the page, so that
    // what follows is not cleared by what is written to that page.
    let start = 4096 + 56 + (48 + 304) + (48 + 2888);
    assert_eq!(start + 48 + 704, 8192);
    (disk, name, before, after, start, start + 3 * (48 + 704))
}

#[test]
fn the_last_batch_is_torn_at_every_byte() {
    for recycled in [false, true] {
        let (disk, name, before, after, start, end) = with_last_batch(recycled);
        assert_eq!(before[..start], after[..start]);
        for cut in start..=end {
            // What was written first survives; what was written last survives; all but a sector.
            let head = [&after[..cut], &before[cut..]].concat();
            let tail = [&before[..cut], &after[cut..]].concat();
            let mut hole = after.clone();
            let sector = cut / 512 * 512..(cut / 512 + 1) * 512;
            hole[sector.clone()].copy_from_slice(&before[sector.clone()]);
            for (kind, bytes) in [head, tail, hole].into_iter().enumerate() {
                let good = |at: &usize| bytes[*at..*at + 752] == after[*at..*at + 752];
                let whole = (start..end).step_by(752).take_while(good).count() as u64;
                disk.put(&name, &bytes);
                let (mut wal, recovery) = open(&disk);
                let situation = (recycled, cut - start, kind);
                assert_eq!(wal.last_index().0, 2 + whole, "{situation:?}");
                if bytes[start..end] == before[start..end] {
                    assert_eq!(recovery.torn_tail, None, "{situation:?}");
                }
                if let Some(torn) = recovery.torn_tail {
                    assert_eq!(
                        (&torn.file, torn.offset),
                        (&name, start as u64 + 752 * whole)
                    );
                    assert!(torn.bytes > 0 && torn.bytes <= 4096 + 3 * 752);
                } else {
                    // The next record's tag was not there.
                    let tag = start + 752 * usize::try_from(whole).unwrap() + 8;
                    assert!(whole == 3 || bytes[tag..tag + 2] != after[tag..tag + 2]);
                }
                // Nothing of the torn batch comes back behind what is written now.
                wal.append(term(1), &payload(9, 700)).unwrap();
                wal.sync().unwrap();
                let (wal, recovery) = open(&disk);
                assert_eq!((wal.last_index().0, recovery.torn_tail), (3 + whole, None));
                let entries = all_entries(&wal);
                assert_chained(&wal, &entries);
                assert_eq!(entries.last().unwrap().payload, payload(9, 700));
            }
        }
    }
}

#[test]
fn a_batch_written_again_at_the_same_place_does_not_revive_the_torn_one() {
    // The same entries again, so even the chain fits: only that the end was cleared keeps 4 and 5 out.
    let (disk, name, before, after, start, end) = with_last_batch(true);
    let bytes = [
        &after[..start],
        &before[start..start + 512],
        &after[start + 512..],
    ]
    .concat();
    assert_eq!(bytes[start + 752..end], after[start + 752..end]);
    disk.put(&name, &bytes);
    let (mut wal, recovery) = open(&disk);
    assert_eq!(
        (wal.last_index().0, recovery.torn_tail.is_some()),
        (2, true)
    );
    wal.append(term(1), &payload(3, 700)).unwrap();
    wal.sync().unwrap();
    let (wal, recovery) = open(&disk);
    assert_eq!((wal.last_index().0, recovery.torn_tail), (3, None));
}

#[test]
fn a_first_batch_written_again_does_not_revive_the_torn_one() {
    let (disk, _) = three_segments();
    let fourth = "0000000000000004.wal";
    let (mut wal, _) = open(&disk);
    append(&mut wal, 6..=6, 30_000);
    wal.append(term(1), &payload(7, 32_664)).unwrap();
    wal.append(term(1), &payload(8, 300)).unwrap();
    assert_eq!(4096 + 56 + 48 + 32_664, 9 * 4096);
    wal.sync().unwrap();
    let mut bytes = disk.bytes_of(fourth);
    bytes[4096..4608].fill(0);
    disk.put(fourth, &bytes);
    let (mut wal, recovery) = open(&disk);
    assert_eq!(
        (wal.last_index().0, recovery.torn_tail.is_some()),
        (6, true)
    );
    append(&mut wal, 7..=7, 32_664);
    let (wal, recovery) = open(&disk);
    assert_eq!((wal.last_index().0, recovery.torn_tail), (7, None));
}

/// Opens a log with something wrong in it. Either that is told, or the entries are those that were
/// written, but for some of the last batch.
fn assert_never_wrong(disk: &FakeDisk, entries: &[Entry], sure: u64, hard_state: &Bytes) -> bool {
    let (wal, recovery) = match try_open(disk) {
        Ok(opened) => opened,
        Err(WalError::Damaged { .. } | WalError::UnsupportedVersion { .. }) => return true,
        Err(error) => panic!("{error}"),
    };
    let last = wal.last_index().0;
    assert!(
        last >= sure,
        "entry {last} is the last, up to {sure} all are sure"
    );
    let count = usize::try_from(last).expect("few entries");
    assert_eq!(all_entries(&wal), entries[..count]);
    assert_eq!(recovery.hard_state.as_ref(), Some(hard_state));
    assert!(recovery.torn_tail.is_some() || count == entries.len());
    false
}

#[test]
fn every_single_flipped_bit_is_refused_or_harmless() {
    let hard_state = Bytes::from_static(b"hard state");
    for marked in [false, true] {
        let disk = FakeDisk::new();
        let (mut wal, _) = open(&disk);
        wal.set_hard_state(hard_state.clone()).unwrap();
        append(&mut wal, 1..=3, 40);
        wal.append(term(1), &payload(4, 20)).unwrap();
        wal.truncate_after(LogIndex(3)).unwrap();
        append(&mut wal, 4..=4, 40);
        wal.append(term(2), &payload(5, 20)).unwrap();
        wal.append(term(2), &payload(6, 20)).unwrap();
        wal.sync().unwrap();
        let entries = all_entries(&wal);
        let sure = if marked { 6 } else { 4 };
        if marked {
            wal.mark().unwrap();
        }
        let image = disk.snapshot();
        let end = end_of_records(&disk.bytes_of(FIRST)) as u64;
        let mut refused = 0;
        for byte in (0..64)
            .chain(4096..end + 16)
            .chain([64, 4095, 8191, 8192, 65535])
        {
            for bit in 0..8 {
                disk.restore(&image);
                disk.flip_bit(FIRST, byte, bit);
                refused += u64::from(assert_never_wrong(&disk, &entries, sure, &hard_state));
            }
        }
        // All of the header, and all of the records but the last batch.
        let last_batch = if marked { 48 } else { 2 * (48 + 24) };
        assert_eq!(refused, 8 * (64 + end - 4096 - last_batch));
    }
}

#[test]
fn a_flipped_bit_in_an_earlier_segment_is_refused_or_harmless() {
    let (disk, entries) = three_segments();
    // The second one's base carries the same hard state: none.
    let image = disk.snapshot();
    for byte in (0..64)
        .chain(4096..4096 + 200)
        .chain((4200..63_000).step_by(997))
    {
        for bit in [0, 5] {
            disk.restore(&image);
            disk.flip_bit(FIRST, byte, bit);
            match try_open(&disk) {
                Err(WalError::Damaged { file, .. }) => assert_eq!(file, FIRST),
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("byte {byte}"),
            }
        }
    }
    // Behind the records, nothing counts.
    disk.restore(&image);
    disk.flip_bit(FIRST, 65_000, 3);
    assert_eq!(all_entries(&open(&disk).0), entries);
}

#[test]
fn a_page_lost_in_the_middle_is_damage_not_a_torn_tail() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1..=40, 1000);
    let good = disk.bytes_of(FIRST);
    for lost in [4096, 8192, 20_480, 36_864] {
        let mut bytes = good.clone();
        bytes[lost..lost + 4096].fill(0);
        disk.put(FIRST, &bytes);
        let (offset, what) = assert_damaged(&disk, FIRST);
        assert!(offset <= lost as u64 && what.contains("was written after this was flushed"));
    }
}

#[test]
fn all_of_the_records_lost_is_damage_while_one_is_left() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1..=50, 1000);
    let mut bytes = disk.bytes_of(FIRST);
    bytes[4096..50_000].fill(0);
    disk.put(FIRST, &bytes);
    assert_eq!(assert_damaged(&disk, FIRST).0, 4096);
}

#[test]
fn the_end_of_an_earlier_segment_is_never_a_torn_tail() {
    let (disk, _) = three_segments();
    let mut bytes = disk.bytes_of(SECOND);
    let end = end_of_records(&bytes);
    bytes[end - 512..].fill(0);
    disk.put(SECOND, &bytes);
    let (offset, what) = assert_damaged(&disk, SECOND);
    assert_eq!(offset, 4096 + 56 + 30_048);
    assert!(what.contains(THIRD), "{what}");
}

#[test]
fn missing_and_foreign_segments_are_named() {
    let (disk, _) = three_segments();
    let image = disk.snapshot();
    // The first is simply cut, as far as the log can know; the base tells.
    disk.delete(FIRST);
    let (_, recovery) = open(&disk);
    assert_eq!(recovery.base.index, LogIndex(2));
    for (missing, told) in [(SECOND, SECOND), (THIRD, THIRD)] {
        disk.restore(&image);
        disk.delete(missing);
        let (_, what) = assert_damaged(&disk, told);
        assert!(what.contains("missing"), "{what}");
    }
    // Another log's segment, one copied to another number, one that was used twice.
    let other = FakeDisk::new();
    let (mut wal, _) = Wal::open(other.clone(), WalOptions { seed: 9, ..small() }).unwrap();
    append(&mut wal, 1..=5, 30_000);
    disk.restore(&image);
    disk.put(SECOND, &other.bytes_of(SECOND));
    let (_, what) = assert_damaged(&disk, SECOND);
    assert!(what.contains("behind another"), "{what}");
    disk.restore(&image);
    disk.put(THIRD, &disk.bytes_of(SECOND));
    let (offset, what) = assert_damaged(&disk, THIRD);
    assert_eq!(
        (offset, what.as_str()),
        (24, "the header is that of segment 0000000000000002")
    );

    for foreign in [
        "notes.txt",
        "1.wal",
        "000000000000000A.wal",
        "0000000000000001.wal.bak",
    ] {
        disk.restore(&image);
        disk.put(foreign, b"x");
        let error = try_open(&disk).unwrap_err();
        assert!(
            matches!(&error, WalError::ForeignFile { file } if file == foreign),
            "{error}"
        );
    }
}

#[test]
fn a_new_log_uses_no_old_files() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1..=200, 1000);
    wal.cut_below(LogIndex(200)).unwrap();
    drop(wal);
    for name in disk.list().unwrap() {
        if name.ends_with(".wal") {
            disk.delete(&name);
        }
    }
    assert_eq!(disk.list().unwrap()[0], "0000000000000001.recycle");
    // It counts from 1 again, and with this seed the ids are the same.
    let (_, recovery) = open(&disk);
    assert_eq!(recovery.last, kine2_wal::Position::START);
    assert_eq!(disk.list().unwrap(), [FIRST]);
    assert!(disk.bytes_of(FIRST)[8192..].iter().all(|byte| *byte == 0));
}

#[test]
fn bad_files_are_refused() {
    let (disk, _) = three_segments();
    let fourth = "0000000000000004.wal";
    let image = disk.snapshot();
    for name in [FIRST, SECOND, THIRD, fourth] {
        let good = disk.bytes_of(name);
        let mut garbage = good.clone();
        garbage[..4096].fill(0x77);
        let mut zeros = good.clone();
        zeros.fill(0);
        let bad: [(&str, &[u8]); 7] = [
            ("0 bytes", &[]),
            ("10 bytes", &good[..10]),
            ("not 65536", &good[..5000]),
            ("not 65536", &good[..65_535]),
            ("not 65536", &[&good[..], &[0]].concat()),
            ("magic", &garbage),
            ("magic", &zeros),
        ];
        for (told, bytes) in bad {
            disk.put(name, bytes);
            let (_, what) = assert_damaged(&disk, name);
            assert!(what.contains(told), "{what}");
            disk.restore(&image);
        }
    }
}

#[test]
fn a_newer_format_is_told_as_such() {
    let (disk, _) = three_segments();
    let mut bytes = disk.bytes_of(SECOND);
    bytes[8] = 3;
    let checksum = crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    disk.put(SECOND, &bytes);
    let error = try_open(&disk).unwrap_err();
    assert!(
        matches!(
            error,
            WalError::UnsupportedVersion {
                version: 3,
                supported: 2,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn an_entry_that_goes_bad_while_running_is_told_when_read() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1..=3, 100);
    disk.flip_bit(FIRST, 4096 + 56 + 152 + 60, 0);
    let error = wal.entries(range(1..4), 1 << 20).unwrap_err();
    assert!(
        matches!(error, WalError::Damaged { offset: 4304, .. }),
        "{error}"
    );
}

#[test]
fn an_old_image_is_a_shorter_log_which_only_others_can_tell() {
    let disk = FakeDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1..=5, 100);
    let image = disk.snapshot();
    append(&mut wal, 6..=9, 100);
    disk.restore(&image);
    let (_, recovery): (_, Recovery) = open(&disk);
    assert_eq!(
        (recovery.last.index, recovery.torn_tail),
        (LogIndex(5), None)
    );
}

#[test]
fn the_first_batch_of_a_segment_is_torn() {
    let (disk, _) = three_segments();
    let fourth = "0000000000000004.wal";
    let unused = disk.bytes_of(fourth);
    let (mut wal, _) = open(&disk);
    // Rolls: the fourth segment's first batch is a base and an entry.
    append(&mut wal, 6..=6, 30_000);
    append(&mut wal, 7..=7, 30_000);
    assert_eq!(wal.size_bytes(), 4 * MIN_SEGMENT_BYTES);
    let used = disk.bytes_of(fourth);
    let image = disk.snapshot();
    for lost in (4096..36_864).step_by(512) {
        disk.restore(&image);
        let mut bytes = used.clone();
        bytes[lost..lost + 512].copy_from_slice(&unused[lost..lost + 512]);
        disk.put(fourth, &bytes);
        let torn = bytes != used;
        let (mut wal, recovery) = open(&disk);
        assert_eq!(wal.last_index().0, if torn { 6 } else { 7 }, "{lost}");
        // Without its base and the entry's header, nothing says that the rest is a batch.
        let told = recovery.torn_tail.is_some();
        assert_eq!(told, torn && lost > 4096, "{lost} {recovery:?}");
        append(&mut wal, 8..=9, 20_000);
        let (wal, recovery) = open(&disk);
        assert_eq!(recovery.torn_tail, None);
        assert_chained(&wal, &all_entries(&wal));
    }
}

/// CRC32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}
