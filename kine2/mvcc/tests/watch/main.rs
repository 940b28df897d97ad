//! What watchers are told, told in words; and a property test that they miss and repeat nothing.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "../store_model/backend.rs"]
mod backend;
mod mutations;
mod property;

use std::sync::Arc;
use std::time::Duration;

use backend::Shelf;
use bytes::Bytes;
use kine2_mvcc::{
    CancelCause, Command, Compact, Delete, History, KeyRange, LogPosition, Put, Revision, Store,
    StoreOptions, StreamId, Txn, TxnOp, WatchHub, WatchMessage, WatchOptions, WatchRequest,
    WatchUpdate,
};

/// A store and its hub, with a ring so small that history soon comes from the backend.
pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) hub: WatchHub,
    shelf: Arc<Shelf>,
    index: u64,
    pub(crate) now: Duration,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(WatchOptions {
            stream_queue_max: 3,
            ..WatchOptions::default()
        })
    }

    fn with(options: WatchOptions) -> Self {
        let shelf = Arc::new(Shelf::default());
        let small = StoreOptions {
            cache_bytes: 64,
            ring_events_max: 2,
            ring_bytes_max: 1_000,
        };
        let store = Store::open(Arc::clone(&shelf) as _, small).unwrap();
        Self {
            store,
            hub: WatchHub::new(options),
            shelf,
            index: 0,
            now: Duration::ZERO,
        }
    }

    pub(crate) fn apply(&mut self, command: &Command) {
        self.index += 1;
        let before = self.store.revision();
        let position = LogPosition {
            epoch: 1,
            run: 1,
            index: self.index,
        };
        let _ = self.store.apply(position, command).unwrap();
        let revision = self.store.revision();
        if revision > before {
            let events: Vec<_> = self.store.events_since(revision).cloned().collect();
            self.hub.publish(revision, &events);
        }
    }

    pub(crate) fn save(&mut self) {
        if let Some(batch) = self.store.take_batch() {
            self.shelf.put(&batch);
            self.store
                .batch_applied(batch.revision, batch.record_bytes());
        }
    }

    fn put(&mut self, key: &'static str) {
        self.apply(&Command::Put(put(key)));
        self.save();
    }

    fn delete(&mut self, key: &'static str) {
        self.apply(&delete(key, ""));
        self.save();
    }

    fn compact(&mut self, revision: i64) {
        self.apply(&Command::Compact(Compact {
            revision,
            physical: false,
        }));
        while self.store.compacting() {
            self.store.compact_step();
            self.save();
        }
    }

    fn watch(&mut self, stream: StreamId, request: WatchRequest) {
        self.hub.create(self.now, stream, request, &self.store);
    }

    /// Everything the stream is told until it is quiet.
    fn told(&mut self, stream: StreamId) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let polled = self.hub.poll(stream, &self.store, 1 << 20).unwrap();
            told.extend(polled.messages.iter().map(tell));
            if !polled.more {
                return told;
            }
        }
    }
}

pub(crate) fn put(key: &'static str) -> Put {
    Put {
        key: key.into(),
        value: "v".into(),
        ..Put::default()
    }
}

pub(crate) fn delete(key: &'static str, end: &'static str) -> Command {
    let range = KeyRange::from_wire(key.into(), end.into());
    Command::Delete(Delete {
        range,
        prev_kv: false,
    })
}

pub(crate) fn request(key: &'static str, end: &'static str, start: i64) -> WatchRequest {
    WatchRequest {
        id: 0,
        range: KeyRange::from_wire(key.into(), end.into()),
        start,
        no_put: false,
        no_delete: false,
        prev_kv: false,
        progress_notify: false,
        fragment: false,
    }
}

/// A message in words: id, what, and the header's revision.
fn tell(message: &WatchMessage) -> String {
    let cause = |cause: &CancelCause| match cause {
        CancelCause::Requested => "as asked".to_owned(),
        CancelCause::EmptyRange => "empty range".to_owned(),
        CancelCause::DuplicateId => "duplicate id".to_owned(),
        CancelCause::NegativeStart => "negative start".to_owned(),
        CancelCause::Compacted(revision) => format!("compacted {revision}"),
    };
    let what = match &message.update {
        WatchUpdate::Created => "created".to_owned(),
        WatchUpdate::Refused(why) => format!("refused: {}", cause(why)),
        WatchUpdate::Canceled(why) => format!("canceled: {}", cause(why)),
        WatchUpdate::Progress => "progress".to_owned(),
        WatchUpdate::Events { events, fragment } => {
            let events: Vec<String> = events.iter().map(tell_event).collect();
            format!(
                "{}{}",
                events.join(" "),
                if *fragment { " ..." } else { "" }
            )
        }
    };
    format!("{}: {what} @{}", message.watch_id, message.revision)
}

