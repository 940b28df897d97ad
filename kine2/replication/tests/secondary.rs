//! What one node that is out of sync does with the frames of a primary played by hand.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use kine2_replication::{
    Act, Answer, Arbiter, Body, ClusterId, Config, DataState, Event, Form, Frame, HardState,
    History, Incarnation, Link, Loaded, LoadedPart, LogIndex, LonePolicy, NodeRef, Notice,
    PartName, PartSummary, Policies, Position, Record, RegisterKey, Replica, RequestId, Step,
    StreamId, Term, Timers, Unit,
};

fn store() -> PartName {
    "store".into()
}

/// Primary a alone, b a member.
fn config() -> Config {
    let (a, b) = (NodeRef::new("a", 1), NodeRef::new("b", 2));
    let key = RegisterKey {
        cluster: ClusterId(1),
        unit: "main".into(),
    };
    let parts = [(store(), Incarnation(10))];
    let arbiter = Arbiter::None(LonePolicy::Stop);
    let policies = Policies::default();
    let first = Config::first(key, 1, a.clone(), store(), parts, arbiter, policies).unwrap();
    let replica = Replica {
        node: b,
        storage: Incarnation(20),
    };
    let add = Form::Add {
        part: store(),
        replica,
    };
    let both = add.make(&first, &a, 2).unwrap();
    Form::Remove.make(&both, &a, 3).unwrap()
}

/// Positions 1 to `count` of `term`, whose payloads are `payload`.
fn log(after: Position, term: Term, payload: &[u8], count: usize) -> Vec<Position> {
    let next = |last: &Position| Some(last.extend(term, payload));
    std::iter::successors(next(&after), next)
        .take(count)
        .collect()
}

const TERM: Term = Term::new(1, 1);

/// Node b, with a stream that the primary a has opened.
struct B {
    unit: Unit,
    now: Duration,
    frames: u64,
    stream: StreamId,
}

impl B {
    fn new(history: History, commit: u64) -> Self {
        let storage = Incarnation(20);
        let data = DataState::Complete;
        let part = LoadedPart {
            storage,
            data,
            history: history.clone(),
            commit: LogIndex(commit),
        };
        let loaded = Loaded {
            me: NodeRef::new("b", 2),
            boot: 1,
            hard: HardState::adopting(config()),
            parts: BTreeMap::from([(store(), part)]),
            seed: 1,
        };
        let now = Duration::from_secs(1);
        let mut b = Self {
            unit: Unit::new(loaded, Timers::default(), now),
            now,
            frames: 0,
            stream: StreamId {
                boot: 1,
                opening: 0,
            },
        };
        b.tell(Event::Link(Link::Up));
        b.open(history);
        b
    }

    /// The primary shows `history` as its own.
    fn open(&mut self, history: History) {
        let commit = history.last().index;
        let summary = PartSummary {
            storage: Incarnation(10),
            data: DataState::Complete,
            history,
            commit,
        };
        let steps = self.frame(Body::Open {
            config: Box::new(config()),
            opening: self.frames + 1,
            parts: BTreeMap::from([(store(), summary)]),
        });
        let stream = bodies(&steps).find_map(|body| match body {
            Body::OpenAck { parts, .. } => Some(parts[&store()].stream),
            _ => None,
        });
        self.stream = stream.unwrap();
    }

    fn tell(&mut self, event: Event) -> Vec<Step> {
        self.now += Duration::from_millis(1);
        self.unit.handle(self.now, event);
        self.unit.take_steps()
    }

    fn frame(&mut self, body: Body) -> Vec<Step> {
        self.frames += 1;
        let config = config();
        let frame = Frame {
            key: config.key(),
            from: NodeRef::new("a", 1),
            id: config.id(),
            run: 1,
            number: self.frames,
            echo: 0,
            body,
        };
        self.tell(Event::Frame(Box::new(frame)))
    }

    fn offer(&mut self, position: Position) -> Vec<Step> {
        self.frame(Body::SnapshotOffer {
            part: store(),
            stream: self.stream,
            position,
        })
    }

    fn append(&mut self, prev: Position) -> Vec<Step> {
        self.frame(Body::Append {
            part: store(),
            stream: self.stream,
            prev,
            entries: Vec::new(),
            commit: LogIndex(0),
        })
    }
}

fn bodies(steps: &[Step]) -> impl Iterator<Item = &Body> {
    steps.iter().filter_map(|step| match &step.act {
        Act::Send(frame) => Some(&frame.body),
        _ => None,
    })
}

fn has(steps: &[Step], is: impl Fn(&Body) -> bool) -> bool {
    bodies(steps).any(is)
}

fn diverges(steps: &[Step]) -> bool {
    let is = |step: &Step| matches!(step.act, Act::Notice(Notice::Diverged(_)));
    steps.iter().any(is)
}

