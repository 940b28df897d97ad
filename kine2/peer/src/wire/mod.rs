//! The messages of the cores as those of the wire, and back.
//!
//! What is read is checked as far as its own form goes: identities have 16 bytes, configurations
//! their shape, terms rise. What it means is for the cores.

mod forward;
mod frame;
mod ids;
mod witness;

use kine2_replication::RecordError;
use thiserror::Error;

pub use forward::{
    ForwardedAnswer, ForwardedRequest, Lease, answer_from_wire, answer_to_wire, request_from_wire,
    request_to_wire,
};
pub use frame::{frame_from_wire, frame_to_wire};
pub use ids::{node_from_wire, node_to_wire, position_from_wire, position_to_wire};
pub use witness::{call_from_wire, call_to_wire, word_from_wire, word_to_wire};

/// Why a message means nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// A field that must be there is not, or holds a kind this program does not know.
    #[error("{0} is missing or unknown")]
    Missing(&'static str),
    /// An identity has another length.
    #[error("{what} has {found} bytes; 16 are accepted")]
    Identity {
        /// The field.
        what: &'static str,
        /// Its bytes.
        found: usize,
    },
    /// A name or address is too long.
    #[error("{what} has {found} bytes; at most {TEXT_BYTES_MAX} are accepted")]
    Text {
        /// The field.
        what: &'static str,
        /// Its bytes.
        found: usize,
    },
    /// A configuration.
    #[error("a configuration: {0}")]
    Config(#[from] RecordError),
    /// The terms of a log do not rise.
    #[error("the terms of a log do not rise")]
    Terms,
    /// Entries do not follow each other.
    #[error("entries do not follow each other")]
    Entries,
    /// A record of the store.
    #[error("a record is malformed")]
    Record,
    /// A list names one thing twice.
    #[error("{0} has an entry twice")]
    Twice(&'static str),
}

/// Bytes of the longest name or address: as the node's own record has it.
pub const TEXT_BYTES_MAX: usize = 255;
