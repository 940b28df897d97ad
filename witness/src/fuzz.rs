//! What the fuzzers run; a test runs the same over the seeds that were kept.

/// Reads a state file.
pub fn state(data: &[u8]) {
    crate::store::fuzz(data);
}

/// Reads what a connection may send.
pub fn message(data: &[u8]) {
    crate::messages::fuzz(data);
}
