//! The Maintenance service (`etcd` section 2.9).

use std::pin::Pin;

use futures_util::Stream;
use kine2_mvcc::{Alarm, AlarmChange, AlarmKind, Answer, Command, Revision};
use kine2_proto::etcdserverpb::alarm_request::AlarmAction;
use kine2_proto::etcdserverpb::downgrade_request::DowngradeAction;
use kine2_proto::etcdserverpb::maintenance_server::Maintenance;
use kine2_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse,
};
use tonic::{Code, Request, Response, Status};

use crate::errors::etcd_error;
use crate::member::{Member, RequestError};
use crate::service::{Service, unsupported, wrong_answer};
use crate::version::{
    ETCD_VERSION, ETCD_VERSION_CLUSTER_MINOR, ETCD_VERSION_STORAGE, downgrade_target,
};

#[tonic::async_trait]
impl<M: Member> Maintenance for Service<M> {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let request = request.into_inner();
        let kind = AlarmType::try_from(request.alarm).ok();
        let kind = match kind {
            Some(AlarmType::Nospace) => Some(AlarmKind::NoSpace),
            Some(AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
            Some(AlarmType::None) | None => None,
        };
        let change: fn(Alarm) -> AlarmChange = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => return Ok(self.alarms_of(kind)),
            Ok(AlarmAction::Activate) => AlarmChange::Raise,
            Ok(AlarmAction::Deactivate) => AlarmChange::Clear,
            Err(_unknown) => return Ok(self.alarm_response(self.member.revision(), &[])),
        };
        let Some(kind) = kind else {
            return Ok(self.alarm_response(self.member.revision(), &[]));
        };
        let member_id = request.member_id;
        let command = Command::Alarm(change(Alarm { member_id, kind }));
        let applied = self.member.propose(command).await?;
        let Answer::Alarms(changed) = applied.answer else {
            wrong_answer()
        };
        Ok(self.alarm_response(applied.revision, &changed))
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let status = self.member.status();
        let mut errors = Vec::new();
        if status.primary == 0 {
            errors.push("etcdserver: no leader".to_owned());
        }
        for alarm in self.member.alarms() {
            let name = alarm_type(alarm.kind).as_str_name();
            errors.push(format!("memberID:{} alarm:{name} ", alarm.member_id));
        }
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(StatusResponse {
            header: self.header(status.revision),
            version: ETCD_VERSION.to_owned(),
            db_size: bytes(status.db_size),
            leader: status.primary,
            raft_index: status.log_index,
            raft_term: self.member.term(),
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: bytes(status.db_size_in_use),
            is_learner: false,
            storage_version: ETCD_VERSION_STORAGE.to_owned(),
            db_size_quota: bytes(status.quota),
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    /// Its answer has no header (`etcd S3`).
    async fn defragment(
        &self,
        _request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.member.defragment().await?;
        Ok(Response::new(DefragmentResponse::default()))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let hash = self.member.hash(Revision(0)).await?;
        let header = self.header(hash.current);
        let hash = hash.hash;
        Ok(Response::new(HashResponse { header, hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let revision = Revision(request.into_inner().revision);
        let hash = self.member.hash(revision).await?;
        Ok(Response::new(HashKvResponse {
            header: self.header(hash.current),
            hash: hash.hash,
            compact_revision: hash.compacted.0,
            hash_revision: hash.at.0,
        }))
    }

    async fn snapshot(
        &self,
        _request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(unsupported("snapshots are"))
    }

    /// Its answer has no header (`etcd S3`).
    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let target = request.into_inner().target_id;
        let status = self.member.status();
        if status.primary == 0 {
            return Err(RequestError::NoLeader.into());
        }
        if status.primary != self.member.identity().member_id {
            return Err(etcd_error(Code::FailedPrecondition, "not leader"));
        }
        if target == status.primary {
            return Ok(Response::new(MoveLeaderResponse::default()));
        }
        if self
            .member
            .members()
            .iter()
            .any(|member| member.member_id == target)
        {
            return Err(unsupported("moving the leader is"));
        }
        Err(etcd_error(
            Code::FailedPrecondition,
            "bad leader transferee",
        ))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let request = request.into_inner();
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate) => downgrade_target(&request.version)?,
            Ok(DowngradeAction::Enable) => {
                downgrade_target(&request.version)?;
                return Err(unsupported("downgrades are"));
            }
            // As in etcd, there need not be one to cancel.
            Ok(DowngradeAction::Cancel) => {}
            Err(_unknown) => return Err(unsupported("this downgrade action is")),
        }
        Ok(Response::new(DowngradeResponse {
            header: self.header(self.member.revision()),
            version: ETCD_VERSION_CLUSTER_MINOR.to_owned(),
        }))
    }
}

impl<M: Member> Service<M> {
    /// The alarms of a kind, or all of them.
    fn alarms_of(&self, kind: Option<AlarmKind>) -> Response<AlarmResponse> {
        let mut alarms = self.member.alarms();
        alarms.retain(|alarm| kind.is_none_or(|kind| alarm.kind == kind));
        self.alarm_response(self.member.revision(), &alarms)
    }

    fn alarm_response(&self, revision: Revision, alarms: &[Alarm]) -> Response<AlarmResponse> {
        let alarms = alarms.iter().map(|alarm| AlarmMember {
            member_id: alarm.member_id,
            alarm: alarm_type(alarm.kind).into(),
        });
        Response::new(AlarmResponse {
            header: self.header(revision),
            alarms: alarms.collect(),
        })
    }
}

pub(crate) const fn alarm_type(kind: AlarmKind) -> AlarmType {
    match kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    }
}
