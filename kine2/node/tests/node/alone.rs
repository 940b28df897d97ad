//! A node that is a unit by itself.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{FakeLog, alone, options};
use bytes::Bytes;
use kine2_backend::Backend;
use kine2_backend::mem::MemBackend;
use kine2_mvcc::{
    Alarm, AlarmChange, AlarmKind, Command, Compact, Compare, Delete, KeyRange, LeaseGrant,
    Operand, Put, RangeQuery, Refusal, Relation, StateBatch, Store, StoreOptions, Txn,
};
use kine2_node::{Done, Event, Node, NodeOptions, QUEUE_BYTES_MAX, Rejected, STORE, Work};
use kine2_replication::{Act, Event as ReplicaEvent, LogIndex, WriteId};

/// Records a slice of a compaction frees at most.
const SLICE_MAX: usize = 200;

/// A node, a log that is durable when the test says so, and a backend that is as slow as it wants.
struct Bench {
    node: Node<u32>,
    backend: Arc<MemBackend>,
    now: Duration,
    log: FakeLog,
    batch: Option<StateBatch>,
    checkpointing: bool,
    answers: Vec<(u32, Result<Done, Rejected>)>,
    cuts: Vec<LogIndex>,
}

impl Bench {
    fn new() -> Self {
        Self::over(Arc::new(MemBackend::default()), Duration::ZERO)
    }

    /// A node that gathers changes for so long before the backend gets them.
    fn gathering(save_delay: Duration) -> Self {
        Self::over(Arc::new(MemBackend::default()), save_delay)
    }

    /// A node that starts with what this one has saved, and its log.
    fn restart(self) -> Self {
        let mut bench = Self::start(self.backend, Duration::ZERO, self.log);
        bench.activate();
        bench
    }

    fn over(backend: Arc<MemBackend>, save_delay: Duration) -> Self {
        let mut bench = Self::start(backend, save_delay, FakeLog::new("a", &alone("a")));
        bench.activate();
        bench
    }

    fn start(backend: Arc<MemBackend>, save_delay: Duration, mut log: FakeLog) -> Self {
        let store = Store::open(Arc::clone(&backend) as _, StoreOptions::default()).unwrap();
        let loaded = log.load(LogIndex(store.applied().index));
        let options = NodeOptions {
            save_delay,
            ..options()
        };
        Self {
            node: Node::new(options, loaded, store, Duration::ZERO),
            backend,
            now: Duration::ZERO,
            log,
            batch: None,
            checkpointing: false,
            answers: Vec::new(),
            cuts: Vec::new(),
        }
    }

    /// Until it serves what is in its log.
    fn activate(&mut self) {
        for _ in 0..10 {
            self.turn();
            self.persist();
            self.save();
        }
        assert!(self.node.reads_locally());
    }

    fn apply(&mut self, event: Event<u32>) {
        self.node.apply(self.now, event).unwrap();
    }

    fn submit(&mut self, waiter: u32, command: Command) {
        self.apply(Event::Submit { command, waiter });
    }

    /// A tick, and what the node wants done then.
    fn turn(&mut self) {
        self.apply(Event::Tick);
        let output = self.node.take_output(self.now).unwrap();
        self.node.next_wake(self.now);
        for work in output.work {
            match work {
                Work::Write(write) => self.log.write(write),
                Work::ReadLog(wanted) => {
                    let (prev, entries) = self.log.read(&wanted);
                    let reader = wanted.reader;
                    self.apply(Event::LogRead {
                        reader,
                        prev,
                        entries,
                    });
                }
                Work::Act(Act::Serve { .. } | Act::Notice(_)) => {}
                other => panic!("a unit of one wants {other:?}"),
            }
        }
        self.answers.extend(output.answers);
        self.cuts.extend(output.cut.map(|cut| cut.below));
        if let Some(batch) = output.state {
            assert!(self.batch.replace(batch).is_none(), "one batch at a time");
        }
        if output.checkpoint {
            assert!(!self.checkpointing, "one checkpoint at a time");
            self.checkpointing = true;
        }
    }

    fn persist(&mut self) {
        if let Some(through) = self.log.flush() {
            let part = STORE.into();
            self.apply(Event::Replica(ReplicaEvent::Written { part, through }));
        }
    }

