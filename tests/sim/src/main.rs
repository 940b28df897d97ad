//! `kine2-sim [--from SEED] [--seeds N]` runs many seeds and says how fast; `SEED=n` runs one.
#![expect(clippy::print_stdout, reason = "it reports to who runs it")]

use std::process::ExitCode;
use std::time::Instant;

use kine2_sim::plan::Plan;
use kine2_sim::seeds;
use kine2_sim::world::World;

fn main() -> ExitCode {
    if let Some(seed) = number_from("SEED") {
        return one(seed);
    }
    let (from, count) = (argument("--from", 0), argument("--seeds", 1000));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let sum = seeds::run(from, count, threads);
    let took = started.elapsed().as_secs_f64();
    println!("{}", sum.coverage);
    println!(
        "{} seeds from {from} in {took:.0} s: {:.0} seeds a minute, {:.1} h simulated, {} events, {} requests answered",
        sum.seeds,
        sum.seeds as f64 * 60.0 / took,
        sum.simulated.as_secs_f64() / 3600.0,
        sum.events,
        sum.answered,
    );
    for (seed, story) in &sum.failures {
        println!("seed {seed} failed:\n{story}\n");
    }
    if sum.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn one(seed: u64) -> ExitCode {
    match World::run(Plan::of(seed)) {
        Ok(outcome) => {
            println!("{outcome:?}");
            ExitCode::SUCCESS
        }
        Err(story) => {
            println!("seed {seed} failed:\n{story}");
            ExitCode::FAILURE
        }
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn argument(name: &str, default: u64) -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    let value = arguments.nth(1).and_then(|value| value.parse().ok());
    value.unwrap_or(default)
}
