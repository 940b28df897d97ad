//! The replicated log of one part on local disk: the durable truth of a node.
//!
//! A [`Wal`] is one ordered log of [`Entry`]s in segment files, with the node's hard state, truncations
//! and snapshot bases as records of the same log, so one flush orders all of them. It is synchronous
//! and owns no thread, clock or random source; a [`Disk`] lies beneath it. What is staged becomes
//! durable by [`Wal::sync`]: one write and one flush, however many entries wait.
//!
//! After a crash at any instant [`Wal::open`] gives back every synced record. It cuts a torn tail, and
//! it refuses damage in the middle with file and offset. A failed write or flush is final
//! (`repl I1`): the `Wal` refuses all further work until it is opened again.
//!
//! The bytes and the rules of recovery are written down in `docs/wal-format.md`.

mod disk;
mod error;
mod file_disk;
mod index;
mod limits;
mod position;
mod prepare;
mod read;
mod record;
mod recovery;
mod replay;
mod scan;
mod segment;
mod wal;

#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(any(test, feature = "fake"))]
pub mod fuzz;

pub use disk::{Disk, DiskFile};
pub use error::WalError;
pub use file_disk::{FileDisk, RealFile};
pub use limits::{
    DEFAULT_SEGMENT_BYTES, MAX_BATCH_BYTES, MAX_HARD_STATE_BYTES, MAX_PAYLOAD_BYTES,
    MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, WalOptions,
};
pub use position::{Chain, Entry, LogIndex, Origin, Position, Term};
pub use prepare::Prepared;
pub use recovery::{Recovery, TornTail};
pub use wal::{Wal, WalStats};
