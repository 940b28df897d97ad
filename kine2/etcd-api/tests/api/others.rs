//! Maintenance, Cluster, Auth, Health, and what is not there.

use kine2_mvcc::{Alarm, AlarmChange, AlarmKind, Command};
use kine2_proto::etcdserverpb as pb;
use kine2_proto::health::{HealthCheckRequest, HealthCheckResponse};
use kine2_proto::{v3electionpb, v3lockpb};
use tonic::{Code, Request, Status};

use crate::client::{Running, in_time, next};
use crate::double::MEMBER;

fn check_error<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test]
async fn s52_status_fills_everything_etcdctl_shows() {
    let server = Running::start();
    let client = server.client().await;
    let nospace = Alarm {
        member_id: MEMBER,
        kind: AlarmKind::NoSpace,
    };
    server.member.raise(nospace);
    let path = "/etcdserverpb.Maintenance/Status";
    let status: pb::StatusResponse = client.call(path, pb::StatusRequest {}).await.unwrap();
    assert_eq!(status.header.unwrap().member_id, status.leader);
    assert_eq!(status.version, kine2_etcd_api::ETCD_VERSION);
    assert_eq!(
        (status.db_size, status.db_size_in_use, status.db_size_quota),
        (2000, 1000, 1 << 31)
    );
    assert_eq!(
        (
            status.raft_index,
            status.raft_applied_index,
            status.raft_term
        ),
        (12, 11, 7)
    );
    assert_eq!(status.errors, ["memberID:161 alarm:NOSPACE "]);
    assert!(status.downgrade_info.is_some() && !status.storage_version.is_empty());
}

#[tokio::test]
async fn s53_alarms_are_listed_by_kind_and_changed_through_the_log() {
    let server = Running::start();
    let client = server.client().await;
    let nospace = Alarm {
        member_id: MEMBER,
        kind: AlarmKind::NoSpace,
    };
    server.member.raise(nospace);
    let alarm = |action, alarm| {
        let request = pb::AlarmRequest {
            action,
            member_id: MEMBER,
            alarm,
        };
        client.call::<_, pb::AlarmResponse>("/etcdserverpb.Maintenance/Alarm", request)
    };
    let (get, clear) = (0, 2);
    let listed = alarm(get, 0).await.unwrap();
    assert_eq!(
        listed.alarms,
        [pb::AlarmMember {
            member_id: MEMBER,
            alarm: 1
        }]
    );
    assert_eq!(listed.header.unwrap().revision, 1);
    assert!(alarm(get, 2).await.unwrap().alarms.is_empty());
    assert!(alarm(clear, 0).await.unwrap().alarms.is_empty());
    assert!(server.member.take_commands().is_empty());
    assert_eq!(alarm(clear, 1).await.unwrap().alarms.len(), 1);
    let expected = Command::Alarm(AlarmChange::Clear(nospace));
    assert_eq!(server.member.take_commands(), [expected]);
}

#[tokio::test]
async fn s54_s56_hashes_defragment_move_leader_downgrade() {
    let server = Running::start();
    let client = server.client().await;
    let hash: pb::HashResponse = client
        .call("/etcdserverpb.Maintenance/Hash", pb::HashRequest {})
        .await
        .unwrap();
    assert_eq!(hash.hash, 42);
    let hash: pb::HashKvResponse = client
        .call(
            "/etcdserverpb.Maintenance/HashKV",
            pb::HashKvRequest { revision: 1 },
        )
        .await
        .unwrap();
    assert_eq!(
        (hash.hash, hash.hash_revision, hash.compact_revision),
        (42, 1, -1)
    );
    let done: pb::DefragmentResponse = client
        .call(
            "/etcdserverpb.Maintenance/Defragment",
            pb::DefragmentRequest {},
        )
        .await
        .unwrap();
    assert_eq!(done.header, None);

    let path = "/etcdserverpb.Maintenance/MoveLeader";
    let to = |target_id| {
        client.call::<_, pb::MoveLeaderResponse>(path, pb::MoveLeaderRequest { target_id })
    };
    assert_eq!(to(MEMBER).await.unwrap().header, None);
    let text = "etcdserver: bad leader transferee";
    check_error(to(5).await, Code::FailedPrecondition, text);

    let path = "/etcdserverpb.Maintenance/Downgrade";
    let downgrade = |action, version: &str| {
        let request = pb::DowngradeRequest {
            action,
            version: version.into(),
        };
        client.call::<_, pb::DowngradeResponse>(path, request)
    };
    assert_eq!(downgrade(0, "3.5").await.unwrap().version, "3.6");
    let text = "etcdserver: invalid downgrade target version";
    check_error(downgrade(0, "3.4").await, Code::InvalidArgument, text);
    let text = "etcdserver: downgrades are not supported by this server";
    check_error(downgrade(1, "3.5").await, Code::Unimplemented, text);

    let mut snapshot = client
        .server_stream::<_, pb::SnapshotResponse>(
            "/etcdserverpb.Maintenance/Snapshot",
            pb::SnapshotRequest {},
        )
        .await;
    if let Ok(stream) = &mut snapshot {
        check_error(
            in_time(stream.message()).await,
            Code::Unimplemented,
            SNAPSHOT,
        );
    } else {
        check_error(snapshot.map(|_| ()), Code::Unimplemented, SNAPSHOT);
    }
}

const SNAPSHOT: &str = "etcdserver: snapshots are not supported by this server";

