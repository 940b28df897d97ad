//! What a node needs around it in tests: options, a log on a disk that is durable when the test
//! says so, and the record of a unit of one.

use std::time::Duration;

use bytes::Bytes;
use kine2_mvcc::WatchOptions;
use kine2_node::{LogRead, LogRecord, LogWrite, NodeOptions, STORE};
use kine2_replication::{
    Arbiter, ClusterId, Config, DataState, Durable, Entry, HardState, History, Incarnation, Loaded,
    LogIndex, LonePolicy, NodeRef, Policies, Position, RegisterKey, Timers, WriteId,
};

/// Settings of a node that saves at once and checkpoints rarely.
pub(crate) fn options() -> NodeOptions {
    NodeOptions {
        member_id: 1,
        quota_bytes: 0,
        command_bytes_max: 1 << 20,
        lease_ttl_min: Duration::from_secs(2),
        save_bytes: 64 << 10,
        save_delay: Duration::ZERO,
        checkpoint_bytes: 1 << 30,
        checkpoint_entries: u64::MAX,
        checkpoint_interval: Duration::from_secs(3),
        unsaved_bytes_max: 64 << 20,
        watch: WatchOptions::default(),
        timers: Timers::default(),
        seed: 1,
    }
}

/// A node called `name`.
pub(crate) fn node_ref(name: &str) -> NodeRef {
    NodeRef::new(name, u128::from(name.as_bytes()[0]))
}

/// Storage of a node.
pub(crate) fn storage_of(name: &str) -> Incarnation {
    Incarnation(1000 + u128::from(name.as_bytes()[0]))
}

/// The record of a node that is a unit by itself.
pub(crate) fn alone(name: &str) -> Durable {
    let config = Config::first(
        RegisterKey {
            cluster: ClusterId(1),
            unit: "main".into(),
        },
        1,
        node_ref(name),
        STORE.into(),
        [(STORE.into(), storage_of(name))],
        Arbiter::None(LonePolicy::Stop),
        Policies::default(),
    );
    Durable {
        boot: 0,
        storage: storage_of(name),
        data: DataState::Complete,
        hard: Some(HardState::adopting(config.unwrap())),
    }
}

/// A log on a disk.
#[derive(Clone, Debug)]
pub(crate) struct FakeLog {
    me: NodeRef,
    record: Bytes,
    base: Position,
    pub(crate) entries: Vec<Entry>,
    /// Given and not durable yet.
    pending: Vec<LogWrite>,
}

impl FakeLog {
    pub(crate) fn new(name: &str, record: &Durable) -> Self {
        Self {
            me: node_ref(name),
            record: record.encode(),
            base: Position::START,
            entries: Vec::new(),
            pending: Vec::new(),
        }
    }

    pub(crate) fn write(&mut self, write: LogWrite) {
        self.pending.push(write);
    }

    /// Makes all durable that was given; the last write of it.
    pub(crate) fn flush(&mut self) -> Option<WriteId> {
        let last = self.pending.last()?.id;
        for record in std::mem::take(&mut self.pending)
            .into_iter()
            .flat_map(|write| write.records)
        {
            match record {
                LogRecord::Hard(bytes) => self.record = bytes,
                LogRecord::Truncate(to) => {
                    self.entries.retain(|e| e.position.index <= to.index);
                }
                LogRecord::Entries(entries) => {
                    for entry in &entries {
                        assert_eq!(entry.position.index, self.last().index.next());
                        self.entries.push(entry.clone());
                    }
                }
                LogRecord::Reset(base, bytes) => {
                    self.base = base;
                    self.entries.clear();
                    self.record = bytes;
                }
            }
        }
        Some(last)
    }

    fn last(&self) -> Position {
        self.entries
            .last()
            .map_or(self.base, |entry| entry.position)
    }

    pub(crate) fn read(&self, wanted: &LogRead) -> (Position, Vec<Entry>) {
        let before = LogIndex(wanted.from.0 - 1);
        let in_range = |entry: &&Entry| {
            wanted.from <= entry.position.index && entry.position.index <= wanted.through
        };
        let entries: Vec<_> = self.entries.iter().filter(in_range).cloned().collect();
        let held = self.entries.iter().find(|e| e.position.index == before);
        (held.map_or(self.base, |entry| entry.position), entries)
    }

    /// The unit as a start finds it: what was not durable is gone.
    pub(crate) fn load(&mut self, applied: LogIndex) -> Loaded {
        self.pending.clear();
        let mut durable = Durable::decode(&self.record).unwrap();
        durable.boot += 1;
        self.record = durable.encode();
        let mut history = History::new(self.base);
        for entry in &self.entries {
            history.push(entry.position);
        }
        Loaded::of_lead(self.me.clone(), durable, history, applied, 7).unwrap()
    }
}
