//! The API over real sockets, against a member that does as the test says.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at what it does not expect"
)]

mod client;
mod double;
mod http;
mod kv;
mod lease;
mod others;
mod server;
mod tls;
mod watch;
