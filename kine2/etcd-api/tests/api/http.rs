//! Plain HTTP over the same port.

use kine2_etcd_api::ServeConfig;
use kine2_mvcc::{Alarm, AlarmKind};
use kine2_proto::etcdserverpb::{PutRequest, PutResponse, WatchRequest, WatchResponse};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;

use crate::client::{Running, in_time, next};
use crate::watch::stream_of;

/// Sends one HTTP/1.1 request; answers the status and the body.
pub(crate) async fn request(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: kine2\r\nConnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    in_time(io.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

pub(crate) async fn get(url: &str, path: &str) -> (u16, String) {
    let address = url.strip_prefix("http://").unwrap();
    request(TcpStream::connect(address).await.unwrap(), "GET", path).await
}

#[tokio::test]
async fn s60_health_version_and_checks() {
    let server = Running::start();
    let url = &server.client_url;
    let healthy = "{\"health\":\"true\",\"reason\":\"\"}";
    assert_eq!(get(url, "/health").await, (200, healthy.to_owned()));
    let version = "{\"etcdserver\":\"3.6.11\",\"etcdcluster\":\"3.6.0\",\"storage\":\"3.6.0\"}";
    assert_eq!(get(url, "/version").await, (200, version.to_owned()));
    assert_eq!(get(url, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(
        get(url, "/livez/serializable_read").await,
        (200, "ok\n".to_owned())
    );
    let ready = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
                 [+]non_learner ok\nok\n";
    assert_eq!(get(url, "/readyz?verbose").await, (200, ready.to_owned()));
    assert_eq!(get(url, "/nowhere").await.0, 404);
    assert_eq!(get(url, "/readyz/nothing").await.0, 404);
    let address = url.strip_prefix("http://").unwrap();
    let io = TcpStream::connect(address).await.unwrap();
    assert_eq!(request(io, "POST", "/health").await.0, 405);
}

#[tokio::test]
async fn s60_alarms_and_a_missing_leader_make_it_ill() {
    let server = Running::start();
    let url = &server.client_url;
    server.member.raise(Alarm {
        member_id: 1,
        kind: AlarmKind::Corrupt,
    });
    let ill = "{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n";
    assert_eq!(get(url, "/health").await, (503, ill.to_owned()));
    assert_eq!(get(url, "/health?exclude=CORRUPT").await.0, 200);
    let (status, body) = get(url, "/readyz").await;
    assert_eq!(status, 503);
    assert!(
        body.starts_with("[-]data_corruption failed: alarm activated: CORRUPT\n"),
        "{body}"
    );
    assert_eq!(get(url, "/readyz?exclude=data_corruption").await.0, 200);

    server.member.lose_primary();
    let ill = "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n";
    assert_eq!(
        get(url, "/health?exclude=CORRUPT").await,
        (503, ill.to_owned())
    );
    assert_eq!(
        get(url, "/health?exclude=CORRUPT&serializable=true")
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn metrics_count_calls_by_code() {
    let server = Running::start();
    let client = server.client().await;
    let path = "/etcdserverpb.KV/Put";
    let put = PutRequest {
        key: "k".into(),
        ..PutRequest::default()
    };
    client.call::<_, PutResponse>(path, put).await.unwrap();
    client
        .call::<_, PutResponse>(path, PutRequest::default())
        .await
        .unwrap_err();
    let (requests, receiver) = unbounded_channel::<WatchRequest>();
    let hub = server.member.next_watch();
    let watch = client
        .both_streams::<_, WatchResponse>("/etcdserverpb.Watch/Watch", stream_of(receiver))
        .await
        .unwrap();
    drop((watch, requests));
    let mut calls = hub.calls;
    assert_eq!(in_time(calls.recv()).await, None);

    let (status, text) = get(&server.client_url, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_mvcc_db_total_size_in_bytes 2000",
        "etcd_mvcc_put_total 5",
        "etcd_debugging_mvcc_current_revision 2",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",\
         grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        "grpc_server_handled_total{grpc_code=\"InvalidArgument\",grpc_method=\"Put\",\
         grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",\
         grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(text.contains("process_resident_memory_bytes "));
}

#[tokio::test]
async fn the_admin_port_answers_no_calls() {
    let server = Running::with(ServeConfig {
        client_urls: vec!["http://127.0.0.1:0".parse().unwrap()],
        admin_urls: vec!["http://127.0.0.1:0".parse().unwrap()],
        ..ServeConfig::default()
    });
    let admin = server.admin_url.clone().unwrap();
    assert_eq!(get(&admin, "/health").await.0, 200);
    let client =
        crate::client::Client::connect(tonic::transport::Endpoint::from_shared(admin).unwrap())
            .await;
    let put = PutRequest {
        key: "k".into(),
        ..PutRequest::default()
    };
    assert!(
        client
            .call::<_, PutResponse>("/etcdserverpb.KV/Put", put)
            .await
            .is_err()
    );
    assert!(server.member.take_commands().is_empty());
    // The port for clients still does.
    let hub = server.member.next_watch();
    let (_requests, receiver) = unbounded_channel::<WatchRequest>();
    let client = server.client().await;
    let mut watch = client
        .both_streams::<_, WatchResponse>("/etcdserverpb.Watch/Watch", stream_of(receiver))
        .await
        .unwrap();
    let message = kine2_mvcc::WatchMessage {
        watch_id: 0,
        revision: kine2_mvcc::Revision(1),
        update: kine2_mvcc::WatchUpdate::Created,
    };
    hub.messages.send(Ok(vec![message])).unwrap();
    assert!(next(&mut watch).await.created);
}