#[tokio::test]
async fn s51_the_member_list_names_the_one_who_answers() {
    let server = Running::start();
    let client = server.client().await;
    let list: pb::MemberListResponse = client
        .call(
            "/etcdserverpb.Cluster/MemberList",
            pb::MemberListRequest { linearizable: true },
        )
        .await
        .unwrap();
    let header = list.header.unwrap();
    assert_eq!((header.member_id, header.revision), (list.members[0].id, 0));
    assert_eq!(list.members[0].name, "double");
    assert_eq!(list.members[0].client_ur_ls, ["http://127.0.0.1:2379"]);

    let path = "/etcdserverpb.Cluster/MemberRemove";
    let remove =
        |id| client.call::<_, pb::MemberRemoveResponse>(path, pb::MemberRemoveRequest { id });
    check_error(
        remove(5).await,
        Code::NotFound,
        "etcdserver: member not found",
    );
    let text = "etcdserver: removing members is not supported by this server";
    check_error(remove(MEMBER).await, Code::Unimplemented, text);

    let path = "/etcdserverpb.Cluster/MemberAdd";
    let add = |url: &str| {
        let request = pb::MemberAddRequest {
            peer_ur_ls: vec![url.to_owned()],
            is_learner: false,
        };
        client.call::<_, pb::MemberAddResponse>(path, request)
    };
    let text = "etcdserver: given member URLs are invalid";
    for url in [
        "nothing",
        "http://host",
        "ftp://host:1",
        "http://host:1/path",
        "",
    ] {
        check_error(add(url).await, Code::InvalidArgument, text);
    }
    let text = "etcdserver: adding members is not supported by this server";
    check_error(add("http://host:2380").await, Code::Unimplemented, text);
}

#[tokio::test]
async fn s62_auth_is_off_and_says_so() {
    let server = Running::start();
    let client = server.client().await;
    let status: pb::AuthStatusResponse = client
        .call("/etcdserverpb.Auth/AuthStatus", pb::AuthStatusRequest {})
        .await
        .unwrap();
    assert_eq!((status.enabled, status.auth_revision), (false, 1));
    let request = pb::AuthenticateRequest {
        name: "root".into(),
        password: "x".into(),
    };
    let result = client
        .call::<_, pb::AuthenticateResponse>("/etcdserverpb.Auth/Authenticate", request)
        .await;
    check_error(
        result,
        Code::FailedPrecondition,
        "etcdserver: authentication is not enabled",
    );
    let result = client
        .call::<_, pb::AuthEnableResponse>(
            "/etcdserverpb.Auth/AuthEnable",
            pb::AuthEnableRequest {},
        )
        .await;
    check_error(
        result,
        Code::FailedPrecondition,
        "etcdserver: root user does not exist",
    );
}

#[tokio::test]
async fn lock_and_election_are_unimplemented() {
    let server = Running::start();
    let client = server.client().await;
    let lock = v3lockpb::LockRequest::default();
    let result = client
        .call::<_, v3lockpb::LockResponse>("/v3lockpb.Lock/Lock", lock)
        .await;
    assert_eq!(result.unwrap_err().code(), Code::Unimplemented);
    let request = v3electionpb::LeaderRequest::default();
    let result = client
        .call::<_, v3electionpb::LeaderResponse>("/v3electionpb.Election/Leader", request)
        .await;
    assert_eq!(result.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn the_health_service_knows_the_server_as_a_whole() {
    let server = Running::start();
    let client = server.client().await;
    let check = |service: &str| {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        client.call::<_, HealthCheckResponse>("/grpc.health.v1.Health/Check", request)
    };
    assert_eq!(check("").await.unwrap().status, 1);
    check_error(check("x").await, Code::NotFound, "unknown service");
    server.member.lose_primary();
    assert_eq!(check("").await.unwrap().status, 2);

    let path = "/grpc.health.v1.Health/Watch";
    let mut states = client
        .server_stream::<_, HealthCheckResponse>(path, HealthCheckRequest::default())
        .await
        .unwrap();
    assert_eq!(next(&mut states).await.status, 2);
    let stopped = server.stop();
    assert_eq!(next(&mut states).await.status, 2);
    assert_eq!(
        in_time(states.message()).await.unwrap_err().code(),
        Code::Unavailable
    );
    in_time(stopped).await.unwrap();
}

#[tokio::test]
async fn s43_without_a_leader_those_who_ask_for_one_are_refused() {
    let server = Running::start();
    let client = server.client().await;
    let range = || pb::RangeRequest {
        key: "k".into(),
        ..Default::default()
    };
    let ask = || {
        let mut request = Request::new(range());
        request
            .metadata_mut()
            .insert("hasleader", "true".parse().unwrap());
        client.call_with::<_, pb::RangeResponse>("/etcdserverpb.KV/Range", request)
    };
    ask().await.unwrap();
    server.member.lose_primary();
    check_error(ask().await, Code::Unavailable, "etcdserver: no leader");
    client
        .call::<_, pb::RangeResponse>("/etcdserverpb.KV/Range", range())
        .await
        .unwrap();
}

/// Clients lock and elect with transactions and watches; who asks the services is told plainly.
#[tokio::test]
async fn s59_lock_and_election_say_that_they_are_not_there() {
    use kine2_proto::v3electionpb::{CampaignRequest, CampaignResponse};
    use kine2_proto::v3lockpb::{LockRequest, LockResponse};
    let server = Running::start();
    let client = server.client().await;
    let lock = client.call::<_, LockResponse>("/v3lockpb.Lock/Lock", LockRequest::default());
    let text = "etcdserver: the Lock service is not supported by this server";
    check_error(lock.await, Code::Unimplemented, text);
    let path = "/v3electionpb.Election/Campaign";
    let campaign = client.call::<_, CampaignResponse>(path, CampaignRequest::default());
    let text = "etcdserver: the Election service is not supported by this server";
    check_error(campaign.await, Code::Unimplemented, text);
}
