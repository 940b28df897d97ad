//! Counts operations and how long they took.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::process::{self, Usage};

/// Operations to make room for at once.
const LATENCIES_EXPECTED: usize = 1 << 20;

/// What is counted while a load runs, and more closely within the window.
#[derive(Debug)]
pub(crate) struct Meter {
    counting: Cell<bool>,
    /// Of the window, in microseconds.
    latencies_us: RefCell<Vec<u32>>,
    /// Since the load began.
    ops: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            counting: Cell::new(false),
            latencies_us: RefCell::new(Vec::with_capacity(LATENCIES_EXPECTED)),
            ops: Cell::new(0),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
        }
    }

    /// An operation is done.
    pub(crate) fn note(&self, took: Duration) {
        self.ops.set(self.ops.get() + 1);
        if self.counting.get() {
            let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            self.latencies_us.borrow_mut().push(micros);
        }
    }

    pub(crate) fn note_error(&self, error: &anyhow::Error) {
        self.errors.set(self.errors.get() + 1);
        self.first_error
            .borrow_mut()
            .get_or_insert_with(|| format!("{error:#}"));
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.get()
    }

    pub(crate) fn first_error(&self) -> Option<String> {
        self.first_error.borrow().clone()
    }

    /// Operations since the load began.
    pub(crate) fn ops(&self) -> u64 {
        self.ops.get()
    }

    /// Counts latencies closely until `until` is over; processor time is not looked at.
    pub(crate) async fn count_while(
        &self,
        until: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Counted> {
        let begun = std::time::Instant::now();
        self.counting.set(true);
        let ended = until.await;
        self.counting.set(false);
        ended?;
        let mut latencies_us = self.latencies_us.take();
        latencies_us.sort_unstable();
        Ok(Counted {
            took: begun.elapsed(),
            latencies_us,
            client_cpu: Duration::ZERO,
            server_cpu: Duration::ZERO,
        })
    }

    /// Counts closely for `window`.
    pub(crate) async fn count(&self, window: Duration, pids: &[u32]) -> anyhow::Result<Counted> {
        let server = Usage::of(pids)?;
        let client = process::own_cpu();
        let begun = std::time::Instant::now();
        self.counting.set(true);
        tokio::time::sleep(window).await;
        self.counting.set(false);
        let took = begun.elapsed();
        let client = process::own_cpu() - client;
        let server = Usage::of(pids)?.since(&server);
        let mut latencies_us = self.latencies_us.take();
        latencies_us.sort_unstable();
        Ok(Counted {
            took,
            latencies_us,
            client_cpu: client,
            server_cpu: server.cpu,
        })
    }
}

/// What a window held.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) took: Duration,
    /// One for each operation, sorted.
    pub(crate) latencies_us: Vec<u32>,
    pub(crate) client_cpu: Duration,
    pub(crate) server_cpu: Duration,
}

impl Counted {
    /// The latency that `percent` of the operations do not exceed, in milliseconds.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let slot = (self.latencies_us.len().saturating_sub(1)) * percent / 100;
        self.latencies_us
            .get(slot)
            .map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
    }
}
