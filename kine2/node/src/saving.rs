//! How far the state's way to disk is: what the backend has, and what of it is durable there.
//!
//! Batches are counted as they are taken. The backend applies one at a time, and a checkpoint
//! makes durable those applied before it began.

use std::time::Duration;

use kine2_mutation::{Mutation, mutated};
use kine2_mvcc::{Applied, BackendStats, LogPosition, Revision, StateBatch};

/// How much is gathered before the backend gets it: a batch of many changes costs it little more
/// than one of a few, and rewrites its last block once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SaveBounds {
    /// Bytes of records.
    pub(crate) bytes: usize,
    /// Time since the first of them.
    pub(crate) delay: Duration,
}

/// When the state is to be made durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckpointBounds {
    /// Bytes of records.
    pub(crate) bytes: usize,
    /// Log entries.
    pub(crate) entries: u64,
    /// Time, if anything changed.
    pub(crate) interval: Duration,
}

/// The state on its way, and the compactions that wait for it.
#[derive(Debug)]
pub(crate) struct Saving<W> {
    bounds: CheckpointBounds,
    save_bounds: SaveBounds,
    /// Since when there is something the backend does not have and has not been given.
    gathering_since: Option<Duration>,
    /// Size of the backend as it was told last.
    pub(crate) stats: BackendStats,
    /// The batch the backend is applying: its revision and bytes.
    in_flight: Option<(Revision, usize)>,
    taken: u64,
    /// `<= taken`, and less by one at most.
    saved: u64,
    /// `<= saved`: what the last checkpoint covers, also while it is being made.
    covered: u64,
    /// `<= covered`.
    durable: u64,
    checkpointing: bool,
    /// The node is about to stop: checkpoint whatever there is.
    settling: bool,
    /// Record bytes saved since the last checkpoint began.
    bytes: usize,
    last_checkpoint: LogPosition,
    last_checkpoint_at: Duration,
    physical: Vec<Physical<W>>,
}

/// A compaction that is answered once its space work is durable (`etcd S25`).
#[derive(Debug)]
struct Physical<W> {
    waiter: W,
    applied: Applied,
    /// The batch that holds the last of its work; unknown while the work goes on.
    batch: Option<u64>,
}

impl<W> Saving<W> {
    pub(crate) fn new(save_bounds: SaveBounds, bounds: CheckpointBounds, now: Duration) -> Self {
        Self {
            bounds,
            save_bounds,
            gathering_since: None,
            stats: BackendStats::default(),
            in_flight: None,
            taken: 0,
            saved: 0,
            covered: 0,
            durable: 0,
            checkpointing: false,
            settling: false,
            bytes: 0,
            last_checkpoint: LogPosition::default(),
            last_checkpoint_at: now,
            physical: Vec::new(),
        }
    }

    /// Drops those who wait for a compaction.
    pub(crate) fn forget_waiters(&mut self) {
        self.physical.clear();
    }

    /// From now on everything is made durable as soon as it can be.
    pub(crate) const fn settle(&mut self) {
        self.settling = true;
    }

    pub(crate) const fn is_settling(&self) -> bool {
        self.settling
    }

    /// Whether all that was taken is durable.
    pub(crate) const fn is_settled(&self) -> bool {
        self.durable == self.taken
    }

    /// Whether the backend is applying a batch.
    pub(crate) const fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether the backend is to get what was gathered, `bytes` of records, now.
    pub(crate) fn is_save_due(&mut self, now: Duration, bytes: usize) -> bool {
        let since = *self.gathering_since.get_or_insert(now);
        let awaited = self.settling || !self.physical.is_empty();
        let SaveBounds { bytes: most, delay } = self.save_bounds;
        self.in_flight.is_none() && (awaited || bytes >= most || now >= since + delay)
    }

    pub(crate) fn on_taken(&mut self, batch: &StateBatch) {
        assert!(self.in_flight.is_none(), "one batch at a time");
        self.gathering_since = None;
        self.in_flight = Some((batch.revision, batch.record_bytes()));
        self.taken += 1;
    }

    /// The batch handed out is in the backend: its revision and bytes.
    pub(crate) fn on_saved(&mut self, stats: BackendStats) -> (Revision, usize) {
        let (revision, bytes) = self.in_flight.take().expect("a batch was handed out");
        self.saved += 1;
        self.bytes += bytes;
        self.stats = stats;
        (revision, bytes)
    }

    /// Whether a checkpoint is to be made before anything more is saved. A backend that never
    /// rests must not put it off: the log grows until then.
    pub(crate) fn is_checkpoint_due(&self, now: Duration, applied: LogPosition) -> bool {
        let entries = applied.index - self.last_checkpoint.index;
        let past_bounds = self.bytes >= self.bounds.bytes
            || entries >= self.bounds.entries
            || now >= self.last_checkpoint_at + self.bounds.interval;
        let awaited = |physical: &Physical<W>| {
            physical
                .batch
                .is_some_and(|batch| self.covered < batch && batch <= self.saved)
        };
        self.can_checkpoint() && (past_bounds || self.physical.iter().any(awaited))
    }

    /// Whether a checkpoint would find something to do and nothing in its way.
    pub(crate) const fn can_checkpoint(&self) -> bool {
        !self.checkpointing && self.in_flight.is_none() && self.covered < self.saved
    }

    /// When [`is_checkpoint_due`](Self::is_checkpoint_due) or
    /// [`is_save_due`](Self::is_save_due) becomes true by time alone.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let checkpoint = self
            .can_checkpoint()
            .then(|| self.last_checkpoint_at + self.bounds.interval);
        let gathering = self.gathering_since.filter(|_| self.in_flight.is_none());
        let save = gathering.map(|since| since + self.save_bounds.delay);
        checkpoint.into_iter().chain(save).min()
    }

    pub(crate) const fn start_checkpoint(&mut self) {
        self.checkpointing = true;
        self.covered = self.saved;
        self.bytes = 0;
    }

    /// The backend is durable up to `position`. Answers the index below which the log is not
    /// needed any more: that of the checkpoint before this one, so that there is still a way back
    /// should the backend lose its newest (`repl L6`).
    pub(crate) fn on_checkpointed(&mut self, now: Duration, position: LogPosition) -> Option<u64> {
        self.checkpointing = false;
        self.durable = self.covered;
        self.last_checkpoint_at = now;
        let mut before = std::mem::replace(&mut self.last_checkpoint, position);
        if mutated(Mutation::CutAtNewestCheckpoint) {
            before = position;
        }
        (before.index > 0).then_some(before.index + 1)
    }

    /// Has a compaction wait for its space work.
    pub(crate) fn await_space_work(&mut self, waiter: W, applied: Applied) {
        self.physical.push(Physical {
            waiter,
            applied,
            batch: None,
        });
    }

    /// The space work of all compactions is done; the last of it is in the batch that was taken
    /// last, or in the one that will be taken next.
    pub(crate) fn on_space_work_done(&mut self, in_next_batch: bool) {
        let last = self.taken + u64::from(in_next_batch);
        for physical in &mut self.physical {
            physical.batch.get_or_insert(last);
        }
    }

    /// The compactions whose work is durable.
    pub(crate) fn take_durable(&mut self) -> impl Iterator<Item = (W, Applied)> {
        let durable = match mutated(Mutation::CheckpointCoversAll) {
            true => self.taken,
            false => self.durable,
        };
        self.physical
            .extract_if(.., move |physical| {
                physical.batch.is_some_and(|batch| batch <= durable)
            })
            .map(|physical| (physical.waiter, physical.applied))
    }
}
