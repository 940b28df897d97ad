use std::collections::{BTreeMap, BTreeSet};

use kine2_replication::{
    Arbiter, Force, ForcedPart, Incarnation, LogIndex, LonePolicy, Mark, PartHoldings, PartName,
    Policies, Replica, Term, force_part,
};
use proptest::prelude::*;

use super::*;

const W: WitnessId = WitnessId(9);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn node(name: &str) -> NodeRef {
    NodeRef::new(name, 1)
}

fn key() -> RegisterKey {
    RegisterKey {
        cluster: ClusterId(1),
        unit: "main".into(),
    }
}

fn replica(name: &str) -> Replica {
    Replica {
        node: node(name),
        storage: Incarnation(5),
    }
}

/// Primary a, both nodes in sync for the store.
fn mirror() -> Config {
    let store = PartName::from("store");
    let arbiter = Arbiter::Witness {
        id: W,
        address: "w:1".into(),
    };
    let first = Config::first(
        key(),
        1,
        node("a"),
        store.clone(),
        [(store.clone(), Incarnation(5))],
        arbiter,
        Policies::default(),
    )
    .unwrap();
    let add = Form::Add {
        part: store,
        replica: replica("b"),
    };
    add.make(&first, &node("a"), 2).unwrap()
}

/// A witness and what it sent.
struct Harness {
    witness: Witness,
    number: u64,
}

impl Harness {
    /// A witness out of probation that holds [`mirror`].
    fn new() -> Self {
        let register = Register::new(mirror(), W).unwrap();
        Self {
            witness: Witness::new(
                W,
                WitnessLife(1),
                [register],
                Options::default(),
                Duration::ZERO,
            ),
            number: 0,
        }
    }

    fn at(&mut self, at: u64, event: Event) -> Vec<(String, Tell)> {
        self.witness.handle(ms(10_000 + at), event);
        self.witness
            .take_steps()
            .into_iter()
            .filter_map(|step| match step.act {
                Act::Send { to, word } => Some((to.to_string(), word.tell)),
                Act::Store { .. } => None,
            })
            .collect()
    }

    fn call(&mut self, at: u64, caller: &str, ask: Ask) -> Vec<(String, Tell)> {
        self.number += 1;
        let call = WitnessCall {
            key: key(),
            witness: W,
            caller: node(caller),
            number: self.number,
            ask,
        };
        self.at(at, Event::Call(call))
    }

    fn cas(&mut self, at: u64, caller: &str, form: Form) -> Vec<(String, Tell)> {
        let stored = self.stored();
        let new = form.make(&stored, &node(caller), stored.uid + 1).unwrap();
        let cas = Cas {
            form,
            expected: stored.id(),
            new,
            held: None,
        };
        self.call(at, caller, Ask::Cas(Box::new(cas)))
    }

    fn open(&mut self, at: u64, name: &str) -> Vec<(String, Tell)> {
        let (cluster, node) = (ClusterId(1), node(name));
        self.at(at, Event::Opened { cluster, node })
    }

    fn close(&mut self, at: u64, name: &str) -> Vec<(String, Tell)> {
        let (cluster, node) = (ClusterId(1), node(name));
        self.at(at, Event::Closed { cluster, node })
    }

    fn stored(&self) -> Config {
        self.witness.register(&key()).unwrap().newest().clone()
    }
}

#[test]
fn a_takeover_from_a_primary_without_a_session_wins_at_once() {
    let mut w = Harness::new();
    w.open(0, "b");
    let told = w.cas(0, "b", Form::Takeover);
    assert_eq!(w.stored().primary, node("b"));
    assert_eq!(told, [("b".into(), Tell::Register(Box::new(w.stored())))]);
}

#[test]
fn the_answer_waits_for_the_write() {
    let mut w = Harness::new();
    let stored = w.stored();
    let cas = Cas {
        expected: stored.id(),
        new: Form::Remove.make(&stored, &node("a"), 7).unwrap(),
        form: Form::Remove,
        held: None,
    };
    let call = WitnessCall {
        key: key(),
        witness: W,
        caller: node("a"),
        number: 1,
        ask: Ask::Cas(Box::new(cas)),
    };
    w.witness.handle(ms(10_000), Event::Call(call));
    let steps = w.witness.take_steps();
    assert!(matches!(steps[0].act, Act::Store { write: 1, .. }));
    assert!(matches!(
        &steps[1],
        Step {
            after: 1,
            act: Act::Send { .. }
        }
    ));
}

