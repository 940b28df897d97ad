//! The thread that writes the state: it applies what is visible already to the backend and makes
//! checkpoints, away from the path of reads and writes.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kine2_backend::StreamError;
use kine2_mvcc::{Backend, BackendError, BackendStats, LogPosition, StateBatch};
use tokio::sync::oneshot;
use tracing::warn;

use super::metrics::RuntimeMetrics;
use super::open::remove_state;
use super::quarantine::{ToPutAway, put_away_state};
use super::shared::{Finished, Shared};

/// Pause before a snapshot that could not be written is tried again.
const EXPORT_RETRY: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Job {
    Apply(Box<StateBatch>),
    Checkpoint,
    /// Write all of it to this file.
    Export(PathBuf),
    /// Go on with this one, which lies in that directory; the one before is deleted.
    Switch(Arc<dyn Backend>, PathBuf),
    Defragment(oneshot::Sender<Result<(), BackendError>>),
    PutAway(Box<ToPutAway>),
    Stop,
}

/// The thread.
#[derive(Debug)]
pub(super) struct StateThread {
    handle: StateHandle,
    thread: JoinHandle<()>,
}

/// The way to it. The node hands out one batch and one checkpoint at a time, so the channel is
/// bounded by that and by the defragmentations that clients wait for.
#[derive(Clone, Debug)]
pub(super) struct StateHandle(Sender<Job>);

impl StateThread {
    /// A thread for the state in `dir`.
    pub(super) fn spawn(
        backend: Arc<dyn Backend>,
        dir: PathBuf,
        shared: Arc<Shared>,
        metrics: Arc<RuntimeMetrics>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new()
            .name("state".into())
            .spawn(move || run(backend, dir, &shared, &metrics, &queue))?;
        Ok(Self {
            handle: StateHandle(jobs),
            thread,
        })
    }

    pub(super) fn handle(&self) -> StateHandle {
        self.handle.clone()
    }

    pub(super) fn apply(&self, batch: StateBatch) {
        self.handle.send(Job::Apply(Box::new(batch)));
    }

    pub(super) fn checkpoint(&self) {
        self.handle.send(Job::Checkpoint);
    }

    /// Writes all that is applied to a file.
    pub(super) fn export(&self, file: PathBuf) {
        self.handle.send(Job::Export(file));
    }

    /// The same, after a while: it did not succeed.
    pub(super) fn export_later(&self, file: PathBuf) {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            tokio::time::sleep(EXPORT_RETRY).await;
            handle.send(Job::Export(file));
        });
    }

    /// Goes on with another state, which lies in `dir`.
    pub(super) fn switch(&self, backend: Arc<dyn Backend>, dir: PathBuf) {
        self.handle.send(Job::Switch(backend, dir));
    }

    pub(super) fn put_away(&self, wanted: Box<ToPutAway>) {
        self.handle.send(Job::PutAway(wanted));
    }

    /// Waits until all jobs given so far are done.
    pub(super) fn join(self) {
        self.handle.send(Job::Stop);
        self.thread.join().expect("the state thread does not panic");
    }
}

impl StateHandle {
    /// Gives space back; the answer comes when it is done.
    pub(super) fn defragment(&self) -> oneshot::Receiver<Result<(), BackendError>> {
        let (done, waiting) = oneshot::channel();
        self.send(Job::Defragment(done));
        waiting
    }

    fn send(&self, job: Job) {
        // After the thread has stopped nobody is answered any more: a job's waiter sees that.
        let _ = self.0.send(job);
    }
}

