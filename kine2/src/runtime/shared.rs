//! What the driver, the services and the two disk threads share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kine2_mvcc::{BackendError, BackendStats, LogPosition, StreamId};
use kine2_node::{Done, LogReader, Node, Rejected};
use kine2_replication::WriteId;
use kine2_wal::{Entry, Position, WalError};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// Who waits for an answer.
pub(super) type Waiter = oneshot::Sender<Result<Done, Rejected>>;

/// What a disk thread has finished.
#[derive(Debug)]
pub(super) enum Finished {
    /// The log's writes up to this one are durable.
    Logged(Result<WriteId, WalError>),
    /// Entries were read from the log: the position before them, and they.
    LogRead(LogReader, Result<(Position, Vec<Entry>), WalError>),
    /// The log begins after this position now.
    LogCut(Position),
    /// Whether the disk has no room for the log's next segment; told when it changes.
    LogFull(bool),
    /// The state batch is applied.
    Saved(Result<BackendStats, BackendError>),
    /// The state has another size.
    Sized(Result<BackendStats, BackendError>),
    /// The state is durable up to here.
    Checkpointed(Result<LogPosition, BackendError>),
}

/// The node and how to wake those who wait for it.
///
/// All of it is used on the runtime's one thread, except that the disk threads report through
/// [`finish`](Self::finish); the locks are never held across an await.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: Mutex<Node<Waiter>>,
    /// For messages.
    pub(super) data_dir: PathBuf,
    finished: Mutex<Vec<Finished>>,
    wake: Notify,
    streams: Mutex<BTreeMap<StreamId, Arc<Notify>>>,
    stopped: AtomicBool,
    /// The epoch of the configuration, which response headers show as `raft_term`.
    term: AtomicU64,
    started: Instant,
}

impl Shared {
    pub(super) fn new(node: Node<Waiter>, data_dir: PathBuf, started: Instant) -> Self {
        Self {
            term: AtomicU64::new(node.unit().config().epoch.0),
            node: Mutex::new(node),
            data_dir,
            finished: Mutex::new(Vec::new()),
            wake: Notify::new(),
            streams: Mutex::new(BTreeMap::new()),
            stopped: AtomicBool::new(false),
            started,
        }
    }

    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    pub(super) fn set_term(&self, epoch: u64) {
        self.term.store(epoch, Ordering::Relaxed);
    }

    /// The node's monotonic clock.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Has the driver look at the node.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for [`wake`](Self::wake) or [`finish`](Self::finish).
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Reports finished work of a disk thread.
    pub(super) fn finish(&self, finished: Finished) {
        self.finished.lock().push(finished);
        self.wake();
    }

    pub(super) fn take_finished(&self) -> Vec<Finished> {
        std::mem::take(&mut *self.finished.lock())
    }

    /// From now on nothing is answered any more.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        for stream in self.streams.lock().values() {
            stream.notify_one();
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Registers a watch stream; its [`Notify`] fires when it has something to send.
    pub(super) fn open_stream(&self) -> (StreamId, Arc<Notify>) {
        let id = self.node.lock().open_stream();
        let ready = Arc::new(Notify::new());
        self.streams.lock().insert(id, Arc::clone(&ready));
        (id, ready)
    }

    pub(super) fn close_stream(&self, id: StreamId) {
        self.streams.lock().remove(&id);
        self.node.lock().close_stream(id);
    }

    pub(super) fn stream_ready(&self, id: StreamId) {
        if let Some(ready) = self.streams.lock().get(&id) {
            ready.notify_one();
        }
    }
}
