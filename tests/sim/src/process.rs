//! The process of a node: the node as the program runs it, its log, and its state's engine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kine2_backend::mem::MemBackend;
use kine2_mvcc::{
    Backend, BackendStats, LogPosition, RangeAnswer, RangeQuery, ReadError, StateBatch, Store,
    StoreOptions, StreamId, WatchMessage, WatchOptions, WatchRequest,
};
use kine2_node::{Node, NodeOptions};
use kine2_replication::{Loaded, LogIndex, PartName, Position};

use crate::history::{Ask, Key, Reply};
use crate::log::Log;
use crate::plan::{Plan, ms};
use crate::speech;

/// Changes kept in memory beside the engine: few, so that watches read history.
pub const RING_EVENTS_MAX: usize = 64;

/// A process that runs.
#[derive(Debug)]
pub struct Process {
    /// The node.
    pub node: Node<Waiter>,
    /// Its log.
    pub log: Log,
    /// Its disk failed: nothing becomes durable any more.
    pub failed: bool,
    /// When it must be called, on its machine's clock.
    pub wake_at: Duration,
    /// The snapshot it takes in.
    pub receiving: Option<Position>,
    /// The snapshot it made, as it travels.
    pub snapshot: Option<(Position, Arc<Vec<u8>>)>,
    /// What the engine has still to do.
    pub engine: VecDeque<EngineJob>,
}

/// Work of the state's engine.
#[derive(Debug)]
pub enum EngineJob {
    /// Apply this.
    Batch(StateBatch),
    /// Make durable what was applied.
    Checkpoint,
}

/// What the engine did.
#[derive(Clone, Copy, Debug)]
pub enum EngineDone {
    /// A batch is applied.
    Saved(BackendStats),
    /// All up to here is durable.
    Checkpointed(LogPosition),
}

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// The attempt.
    pub caller: Caller,
    /// What was asked.
    pub ask: Ask,
    /// What was exposed when it came.
    pub floor: LogIndex,
}

/// Which attempt of which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The client.
    pub client: usize,
    /// Its attempt.
    pub attempt: u64,
}

