//! A watcher that comes again when its stream ends, and remembers what it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use kine2_proto::WireCodec;
use kine2_proto::decoded::Event;
use kine2_proto::etcdserverpb::watch_request::RequestUnion;
use kine2_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use prost::Message;
use tonic::Request;
use tonic::client::Grpc;

use crate::client::Client;
use crate::writer::Acked;

/// How long the last events may take.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// What a watcher saw: revision and key of each event.
#[derive(Debug, Default)]
pub struct Seen {
    /// In the order they came.
    pub events: Vec<(i64, String)>,
    /// How often a stream ended.
    pub streams_ended: usize,
}

/// Watches until it is told to stop.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    newest: Arc<AtomicI64>,
    task: tokio::task::JoinHandle<Seen>,
}

impl Watcher {
    /// Watches all keys that begin with `w/` from revision 1, at whichever endpoint answers.
    #[must_use]
    pub fn start(urls: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<Client> = urls.iter().map(|url| Client::new(url)).collect();
        let newest = Arc::new(AtomicI64::new(0));
        let task = tokio::spawn(run(clients, Arc::clone(&stop), Arc::clone(&newest)));
        Self { stop, newest, task }
    }

    /// Ends it once it has seen this revision, or after a while.
    ///
    /// # Panics
    /// If it panicked.
    pub async fn finish(self, revision: i64) -> Seen {
        let begun = Instant::now();
        while self.newest.load(Ordering::Relaxed) < revision && begun.elapsed() < CATCH_UP_MAX {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn run(clients: Vec<Client>, stop: Arc<AtomicBool>, newest: Arc<AtomicI64>) -> Seen {
    let mut seen = Seen::default();
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        // An error is the end of the stream: the next endpoint goes on where it ended.
        let _ = follow(&clients[at], &mut seen, &stop, &newest).await;
        seen.streams_ended += 1;
        at = (at + 1) % clients.len();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    seen
}

async fn follow(
    client: &Client,
    seen: &mut Seen,
    stop: &AtomicBool,
    newest: &AtomicI64,
) -> Result<(), tonic::Status> {
    let mut grpc = Grpc::new(client.channel());
    let ready = grpc.ready().await;
    ready.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let create = WatchCreateRequest {
        key: "w/".into(),
        range_end: "w0".into(),
        start_revision: seen.events.last().map_or(1, |(revision, _)| revision + 1),
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    let _ = requests.send(create).await;
    let queue = QueueStream(queue);
    let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let codec = WireCodec::<WatchRequest, WatchResponse>::default();
    let opening = grpc.streaming(Request::new(queue), path, codec);
    let opened = tokio::time::timeout(Duration::from_secs(1), opening).await;
    let opened = opened.map_err(|_| tonic::Status::deadline_exceeded("no answer"))?;
    let mut stream = opened?.into_inner();
    while !stop.load(Ordering::Relaxed) {
        let next = tokio::time::timeout(Duration::from_millis(200), stream.message()).await;
        let Ok(next) = next else {
            continue;
        };
        let Some(response) = next? else {
            return Ok(());
        };
        if response.canceled {
            return Ok(());
        }
        for event in response.events {
            let event = Event::decode(event.0).unwrap();
            let kv = event.kv.unwrap();
            let key = String::from_utf8(kv.key.to_vec()).unwrap();
            newest.store(kv.mod_revision, Ordering::Relaxed);
            seen.events.push((kv.mod_revision, key));
        }
    }
    Ok(())
}

/// A channel as a stream.
struct QueueStream(tokio::sync::mpsc::Receiver<WatchRequest>);

impl tonic::codegen::tokio_stream::Stream for QueueStream {
    type Item = WatchRequest;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<WatchRequest>> {
        self.0.poll_recv(context)
    }
}

/// Checks that every write was seen once, in order.
///
/// # Panics
/// If one is missing or doubled.
pub fn check(seen: &Seen, acked: &[Acked]) {
    let revisions: Vec<i64> = seen.events.iter().map(|(revision, _)| *revision).collect();
    assert!(
        revisions.windows(2).all(|pair| pair[0] < pair[1]),
        "events out of order or doubled"
    );
    for acked in acked {
        let at = revisions.binary_search(&acked.revision);
        assert!(
            at.is_ok(),
            "the event of revision {} was not seen",
            acked.revision
        );
    }
}
