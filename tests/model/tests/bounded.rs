//! Within small bounds all states are visited and everything holds; each broken rule is caught within its own bounds.
//! The numbers of states are those of `docs/model.md`: a change of the model changes them, and both are then looked at.

use std::time::Duration;

use kine2_model::mutation::Mutation;
use kine2_model::run::{Report, Search, run};
use kine2_model::settings::{Force, Rollback, Settings};
use kine2_model::state::Pair;

/// Generated states after which a run of a broken rule that does no harm ends.
const HARMLESS_MAX: usize = 60_000;

/// Epochs to 3, one write to the lead or the other part, one crash, nothing else.
fn small(lead: u8, other: u8) -> Settings {
    Settings {
        epoch_max: 3,
        writes: Pair([lead, other]),
        reads: 0,
        voluntary: 0,
        ..Settings::default()
    }
}

/// All states are visited, so many, and all situations reached but these.
#[track_caller]
fn check(settings: &Settings, unique: usize, unreached: &[u8]) {
    let report = checked(settings, Search::Exhaustive);
    assert!(report.exhausted, "{report}");
    let expected: Vec<String> = unreached
        .iter()
        .map(|number| format!("L{number}"))
        .collect();
    let names = report
        .unreached
        .iter()
        .filter_map(|name| name.split(' ').next());
    assert_eq!(
        names.collect::<Vec<_>>(),
        expected,
        "situations not reached"
    );
    assert_eq!(report.unique, unique, "states");
}

#[track_caller]
fn checked(settings: &Settings, search: Search) -> Report {
    assert_eq!(settings.check(), Ok(()));
    let report = run(settings, search, 1);
    assert!(report.violations.is_empty(), "{report}");
    report
}

#[test]
fn failover_failback_and_swap() {
    let settings = Settings {
        voluntary: 1,
        ..small(0, 1)
    };
    check(&settings, 79_553, &[6, 7, 15]);
}

#[test]
fn reads_at_both_nodes() {
    let settings = Settings {
        crashes: 0,
        reads: 1,
        voluntary: 1,
        ..small(0, 1)
    };
    check(&settings, 79_095, &[]);
}

#[test]
fn a_part_that_is_away_from_the_start() {
    let settings = Settings {
        epoch_max: 4,
        starts: 8,
        ..small(0, 1)
    };
    check(&settings, 3_357, &[2, 5, 6, 7, 9, 15]);
}

#[test]
fn every_state_recovers() {
    let settings = Settings {
        crashes: 0,
        recover: true,
        ..small(0, 1)
    };
    check(&settings, 3_289, &[2, 4, 6, 7, 9, 12, 15]);
}

#[test]
fn without_a_witness_the_primary_decides() {
    let settings = Settings {
        without_takeover: true,
        voluntary: 1,
        ..small(0, 1)
    };
    check(&settings, 57_013, &[2, 6, 7, 15]);
}

#[test]
fn the_arbiter_changes_online() {
    let settings = Settings {
        epoch_max: 2,
        arbiter_moves: true,
        ..small(0, 1)
    };
    check(&settings, 35_303, &[2, 3, 4, 6, 7, 15]);
}

/// Two nodes that take themselves for the primary prepare the same new register.
#[test]
fn a_register_prepared_for_a_move_is_begun_anew_only_by_who_knows_as_much() {
    let settings = Settings {
        crashes: 0,
        arbiter_moves: true,
        inits: 2,
        starts: 3,
        ..small(1, 0)
    };
    check(&settings, 43_127, &[2, 6, 7, 9, 12, 13, 14, 15, 16]);
}

#[test]
fn who_reaches_a_named_address_goes_on_alone() {
    let settings = Settings {
        forces: 2,
        force: Force::Ping,
        forget_commit: true,
        starts: 1,
        ..small(1, 0)
    };
    check(
        &settings,
        8_483,
        &[3, 6, 7, 8, 11, 12, 13, 14, 15, 16, 21, 23],
    );
}

#[test]
fn logs_are_cut_and_snapshots_installed() {
    let settings = Settings {
        crashes: 0,
        cuts: 1,
        snapshots: 1,
        ..small(0, 1)
    };
    check(&settings, 36_714, &[2, 4, 6, 7, 9, 12, 15]);
}

#[test]
fn snapshots_of_the_lead_with_crashes_and_recovery() {
    let settings = Settings {
        starts: 1,
        cuts: 1,
        snapshots: 1,
        recover: true,
        ..small(1, 0)
    };
    check(&settings, 51_415, &[2, 6, 7, 11, 12, 13, 14, 15, 16, 19]);
}

