//! Many seeds, beside each other.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::coverage::Coverage;
use crate::plan::Plan;
use crate::world::World;

/// Failures after which no more seeds are begun.
const FAILURES_MAX: usize = 5;

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Sum {
    /// Seeds that were run.
    pub seeds: u64,
    /// What they reached.
    pub coverage: Coverage,
    /// Time that passed in them.
    pub simulated: Duration,
    /// Events in them.
    pub events: u64,
    /// Requests of clients that were answered.
    pub answered: u64,
    /// Seeds that failed, and their stories.
    pub failures: Vec<(u64, String)>,
}

/// Runs the seeds in `[from, from + count)` on so many threads.
///
/// # Panics
/// When a thread cannot be started.
#[must_use]
pub fn run(from: u64, count: u64, threads: usize) -> Sum {
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&next, from + count, &sum));
        }
    });
    sum.into_inner().expect("no run panics outside of its own")
}

fn work(next: &AtomicU64, end: u64, sum: &Mutex<Sum>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        let failed = |sum: &Mutex<Sum>| {
            let sum = sum.lock().expect("no run panics outside of its own");
            sum.failures.len() >= FAILURES_MAX
        };
        if seed >= end || failed(sum) {
            return;
        }
        let outcome = World::run(Plan::of(seed));
        let mut sum = sum.lock().expect("no run panics outside of its own");
        sum.seeds += 1;
        match outcome {
            Ok(outcome) => {
                sum.coverage.add(&outcome.coverage);
                sum.simulated += outcome.simulated;
                sum.events += outcome.events;
                sum.answered += outcome.answered;
            }
            Err(story) => sum.failures.push((seed, story)),
        }
    }
}
