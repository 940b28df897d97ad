//! Seeded runs: `cargo test -p kine2-sim`. `SEED=n` runs one with its story (`TRACE=1` tells it
//! while it happens), `SEEDS=n` more than CI does.
use kine2_sim::plan::Plan;
use kine2_sim::seeds;
use kine2_sim::world::World;

/// Seeds that CI runs.
const SEEDS: u64 = 2_000;

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn all_holds_under_every_seed_and_all_marks_are_reached() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let sum = seeds::run(0, number_from("SEEDS").unwrap_or(SEEDS), threads);
    println!("{}{} requests answered", sum.coverage, sum.answered);
    for (seed, story) in &sum.failures {
        println!("seed {seed} failed:\n{story}\n");
    }
    let failed: Vec<u64> = sum.failures.iter().map(|(seed, _)| *seed).collect();
    assert!(failed.is_empty(), "seeds {failed:?} failed");
    let (missing, unlisted) = (sum.coverage.missing(), sum.coverage.unlisted());
    assert!(missing.is_empty(), "never reached: {missing:?}");
    assert!(unlisted.is_empty(), "reached and not listed: {unlisted:?}");
}

#[test]
fn one_seed() {
    let seed = number_from("SEED").unwrap_or(1);
    let outcome = World::run(Plan::of(seed)).unwrap_or_else(|story| panic!("\n{story}"));
    println!("{outcome:?}");
}

#[test]
fn a_seed_replays_everything() {
    for seed in [3, 40, 77] {
        let run = || World::run(Plan::of(seed)).map(|o| (o.trace, o.events, o.answered));
        let (one, other) = (run(), run());
        assert!(
            one.is_ok() && one == other,
            "seed {seed}: {one:?}, {other:?}"
        );
    }
}
