//! Watches: who wants to know of which changes, and what they are told.

mod hub;
mod matcher;
mod message;
mod stream;

pub use hub::{Polled, StreamId, WatchHub, WatchOptions, WatchStats};
pub use message::{CancelCause, WatchMessage, WatchRequest, WatchUpdate};
