//! Listeners and connections.

use std::time::{Duration, Instant};

use kine2_etcd_api::{ServeConfig, ServeError, Server};
use kine2_proto::etcdserverpb::{PutRequest, PutResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::client::{Running, in_time};
use crate::http::request;

const PUT: &str = "/etcdserverpb.KV/Put";

fn put() -> PutRequest {
    PutRequest {
        key: "k".into(),
        ..PutRequest::default()
    }
}

#[tokio::test]
async fn a_unix_socket_answers_both_protocols() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kine2.sock");
    let server = Running::with(ServeConfig {
        client_urls: vec![format!("unix://{}", path.display()).parse().unwrap()],
        ..ServeConfig::default()
    });
    let client = server.client().await;
    client.call::<_, PutResponse>(PUT, put()).await.unwrap();
    let io = UnixStream::connect(&path).await.unwrap();
    assert_eq!(request(io, "GET", "/livez").await.0, 200);
    in_time(server.stop()).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn what_cannot_be_bound_is_named() {
    let running = Running::start();
    let config = |url: &str| ServeConfig {
        client_urls: vec![url.parse().unwrap()],
        ..ServeConfig::default()
    };
    let error = Server::bind(config(&running.client_url)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("listen on {}: ", running.client_url))
    );
    let error = Server::bind(config("https://127.0.0.1:0")).unwrap_err();
    assert!(matches!(&error, ServeError::NoCertificate { .. }));
    assert_eq!(
        error.to_string(),
        "https://127.0.0.1:0 needs a certificate and a key"
    );
}

#[tokio::test]
async fn a_stop_waits_for_no_idle_connection() {
    let server = Running::start();
    let client = server.client().await;
    client.call::<_, PutResponse>(PUT, put()).await.unwrap();
    let address = server
        .client_url
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    let silent = TcpStream::connect(&address).await.unwrap();
    let start = Instant::now();
    in_time(server.stop()).await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert!(TcpStream::connect(&address).await.is_err());
    drop(silent);
}

/// Each would otherwise keep its descriptor for ever.
#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_half_of_it_is_hung_up_on() {
    let server = Running::start();
    let address = server.client_url.strip_prefix("http://").unwrap();
    let asked = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    for said in ["", "PRI * HTTP/2.0\r\n", "GET /livez HTTP/1.1\r\n", asked] {
        let begun = tokio::time::Instant::now();
        let mut io = TcpStream::connect(address).await.unwrap();
        io.write_all(said.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        // A reset is as good an end as any.
        let _ = io.read_to_end(&mut heard).await;
        let took = begun.elapsed();
        assert!(
            (Duration::from_secs(5)..=Duration::from_secs(60)).contains(&took),
            "{said:?}: {took:?}"
        );
        let answered = heard.starts_with(b"HTTP/1.1 200");
        assert_eq!(answered, said == asked, "{said:?}");
    }
}

/// clientv3 3.5.0 sends an `:authority` that is none (`etcd L12`). h2 refuses the stream; the
/// connection stays usable for others.
#[tokio::test]
async fn l12_an_authority_that_is_none_costs_the_stream_only() {
    let server = Running::start();
    let address = server.client_url.strip_prefix("http://").unwrap();
    let mut io = TcpStream::connect(address).await.unwrap();
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    io.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    io.write_all(&frame(
        1,
        5,
        1,
        &header_block("#initially=[http://127.0.0.1:2379]"),
    ))
    .await
    .unwrap();
    io.write_all(&frame(1, 5, 3, &header_block("127.0.0.1:2379")))
        .await
        .unwrap();
    let (mut refused, mut answered) = (false, false);
    while !(refused && answered) {
        let (kind, stream, payload) = in_time(read_frame(&mut io)).await;
        match (kind, stream) {
            // RST_STREAM with PROTOCOL_ERROR.
            (3, 1) => refused = payload == [0, 0, 0, 1],
            // HEADERS.
            (1, 3) => answered = true,
            (7, _) => panic!("the connection was closed"),
            _ => {}
        }
    }
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&len[1..], &[kind, flags], &stream.to_be_bytes()[..]].concat();
    [&head[..], payload].concat()
}

/// `GET /health` in literals without index or Huffman code (RFC 7541, 6.2.2).
fn header_block(authority: &str) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/health"),
        (":authority", authority),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    block
}

async fn read_frame(io: &mut TcpStream) -> (u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.unwrap();
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    io.read_exact(&mut payload).await.unwrap();
    (
        head[3],
        u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
        payload,
    )
}
