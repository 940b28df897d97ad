//! The Cluster service (`etcd S51`).

use kine2_mvcc::Revision;
use kine2_proto::etcdserverpb::cluster_server::Cluster;
use kine2_proto::etcdserverpb::{
    Member as PbMember, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Code, Request, Response, Status};

use crate::errors::etcd_error;
use crate::member::{Identity, Member, RequestError};
use crate::service::{Service, unsupported};

#[tonic::async_trait]
impl<M: Member> Cluster for Service<M> {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let urls = request.into_inner().peer_ur_ls;
        if urls.is_empty() || !urls.iter().all(|url| is_peer_url(url)) {
            return Err(etcd_error(
                Code::InvalidArgument,
                "given member URLs are invalid",
            ));
        }
        Err(unsupported("adding members is"))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.check_member(request.into_inner().id)?;
        Err(unsupported("removing members is"))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.check_member(request.into_inner().id)?;
        Err(unsupported("changing members is"))
    }

    /// Its header carries no revision (`etcd S3`).
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.into_inner().linearizable && self.member.status().primary == 0 {
            return Err(RequestError::NoLeader.into());
        }
        let members = self.member.members().into_iter().map(member).collect();
        let header = self.header(Revision(0));
        Ok(Response::new(MemberListResponse { header, members }))
    }

    /// Nobody here is a learner.
    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.check_member(request.into_inner().id)?;
        Err(etcd_error(
            Code::FailedPrecondition,
            "can only promote a learner member",
        ))
    }
}

impl<M: Member> Service<M> {
    fn check_member(&self, id: u64) -> Result<(), Status> {
        let known = self
            .member
            .members()
            .iter()
            .any(|member| member.member_id == id);
        if known {
            Ok(())
        } else {
            Err(etcd_error(Code::NotFound, "member not found"))
        }
    }
}

/// As etcd has it: a host and a port without a path, or the path of a socket.
fn is_peer_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.trim().split_once("://") else {
        return false;
    };
    let has_port = |rest: &str| {
        rest.rsplit_once(':')
            .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
    };
    match scheme {
        "http" | "https" => has_port(rest),
        "unix" | "unixs" => !rest.is_empty(),
        _ => false,
    }
}

fn member(identity: Identity) -> PbMember {
    PbMember {
        id: identity.member_id,
        name: identity.name,
        peer_ur_ls: identity.peer_urls,
        client_ur_ls: identity.client_urls,
        is_learner: false,
    }
}
