//! What a program that uses the crate `etcd-client` relies on, against a kine2 that runs.
//!
//! The server's program is `KINE2`; `tests/conformance/run clients` sets it.

mod cluster;
mod kv;
mod lease;
mod server;
mod transport;
mod watch;