/// An event in words: `key=revision`, `-` for a delete, the revision before in brackets.
fn tell_event(event: &Bytes) -> String {
    let (delete, kv, prev) = decode_event(event);
    let sign = if delete { "-" } else { "" };
    let prev = prev.map_or(String::new(), |prev| {
        format!("[{}]", prev.view().mod_revision)
    });
    let fields = kv.view();
    format!(
        "{sign}{}={}{prev}",
        String::from_utf8_lossy(fields.key),
        fields.mod_revision
    )
}

/// `mvccpb.Event` with lengths below 128 bytes or of two varint bytes.
pub(crate) fn decode_event(
    event: &Bytes,
) -> (bool, kine2_mvcc::Record, Option<kine2_mvcc::Record>) {
    let (mut rest, mut delete, mut records) = (event.clone(), false, Vec::new());
    while !rest.is_empty() {
        let tag = rest[0];
        if tag == 8 {
            delete = rest[1] == 1;
            rest = rest.slice(2..);
            continue;
        }
        let (len, from) = match rest[1] {
            short @ 0..0x80 => (usize::from(short), 2),
            low => (usize::from(low & 0x7f) | usize::from(rest[2]) << 7, 3),
        };
        records.push((
            tag,
            kine2_mvcc::Record::parse(rest.slice(from..from + len)).unwrap(),
        ));
        rest = rest.slice(from + len..);
    }
    let mut records = records.into_iter();
    let (tag, kv) = records.next().unwrap();
    assert_eq!(tag, 0x12);
    (delete, kv, records.next().map(|(_, prev)| prev))
}

#[test]
fn s29_ids_are_allotted_from_0_skipping_those_in_use_and_a_duplicate_leaves_the_stream_alive() {
    let mut bench = Bench::new();
    let stream = bench.hub.open_stream();
    for id in [0, 1, 0, 1, 7, 0] {
        bench.watch(
            stream,
            WatchRequest {
                id,
                ..request("a", "", 0)
            },
        );
    }
    assert_eq!(
        bench.told(stream),
        [
            "0: created @1",
            "1: created @1",
            "2: created @1",
            "-1: refused: duplicate id @1",
            "7: created @1",
            "3: created @1"
        ]
    );
    bench.put("a");
    assert_eq!(bench.told(stream).len(), 5, "every watcher is told");
}

#[test]
fn s30_forms_of_the_range() {
    let mut bench = Bench::new();
    let stream = bench.hub.open_stream();
    bench.watch(stream, request("b", "a", 0));
    bench.watch(stream, request("a", "a", 0));
    bench.watch(stream, request("a", "", -1));
    bench.watch(stream, request("", "\0", 0));
    bench.put("z");
    assert_eq!(
        bench.told(stream),
        [
            "-1: refused: empty range @1",
            "-1: refused: empty range @1",
            "-1: refused: negative start @1",
            "0: created @1",
            "0: z=2 @2"
        ]
    );
}

#[test]
fn s31_from_now_from_the_past_and_from_the_future() {
    let mut bench = Bench::new();
    for key in ["a", "b", "a", "a"] {
        bench.put(key);
    }
    let stream = bench.hub.open_stream();
    bench.watch(stream, request("a", "", 0));
    bench.watch(stream, request("a", "", 2));
    bench.watch(stream, request("a", "", 7));
    assert_eq!(
        bench.told(stream),
        [
            "0: created @5",
            "1: created @5",
            "2: created @5",
            "1: a=2 @5",
            "1: a=4 a=5 @5"
        ],
        "the first from the backend, the others from memory"
    );
    bench.put("a");
    assert_eq!(bench.told(stream), ["0: a=6 @6", "1: a=6 @6"]);
    bench.put("a");
    assert_eq!(bench.told(stream), ["0: a=7 @7", "1: a=7 @7", "2: a=7 @7"]);
}