    /// The backend finishes what it was given, in the order it was given.
    fn save(&mut self) {
        if std::mem::take(&mut self.checkpointing) {
            let position = self.backend.checkpoint().unwrap();
            self.apply(Event::Checkpointed(position));
        }
        if let Some(batch) = self.batch.take() {
            assert!(batch.removed.len() <= SLICE_MAX, "a slice at a time");
            self.backend.apply(&batch).unwrap();
            let stats = self.backend.stats().unwrap();
            self.apply(Event::Saved(stats));
        }
    }

    /// Time passes in steps of a twentieth of a second with an idle or stuck backend.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(50);
            self.turn();
            self.persist();
        }
    }

    /// Everything that is under way is done.
    fn finish(&mut self) {
        for _ in 0..3 {
            self.turn();
            self.persist();
            self.save();
        }
    }

    fn answered(&self, waiter: u32) -> bool {
        self.answers.iter().any(|(who, _)| *who == waiter)
    }

    fn lease_ttl(&self, id: i64) -> Option<i64> {
        self.node.store().lease_ttl(id)
    }
}

fn put(key: &str) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: "value".into(),
        ..Put::default()
    })
}

const fn grant(id: i64, ttl_seconds: i64) -> Command {
    Command::LeaseGrant(LeaseGrant { id, ttl_seconds })
}

const fn compact(revision: i64) -> Command {
    Command::Compact(Compact {
        revision,
        physical: true,
    })
}

#[test]
fn s49_leases_expire_while_the_state_engine_is_stuck() {
    let mut bench = Bench::new();
    bench.submit(0, put("a"));
    bench.finish();
    bench.submit(1, grant(7, 5));
    bench.turn();
    bench.persist();
    // From here on the backend finishes nothing, and a checkpoint becomes due that cannot begin.
    bench.pass(Duration::from_millis(4_900));
    assert_eq!(bench.lease_ttl(7), Some(5));
    bench.pass(Duration::from_millis(300));
    assert_eq!(bench.lease_ttl(7), None);
}

#[test]
fn t3_a_node_that_stood_still_gives_its_leases_that_time() {
    let mut bench = Bench::new();
    bench.submit(1, grant(7, 5));
    bench.finish();
    bench.pass(Duration::from_secs(3));
    bench.now += Duration::from_secs(20);
    bench.pass(Duration::from_secs(1));
    assert!(
        bench.node.keep_alive(bench.now, 7) > 0,
        "two seconds were left"
    );
    bench.pass(Duration::from_secs(6));
    assert_eq!(bench.lease_ttl(7), None, "and no more than that");
}

#[test]
fn leases_beyond_those_under_way_wait_without_waking_the_node() {
    let mut bench = Bench::new();
    for id in 1..=800 {
        bench.submit(1, grant(id, 5));
    }
    bench.finish();
    bench.now += Duration::from_secs(5);
    // The stall of this jump is theirs.
    bench.turn();
    bench.now += Duration::from_millis(400);
    bench.turn();
    bench.now += Duration::from_secs(5);
    for _ in 0..20 {
        bench.now += Duration::from_millis(10);
        bench.turn();
    }
    let wake = bench.node.next_wake(bench.now);
    assert!(wake > bench.now, "nothing can be done before the log is");
    for _ in 0..100 {
        bench.persist();
        bench.now += Duration::from_millis(100);
        bench.turn();
    }
    assert_eq!(bench.node.store().lease_ttls().count(), 0);
}

#[test]
fn changes_are_gathered_for_the_backend() {
    let delay = Duration::from_millis(200);
    let mut bench = Bench::gathering(delay);
    let commit = |bench: &mut Bench, key| {
        bench.submit(1, put(key));
        bench.turn();
        bench.persist();
        bench.turn();
    };
    commit(&mut bench, "a");
    bench.now += delay / 2;
    commit(&mut bench, "b");
    assert!(bench.batch.is_none());
    assert_eq!(bench.node.next_wake(bench.now), delay);
    bench.now = delay;
    bench.turn();
    let batch = bench.batch.take().expect("the time is over");
    assert_eq!(batch.changes.len(), 2);
    bench.batch = Some(batch);
    bench.save();

    let mut bytes = 0;
    while bench.batch.is_none() {
        assert!(
            bytes < 2 * options().save_bytes,
            "it is not gathered without end"
        );
        commit(&mut bench, "a");
        bytes += 20;
    }
    bench.save();

    commit(&mut bench, "a");
    assert!(bench.batch.is_none());
    bench.node.settle();
    bench.turn();
    assert!(bench.batch.is_some(), "a stop does not wait");
}

