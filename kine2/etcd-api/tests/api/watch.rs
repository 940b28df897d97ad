//! Watch over the wire.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use kine2_etcd_api::RequestError;
use kine2_mvcc::{CancelCause, KeyRange, Revision, WatchMessage, WatchRequest, WatchUpdate};
use kine2_proto::decoded::{Event, KeyValue};
use kine2_proto::etcdserverpb as pb;
use kine2_proto::etcdserverpb::watch_request::RequestUnion;
use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::{Code, Request, Streaming};

use crate::client::{Client, Running, in_time, next};
use crate::double::{Hub, HubCall};

const WATCH: &str = "/etcdserverpb.Watch/Watch";

pub(crate) fn stream_of<T: Send + 'static>(
    receiver: UnboundedReceiver<T>,
) -> impl Stream<Item = T> + Send + 'static {
    unfold(receiver, |mut receiver| async {
        Some((receiver.recv().await?, receiver))
    })
}

/// A client's watch stream and the hub's end of it.
struct Watching {
    requests: Option<UnboundedSender<pb::WatchRequest>>,
    responses: Streaming<pb::WatchResponse>,
    hub: Hub,
}

impl Watching {
    async fn start(server: &Running, client: &Client) -> Self {
        let hub = server.member.next_watch();
        let (requests, receiver) = unbounded_channel();
        let responses = client
            .both_streams(WATCH, stream_of(receiver))
            .await
            .unwrap();
        Self {
            requests: Some(requests),
            responses,
            hub,
        }
    }

    fn ask(&self, request: RequestUnion) {
        let request = pb::WatchRequest {
            request_union: Some(request),
        };
        self.requests.as_ref().unwrap().send(request).unwrap();
    }

    fn tell(&self, watch_id: i64, revision: i64, update: WatchUpdate) {
        self.tell_all(vec![message(watch_id, revision, update)]);
    }

    fn tell_all(&self, messages: Vec<WatchMessage>) {
        self.hub.messages.send(Ok(messages)).unwrap();
    }
}

fn message(watch_id: i64, revision: i64, update: WatchUpdate) -> WatchMessage {
    WatchMessage {
        watch_id,
        revision: Revision(revision),
        update,
    }
}

#[tokio::test]
async fn s29_s30_requests_reach_the_hub_as_they_are_meant() {
    let server = Running::start();
    let client = server.client().await;
    let mut watching = Watching::start(&server, &client).await;
    watching.ask(RequestUnion::CreateRequest(pb::WatchCreateRequest {
        range_end: "\0".into(),
        start_revision: 7,
        filters: vec![1, 99],
        prev_kv: true,
        watch_id: 4,
        fragment: true,
        ..Default::default()
    }));
    watching.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    watching.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest {
        watch_id: 4,
    }));
    let expected = WatchRequest {
        id: 4,
        range: KeyRange::from_wire(Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
        start: 7,
        no_put: false,
        no_delete: true,
        prev_kv: true,
        progress_notify: false,
        fragment: true,
    };
    let calls = &mut watching.hub.calls;
    assert_eq!(in_time(calls.recv()).await, Some(HubCall::Create(expected)));
    assert_eq!(in_time(calls.recv()).await, Some(HubCall::Progress));
    assert_eq!(in_time(calls.recv()).await, Some(HubCall::Cancel(4)));
}

