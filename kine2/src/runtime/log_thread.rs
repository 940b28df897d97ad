//! The thread that owns the log: one write and one flush for everything that waits.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kine2_node::{Cut, LogRead, LogRecord, LogWrite};
use kine2_wal::{Entry, FileDisk, LogIndex, Position, Wal, WalError};
use tracing::warn;

use super::log_space::LogSpace;
use super::metrics::RuntimeMetrics;
use super::quarantine::{ToPutAway, put_away_entries};
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
    Write(LogWrite),
    Read(LogRead),
    Cut(Cut),
    Locate(LogIndex),
    PutAway(Box<ToPutAway>),
}

/// The thread and the way to it. The node has one batch of entries under way at a time, and one
/// read; so the channel is bounded by these, by changes of the node's own record, by cuts, one
/// for each checkpoint, and by quarantines, one at a time.
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

    pub(super) fn write(&self, write: LogWrite) {
        self.send(Job::Write(write));
    }

    pub(super) fn read(&self, read: LogRead) {
        self.send(Job::Read(read));
    }

    pub(super) fn cut(&self, cut: Cut) {
        self.send(Job::Cut(cut));
    }

    /// Asks for the position of an entry.
    pub(super) fn locate(&self, index: LogIndex) {
        self.send(Job::Locate(index));
    }

    pub(super) fn put_away(&self, wanted: Box<ToPutAway>) {
        self.send(Job::PutAway(wanted));
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
            Ok(Job::Write(write)) => {
                let begun = Instant::now();
                let result = carry_out(&mut log, &write);
                metrics.log_sync.observe(begun.elapsed());
                let is_written = result.is_ok();
                shared.finish(Finished::Logged(result.map(|()| write.id)));
                appended += payload_bytes(&write);
                if is_written {
                    keep_pace(&mut log, &mut space, shared, &mut appended)
                } else {
                    Ok(())
                }
            }
            Ok(Job::Read(wanted)) => {
                let result = read(&log, &wanted);
                shared.finish(Finished::LogRead(wanted.reader, result));
                Ok(())
            }
            Ok(Job::Locate(index)) => {
                let position = match index < log.base().index {
                    true => Ok(None),
                    false => log.position_at(index).map(Some),
                };
                position.map(|position| shared.finish(Finished::Exporting(position)))
            }
            Ok(Job::Cut(cut)) => {
                let below = space.first_to_keep(&log, cut);
                let result = log.cut_below(below);
                shared.finish(Finished::LogCut(log.base()));
                result
            }
            Ok(Job::PutAway(wanted)) => {
                let result = put_away_entries(&log, &shared.data_dir, &wanted);
                shared.finish(Finished::PutAway(wanted, result));
                Ok(())
            }
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
        let result = result.and_then(|()| match space.take_spared() {
            Some(below) => {
                log.cut_below(below)?;
                shared.finish(Finished::LogCut(log.base()));
                Ok(())
            }
            None => Ok(()),
        });
        if let Err(error) = result {
            // The log is closed now: the next batch would fail, and this one tells why.
            shared.finish(Finished::Logged(Err(error)));
        }
    }
}

/// Writes the records and flushes them.
fn carry_out(log: &mut Log, write: &LogWrite) -> Result<(), WalError> {
    for record in &write.records {
        match record {
            LogRecord::Hard(bytes) => log.set_hard_state(bytes.clone())?,
            LogRecord::Truncate(last) => log.truncate_after(last.index)?,
            LogRecord::Entries(entries) => {
                for Entry { position, payload } in entries {
                    let placed = log.append(position.term, payload)?;
                    assert_eq!(placed, *position, "the node and the log count alike");
                }
            }
            LogRecord::Reset(base, bytes) => log.reset_to(*base, Some(bytes.clone()))?,
        }
    }
    log.sync()
}

fn payload_bytes(write: &LogWrite) -> usize {
    let of_record = |record: &LogRecord| match record {
        LogRecord::Entries(entries) => entries.iter().map(|entry| entry.payload.len()).sum(),
        _ => 0,
    };
    write.records.iter().map(of_record).sum()
}

/// The position before the first entry wanted, and entries; the base alone if the log was cut
/// beyond it.
fn read(log: &Log, wanted: &LogRead) -> Result<(Position, Vec<Entry>), WalError> {
    let before = LogIndex(wanted.from.0 - 1);
    if before < log.base().index {
        return Ok((log.base(), Vec::new()));
    }
    let prev = log.position_at(before)?;
    let entries = log.entries(wanted.from..wanted.through.next(), wanted.bytes_max)?;
    Ok((prev, entries))
}
