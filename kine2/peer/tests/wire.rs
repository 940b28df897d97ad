//! Every message comes back from the wire as it was.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use kine2_mvcc::{
    Alarm, AlarmKind, Answer, Applied, Command, DeleteAnswer, LeaseGrant, OpAnswer, PutAnswer,
    RangeAnswer, Record, Refusal as StoreRefusal, Revision, TxnAnswer,
};
use kine2_peer::wire::{
    ForwardedAnswer, ForwardedRequest, Lease, answer_from_wire, answer_to_wire, call_from_wire,
    call_to_wire, frame_from_wire, frame_to_wire, request_from_wire, request_to_wire,
    word_from_wire, word_to_wire,
};
use kine2_proto::kine2 as proto;
use kine2_replication::{
    Arbiter, Ask, Body, Cas, ClusterId, Config, DataState, Entry, Epoch, Form, Frame, Heartbeat,
    History, Incarnation, LogIndex, LonePolicy, NodeRef, Opened, PartName, PartSummary, Policies,
    Position, ReadId, Refusal, RegisterKey, Replica, Report, StreamId, Tell, Term, WitnessCall,
    WitnessId, WitnessLife, WitnessWord,
};
use prost::Message;

fn node(name: &str) -> NodeRef {
    NodeRef::new(name, u128::from(name.as_bytes()[0]) << 100 | 7)
}

fn key() -> RegisterKey {
    RegisterKey {
        cluster: ClusterId(1 << 127 | 5),
        unit: "main".into(),
    }
}

fn config() -> Config {
    let replica = |name| Replica {
        node: node(name),
        storage: Incarnation(3),
    };
    Config {
        cluster: key().cluster,
        unit: key().unit,
        epoch: Epoch::new(2, 9),
        uid: u64::MAX,
        primary: node("a"),
        in_sync: BTreeMap::from([("store".into(), BTreeSet::from([replica("a"), replica("b")]))]),
        members: BTreeSet::from([node("a"), node("b")]),
        ..Config::first(
            key(),
            1,
            node("a"),
            "store".into(),
            [("store".into(), Incarnation(3))],
            Arbiter::Witness {
                id: WitnessId(9),
                address: "192.0.2.1:2390".into(),
            },
            Policies::default(),
        )
        .unwrap()
    }
}

fn entries() -> Vec<Entry> {
    let mut last = Position::START;
    let mut entries = Vec::new();
    for (epoch, run, payload) in [(1, 1, "one"), (1, 2, ""), (3, 1, "three")] {
        last = last.extend(
            Term {
                origin: kine2_replication::Origin(run),
                ..Term::new(epoch, run)
            },
            payload.as_bytes(),
        );
        let payload = Bytes::from_static(payload.as_bytes());
        entries.push(Entry {
            position: last,
            payload,
        });
    }
    entries
}

fn summary() -> PartSummary {
    let ends = entries().into_iter().map(|entry| entry.position);
    PartSummary {
        storage: Incarnation(77),
        data: DataState::Inconsistent,
        history: History::from_ends(Position::START, ends).unwrap(),
        commit: LogIndex(2),
    }
}

fn bodies() -> Vec<Body> {
    let part: PartName = "store".into();
    let stream = StreamId {
        boot: 3,
        opening: 4,
    };
    let read = ReadId { boot: 5, number: 6 };
    let prev = Position::START;
    let position = entries()[1].position;
    let config = || Box::new(config());
    vec![
        Body::Hello(config()),
        Body::HelloAck(BTreeMap::from([(part.clone(), summary())])),
        Body::FetchTail {
            part: part.clone(),
            after: position,
        },
        Body::Tail {
            part: part.clone(),
            prev,
            entries: entries(),
        },
        Body::Open {
            config: config(),
            opening: 8,
            parts: BTreeMap::from([(part.clone(), summary()), ("till".into(), summary())]),
        },
        Body::OpenAck {
            opening: 8,
            parts: BTreeMap::from([(
                part.clone(),
                Opened {
                    stream,
                    summary: summary(),
                },
            )]),
        },
        Body::Append {
            part: part.clone(),
            stream,
            prev,
            entries: entries(),
            commit: LogIndex(1),
        },
        Body::Append {
            part: part.clone(),
            stream,
            prev: position,
            entries: Vec::new(),
            commit: LogIndex(0),
        },
        Body::Ack {
            part: part.clone(),
            stream,
            matched: LogIndex(4),
        },
        Body::Nack {
            part: part.clone(),
            stream,
        },
        Body::Diverges {
            part: part.clone(),
            stream,
        },
        Body::ReadConfirm,
        Body::ReadConfirmAck,
        Body::Heartbeat(Heartbeat {
            active: true,
            commits: BTreeMap::from([(part.clone(), LogIndex(9))]),
        }),
        Body::ConfigNotice(config()),
        Body::ReadIndex {
            part: part.clone(),
            read,
        },
        Body::ReadIndexAck { read, index: None },
        Body::ReadIndexAck {
            read,
            index: Some(LogIndex(0)),
        },
        Body::SnapshotOffer {
            part: part.clone(),
            stream,
            position,
        },
        Body::SnapshotAccept {
            part: part.clone(),
            position,
            take: 3,
        },
        Body::SnapshotDone {
            part: part.clone(),
            position,
        },
        Body::Propose {
            config: config(),
            to: NodeRef::new("b", 2),
        },
        Body::Leave,
        Body::PartFailed(part),
    ]
}

