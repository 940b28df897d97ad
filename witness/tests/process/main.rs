//! The program as a process on loopback, with nodes that speak to it over TLS.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]
#![expect(
    clippy::print_stderr,
    reason = "what the witness logged is of interest"
)]

mod calls;
mod cluster;
mod crash;
mod idle;
mod link;
mod refusals;
mod sessions;
mod witness;
