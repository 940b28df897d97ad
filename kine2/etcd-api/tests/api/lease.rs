//! Leases over the wire.

use kine2_mvcc::Command;
use kine2_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tokio::sync::mpsc::unbounded_channel;
use tonic::Code;

use crate::client::{Running, in_time, next};
use crate::watch::stream_of;

const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
const LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";

#[tokio::test]
async fn s45_a_grant_has_bounds() {
    let server = Running::start();
    let client = server.client().await;
    let grant =
        |ttl, id| client.call::<_, LeaseGrantResponse>(GRANT, LeaseGrantRequest { ttl, id });
    for (asked, granted) in [
        (-5, 2),
        (0, 2),
        (2, 2),
        (60, 60),
        (9_000_000_000, 9_000_000_000),
    ] {
        let answer = grant(asked, -8).await.unwrap();
        assert_eq!((answer.ttl, answer.id), (granted, -8));
        assert_eq!(answer.header.unwrap().revision, 1);
    }
    assert_eq!(grant(60, 0).await.unwrap().id, 99);
    let commands = server.member.take_commands().len();
    let status = grant(9_000_000_001, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(status.message(), "etcdserver: too large lease TTL");
    assert_eq!((commands, server.member.take_commands().len()), (6, 0));
}

#[tokio::test]
async fn s48_revoking_what_is_not_there() {
    let server = Running::start();
    let client = server.client().await;
    let result = client
        .call::<_, LeaseRevokeResponse>(REVOKE, LeaseRevokeRequest { id: 8 })
        .await;
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "etcdserver: requested lease not found");
    assert_eq!(
        server.member.take_commands(),
        [Command::LeaseRevoke { id: 8 }]
    );
}

#[tokio::test]
async fn s46_a_keep_alive_stream_answers_each_request_in_order_and_ends_with_its_client() {
    let server = Running::start();
    let client = server.client().await;
    let (requests, receiver) = unbounded_channel();
    let mut answers = client
        .both_streams::<_, LeaseKeepAliveResponse>(KEEP_ALIVE, stream_of(receiver))
        .await
        .unwrap();
    for id in [5, 500, 7] {
        requests.send(LeaseKeepAliveRequest { id }).unwrap();
    }
    for (id, ttl) in [(5, 5), (500, 0), (7, 7)] {
        let answer = next(&mut answers).await;
        assert_eq!((answer.id, answer.ttl), (id, ttl));
        assert_eq!(answer.header.unwrap().revision, 1);
    }
    drop(requests);
    assert_eq!(in_time(answers.message()).await.unwrap(), None);
}

#[tokio::test]
async fn l4_a_stop_ends_keep_alives_with_unavailable() {
    let server = Running::start();
    let client = server.client().await;
    let (_requests, receiver) = unbounded_channel::<LeaseKeepAliveRequest>();
    let mut answers = client
        .both_streams::<_, LeaseKeepAliveResponse>(KEEP_ALIVE, stream_of(receiver))
        .await
        .unwrap();
    let stopped = server.stop();
    let status = in_time(answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    in_time(stopped).await.unwrap();
}

#[tokio::test]
async fn s47_what_is_left_of_a_lease() {
    let server = Running::start();
    let client = server.client().await;
    let ask = |id, keys| {
        let request = LeaseTimeToLiveRequest { id, keys };
        client.call::<_, LeaseTimeToLiveResponse>(TIME_TO_LIVE, request)
    };
    let answer = ask(10, true).await.unwrap();
    assert_eq!(
        (answer.id, answer.ttl, answer.granted_ttl, answer.keys.len()),
        (10, 9, 10, 1)
    );
    assert!(ask(10, false).await.unwrap().keys.is_empty());
    let absent = ask(500, true).await.unwrap();
    assert_eq!((absent.id, absent.ttl, absent.granted_ttl), (500, -1, 0));
    assert_eq!(absent.header.unwrap().revision, 1);

    let leases: LeaseLeasesResponse = client.call(LEASES, LeaseLeasesRequest {}).await.unwrap();
    assert_eq!(
        leases
            .leases
            .iter()
            .map(|lease| lease.id)
            .collect::<Vec<_>>(),
        [3, 5]
    );
}
