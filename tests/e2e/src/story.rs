//! A pair under load, to which things happen.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::fault::Fault;
use crate::pair::{Node, Pair};
use crate::watcher::{self, Watcher};
use crate::writer::{self, Writer, Written};

const PATIENCE: Duration = Duration::from_secs(10);

/// Both endpoints, that of `first` first.
#[must_use]
pub fn urls(pair: &Pair, first: Node) -> Vec<String> {
    vec![pair.url(first), pair.url(first.other())]
}

/// Both nodes hold the same, and all that was acknowledged.
///
/// # Panics
/// If they do not.
pub async fn check_equal(pair: &Pair, written: &Written) {
    pair.wait_until_mirrored();
    let [a, b] = [Node::A, Node::B].map(|node| Client::new(&pair.url(node)));
    writer::check(written, &a).await;
    writer::check(written, &b).await;
    let revision = a.get("x", false, PATIENCE).await.unwrap().0;
    assert_eq!(
        a.hash(revision, PATIENCE).await.unwrap(),
        b.hash(revision, PATIENCE).await.unwrap(),
        "the nodes hold different data"
    );
}

/// The longest gap between two answers that a fault makes, as a client that has both endpoints and
/// gives each attempt 100 ms sees it; and the attempts that failed otherwise than by its own
/// deadline. What must hold is checked.
///
/// # Panics
/// If something does not hold.
pub async fn gap(fault: Fault) -> (Duration, Vec<String>) {
    let mut pair = Pair::start();
    let primary = pair.primary();
    let writer = Writer::start(&urls(&pair, primary));
    // A node that started lately gives its peer more time.
    pause(3_500).await;
    let begun = Instant::now();
    fault.strike(&mut pair, primary);
    pause(if fault == Fault::KillBoth { 100 } else { 2_000 }).await;
    fault.mend(&mut pair, primary);
    pair.wait_for_primary();
    pause(300).await;
    let written = writer.finish().await;
    let failed = written.failed.clone();
    check_equal(&pair, &written).await;
    (written.longest_gap(begun), failed)
}

/// Lets random things happen to a pair under load for so long, and checks what must hold: what was
/// acknowledged is there, revisions never went back, each event was seen once, both nodes hold the
/// same. What happened, in order.
///
/// # Panics
/// If something does not hold.
pub async fn random(seed: u64, length: Duration) -> Vec<String> {
    let mut random = Random(seed);
    let mut pair = Pair::start();
    let writer = Writer::start(&urls(&pair, Node::A));
    let watcher = Watcher::start(&urls(&pair, Node::B));
    let begun = Instant::now();
    let mut happened = Vec::new();
    while begun.elapsed() < length {
        pause(200 + random.below(1_500)).await;
        let primary = pair.primary();
        let fault = Fault::ALL[usize::try_from(random.below(8)).unwrap()];
        happened.push(format!(
            "{:?} {fault} ({})",
            begun.elapsed(),
            primary.name()
        ));
        fault.strike(&mut pair, primary);
        pause(random.below(2_500)).await;
        fault.mend(&mut pair, primary);
        // Most often the next thing happens to a pair that is whole.
        if random.below(4) > 0 {
            pair.wait_until_mirrored();
        } else {
            pair.wait_for_primary();
        }
    }
    pair.wait_until_mirrored();
    let written = writer.finish().await;
    pause(1_000).await;
    let seen = watcher.finish().await;
    watcher::check(&seen, &written.acked);
    let newest = seen.events.last().map_or(0, |(revision, _)| *revision);
    let last = written.acked.last().map_or(0, |acked| acked.revision);
    assert!(
        newest >= last,
        "the watch ended at {newest}, writes at {last}"
    );
    check_equal(&pair, &written).await;
    happened.push(format!("{} writes acknowledged", written.acked.len()));
    happened
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
