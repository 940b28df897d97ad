//! A state that turns out to be damaged while the node serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{FakeLog, alone, options};
use kine2_backend::mem::MemBackend;
use kine2_mvcc::{
    Alarm, AlarmChange, AlarmKind, Backend, BackendError, BackendStats, ChangeId, Command, Held,
    HistoryPage, KeyRange, LogPosition, Meta, Put, RangeQuery, ReadError, Record, Refusal,
    Revision, StateBatch, Store, StoreOptions,
};
use kine2_node::{Done, Event, Node, NodeOptions, Rejected, STORE, Work};
use kine2_replication::{Event as ReplicaEvent, LogIndex};

/// A backend whose records fail their checksums when it is told so.
#[derive(Debug, Default)]
struct Rotting {
    sound: MemBackend,
    is_rotten: AtomicBool,
}

impl Backend for Rotting {
    fn held(&self) -> Result<Held, BackendError> {
        self.sound.held()
    }

    fn apply(&self, batch: &StateBatch) -> Result<(), BackendError> {
        self.sound.apply(batch)
    }

    fn checkpoint(&self) -> Result<LogPosition, BackendError> {
        self.sound.checkpoint()
    }

    fn get(&self, id: ChangeId) -> Result<Option<Record>, BackendError> {
        if self.is_rotten.load(Ordering::Relaxed) {
            return Err(BackendError::Damaged("block 7: bad checksum".to_owned()));
        }
        self.sound.get(id)
    }

    fn metas(&self, visit: &mut dyn FnMut(Meta<'_>)) -> Result<(), BackendError> {
        self.sound.metas(visit)
    }

    fn history(
        &self,
        range: &KeyRange,
        from: Revision,
        until: Revision,
        limit_bytes: usize,
    ) -> Result<HistoryPage, BackendError> {
        self.sound.history(range, from, until, limit_bytes)
    }

    fn defragment(&self) -> Result<(), BackendError> {
        self.sound.defragment()
    }

    fn stats(&self) -> Result<BackendStats, BackendError> {
        self.sound.stats()
    }
}

struct Bench {
    node: Node<u32>,
    backend: Arc<Rotting>,
    log: FakeLog,
    answers: Vec<(u32, Result<Done, Rejected>)>,
    told: Vec<String>,
}

impl Bench {
    fn over(backend: Arc<Rotting>, mut log: FakeLog) -> Self {
        let store = Store::open(Arc::clone(&backend) as _, StoreOptions::default()).unwrap();
        let options = NodeOptions {
            save_bytes: 0,
            ..options()
        };
        let applied = LogIndex(store.applied().index);
        let mut bench = Self {
            node: Node::new(options, log.load(applied), store, Duration::ZERO),
            backend,
            log,
            answers: Vec::new(),
            told: Vec::new(),
        };
        bench.finish();
        assert!(bench.node.reads_locally());
        bench
    }

    fn submit(&mut self, waiter: u32, command: Command) {
        let event = Event::Submit { command, waiter };
        self.node.apply(Duration::ZERO, event).unwrap();
    }

    /// Everything that is under way is done.
    fn finish(&mut self) {
        for _ in 0..3 {
            let output = self.node.take_output(Duration::ZERO).unwrap();
            self.answers.extend(output.answers);
            self.told.extend(output.damage);
            for work in output.work {
                if let Work::Write(write) = work {
                    self.log.write(write);
                }
            }
            if let Some(through) = self.log.flush() {
                let part = STORE.into();
                let written = Event::Replica(ReplicaEvent::Written { part, through });
                self.node.apply(Duration::ZERO, written).unwrap();
            }
            if let Some(batch) = output.state {
                self.backend.apply(&batch).unwrap();
                let stats = self.backend.stats().unwrap();
                self.node
                    .apply(Duration::ZERO, Event::Saved(stats))
                    .unwrap();
            }
        }
    }

    fn read(&mut self, key: &'static str) -> Result<usize, ReadError> {
        let query = RangeQuery::all(KeyRange::single(key.into()));
        Ok(self.node.range(&query)?.1.records.len())
    }
}

fn put(key: &'static str) -> Command {
    Command::Put(Put {
        key: key.into(),
        ..Put::default()
    })
}

#[test]
fn s53_damage_that_a_read_meets_is_told_once_and_stops_writes() {
    let mut bench = Bench::over(Arc::default(), FakeLog::new("a", &alone("a")));
    bench.submit(1, put("a"));
    bench.submit(2, put("b"));
    bench.finish();
    // With nothing in its cache.
    let mut bench = Bench::over(bench.backend, bench.log);
    assert_eq!(bench.read("a").unwrap(), 1);

    bench.backend.is_rotten.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(matches!(bench.read("b"), Err(ReadError::Backend(_))));
    }
    bench.submit(3, put("c"));
    bench.finish();
    assert!(bench.read("b").is_err());
    bench.finish();
    assert_eq!(bench.told, ["block 7: bad checksum"]);
    assert_eq!(bench.answers, [(3, Err(Refusal::Corrupt.into()))]);
    let alarm = Alarm {
        member_id: 1,
        kind: AlarmKind::Corrupt,
    };
    assert!(bench.node.store().alarms().contains(&alarm));
    assert_eq!(bench.read("a").unwrap(), 1, "what is sound is served");

    bench.submit(4, Command::Alarm(AlarmChange::Clear(alarm)));
    bench.finish();
    assert!(bench.read("b").is_err());
    bench.finish();
    assert_eq!(bench.told.len(), 2, "who disarms it too early hears again");
}
