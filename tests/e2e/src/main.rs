//! Measures the gaps that faults make, and lets random things happen to pairs for long.
#![expect(clippy::print_stdout, reason = "this is what talks to the terminal")]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use kine2_e2e::fault::Fault;
use kine2_e2e::story;
use tokio::runtime::Runtime;

/// Real pairs under faults. `KINE2_BIN` and `WITNESS_BIN` name the programs.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The longest time between two acknowledged writes, by fault.
    Gaps {
        /// Pairs for each fault.
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        /// Only this fault, by its name in the table.
        #[arg(long)]
        only: Vec<String>,
    },
    /// Random faults.
    Random {
        /// Pairs, one after the other.
        #[arg(long, default_value_t = 100)]
        schedules: u64,
        /// Seconds of each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Seed of the first.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> std::io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    Ok(match Options::parse().command {
        Command::Gaps { rounds, only } => gaps(&runtime, rounds, &only),
        Command::Random {
            schedules,
            seconds,
            seed,
        } => random(&runtime, seed..seed + schedules, seconds),
    })
}

/// What makes no gap of its own has none to measure.
fn has_gap(fault: Fault) -> bool {
    !matches!(
        fault,
        Fault::WipePrimary
            | Fault::WipeSecondary
            | Fault::OldImage
            | Fault::RestartStorm
            | Fault::SwapStorm
            | Fault::PowerCut
            | Fault::FullPrimary
            | Fault::FullSecondary
    )
}

fn gaps(runtime: &Runtime, rounds: usize, only: &[String]) -> ExitCode {
    println!("| what happens | longest gap ms, median | least | most | attempts that failed |");
    println!("|---|---|---|---|---|");
    let is_wanted = |fault: &Fault| match only {
        [] => has_gap(*fault),
        only => only.contains(&fault.to_string()),
    };
    for fault in Fault::ALL.into_iter().filter(is_wanted) {
        let mut gaps = Vec::new();
        let mut failed = 0;
        for _ in 0..rounds {
            match runtime.block_on(story::gap(fault)) {
                Ok((gap, errors)) => {
                    gaps.push(gap.as_millis());
                    failed += errors.len();
                }
                Err(why) => {
                    println!("| {fault} | passed over: {why} | | | |");
                    break;
                }
            }
        }
        gaps.sort_unstable();
        if let [least, .., most] = gaps[..] {
            let median = gaps[gaps.len() / 2];
            println!("| {fault} | {median} | {least} | {most} | {failed} |");
        }
    }
    ExitCode::SUCCESS
}

fn random(runtime: &Runtime, seeds: Range<u64>, seconds: u64) -> ExitCode {
    let mut bad = Vec::new();
    let all = seeds.end - seeds.start;
    for seed in seeds {
        println!("seed {seed}");
        let length = Duration::from_secs(seconds);
        let tell = |line| println!("  {line}");
        let playing = || runtime.block_on(story::random(seed, length, tell));
        // The panic has told what did not hold.
        if catch_unwind(AssertUnwindSafe(playing)).is_err() {
            bad.push(seed);
        }
    }
    if bad.is_empty() {
        println!("{all} schedules of {seconds} s: nothing lost, nothing doubled");
        return ExitCode::SUCCESS;
    }
    println!("{all} schedules of {seconds} s: something did not hold with the seeds {bad:?}");
    ExitCode::FAILURE
}
