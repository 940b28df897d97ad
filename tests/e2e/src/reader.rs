//! A client that reads at either node in turn: a read that begins after a write was acknowledged
//! must know of it, wherever it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::client::Client;

const ATTEMPT: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_millis(5);

/// Reads until it is told to stop.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<usize>,
}

impl Reader {
    /// Reads at these endpoints; `acked` is the newest revision that was acknowledged to others.
    #[must_use]
    pub fn start(urls: &[String], acked: Arc<AtomicI64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<Client> = urls.iter().map(|url| Client::new(url)).collect();
        let task = tokio::spawn(run(clients, acked, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Ends it: how many reads were answered.
    ///
    /// # Panics
    /// If one was answered with less than was known.
    pub async fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn run(clients: Vec<Client>, acked: Arc<AtomicI64>, stop: Arc<AtomicBool>) -> usize {
    let (mut reads, mut last) = (0, 0);
    for client in clients.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let known = acked.load(Ordering::Relaxed).max(last);
        if let Ok((revision, _)) = client.get("x", false, ATTEMPT).await {
            assert!(revision >= known, "read {revision} after {known} was known");
            last = revision;
            reads += 1;
        }
        tokio::time::sleep(EVERY).await;
    }
    reads
}
