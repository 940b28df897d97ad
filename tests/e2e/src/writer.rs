//! A client that writes one key after the other, at whichever node answers, and remembers what was
//! acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use kine2_proto::decoded::KeyValue;
use prost::Message;
use tonic::Code;

use crate::client::Client;

/// How long an attempt may take before the other node is asked.
pub const ATTEMPT: Duration = Duration::from_millis(100);

/// Enough to fill segments of the log while something happens.
const VALUE_BYTES: usize = 1_000;
/// Pause after each write, so that a test leaves the machine to others.
const PAUSE: Duration = Duration::from_millis(2);

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// Its number: the key is `w/` and eight digits.
    pub number: u64,
    /// The revision in the answer.
    pub revision: i64,
    /// When the answer came.
    pub at: Instant,
}

/// What a writer saw.
#[derive(Debug, Default)]
pub struct Written {
    /// In order.
    pub acked: Vec<Acked>,
    /// Attempts that failed otherwise than by the client's own deadline.
    pub failed: Vec<String>,
    /// Attempts that the client gave up.
    pub given_up: usize,
    /// When it ended.
    pub ended: Option<Instant>,
}

impl Written {
    /// The longest time without an answer after `from`.
    #[must_use]
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let after = self.acked.iter().map(|acked| acked.at);
        let after: Vec<Instant> = after.filter(|at| *at >= from).collect();
        let first = after.first().map(|first| *first - from);
        let last = after
            .last()
            .zip(self.ended)
            .map(|(last, end)| end.saturating_duration_since(*last));
        let gaps = after.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.chain(first).chain(last).max().unwrap_or(Duration::MAX)
    }
}

/// The key of a write.
#[must_use]
pub fn key(number: u64) -> String {
    format!("w/{number:08}")
}

/// Writes until it is told to stop.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    newest: Arc<AtomicI64>,
    task: tokio::task::JoinHandle<Written>,
}

impl Writer {
    /// Begins with the first of these endpoints, and stays where it is answered.
    #[must_use]
    pub fn start(urls: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<Client> = urls.iter().map(|url| Client::new(url)).collect();
        let newest = Arc::new(AtomicI64::new(0));
        let task = tokio::spawn(run(clients, Arc::clone(&stop), Arc::clone(&newest)));
        Self { stop, newest, task }
    }

    /// The newest revision that was acknowledged, as it goes on.
    #[must_use]
    pub fn newest(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.newest)
    }

    /// Ends it.
    ///
    /// # Panics
    /// If it panicked.
    pub async fn finish(self) -> Written {
        let ended = Some(Instant::now());
        self.stop.store(true, Ordering::Relaxed);
        let written = self.task.await.unwrap();
        Written { ended, ..written }
    }
}

async fn run(clients: Vec<Client>, stop: Arc<AtomicBool>, newest: Arc<AtomicI64>) -> Written {
    let mut written = Written::default();
    let (mut number, mut at) = (0, 0);
    let value = "x".repeat(VALUE_BYTES);
    while !stop.load(Ordering::Relaxed) {
        let answer = clients[at].put(&key(number), &value, ATTEMPT).await;
        match answer {
            Ok(revision) => {
                written.acked.push(Acked {
                    number,
                    revision,
                    at: Instant::now(),
                });
                newest.fetch_max(revision, Ordering::Relaxed);
                number += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => {
                if status.code() == Code::DeadlineExceeded {
                    written.given_up += 1;
                } else {
                    written.failed.push(format!("{status:?}"));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // The same write again: it is a put, and nobody else writes the key.
                at = (at + 1) % clients.len();
            }
        }
    }
    written
}

/// Checks what was acknowledged against what a node holds: nothing is lost, and revisions never
/// went back.
///
/// # Panics
/// If something was.
pub async fn check(written: &Written, client: &Client) {
    let patience = Duration::from_secs(30);
    let held = client.all(false, patience).await.unwrap();
    let keys: std::collections::BTreeSet<_> = held
        .kvs
        .iter()
        .map(|kv| KeyValue::decode(kv.0.clone()).unwrap().key)
        .collect();
    let mut last = 0;
    for acked in &written.acked {
        let name = key(acked.number);
        assert!(
            keys.contains(name.as_bytes()),
            "{name} was acknowledged and is lost"
        );
        assert!(
            acked.revision > last,
            "{name}: revision {} after {last}",
            acked.revision
        );
        last = acked.revision;
    }
    assert!(held.header.unwrap().revision >= last, "the store went back");
}