impl Process {
    /// A process over what it found.
    #[must_use]
    pub fn new(
        plan: &Plan,
        loaded: Loaded,
        log: Log,
        state: &Arc<MemBackend>,
        now: Duration,
    ) -> Self {
        let options = options(plan, loaded.seed);
        Self {
            node: Node::new(options, loaded, open(state), now),
            log,
            failed: false,
            wake_at: now,
            receiving: None,
            snapshot: None,
            engine: VecDeque::new(),
        }
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.node.store().applied().index)
    }

    /// How the node stands, for what must hold and for what was reached.
    #[must_use]
    pub fn stand(&self, part: &PartName) -> Stand {
        let unit = self.node.unit();
        Stand {
            is_active: unit.is_active(part),
            commit: unit.commit_index(part),
            epoch: unit.config().epoch,
            run: unit.run(),
            applied: self.applied(),
        }
    }

    /// Reads what is applied.
    ///
    /// # Panics
    /// When the state cannot be read.
    pub fn read(&mut self, key: Option<Key>) -> Reply {
        let answer = self.node.range(&speech::query(key));
        let (revision, answer) = answer.expect("a state in memory can be read");
        self.check_count(&answer, speech::query(key));
        Reply::Records(revision.0, speech::records(&answer.records))
    }

    /// Reads what was there at a revision.
    ///
    /// # Panics
    /// When the state cannot be read.
    pub fn read_at(&mut self, key: Option<Key>, revision: i64) -> Reply {
        match self.node.range(&speech::query_at(key, revision)) {
            Ok((newest, answer)) => {
                self.check_count(&answer, speech::query_at(key, revision));
                Reply::Records(newest.0, speech::records(&answer.records))
            }
            Err(ReadError::Refused(refusal)) => {
                speech::refusal(&Ask::GetAt(key, revision), refusal)
            }
            Err(ReadError::Backend(error)) => panic!("a state in memory: {error}"),
        }
    }

    /// S9: a range says how many keys there are, and one that is cut short says that, too.
    fn check_count(&mut self, all: &RangeAnswer, query: RangeQuery) {
        let limit = 2;
        let there = all.records.len();
        let cut = RangeQuery {
            limit: i64::try_from(limit).expect("small"),
            ..query
        };
        let (_, cut) = self.node.range(&cut).expect("it was read before");
        for (answer, shown) in [(all, there), (&cut, there.min(limit))] {
            let count = usize::try_from(answer.count).expect("a number of keys");
            let says = (answer.records.len(), answer.more, count);
            let is = (shown, shown < there, there);
            assert_eq!(says, is, "a range of other keys than it counts");
        }
    }

    /// Does the next thing the engine has to do.
    ///
    /// # Panics
    /// When the engine fails.
    pub fn run_engine(&mut self, state: &MemBackend) -> Option<EngineDone> {
        Some(match self.engine.pop_front()? {
            EngineJob::Batch(batch) => {
                state.apply(&batch).expect("a state in memory");
                EngineDone::Saved(state.stats().expect("a state in memory"))
            }
            EngineJob::Checkpoint => {
                EngineDone::Checkpointed(state.checkpoint().expect("a state in memory"))
            }
        })
    }

    /// Opens a watch. One from the next revision on is asked for as one from now on.
    pub fn watch(&mut self, now: Duration, key: Option<Key>, start: i64) -> StreamId {
        let stream = self.node.open_stream();
        let is_next = start == self.node.store().revision().0 + 1;
        let request = WatchRequest {
            id: 0,
            range: speech::range(key),
            start: if is_next { 0 } else { start },
            no_put: false,
            no_delete: false,
            prev_kv: false,
            progress_notify: true,
            fragment: false,
        };
        self.node.watch(now, stream, request);
        stream
    }

    /// Messages of a stream that wait.
    ///
    /// # Panics
    /// When history cannot be read.
    pub fn poll(&mut self, stream: StreamId) -> Vec<WatchMessage> {
        let mut messages = Vec::new();
        loop {
            let polled = self.node.poll_stream(stream, usize::MAX);
            let polled = polled.expect("a state in memory can be read");
            messages.extend(polled.messages);
            if !polled.more {
                return messages;
            }
        }
    }
}

/// How a node stands at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// It is primary and serves.
    pub is_active: bool,
    /// Committed, as far as it knows.
    pub commit: LogIndex,
    /// Its configuration's epoch.
    pub epoch: kine2_replication::Epoch,
    /// Its run.
    pub run: u32,
    /// Applied.
    pub applied: LogIndex,
}

/// Opens a state.
///
/// # Panics
/// When what it holds contradicts itself.
#[must_use]
pub fn open(state: &Arc<MemBackend>) -> Store {
    let options = StoreOptions {
        ring_events_max: RING_EVENTS_MAX,
        ..StoreOptions::default()
    };
    let state: Arc<dyn Backend> = Arc::<MemBackend>::clone(state);
    Store::open(state, options).expect("a state in memory")
}

fn options(plan: &Plan, seed: u64) -> NodeOptions {
    NodeOptions {
        member_id: speech::MEMBER_ID,
        quota_bytes: plan.quota_bytes,
        command_bytes_max: 40 << 10,
        lease_ttl_min: Duration::from_secs(1),
        save_bytes: 16 << 10,
        save_delay: ms(50),
        checkpoint_bytes: 1 << 20,
        checkpoint_entries: 10_000,
        checkpoint_interval: plan.checkpoint_every,
        unsaved_bytes_max: 1 << 20,
        watch: WatchOptions {
            progress_interval: Duration::from_secs(2),
            stream_queue_max: 4,
            ..WatchOptions::default()
        },
        timers: plan.timers,
        seed,
    }
}