#[test]
fn a_takeover_is_held_until_the_probe_is_answered() {
    let mut w = Harness::new();
    w.open(0, "a");
    w.open(0, "b");
    let told = w.cas(0, "b", Form::Takeover);
    let [(to, Tell::Probe { nonce })] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(to, "a");
    let ack = Ask::ProbeAck {
        nonce: *nonce,
        healthy: true,
    };
    let told = w.call(50, "a", ack);
    assert_eq!(told, [("b".into(), Tell::Refused(Refusal::PrimaryAlive))]);
    assert_eq!(w.stored(), mirror());
}

#[test]
fn silence_an_unwell_primary_and_its_fin_let_a_held_takeover_go_on() {
    let mut silent = Harness::new();
    silent.open(0, "a");
    silent.cas(0, "b", Form::Takeover);
    assert_eq!(silent.witness.deadline(), Some(ms(10_300)));
    silent.at(300, Event::Tick);
    assert_eq!(silent.stored().primary, node("b"));

    let mut unwell = Harness::new();
    unwell.open(0, "a");
    unwell.cas(0, "b", Form::Takeover);
    let (nonce, healthy) = (1, false);
    unwell.call(10, "a", Ask::ProbeAck { nonce, healthy });
    assert_eq!(unwell.stored().primary, node("b"));

    let mut fin = Harness::new();
    fin.open(0, "a");
    fin.cas(0, "b", Form::Takeover);
    fin.close(10, "a");
    assert_eq!(fin.stored().primary, node("b"));
}

#[test]
fn a_remove_meanwhile_wins_over_a_held_takeover() {
    let mut w = Harness::new();
    w.open(0, "a");
    w.cas(0, "b", Form::Takeover);
    let told = w.cas(10, "a", Form::Remove);
    assert_eq!(w.stored().primary, node("a"));
    let content = Tell::Register(Box::new(w.stored()));
    assert_eq!(told, [("a".into(), content.clone()), ("b".into(), content)]);
    w.at(300, Event::Tick);
    assert_eq!(w.stored().primary, node("a"));
}

#[test]
fn a_primary_that_is_alive_but_does_nothing_holds_a_takeover_off_for_the_grace_only() {
    let mut w = Harness::new();
    w.open(0, "a");
    w.cas(0, "b", Form::Takeover);
    let healthy = true;
    w.call(10, "a", Ask::ProbeAck { nonce: 1, healthy });
    let told = w.cas(400, "b", Form::Takeover);
    assert_eq!(told, [("b".into(), Tell::Refused(Refusal::PrimaryAlive))]);
    w.cas(1001, "b", Form::Takeover);
    assert_eq!(w.stored().primary, node("b"));
}

#[test]
fn a_suspicion_prepares_the_verdict() {
    let mut w = Harness::new();
    w.open(0, "a");
    let epoch = w.stored().epoch;
    let told = w.call(0, "b", Ask::Suspect(epoch));
    assert_eq!(told, [("a".into(), Tell::Probe { nonce: 1 })]);
    assert!(w.call(10, "b", Ask::Suspect(epoch)).is_empty());
    w.at(300, Event::Tick);
    w.cas(400, "b", Form::Takeover);
    assert_eq!(w.stored().primary, node("b"));
}

/// A witness that started just now.
fn in_probation() -> Harness {
    let register = Register::new(mirror(), W).unwrap();
    Harness {
        witness: Witness::new(
            W,
            WitnessLife(1),
            [register],
            Options::default(),
            ms(10_000),
        ),
        number: 0,
    }
}

#[test]
fn in_probation_every_form_needs_both_sessions() {
    let forms = [
        ("b", Form::Takeover),
        ("a", Form::Remove),
        ("a", Form::Swap),
        ("a", Form::Abdicate),
        ("a", Form::Policy(Policies::default())),
    ];
    for (caller, form) in forms {
        let mut w = in_probation();
        w.open(0, caller);
        let told = w.cas(100, caller, form.clone());
        let refused = Tell::Refused(Refusal::Probation);
        assert_eq!(told, [(caller.into(), refused)], "{form:?}");
        w.cas(5000, caller, form);
        assert_ne!(w.stored(), mirror());
    }
}