fn frame(body: Body) -> Frame {
    Frame {
        key: key(),
        from: node("a"),
        id: config().id(),
        run: 4,
        number: 5,
        echo: 6,
        body,
    }
}

#[test]
fn frames_come_back_as_they_were() {
    for body in bodies() {
        let frame = frame(body);
        let bytes = frame_to_wire(&frame).encode_to_vec();
        let wire = proto::Frame::decode(&bytes[..]).unwrap();
        assert_eq!(frame_from_wire(wire).unwrap(), frame);
    }
}

fn forms() -> Vec<Form> {
    let part: PartName = "till".into();
    let storage = Incarnation(1);
    let arbiters = [
        config().arbiter,
        Arbiter::None(LonePolicy::Stop),
        Arbiter::None(LonePolicy::PreferPrimary),
        Arbiter::None(LonePolicy::Ping(vec![
            [192, 0, 2, 1].into(),
            [0xfe80, 0, 0, 0, 0, 0, 0, 1].into(),
        ])),
    ];
    let moves = arbiters.map(|arbiter| Form::Move {
        arbiter,
        generation: 4,
    });
    let replica = Replica {
        node: node("b"),
        storage,
    };
    let policies = |preferred: Option<&str>| Policies {
        swap_back: false,
        boot_alone: true,
        preferred: preferred.map(Into::into),
        ping_auto_discard: preferred.is_none(),
    };
    [
        Form::Remove,
        Form::Drop(part.clone()),
        Form::Takeover,
        Form::Add {
            part: part.clone(),
            replica,
        },
        Form::Swap,
        Form::Abdicate,
        Form::NewPart {
            part: part.clone(),
            storage,
        },
        Form::DeletePart(part),
        Form::Policy(policies(None)),
        Form::Policy(policies(Some("b"))),
    ]
    .into_iter()
    .chain(moves)
    .collect()
}

#[test]
fn calls_of_the_witness_come_back_as_they_were() {
    let cas = forms().into_iter().map(|form| {
        Ask::Cas(Box::new(Cas {
            form,
            expected: config().id(),
            new: config(),
            held: None,
        }))
    });
    let report = Report {
        epoch: Epoch(4),
        healthy: true,
        held: None,
    };
    let asks = [
        Ask::Get,
        Ask::Init(Box::new(config())),
        Ask::Force(Box::new(kine2_replication::Force {
            part: None,
            config: config(),
        })),
        Ask::Report(report),
        Ask::Suspect(Epoch(0)),
        Ask::ProbeAck {
            nonce: 1,
            healthy: false,
        },
    ];
    for ask in asks.into_iter().chain(cas) {
        let call = WitnessCall {
            key: key(),
            witness: WitnessId(5),
            caller: node("b"),
            number: 7,
            ask,
        };
        let bytes = call_to_wire(&call).encode_to_vec();
        let wire = proto::WitnessCall::decode(&bytes[..]).unwrap();
        assert_eq!(call_from_wire(wire).unwrap(), call);
    }
}

#[test]
fn words_of_the_witness_come_back_as_they_were() {
    let refusals = [
        Refusal::UnknownRegister,
        Refusal::OtherWitness,
        Refusal::NotTheForm,
        Refusal::Record("why".into()),
        Refusal::PrimaryAlive,
        Refusal::Probation,
        Refusal::Regressed,
        Refusal::Generation,
        Refusal::RegistersMax,
    ];
    let tells = [
        Tell::Register(Box::new(config())),
        Tell::Moved(Box::new(config())),
        Tell::Probe { nonce: 0 },
        Tell::Peer { connected: false },
        Tell::Peer { connected: true },
    ];
    for tell in tells
        .into_iter()
        .chain(refusals.into_iter().map(Tell::Refused))
    {
        for answers in [None, Some(0), Some(3)] {
            let word = WitnessWord {
                key: key(),
                witness: WitnessId(5),
                life: WitnessLife(6),
                answers,
                floors: None,
                tell: tell.clone(),
            };
            let bytes = word_to_wire(&word).encode_to_vec();
            let wire = proto::WitnessWord::decode(&bytes[..]).unwrap();
            assert_eq!(word_from_wire(wire).unwrap(), word);
        }
    }
}

fn record(key: &[u8]) -> Record {
    Record::tombstone(key, 4)
}

