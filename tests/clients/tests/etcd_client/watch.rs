//! Watches: several on a stream, history, progress, cancel, compaction.

use etcd_client::{EventType, WatchFilterType, WatchOptions, WatchResponse, WatchStream};

use crate::server::{Server, in_time};

async fn next(stream: &mut WatchStream) -> WatchResponse {
    in_time(stream.message())
        .await
        .unwrap()
        .expect("the stream goes on")
}

#[tokio::test]
async fn watchers_of_a_stream_see_their_events_until_cancelled() {
    let server = Server::start();
    let mut client = server.client().await;
    client.put("a", "0", None).await.unwrap();
    let options = WatchOptions::new().with_prev_key();
    let mut stream = client.watch("a", Some(options)).await.unwrap();
    let created = next(&mut stream).await;
    assert!(created.created());
    assert_eq!(
        (created.watch_id(), created.header().unwrap().revision()),
        (0, 2)
    );
    let options = WatchOptions::new()
        .with_prefix()
        .with_watch_id(9)
        .with_filters([WatchFilterType::NoPut]);
    stream.watch("b/", Some(options)).await.unwrap();
    assert_eq!(next(&mut stream).await.watch_id(), 9);

    client.put("a", "1", None).await.unwrap();
    client.put("b/1", "unseen", None).await.unwrap();
    client.delete("b/1", None).await.unwrap();
    let seen = next(&mut stream).await;
    let event = &seen.events()[0];
    assert_eq!((seen.watch_id(), event.event_type()), (0, EventType::Put));
    assert_eq!(event.prev_kv().unwrap().value(), b"0");
    assert_eq!(event.kv().unwrap().value(), b"1");
    let seen = next(&mut stream).await;
    let event = &seen.events()[0];
    assert_eq!(
        (seen.watch_id(), event.event_type()),
        (9, EventType::Delete)
    );
    assert_eq!(
        (
            event.kv().unwrap().mod_revision(),
            event.prev_kv().is_none()
        ),
        (5, true)
    );

    stream.cancel(0).await.unwrap();
    let cancelled = next(&mut stream).await;
    assert!(cancelled.canceled());
    assert_eq!((cancelled.watch_id(), cancelled.cancel_reason()), (0, ""));
    client.put("a", "2", None).await.unwrap();
    client.put("b/2", "", None).await.unwrap();
    client.delete("b/2", None).await.unwrap();
    assert_eq!(next(&mut stream).await.watch_id(), 9);
}

#[tokio::test]
async fn history_comes_first_and_progress_never_before_it() {
    let server = Server::start();
    let mut client = server.client().await;
    for i in 0..50 {
        client.put("a", i.to_string(), None).await.unwrap();
    }
    let options = WatchOptions::new().with_start_revision(10);
    let mut stream = client.watch("a", Some(options)).await.unwrap();
    stream.request_progress().await.unwrap();
    let mut revisions = Vec::new();
    loop {
        let message = next(&mut stream).await;
        revisions.extend(
            message
                .events()
                .iter()
                .map(|event| event.kv().unwrap().mod_revision()),
        );
        if !message.created() && message.events().is_empty() {
            assert_eq!(message.header().unwrap().revision(), 51);
            assert_eq!(message.watch_id(), -1);
            break;
        }
        // etcd forgets a request of a watcher that is behind; asking again is what clients do.
        stream.request_progress().await.unwrap();
    }
    assert_eq!(revisions, (10..=51).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_watch_of_what_is_compacted_is_told_where_history_begins() {
    let server = Server::start();
    let mut client = server.client().await;
    for i in 0..10 {
        client.put("a", i.to_string(), None).await.unwrap();
    }
    client.compact(8, None).await.unwrap();
    let options = WatchOptions::new().with_start_revision(3);
    let mut stream = client.watch("a", Some(options)).await.unwrap();
    assert!(next(&mut stream).await.created());
    let cancelled = next(&mut stream).await;
    assert!(cancelled.canceled());
    assert_eq!(cancelled.compact_revision(), 8);
    // The stream goes on for others.
    stream
        .watch("a", Some(WatchOptions::new().with_start_revision(8)))
        .await
        .unwrap();
    assert!(next(&mut stream).await.created());
    assert_eq!(
        next(&mut stream).await.events()[0]
            .kv()
            .unwrap()
            .mod_revision(),
        8
    );
}