#[test]
fn probation_ends_early_once_both_nodes_reported() {
    let mut w = in_probation();
    let epoch = w.stored().epoch;
    for name in ["a", "b"] {
        w.open(0, name);
        w.cas(5, "a", Form::Remove);
        assert_eq!(w.stored(), mirror(), "{name} has not reported");
        let healthy = true;
        w.call(
            10,
            name,
            Ask::Report(Report {
                epoch,
                healthy,
                held: None,
            }),
        );
    }
    w.cas(20, "a", Form::Remove);
    assert_ne!(w.stored(), mirror());
}

#[test]
fn a_register_older_than_what_a_node_knows_refuses_changes() {
    let mut w = Harness::new();
    w.open(0, "a");
    let report = Report {
        epoch: w.stored().epoch.next(),
        healthy: true,
        held: None,
    };
    w.call(0, "a", Ask::Report(report));
    assert!(w.witness.is_regressed(&key()));
    let told = w.cas(10, "b", Form::Takeover);
    assert_eq!(told, [("b".into(), Tell::Refused(Refusal::Regressed))]);
}

#[test]
fn a_register_that_went_backwards_stays_so_over_a_restart() {
    let mut w = Harness::new();
    w.open(0, "a");
    let report = Ask::Report(Report {
        epoch: w.stored().epoch.next(),
        healthy: true,
        held: None,
    });
    let call = WitnessCall {
        key: key(),
        witness: W,
        caller: node("a"),
        number: 1,
        ask: report,
    };
    w.witness.handle(ms(10_000), Event::Call(call.clone()));
    let steps = w.witness.take_steps();
    let stored = steps.iter().find_map(|step| match &step.act {
        Act::Store { register, .. } => Some((**register).clone()),
        Act::Send { .. } => None,
    });
    w.witness.handle(ms(10_001), Event::Call(call));
    let again = w.witness.take_steps();
    assert!(again.is_empty(), "written once: {again:?}");

    let registers = [stored.unwrap()];
    w.witness = Witness::new(
        W,
        WitnessLife(2),
        registers,
        Options::default(),
        Duration::ZERO,
    );
    let told = w.cas(10, "a", Form::Remove);
    assert_eq!(told, [("a".into(), Tell::Refused(Refusal::Regressed))]);

    let mut new = mirror();
    new.epoch = Epoch::new(1, 9);
    w.call(20, "a", force(new, None));
    assert!(!w.witness.is_regressed(&key()), "a new generation ends it");
}

/// By the promoted node's own stale record it holds a part that the register says is only at the
/// other node.
#[test]
fn a_forced_promotion_takes_its_sets_from_the_register() {
    let mut w = Harness::new();
    let files = PartName::from("files");
    let storage = Incarnation(5);
    w.cas(
        0,
        "a",
        Form::NewPart {
            part: files.clone(),
            storage,
        },
    );
    let mut stale = w.stored();
    stale.in_sync.insert(files.clone(), [replica("b")].into());
    let arbiter = stale.arbiter.clone();
    let asked = kine2_replication::force(&stale, &node("b"), storage, 1, arbiter, 7);
    assert!(asked.has(&files, &node("b")));
    for _ in 0..2 {
        let told = w.call(10, "b", force(asked.clone(), None));
        let content = Tell::Register(Box::new(w.stored()));
        assert!(told.contains(&("b".into(), content)), "{told:?}");
        let stored = w.stored();
        assert_eq!(
            (stored.epoch.generation(), stored.primary.clone()),
            (1, node("b"))
        );
        assert!(stored.has(&files, &node("a")) && !stored.has(&files, &node("b")));
        assert!(!stored.has(&stored.lead, &node("a")));
    }
}

fn force(config: Config, part: Option<ForcedPart>) -> Ask {
    Ask::Force(Box::new(Force { config, part }))
}

