//! kine2 beside etcd and kine: one command, one run, figures and ratios.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people; none is near a limit"
)]

mod client;
mod harness;
mod process;
mod report;
mod requests;
mod servers;
mod wire;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Compares servers of the etcd API, in turn, on the same disk.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// Rounds; each starts every server anew, in another order.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that are counted of each load.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Servers, separated by commas.
    #[arg(long, default_value = "kine2,etcd,kine", value_delimiter = ',')]
    servers: Vec<String>,
    /// Loads such as update-64, separated by commas; all if none.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Keys of 1 KB that are there before.
    #[arg(long, default_value_t = 10_000)]
    keys: usize,
    /// Measure starts with as many keys, too.
    #[arg(long)]
    restart: bool,
    /// The kine2 program.
    #[arg(long, default_value = "target/release/kine2")]
    kine2: PathBuf,
    /// Where etcd-one and kine are.
    #[arg(long, default_value = "tests/bin")]
    bin: PathBuf,
    /// Where the servers' data go.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// File for all figures.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the tables of such a file and measure nothing.
    #[arg(long)]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.report {
        Some(file) => report::print_file(file),
        None => harness::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