#[tokio::test]
async fn s30_s32_s33_messages_become_responses() {
    let server = Running::start();
    let client = server.client().await;
    let mut watching = Watching::start(&server, &client).await;
    watching.tell(3, 5, WatchUpdate::Created);
    let created = next(&mut watching.responses).await;
    assert!(created.created && !created.canceled && created.watch_id == 3);
    assert_eq!(created.header.unwrap().revision, 5);

    let refusals = [
        (CancelCause::EmptyRange, "mvcc: watcher range is empty"),
        (
            CancelCause::DuplicateId,
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (
            CancelCause::NegativeStart,
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ];
    for (cause, reason) in refusals {
        watching.tell(-1, 5, WatchUpdate::Refused(cause));
        let refused = next(&mut watching.responses).await;
        assert!(refused.created && refused.canceled && refused.watch_id == -1);
        assert_eq!(
            (&refused.cancel_reason[..], refused.compact_revision),
            (reason, 0)
        );
    }

    watching.tell(
        3,
        0,
        WatchUpdate::Canceled(CancelCause::Compacted(Revision(4))),
    );
    let compacted = next(&mut watching.responses).await;
    assert!(!compacted.created && compacted.canceled);
    assert_eq!(
        (&compacted.cancel_reason[..], compacted.compact_revision),
        ("", 4)
    );
    assert_eq!(compacted.header.unwrap().revision, 0);

    watching.tell(5, 9, WatchUpdate::Canceled(CancelCause::Requested));
    let cancelled = next(&mut watching.responses).await;
    assert!(cancelled.canceled && cancelled.cancel_reason.is_empty());

    watching.tell(-1, 9, WatchUpdate::Progress);
    let progress = next(&mut watching.responses).await;
    let expected = pb::WatchResponse {
        header: progress.header,
        watch_id: -1,
        ..Default::default()
    };
    assert_eq!(progress, expected);
}

#[tokio::test]
async fn s41_fragments_arrive_back_to_back() {
    let server = Running::start();
    let client = server.client().await;
    let mut watching = Watching::start(&server, &client).await;
    let events = |fragment| WatchUpdate::Events {
        events: vec![Bytes::from_static(b"\x12\x05\x0a\x01k\x18\x03")],
        fragment,
    };
    watching.tell_all(vec![
        message(0, 3, events(true)),
        message(0, 3, events(true)),
        message(0, 3, events(false)),
        message(1, 3, events(false)),
    ]);
    watching.tell(2, 3, WatchUpdate::Created);
    for (id, fragment) in [(0, true), (0, true), (0, false), (1, false)] {
        let response = next(&mut watching.responses).await;
        assert_eq!((response.watch_id, response.fragment), (id, fragment));
        assert_eq!(&response.events[0].0[..], b"\x12\x05\x0a\x01k\x18\x03");
    }
}

#[tokio::test]
async fn s33_a_client_that_closes_its_side_still_hears_events() {
    let server = Running::start();
    let client = server.client().await;
    let mut watching = Watching::start(&server, &client).await;
    watching.requests = None;
    tokio::time::sleep(Duration::from_millis(50)).await;
    watching.tell(0, 3, WatchUpdate::Progress);
    assert_eq!(next(&mut watching.responses).await.watch_id, 0);
}

#[tokio::test]
async fn l4_a_stop_ends_streams_with_unavailable() {
    let server = Running::start();
    let client = server.client().await;
    let mut watching = Watching::start(&server, &client).await;
    watching.tell(0, 3, WatchUpdate::Created);
    next(&mut watching.responses).await;
    let stopped = server.stop();
    let status = in_time(watching.responses.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "etcdserver: server stopped");
    in_time(stopped).await.unwrap();
}

#[tokio::test]
async fn s42_what_a_slow_client_does_not_read_stays_in_the_hub() {
    const MESSAGES: usize = 500;
    let server = Running::start();
    let client = server.client().await;
    let mut watching = Watching::start(&server, &client).await;
    for revision in 1..=MESSAGES {
        let kv = KeyValue {
            value: vec![0; 64 << 10].into(),
            ..KeyValue::default()
        };
        let event = Event {
            kv: Some(kv),
            ..Event::default()
        }
        .encode_to_vec();
        let update = WatchUpdate::Events {
            events: vec![event.into()],
            fragment: false,
        };
        watching.tell(0, i64::try_from(revision).unwrap(), update);
    }
    // Another client is served meanwhile, and the slow one's data is not taken.
    let mut other = Watching::start(&server, &server.client().await).await;
    other.tell(0, 3, WatchUpdate::Created);
    next(&mut other.responses).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let taken = watching.hub.taken.load(Ordering::Relaxed);
    assert!(taken < 50, "{taken} messages were taken from the hub");
    for revision in 1..=MESSAGES {
        let response = next(&mut watching.responses).await;
        assert_eq!(
            response.header.unwrap().revision,
            i64::try_from(revision).unwrap()
        );
    }
}

/// etcd's client ends all watches of a stream for good when it reads "no leader", and watches again
/// after any other Unavailable.
#[tokio::test]
async fn s43_l4_only_who_asks_for_a_leader_is_told_that_there_is_none() {
    let server = Running::start();
    let client = server.client().await;
    for (asks, text) in [(true, "no leader"), (false, "server stopped")] {
        let hub = server.member.next_watch();
        let (_requests, receiver) = unbounded_channel::<pb::WatchRequest>();
        let mut request = Request::new(stream_of(receiver));
        if asks {
            let asked = "true".parse().unwrap();
            request.metadata_mut().insert("hasleader", asked);
        }
        let opened = client.both_streams_with(WATCH, request).await;
        let mut responses: Streaming<pb::WatchResponse> = opened.unwrap();
        hub.messages.send(Err(RequestError::NoLeader)).unwrap();
        let ended = in_time(responses.message()).await.unwrap_err();
        assert_eq!(ended.code(), Code::Unavailable);
        assert_eq!(ended.message(), format!("etcdserver: {text}"));
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_stream_at_the_hub() {
    let server = Running::start();
    let client = server.client().await;
    let mut watching = Watching::start(&server, &client).await;
    drop(watching.responses);
    drop(watching.requests);
    assert_eq!(in_time(watching.hub.calls.recv()).await, None);
}

#[tokio::test]
async fn streams_cancelled_all_day_do_not_cost_the_connection() {
    let server = Running::start();
    let client = server.client().await;
    for _ in 0..3000 {
        let watching = Watching::start(&server, &client).await;
        drop(watching);
    }
    let mut watching = Watching::start(&server, &client).await;
    watching.tell(0, 3, WatchUpdate::Created);
    assert!(next(&mut watching.responses).await.created);
}
