//! State engines: where the records rest.
//!
//! [`open`] gives a [`Backend`] on disk. It is a cache with a promise (see the trait): one that
//! does not open, or fails a check, is [destroyed](destroy) and built again from the log. All
//! checks are end to end, record by record, whatever the engine below does; its panics come out as
//! damage ([`engine_at_work`]). The bytes on disk are described in docs/state-format.md.
//!
//! [`export`] and [`import`] carry a state from one backend to another, of whatever engine.

mod block;
mod block_index;
mod block_store;
mod contain;
mod directory;
mod engine;
#[doc(hidden)]
pub mod fuzz;
mod head;
mod history;
mod kept;
mod map_engine;
pub mod mem;
mod notes;
mod redb_engine;
mod removal;
#[cfg(feature = "sled")]
mod sled_engine;
mod state_dir;
mod stream;

pub use contain::engine_at_work;
pub use kine2_mvcc::Backend;
pub use state_dir::{EngineKind, Options, UnknownEngine, destroy, open};
pub use stream::{CHUNK_BYTES_MAX, StreamError, export, import};
