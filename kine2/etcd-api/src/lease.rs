//! The Lease service (`etcd` section 2.8).

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::unfold;
use kine2_mvcc::{Answer, Command, LeaseGrant};
use kine2_proto::etcdserverpb::lease_server::Lease;
use kine2_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tonic::{Request, Response, Status, Streaming};

use crate::errors::Invalid;
use crate::member::{Member, RequestError};
use crate::service::{Service, wrong_answer};

/// Shortest time to live in seconds: one and a half of etcd's election timeouts, rounded up
/// (`etcd S45`).
const TTL_SECONDS_MIN: i64 = 2;
/// Longest time to live in seconds.
const TTL_SECONDS_MAX: i64 = 9_000_000_000;

#[tonic::async_trait]
impl<M: Member> Lease for Service<M> {
    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > TTL_SECONDS_MAX {
            return Err(Invalid::LeaseTtlTooLarge.into());
        }
        let ttl_seconds = ttl.max(TTL_SECONDS_MIN);
        let command = Command::LeaseGrant(LeaseGrant { id, ttl_seconds });
        let applied = self.member.propose(command).await?;
        let Answer::LeaseGranted(granted) = applied.answer else {
            wrong_answer()
        };
        Ok(Response::new(LeaseGrantResponse {
            header: self.header(applied.revision),
            id: granted.id,
            ttl: granted.ttl_seconds,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        let applied = self.member.propose(Command::LeaseRevoke { id }).await?;
        let header = self.header(applied.revision);
        Ok(Response::new(LeaseRevokeResponse { header }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let session = KeepAlives {
            service: self.clone(),
            requests: Some(request.into_inner()),
        };
        Ok(Response::new(Box::pin(unfold(session, KeepAlives::step))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let Some(lease) = self.member.time_to_live(id, keys).await? else {
            return Ok(Response::new(LeaseTimeToLiveResponse {
                header: self.header(self.member.revision()),
                id,
                ttl: -1,
                ..LeaseTimeToLiveResponse::default()
            }));
        };
        Ok(Response::new(LeaseTimeToLiveResponse {
            header: self.header(lease.revision),
            id,
            ttl: lease.remaining_seconds,
            granted_ttl: lease.granted_seconds,
            keys: lease.keys,
        }))
    }

    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let ids = self.member.leases().await?;
        let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
        let header = self.header(self.member.revision());
        Ok(Response::new(LeaseLeasesResponse { header, leases }))
    }
}

/// One client's stream of renewals: an answer for each request, in order (`etcd S46`).
struct KeepAlives<M> {
    service: Service<M>,
    /// `None` once the stream has failed.
    requests: Option<Streaming<LeaseKeepAliveRequest>>,
}

impl<M: Member> KeepAlives<M> {
    async fn step(mut self) -> Option<(Result<LeaseKeepAliveResponse, Status>, Self)> {
        let result = self.next().await.transpose()?;
        if result.is_err() {
            self.requests = None;
        }
        Some((result, self))
    }

    async fn next(&mut self) -> Result<Option<LeaseKeepAliveResponse>, Status> {
        let Some(requests) = &mut self.requests else {
            return Ok(None);
        };
        let mut stop = self.service.stop.clone();
        let request = tokio::select! {
            () = stop.stopped() => return Err(RequestError::Stopped.into()),
            request = self.service.next_request(requests) => request?,
        };
        let Some(LeaseKeepAliveRequest { id }) = request else {
            return Ok(None);
        };
        let (revision, ttl) = self.service.member.keep_alive(id).await?;
        let header = self.service.header(revision);
        Ok(Some(LeaseKeepAliveResponse { header, id, ttl }))
    }
}
