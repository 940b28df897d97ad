//! Clients of a pair while something happens to it, and what must hold for them.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::pair::{Node, Pair};
use crate::reader::Reader;
use crate::roles::Roles;
use crate::watcher::{self, Watcher};
use crate::writer::{self, Writer, Written};

const PATIENCE: Duration = Duration::from_secs(10);

/// Both endpoints, that of `first` first.
#[must_use]
pub fn urls(pair: &Pair, first: Node) -> Vec<String> {
    vec![pair.url(first), pair.url(first.other())]
}

/// One that writes, one that reads, two that watch, one that asks the nodes for their roles.
#[derive(Debug)]
pub struct Load {
    begun: Instant,
    writer: Writer,
    reader: Reader,
    watchers: [Watcher; 2],
    roles: Roles,
}

impl Load {
    /// Begins; writes go to `first` while it answers.
    #[must_use]
    pub fn start(pair: &Pair, first: Node) -> Self {
        let writer = Writer::start(&urls(pair, first));
        Self {
            begun: Instant::now(),
            reader: Reader::start(&urls(pair, first), writer.newest()),
            watchers: Node::BOTH.map(|node| Watcher::start(&urls(pair, node))),
            roles: Roles::start(pair),
            writer,
        }
    }

    /// Ends, and checks what must hold: reads knew of all that was acknowledged before them,
    /// revisions never went back, each event was seen once by each watcher, there were never two
    /// primaries.
    ///
    /// # Panics
    /// If something does not hold.
    pub async fn finish(self, pair: &Pair) -> Written {
        let written = self.writer.finish().await;
        let last = written.acked.last().map_or(0, |acked| acked.revision);
        for watcher in self.watchers {
            let seen = watcher.finish(last).await;
            watcher::check(&seen, &written.acked);
        }
        let reads = self.reader.finish().await;
        let late = self.roles.finish(pair);
        eprintln!(
            "{} writes acknowledged, {} given up, {} refused; {reads} reads; a replaced primary \
             knew after {late:?}; all in {:?}",
            written.acked.len(),
            written.given_up,
            written.failed.len(),
            self.begun.elapsed()
        );
        written
    }
}

/// Both nodes hold the same, and all that was acknowledged.
///
/// # Panics
/// If they do not.
pub async fn check_equal(pair: &Pair, written: &Written) {
    pair.wait_until_mirrored();
    let [a, b] = Node::BOTH.map(|node| Client::new(&pair.url(node)));
    writer::check(written, &a).await;
    writer::check(written, &b).await;
    let revision = a.get("x", false, PATIENCE).await.unwrap().0;
    assert_eq!(
        a.hash(revision, PATIENCE).await.unwrap(),
        b.hash(revision, PATIENCE).await.unwrap(),
        "the nodes hold different data"
    );
}
