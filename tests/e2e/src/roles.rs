//! Who was the primary when, as the nodes say it: no epoch has two, and none of an earlier one goes
//! on beside one of a later.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::pair::{Node, Pair};
use crate::status::{ask, is_primary};

/// How often each node is asked.
const EVERY: Duration = Duration::from_millis(50);
/// Between two answers that came sooner a node did not stand still.
const ANSWERED_WITHIN: Duration = Duration::from_millis(200);
/// A primary that was replaced and does not know yet answers nothing, but says so this late.
const LATE_MAX: Duration = Duration::from_secs(2);

/// A time in which each answer of a node was the same.
#[derive(Clone, Debug)]
struct Tenure {
    node: Node,
    epoch: String,
    state: String,
    /// From the first answer to the last question.
    from: Instant,
    to: Instant,
}

/// Asks both nodes again and again.
#[derive(Debug)]
pub struct Roles {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Tenure>>>,
}

impl Roles {
    /// Begins.
    #[must_use]
    pub fn start(pair: &Pair) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = Node::BOTH.map(|node| {
            let (stop, dir) = (Arc::clone(&stop), pair.data_dir(node));
            thread::spawn(move || follow(node, &dir, &stop))
        });
        Self {
            stop,
            threads: threads.into(),
        }
    }

    /// Ends, and checks what the nodes said and logged. The longest time for which a primary that
    /// was replaced said that it was one.
    ///
    /// # Panics
    /// If there were two primaries.
    pub fn finish(self, pair: &Pair) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let tenures = self
            .threads
            .into_iter()
            .map(|thread| thread.join().unwrap());
        let tenures: Vec<Tenure> = tenures.flatten().collect();
        check_logs(pair);
        check(&tenures)
    }
}

fn follow(node: Node, dir: &Path, stop: &AtomicBool) -> Vec<Tenure> {
    let mut tenures: Vec<Tenure> = Vec::new();
    let mut is_same = false;
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let Some(status) = ask(dir) else {
            is_same = false;
            thread::sleep(EVERY);
            continue;
        };
        let text = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
        let (epoch, state) = (text("epoch"), text("state"));
        // It stood still meanwhile, or the machine did: what it was then is not known.
        is_same &= asked.elapsed() < ANSWERED_WITHIN;
        match tenures.last_mut() {
            Some(last) if is_same && last.epoch == epoch && last.state == state => last.to = asked,
            _ => tenures.push(Tenure {
                node,
                epoch,
                state,
                from: Instant::now(),
                to: asked,
            }),
        }
        is_same = true;
        thread::sleep(EVERY);
    }
    tenures
}

/// An epoch, as it is written: `COUNTER`, or `GENERATION:COUNTER`.
fn order_of(epoch: &str) -> (u64, u64) {
    let (generation, counter) = epoch.split_once(':').unwrap_or(("0", epoch));
    let number = |text: &str| text.parse().expect("an epoch is of numbers");
    (number(generation), number(counter))
}

fn check(tenures: &[Tenure]) -> Duration {
    let primaries = || tenures.iter().filter(|tenure| is_primary(&tenure.state));
    let mut latest = Duration::ZERO;
    for (one, other) in primaries().flat_map(|one| primaries().map(move |other| (one, other))) {
        if one.node == other.node {
            continue;
        }
        assert_ne!(
            one.epoch, other.epoch,
            "two primaries: {one:?} and {other:?}"
        );
        if order_of(&one.epoch) > order_of(&other.epoch) {
            continue;
        }
        // Of the earlier epoch; a tenure of one answer has no length.
        let both = one
            .to
            .min(other.to)
            .checked_duration_since(one.from.max(other.from));
        let Some(both) = both.filter(|both| !both.is_zero()) else {
            continue;
        };
        // It alone has the data: nobody can have replaced it.
        assert_ne!(one.state, "ALONE", "{other:?} beside {one:?}");
        assert!(both < LATE_MAX, "{one:?} was replaced by {other:?}");
        latest = latest.max(both);
    }
    latest
}

/// In all that both nodes logged, each epoch has one primary.
///
/// # Panics
/// If one has two.
fn check_logs(pair: &Pair) {
    let mut primaries: BTreeMap<(u64, u64), Node> = BTreeMap::new();
    for node in Node::BOTH {
        for line in pair.log(node.name()).lines() {
            let Some(said) = line.split("the unit's state here state=").nth(1) else {
                continue;
            };
            let Some((state, epoch)) = said.split_once(" epoch=") else {
                continue;
            };
            if is_primary(state) {
                let first = *primaries.entry(order_of(epoch)).or_insert(node);
                assert_eq!(first, node, "epoch {epoch} had two primaries");
            }
        }
    }
    assert!(!primaries.is_empty(), "no log tells of a primary");
}