#[test]
fn a_backend_that_never_rests_is_checkpointed_all_the_same() {
    let mut bench = Bench::new();
    let mut checkpoints = 0;
    for n in 0..400 {
        bench.now += Duration::from_millis(50);
        bench.submit(n, put("a"));
        // The next batch waits whenever the backend is done with one.
        bench.turn();
        bench.persist();
        checkpoints += usize::from(bench.checkpointing);
        bench.save();
    }
    assert!(checkpoints >= 5, "{checkpoints} in 20 seconds");
    assert!(!bench.cuts.is_empty(), "so the log is cut");
}

#[test]
fn s25_a_physical_compaction_is_answered_under_writes() {
    let mut bench = Bench::new();
    for n in 0..1_000 {
        bench.submit(n, put("a"));
    }
    bench.finish();
    bench.submit(5_000, compact(900));
    bench.turn();
    bench.persist();
    assert!(!bench.answered(5_000));
    for n in 0..100 {
        bench.submit(n, put("a"));
        bench.turn();
        bench.persist();
        // Committed before the checkpoint that may follow is done.
        bench.submit(n, put("b"));
        bench.turn();
        bench.persist();
        bench.save();
    }
    bench.turn();
    assert!(bench.answered(5_000));
}

#[test]
fn s25_a_physical_compaction_that_frees_nothing_is_answered() {
    let mut bench = Bench::new();
    bench.submit(1, put("a"));
    bench.finish();
    bench.submit(2, compact(2));
    for _ in 0..10 {
        bench.finish();
    }
    assert!(bench.answered(2));
}

#[test]
fn a_stuck_backend_finds_no_heap_of_removals_and_the_node_does_not_spin() {
    let mut bench = Bench::new();
    for n in 0..2_000 {
        bench.submit(n, put("a"));
    }
    bench.finish();
    bench.submit(1, put("b"));
    bench.submit(5_000, compact(1_900));
    bench.turn();
    bench.persist();
    for _ in 0..50 {
        bench.turn();
    }
    assert!(bench.node.next_wake(bench.now) > bench.now);
    for _ in 0..50 {
        bench.turn();
        bench.persist();
        bench.save();
    }
    bench.turn();
    assert!(bench.answered(5_000));
}

/// A client waited for the whole drain of the server for an answer that could not come any more.
#[test]
fn who_waits_is_dropped_when_a_disk_has_failed() {
    let waiting = Arc::new(());
    let store = Store::open(Arc::new(MemBackend::default()), StoreOptions::default()).unwrap();
    let mut log = FakeLog::new("a", &alone("a"));
    let mut node = Node::new(options(), log.load(LogIndex(0)), store, Duration::ZERO);
    let part = STORE.into();
    let through = WriteId(1);
    let written = Event::Replica(ReplicaEvent::Written { part, through });
    node.apply(Duration::ZERO, written).unwrap();
    for key in ["logged", "queued"] {
        let waiter = Arc::clone(&waiting);
        let command = put(key);
        node.apply(Duration::ZERO, Event::Submit { command, waiter })
            .unwrap();
        node.take_output(Duration::ZERO).unwrap();
    }
    assert_eq!(Arc::strong_count(&waiting), 3);
    node.abandon();
    assert_eq!(Arc::strong_count(&waiting), 1);
}

#[test]
fn a_stop_does_not_wait_for_a_compaction() {
    let mut bench = Bench::new();
    for n in 0..4_000 {
        bench.submit(n, put("a"));
    }
    bench.finish();
    bench.submit(5_000, compact(3_900));
    bench.turn();
    bench.persist();
    bench.node.settle();
    for _ in 0..4 {
        bench.turn();
        bench.save();
    }
    assert!(bench.node.is_settled());
}

/// A transaction that writes nothing and is `bytes` large.
fn reading_txn(bytes: usize) -> Command {
    Command::Txn(Txn {
        compares: vec![Compare {
            range: KeyRange::single("a".into()),
            relation: Relation::Equal,
            operand: Operand::Value(vec![0; bytes].into()),
        }],
        ..Txn::default()
    })
}

