//! Two real nodes and a witness as processes on loopback, with clients that have both endpoints,
//! and what must hold whatever happens to them.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "they wait for real processes, and show what those logged"
)]

pub mod client;
mod disk;
pub mod fault;
pub mod lab;
pub mod load;
mod net;
pub mod pair;
mod process;
pub mod reader;
pub mod roles;
pub mod status;
pub mod story;
pub mod watcher;
pub mod writer;

pub use disk::Medium;
