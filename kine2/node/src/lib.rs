//! A node: its replica, the store, the leases and the waiting clients, joined.
//!
//! Owns no clock, thread, file or socket. What happens comes in by [`Node::apply`] with the time
//! it happened; what is to be done comes out by [`Node::take_output`]. The runtime drives it with
//! real disks and a real peer, a simulator with false ones. A node without a peer is the same node:
//! its unit has one member.

mod admission;
mod event;
mod lease_clock;
mod leases;
mod node;
mod output;
mod proposals;
mod queue;
mod reads;
mod replica;
mod saving;
mod serving;
mod steps;

pub use event::{Event, NodeError, NodeOptions, NodeStats};
pub use lease_clock::ACTIVATION_GRACE;
pub use node::Node;
pub use output::{Cut, Done, LogRead, LogReader, LogRecord, LogWrite, Output, Rejected, Work};
pub use queue::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, QUEUE_BYTES_MAX, QUEUE_COMMANDS_MAX};
pub use replica::STORE;
