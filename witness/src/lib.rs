//! The witness of many pairs, as a program: connections, sessions, the state file and commands
//! around the decisions of `kine2-witness-core`.
//!
//! One loop drives the core and owns all sessions; a thread writes the state file. What is on disk
//! and on the wire is written down in `docs/witness.md`.

mod authorities;
mod cli;
mod connection;
mod disk;
pub mod fuzz;
mod limits;
mod listener;
mod messages;
mod record;
mod serve;
mod service;
mod session;
mod status;
mod store;

use std::process::ExitCode;

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    cli::run()
}
