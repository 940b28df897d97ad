//! What a pair must do when something happens to it, as its clients see it.
#![expect(clippy::print_stdout, reason = "the measured gaps are of interest")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::{Duration, Instant};

use kine2_e2e::client::Client;
use kine2_e2e::load::{Load, check_equal};
use kine2_e2e::pair::{Node, Pair};
use kine2_e2e::writer::Written;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a story; it may block, as clients run on threads of their own.
fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(story)
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Something happens to a pair under load, and what must hold is checked; the longest time without
/// an acknowledged write from then on.
async fn under_load(
    pair: &mut Pair,
    first: Node,
    fault: impl FnOnce(&mut Pair),
    after_ms: u64,
) -> (Written, Duration) {
    let load = Load::start(pair, first);
    // A node that started lately gives its peer more time.
    pause(3_500).await;
    let begun = Instant::now();
    fault(pair);
    pause(after_ms).await;
    let written = load.finish(pair).await;
    assert!(
        written.acked.len() > 50,
        "hardly anything was written: {written:?}"
    );
    let gap = written.longest_gap(begun);
    println!("longest gap {gap:?}, refused: {:?}", written.failed);
    (written, gap)
}

#[test]
fn a_pair_serves_from_either_node() {
    run(async {
        let pair = Pair::start();
        let [a, b] = [Node::A, Node::B].map(|node| Client::new(&pair.url(node)));
        assert_eq!(pair.state(Node::A), "PRIM");
        assert_eq!(pair.state(Node::B), "SECOND");
        for (number, (here, there)) in [(&a, &b), (&b, &a)].into_iter().enumerate() {
            let name = format!("k{number}");
            let revision = here.put(&name, "v", PATIENCE).await.unwrap();
            // Whoever wrote finds it at once where it wrote, everybody everywhere by a
            // linearizable read.
            assert_eq!(here.get(&name, true, PATIENCE).await.unwrap().1, 1);
            let (read, found) = there.get(&name, false, PATIENCE).await.unwrap();
            assert!(found == 1 && read >= revision);
            assert_eq!(there.delete(&name, PATIENCE).await.unwrap(), 1);
        }
        let lease = b.grant(60, PATIENCE).await.unwrap();
        assert_ne!(lease, 0);
        let [of_a, of_b] = [a.status(PATIENCE).await, b.status(PATIENCE).await].map(Result::unwrap);
        assert_eq!(of_a.leader, of_b.leader);
        let members = b.members(PATIENCE).await.unwrap().members;
        let names: Vec<&str> = members.iter().map(|member| &member.name[..]).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(members.iter().all(|member| !member.client_ur_ls.is_empty()));
    });
}

#[test]
fn the_primary_is_killed_and_comes_back() {
    run(async {
        let mut pair = Pair::start();
        let (written, gap) = under_load(&mut pair, Node::A, |pair| pair.kill(Node::A), 1500).await;
        assert!(gap < Duration::from_secs(5), "{gap:?}");
        assert_eq!(pair.primary(), Node::B);
        pair.start_node(Node::A);
        check_equal(&pair, &written).await;
        assert_eq!(pair.state(Node::A), "SECOND");
    });
}

#[test]
fn the_secondary_is_killed_and_comes_back() {
    run(async {
        let mut pair = Pair::start();
        let (written, gap) = under_load(&mut pair, Node::A, |pair| pair.kill(Node::B), 1500).await;
        assert!(gap < Duration::from_secs(5), "{gap:?}");
        pair.start_node(Node::B);
        check_equal(&pair, &written).await;
    });
}

#[test]
fn the_primary_stands_still_and_goes_on() {
    run(async {
        let mut pair = Pair::start();
        let stop = |pair: &mut Pair| pair.signal(Node::A, Signal::STOP);
        let (written, gap) = under_load(&mut pair, Node::A, stop, 3000).await;
        assert!(gap < Duration::from_secs(5), "{gap:?}");
        pair.signal(Node::A, Signal::CONT);
        check_equal(&pair, &written).await;
        assert_eq!(pair.primary(), Node::B);
    });
}

#[test]
fn roles_are_swapped_under_load_and_nothing_fails() {
    run(async {
        let mut pair = Pair::start();
        let swap = |pair: &mut Pair| {
            pair.kine2(Node::A, &["swap"]);
        };
        let (written, gap) = under_load(&mut pair, Node::A, swap, 1000).await;
        assert!(gap < Duration::from_secs(5), "{gap:?}");
        assert!(written.failed.is_empty(), "{:?}", written.failed);
        check_equal(&pair, &written).await;
        assert_eq!(pair.primary(), Node::B);
    });
}

