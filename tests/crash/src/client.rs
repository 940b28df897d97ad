//! A lean client over the project's own wire types.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream;
use http::uri::PathAndQuery;
use kine2_proto::WireCodec;
use kine2_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DefragmentRequest,
    DefragmentResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest, HashKvResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
    WatchResponse, watch_request,
};
use prost::Message;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// A call that takes longer counts as one whose outcome is unknown.
const CALL_MAX: Duration = Duration::from_secs(20);
/// Largest answer: everything a run keeps.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// A connection; cloning shares it.
#[derive(Clone, Debug)]
pub struct Client(Channel);

impl Client {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        Ok(Self(endpoint.connect().await?))
    }

    /// A call with one answer.
    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.grpc().await?;
            let path = PathAndQuery::from_static(path);
            grpc.unary(Request::new(request), path, WireCodec::default())
                .await
        };
        match tokio::time::timeout(CALL_MAX, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.0.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    /// The store's revision.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn revision(&self) -> Result<i64, Status> {
        let request = RangeRequest {
            count_only: true,
            ..get(b"/")
        };
        let answer = self.range(request).await?;
        Ok(revision_of(answer.header.as_ref()))
    }

    /// Reads.
    ///
    /// # Errors
    /// What the server says.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.call("/etcdserverpb.KV/Range", request).await
    }

    /// Writes one key.
    ///
    /// # Errors
    /// What the server says.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<PutResponse, Status> {
        let request = PutRequest {
            key: key.into(),
            value: value.into(),
            ..PutRequest::default()
        };
        self.call("/etcdserverpb.KV/Put", request).await
    }

    /// Deletes one key.
    ///
    /// # Errors
    /// What the server says.
    pub async fn delete(&self, key: Bytes) -> Result<DeleteRangeResponse, Status> {
        let request = DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        };
        self.call("/etcdserverpb.KV/DeleteRange", request).await
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// What the server says.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.call("/etcdserverpb.KV/Txn", request).await
    }

    /// Compacts.
    ///
    /// # Errors
    /// What the server says.
    pub async fn compact(
        &self,
        revision: i64,
        physical: bool,
    ) -> Result<CompactionResponse, Status> {
        let request = CompactionRequest { revision, physical };
        self.call("/etcdserverpb.KV/Compact", request).await
    }

    /// Defragments.
    ///
    /// # Errors
    /// What the server says.
    pub async fn defragment(&self) -> Result<DefragmentResponse, Status> {
        let path = "/etcdserverpb.Maintenance/Defragment";
        self.call(path, DefragmentRequest {}).await
    }

    /// Lists, raises or disarms alarms.
    ///
    /// # Errors
    /// What the server says.
    pub async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Status> {
        self.call("/etcdserverpb.Maintenance/Alarm", request).await
    }

    /// Hash of everything at a revision.
    ///
    /// # Errors
    /// What the server says.
    pub async fn hash(&self, revision: i64) -> Result<HashKvResponse, Status> {
        let path = "/etcdserverpb.Maintenance/HashKV";
        self.call(path, HashKvRequest { revision }).await
    }

    /// Grants a lease.
    ///
    /// # Errors
    /// What the server says.
    pub async fn grant(&self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        let request = LeaseGrantRequest { ttl, id };
        self.call("/etcdserverpb.Lease/LeaseGrant", request).await
    }

    /// Revokes a lease.
    ///
    /// # Errors
    /// What the server says.
    pub async fn revoke(&self, id: i64) -> Result<LeaseRevokeResponse, Status> {
        let request = LeaseRevokeRequest { id };
        self.call("/etcdserverpb.Lease/LeaseRevoke", request).await
    }

    /// All leases.
    ///
    /// # Errors
    /// What the server says.
    pub async fn leases(&self) -> Result<LeaseLeasesResponse, Status> {
        let path = "/etcdserverpb.Lease/LeaseLeases";
        self.call(path, LeaseLeasesRequest {}).await
    }

    /// A lease and its keys.
    ///
    /// # Errors
    /// What the server says.
    pub async fn time_to_live(&self, id: i64) -> Result<LeaseTimeToLiveResponse, Status> {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let path = "/etcdserverpb.Lease/LeaseTimeToLive";
        self.call(path, request).await
    }

    /// Renews a lease once; gives its TTL, 0 if it is gone.
    ///
    /// # Errors
    /// What the server says.
    pub async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        let mut grpc = self.grpc().await?;
        let requests = stream::iter([LeaseKeepAliveRequest { id }]);
        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
        let answer = grpc.streaming(
            Request::new(requests),
            path,
            WireCodec::<LeaseKeepAliveRequest, LeaseKeepAliveResponse>::default(),
        );
        let answer = answer.await?.into_inner().message().await?;
        Ok(answer.map_or(0, |answer| answer.ttl))
    }

    /// Watches `[key, range_end)` from a revision on.
    ///
    /// # Errors
    /// What the server says.
    pub async fn watch(&self, create: WatchCreateRequest) -> Result<Watch, Status> {
        let mut grpc = self.grpc().await?;
        let (requests, queue) = unbounded_channel();
        let first = watch_request::RequestUnion::CreateRequest(create);
        let _ = requests.send(WatchRequest {
            request_union: Some(first),
        });
        let queue = stream::unfold(queue, async |mut queue| Some((queue.recv().await?, queue)));
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let answer = grpc.streaming(Request::new(queue), path, WireCodec::default());
        Ok(Watch {
            _requests: requests,
            answers: answer.await?.into_inner(),
        })
    }
}

/// An open watch stream; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    /// The stream is open as long as this is.
    _requests: UnboundedSender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watch {
    /// The next answer.
    ///
    /// # Errors
    /// What the server says; the end of the stream as well.
    pub async fn next(&mut self) -> Result<WatchResponse, Status> {
        let answer = self.answers.message().await?;
        answer.ok_or_else(|| Status::unknown("the stream ended without a status"))
    }
}

/// A read of one key.
#[must_use]
pub fn get(key: &[u8]) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(key),
        ..RangeRequest::default()
    }
}

/// A read of all keys at a revision.
#[must_use]
pub fn everything_at(revision: i64) -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        revision,
        ..RangeRequest::default()
    }
}

/// The revision a header tells.
#[must_use]
pub fn revision_of(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// Waits for something that has to come soon.
///
/// # Errors
/// If it does not, or fails.
pub async fn soon<T, E: Into<anyhow::Error>>(
    what: &str,
    future: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(CALL_MAX, future)
        .await
        .with_context(|| format!("{what}: nothing after {CALL_MAX:?}"))?
        .map_err(Into::into)
        .with_context(|| what.to_owned())
}
