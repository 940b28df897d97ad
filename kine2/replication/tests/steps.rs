//! The order of a unit's steps: what must be durable before what, seen on one unit without a peer
//! or with one played by hand.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kine2_replication::{
    Act, Answer, Arbiter, Ask, Body, ClusterId, Command, Config, DataState, Event, Form, Frame,
    HardState, Heartbeat, History, Incarnation, Link, Loaded, LoadedPart, LogIndex, LonePolicy,
    NodeRef, Opened, PartName, PartSummary, Policies, Position, Record, Refusal, RegisterKey,
    Replica, RequestId, State, Step, StreamId, Tell, Timers, Unit, WINDOW_ENTRIES_MAX, WitnessId,
    WitnessLife, WitnessWord, WriteId,
};

const W: WitnessId = WitnessId(9);

fn store() -> PartName {
    "store".into()
}

fn key() -> RegisterKey {
    RegisterKey {
        cluster: ClusterId(1),
        unit: "main".into(),
    }
}

fn first(arbiter: Arbiter) -> Config {
    Config::first(
        key(),
        1,
        NodeRef::new("a", 1),
        store(),
        [(store(), Incarnation(10))],
        arbiter,
        Policies::default(),
    )
    .unwrap()
}

fn at_witness() -> Config {
    first(Arbiter::Witness {
        id: W,
        address: "w:1".into(),
    })
}

/// Node a with an empty log, and the steps it gave.
struct A {
    unit: Unit,
    now: Duration,
    /// Number of frames that b sent.
    frames: u64,
    /// The last frame of a that b says it took in.
    echo: u64,
}

impl A {
    fn new(config: Config) -> Self {
        Self::with_hard(HardState::adopting(config))
    }

