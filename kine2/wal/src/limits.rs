//! The bounds of the format and what a user of the log may choose.

use crate::error::WalError;
use crate::record;

/// The kernel's page and the largest sector: what a write dirties at least.
pub(crate) const PAGE_BYTES: u64 = PAGE as u64;

/// [`PAGE_BYTES`] as a length in memory.
pub(crate) const PAGE: usize = 4096;

/// Where records begin: the header has a page of its own, which no append ever rewrites.
pub(crate) const DATA_START: u64 = PAGE_BYTES;

/// Largest payload of an entry: a client request of 1.5 MiB and what it is wrapped in.
pub const MAX_PAYLOAD_BYTES: usize = 2 << 20;

/// Largest hard state.
pub const MAX_HARD_STATE_BYTES: usize = 16 << 10;

/// Most that is ever written and not yet flushed; more that is staged goes out in several batches.
pub const MAX_BATCH_BYTES: u64 = 4 << 20;

/// Segment size unless told otherwise. A new log fills its first few segments with zeros before
/// it can use any again: small ones cost a young log less, and a full disk less room.
pub const DEFAULT_SEGMENT_BYTES: u64 = 16 << 20;

/// Smallest segment. Below 4 MiB the segment bounds the payload: see [`WalOptions::max_payload_bytes`].
pub const MIN_SEGMENT_BYTES: u64 = 64 << 10;

/// Largest segment: offsets in records have 32 bits.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// Zeros written and flushed by one step of a preparation, so that a step holds the disk for
/// milliseconds only.
pub(crate) const ZERO_STEP_BYTES: u64 = 1 << 20;

/// What is read from a segment at once.
pub(crate) const READ_BYTES: u64 = 128 << 10;

/// The largest first record of a segment.
const MAX_BASE_RECORD_BYTES: u64 = record::record_bytes(8 + MAX_HARD_STATE_BYTES);

const _: () = assert!(record::record_bytes(MAX_PAYLOAD_BYTES) < MAX_BATCH_BYTES);
const _: () = assert!(MAX_SEGMENT_BYTES <= u32::MAX as u64);
const _: () = assert!(DATA_START + 2 * MAX_BASE_RECORD_BYTES < MIN_SEGMENT_BYTES);
const _: () = assert!(
    DATA_START + MAX_BASE_RECORD_BYTES + record::record_bytes(MAX_PAYLOAD_BYTES) < MAX_BATCH_BYTES
);

/// What a user of the log may choose.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Size of new segments: whole pages, from [`MIN_SEGMENT_BYTES`] to [`MAX_SEGMENT_BYTES`].
    /// Segments that exist keep theirs.
    pub segment_bytes: u64,
    /// How many cut segments are kept to be used again; more are deleted.
    pub recycle_max: usize,
    /// From this and its number comes the id of a new segment. Draw it at random for each node; a
    /// simulation gives its own, and replays.
    pub seed: u64,
}

impl WalOptions {
    /// The defaults, with this seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self {
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            recycle_max: 2,
            seed,
        }
    }

    /// Largest payload an entry may have: [`MAX_PAYLOAD_BYTES`], or less when segments are small,
    /// since a record lies in one segment.
    #[must_use]
    pub fn max_payload_bytes(&self) -> usize {
        let room = self.segment_bytes - DATA_START - MAX_BASE_RECORD_BYTES;
        let room = usize::try_from(room).unwrap_or(usize::MAX) - record::HEADER_BYTES;
        room.min(MAX_PAYLOAD_BYTES)
    }

    pub(crate) fn check(&self) -> Result<(), WalError> {
        let bytes = self.segment_bytes;
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&bytes)
            || !bytes.is_multiple_of(PAGE_BYTES)
        {
            return Err(WalError::InvalidSegmentBytes { bytes });
        }
        Ok(())
    }
}
