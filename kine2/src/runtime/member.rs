//! The node as the API's services see it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kine2_etcd_api::{
    Identity, LeaseInfo, Member, MemberStatus, MetricsText, RequestError, StoreHash,
};
use kine2_mvcc::{Alarm, Applied, Command, HashJob, RangeAnswer, RangeQuery, ReadError, Revision};
use kine2_node::{Done, Event, Rejected};
use kine2_replication::{NodeRef, State};
use tokio::sync::oneshot;

use super::metrics::RuntimeMetrics;
use super::node_watch::NodeWatch;
use super::pair::Pair;
use super::shared::{Shared, Waiter};
use super::state_thread::StateHandle;

/// Longest wait for a command (`etcd` section 4: 5 s and two elections).
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);
/// How long a request waits for a primary: longer than a takeover takes.
const NO_PRIMARY_MAX: Duration = Duration::from_secs(3);
/// How long it waits for a change before it is tried again.
const NEXT_TRY: Duration = Duration::from_millis(50);

/// This node, as a member of a cluster of one or two.
#[derive(Clone, Debug)]
pub(super) struct NodeMember {
    pub(super) shared: Arc<Shared>,
    state: StateHandle,
    /// The way to the peer; a single node has none.
    pub(super) pair: Option<Arc<Pair>>,
    identity: Arc<Identity>,
    quota_bytes: u64,
    metrics: Arc<RuntimeMetrics>,
}

impl NodeMember {
    pub(super) fn new(
        shared: Arc<Shared>,
        state: StateHandle,
        pair: Option<Arc<Pair>>,
        identity: Identity,
        quota_bytes: u64,
        metrics: Arc<RuntimeMetrics>,
    ) -> Self {
        Self {
            shared,
            state,
            pair,
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
        let begun = self.shared.now();
        loop {
            let answer = self.submit(|waiter| Event::Read { waiter })?;
            match in_time(answer).await {
                Err(RequestError::NoLeader) if self.awaits_primary(begun).await => {}
                confirmed => return confirmed.map(drop),
            }
        }
    }

    /// Waits for a primary after something was not tried for want of one; `false` if it has waited
    /// long enough. In a cluster of one there is nobody else to become it.
    async fn awaits_primary(&self, since: Duration) -> bool {
        let is_over = self.shared.now() >= since + NO_PRIMARY_MAX;
        if self.pair.is_none() || is_over || self.shared.is_stopped() {
            return false;
        }
        self.shared.next_role(NEXT_TRY).await;
        true
    }

    pub(super) async fn propose_here(&self, command: Command) -> Result<Applied, RequestError> {
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

    pub(super) async fn keep_alive_here(
        &self,
        lease: i64,
    ) -> Result<(Revision, i64), RequestError> {
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

    pub(super) fn time_to_live_here(&self, lease: i64, with_keys: bool) -> Option<LeaseInfo> {
        let node = self.shared.node.lock();
        let (remaining, granted_seconds) = node.time_to_live(self.shared.now(), lease)?;
        Some(LeaseInfo {
            revision: node.store().revision(),
            remaining_seconds: i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX),
            granted_seconds,
            keys: if with_keys {
                node.store().lease_keys(lease)
            } else {
                Vec::new()
            },
        })
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

impl Member for NodeMember {
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
        if self.pair.is_none() {
            return self.propose_here(command).await;
        }
        let begun = self.shared.now();
        loop {
            match self.propose_anywhere(command.clone()).await {
                Err(RequestError::NoLeader) if self.awaits_primary(begun).await => {}
                tried => return tried,
            }
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
        let begun = self.shared.now();
        loop {
            match self.keep_alive_anywhere(lease).await {
                Err(RequestError::NoLeader) if self.awaits_primary(begun).await => {}
                tried => return tried,
            }
        }
    }

    async fn time_to_live(
        &self,
        lease: i64,
        with_keys: bool,
    ) -> Result<Option<LeaseInfo>, RequestError> {
        self.check_running()?;
        let begun = self.shared.now();
        loop {
            match self.time_to_live_anywhere(lease, with_keys).await {
                Err(RequestError::NoLeader) if self.awaits_primary(begun).await => {}
                tried => return tried,
            }
        }
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
            primary: match node.unit().state() {
                State::Prim | State::Second | State::Alone => {
                    member_id(&node.unit().config().primary)
                }
                State::Wait(_) | State::Stop => 0,
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
        let Some(pair) = &self.pair else {
            return vec![Identity::clone(&self.identity)];
        };
        let node = self.shared.node.lock();
        let unit = node.unit();
        let members = unit.config().members.iter();
        members
            .map(|member| match member == unit.me() {
                true => Identity::clone(&self.identity),
                false => Identity {
                    cluster_id: self.identity.cluster_id,
                    member_id: member_id(member),
                    name: member.name.to_string(),
                    peer_urls: pair.peer_urls(),
                    client_urls: pair.peer_client_urls(),
                },
            })
            .collect()
    }

    fn metrics(&self, out: &mut MetricsText) {
        let node = self.shared.node.lock();
        super::metrics::write_node(out, &node);
        drop(node);
        self.metrics.write(out);
        if let Some(pair) = &self.pair {
            super::metrics::write_pair(out, pair);
        }
    }

    fn watch(&self) -> NodeWatch {
        NodeWatch::open(Arc::clone(&self.shared))
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

/// Id of a member as etcd's clients see it.
pub(super) fn member_id(node: &NodeRef) -> u64 {
    // Incarnations are made of such ids.
    u64::try_from(node.incarnation.0).unwrap_or(u64::MAX)
}

impl Shared {
    /// An error of a read, of which the node may have to tell.
    pub(super) fn read_error(&self, error: ReadError) -> RequestError {
        match error {
            ReadError::Refused(refusal) => RequestError::Refused(refusal),
            ReadError::Backend(error) => {
                self.wake();
                RequestError::State(error)
            }
        }
    }
}
