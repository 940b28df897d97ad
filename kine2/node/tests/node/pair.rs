//! Two nodes of one unit and what goes between them, without loss.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kine2_backend::mem::MemBackend;
use kine2_mvcc::{Answer, Command, KeyRange, LeaseGrant, Put, RangeQuery, Store, StoreOptions};
use kine2_node::{ACTIVATION_GRACE, Done, Event, Node, Rejected, STORE, Work};
use kine2_replication::{
    Act, Arbiter, Command as Operation, Durable, Event as ReplicaEvent, Frame, HardState, Link,
    LogIndex, LonePolicy, Replica,
};

use crate::common::{FakeLog, alone, node_ref, options, storage_of};

/// A node, its log, and the answers it gave.
struct Half {
    node: Node<u32>,
    log: FakeLog,
    answers: Vec<(u32, Result<Done, Rejected>)>,
    /// Its disk does not get on.
    is_stuck: bool,
}

struct Pair {
    halves: [Half; 2],
    frames: VecDeque<(usize, Box<Frame>)>,
    /// The link is cut.
    is_cut: bool,
    now: Duration,
}

/// Both are in sync, `a` is the primary, and the register is with it.
fn mirrored(name: &str) -> Durable {
    let mut durable = alone("a");
    let mut config = durable.hard.unwrap().config;
    config.members = BTreeSet::from([node_ref("a"), node_ref("b")]);
    config.arbiter = Arbiter::None(LonePolicy::PreferPrimary);
    let replica = |name| Replica {
        node: node_ref(name),
        storage: storage_of(name),
    };
    let both = BTreeSet::from([replica("a"), replica("b")]);
    config.in_sync.insert(STORE.into(), both);
    durable.storage = storage_of(name);
    durable.hard = Some(HardState::adopting(config));
    durable
}

impl Half {
    fn new(name: &str) -> Self {
        let mut log = FakeLog::new(name, &mirrored(name));
        let backend = Arc::new(MemBackend::default());
        let store = Store::open(backend, StoreOptions::default()).unwrap();
        let loaded = log.load(LogIndex(0));
        Self {
            node: Node::new(options(), loaded, store, Duration::ZERO),
            log,
            answers: Vec::new(),
            is_stuck: false,
        }
    }

    fn answer(&self, waiter: u32) -> Option<&Result<Done, Rejected>> {
        let mut answers = self.answers.iter();
        answers
            .find(|(who, _)| *who == waiter)
            .map(|(_, answer)| answer)
    }
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            halves: [Half::new("a"), Half::new("b")],
            frames: VecDeque::new(),
            is_cut: false,
            now: Duration::ZERO,
        };
        for at in 0..2 {
            pair.apply(at, Event::Replica(ReplicaEvent::Link(Link::Up)));
        }
        pair.pass(Duration::from_secs(3));
        assert!(pair.halves[0].node.is_active());
        pair
    }

    fn apply(&mut self, at: usize, event: Event<u32>) {
        self.halves[at].node.apply(self.now, event).unwrap();
    }

    fn submit(&mut self, at: usize, waiter: u32, command: Command) {
        self.apply(at, Event::Submit { command, waiter });
    }

    /// What both want done is done, without time.
    fn turn(&mut self) {
        for _ in 0..20 {
            for at in 0..2 {
                self.apply(at, Event::Tick);
                let output = self.halves[at].node.take_output(self.now).unwrap();
                self.halves[at].node.next_wake(self.now);
                self.halves[at].answers.extend(output.answers);
                for work in output.work {
                    match work {
                        Work::Write(write) => self.halves[at].log.write(write),
                        Work::ReadLog(wanted) => {
                            let (prev, entries) = self.halves[at].log.read(&wanted);
                            let reader = wanted.reader;
                            let event = Event::LogRead {
                                reader,
                                prev,
                                entries,
                            };
                            self.apply(at, event);
                        }
                        Work::Act(Act::Send(frame)) if !self.is_cut => {
                            self.frames.push_back((1 - at, frame));
                        }
                        Work::Act(_) | Work::SwitchState => {}
                    }
                }
                if !self.halves[at].is_stuck
                    && let Some(through) = self.halves[at].log.flush()
                {
                    let part = STORE.into();
                    let written = ReplicaEvent::Written { part, through };
                    self.apply(at, Event::Replica(written));
                }
            }
            for (to, frame) in std::mem::take(&mut self.frames) {
                self.apply(to, Event::Replica(ReplicaEvent::Frame(frame)));
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(20);
            self.turn();
        }
    }

    fn ttl(&self, at: usize, id: i64) -> Option<i64> {
        self.halves[at].node.store().lease_ttl(id)
    }

    fn swap(&mut self) {
        let swap = Operation::Swap { partial: false };
        self.apply(0, Event::Replica(ReplicaEvent::Command(swap)));
        self.pass(Duration::from_secs(1));
        assert!(self.halves[1].node.is_active() && !self.halves[0].node.is_active());
    }
}

