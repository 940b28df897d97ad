//! What the fuzzer runs; a test runs the same over the seeds that were kept.

use kine2_wal::Position;

use crate::{Durable, QuarantineHeader, read_quarantined};

/// Reads a node's own record; what is understood is understood again once written.
///
/// # Panics
/// When what is written of a record is read as another.
pub fn own_record(data: &[u8]) {
    if let Ok(durable) = Durable::decode(data) {
        let again = Durable::decode(&durable.encode());
        assert_eq!(again, Ok(durable), "read, written and read again");
    }
}

/// Reads a quarantine: its header, then its entries, and entries without a header.
pub fn quarantine(data: &[u8]) {
    let (mut last, mut at) = match QuarantineHeader::decode(data) {
        Ok((header, bytes)) => (header.base, bytes),
        Err(_) => (Position::START, 0),
    };
    while let Ok((entry, bytes)) = read_quarantined(last, &data[at..]) {
        (last, at) = (entry.position, at + bytes);
    }
}
