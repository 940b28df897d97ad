//! kine2 beside etcd and kine: one command, one run, figures and ratios. docs/benchmarks.md has the method.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program"
)]

mod aims;
mod cell;
mod clusters;
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
mod reintegration;
mod report;
mod requests;
mod restart;
mod servers;
mod tonic_stream;
mod transport;
mod watchers;

use std::process::ExitCode;

use clap::Parser;

use plan::Options;

fn reintegrate(options: &Options, missed: usize) -> anyhow::Result<()> {
    let program = servers::Program::build(servers::Kind::Pair, options.kine2.as_deref())?;
    let dir = options.dir.join("reintegration");
    options
        .keys
        .iter()
        .try_for_each(|keys| reintegration::run(&program.path, &dir, *keys, missed))
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match (&options.report, options.echo) {
        (Some(file), _) => report::print_file(file),
        (None, Some(address)) => echo::serve(address),
        (None, None) if options.transport => options
            .plan()
            .and_then(|plan| transport::run(plan.rounds, plan.window)),
        (None, None) => match options.missed {
            Some(missed) => reintegrate(&options, missed),
            None => harness::run(&options),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