#[test]
fn a_command_that_the_log_does_not_take_is_refused_before_it() {
    let mut bench = Bench::new();
    bench.submit(1, reading_txn(1 << 20));
    bench.submit(2, reading_txn(1_000_000));
    bench.finish();
    assert_eq!(bench.answers[0], (1, Err(Refusal::TooLarge.into())));
    assert!(bench.answers[1].1.is_ok());
}

#[test]
fn what_waits_is_bounded_by_its_bytes_whatever_it_does() {
    let mut bench = Bench::new();
    let mut submitted = 0;
    while !bench.node.is_overloaded() {
        bench.submit(1, reading_txn(1_000_000));
        submitted += 1;
    }
    assert!(submitted <= QUEUE_BYTES_MAX / 1_000_000 + 1, "{submitted}");
}

#[test]
fn s53_a_lease_outlives_a_corrupt_alarm_and_expires_after_it() {
    let corrupt = Alarm {
        member_id: 1,
        kind: AlarmKind::Corrupt,
    };
    let mut bench = Bench::new();
    bench.submit(1, grant(7, 5));
    bench.submit(1, grant(8, 60));
    bench.finish();
    bench.pass(Duration::from_millis(4_900));
    // The lease expires between the alarm's place in the log and its effect.
    bench.submit(2, Command::Alarm(AlarmChange::Raise(corrupt)));
    bench.turn();
    bench.now += Duration::from_millis(150);
    bench.turn();
    bench.submit(3, Command::LeaseRevoke { id: 8 });
    bench.persist();
    bench.pass(Duration::from_secs(3));
    assert_eq!(
        (bench.lease_ttl(7), bench.lease_ttl(8)),
        (Some(5), Some(60))
    );
    assert!(
        bench.node.next_wake(bench.now) > bench.now,
        "it does not spin"
    );
    assert!(
        bench.node.keep_alive(bench.now, 8) > 0,
        "its revocation was refused"
    );
    bench.submit(4, Command::Alarm(AlarmChange::Clear(corrupt)));
    bench.pass(Duration::from_secs(1));
    assert_eq!((bench.lease_ttl(7), bench.lease_ttl(8)), (None, Some(60)));
}

#[test]
fn s05_s06_14370_a_write_is_answered_and_read_only_once_it_is_durable() {
    let mut bench = Bench::new();
    let keys = |bench: &mut Bench| {
        let query = RangeQuery::all(KeyRange::single("a".into()));
        bench.node.range(&query).unwrap().1.records.len()
    };
    bench.submit(1, put("a"));
    bench.turn();
    assert_eq!((bench.answered(1), keys(&mut bench)), (false, 0));
    bench.persist();
    assert_eq!(keys(&mut bench), 1, "seen as soon as it is durable");
    bench.turn();
    assert!(bench.answered(1));
}

#[test]
fn s46_14177_13932_a_lease_can_be_renewed_right_after_its_grant() {
    let mut bench = Bench::new();
    bench.submit(1, grant(7, 5));
    bench.turn();
    assert_eq!(bench.node.keep_alive(bench.now, 7), 0, "not granted yet");
    bench.persist();
    assert_eq!(bench.node.keep_alive(bench.now, 7), 5);
}

/// An expiry names a lease by its id alone, and must not come behind a grant of that id.
#[test]
fn s49_an_id_that_is_revoked_and_granted_anew_as_it_expires_is_a_new_lease() {
    let mut bench = Bench::new();
    bench.submit(1, grant(7, 5));
    bench.finish();
    bench.pass(Duration::from_millis(4_900));
    bench.submit(2, Command::LeaseRevoke { id: 7 });
    bench.submit(3, grant(7, 60));
    bench.now += Duration::from_millis(150);
    bench.turn();
    bench.persist();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.lease_ttl(7), Some(60));
    assert_eq!(bench.node.keep_alive(bench.now, 7), 60);
    bench.pass(Duration::from_secs(61));
    assert_eq!(bench.lease_ttl(7), None, "and it expires as any other");
}

