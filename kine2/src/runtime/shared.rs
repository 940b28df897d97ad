//! What the driver, the services and the two disk threads share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kine2_backend::StreamError;
use kine2_mvcc::{BackendError, BackendStats, LogPosition, Store, StreamId};
use kine2_node::{Done, LogReader, Node, Rejected};
use kine2_replication::{Event as ReplicaEvent, WriteId};
use kine2_wal::{Entry, Position, WalError};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::journal::{Journal, Kind, Measured};
use super::quarantine::ToPutAway;

/// Who waits for an answer.
pub(super) type Waiter = oneshot::Sender<Result<Done, Rejected>>;

/// What a disk thread has finished, or came in.
#[derive(Debug)]
pub(super) enum Finished {
    /// Frames and states of the links, words of the witness, commands.
    Came(ReplicaEvent),
    /// The state was written to a file, up to this entry.
    Exported(Result<LogPosition, StreamError>),
    /// The exported state's entry, if the log still has it.
    Exporting(Option<Position>),
    /// The primary's snapshot is durable beside the state.
    SnapshotReceived(Position, Box<Store>),
    /// The log's writes up to this one are durable.
    Logged(Result<WriteId, WalError>),
    /// Entries were read from the log: the position before them, and they.
    LogRead(LogReader, Result<(Position, Vec<Entry>), WalError>),
    /// The log begins after this position now.
    LogCut(Position),
    /// Whether the disk has no room for the log's next segment; told when it changes.
    LogFull(bool),
    /// The state is put away in quarantine; its log comes next.
    StatePutAway(Box<ToPutAway>, anyhow::Result<()>),
    /// All that was to be put away is.
    PutAway(Box<ToPutAway>, anyhow::Result<()>),
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
    pub(super) journal: Journal,
    /// More than this in quarantine is told to the operator.
    pub(super) quarantine_bytes_max: u64,
    finished: Mutex<Vec<Finished>>,
    wake: Notify,
    streams: Mutex<BTreeMap<StreamId, Arc<Notify>>>,
    stopped: AtomicBool,
    streams_ended: AtomicU64,
    /// How often the node's state was replaced.
    states: AtomicU64,
    role_changes: Notify,
    /// Those who wait for a log entry to be applied, by its index and a number of their own. As many
    /// as requests that were passed on.
    applied_waiters: Mutex<BTreeMap<(u64, u64), oneshot::Sender<()>>>,
    applied_number: AtomicU64,
    /// The epoch of the configuration, which response headers show as `raft_term`.
    term: AtomicU64,
    started: Instant,
}

impl Shared {
    pub(super) fn new(
        node: Node<Waiter>,
        data_dir: PathBuf,
        journal: Journal,
        quarantine_bytes_max: u64,
        started: Instant,
    ) -> Self {
        Self {
            term: AtomicU64::new(node.unit().config().epoch.0),
            node: Mutex::new(node),
            data_dir,
            journal,
            quarantine_bytes_max,
            finished: Mutex::new(Vec::new()),
            wake: Notify::new(),
            streams: Mutex::new(BTreeMap::new()),
            stopped: AtomicBool::new(false),
            streams_ended: AtomicU64::new(0),
            states: AtomicU64::new(0),
            role_changes: Notify::new(),
            applied_waiters: Mutex::default(),
            applied_number: AtomicU64::new(0),
            started,
        }
    }

    /// Keeps an event in the journal, with how things are now.
    pub(super) fn note(&self, kind: Kind, text: String) {
        let measured = Measured::of(self.node.lock().unit(), self.now());
        self.journal.note(kind, text, Some(measured));
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

    /// All watch streams end: nobody serves what they show (`repl S3`). Their clients come again.
    pub(super) fn end_streams(&self) {
        self.streams_ended.fetch_add(1, Ordering::Relaxed);
        for stream in self.streams.lock().values() {
            stream.notify_one();
        }
    }

    /// The same, and the node has forgotten them: its state is another one.
    pub(super) fn forget_streams(&self) {
        self.states.fetch_add(1, Ordering::Relaxed);
        self.end_streams();
        self.streams.lock().clear();
    }

    /// How often all streams ended.
    pub(super) fn streams_ended(&self) -> u64 {
        self.streams_ended.load(Ordering::Relaxed)
    }

    /// Tells those who wait that the node's role changed, or that of the peer.
    pub(super) fn role_changed(&self) {
        self.role_changes.notify_waiters();
    }

    /// Waits for the next change of roles, but not for long: a request may be worth another try
    /// for other reasons.
    pub(super) async fn next_role(&self, wait_max: Duration) {
        let _ = tokio::time::timeout(wait_max, self.role_changes.notified()).await;
    }

    /// All up to this log entry is applied.
    pub(super) fn on_applied(&self, index: u64) {
        let mut waiting = self.applied_waiters.lock();
        while let Some(first) = waiting.first_entry().filter(|first| first.key().0 <= index) {
            let _ = first.remove().send(());
        }
    }

    /// Waits until this log entry is applied, but not for long.
    pub(super) async fn applied(&self, index: u64, wait_max: Duration) {
        let (reached, waiting) = oneshot::channel();
        {
            let mut waiters = self.applied_waiters.lock();
            if self.node.lock().store().applied().index >= index {
                return;
            }
            let number = self.applied_number.fetch_add(1, Ordering::Relaxed);
            waiters.insert((index, number), reached);
        }
        let _ = tokio::time::timeout(wait_max, waiting).await;
    }

    /// Registers a watch stream; its [`Notify`] fires when it has something to send.
    pub(super) fn open_stream(&self) -> OpenStream {
        let id = self.node.lock().open_stream();
        let ready = Arc::new(Notify::new());
        self.streams.lock().insert(id, Arc::clone(&ready));
        OpenStream {
            id,
            ready,
            ended: self.streams_ended(),
            state: self.states.load(Ordering::Relaxed),
        }
    }

    pub(super) fn close_stream(&self, stream: &OpenStream) {
        // Another state gives the same ids to other streams.
        if stream.state == self.states.load(Ordering::Relaxed) {
            self.streams.lock().remove(&stream.id);
            self.node.lock().close_stream(stream.id);
        }
    }

    pub(super) fn stream_ready(&self, id: StreamId) {
        if let Some(ready) = self.streams.lock().get(&id) {
            ready.notify_one();
        }
    }
}

/// A watch stream at the node.
#[derive(Debug)]
pub(super) struct OpenStream {
    pub(super) id: StreamId,
    /// Fires when it has something to send, or has ended.
    pub(super) ready: Arc<Notify>,
    /// How often all had ended when it was opened.
    pub(super) ended: u64,
    /// On which state it was opened.
    state: u64,
}
