//! The allocator's own words.
#![expect(unsafe_code, reason = "one call of the allocator's C interface")]

/// Gives memory that is free back to the system, of this thread and of those that have ended.
/// Worth it after a start: bringing the state up to the log takes much that serving does not need.
pub(crate) fn give_back() {
    // SAFETY: it takes a flag by value, may be called at any time from any thread, and touches only
    // memory that nobody has allocated.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