fn put(key: &'static str) -> Command {
    Command::Put(Put {
        key: key.into(),
        ..Put::default()
    })
}

const fn grant(id: i64, ttl_seconds: i64) -> Command {
    Command::LeaseGrant(LeaseGrant { id, ttl_seconds })
}

fn is_applied(answer: Option<&Result<Done, Rejected>>) -> bool {
    matches!(answer, Some(Ok(Done::Applied(_))))
}

#[test]
fn l2_a_write_is_answered_once_it_is_durable_on_both() {
    let mut pair = Pair::new();
    pair.halves[1].is_stuck = true;
    pair.submit(0, 1, put("a"));
    pair.turn();
    assert_eq!(pair.halves[0].answer(1), None);
    pair.halves[1].is_stuck = false;
    pair.turn();
    assert!(is_applied(pair.halves[0].answer(1)));
    // The other node applies it as well.
    pair.pass(Duration::from_millis(40));
    let query = RangeQuery::all(KeyRange::single("a".into()));
    let (_, answer) = pair.halves[1].node.range(&query).unwrap();
    assert_eq!(answer.records.len(), 1);
}

#[test]
fn r2_a_mirrored_primary_reads_after_a_confirmation_only() {
    let mut pair = Pair::new();
    assert!(!pair.halves[0].node.reads_locally());
    pair.is_cut = true;
    pair.apply(0, Event::Read { waiter: 1 });
    pair.turn();
    assert_eq!(pair.halves[0].answer(1), None);
    pair.is_cut = false;
    pair.pass(Duration::from_millis(200));
    assert_eq!(pair.halves[0].answer(1), Some(&Ok(Done::Readable)));
    // R3: the other node reads what it has, after asking.
    pair.apply(1, Event::Read { waiter: 2 });
    pair.turn();
    assert_eq!(pair.halves[1].answer(2), Some(&Ok(Done::Readable)));
}

#[test]
fn t1_t2_a_lease_has_its_whole_time_again_at_the_new_primary_and_expires_there_only() {
    let mut pair = Pair::new();
    pair.submit(0, 1, grant(7, 10));
    pair.pass(Duration::from_secs(8));
    assert_eq!(pair.ttl(0, 7), Some(10));
    assert_eq!(
        pair.halves[1].node.time_to_live(pair.now, 7),
        None,
        "only the primary counts"
    );
    pair.swap();
    let (left, _) = pair.halves[1].node.time_to_live(pair.now, 7).unwrap();
    let whole = Duration::from_secs(10) + ACTIVATION_GRACE;
    assert!(left > whole - Duration::from_secs(2), "{left:?}");
    assert_eq!(pair.halves[0].node.time_to_live(pair.now, 7), None);
    pair.pass(left - Duration::from_millis(100));
    assert_eq!((pair.ttl(0, 7), pair.ttl(1, 7)), (Some(10), Some(10)));
    pair.pass(Duration::from_secs(1));
    assert_eq!((pair.ttl(0, 7), pair.ttl(1, 7)), (None, None));
}

