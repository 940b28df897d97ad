//! Looking for what notices a mutation, and the table that comes of it.

#![expect(clippy::print_stdout, reason = "the table of a test")]

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use crate::{Expected, Mutation, with};

/// Runs after which a mutation that is thought to do no harm is believed.
const HARMLESS_RUNS_MAX: u64 = 300;

/// Runs test number 0, 1, .. with the rule broken until a check fails: which one, and after how
/// many.
fn find(mutation: Mutation, runs: u64, test: &impl Fn(u64)) -> Option<(String, u64)> {
    (0..runs).find_map(|run| {
        let panic = catch_unwind(AssertUnwindSafe(|| with(mutation, || test(run)))).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Some((check_of(&text.unwrap_or_default()), run + 1))
    })
}

/// The check that failed, by its first words.
fn check_of(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.trim_start_matches("assertion `left == right` failed: ");
    let head = line.split_once(": ").map_or(line, |(head, _)| head);
    head.chars().take(60).collect()
}

/// Runs `test` up to `runs` times with each of these rules broken, and prints the table of
/// `docs/mutations.md`.
///
/// # Panics
/// If one is not judged as the list expects, and if the test fails with no rule broken.
pub fn hunt<'m>(mutations: impl IntoIterator<Item = &'m Mutation>, runs: u64, test: impl Fn(u64)) {
    test(0);
    // Hundreds of runs fail, as they should: what they say is in the table.
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let mut wrong = Vec::new();
    println!("| broken rule | | found by | after |\n|---|---|---|---|");
    for mutation in mutations {
        let runs = match mutation.expected() {
            Expected::Found => runs,
            Expected::Harmless(_) => runs.min(HARMLESS_RUNS_MAX),
        };
        let found = find(*mutation, runs, &test);
        let (by, after) = match (&found, mutation.expected()) {
            (Some((check, runs)), _) => (check.clone(), runs.to_string()),
            (None, Expected::Harmless(why)) => (format!("not found: {why}"), String::new()),
            (None, Expected::Found) => ("NOT FOUND".into(), runs.to_string()),
        };
        let (rule, what) = (mutation.rule(), mutation.what());
        println!("| {mutation}: {what} | {rule} | {by} | {after} |");
        if found.is_some() != (mutation.expected() == Expected::Found) {
            wrong.push(*mutation);
        }
    }
    set_hook(hook);
    assert!(wrong.is_empty(), "{wrong:?} were not judged as expected");
}

/// The mutations that a test is asked for: by `ONLY=Name` one, by `SEEDS=n` all of `all`, each for
/// up to `n` runs, and else those of `soon`.
#[must_use]
pub fn asked(all: Vec<Mutation>, soon: &[Mutation], soon_runs: u64) -> (Vec<Mutation>, u64) {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let runs: Option<u64> = number("SEEDS");
    let chosen = match std::env::var("ONLY") {
        Ok(only) => all.into_iter().filter(|m| m.to_string() == only).collect(),
        Err(_) if runs.is_some() => all,
        Err(_) => soon.to_vec(),
    };
    (chosen, runs.unwrap_or(soon_runs))
}
