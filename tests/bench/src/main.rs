//! kine2 beside etcd and kine: one command, one run, figures and ratios. docs/benchmarks.md has the method.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program"
)]

mod cell;
mod disk;
mod echo;
mod figures;
mod grpc;
mod harness;
mod keys;
mod load;
mod meter;
mod plan;
mod process;
mod protobuf;
mod report;
mod requests;
mod restart;
mod servers;
mod watchers;

use std::process::ExitCode;

use clap::Parser;

use plan::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match (&options.report, options.echo) {
        (Some(file), _) => report::print_file(file),
        (None, Some(address)) => echo::serve(address),
        (None, None) => harness::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