    fn with_hard(hard: HardState) -> Self {
        let part = LoadedPart {
            storage: Incarnation(10),
            data: DataState::Complete,
            history: History::new(Position::START),
            commit: LogIndex(0),
        };
        let loaded = Loaded {
            me: NodeRef::new("a", 1),
            boot: 1,
            hard,
            parts: BTreeMap::from([(store(), part)]),
            seed: 1,
        };
        let now = Duration::from_secs(1);
        Self {
            unit: Unit::new(loaded, Timers::default(), now),
            now,
            frames: 0,
            echo: 0,
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Step> {
        self.now += Duration::from_millis(1);
        self.unit.handle(self.now, event);
        self.unit.take_steps()
    }

    fn written(&mut self, through: WriteId) -> Vec<Step> {
        let part = store();
        self.tell(Event::Written { part, through })
    }

    fn propose(&mut self, request: u64) -> Vec<Step> {
        self.tell(Event::Propose {
            part: store(),
            payload: Bytes::from_static(b"x"),
            request: RequestId(request),
        })
    }

    /// A frame of b, in a's configuration and run.
    fn frame(&mut self, body: Body) -> Vec<Step> {
        self.frames += 1;
        let frame = Frame {
            key: key(),
            from: NodeRef::new("b", 2),
            id: self.unit.config().id(),
            run: self.unit.run(),
            number: self.frames,
            echo: self.echo,
            body,
        };
        self.tell(Event::Frame(Box::new(frame)))
    }

    /// The witness and b say what there is: the start is over.
    fn hears_both(&mut self) {
        heard(self);
        let config = Box::new(self.unit.config().clone());
        self.frame(Body::ConfigNotice(config));
    }

    /// b is empty, opens the stream and has all.
    fn catch_up(&mut self) -> Vec<Step> {
        let steps = self.tell(Event::Link(Link::Up));
        let opening = steps.iter().find_map(|step| match sent(step)? {
            Body::Open { opening, .. } => Some(*opening),
            _ => None,
        });
        let stream = StreamId {
            boot: 1,
            opening: 1,
        };
        let summary = PartSummary {
            storage: Incarnation(20),
            data: DataState::Complete,
            history: History::new(Position::START),
            commit: LogIndex(0),
        };
        self.frame(Body::OpenAck {
            opening: opening.expect("an Open is sent when the link is up"),
            parts: BTreeMap::from([(store(), Opened { stream, summary })]),
        });
        self.frame(Body::Ack {
            part: store(),
            stream,
            matched: LogIndex(0),
        })
    }
}

fn sent(step: &Step) -> Option<&Body> {
    match &step.act {
        Act::Send(frame) => Some(&frame.body),
        _ => None,
    }
}

fn number_of_confirm(step: &Step) -> Option<u64> {
    match &step.act {
        Act::Send(frame) if frame.body == Body::ReadConfirm => Some(frame.number),
        _ => None,
    }
}

/// Numbers of the writes of the hard state, and what they make of it.
fn hard_writes(steps: &[Step]) -> Vec<(WriteId, HardState)> {
    let writes = steps.iter().filter_map(|step| match &step.act {
        Act::Write(write) => Some(write),
        _ => None,
    });
    let hard = writes.flat_map(|write| write.records.iter().map(|record| (write.id, record)));
    hard.filter_map(|(id, record)| match record {
        Record::Hard(hard) => Some((id, (**hard).clone())),
        _ => None,
    })
    .collect()
}

fn last_write(steps: &[Step]) -> WriteId {
    let writes = steps.iter().rev().find_map(|step| match &step.act {
        Act::Write(write) => Some(write.id),
        _ => None,
    });
    writes.expect("something is written")
}

fn answers(steps: &[Step]) -> Vec<Answer> {
    let answers = steps.iter().filter_map(|step| match &step.act {
        Act::Answer { answer, .. } => Some(answer.clone()),
        _ => None,
    });
    answers.collect()
}

/// The witness answers what the register holds, so that the start is over.
fn heard(a: &mut A) -> Vec<Step> {
    let word = WitnessWord {
        key: key(),
        witness: W,
        life: WitnessLife(1),
        answers: None,
        floors: None,
        tell: Tell::Register(Box::new(a.unit.config().clone())),
    };
    a.tell(Event::Witness(Box::new(word)))
}

/// `repl A1`, A5: a node alone serves only after its new run is durable.
#[test]
fn a_start_raises_the_run_before_anything_is_served() {
    let mut a = A::new(at_witness());
    let steps = heard(&mut a);
    let [(write, hard)] = &hard_writes(&steps)[..] else {
        panic!("{steps:?}")
    };
    assert_eq!(hard.run, 1);
    let served = steps
        .iter()
        .find(|step| matches!(step.act, Act::Serve { active: true, .. }));
    assert_eq!(served.unwrap().after, *write);
}

/// `repl L2`: one node in sync: committed when durable here, and not before.
#[test]
fn a_write_is_answered_after_its_entry_is_durable_and_applied() {
    let mut a = A::new(first(Arbiter::None(LonePolicy::Stop)));
    assert_eq!(a.unit.status().state, State::Alone);
    let steps = a.propose(7);
    assert!(answers(&steps).is_empty());
    let write = last_write(&steps);
    let steps = a.written(write);
    let kinds: Vec<_> = steps.iter().map(|step| &step.act).collect();
    assert!(
        matches!(
            &kinds[..],
            [
                Act::Apply {
                    through: LogIndex(1),
                    ..
                },
                Act::Answer {
                    answer: Answer::Committed(LogIndex(1)),
                    ..
                },
                ..
            ]
        ),
        "{kinds:?}"
    );
}

/// Proposals that come while the disk writes go out as one batch.
#[test]
fn what_comes_while_the_disk_writes_is_one_batch() {
    let mut a = A::new(first(Arbiter::None(LonePolicy::Stop)));
    let steps = a.propose(1);
    let Act::Write(one) = &steps.last().unwrap().act else {
        panic!("{steps:?}")
    };
    assert!(a.propose(2).is_empty());
    assert!(a.propose(3).is_empty());
    let steps = a.written(one.id);
    let batches: Vec<_> = steps
        .iter()
        .filter_map(|step| match &step.act {
            Act::Write(write) => Some(write.records.clone()),
            _ => None,
        })
        .collect();
    let [records] = &batches[..] else {
        panic!("{steps:?}")
    };
    assert!(matches!(&records[..], [Record::Entries(entries)] if entries.len() == 2));
}

/// Bounds are kept by refusing, with nothing tried.
#[test]
fn a_full_window_refuses_proposals() {
    let mut a = A::new(first(Arbiter::None(LonePolicy::Stop)));
    for request in 0..WINDOW_ENTRIES_MAX {
        assert!(answers(&a.propose(request)).is_empty());
    }
    assert_eq!(answers(&a.propose(9999)), [Answer::Busy]);
}

/// `repl D1`, D2: the intent is durable before the compare-and-swap leaves.
#[test]
fn an_add_is_asked_for_only_after_its_intent_is_durable() {
    let mut a = A::new(at_witness());
    heard(&mut a);
    let steps = a.catch_up();
    let [(write, hard)] = &hard_writes(&steps)[..] else {
        panic!("{steps:?}")
    };
    let pending = hard.pend_add.as_ref().unwrap();
    assert_eq!(pending.replica.node, NodeRef::new("b", 2));
    let call = steps.iter().find(
        |step| matches!(&step.act, Act::Call(call) if matches!(&call.ask, Ask::Cas(cas) if matches!(cas.form, Form::Add { .. }))),
    );
    assert_eq!(call.unwrap().after, *write);
}

/// `repl L2`, R2, D2: from then on the other node has its veto.
#[test]
fn while_an_add_is_in_doubt_commits_and_reads_need_the_other_node() {
    let mut a = A::new(at_witness());
    heard(&mut a);
    a.catch_up();
    let steps = a.propose(1);
    let write = last_write(&steps);
    let steps = a.written(write);
    assert!(answers(&steps).is_empty(), "not acknowledged there");
    let steps = a.tell(Event::Read {
        part: store(),
        request: RequestId(2),
    });
    assert!(answers(&steps).is_empty(), "not confirmed there");
    a.echo = steps.iter().find_map(number_of_confirm).unwrap();
    let stream = StreamId {
        boot: 1,
        opening: 1,
    };
    let steps = a.frame(Body::Ack {
        part: store(),
        stream,
        matched: LogIndex(1),
    });
    let index = LogIndex(1);
    assert_eq!(
        answers(&steps),
        [Answer::Committed(index), Answer::ReadAt(index)]
    );
}

/// `repl D4`: a restart with an ADD in doubt gives up by the bump, and does not serve by itself.
#[test]
fn a_restart_with_an_add_in_doubt_waits_and_asks_for_the_bump() {
    let mut a = A::new(at_witness());
    heard(&mut a);
    let steps = a.catch_up();
    let (_, hard) = hard_writes(&steps).pop().unwrap();
    let mut again = A::with_hard(hard);
    let steps = heard(&mut again);
    assert!(
        !steps
            .iter()
            .any(|step| matches!(step.act, Act::Serve { active: true, .. }))
    );
    let form = steps.iter().find_map(|step| match &step.act {
        Act::Call(call) => match &call.ask {
            Ask::Cas(cas) => Some(cas.form.clone()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(form, Some(Form::Remove));
}

/// `repl L2`: an acknowledgement for another opening of the stream counts for nothing.
#[test]
fn an_acknowledgement_of_another_opening_does_not_count() {
    let mut a = A::new(at_witness());
    heard(&mut a);
    a.catch_up();
    let steps = a.propose(1);
    let write = last_write(&steps);
    a.written(write);
    let stream = StreamId {
        boot: 1,
        opening: 77,
    };
    let steps = a.frame(Body::Ack {
        part: store(),
        stream,
        matched: LogIndex(1),
    });
    assert!(answers(&steps).is_empty());
}

/// `repl W7`: a word of the witness from before its last session opened is not heard: the witness
/// may have forgotten since what it said.
#[test]
fn a_word_of_an_earlier_life_of_the_witness_is_dropped() {
    let mut a = A::new(at_witness());
    let session = |life| Event::WitnessSession {
        witness: W,
        life: WitnessLife(life),
    };
    a.tell(session(1));
    heard(&mut a);
    let before = a.unit.config().clone();
    let form = Form::Policy(Policies {
        swap_back: !before.policies.swap_back,
        ..before.policies.clone()
    });
    let newer = form.make(&before, &NodeRef::new("a", 1), 7).unwrap();
    let word = |life| {
        Event::Witness(Box::new(WitnessWord {
            key: key(),
            witness: W,
            life: WitnessLife(life),
            answers: None,
            floors: None,
            tell: Tell::Register(Box::new(newer.clone())),
        }))
    };
    a.tell(session(2));
    a.tell(word(1));
    assert_eq!(a.unit.config(), &before);
    a.tell(word(2));
    assert_eq!(a.unit.config(), &newer);
}

/// A session that opens while the node is stopped is the one it hears after its start.
#[test]
fn a_stopped_node_follows_the_sessions_of_its_witness() {
    let mut a = A::new(at_witness());
    heard(&mut a);
    let session = |life| Event::WitnessSession {
        witness: W,
        life: WitnessLife(life),
    };
    a.tell(session(1));
    a.tell(Event::Command(Command::Stop { force: true }));
    a.tell(session(2));
    a.tell(Event::Command(Command::Start));
    let taken = Config {
        epoch: a.unit.config().epoch.next(),
        ..a.unit.config().clone()
    };
    a.tell(Event::Witness(Box::new(WitnessWord {
        key: key(),
        witness: W,
        life: WitnessLife(2),
        answers: None,
        floors: None,
        tell: Tell::Register(Box::new(taken.clone())),
    })));
    assert_eq!(*a.unit.config(), taken);
}

/// `repl C4`: with its lead's disk failed a primary without a witness makes no configuration; it
/// would make another one of the same epoch after a restart.
#[test]
fn a_primary_with_a_failed_disk_makes_no_configuration_by_itself() {
    let mut a = A::new(first(Arbiter::None(LonePolicy::PreferPrimary)));
    a.tell(Event::Tick);
    a.catch_up();
    let added = a.unit.config().clone();
    assert_eq!(added.in_sync[&store()].len(), 2, "{added:?}");
    a.tell(Event::DiskFailed { part: store() });
    for _ in 0..100 {
        a.tell(Event::Tick);
        a.frame(Body::Heartbeat(Heartbeat {
            active: false,
            commits: BTreeMap::new(),
        }));
    }
    assert_eq!(*a.unit.config(), added);
}

/// A new witness that refuses the record of a change is asked again with another one, after a
/// pause: late answers to what was asked before say nothing about it.
#[test]
fn a_refused_change_of_the_arbiter_is_tried_again_after_a_pause() {
    const NEW: WitnessId = WitnessId(10);
    let mut a = A::new(at_witness());
    heard(&mut a);
    let inits = |steps: &[Step]| {
        let calls = steps.iter().filter_map(|step| match &step.act {
            Act::Call(call) if matches!(call.ask, Ask::Init(_)) => Some(call.number),
            _ => None,
        });
        calls.collect::<Vec<u64>>()
    };
    let arbiter = Arbiter::Witness {
        id: NEW,
        address: "w:2".into(),
    };
    let old_lost = false;
    let steps = a.tell(Event::Command(Command::ChangeArbiter { arbiter, old_lost }));
    let mut asked = inits(&steps);
    assert_eq!(asked.len(), 1);
    // It says so twice at once, as calls are repeated on their way.
    let pause = Timers::default().cas_timeout;
    let end = a.now + 3 * pause;
    while a.now < end {
        let refused = WitnessWord {
            key: key(),
            witness: NEW,
            life: WitnessLife(1),
            answers: asked.last().copied(),
            floors: None,
            tell: Tell::Refused(Refusal::Generation),
        };
        let steps = a.tell(Event::Witness(Box::new(refused)));
        asked.extend(inits(&steps));
    }
    assert!(
        (3..=4).contains(&asked.len()),
        "{} attempts in three pauses",
        asked.len()
    );
}

/// What is committed is told to the peer a moment later: a node that was stopped meanwhile does
/// not wake up for it.
#[test]
fn a_stopped_node_has_nothing_to_wake_up_for() {
    let mut a = A::new(at_witness());
    heard(&mut a);
    a.catch_up();
    let steps = a.propose(1);
    a.written(last_write(&steps));
    let stream = StreamId {
        boot: 1,
        opening: 1,
    };
    a.frame(Body::Ack {
        part: store(),
        stream,
        matched: LogIndex(1),
    });
    let told_at = a.unit.deadline();
    assert!(
        told_at < a.now + Duration::from_millis(5),
        "it is to be told soon"
    );
    a.tell(Event::Command(Command::Stop { force: true }));
    assert_eq!(a.unit.status().state, State::Stop);
    a.now = told_at + Duration::from_millis(1);
    a.tell(Event::Tick);
    assert!(a.unit.deadline() > a.now, "it turns in circles");
}

/// a is the primary, b in sync with it.
fn mirrored() -> Config {
    let mut config = at_witness();
    let b = NodeRef::new("b", 2);
    config.members.insert(b.clone());
    let storage = Incarnation(20);
    let replica = Replica { node: b, storage };
    config.in_sync.get_mut(&store()).unwrap().insert(replica);
    config
}

fn forms_asked_for(steps: &[Step]) -> Vec<Form> {
    let forms = steps.iter().filter_map(|step| match &step.act {
        Act::Call(call) => match &call.ask {
            Ask::Cas(cas) => Some(cas.form.clone()),
            _ => None,
        },
        _ => None,
    });
    forms.collect()
}

fn number_of_hello(steps: &[Step]) -> Option<u64> {
    steps.iter().find_map(|step| match &step.act {
        Act::Send(frame) if matches!(frame.body, Body::Hello(_)) => Some(frame.number),
        _ => None,
    })
}

/// `repl I4`: a primary whose disk went back further than the other node's log reaches serves
/// nothing and gives up nothing: it hands over.
#[test]
fn a_primary_that_lacks_what_is_final_at_the_other_node_hands_over() {
    let mut a = A::new(mirrored());
    a.hears_both();
    let steps = a.tell(Event::Link(Link::Up));
    a.echo = number_of_hello(&steps).expect("it says Hello");
    let base = Position {
        index: LogIndex(40),
        ..Position::START
    };
    let summary = PartSummary {
        storage: Incarnation(20),
        data: DataState::Complete,
        history: History::new(base),
        commit: LogIndex(40),
    };
    let summaries = BTreeMap::from([(store(), summary)]);
    let mut steps = a.frame(Body::HelloAck(summaries));
    for _ in 0..100 {
        steps.extend(a.tell(Event::Tick));
    }
    assert!(!a.unit.is_active(&store()));
    assert_eq!(forms_asked_for(&steps), [Form::Abdicate]);
}

/// `repl I4`, A5: a primary whose disk went back does not use a run again that the other node
/// knows of, and goes on by a higher one.
#[test]
fn a_primary_that_forgot_its_run_takes_a_higher_one() {
    let mut a = A::new(mirrored());
    a.hears_both();
    a.tell(Event::Link(Link::Up));
    assert_eq!(a.unit.run(), 1);
    a.frames += 1;
    let config = a.unit.config().clone();
    let steps = a.tell(Event::Frame(Box::new(Frame {
        key: key(),
        from: NodeRef::new("b", 2),
        id: config.id(),
        run: 3,
        number: a.frames,
        echo: 0,
        body: Body::ConfigNotice(Box::new(config)),
    })));
    assert_eq!(a.unit.run(), 4);
    let [(write, hard)] = &hard_writes(&steps)[..] else {
        panic!("{steps:?}")
    };
    assert_eq!(hard.run, 4);
    let hello = steps
        .iter()
        .find(|step| matches!(sent(step), Some(Body::Hello(_))));
    assert_eq!(hello.expect("it says Hello in it").after, *write);
}

/// `repl I1`: a failed disk is handed over only to a peer that answered lately. After a standstill
/// of its own the node trusts it anew, and knows nothing of it.
#[test]
fn a_failed_disk_is_not_handed_over_to_who_has_not_answered_since_a_standstill() {
    for stood_still in [false, true] {
        let mut a = A::new(mirrored());
        a.hears_both();
        let steps = a.tell(Event::Link(Link::Up));
        a.echo = number_of_hello(&steps).expect("it says Hello");
        let summary = PartSummary {
            storage: Incarnation(20),
            data: DataState::Complete,
            history: History::new(Position::START),
            commit: LogIndex(0),
        };
        a.frame(Body::HelloAck(BTreeMap::from([(store(), summary)])));
        assert!(a.unit.is_active(&store()));
        if stood_still {
            a.now += Duration::from_secs(3);
        }
        let steps = a.tell(Event::DiskFailed { part: store() });
        let expected: &[Form] = if stood_still { &[] } else { &[Form::Abdicate] };
        assert_eq!(forms_asked_for(&steps), expected);
    }
}

/// `repl section 8`: a primary that only confirms reads, many in each moment, says all the same that
/// it is active. It was silent about that, and was replaced.
#[test]
fn heartbeats_keep_their_pace_under_reads() {
    let mut a = A::new(mirrored());
    a.hears_both();
    let steps = a.tell(Event::Link(Link::Up));
    a.echo = number_of_hello(&steps).expect("it says Hello");
    let summary = PartSummary {
        storage: Incarnation(20),
        data: DataState::Complete,
        history: History::new(Position::START),
        commit: LogIndex(0),
    };
    a.frame(Body::HelloAck(BTreeMap::from([(store(), summary)])));
    let mut beats = 0;
    let until = a.now + Duration::from_secs(1);
    while a.now < until {
        let request = RequestId(a.frames);
        let part = store();
        let mut steps = a.tell(Event::Read { part, request });
        a.echo = steps
            .iter()
            .find_map(number_of_confirm)
            .expect("the read is confirmed");
        steps.extend(a.frame(Body::ReadConfirmAck));
        let active =
            |step: &&Step| matches!(sent(step), Some(Body::Heartbeat(beat)) if beat.active);
        beats += steps.iter().filter(active).count();
    }
    assert!((9..=11).contains(&beats), "{beats} heartbeats in a second");
}

/// Node a in sync with its primary b, heard by the witness; `serves` if b says that it does.
fn follower(serves: bool) -> A {
    let mut config = mirrored();
    config.primary = NodeRef::new("b", 2);
    let mut a = A::new(config);
    a.hears_both();
    a.tell(Event::Link(Link::Up));
    let active = serves;
    let commits = BTreeMap::new();
    a.frame(Body::Heartbeat(Heartbeat { active, commits }));
    a
}

/// `repl section 8`: just after its start a node gives its primary more time, but not one that it has
/// heard to serve: that one is not starting.
#[test]
fn a_primary_that_was_heard_to_serve_gets_no_grace_after_the_start() {
    for (serves, within) in [(true, 800), (false, 3_100)] {
        let mut a = follower(serves);
        let heard_at = a.now;
        let mut asked_after = None;
        while asked_after.is_none() && a.now < heard_at + Duration::from_secs(5) {
            let steps = a.tell(Event::Tick);
            if forms_asked_for(&steps).contains(&Form::Takeover) {
                asked_after = Some(a.now - heard_at);
            }
        }
        let after = asked_after.expect("it takes over in the end");
        let earliest = Duration::from_millis(if serves { 700 } else { 2_500 });
        assert!(after >= earliest, "{after:?}");
        assert!(after <= Duration::from_millis(within), "{after:?}");
    }
}
