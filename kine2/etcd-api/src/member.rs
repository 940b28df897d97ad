//! What the API needs of the member it speaks for.
//!
//! The runtime implements [`Member`]; the services know nothing else of it. Futures of calls that
//! need no log entry and no peer are ready at once.

use std::future::Future;

pub use kine2_mvcc::StoreHash;
use kine2_mvcc::{
    Alarm, Applied, BackendError, Command, RangeAnswer, RangeQuery, Refusal, Revision,
    WatchMessage, WatchRequest,
};

use crate::exposition::MetricsText;

/// A member of the cluster as the services see it; cloning shares it.
pub trait Member: Clone + Send + Sync + 'static {
    /// One client's watch stream.
    type Watch: WatchStream;

    /// Who this is.
    fn identity(&self) -> &Identity;

    /// The number a response header shows as `raft_term`; never 0 (`etcd S3`).
    fn term(&self) -> u64;

    /// The store's revision now, for headers of answers that read nothing.
    fn revision(&self) -> Revision;

    /// Has a command logged, applied and answered. A lease grant with id 0 gets an id.
    fn propose(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Applied, RequestError>> + Send;

    /// Reads, linearizably unless `serializable`; answers the store's revision at the read.
    fn range(
        &self,
        query: &RangeQuery,
        serializable: bool,
    ) -> impl Future<Output = Result<(Revision, RangeAnswer), RequestError>> + Send;

    /// Renews a lease: the revision before the renewal and the granted TTL in seconds, 0 if there
    /// is no such lease (`etcd S46`).
    fn keep_alive(
        &self,
        lease: i64,
    ) -> impl Future<Output = Result<(Revision, i64), RequestError>> + Send;

    /// What is left of a lease; `None` if there is no such lease (`etcd S47`).
    fn time_to_live(
        &self,
        lease: i64,
        with_keys: bool,
    ) -> impl Future<Output = Result<Option<LeaseInfo>, RequestError>> + Send;

    /// Ids of all leases.
    fn leases(&self) -> impl Future<Output = Result<Vec<i64>, RequestError>> + Send;

    /// Hash of the store's content at a revision, 0 for the newest (`etcd S54`).
    fn hash(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<StoreHash, RequestError>> + Send;

    /// Gives space back.
    fn defragment(&self) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// State and sizes; works without a quorum (`etcd S52`).
    fn status(&self) -> MemberStatus;

    /// Alarms raised.
    fn alarms(&self) -> Vec<Alarm>;

    /// The members of the cluster, this one among them.
    fn members(&self) -> Vec<Identity>;

    /// Opens a watch stream.
    fn watch(&self) -> Self::Watch;

    /// Writes the metrics of the node. Written already are what [`status`](Self::status) tells
    /// (`etcd_server_has_leader`, `etcd_server_is_leader`, `etcd_server_quota_backend_bytes`,
    /// `etcd_mvcc_db_total_size_in_bytes`, `etcd_mvcc_db_total_size_in_use_in_bytes`,
    /// `etcd_debugging_mvcc_current_revision`), `grpc_server_handled_total` and the `process_*`.
    fn metrics(&self, out: &mut MetricsText);
}

/// One client's watch stream: requests in, messages out. Dropping it ends its watchers.
pub trait WatchStream: Send + 'static {
    /// Adds a watcher; its `Created` or `Refused` message comes in the order of the calls.
    fn create(&mut self, request: WatchRequest);

    /// Ends a watcher; an unknown id is ignored (`etcd S33`).
    fn cancel(&mut self, id: i64);

    /// Asks for a progress message once every watcher is in sync (`etcd S39`).
    fn request_progress(&mut self);

    /// Waits for the next messages. They are to be written in this order, nothing between them.
    /// Cancelling the wait loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Vec<WatchMessage>, RequestError>> + Send;
}

/// Who a member is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster; not 0.
    pub cluster_id: u64,
    /// The member; not 0.
    pub member_id: u64,
    /// Its name; not empty (`etcd` section 1.3 E3).
    pub name: String,
    /// Where its peer reaches it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

/// A lease at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Store revision then.
    pub revision: Revision,
    /// Whole seconds left.
    pub remaining_seconds: i64,
    /// Seconds granted.
    pub granted_seconds: i64,
    /// Attached keys, if asked for.
    pub keys: Vec<bytes::Bytes>,
}

/// State and sizes of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    /// Store revision.
    pub revision: Revision,
    /// Member id of the primary; 0 if none is known.
    pub primary: u64,
    /// Last log index.
    pub log_index: u64,
    /// Last applied log index.
    pub applied_index: u64,
    /// Bytes of the state; not 0.
    pub db_size: u64,
    /// Bytes of it in use; at most `db_size`.
    pub db_size_in_use: u64,
    /// Quota in bytes.
    pub quota: u64,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The store refused it: definite, nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too much is waiting already; definite (`too many requests`).
    #[error("too many requests")]
    TooManyRequests,
    /// No primary is known; definite.
    #[error("no leader")]
    NoLeader,
    /// The server is stopping or its disk has failed; the outcome of a write is unknown.
    #[error("server stopped")]
    Stopped,
    /// No answer in time; the outcome of a write is unknown.
    #[error("request timed out")]
    TimedOut,
    /// The state engine could not be read.
    #[error(transparent)]
    State(#[from] BackendError),
}
