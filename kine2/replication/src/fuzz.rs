//! What the fuzzer runs; a test runs the same over the seeds that were kept.

use crate::Durable;

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
