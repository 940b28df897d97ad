//! Random watchers, changes, compactions and slow readers: every watcher is told exactly what
//! its range, start and filters say, in order, each change once, all of a revision together, and
//! progress never runs ahead of what was told.

use std::collections::BTreeMap;

use kine2_mvcc::{
    CancelCause, Command, Compact, KeyRange, Revision, StreamId, Txn, TxnOp, WatchRequest,
    WatchUpdate,
};
use proptest::prelude::*;

use super::{Bench, decode_event, delete, put, request};

const KEYS: [&str; 4] = ["a", "ab", "b", "c"];

#[derive(Clone, Debug)]
pub(super) enum Op {
    Put(usize),
    PutTwo(usize),
    Delete(usize, bool),
    Watch {
        stream: usize,
        key: usize,
        end: usize,
        start: i64,
        flags: u8,
    },
    Cancel(usize, i64),
    Progress(usize),
    Poll(usize),
    Compact(i64),
    Save,
    Tick,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0usize..4).prop_map(Op::Put),
        2 => (0usize..3).prop_map(Op::PutTwo),
        3 => (0usize..4, any::<bool>()).prop_map(|(key, range)| Op::Delete(key, range)),
        4 => (0usize..2, 0usize..4, 0usize..4, -1i64..30, any::<u8>())
            .prop_map(|(stream, key, end, start, flags)| Op::Watch { stream, key, end, start, flags }),
        1 => (0usize..2, 0i64..4).prop_map(|(stream, id)| Op::Cancel(stream, id)),
        2 => (0usize..2).prop_map(Op::Progress),
        4 => (0usize..2).prop_map(Op::Poll),
        1 => (1i64..6).prop_map(Op::Compact),
        4 => Just(Op::Save),
        1 => Just(Op::Tick),
    ]
}

/// A change of the store: revision, key, whether it was deleted.
type Told = (i64, Vec<u8>, bool);

#[derive(Debug)]
struct Expected {
    range: KeyRange,
    from: i64,
    no_put: bool,
    no_delete: bool,
    told: Vec<Told>,
    canceled: bool,
}

impl Expected {
    /// What it should have been told up to `revision`.
    fn until(&self, history: &[Told], revision: i64) -> Vec<Told> {
        let wanted = |told: &&Told| {
            told.0 >= self.from
                && told.0 <= revision
                && self.range.contains(&told.1)
                && !(if told.2 { self.no_delete } else { self.no_put })
        };
        history.iter().filter(wanted).cloned().collect()
    }
}

struct World {
    bench: Bench,
    streams: [StreamId; 2],
    /// Watchers by stream and id, in the order they will be told of.
    asked: [Vec<WatchRequest>; 2],
    watchers: BTreeMap<(usize, i64), Expected>,
    history: Vec<Told>,
}

impl World {
    fn apply(&mut self, command: &Command) {
        let before = self.bench.store.revision();
        self.bench.apply(command);
        let revision = self.bench.store.revision();
        if revision > before {
            let events = self.bench.store.events_since(revision);
            let told = events.map(|event| {
                let key = event.record().view().key.to_vec();
                (revision.0, key, event.is_delete())
            });
            self.history.extend(told);
        }
    }

