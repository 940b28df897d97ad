//! State engines: where the records rest.
//!
//! [`open`] gives a [`Backend`] on disk. It is a cache with a promise (see the trait): one that
//! does not open, or fails a check, is [destroyed](destroy) and built again from the log. All
//! checks are end to end, record by record, whatever the engine below does. The bytes on disk are
//! described in docs/state-format.md.
//!
//! [`export`] and [`import`] carry a state from one backend to another, of whatever engine.

mod block;
mod block_index;
mod block_store;
mod directory;
mod engine;
mod head;
mod history;
pub mod mem;
mod redb_engine;
mod removal;
#[cfg(feature = "sled")]
mod sled_engine;
mod state_dir;
mod stream;
mod unproven;

pub use kine2_mvcc::Backend;
pub use state_dir::{EngineKind, Options, UnknownEngine, destroy, open};
pub use stream::{CHUNK_BYTES_MAX, StreamError, export, import};
