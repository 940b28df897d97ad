//! A client that writes one key after the other, at whichever node answers, and remembers what was
//! acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kine2_proto::decoded::KeyValue;
use prost::Message;
use tonic::Code;

use crate::client::Client;

/// How long an attempt may take before the other node is asked.
pub const ATTEMPT: Duration = Duration::from_millis(100);

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
}

impl Written {
    /// The longest time between two answers after `from`.
    #[must_use]
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let after = self.acked.iter().map(|acked| acked.at);
        let after: Vec<Instant> = after.filter(|at| *at >= from).collect();
        let first = after.first().map(|first| *first - from);
        let gaps = after.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.chain(first).max().unwrap_or(Duration::MAX)
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
    task: tokio::task::JoinHandle<Written>,
}

impl Writer {
    /// Begins with the first of these endpoints, and stays where it is answered.
    #[must_use]
    pub fn start(urls: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<Client> = urls.iter().map(|url| Client::new(url)).collect();
        let task = tokio::spawn(run(clients, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Ends it.
    ///
    /// # Panics
    /// If it panicked.
    pub async fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn run(clients: Vec<Client>, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written::default();
    let (mut number, mut at) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let answer = clients[at].put(&key(number), "x", ATTEMPT).await;
        match answer {
            Ok(revision) => {
                written.acked.push(Acked {
                    number,
                    revision,
                    at: Instant::now(),
                });
                number += 1;
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