fn history(base: Position, last: Position) -> History {
    let mut history = History::new(base);
    history.push(last);
    history
}

/// `repl N6`: a late snapshot would drop what was acknowledged after it.
#[test]
fn a_snapshot_of_what_is_held_is_refused() {
    let own = log(Position::START, TERM, b"x", 5);
    let mut b = B::new(history(own[1], own[4]), 2);
    for position in [own[0], own[1], own[2], own[4]] {
        let steps = b.offer(position);
        assert!(has(&steps, |body| matches!(
            body,
            Body::SnapshotDone { .. }
        )));
        assert!(!diverges(&steps));
        let received = Event::SnapshotReceived {
            part: store(),
            position,
        };
        let steps = b.tell(received);
        let is_write = |step: &Step| matches!(step.act, Act::Write(_));
        assert!(!steps.iter().any(is_write), "{steps:?}");
    }
    let steps = b.offer(own[4].extend(TERM, b"x"));
    let accepts = |body: &Body| matches!(body, Body::SnapshotAccept { .. });
    assert!(has(&steps, accepts), "what is not held is taken");
}

/// `repl N3`: another chain under the same name is a divergence only where it is committed here;
/// above it the tail is dropped, and the stream opened again.
#[test]
fn another_chain_above_what_is_committed_is_only_a_tail() {
    let first = log(Position::START, TERM, b"x", 2);
    let second = Term::new(2, 1);
    let own = log(first[1], second, b"mine", 2);
    let other = log(first[1], second, b"other", 2);
    let logs = |last| {
        let mut history = history(Position::START, first[1]);
        history.push(last);
        history
    };
    let nack = |body: &Body| matches!(body, Body::Nack { .. });

    let mut b = B::new(logs(own[1]), 2);
    b.open(logs(other[1]));
    let steps = b.append(other[1]);
    assert!(has(&steps, nack) && !diverges(&steps));
    let dropped = steps.iter().any(|step| match &step.act {
        Act::Write(write) => write.records == [Record::Truncate(first[1])],
        _ => false,
    });
    assert!(dropped, "{steps:?}");

    let mut b = B::new(logs(own[1]), 4);
    b.open(logs(other[1]));
    assert!(diverges(&b.append(other[1])));
}

/// `repl N3`: the log of the primary was cut beyond the common point: the tail is replaced, but
/// not what is committed.
#[test]
fn a_snapshot_replaces_a_tail_and_nothing_committed() {
    let own = log(Position::START, TERM, b"x", 4);
    let other = log(own[0], Term::new(2, 1), b"y", 3);
    let mut b = B::new(history(Position::START, own[3]), 1);
    let steps = b.offer(other[2]);
    assert!(!diverges(&steps));
    assert!(has(&steps, |body| matches!(
        body,
        Body::SnapshotAccept { .. }
    )));

    let mut b = B::new(history(Position::START, own[3]), 4);
    assert!(diverges(&b.offer(other[2])));
}

/// An Append that ends below where this log was cut is merely old.
#[test]
fn an_append_below_the_cut_is_refused_and_no_divergence() {
    let own = log(Position::START, TERM, b"x", 5);
    let mut b = B::new(history(own[2], own[4]), 5);
    for prev in [own[0], log(Position::START, TERM, b"y", 2)[1]] {
        let steps = b.append(prev);
        assert!(has(&steps, |body| matches!(body, Body::Nack { .. })));
        assert!(!diverges(&steps));
    }
}

/// `repl R3`: what is applied here may be more than the primary has, if that was promoted by force:
/// nothing is read before it is known to be of its log.
#[test]
fn nothing_is_read_before_what_is_applied_is_known_to_be_of_the_primarys_log() {
    let entries = log(Position::START, TERM, b"x", 3);
    let mut b = B::new(history(Position::START, entries[2]), 3);
    let read = |b: &mut B, request: u64| {
        let request = RequestId(request);
        let steps = b.tell(Event::Read {
            part: store(),
            request,
        });
        let asked = bodies(&steps).find_map(|body| match body {
            Body::ReadIndex { read, .. } => Some(*read),
            _ => None,
        });
        let index = Some(LogIndex(1));
        let read = asked.expect("the primary is asked");
        b.frame(Body::ReadIndexAck { read, index })
    };
    let answers = |steps: &[Step]| {
        let is = |step: &&Step| {
            matches!(
                step.act,
                Act::Answer {
                    answer: Answer::ReadAt(_),
                    ..
                }
            )
        };
        steps.iter().filter(is).count()
    };
    let steps = read(&mut b, 1);
    assert_eq!(answers(&steps), 0);
    let steps = b.append(entries[2]);
    assert_eq!(answers(&steps), 1, "it is of its log");
    assert_eq!(answers(&read(&mut b, 2)), 1);
}
