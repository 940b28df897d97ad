//! Runs of the model and what they report.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{
    Checker, CheckerBuilder, Expectation, HasDiscoveries, Model, Path, UniformChooser,
};

use crate::action::Action;
use crate::settings::Settings;
use crate::state::State;

/// How states are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Breadth first, until all states within the bounds are visited.
    Exhaustive,
    /// Breadth first, until so many were generated.
    Bounded(usize),
    /// Random walks for a time, from a seed.
    Simulation(Duration, u64),
}

/// A violated property, with the steps that lead there.
#[derive(Clone, Debug)]
pub struct Violation {
    pub property: &'static str,
    pub trace: Vec<(State, Option<Action>)>,
}

impl Violation {
    /// How many steps lead there.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.trace.len() - 1
    }

    /// P1, R3 and so on.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.property.split(' ').next().unwrap_or(self.property)
    }
}

/// What a run saw.
#[derive(Clone, Debug)]
pub struct Report {
    pub unique: usize,
    pub generated: usize,
    pub depth: usize,
    /// Whether all states within the bounds were visited.
    pub exhausted: bool,
    pub elapsed: Duration,
    pub violations: Vec<Violation>,
    /// Situations that were never reached.
    pub unreached: Vec<&'static str>,
}

/// Visits states until the search ends or a property is violated.
#[must_use]
pub fn run(settings: &Settings, search: Search, threads: usize) -> Report {
    let begun = Instant::now();
    let checker = settings.clone().checker().threads(threads);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    match search {
        Search::Exhaustive => report(settings, begun, None, join(checker)),
        Search::Bounded(max) => report(
            settings,
            begun,
            Some(max),
            join(checker.target_state_count(max)),
        ),
        Search::Simulation(time, seed) => {
            let walks = checker.timeout(time).spawn_simulation(seed, UniformChooser);
            report(settings, begun, Some(0), walks.join())
        }
    }
}

fn join(checker: CheckerBuilder<Settings>) -> impl Checker<Settings> {
    checker.spawn_bfs().join()
}

fn report(
    settings: &Settings,
    begun: Instant,
    bound: Option<usize>,
    checker: impl Checker<Settings>,
) -> Report {
    let mut found = checker.discoveries();
    let mut violations = Vec::new();
    let mut unreached = Vec::new();
    for property in settings.properties() {
        match (property.expectation, found.remove(property.name)) {
            (Expectation::Always, Some(path)) => {
                let trace = Path::into_vec(path);
                violations.push(Violation {
                    property: property.name,
                    trace,
                });
            }
            (Expectation::Sometimes, None) => unreached.push(property.name),
            _ => {}
        }
    }
    let generated = checker.state_count();
    Report {
        unique: checker.unique_state_count(),
        generated,
        depth: checker.max_depth(),
        exhausted: violations.is_empty() && bound.is_none_or(|bound| generated < bound),
        elapsed: begun.elapsed(),
        violations,
        unreached,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match (self.exhausted, self.violations.is_empty()) {
            (true, _) => "exhaustive, hold",
            (false, true) => "BOUNDED, no violation",
            (false, false) => "VIOLATED",
        };
        write!(
            f,
            "unique {} generated {} depth {} in {:.0} s: {how}",
            self.unique,
            self.generated,
            self.depth,
            self.elapsed.as_secs_f32()
        )?;
        if self.violations.is_empty() {
            let names = self.unreached.iter();
            let names: Vec<_> = names.filter_map(|name| name.split(' ').next()).collect();
            write!(f, "; not reached: {names:?}")?;
        }
        for violation in &self.violations {
            write!(
                f,
                "\n  {}: {} steps:",
                violation.property,
                violation.steps()
            )?;
            for action in violation.trace.iter().filter_map(|(_, action)| *action) {
                let action: String = format!("{action:?}").chars().take(40).collect();
                write!(f, " {action};")?;
            }
        }
        Ok(())
    }
}