#[test]
fn t3_nothing_expires_while_the_other_node_is_silent() {
    let mut pair = Pair::new();
    pair.submit(0, 1, grant(7, 5));
    pair.pass(Duration::from_secs(4));
    pair.halves[1].is_stuck = true;
    pair.is_cut = true;
    // Policy: the primary goes on alone after a while; what it is until then counts here.
    pair.pass(Duration::from_millis(400));
    pair.is_cut = false;
    pair.halves[1].is_stuck = false;
    pair.pass(Duration::from_millis(800));
    assert_eq!(pair.ttl(0, 7), Some(5), "the silence is not the lease's");
    pair.pass(Duration::from_secs(2));
    assert_eq!(pair.ttl(0, 7), None);
}

#[test]
fn t4_a_renewal_counts_once_it_is_confirmed_and_at_the_primary_only() {
    let mut pair = Pair::new();
    pair.submit(0, 1, grant(7, 10));
    pair.pass(Duration::from_secs(5));
    let (id, waiter) = (7, 2);
    pair.is_cut = true;
    pair.apply(0, Event::KeepAlive { id, waiter });
    pair.turn();
    assert_eq!(pair.halves[0].answer(2), None);
    pair.is_cut = false;
    pair.pass(Duration::from_millis(200));
    assert_eq!(pair.halves[0].answer(2), Some(&Ok(Done::KeptAlive(10))));
    let (left, _) = pair.halves[0].node.time_to_live(pair.now, 7).unwrap();
    assert!(left > Duration::from_secs(9), "{left:?}");
    let (id, waiter) = (7, 3);
    pair.apply(1, Event::KeepAlive { id, waiter });
    pair.pass(Duration::from_millis(200));
    assert!(matches!(
        pair.halves[1].answer(3),
        Some(Err(Rejected::NotPrimary(..)))
    ));
}

#[test]
fn s2_who_is_not_primary_names_it_and_tries_nothing() {
    let mut pair = Pair::new();
    pair.submit(1, 1, put("a"));
    pair.turn();
    let answer = pair.halves[1].answer(1);
    let Some(Err(Rejected::NotPrimary(_, primary))) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(*primary, node_ref("a"));
}

#[test]
fn a_write_that_was_ordered_before_a_handover_is_answered_and_those_after_it_are_sent_on() {
    let mut pair = Pair::new();
    pair.halves[1].is_stuck = true;
    pair.submit(0, 1, put("a"));
    pair.turn();
    pair.halves[1].is_stuck = false;
    pair.swap();
    assert!(is_applied(pair.halves[0].answer(1)));
    pair.submit(0, 2, put("b"));
    pair.turn();
    assert!(matches!(
        pair.halves[0].answer(2),
        Some(Err(Rejected::NotPrimary(..)))
    ));
    pair.submit(1, 3, put("b"));
    pair.pass(Duration::from_millis(100));
    let answer = pair.halves[1].answer(3);
    let Some(Ok(Done::Applied(applied))) = answer else {
        panic!("{answer:?}");
    };
    assert!(matches!(applied.answer, Answer::Put(_)));
    assert_eq!(applied.revision.0, 3, "no revision is used twice");
}

#[test]
fn i1_who_waits_at_a_node_whose_disk_failed_is_told() {
    let mut pair = Pair::new();
    // It goes on without its peer: what comes after this waits for its own record, which never
    // becomes durable.
    pair.is_cut = true;
    pair.halves[0].is_stuck = true;
    pair.pass(Duration::from_secs(1));
    assert!(pair.halves[0].node.is_active());
    pair.submit(0, 1, put("a"));
    pair.apply(0, Event::Read { waiter: 2 });
    pair.turn();
    assert_eq!(pair.halves[0].answer(1), None);
    let part = STORE.into();
    pair.apply(0, Event::Replica(ReplicaEvent::DiskFailed { part }));
    pair.turn();
    for waiter in [1, 2] {
        assert!(matches!(pair.halves[0].answer(waiter), Some(Err(_))));
    }
}
