//! A store with its watches, doing what a transcript says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kine2_mvcc::{
    Alarm, AlarmChange, AlarmKind, Command, Compact, HashJob, LeaseGrant, LogPosition, ReadError,
    Refusal, Revision, Store, StoreOptions, StreamId, WatchHub, WatchOptions,
};

use crate::backend::Shelf;
use crate::script::{self, Line, Words};
use crate::tell;

/// Small, so that a few changes reach the backend and are forgotten by the memory.
const SMALL: StoreOptions = StoreOptions {
    cache_bytes: 64,
    ring_events_max: 2,
    ring_bytes_max: 1_000,
};

pub(crate) struct Stage {
    store: Store,
    hub: WatchHub,
    shelf: Arc<Shelf>,
    streams: BTreeMap<String, StreamId>,
    index: u64,
    now: Duration,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let shelf = Arc::new(Shelf::default());
        Self {
            store: Store::open(Arc::clone(&shelf) as _, SMALL).unwrap(),
            hub: WatchHub::new(WatchOptions {
                stream_queue_max: 4,
                ..WatchOptions::default()
            }),
            shelf,
            streams: BTreeMap::new(),
            index: 0,
            now: Duration::ZERO,
        }
    }

    /// Does what the lines say and answers what came of each.
    pub(crate) fn perform(&mut self, commands: &[&str]) -> Vec<String> {
        let lines: Vec<Line<'_>> = commands
            .iter()
            .filter(|line| !line.starts_with('#'))
            .map(|line| Line::new(line))
            .collect();
        let mut rest = &lines[..];
        let mut told = Vec::new();
        while let Some((line, behind)) = rest.split_first() {
            rest = behind;
            let mut words = line.words();
            told.extend(match words.next() {
                "txn" => {
                    let txn = script::txn(&mut rest, line.indent);
                    self.apply(Command::Txn(txn))
                }
                verb => self.line(verb, &mut words),
            });
            words.end();
        }
        told
    }

    fn line(&mut self, verb: &str, words: &mut Words<'_>) -> Vec<String> {
        match verb {
            "put" => self.apply(Command::Put(script::put(words))),
            "del" => self.apply(Command::Delete(script::delete(words))),
            "get" => self.get(words),
            "grant" => {
                let (id, ttl_seconds) = (words.number(), words.number());
                self.apply(Command::LeaseGrant(LeaseGrant { id, ttl_seconds }))
            }
            "revoke" => self.apply(Command::LeaseRevoke { id: words.number() }),
            "leases" => self.leases(),
            "compact" => {
                let compact = Compact {
                    revision: words.number(),
                    physical: false,
                };
                self.apply(Command::Compact(compact))
            }
            "raise" => self.change_alarm(words, AlarmChange::Raise),
            "clear" => self.change_alarm(words, AlarmChange::Clear),
            "hash" => self.hash(words),
            "restart" => self.restart(),
            "space-work" => self.space_work(words),
            "watch" => self.watch(words),
            "cancel" => {
                let stream = self.stream(words.next());
                self.hub.cancel(stream, words.number(), &self.store);
                vec![]
            }
            "ask-progress" => {
                let stream = self.stream(words.next());
                self.hub.request_progress(stream);
                vec![]
            }
            "wait" => {
                self.now += Duration::from_secs(words.number().try_into().unwrap());
                self.hub.tick(self.now, &self.store);
                vec![]
            }
            "read" => self.read(words),
            _ => panic!("{verb:?} is no command"),
        }
    }

    fn apply(&mut self, command: Command) -> Vec<String> {
        self.index += 1;
        let position = LogPosition {
            epoch: 1,
            run: 1,
            index: self.index,
        };
        let before = self.store.revision();
        let outcome = self.store.apply(position, &command).unwrap();
        let revision = self.store.revision();
        if revision > before {
            let events: Vec<_> = self.store.events_since(revision).cloned().collect();
            self.hub.publish(revision, &events);
        } else {
            assert_eq!(revision, before, "the revision goes up");
        }
        self.save();
        match outcome {
            Ok(applied) => tell::applied(&applied),
            Err(refusal) => vec![refused(refusal)],
        }
    }

    fn save(&mut self) {
        if let Some(batch) = self.store.take_batch() {
            self.shelf.put(&batch);
            self.store
                .batch_applied(batch.revision, batch.record_bytes());
        }
    }

    fn get(&mut self, words: &mut Words<'_>) -> Vec<String> {
        let revision = self.store.revision();
        match self.store.range(&script::query(words)) {
            Ok(answer) => tell::range(revision, &answer),
            Err(ReadError::Refused(refusal)) => vec![refused(refusal)],
            Err(ReadError::Backend(error)) => panic!("{error}"),
        }
    }

    fn leases(&self) -> Vec<String> {
        let leases = self.store.lease_ttls().map(|(id, ttl)| {
            let keys = self.store.lease_keys(id);
            let keys: Vec<String> = keys.iter().map(|key| tell::text(key)).collect();
            format!("lease {id} of {ttl}s: {}", keys.join(" "))
                .trim_end()
                .to_owned()
        });
        let leases: Vec<String> = leases.collect();
        if leases.is_empty() {
            return vec!["no leases".to_owned()];
        }
        leases
    }

    fn change_alarm(
        &mut self,
        words: &mut Words<'_>,
        change: fn(Alarm) -> AlarmChange,
    ) -> Vec<String> {
        let kind = match words.next() {
            "nospace" => AlarmKind::NoSpace,
            "corrupt" => AlarmKind::Corrupt,
            other => panic!("{other:?} is no alarm"),
        };
        let alarm = Alarm { member_id: 1, kind };
        self.apply(Command::Alarm(change(alarm)))
    }

    /// Whether two hashes are equal is what counts, so it is told with the names given to them.
    fn hash(&mut self, words: &mut Words<'_>) -> Vec<String> {
        let mut job = match HashJob::start(&self.store, Revision(words.number())) {
            Ok(job) => job,
            Err(refusal) => return vec![refused(refusal)],
        };
        loop {
            if let Some(hash) = job.step(&self.store).unwrap() {
                let at = format!("hash at {} compacted {}", hash.at, hash.compacted);
                return vec![format!("{at}: {:08x}", hash.hash)];
            }
        }
    }

    /// Opens the store anew from what the backend has; watches end with their connections.
    fn restart(&mut self) -> Vec<String> {
        self.store = Store::open(Arc::clone(&self.shelf) as _, SMALL).unwrap();
        self.hub = WatchHub::new(WatchOptions::default());
        self.streams.clear();
        vec![format!(
            "revision {} compacted {}",
            self.store.revision(),
            self.store.compacted()
        )]
    }

    /// Does a compaction's space work, all of it or so many slices.
    fn space_work(&mut self, words: &mut Words<'_>) -> Vec<String> {
        let slices = words.number();
        for _ in 0..slices {
            self.store.compact_step();
            self.save();
        }
        let left = if self.store.compacting() {
            "left"
        } else {
            "done"
        };
        vec![format!(
            "{left}; {} keys in the index",
            self.store.stats().indexed_keys
        )]
    }

    fn stream(&mut self, name: &str) -> StreamId {
        let hub = &mut self.hub;
        let stream = self.streams.entry(name.to_owned());
        *stream.or_insert_with(|| hub.open_stream())
    }

    fn watch(&mut self, words: &mut Words<'_>) -> Vec<String> {
        let stream = self.stream(words.next());
        let request = script::watch(words);
        self.hub.create(self.now, stream, request, &self.store);
        vec![]
    }

    fn read(&mut self, words: &mut Words<'_>) -> Vec<String> {
        let stream = self.stream(words.next());
        let mut told = Vec::new();
        loop {
            let polled = self.hub.poll(stream, &self.store, 1 << 20).unwrap();
            told.extend(polled.messages.iter().map(tell::message));
            if !polled.more {
                break;
            }
        }
        if told.is_empty() {
            told.push("nothing".to_owned());
        }
        told
    }
}

fn refused(refusal: Refusal) -> String {
    format!("refused: {refusal}")
}