/// The other node may have become the primary since the operator looked, or the part may be in sync.
#[test]
fn a_part_is_forced_only_in_the_configuration_that_was_seen() {
    let mut w = Harness::new();
    let files = PartName::from("files");
    let storage = Incarnation(5);
    let part = files.clone();
    w.cas(0, "a", Form::NewPart { part, storage });
    w.cas(10, "b", Form::Takeover);
    let seen = w.stored();
    let expected = seen.id();
    let generation = seen.epoch.generation() + 1;
    let made = force_part(&seen, &files, storage, generation, seen.arbiter.clone(), 9).unwrap();
    let part = Some(ForcedPart {
        part: files.clone(),
        expected,
    });
    w.cas(20, "b", Form::Policy(Policies::default()));
    let told = w.call(30, "b", force(made.clone(), part.clone()));
    assert!(
        matches!(&told[..], [(_, Tell::Refused(Refusal::Record(_)))]),
        "{told:?}"
    );
    let expected = w.stored().id();
    let part = part.map(|part| ForcedPart { expected, ..part });
    for _ in 0..2 {
        w.call(40, "b", force(made.clone(), part.clone()));
        let stored = w.stored();
        assert!(stored.has(&files, &node("b")) && !stored.has(&files, &node("a")));
        assert_eq!(stored.uid, made.uid);
    }
}

#[test]
fn another_witness_is_not_meant() {
    let mut w = Harness::new();
    let call = WitnessCall {
        key: key(),
        witness: WitnessId(8),
        caller: node("a"),
        number: 1,
        ask: Ask::Get,
    };
    let told = w.at(0, Event::Call(call));
    assert_eq!(told, [("a".into(), Tell::Refused(Refusal::OtherWitness))]);
}

#[test]
fn a_move_closes_the_register_for_good() {
    let mut w = Harness::new();
    let arbiter = Arbiter::None(LonePolicy::Stop);
    let form = Form::Move {
        arbiter,
        generation: 1,
    };
    let told = w.cas(0, "a", form);
    assert_eq!(told, [("a".into(), Tell::Moved(Box::new(w.stored())))]);
    let stored = w.stored();
    let told = w.cas(10, "a", Form::Remove);
    assert!(matches!(&told[..], [(_, Tell::Moved(_))]));
    assert_eq!(w.stored(), stored);
}

/// A primary that was deposed and does not know it moves its unit to this witness, too.
#[test]
fn init_does_not_replace_by_what_was_made_from_an_older_configuration() {
    let old = mirror();
    let mut w = Harness::new();
    let taken = Form::Takeover.make(&old, &node("b"), 7).unwrap();
    let to = |base: &Config, generation, caller: &str| {
        let arbiter = old.arbiter.clone();
        let form = Form::Move {
            arbiter,
            generation,
        };
        form.make(base, &node(caller), 8).unwrap()
    };
    let moved = to(&taken, 1, "b");
    w.call(0, "b", Ask::Init(Box::new(moved.clone())));
    assert_eq!(w.stored(), moved);
    let late = to(&old, 2, "a");
    let told = w.call(0, "a", Ask::Init(Box::new(late.clone())));
    assert_eq!(told, [("a".into(), Tell::Refused(Refusal::Generation))]);
    assert_eq!(w.stored(), moved);

    // Nor where it was deposed at this witness.
    let mut w = Harness::new();
    w.cas(0, "b", Form::Takeover);
    let stored = w.stored();
    assert_eq!(stored.epoch.counter(), late.epoch.counter());
    let told = w.call(0, "a", Ask::Init(Box::new(late)));
    assert_eq!(told, [("a".into(), Tell::Refused(Refusal::Generation))]);
    assert_eq!(w.stored(), stored);
}

#[test]
fn init_creates_once_and_replaces_only_by_a_higher_generation() {
    let mut w = Harness::new();
    let again = mirror();
    let told = w.call(0, "a", Ask::Init(Box::new(again)));
    assert_eq!(told, [("a".into(), Tell::Register(Box::new(mirror())))]);
    let mut other = mirror();
    other.uid = 77;
    let told = w.call(0, "a", Ask::Init(Box::new(other.clone())));
    assert_eq!(told, [("a".into(), Tell::Refused(Refusal::Generation))]);
    other.epoch = Epoch::new(1, 9);
    w.call(0, "a", Ask::Init(Box::new(other.clone())));
    assert_eq!(w.stored(), other);
}

