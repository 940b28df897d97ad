//! The program: what [`run`] wires together, and the entry points of its fuzzers.

mod allocator;
mod cli;
mod config;
#[doc(hidden)]
pub mod fuzz;
mod log;
mod notify;
mod panics;
mod process;
mod runtime;

use std::process::ExitCode;

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    panics::abort_but_for_engines();
    cli::run()
}