#[test]
fn a_stop_hands_the_role_over() {
    run(async {
        let mut pair = Pair::start();
        let stop = |pair: &mut Pair| {
            pair.signal(Node::A, Signal::TERM);
            pair.wait_for_end(Node::A);
        };
        let (written, gap) = under_load(&mut pair, Node::A, stop, 1000).await;
        assert!(gap < Duration::from_secs(5), "{gap:?}");
        pair.start_node(Node::A);
        check_equal(&pair, &written).await;
    });
}

#[test]
fn the_witness_is_killed_and_nobody_notices() {
    run(async {
        let mut pair = Pair::start();
        let (written, gap) = under_load(&mut pair, Node::A, Pair::kill_witness, 2000).await;
        assert!(gap < Duration::from_secs(2), "{gap:?}");
        // Without it nobody goes on alone.
        pair.kill(Node::B);
        pair.wait_for(Node::A, "WAIT");
        pair.start_witness();
        pair.wait_for(Node::A, "ALONE");
        pair.start_node(Node::B);
        check_equal(&pair, &written).await;
    });
}

#[test]
fn both_lose_power_and_come_back() {
    run(async {
        let mut pair = Pair::start();
        let both = |pair: &mut Pair| {
            pair.kill(Node::A);
            pair.kill(Node::B);
            pair.start_node(Node::B);
            pair.start_node(Node::A);
        };
        let (written, _) = under_load(&mut pair, Node::A, both, 6000).await;
        check_equal(&pair, &written).await;
    });
}

#[test]
fn a_node_that_was_wiped_joins_again_and_gets_all() {
    run(async {
        let mut pair = Pair::start();
        let wipe = |pair: &mut Pair| {
            pair.wipe(Node::B);
            pair.wait_for(Node::A, "ALONE");
            pair.join(Node::B);
        };
        let (written, _) = under_load(&mut pair, Node::A, wipe, 1000).await;
        check_equal(&pair, &written).await;
        // And it is as good as the other.
        let (more, _) = under_load(&mut pair, Node::A, |pair| pair.kill(Node::A), 1500).await;
        pair.start_node(Node::A);
        check_equal(&pair, &more).await;
        assert!(!written.acked.is_empty());
    });
}

/// `repl L6`: the log is kept for a peer that is out, over many checkpoints.
#[test]
fn a_node_that_was_away_catches_up_by_log() {
    run(async {
        let mut pair = Pair::start();
        pair.kill(Node::B);
        pair.wait_for(Node::A, "ALONE");
        let a = Client::new(&pair.url(Node::A));
        let value = "x".repeat(100 << 10);
        for number in 0..50 {
            let key = format!("big/{}", number % 20);
            a.put(&key, &value, PATIENCE).await.unwrap();
        }
        let start = |pair: &mut Pair| pair.start_node(Node::B);
        let (written, _) = under_load(&mut pair, Node::A, start, 500).await;
        check_equal(&pair, &written).await;
        let log = pair.log("a");
        assert!(!log.contains("sent a snapshot"), "{log}");
    });
}

#[test]
fn a_node_that_is_far_behind_gets_a_snapshot() {
    run(async {
        let mut pair = Pair::start();
        pair.wipe(Node::B);
        pair.wait_for(Node::A, "ALONE");
        let a = Client::new(&pair.url(Node::A));
        // More than the log keeps.
        let value = "x".repeat(100 << 10);
        for number in 0..300 {
            let key = format!("big/{}", number % 50);
            a.put(&key, &value, PATIENCE).await.unwrap();
        }
        let join = |pair: &mut Pair| pair.join(Node::B);
        let (written, _) = under_load(&mut pair, Node::A, join, 500).await;
        assert!(
            pair.log("a").contains("sent a snapshot"),
            "{}",
            pair.log("a")
        );
        check_equal(&pair, &written).await;
        // It starts again with what came, and takes over.
        pair.kill(Node::B);
        pair.start_node(Node::B);
        pair.wait_until_mirrored();
        let (written, _) = under_load(&mut pair, Node::A, |pair| pair.kill(Node::A), 1000).await;
        pair.start_node(Node::A);
        check_equal(&pair, &written).await;
    });
}
