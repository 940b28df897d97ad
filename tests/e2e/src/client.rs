//! A client of one endpoint.

use std::time::Duration;

use http::uri::PathAndQuery;
use kine2_proto::WireCodec;
use kine2_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest,
    HashKvResponse, LeaseGrantRequest, LeaseGrantResponse, MemberListRequest, MemberListResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// etcd's number for disarming.
const DEACTIVATE: i32 = 2;

/// A client that connects when it is first used, and again when it must.
#[derive(Clone, Debug)]
pub struct Client(Channel);

impl Client {
    /// Of this endpoint; must be called within a runtime.
    ///
    /// # Panics
    /// If it is no URL.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
        // As etcd's clients do: one that stands still is noticed, and its watches go elsewhere.
        let endpoint = endpoint
            .connect_timeout(Duration::from_millis(100))
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true);
        Self(endpoint.connect_lazy())
    }

    /// The channel, for streams.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.0.clone()
    }

    /// Calls; gives up after `patience`.
    ///
    /// # Errors
    /// As the server answers, or that it did not in time.
    pub async fn call<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        patience: Duration,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = Grpc::new(self.0.clone()).max_decoding_message_size(usize::MAX);
            let ready = grpc.ready().await;
            ready.map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
            let path = PathAndQuery::from_static(path);
            let answer = grpc.unary(Request::new(request), path, WireCodec::default());
            Ok(answer.await?.into_inner())
        };
        match tokio::time::timeout(patience, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "gave up")),
        }
    }

    /// Puts a key; the revision.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Panics
    /// If the answer has no header.
    pub async fn put(&self, key: &str, value: &str, patience: Duration) -> Result<i64, Status> {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        let path = "/etcdserverpb.KV/Put";
        let answer: PutResponse = self.call(path, request, patience).await?;
        Ok(answer.header.unwrap().revision)
    }

    /// Deletes a key; how many there were.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn delete(&self, key: &str, patience: Duration) -> Result<i64, Status> {
        let request = DeleteRangeRequest {
            key: key.to_owned().into(),
            ..DeleteRangeRequest::default()
        };
        let path = "/etcdserverpb.KV/DeleteRange";
        let answer: DeleteRangeResponse = self.call(path, request, patience).await?;
        Ok(answer.deleted)
    }

    /// Everything; linearizable unless `serializable`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn all(
        &self,
        serializable: bool,
        patience: Duration,
    ) -> Result<RangeResponse, Status> {
        let request = RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            serializable,
            ..RangeRequest::default()
        };
        self.call("/etcdserverpb.KV/Range", request, patience).await
    }

    /// A value and its revision, if the key is there.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Panics
    /// If the answer has no header.
    pub async fn get(
        &self,
        key: &str,
        serializable: bool,
        patience: Duration,
    ) -> Result<(i64, usize), Status> {
        let request = RangeRequest {
            key: key.to_owned().into(),
            serializable,
            ..RangeRequest::default()
        };
        let path = "/etcdserverpb.KV/Range";
        let answer: RangeResponse = self.call(path, request, patience).await?;
        Ok((answer.header.unwrap().revision, answer.kvs.len()))
    }

    /// Grants a lease of so many seconds.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn grant(&self, seconds: i64, patience: Duration) -> Result<i64, Status> {
        let request = LeaseGrantRequest {
            ttl: seconds,
            ..LeaseGrantRequest::default()
        };
        let path = "/etcdserverpb.Lease/LeaseGrant";
        let answer: LeaseGrantResponse = self.call(path, request, patience).await?;
        Ok(answer.id)
    }

    /// What `endpoint status` shows.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn status(&self, patience: Duration) -> Result<StatusResponse, Status> {
        let path = "/etcdserverpb.Maintenance/Status";
        self.call(path, StatusRequest::default(), patience).await
    }

    /// What `member list` shows.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn members(&self, patience: Duration) -> Result<MemberListResponse, Status> {
        let path = "/etcdserverpb.Cluster/MemberList";
        self.call(path, MemberListRequest::default(), patience)
            .await
    }

    /// Hash of all that there was at a revision.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn hash(&self, revision: i64, patience: Duration) -> Result<u32, Status> {
        let path = "/etcdserverpb.Maintenance/HashKV";
        let answer: HashKvResponse = self
            .call(path, HashKvRequest { revision }, patience)
            .await?;
        Ok(answer.hash)
    }

    /// Disarms all alarms, as an operator does once there is space.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn disarm(&self, patience: Duration) -> Result<(), Status> {
        let path = "/etcdserverpb.Maintenance/Alarm";
        let list = AlarmRequest::default();
        let raised: AlarmResponse = self.call(path, list, patience).await?;
        for alarm in raised.alarms {
            let request = AlarmRequest {
                action: DEACTIVATE,
                member_id: alarm.member_id,
                alarm: alarm.alarm,
            };
            let _: AlarmResponse = self.call(path, request, patience).await?;
        }
        Ok(())
    }
}