#[test]
fn a_forced_promotion_at_the_witness() {
    let settings = Settings {
        forces: 1,
        forget_commit: true,
        ..small(1, 0)
    };
    check(&settings, 61_713, &[6, 7, 12, 13, 14, 15, 16]);
}

#[test]
fn a_forced_promotion_without_the_witness() {
    let settings = Settings {
        forces: 1,
        force: Force::WithoutWitness,
        forget_commit: true,
        ..small(1, 0)
    };
    check(&settings, 95_614, &[6, 7, 12, 13, 14, 15, 16]);
}

#[test]
fn forced_promotions_of_both_nodes() {
    let settings = Settings {
        crashes: 0,
        forces: 2,
        force: Force::WithoutWitness,
        forget_commit: true,
        ..small(1, 0)
    };
    check(&settings, 23_913, &[6, 7, 9, 12, 13, 14, 15, 16]);
}

#[test]
fn a_part_is_promoted_by_force() {
    let settings = Settings {
        forces: 1,
        starts: 4,
        forget_commit: true,
        ..small(0, 1)
    };
    check(&settings, 44_651, &[2, 4, 6, 7, 15]);
}

#[test]
fn a_losing_side_that_needs_a_snapshot() {
    let settings = Settings {
        crashes: 0,
        forces: 1,
        cuts: 1,
        snapshots: 1,
        starts: 2,
        ..small(2, 0)
    };
    check(&settings, 346_466, &[2, 6, 7, 9, 12, 13, 14, 15, 16, 19]);
}

#[test]
fn the_witness_comes_back_from_an_old_copy() {
    let settings = Settings {
        crashes: 0,
        rollback: Rollback::Connected,
        ..small(1, 0)
    };
    check(&settings, 54_356, &[2, 6, 7, 9, 12, 13, 14, 15, 16]);
}

/// The limit of W4: nodes that cannot reach the witness cannot warn it. Two nodes then serve.
#[test]
fn a_witness_from_an_old_copy_is_not_noticed_while_the_primary_is_cut_off() {
    let settings = Settings {
        crashes: 0,
        rollback: Rollback::CutOff,
        ..small(1, 0)
    };
    let report = run(&settings, Search::Exhaustive, 1);
    let names: Vec<_> = report.violations.iter().map(|found| found.name()).collect();
    assert!(names.contains(&"P5"), "{report}");
}

#[test]
fn the_first_states_of_wider_bounds() {
    let settings = Settings {
        epoch_max: 5,
        writes: Pair([1, 2]),
        starts: 15,
        ..Settings::default()
    };
    let report = checked(&settings, Search::Bounded(400_000));
    assert!(report.depth >= 6, "{report}");
}

/// Walks far beyond what can be visited in full. `KINE2_SEED` repeats one.
#[test]
fn random_walks() {
    let seed = match std::env::var("KINE2_SEED") {
        Ok(seed) => seed.parse().expect("KINE2_SEED is a number"),
        Err(_) => u64::from(std::process::id()),
    };
    println!("KINE2_SEED={seed}");
    let wide = Settings {
        epoch_max: 7,
        writes: Pair([2, 4]),
        crashes: 4,
        reads: 4,
        voluntary: 3,
        starts: 15,
        cuts: 3,
        snapshots: 3,
        ..Settings::default()
    };
    let forced = Settings {
        forces: 2,
        forget_commit: true,
        ..wide.clone()
    };
    for settings in [wide, forced] {
        let report = checked(&settings, Search::Simulation(Duration::from_secs(3), seed));
        assert!(report.depth > 20, "{report}");
    }
}

#[test]
fn broken_rules_are_caught() {
    let harmful = |mutation: &&Mutation| mutation.harmless().is_none();
    for mutation in Mutation::ALL.iter().filter(harmful) {
        let report = run(&mutation.bounds(), Search::Exhaustive, 1);
        assert!(!report.violations.is_empty(), "{mutation:?}: {report}");
    }
}

#[test]
fn broken_rules_thought_to_do_no_harm_do_none() {
    let harmless = |mutation: &&Mutation| mutation.harmless().is_some();
    for mutation in Mutation::ALL.iter().filter(harmless) {
        let report = run(&mutation.bounds(), Search::Bounded(HARMLESS_MAX), 1);
        assert!(report.violations.is_empty(), "{mutation:?}: {report}");
    }
}

#[test]
fn bounds_that_do_not_fit_are_refused() {
    let too_many = Settings {
        epoch_max: 10,
        ..Settings::default()
    };
    assert_eq!(too_many.check().unwrap_err(), "e=10: at most 9 is expected");
    let mixed = Settings {
        arbiter_moves: true,
        forces: 1,
        ..Settings::default()
    };
    assert!(mixed.check().unwrap_err().contains("separate switches"));
}
