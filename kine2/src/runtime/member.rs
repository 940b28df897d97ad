//! The node as the API's services see it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kine2_etcd_api::{
    Identity, LeaseInfo, Member, MemberStatus, MetricsText, RequestError, StoreHash, WatchStream,
};
use kine2_mvcc::{
    Alarm, Applied, Command, HashJob, RangeAnswer, RangeQuery, ReadError, Revision, StreamId,
    WatchMessage, WatchRequest,
};
use kine2_node::{Done, Event, Rejected};
use tokio::sync::{Notify, oneshot};

use super::metrics::RuntimeMetrics;
use super::shared::{Shared, Waiter};
use super::state_thread::StateHandle;

/// Longest wait for a command (`etcd` section 4: 5 s and two elections).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);
/// Bytes of events a stream takes at once.
const WATCH_POLL_BYTES: usize = 1 << 20;

/// A member of one.
#[derive(Clone, Debug)]
pub(super) struct SingleMember {
    shared: Arc<Shared>,
    state: StateHandle,
    identity: Arc<Identity>,
    quota_bytes: u64,
    metrics: Arc<RuntimeMetrics>,
}

impl SingleMember {
    pub(super) fn new(
        shared: Arc<Shared>,
        state: StateHandle,
        identity: Identity,
        quota_bytes: u64,
        metrics: Arc<RuntimeMetrics>,
    ) -> Self {
        Self {
            shared,
            state,
            identity: Arc::new(identity),
            quota_bytes,
            metrics,
        }
    }

    fn check_running(&self) -> Result<(), RequestError> {
        if self.shared.is_stopped() {
            Err(RequestError::Stopped)
        } else {
            Ok(())
        }
    }

    /// Gives the node a request, and the way to its answer.
    fn submit(
        &self,
        event: impl FnOnce(Waiter) -> Event<Waiter>,
    ) -> Result<oneshot::Receiver<Result<Done, Rejected>>, RequestError> {
        self.check_running()?;
        let (waiter, answer) = oneshot::channel();
        let mut node = self.shared.node.lock();
        if node.is_overloaded() {
            return Err(RequestError::TooManyRequests);
        }
        let now = self.shared.now();
        node.apply(now, event(waiter))
            .map_err(|_| RequestError::Stopped)?;
        drop(node);
        self.shared.wake();
        Ok(answer)
    }

    /// Waits until what is applied here holds all that was acknowledged before (`repl R2`, R3).
    async fn confirm(&self) -> Result<(), RequestError> {
        let answer = self.submit(|waiter| Event::Read { waiter })?;
        in_time(answer).await.map(drop)
    }

    /// Reads what is applied; nothing if that may not be the newest and `applied_will_do` is not
    /// set.
    fn read(
        &self,
        query: &RangeQuery,
        applied_will_do: bool,
    ) -> Result<Option<(Revision, RangeAnswer)>, RequestError> {
        self.check_running()?;
        let mut node = self.shared.node.lock();
        if !applied_will_do && !node.reads_locally() {
            return Ok(None);
        }
        let result = node.range(query);
        drop(node);
        result
            .map(Some)
            .map_err(|error| self.shared.read_error(error))
    }
}

impl Member for SingleMember {
    type Watch = NodeWatch;

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn term(&self) -> u64 {
        self.shared.term()
    }

    fn revision(&self) -> Revision {
        self.shared.node.lock().store().revision()
    }

    async fn propose(&self, command: Command) -> Result<Applied, RequestError> {
        // etcd's limit is that of the log as well: space work takes as long as it takes.
        let waits_for_space = matches!(&command, Command::Compact(compact) if compact.physical);
        let answer = self.submit(|waiter| Event::Submit { command, waiter })?;
        let done = if waits_for_space {
            finished(answer.await)?
        } else {
            in_time(answer).await?
        };
        match done {
            Done::Applied(applied) => Ok(applied),
            other => unreachable!("a command was answered with {other:?}"),
        }
    }

    fn range(
        &self,
        query: &RangeQuery,
        serializable: bool,
    ) -> impl Future<Output = Result<(Revision, RangeAnswer), RequestError>> + Send {
        // R1: what is applied is durable and nobody else writes: every read is linearizable.
        let at_once = self.read(query, serializable);
        async move {
            if let Some(answer) = at_once.transpose() {
                return answer;
            }
            self.confirm().await?;
            let answer = self.read(query, true)?;
            Ok(answer.expect("what was confirmed is read"))
        }
    }

    async fn keep_alive(&self, lease: i64) -> Result<(Revision, i64), RequestError> {
        self.check_running()?;
        let revision = {
            let mut node = self.shared.node.lock();
            let revision = node.store().revision();
            if node.reads_locally() {
                return Ok((revision, node.keep_alive(self.shared.now(), lease)));
            }
            revision
        };
        // T4: no renewal counts that a successor does not know to be one.
        let id = lease;
        let answer = self.submit(|waiter| Event::KeepAlive { id, waiter })?;
        match in_time(answer).await? {
            Done::KeptAlive(ttl_seconds) => Ok((revision, ttl_seconds)),
            other => unreachable!("a renewal was answered with {other:?}"),
        }
    }