#[test]
fn s53_while_the_log_is_full_only_what_needs_space_is_refused() {
    let alarm = Alarm {
        member_id: 1,
        kind: AlarmKind::NoSpace,
    };
    let refused = |bench: &Bench, waiter| {
        let mut answers = bench.answers.iter();
        answers.any(|answer| *answer == (waiter, Err(Refusal::NoSpace.into())))
    };
    let mut bench = Bench::new();
    bench.submit(1, put("a"));
    bench.finish();
    bench.node.set_log_full(true);
    bench.submit(2, put("b"));
    bench.submit(
        3,
        Command::Delete(Delete {
            range: KeyRange::single("a".into()),
            prev_kv: false,
        }),
    );
    bench.finish();
    assert!(refused(&bench, 2) && bench.answered(3) && !refused(&bench, 3));
    assert!(bench.node.store().alarms().contains(&alarm));
    bench.submit(4, compact(3));
    bench.submit(5, Command::Alarm(AlarmChange::Clear(alarm)));
    bench.finish();
    assert!(bench.node.store().alarms().is_empty());
    bench.submit(6, put("b"));
    bench.finish();
    assert!(refused(&bench, 6), "disarmed too early");

    bench.node.set_log_full(false);
    bench.submit(7, put("b"));
    bench.finish();
    assert!(refused(&bench, 7), "the alarm stays until it is disarmed");
    bench.submit(8, Command::Alarm(AlarmChange::Clear(alarm)));
    bench.submit(9, put("b"));
    bench.finish();
    assert!(bench.answered(9) && !refused(&bench, 9));
}

#[test]
fn s53_a_lease_whose_revocation_was_refused_expires_once_it_may() {
    let corrupt = Alarm {
        member_id: 1,
        kind: AlarmKind::Corrupt,
    };
    let mut bench = Bench::new();
    bench.submit(1, grant(7, 5));
    bench.finish();
    bench.pass(Duration::from_millis(4_900));
    bench.submit(2, Command::Alarm(AlarmChange::Raise(corrupt)));
    bench.submit(3, Command::LeaseRevoke { id: 7 });
    bench.now += Duration::from_millis(150);
    bench.turn();
    bench.persist();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.lease_ttl(7), Some(5));
    bench.submit(4, Command::Alarm(AlarmChange::Clear(corrupt)));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.lease_ttl(7), None);
}

/// etcd 3.6.5: no renewal may succeed with a revision at which the lease is gone.
#[test]
fn s46_a_renewal_beside_a_revocation_succeeds_only_before_it() {
    let mut bench = Bench::new();
    bench.submit(1, grant(7, 5));
    bench.finish();
    bench.submit(2, Command::LeaseRevoke { id: 7 });
    bench.turn();
    assert_eq!(bench.node.keep_alive(bench.now, 7), 5);
    bench.persist();
    assert_eq!(bench.node.keep_alive(bench.now, 7), 0);
    assert_eq!(bench.node.time_to_live(bench.now, 7), None);
    bench.turn();
    assert!(bench.answered(2));
}

#[test]
fn s47_s49_after_a_restart_a_lease_has_its_whole_time_again() {
    let mut bench = Bench::new();
    bench.submit(1, grant(7, 60));
    bench.finish();
    bench.pass(Duration::from_secs(50));
    let (left, granted) = bench.node.time_to_live(bench.now, 7).unwrap();
    assert!(left <= Duration::from_secs(10), "{left:?} are left");
    assert_eq!(granted, 60);
    let restarted = bench.restart();
    let (left, _) = restarted.node.time_to_live(restarted.now, 7).unwrap();
    assert!(left >= Duration::from_secs(60), "{left:?} are left");
}

/// etcd counted writes twice, or not at all, after a crash under load (#13766, #14685).
#[test]
fn s01_13766_after_a_crash_every_write_counts_once_however_far_the_state_had_come() {
    const WRITES: usize = 12;
    for saved in 0..=WRITES {
        let mut bench = Bench::new();
        for write in 0..WRITES {
            bench.submit(0, put("a"));
            bench.turn();
            bench.persist();
            if write < saved {
                bench.turn();
                bench.save();
            }
        }
        // The crash: what the engine was given last may be lost, the log is not.
        let mut bench = bench.restart();
        let writes = i64::try_from(WRITES).unwrap();
        let store = bench.node.store();
        assert_eq!(store.revision().0, 1 + writes, "{saved} saved");
        let (_, answer) = bench
            .node
            .range(&RangeQuery::all(KeyRange::single("a".into())))
            .unwrap();
        assert_eq!(answer.records[0].view().version, writes);
    }
}
