//! Watches: who wants to know of which changes, and what they are told.

mod message;

pub use message::{CancelCause, WatchMessage, WatchRequest, WatchUpdate};