fn run(
    mut backend: Arc<dyn Backend>,
    mut dir: PathBuf,
    shared: &Shared,
    metrics: &RuntimeMetrics,
    queue: &Receiver<Job>,
) {
    for job in queue {
        let begun = Instant::now();
        match job {
            Job::Apply(batch) => {
                let result = apply(&*backend, &batch);
                metrics.state_apply.observe(begun.elapsed());
                shared.finish(Finished::Saved(result));
            }
            Job::Checkpoint => {
                let result = backend.checkpoint();
                metrics.checkpoint.observe(begun.elapsed());
                shared.finish(Finished::Checkpointed(result));
            }
            Job::Export(file) => shared.finish(Finished::Exported(export(&*backend, &file))),
            Job::Switch(next, next_dir) => {
                backend = next;
                let old = std::mem::replace(&mut dir, next_dir);
                // Left over, it is deleted by the next start.
                if let Err(error) = remove_state(&old) {
                    warn!(dir = %old.display(), %error, "the state before the snapshot is left");
                }
            }
            // Whoever asked has given up: another copy of everything would serve nobody.
            Job::Defragment(done) if done.is_closed() => {}
            Job::Defragment(done) => {
                let result = backend.defragment();
                // The node knows the new size before the client asks for anything.
                shared.finish(Finished::Sized(backend.stats()));
                let _ = done.send(result);
            }
            Job::PutAway(wanted) => {
                let result = put_away_state(&*backend, &shared.data_dir, &wanted.what);
                shared.finish(Finished::StatePutAway(wanted, result));
            }
            Job::Stop => return,
        }
    }
}

/// Writes all that is applied to a file; answers up to which entry that is.
fn export(backend: &dyn Backend, file: &Path) -> Result<LogPosition, StreamError> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file)?);
    if let Err(error) = kine2_backend::export(backend, &mut out) {
        // What there is of it would only take room.
        let _ = std::fs::remove_file(file);
        return Err(error);
    }
    Ok(backend.held()?.applied)
}

fn apply(backend: &dyn Backend, batch: &StateBatch) -> Result<BackendStats, BackendError> {
    backend.apply(batch)?;
    backend.stats()
}

#[cfg(test)]
mod tests {
    use kine2_backend::mem::MemBackend;
    use kine2_mvcc::{Store, StoreOptions, WatchOptions};
    use kine2_node::{Node, NodeOptions};
    use kine2_replication::{History, Loaded, Timers};
    use kine2_wal::{LogIndex, Position, Recovery};

    use super::*;
    use crate::runtime::identity::NodeIdentity;
    use crate::runtime::own_record;

    fn shared(backend: &Arc<MemBackend>) -> Arc<Shared> {
        let store = Store::open(Arc::clone(backend) as _, StoreOptions::default()).unwrap();
        let options = NodeOptions {
            member_id: 1,
            quota_bytes: 0,
            command_bytes_max: 1 << 20,
            lease_ttl_min: Duration::from_secs(2),
            save_bytes: 1 << 20,
            save_delay: Duration::ZERO,
            checkpoint_bytes: 1 << 20,
            checkpoint_entries: 100,
            checkpoint_interval: Duration::from_secs(30),
            unsaved_bytes_max: 1 << 20,
            watch: WatchOptions::default(),
            timers: Timers::default(),
            seed: 1,
        };
        let identity = NodeIdentity {
            cluster_id: 1,
            member_id: 1,
        };
        let recovery = Recovery {
            base: Position::START,
            last: Position::START,
            hard_state: None,
            torn_tail: None,
        };
        let (me, durable) = own_record::load(&recovery, identity, "shop", None).unwrap();
        let history = History::new(Position::START);
        let loaded = Loaded::of_lead(me, durable, history, LogIndex(0), 1).unwrap();
        let node = Node::new(options, loaded, store, Duration::ZERO);
        let journal = crate::runtime::journal::Journal::none();
        Arc::new(Shared::new(
            node,
            PathBuf::new(),
            journal,
            0,
            Instant::now(),
        ))
    }

    #[test]
    fn a_defragmentation_is_told_to_the_node_and_made_only_for_who_waits() {
        let backend = Arc::new(MemBackend::default());
        let shared = shared(&backend);
        let metrics = Arc::new(RuntimeMetrics::default());
        let dir = PathBuf::new();
        let state = StateThread::spawn(backend, dir, Arc::clone(&shared), metrics).unwrap();
        let waiting = state.handle().defragment();
        let (done, given_up) = oneshot::channel();
        drop(given_up);
        state.handle.send(Job::Defragment(done));
        waiting.blocking_recv().unwrap().unwrap();
        state.join();
        let finished = shared.take_finished();
        assert!(
            matches!(&finished[..], [Finished::Sized(Ok(_))]),
            "{finished:?}"
        );
    }
}
