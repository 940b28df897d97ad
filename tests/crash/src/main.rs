//! The command line.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program"
)]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};
use kine2_crash::campaign::{End, Plan, keep_dir};
use kine2_crash::faults::{self, Depth, Scenario};
use kine2_crash::rng::{Rng, fresh_seed};

/// Crash and fault tests of the real kine2. KINE2_BIN names another program than this workspace's.
#[derive(Debug, Parser)]
#[command(name = "kine2-crash")]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// kill -9 at random moments under load.
    Kill(Rounds),
    /// Simulated power cuts under load.
    Power(Rounds),
    /// Faults of disks and circumstances.
    Faults(Faults),
}

#[derive(Debug, clap::Args)]
struct Faults {
    /// Scenarios [default: all].
    names: Vec<String>,
    /// Seed of all choices [default: a random one, which is printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds rather than minutes.
    #[arg(long)]
    short: bool,
}

#[derive(Debug, clap::Args)]
struct Rounds {
    /// Sudden ends.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Seed of all choices [default: a random one, which is printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Longest load before an end.
    #[arg(long, default_value_t = 1_200)]
    load_ms: u64,
    /// Rules of the shim (shim/shim.c), such as sync,log,1,0,drop.
    #[arg(long)]
    mutation: Option<String>,
    /// Tell each round.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kine2-crash: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all was well.
fn run(options: &Options) -> anyhow::Result<bool> {
    let (end, rounds) = match &options.what {
        What::Kill(rounds) => (End::Kill, rounds),
        What::Power(rounds) => (End::Power, rounds),
        What::Faults(faults) => return run_faults(faults),
    };
    let seed = rounds.seed.map_or_else(fresh_seed, Ok)?;
    println!("seed {seed}");
    let plan = Plan {
        end,
        rounds: rounds.rounds,
        seed,
        load_ms: rounds.load_ms,
        mutation: rounds.mutation.clone(),
        keep: Some(keep_dir()),
        verbose: rounds.verbose,
    };
    let outcome = kine2_crash::block_on(plan.run())??;
    println!("{outcome}");
    Ok(outcome.bad.is_empty())
}

fn run_faults(options: &Faults) -> anyhow::Result<bool> {
    let seed = options.seed.map_or_else(fresh_seed, Ok)?;
    println!("seed {seed}");
    let depth = if options.short {
        Depth::Short
    } else {
        Depth::Full
    };
    let named: Vec<Scenario> = if options.names.is_empty() {
        faults::ALL.to_vec()
    } else {
        let known = || {
            faults::ALL
                .iter()
                .map(|s| s.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let find = |name: &String| {
            faults::find(name).with_context(|| format!("no scenario {name}; there are {}", known()))
        };
        options.names.iter().map(find).collect::<Result<_, _>>()?
    };
    let mut bad = 0;
    for scenario in &named {
        let begun = Instant::now();
        let result = kine2_crash::block_on((scenario.run)(depth, Rng::new(seed)))?;
        let took = begun.elapsed();
        match result {
            Ok(seen) => println!("{} ok, {took:.1?}: {seen}", scenario.name),
            Err(error) => {
                bad += 1;
                println!("{} BAD, {took:.1?}: {error:#}", scenario.name);
            }
        }
    }
    println!("{} scenarios, {bad} bad", named.len());
    Ok(bad == 0)
}
