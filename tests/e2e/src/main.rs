//! Measures the gaps that faults make, and lets random things happen to pairs for long.
#![expect(clippy::print_stdout, reason = "this is what talks to the terminal")]

use std::time::Duration;

use clap::{Parser, Subcommand};
use kine2_e2e::fault::Fault;
use kine2_e2e::story;

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

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    match Options::parse().command {
        Command::Gaps { rounds, only } => {
            println!(
                "| what happens | longest gap ms, median | least | most | attempts that failed |"
            );
            println!("|---|---|---|---|---|");
            for fault in Fault::ALL.into_iter().filter(|fault| {
                only.is_empty() || only.iter().any(|name| *name == fault.to_string())
            }) {
                let mut gaps = Vec::new();
                let mut failed = 0;
                for _ in 0..rounds {
                    let (gap, errors) = runtime.block_on(story::gap(fault));
                    gaps.push(gap);
                    failed += errors.len();
                }
                gaps.sort();
                println!(
                    "| {fault} | {} | {} | {} | {failed} |",
                    gaps[gaps.len() / 2].as_millis(),
                    gaps[0].as_millis(),
                    gaps[gaps.len() - 1].as_millis()
                );
            }
        }
        Command::Random {
            schedules,
            seconds,
            seed,
        } => {
            for seed in seed..seed + schedules {
                println!("seed {seed}");
                let length = Duration::from_secs(seconds);
                for line in runtime.block_on(story::random(seed, length)) {
                    println!("  {line}");
                }
            }
            println!("{schedules} schedules of {seconds} s: nothing lost, nothing doubled");
        }
    }
    Ok(())
}
