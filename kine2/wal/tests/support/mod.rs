//! What the tests of the log share.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod driver;

use std::ops::Range;

use kine2_wal::fake::FakeDisk;
use kine2_wal::{Entry, LogIndex, MIN_SEGMENT_BYTES, Recovery, Term, Wal, WalError, WalOptions};

pub(crate) const SEED: u64 = 0x5eed;

/// The smallest segments, two of them kept for use again.
pub(crate) fn small() -> WalOptions {
    WalOptions {
        segment_bytes: MIN_SEGMENT_BYTES,
        recycle_max: 2,
        seed: SEED,
    }
}

pub(crate) fn open(disk: &FakeDisk) -> (Wal<FakeDisk>, Recovery) {
    try_open(disk).expect("the log opens")
}

pub(crate) fn try_open(disk: &FakeDisk) -> Result<(Wal<FakeDisk>, Recovery), WalError> {
    Wal::open(disk.clone(), small())
}

pub(crate) fn term(epoch: u64) -> Term {
    Term::new(epoch, 0)
}

pub(crate) fn range(range: Range<u64>) -> Range<LogIndex> {
    LogIndex(range.start)..LogIndex(range.end)
}

/// All durable entries kept, read in small portions.
pub(crate) fn all_entries(wal: &Wal<FakeDisk>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut next = wal.first_index();
    while next <= wal.durable_index() {
        let more = wal
            .entries(next..LogIndex(u64::MAX), 10_000)
            .expect("they are kept");
        assert!(!more.is_empty());
        next = LogIndex(next.0 + more.len() as u64);
        entries.extend(more);
    }
    entries
}

/// The entries follow the base, each with its chain.
pub(crate) fn assert_chained(wal: &Wal<FakeDisk>, entries: &[Entry]) {
    let mut position = wal.base();
    for entry in entries {
        position = position.extend(entry.position.term, &entry.payload);
        assert_eq!(position, entry.position);
    }
}

/// A payload that says which it is.
pub(crate) fn payload(number: u64, bytes: u64) -> Vec<u8> {
    let mut payload = vec![0xa5; usize::try_from(bytes).expect("it fits memory")];
    let name = number.to_le_bytes();
    let count = payload.len().min(8);
    payload[..count].copy_from_slice(&name[..count]);
    payload
}