#[test]
fn s31_no_progress_for_a_future_watcher_before_its_start_20221() {
    let mut bench = Bench::with(WatchOptions {
        progress_interval: Duration::from_secs(1),
        ..WatchOptions::default()
    });
    let stream = bench.hub.open_stream();
    bench.watch(
        stream,
        WatchRequest {
            progress_notify: true,
            ..request("a", "", 4)
        },
    );
    bench.hub.request_progress(stream);
    bench.hub.tick(Duration::from_secs(2), &bench.store);
    assert_eq!(bench.told(stream), ["0: created @1"]);
    bench.put("b");
    bench.put("b");
    bench.hub.tick(Duration::from_secs(4), &bench.store);
    bench.hub.request_progress(stream);
    assert!(
        bench.told(stream).is_empty(),
        "its start is the next revision"
    );
    bench.put("b");
    bench.hub.tick(Duration::from_secs(6), &bench.store);
    assert_eq!(bench.told(stream), ["0: progress @4", "-1: progress @4"]);
}

#[test]
fn s32_a_start_below_the_compacted_revision_is_created_then_canceled() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        bench.put("a");
    }
    bench.compact(4);
    let stream = bench.hub.open_stream();
    bench.watch(stream, request("a", "", 3));
    bench.watch(stream, request("a", "", 4));
    assert_eq!(
        bench.told(stream),
        [
            "0: created @5",
            "1: created @5",
            "0: canceled: compacted 4 @0",
            "1: a=4 a=5 @5"
        ]
    );
}

#[test]
fn s33_cancel_ends_it_and_an_unknown_id_says_nothing_14562() {
    let mut bench = Bench::new();
    let stream = bench.hub.open_stream();
    bench.watch(stream, request("a", "", 0));
    bench.watch(stream, request("a", "", 0));
    bench.hub.cancel(stream, 1, &bench.store);
    bench.hub.cancel(stream, 9, &bench.store);
    bench.put("a");
    assert_eq!(
        bench.told(stream),
        [
            "0: created @1",
            "1: created @1",
            "1: canceled: as asked @1",
            "0: a=2 @2"
        ]
    );
}

#[test]
fn s35_all_of_a_revision_comes_together_in_the_order_of_the_operations() {
    let mut bench = Bench::new();
    let stream = bench.hub.open_stream();
    bench.watch(stream, request("a", "\0", 0));
    let ops = ["c", "a", "b"].map(|key| TxnOp::Put(put(key))).to_vec();
    bench.apply(&Command::Txn(Txn {
        success: ops,
        ..Txn::default()
    }));
    bench.apply(&delete("a", "c"));
    assert_eq!(
        bench.told(stream),
        ["0: created @1", "0: c=2 a=2 b=2 -a=3 -b=3 @3"]
    );
}

#[test]
fn s36_the_record_before_is_there_if_asked_for_and_not_compacted() {
    let mut bench = Bench::new();
    let stream = bench.hub.open_stream();
    bench.watch(
        stream,
        WatchRequest {
            prev_kv: true,
            ..request("a", "", 0)
        },
    );
    bench.put("a");
    bench.put("a");
    assert_eq!(bench.told(stream), ["0: created @1", "0: a=2 a=3[2] @3"]);
    bench.delete("a");
    assert_eq!(bench.told(stream), ["0: -a=4[3] @4"]);
    bench.compact(4);
    bench.watch(
        stream,
        WatchRequest {
            prev_kv: true,
            ..request("a", "", 4)
        },
    );
    assert_eq!(
        bench.told(stream),
        ["1: created @4", "1: -a=4 @4"],
        "19179: the tombstone stays"
    );
}

#[test]
fn s37_filters_leave_events_out_and_still_progress() {
    let mut bench = Bench::new();
    let stream = bench.hub.open_stream();
    bench.watch(
        stream,
        WatchRequest {
            no_put: true,
            ..request("a", "", 0)
        },
    );
    bench.watch(
        stream,
        WatchRequest {
            no_delete: true,
            ..request("a", "", 0)
        },
    );
    bench.put("a");
    bench.delete("a");
    bench.hub.request_progress(stream);
    assert_eq!(
        bench.told(stream),
        [
            "0: created @1",
            "1: created @1",
            "1: a=2 @2",
            "0: -a=3 @3",
            "-1: progress @3"
        ]
    );
}

#[test]
fn s39_progress_waits_until_every_watcher_is_in_sync_and_never_overtakes_15220() {
    let mut bench = Bench::new();
    let stream = bench.hub.open_stream();
    bench.hub.request_progress(stream);
    assert_eq!(
        bench.told(stream),
        [""; 0],
        "without watchers nothing is said"
    );
    bench.put("a");
    bench.watch(stream, request("a", "", 2));
    bench.hub.request_progress(stream);
    bench.hub.request_progress(stream);
    bench.put("a");
    assert_eq!(
        bench.told(stream),
        ["0: created @2", "0: a=2 a=3 @3", "-1: progress @3"]
    );
}

