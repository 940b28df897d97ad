//! kine2: the store of a server, and of a pair of servers.

mod cli;
mod config;
mod log;
mod notify;
mod process;
mod runtime;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
