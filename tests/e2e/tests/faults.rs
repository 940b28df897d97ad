//! Each fault by itself, on a pair under load. What must hold is checked by `story::play`: nothing
//! acknowledged is lost, reads know of it, revisions never go back, watches are complete, there are
//! never two primaries, both nodes hold the same in the end. Some are left to the long tier: `LONG=1`
//! plays all.
#![expect(clippy::print_stdout, reason = "what is passed over says why")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::Duration;

use kine2_e2e::fault::Fault;
use kine2_e2e::lab::{Lab, Machine};
use kine2_e2e::pair::{Node, Pair};
use kine2_e2e::story::{pair_for, play};

/// Nobody goes on while it lasts.
const OUTAGE: Duration = Duration::MAX;

/// A fault that lasts so long; no write waits longer than `gap` from it on. Passed over, with the
/// reason, where it cannot be made.
fn happens(fault: Fault, lasts_ms: u64, gap: Duration) -> Option<Pair> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let mut pair = match pair_for(fault) {
            Ok(pair) => pair,
            Err(why) => {
                println!("passed over: {fault}: {why}");
                return None;
            }
        };
        let (lasts, after) = (Duration::from_millis(lasts_ms), Duration::from_millis(500));
        let longest = play(&mut pair, fault, lasts, after).await;
        println!("{fault}: longest gap {longest:?}");
        assert!(longest < gap, "{fault}: {longest:?}");
        Some(pair)
    })
}

/// The same, in the long tier.
fn happens_for_long(fault: Fault, lasts_ms: u64, gap: Duration) {
    match std::env::var_os("LONG") {
        Some(_) => drop(happens(fault, lasts_ms, gap)),
        None => println!("left to the long tier (LONG=1): {fault}"),
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_link_is_cut() {
    happens(Fault::CutLink, 2_000, seconds(4));
}

#[test]
fn the_link_is_cut_from_the_primary_on() {
    happens(Fault::CutToSecondary, 2_000, seconds(4));
}

#[test]
fn the_link_is_cut_to_the_primary() {
    happens_for_long(Fault::CutToPrimary, 2_000, seconds(4));
}

#[test]
fn the_primary_is_cut_off() {
    let pair = happens(Fault::CutOffPrimary, 3_000, seconds(5));
    if let Some(pair) = pair {
        assert_eq!(pair.primary(), Node::B);
    }
}

#[test]
fn the_secondary_is_cut_off() {
    happens_for_long(Fault::CutOffSecondary, 3_000, seconds(5));
}

/// The witness hears that the primary goes on alone, and the primary does not hear that it may.
#[test]
fn the_primary_is_deaf() {
    happens_for_long(Fault::DeafPrimary, 4_000, OUTAGE);
}

#[test]
fn the_witness_is_cut_off_and_nobody_notices() {
    happens_for_long(Fault::CutOffWitness, 5_000, seconds(1));
}

#[test]
fn the_link_is_slow() {
    happens_for_long(Fault::SlowLink, 8_000, seconds(8));
}

#[test]
fn the_disk_of_the_secondary_is_full() {
    happens(Fault::FullSecondary, 7_000, seconds(5));
}

#[test]
fn the_disk_of_the_primary_is_full() {
    happens_for_long(Fault::FullPrimary, 7_000, OUTAGE);
}

#[test]
fn a_flush_of_the_primary_fails() {
    happens(Fault::FlushPrimary, 1_500, seconds(4));
}

#[test]
fn a_flush_of_the_secondary_fails() {
    happens_for_long(Fault::FlushSecondary, 1_500, seconds(4));
}

#[test]
fn the_primary_is_wiped_and_joins_again() {
    happens_for_long(Fault::WipePrimary, 1_000, seconds(4));
}

#[test]
fn the_secondary_is_wiped_and_joins_again() {
    happens_for_long(Fault::WipeSecondary, 1_000, seconds(4));
}

#[test]
fn both_are_powered_off() {
    happens(Fault::PowerCut, 500, OUTAGE);
}

#[test]
fn nodes_are_restarted_in_a_storm() {
    happens_for_long(Fault::RestartStorm, 0, OUTAGE);
}

#[test]
fn roles_are_swapped_in_a_storm() {
    happens_for_long(Fault::SwapStorm, 0, seconds(3));
}

#[test]
fn the_secondary_stands_still_and_goes_on() {
    happens_for_long(Fault::StopSecondary, 3_000, seconds(5));
}

/// The image is older than the configuration in force, which says that its node is out: it waits.
#[test]
fn a_node_with_an_old_image_of_its_disk_does_not_serve_it() {
    let Some(mut pair) = happens(Fault::OldImage, 500, seconds(4)) else {
        return;
    };
    assert_eq!(pair.primary(), Node::A);
    pair.kill(Node::B);
    pair.wait_for(Node::A, "ALONE");
    pair.kill(Node::A);
    pair.restore_image(Node::B);
    pair.start_node(Node::B);
    pair.wait_for(Node::B, "WAIT (outdated)");
    // Longer than a node waits for the primary after its start.
    pair.stays(Node::B, "WAIT (outdated)", seconds(6));
    pair.start_node(Node::A);
    pair.wait_until_mirrored();
}

#[test]
fn a_lab_goes_away_when_a_test_panics() {
    let Ok(lab) = Lab::set_up() else {
        println!("passed over: there can be no lab here");
        return;
    };
    let address = lab.client_address(Machine::A);
    let is_there = || {
        let routes = std::process::Command::new("ip")
            .arg("route")
            .output()
            .unwrap();
        let network = address.rsplit_once('.').unwrap().0;
        String::from_utf8(routes.stdout).unwrap().contains(network)
    };
    assert!(is_there());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _lab = lab;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(!is_there());
}