proptest! {
    /// `repl C2`: whatever calls come in whatever order, repeated and late, the register is a chain
    /// of single forms, each made from the one before by a caller who may.
    #[test]
    fn the_register_is_a_chain_of_forms(
        calls in prop::collection::vec((0..2u8, 0..6u8, 0..8usize, any::<bool>()), 1..60)
    ) {
        let mut w = Harness::new();
        let mut chain = vec![mirror()];
        for (n, form, back, wrong) in calls {
            let caller = ["a", "b"][usize::from(n)];
            let peer = ["b", "a"][usize::from(n)];
            let form = match form {
                0 => Form::Remove,
                1 => Form::Takeover,
                2 => Form::Add { part: "store".into(), replica: replica(peer) },
                3 => Form::Swap,
                4 => Form::Abdicate,
                _ => Form::Policy(Policies { swap_back: wrong, ..Policies::default() }),
            };
            // The caller works from a record that may be old.
            let known = chain[chain.len() - 1 - back.min(chain.len() - 1)].clone();
            let Ok(mut new) = form.make(&known, &node(caller), 100 + chain.len() as u64) else {
                continue;
            };
            if wrong {
                new.in_sync.insert("store".into(), BTreeSet::from([replica(caller)]));
            }
            let before = w.stored();
            let cas = Cas { form: form.clone(), expected: known.id(), new: new.clone() , held: None };
            w.call(0, caller, Ask::Cas(Box::new(cas)));
            let after = w.stored();
            prop_assert!(after.check_shape().is_ok());
            if after != before {
                prop_assert_eq!(&known, &before);
                let made = form.make(&before, &node(caller), after.uid);
                prop_assert_eq!(made, Ok(after.clone()));
                chain.push(after);
            }
        }
    }
}

#[test]
fn sessions_of_strangers_are_bounded_and_do_not_push_out_those_of_nodes() {
    let mut w = Harness::new();
    w.open(0, "a");
    w.open(0, "b");
    for n in 0..=SESSIONS_MAX {
        let node = NodeRef::new("stranger", n as u128 + 1);
        let cluster = ClusterId(1);
        w.at(0, Event::Opened { cluster, node });
    }
    assert!(w.witness.sessions.len() <= SESSIONS_MAX);
    assert!(w.witness.has_session(&key(), &node("a")) && w.witness.has_session(&key(), &node("b")));
}

/// A node that has the store up to here, and says that it is final up to there.
fn holding(w: &Harness, boot: u64, end: u64, commit: u64) -> Holdings {
    let mark = |index| Mark {
        index: LogIndex(index),
        term: Term::new(1, 1),
    };
    let (end, commit) = (mark(end), mark(commit));
    let held = PartHoldings { end, commit };
    Holdings {
        boot,
        config: w.stored().id(),
        parts: BTreeMap::from([(w.stored().lead, held)]),
    }
}

impl Harness {
    fn report(&mut self, at: u64, caller: &str, held: Holdings) {
        let report = Report {
            epoch: self.stored().epoch,
            healthy: true,
            held: Some(held),
        };
        self.call(at, caller, Ask::Report(report));
    }

    fn cas_holding(&mut self, caller: &str, form: Form, held: Holdings) -> Vec<(String, Tell)> {
        let stored = self.stored();
        let new = form.make(&stored, &node(caller), stored.uid + 1).unwrap();
        let cas = Cas {
            form,
            expected: stored.id(),
            new,
            held: Some(held),
        };
        self.call(1, caller, Ask::Cas(Box::new(cas)))
    }

    fn floor(&self) -> Option<u64> {
        let floors = &self.witness.register(&key()).unwrap().floors;
        floors.parts.values().next().map(|mark| mark.index.0)
    }
}