    fn poll(&mut self, stream: usize) -> bool {
        let polled = self
            .bench
            .hub
            .poll(self.streams[stream], &self.bench.store, 40)
            .unwrap();
        for message in polled.messages {
            let id = message.watch_id;
            match message.update {
                WatchUpdate::Created => {
                    let request = self.asked[stream].remove(0);
                    let from = if request.start == 0 {
                        message.revision.0 + 1
                    } else {
                        request.start
                    };
                    let WatchRequest {
                        range,
                        no_put,
                        no_delete,
                        ..
                    } = request;
                    let told = Vec::new();
                    let expected = Expected {
                        range,
                        from,
                        no_put,
                        no_delete,
                        told,
                        canceled: false,
                    };
                    self.watchers.insert((stream, id), expected);
                }
                WatchUpdate::Refused(_) => {
                    self.asked[stream].remove(0);
                }
                WatchUpdate::Canceled(CancelCause::Compacted(revision)) => {
                    assert_eq!(message.revision, Revision(0));
                    let watcher = self.watchers.remove(&(stream, id)).unwrap();
                    let last = watcher.told.last().map_or(watcher.from, |told| told.0);
                    assert!(last <= revision.0, "it had heard of what is kept");
                }
                WatchUpdate::Canceled(_) => {
                    self.watchers.get_mut(&(stream, id)).unwrap().canceled = true;
                    let watcher = self.watchers.remove(&(stream, id)).unwrap();
                    let known = watcher.until(&self.history, i64::MAX);
                    assert!(known.starts_with(&watcher.told));
                }
                WatchUpdate::Events { events, .. } => {
                    let watcher = self.watchers.get_mut(&(stream, id)).expect("created first");
                    for event in &events {
                        let (is_delete, kv, _) = decode_event(event);
                        let fields = kv.view();
                        watcher
                            .told
                            .push((fields.mod_revision, fields.key.to_vec(), is_delete));
                    }
                    let last = watcher.told.last().unwrap().0;
                    assert!(message.revision.0 >= last, "S38");
                    let known = watcher.until(&self.history, i64::MAX);
                    assert!(
                        known.starts_with(&watcher.told),
                        "{:?} of {known:?}",
                        watcher.told
                    );
                    // Whole revisions only (S35).
                    assert!(
                        known
                            .get(watcher.told.len())
                            .is_none_or(|next| next.0 > last)
                    );
                }
                WatchUpdate::Progress => {
                    for ((of, watch_id), watcher) in &self.watchers {
                        if *of == stream && (id == -1 || id == *watch_id) {
                            assert!(watcher.from <= message.revision.0 + 1, "S31");
                            let known = watcher.until(&self.history, message.revision.0);
                            assert_eq!(watcher.told, known, "S39");
                        }
                    }
                }
            }
        }
        polled.more
    }

    fn watch(&mut self, stream: usize, key: usize, end: usize, start: i64, flags: u8) {
        let end = ["", "\0", "b", "d"][end];
        let bit = |bit: u8| flags >> bit & 1 == 1;
        let asked = WatchRequest {
            no_put: bit(0) && bit(1),
            no_delete: bit(2) && bit(3),
            prev_kv: bit(4),
            progress_notify: bit(5),
            fragment: bit(6),
            ..request(KEYS[key], end, start)
        };
        self.asked[stream].push(asked.clone());
        let (now, stream) = (self.bench.now, self.streams[stream]);
        self.bench.hub.create(now, stream, asked, &self.bench.store);
    }
}

pub(super) fn run(ops: Vec<Op>) {
    let mut bench = Bench::new();
    let streams = [bench.hub.open_stream(), bench.hub.open_stream()];
    let (asked, watchers) = ([Vec::new(), Vec::new()], BTreeMap::new());
    let mut world = World {
        bench,
        streams,
        asked,
        watchers,
        history: Vec::new(),
    };
    for op in ops {
        match op {
            Op::Put(key) => world.apply(&Command::Put(put(KEYS[key]))),
            Op::PutTwo(key) => {
                let ops = [key + 1, key]
                    .map(|key| TxnOp::Put(put(KEYS[key])))
                    .to_vec();
                world.apply(&Command::Txn(Txn {
                    success: ops,
                    ..Txn::default()
                }));
            }
            Op::Delete(key, range) => {
                world.apply(&delete(KEYS[key], if range { "\0" } else { "" }));
            }
            Op::Watch {
                stream,
                key,
                end,
                start,
                flags,
            } => world.watch(stream, key, end, start, flags),
            Op::Cancel(stream, id) => {
                let id_of = world.streams[stream];
                world.bench.hub.cancel(id_of, id, &world.bench.store);
            }
            Op::Progress(stream) => world.bench.hub.request_progress(world.streams[stream]),
            Op::Poll(stream) => {
                world.poll(stream);
            }
            Op::Compact(back) => {
                let revision = world.bench.store.revision().0 - back;
                world.apply(&Command::Compact(Compact {
                    revision,
                    physical: false,
                }));
                world.bench.store.compact_step();
            }
            Op::Save => {
                world.bench.store.compact_step();
                world.bench.save();
            }
            Op::Tick => {
                world.bench.now += std::time::Duration::from_secs(700);
                world.bench.hub.tick(world.bench.now, &world.bench.store);
            }
        }
    }
    for stream in 0..2 {
        while world.poll(stream) {}
    }
    for watcher in world.watchers.values() {
        assert_eq!(
            watcher.told,
            watcher.until(&world.history, i64::MAX),
            "nothing is missing"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn watchers_miss_and_repeat_nothing(ops in prop::collection::vec(op(), 0..80)) {
        run(ops);
    }
}
