//! Bounds of what a unit keeps under way.

/// Entries of a part that are ordered and not committed, at most; more proposals are answered
/// with [`Answer::Busy`].
///
/// [`Answer::Busy`]: crate::Answer::Busy
pub const WINDOW_ENTRIES_MAX: u64 = 4096;
/// Bytes of entries of a part that wait or are not durable here, at most.
pub const WINDOW_BYTES_MAX: usize = 64 << 20;
/// Payload bytes of one frame after which it ends.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Reads that wait, at most.
pub const READS_MAX: usize = 16_384;
/// Proposals held during a handover, at most.
pub const HELD_MAX: usize = 4096;
/// Numbers of frames sent whose time is remembered.
pub(crate) const SENT_TIMES_MAX: usize = 4096;
/// Witnesses of which a unit knows the session: the one of its configuration, and the one it moves
/// to.
pub(crate) const WITNESSES_MAX: usize = 2;

const _: () = assert!(FRAME_BYTES_MAX < WINDOW_BYTES_MAX);
