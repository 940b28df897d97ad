//! The thread that owns the log: one write and one flush for everything that waits.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kine2_node::LogEntry;
use kine2_wal::{FileDisk, LogIndex, Term, Wal, WalError};
use tracing::warn;

use super::log_space::LogSpace;
use super::metrics::RuntimeMetrics;
use super::shared::{Finished, Shared};

/// The real log.
pub(super) type Log = Wal<FileDisk>;

/// Quiet time after which the next segment is made ready.
const IDLE: Duration = Duration::from_millis(20);
/// How often a full disk is looked at again.
const FULL_RETRY: Duration = Duration::from_secs(5);

/// Bytes appended after which the next segment is brought a step nearer although it is not quiet.
/// A step zeroes twice as much, so a segment is ready when the one before it is half full; made
/// when it is needed, all its steps would stand before one batch.
const STEP_EVERY_BYTES: usize = 512 << 10;

#[derive(Debug)]
enum Job {
    Append(Vec<LogEntry>),
    CutBelow(u64),
}

/// The thread and the way to it. The node hands out one batch at a time, so the channel is
/// bounded by that and by cuts, one for each checkpoint.
#[derive(Debug)]
pub(super) struct LogThread {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl LogThread {
    pub(super) fn spawn(
        log: Log,
        space: LogSpace,
        shared: Arc<Shared>,
        metrics: Arc<RuntimeMetrics>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || run(log, space, &shared, &metrics, &queue))?;
        Ok(Self { jobs, thread })
    }

    pub(super) fn append(&self, entries: Vec<LogEntry>) {
        self.send(Job::Append(entries));
    }

    pub(super) fn cut_below(&self, index: u64) {
        self.send(Job::CutBelow(index));
    }

    /// Waits until all jobs are done.
    pub(super) fn join(self) {
        drop(self.jobs);
        self.thread.join().expect("the log thread does not panic");
    }

    fn send(&self, job: Job) {
        self.jobs
            .send(job)
            .expect("the thread runs until the channel is closed");
    }
}

/// What quiet time is for, a step at a time, so that a batch never waits for long: making the next
/// segment ready, then noting that the last batch was durable, so that damage to it is not taken
/// for a write that a power cut tore. Answers whether there is more to do.
fn use_quiet_time(log: &mut Log, space: &mut LogSpace, shared: &Shared) -> Result<bool, WalError> {
    if space.prepare(log, shared)? {
        return Ok(true);
    }
    log.mark()?;
    Ok(false)
}

/// Does as many steps towards the next segment as `appended` bytes ask for, and takes them off.
fn keep_pace(
    log: &mut Log,
    space: &mut LogSpace,
    shared: &Shared,
    appended: &mut usize,
) -> Result<(), WalError> {
    while *appended >= STEP_EVERY_BYTES {
        *appended -= STEP_EVERY_BYTES;
        if !space.prepare(log, shared)? {
            *appended = 0;
        }
    }
    Ok(())
}

fn run(
    mut log: Log,
    mut space: LogSpace,
    shared: &Shared,
    metrics: &RuntimeMetrics,
    queue: &Receiver<Job>,
) {
    let mut is_busy = true;
    let mut appended = 0;
    loop {
        let next = if is_busy {
            queue.recv_timeout(IDLE)
        } else if space.is_full() {
            queue.recv_timeout(FULL_RETRY)
        } else {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        is_busy = next.is_ok();
        let result = match next {
            Ok(Job::Append(entries)) => {
                let begun = Instant::now();
                let result = append(&mut log, &entries);
                metrics.log_sync.observe(begun.elapsed());
                let is_written = result.is_ok();
                shared.finish(Finished::Logged(result));
                appended += entries.iter().map(|e| e.payload.len()).sum::<usize>();
                if is_written {
                    keep_pace(&mut log, &mut space, shared, &mut appended)
                } else {
                    Ok(())
                }
            }
            Ok(Job::CutBelow(index)) => log.cut_below(LogIndex(index)),
            Err(RecvTimeoutError::Timeout) => {
                metrics.log_bytes.set(log.size_bytes());
                use_quiet_time(&mut log, &mut space, shared).map(|more| is_busy = more)
            }
            Err(RecvTimeoutError::Disconnected) => {
                if let Err(error) = log.mark() {
                    warn!(%error, "the log's end was not marked");
                }
                return;
            }
        };
        if result.is_err() {
            // The log is closed now: the next batch would fail, and this one tells why.
            shared.finish(Finished::Logged(result));
        }
    }
}

fn append(log: &mut Log, entries: &[LogEntry]) -> Result<(), WalError> {
    for entry in entries {
        let term = Term {
            epoch: entry.position.epoch,
            run: entry.position.run,
        };
        let placed = log.append(term, &entry.payload)?;
        assert_eq!(
            placed.index.0, entry.position.index,
            "the node and the log count alike"
        );
    }
    log.sync()
}