    async fn time_to_live(
        &self,
        lease: i64,
        with_keys: bool,
    ) -> Result<Option<LeaseInfo>, RequestError> {
        self.check_running()?;
        let node = self.shared.node.lock();
        let Some((remaining, granted_seconds)) = node.time_to_live(self.shared.now(), lease) else {
            return Ok(None);
        };
        Ok(Some(LeaseInfo {
            revision: node.store().revision(),
            remaining_seconds: i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX),
            granted_seconds,
            keys: if with_keys {
                node.store().lease_keys(lease)
            } else {
                Vec::new()
            },
        }))
    }

    async fn leases(&self) -> Result<Vec<i64>, RequestError> {
        self.check_running()?;
        Ok(self
            .shared
            .node
            .lock()
            .store()
            .lease_ttls()
            .map(|(id, _)| id)
            .collect())
    }

    async fn hash(&self, revision: Revision) -> Result<StoreHash, RequestError> {
        let mut job = HashJob::start(self.shared.node.lock().store(), revision)?;
        loop {
            self.check_running()?;
            let step = self
                .shared
                .node
                .lock()
                .hash_step(&mut job)
                .map_err(|error| self.shared.read_error(error))?;
            if let Some(hash) = step {
                return Ok(StoreHash {
                    hash: hash.hash,
                    current: hash.current,
                    at: hash.at,
                    compacted: hash.compacted,
                });
            }
            tokio::task::yield_now().await;
        }
    }

    async fn defragment(&self) -> Result<(), RequestError> {
        self.check_running()?;
        let done = self.state.defragment();
        done.await.map_err(|_| RequestError::Stopped)??;
        Ok(())
    }

    fn status(&self) -> MemberStatus {
        let node = self.shared.node.lock();
        let bytes = node.state_bytes();
        MemberStatus {
            revision: node.store().revision(),
            primary: if node.is_active() {
                self.identity.member_id
            } else {
                0
            },
            log_index: node.last_index(),
            applied_index: node.store().applied().index,
            db_size: bytes.file_bytes.max(1),
            db_size_in_use: bytes.used_bytes.min(bytes.file_bytes),
            quota: self.quota_bytes,
        }
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.shared
            .node
            .lock()
            .store()
            .alarms()
            .iter()
            .copied()
            .collect()
    }

    fn members(&self) -> Vec<Identity> {
        vec![Identity::clone(&self.identity)]
    }

    fn metrics(&self, out: &mut MetricsText) {
        let node = self.shared.node.lock();
        super::metrics::write_node(out, &node);
        drop(node);
        self.metrics.write(out);
    }

    fn watch(&self) -> NodeWatch {
        let (id, ready) = self.shared.open_stream();
        NodeWatch {
            shared: Arc::clone(&self.shared),
            id,
            ready,
        }
    }
}

/// Waits for an answer as long as a client may have to.
async fn in_time(answer: oneshot::Receiver<Result<Done, Rejected>>) -> Result<Done, RequestError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answer) => finished(answer),
        Err(_elapsed) => Err(RequestError::TimedOut),
    }
}

fn finished(
    answer: Result<Result<Done, Rejected>, oneshot::error::RecvError>,
) -> Result<Done, RequestError> {
    // A node that goes down drops those who wait.
    let answer = answer.map_err(|_dropped| RequestError::Stopped)?;
    answer.map_err(|rejected| match rejected {
        Rejected::Refused(refusal) => RequestError::Refused(refusal),
        Rejected::NotPrimary(..) | Rejected::Unavailable => RequestError::NoLeader,
        Rejected::Unknown => RequestError::TimedOut,
        Rejected::Busy => RequestError::TooManyRequests,
    })
}

/// One client's watch stream at the node.
#[derive(Debug)]
pub(super) struct NodeWatch {
    shared: Arc<Shared>,
    id: StreamId,
    ready: Arc<Notify>,
}

impl WatchStream for NodeWatch {
    fn create(&mut self, request: WatchRequest) {
        let now = self.shared.now();
        self.shared.node.lock().watch(now, self.id, request);
        self.ready.notify_one();
        // A progress interval may have come nearer.
        self.shared.wake();
    }

    fn cancel(&mut self, id: i64) {
        self.shared.node.lock().cancel_watch(self.id, id);
        self.ready.notify_one();
    }

    fn request_progress(&mut self) {
        self.shared.node.lock().request_progress(self.id);
        self.ready.notify_one();
    }

    async fn next(&mut self) -> Result<Vec<WatchMessage>, RequestError> {
        loop {
            if self.shared.is_stopped() {
                return Err(RequestError::Stopped);
            }
            let polled = self
                .shared
                .node
                .lock()
                .poll_stream(self.id, WATCH_POLL_BYTES)
                .map_err(|error| self.shared.read_error(error))?;
            if !polled.messages.is_empty() {
                if polled.more {
                    self.ready.notify_one();
                }
                return Ok(polled.messages);
            }
            if polled.more {
                // History without a match: let others in before the next slice.
                tokio::task::yield_now().await;
            } else {
                self.ready.notified().await;
            }
        }
    }
}

impl Drop for NodeWatch {
    fn drop(&mut self) {
        self.shared.close_stream(self.id);
    }
}

impl Shared {
    /// An error of a read, of which the node may have to tell.
    fn read_error(&self, error: ReadError) -> RequestError {
        match error {
            ReadError::Refused(refusal) => RequestError::Refused(refusal),
            ReadError::Backend(error) => {
                self.wake();
                RequestError::State(error)
            }
        }
    }
}