#[test]
fn s40_a_quiet_watcher_hears_of_progress_and_a_busy_one_does_not_17507() {
    let mut bench = Bench::with(WatchOptions {
        progress_interval: Duration::from_secs(10),
        ..WatchOptions::default()
    });
    let stream = bench.hub.open_stream();
    bench.watch(
        stream,
        WatchRequest {
            progress_notify: true,
            ..request("a", "", 0)
        },
    );
    bench.watch(
        stream,
        WatchRequest {
            progress_notify: true,
            ..request("b", "", 0)
        },
    );
    bench.put("a");
    assert!(bench.hub.next_deadline().unwrap() >= Duration::from_secs(9));
    bench.hub.tick(Duration::from_secs(11), &bench.store);
    assert_eq!(
        bench.told(stream),
        [
            "0: created @1",
            "1: created @1",
            "0: a=2 @2",
            "1: progress @2"
        ]
    );
    bench.hub.tick(Duration::from_secs(23), &bench.store);
    let mut told = bench.told(stream);
    told.sort();
    assert_eq!(told, ["0: progress @2", "1: progress @2"]);
}

#[test]
fn s41_a_large_response_is_split_only_if_asked_and_one_event_at_least_goes_in_each() {
    let mut bench = Bench::with(WatchOptions {
        fragment_bytes: 120,
        ..WatchOptions::default()
    });
    let stream = bench.hub.open_stream();
    bench.watch(
        stream,
        WatchRequest {
            fragment: true,
            ..request("a", "\0", 0)
        },
    );
    bench.watch(stream, request("a", "\0", 0));
    let ops = ["a", "b", "c"].map(|key| TxnOp::Put(put(key))).to_vec();
    bench.apply(&Command::Txn(Txn {
        success: ops,
        ..Txn::default()
    }));
    assert_eq!(
        bench.told(stream),
        [
            "0: created @1",
            "1: created @1",
            "0: a=2 ... @2",
            "0: b=2 ... @2",
            "0: c=2 @2",
            "1: a=2 b=2 c=2 @2"
        ]
    );
}

#[test]
fn s42_a_slow_reader_is_parked_and_reads_everything_later() {
    let mut bench = Bench::new();
    let (slow, fast) = (bench.hub.open_stream(), bench.hub.open_stream());
    bench.watch(slow, request("a", "", 0));
    bench.watch(fast, request("a", "", 0));
    let mut fast_told = 0;
    for _ in 0..20 {
        bench.put("a");
        fast_told += bench.told(fast).len();
    }
    assert_eq!(fast_told, 21);
    assert_eq!(bench.hub.stats().lagging, 1);
    let expected: Vec<String> = (2..=21).map(|revision| format!("a={revision}")).collect();
    let told = bench.told(slow);
    let events: Vec<&str> = told[1..]
        .iter()
        .flat_map(|message| message.split(' '))
        .collect();
    let events: Vec<&str> = events
        .into_iter()
        .filter(|word| word.starts_with("a="))
        .collect();
    assert_eq!(events, expected);
    assert_eq!(bench.hub.stats().lagging, 0);
    bench.put("a");
    assert_eq!(bench.told(slow), ["0: a=22 @22"]);
}

#[test]
fn s42_a_slow_reader_whose_history_is_compacted_is_canceled_17529() {
    let mut bench = Bench::new();
    let stream = bench.hub.open_stream();
    bench.watch(stream, request("a", "", 0));
    for _ in 0..20 {
        bench.put("a");
    }
    bench.compact(20);
    let told = bench.told(stream);
    assert_eq!(told.last().unwrap(), "0: canceled: compacted 20 @0");
    assert_eq!(bench.hub.stats().watchers, 0);
}

#[test]
fn a_closed_stream_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let stream = bench.hub.open_stream();
    bench.watch(
        stream,
        WatchRequest {
            progress_notify: true,
            ..request("a", "b", 0)
        },
    );
    bench.hub.close_stream(stream);
    bench.put("a");
    assert_eq!(bench.hub.stats().watchers, 0);
    assert_eq!(bench.hub.next_deadline(), None);
    assert_eq!(bench.store.current(), Revision(2));
}
