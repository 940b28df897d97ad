//! What the fuzzers run; a test runs the same over the seeds that were kept.

use std::ops::Range;

use crate::fake::FakeDisk;
use crate::limits::{DATA_START, MIN_SEGMENT_BYTES, WalOptions};
use crate::position::{LogIndex, Origin};
use crate::record::{HEADER_BYTES, Kind, NewRecord, Salt, encode};
use crate::segment::{FIRST_SEQUENCE, encode_header, segment_id, segment_name};
use crate::{Position, Wal, WalError};

const SEED: u64 = 1;

/// Opens a log whose first segment holds what `data` says, and uses it.
///
/// The first byte of `data` tells how: even, the rest is the bytes behind the segment's header; odd,
/// the rest is a list of records, which get the right tag and checksum, as no accident would give.
///
/// # Panics
/// When the log gives something that does not hold together, or changes its mind later.
pub fn wal_record(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let id = segment_id(SEED, FIRST_SEQUENCE);
    let mut segment = encode_header(id, FIRST_SEQUENCE, MIN_SEGMENT_BYTES).to_vec();
    match how % 2 {
        0 => segment.extend_from_slice(data),
        _ => encode_all(&mut segment, Salt::new(id), data),
    }
    segment.resize(usize::try_from(MIN_SEGMENT_BYTES).expect("64 KiB"), 0);
    let disk = FakeDisk::new();
    disk.put(&segment_name(FIRST_SEQUENCE), &segment);
    check(&disk);
}

/// The base of a new log, then the records of `data`: kind, flags, two bytes of payload length, four
/// of `synced`, position, payload.
fn encode_all(segment: &mut Vec<u8>, salt: Salt, mut data: &[u8]) {
    let mut last = Position::START;
    let mut batch = DATA_START;
    let base = NewRecord {
        kind: Kind::Base,
        flags: 0,
        synced: batch,
        position: last,
        payload: &[&[0; 8]],
    };
    encode(segment, salt, DATA_START, &base);
    while let Some((head, rest)) = data.split_first_chunk::<4>() {
        let [kind, flags, length, place] = *head;
        let length = rest.len().min(usize::from(length));
        let (payload, rest) = rest.split_at(length);
        data = rest;
        let kind = [
            Kind::Entry,
            Kind::HardState,
            Kind::Truncate,
            Kind::Base,
            Kind::Mark,
        ][usize::from(kind % 5)];
        let offset = segment.len() as u64;
        if offset + (HEADER_BYTES + length) as u64 + 8 > MIN_SEGMENT_BYTES {
            break;
        }
        // Bits of `place` say where the record departs from what a log would have written.
        if place & 1 == 0 {
            batch = offset;
        }
        let mut position = last;
        if kind == Kind::Entry {
            position.term.epoch = position.term.epoch.wrapping_add(u64::from(place >> 1 & 1));
            position.term.origin = Origin(u32::from(place >> 5 & 1));
            position = last.extend(position.term, payload);
        }
        match place >> 2 & 7 {
            1 => position.index = LogIndex(position.index.0.wrapping_sub(1)),
            2 => position.index = LogIndex(u64::MAX - u64::from(place)),
            3 => position.chain.0 ^= 1,
            4 => position.term.epoch = position.term.epoch.wrapping_sub(1),
            5 => position = Position::START,
            _ => {}
        }
        let record = NewRecord {
            kind,
            flags,
            synced: batch,
            position,
            payload: &[payload],
        };
        encode(segment, salt, offset, &record);
        if matches!(kind, Kind::Entry | Kind::Truncate) {
            last = position;
            last.index = LogIndex(last.index.0 % (1 << 62));
        }
    }
}

fn check(disk: &FakeDisk) {
    let options = WalOptions {
        segment_bytes: MIN_SEGMENT_BYTES,
        recycle_max: 1,
        seed: SEED,
    };
    let (mut wal, recovery) = match Wal::open(disk.clone(), options.clone()) {
        Ok(opened) => opened,
        Err(WalError::Damaged { .. } | WalError::UnsupportedVersion { .. }) => return,
        Err(error) => panic!("no other error: {error}"),
    };
    check_entries(&wal);
    let appended = wal
        .append(recovery.last.term, b"appended")
        .expect("the disk is good");
    wal.sync().expect("the disk is good");
    let (wal, again) = Wal::open(disk.clone(), options).expect("what was opened opens again");
    assert_eq!((again.base, again.last), (recovery.base, appended));
    assert_eq!(
        (again.hard_state, again.torn_tail),
        (recovery.hard_state, None)
    );
    check_entries(&wal);
}

fn check_entries(wal: &Wal<FakeDisk>) {
    let mut position = wal.base();
    let all: Range<LogIndex> = wal.first_index()..wal.last_index().next();
    for entry in wal
        .entries(all, usize::MAX)
        .expect("what was recovered can be read")
    {
        position = position.extend(entry.position.term, &entry.payload);
        assert_eq!(position, entry.position);
    }
    assert_eq!(position, wal.last());
}