#[test]
fn nobody_goes_on_alone_who_lacks_what_was_final() {
    let refused = |to: &str| [(to.to_string(), Tell::Refused(Refusal::Reverted))];
    for (caller, form) in [("b", Form::Takeover), ("a", Form::Remove)] {
        let mut w = Harness::new();
        w.open(0, "b");
        let held = holding(&w, 1, 9, 7);
        w.report(0, "a", held);
        assert_eq!(w.floor(), Some(7));
        let below = holding(&w, 1, 6, 6);
        assert_eq!(w.cas_holding(caller, form.clone(), below), refused(caller));
        assert_eq!(w.stored(), mirror());
        // What was not final need not be there.
        let level = holding(&w, 1, 7, 3);
        w.cas_holding(caller, form, level);
        assert_ne!(w.stored(), mirror());
        assert_eq!(w.floor(), Some(7), "the floor stays with the register");
    }
}

#[test]
fn a_node_that_forgot_a_start_does_not_go_on_alone() {
    let mut w = Harness::new();
    w.open(0, "b");
    let held = holding(&w, 8, 9, 7);
    w.report(0, "b", held);
    let forgot = holding(&w, 7, 9, 7);
    let told = w.cas_holding("b", Form::Takeover, forgot);
    assert_eq!(told, [("b".into(), Tell::Refused(Refusal::Reverted))]);
}

#[test]
fn a_primary_hands_over_to_nobody_who_lacks_what_was_final() {
    let mut w = Harness::new();
    w.open(0, "a");
    w.open(0, "b");
    let [held, below] = [holding(&w, 1, 9, 7), holding(&w, 1, 5, 5)];
    w.report(0, "a", held.clone());
    w.report(0, "b", below);
    let told = w.cas_holding("a", Form::Abdicate, held);
    assert_eq!(told, [("a".into(), Tell::Refused(Refusal::Reverted))]);
}

/// Nodes report every few seconds: what was final only after the report of the node that takes over
/// says nothing against it. A primary under load, whose disk failed, could not hand over.
#[test]
fn a_report_is_held_against_what_was_final_when_it_came() {
    let mut w = Harness::new();
    w.open(0, "a");
    w.open(0, "b");
    let [before, after] = [holding(&w, 1, 5, 5), holding(&w, 1, 9, 9)];
    w.report(0, "a", before.clone());
    w.report(0, "b", before);
    w.report(0, "a", after.clone());
    assert_eq!(w.floor(), Some(9));
    w.cas_holding("a", Form::Abdicate, after);
    assert_eq!(w.stored().primary.name.as_str(), "b");
}

#[test]
fn floors_go_with_the_register_and_are_stored_now_and_then() {
    let mut w = Harness::new();
    w.open(0, "b");
    let steps = |w: &mut Harness, at: u64, event: Event| {
        w.witness.handle(ms(10_000 + at), event);
        w.witness.take_steps()
    };
    let report = |w: &Harness, commit: u64| {
        Event::Call(WitnessCall {
            key: key(),
            witness: W,
            caller: node("a"),
            number: 1,
            ask: Ask::Report(Report {
                epoch: w.stored().epoch,
                healthy: true,
                held: Some(holding(w, 1, commit, commit)),
            }),
        })
    };
    let event = report(&w, 5);
    assert_eq!(steps(&mut w, 0, event), [], "no write for each report");
    let event = report(&w, 6);
    let stored = steps(&mut w, 10_000, event);
    assert!(
        matches!(&stored[..], [Step { act: Act::Store { register, .. }, .. }]
        if register.floors.parts.values().all(|mark| mark.index == LogIndex(6)))
    );
    let event = report(&w, 9);
    assert_eq!(steps(&mut w, 10_001, event), []);
    // A node is lost: what is known now is what its return is measured by.
    let (cluster, b) = (ClusterId(1), node("b"));
    let closed = steps(&mut w, 10_002, Event::Closed { cluster, node: b });
    assert!(
        closed
            .iter()
            .any(|step| matches!(&step.act, Act::Store { .. }))
    );
    let (cluster, b) = (ClusterId(1), node("b"));
    let opened = steps(&mut w, 10_003, Event::Opened { cluster, node: b });
    let told = opened.iter().find_map(|step| match &step.act {
        Act::Send { word, .. } => word.floors.clone(),
        Act::Store { .. } => None,
    });
    let told = told.expect("with the register's content");
    assert_eq!(told.config, w.stored().id());
    assert_eq!(told.floors.parts[&w.stored().lead].index, LogIndex(9));
}