fn answers() -> Vec<Answer> {
    let put = PutAnswer {
        prev: Some(record(b"k")),
    };
    let delete = DeleteAnswer {
        deleted: 2,
        prevs: vec![record(b"a"), record(b"b")],
    };
    let range = RangeAnswer {
        records: vec![record(b"r")],
        more: true,
        count: 9,
    };
    let inner = TxnAnswer {
        succeeded: false,
        ops: vec![OpAnswer::Put(Revision(3), PutAnswer::default())],
    };
    vec![
        Answer::Nothing,
        Answer::Put(PutAnswer::default()),
        Answer::Put(put.clone()),
        Answer::Delete(delete.clone()),
        Answer::Txn(TxnAnswer {
            succeeded: true,
            ops: vec![
                OpAnswer::Range(Revision(1), range),
                OpAnswer::Put(Revision(2), put),
                OpAnswer::Delete(Revision(3), delete),
                OpAnswer::Txn(inner),
            ],
        }),
        Answer::Compacted,
        Answer::LeaseGranted(LeaseGrant {
            id: -3,
            ttl_seconds: 4,
        }),
        Answer::LeaseRevoked,
        Answer::Alarms(vec![Alarm {
            member_id: 4,
            kind: AlarmKind::Corrupt,
        }]),
    ]
}

#[test]
fn what_is_passed_on_comes_back_as_it_was() {
    for request in [
        ForwardedRequest::Command(Command::LeaseRevoke { id: 4 }),
        ForwardedRequest::KeepAlive(-1),
        ForwardedRequest::TimeToLive {
            lease: 3,
            keys: true,
        },
    ] {
        let bytes = request_to_wire(8, &request).encode_to_vec();
        let wire = proto::ForwardRequest::decode(&bytes[..]).unwrap();
        assert_eq!(request_from_wire(wire).unwrap(), (8, request));
    }
    let applied = answers()
        .into_iter()
        .map(|answer| ForwardedAnswer::Applied {
            applied: Applied {
                revision: Revision(5),
                answer,
            },
            index: 6,
        });
    let lease = Lease {
        revision: Revision(4),
        remaining_seconds: 3,
        granted_seconds: 10,
        keys: vec![Bytes::from_static(b"k")],
    };
    let refusals = [
        StoreRefusal::TooLarge,
        StoreRefusal::Compacted,
        StoreRefusal::FutureRevision,
        StoreRefusal::KeyNotFound,
        StoreRefusal::LeaseNotFound,
        StoreRefusal::LeaseExists,
        StoreRefusal::NoSpace,
        StoreRefusal::Corrupt,
    ];
    let others = [
        ForwardedAnswer::KeptAlive {
            revision: Revision(3),
            ttl_seconds: 0,
        },
        ForwardedAnswer::Lease(None),
        ForwardedAnswer::Lease(Some(lease)),
        ForwardedAnswer::NotPrimary,
        ForwardedAnswer::Unavailable,
        ForwardedAnswer::Busy,
        ForwardedAnswer::Unknown,
    ];
    let all = applied
        .chain(refusals.map(ForwardedAnswer::Refused))
        .chain(others);
    for answer in all {
        let bytes = answer_to_wire(8, &answer).encode_to_vec();
        let wire = proto::ForwardAnswer::decode(&bytes[..]).unwrap();
        assert_eq!(answer_from_wire(wire).unwrap(), (8, answer));
    }
}

#[test]
fn what_is_malformed_is_refused() {
    let good = frame_to_wire(&frame(Body::ReadConfirm));
    let frames = [
        proto::Frame::default(),
        proto::Frame {
            body: None,
            ..good.clone()
        },
        proto::Frame {
            cluster: Bytes::from_static(b"short"),
            ..good.clone()
        },
        proto::Frame {
            unit: "u".repeat(256),
            ..good.clone()
        },
        proto::Frame {
            body: Some(proto::frame::Body::Hello(Bytes::from_static(b"\x02x"))),
            ..good.clone()
        },
    ];
    for wire in frames {
        let text = format!("{wire:?}");
        assert!(frame_from_wire(wire).is_err(), "{text}");
    }
    // Entries with a gap, and terms that fall.
    let append = |change: fn(&mut proto::Append)| {
        let mut wire = frame_to_wire(&frame(bodies()[6].clone()));
        let Some(proto::frame::Body::Append(append)) = &mut wire.body else {
            panic!("the seventh is one");
        };
        change(append);
        frame_from_wire(wire)
    };
    assert!(append(|_| ()).is_ok());
    assert!(append(|append| drop(append.entries.remove(1))).is_err());
    let lower = |append: &mut proto::Append| {
        append.entries[2].position.as_mut().unwrap().epoch = 0;
    };
    assert!(append(lower).is_err());
}

#[test]
fn any_bytes_are_read_or_refused() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let frames: Vec<Vec<u8>> = bodies()
        .into_iter()
        .map(|body| frame_to_wire(&frame(body)).encode_to_vec())
        .collect();
    for round in 0..20_000 {
        let good = &frames[round % frames.len()];
        let mut bytes = BytesMut::from(&good[..]);
        for _ in 0..=random() % 3 {
            let at = usize::try_from(random() % bytes.len() as u64).unwrap();
            bytes[at] = random().to_le_bytes()[0];
        }
        if let Ok(wire) = proto::Frame::decode(bytes.freeze()) {
            // What is understood is understood again.
            if let Ok(frame) = frame_from_wire(wire) {
                assert_eq!(frame_from_wire(frame_to_wire(&frame)).unwrap(), frame);
            }
        }
    }
}
