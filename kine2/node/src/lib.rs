//! A node: the log's positions, the store, the lease clock and the waiting clients, joined.
//!
//! Owns no clock, thread, file or socket. What happens comes in by [`Node::apply`] with the time
//! it happened; what is to be done comes out by [`Node::take_output`]. The runtime drives it with
//! real disks, a simulator with false ones.

mod lease_clock;
mod node;
mod output;
mod queue;
mod saving;

pub use lease_clock::ACTIVATION_GRACE;
pub use node::{Event, Node, NodeError, NodeOptions, NodeStats};
pub use output::{LogEntry, Output};
pub use queue::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, QUEUE_BYTES_MAX, QUEUE_COMMANDS_MAX};
