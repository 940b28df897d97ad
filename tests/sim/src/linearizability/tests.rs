use super::*;
use crate::history::{Compare, Key, Op, Operation, Put, Relation, Seen, Target, Txn};
use kine2_sim_kit::Rng;

fn known(invoked: u64, answered: u64, ask: Ask, reply: Reply) -> Operation {
    Operation {
        invoked,
        ask,
        outcome: Outcome::Known(answered, reply),
    }
}

fn unknown(invoked: u64, ask: Ask) -> Operation {
    Operation {
        invoked,
        ask,
        outcome: Outcome::Unknown,
    }
}

const fn put(key: Key, value: Value) -> Ask {
    Ask::Put(Put {
        key,
        value,
        lease: 0,
    })
}

const fn seen(value: Value, create: i64, modified: i64, version: i64) -> Seen {
    Seen {
        value,
        create,
        modified,
        version,
        lease: 0,
    }
}

fn get(key: Key, revision: i64, seen: Option<Seen>) -> (Ask, Reply) {
    let records = seen.into_iter().map(|seen| (key, seen)).collect();
    (Ask::Get(Some(key)), Reply::Records(revision, records))
}

fn verdict(operations: Vec<Operation>) -> Result<Explanation, Verdict> {
    check(&History {
        operations,
        ..History::default()
    })
}

#[track_caller]
fn refused(operations: Vec<Operation>) {
    let verdict = verdict(operations);
    assert!(
        matches!(verdict, Err(Verdict::Impossible(_))),
        "{verdict:?}"
    );
}

#[test]
fn a_lost_write_is_found() {
    let (ask, reply) = get(1, 1, None);
    refused(vec![
        known(1, 2, put(1, 7), Reply::Put(2, None)),
        known(3, 4, ask, reply),
    ]);
}

#[test]
fn a_lost_write_is_found_also_when_another_took_its_revision() {
    refused(vec![
        known(1, 2, put(1, 7), Reply::Put(2, None)),
        known(3, 4, put(2, 8), Reply::Put(2, None)),
    ]);
}

#[test]
fn a_stale_read_is_found() {
    let (ask, reply) = get(1, 2, Some(seen(7, 2, 2, 1)));
    refused(vec![
        known(1, 2, put(1, 7), Reply::Put(2, None)),
        known(3, 4, put(1, 8), Reply::Put(3, Some(seen(7, 2, 2, 1)))),
        known(5, 6, ask, reply),
    ]);
}

#[test]
fn a_revision_that_goes_back_is_found() {
    let (ask, reply) = get(1, 2, Some(seen(7, 2, 2, 1)));
    let (again, earlier) = get(2, 1, None);
    refused(vec![
        known(1, 2, put(1, 7), Reply::Put(2, None)),
        known(3, 4, ask, reply),
        known(5, 6, again, earlier),
    ]);
}

#[test]
fn a_wrong_version_is_found() {
    let (ask, reply) = get(1, 3, Some(seen(8, 2, 3, 1)));
    refused(vec![
        known(1, 2, put(1, 7), Reply::Put(2, None)),
        known(3, 4, put(1, 8), Reply::Put(3, Some(seen(7, 2, 2, 1)))),
        known(5, 6, ask, reply),
    ]);
}

#[test]
fn a_transaction_that_succeeds_on_what_was_not_there_is_found() {
    let txn = Txn {
        compare: Compare {
            key: 1,
            target: Target::Mod,
            relation: Relation::Equal,
            than: 0,
        },
        success: vec![Op::Put(Put {
            key: 1,
            value: 8,
            lease: 0,
        })],
        failure: vec![Op::Get(1)],
    };
    refused(vec![
        known(1, 2, put(1, 7), Reply::Put(2, None)),
        known(3, 4, Ask::Txn(txn), Reply::Txn(3, true, vec![None])),
    ]);
}

#[test]
fn a_write_without_an_answer_may_have_happened_or_not() {
    for there in [false, true] {
        let (ask, reply) = match there {
            true => get(1, 2, Some(seen(7, 2, 2, 1))),
            false => get(1, 1, None),
        };
        verdict(vec![unknown(1, put(1, 7)), known(3, 4, ask, reply)]).unwrap();
    }
}

#[test]
fn a_write_without_an_answer_may_happen_late() {
    let (ask, reply) = get(1, 1, None);
    let (again, later) = get(1, 2, Some(seen(7, 2, 2, 1)));
    verdict(vec![
        unknown(1, put(1, 7)),
        known(2, 3, ask, reply),
        known(4, 5, again, later),
    ])
    .unwrap();
}

#[test]
fn a_write_without_an_answer_happens_once() {
    let (ask, reply) = get(1, 2, Some(seen(7, 2, 2, 1)));
    let (again, later) = get(1, 4, Some(seen(7, 2, 4, 3)));
    refused(vec![
        unknown(1, put(1, 7)),
        known(2, 3, ask, reply),
        known(4, 5, put(1, 8), Reply::Put(3, Some(seen(7, 2, 2, 1)))),
        known(6, 7, again, later),
    ]);
}

#[test]
fn a_lost_write_beside_others_without_answers_is_found() {
    // Two gaps, but each could be filled only by what is not there afterwards.
    let mut operations: Vec<Operation> = (0..12).map(|n| unknown(1, put(2, 100 + n))).collect();
    operations.push(known(2, 3, put(1, 7), Reply::Put(4, None)));
    let (ask, reply) = get(1, 6, None);
    operations.push(known(4, 5, ask, reply));
    refused(operations);
}

#[test]
fn a_lease_that_expired_took_its_keys() {
    let attached = Ask::Put(Put {
        key: 1,
        value: 7,
        lease: 5,
    });
    let history = |revision| {
        let (ask, reply) = get(1, revision, None);
        vec![
            known(1, 2, Ask::Grant(5), Reply::Granted),
            unknown(1, Ask::Revoke(5)),
            known(3, 4, attached.clone(), Reply::Put(2, None)),
            known(5, 6, ask, reply),
        ]
    };
    verdict(history(3)).unwrap();
    refused(history(2));
}

#[test]
fn what_a_watch_told_must_have_happened() {
    let mut history = History {
        operations: vec![known(1, 2, put(1, 7), Reply::Put(2, None))],
        ..History::default()
    };
    history
        .watched
        .insert(2, Changes::from([(1, Some(seen(9, 2, 2, 1)))]));
    assert!(matches!(check(&history), Err(Verdict::Impossible(_))));
}

/// Clients beside each other on a true store, one request in ten without its answer.
fn played(seed: u64, count: usize) -> History {
    let mut rng = Rng::new(seed);
    let mut model = Model::default();
    let mut history = History::default();
    // Each client's moment of being free again.
    let mut free = [0; 5];
    for n in 0..count as u64 {
        let at = n * 10 + 100;
        let client = rng.pick(free.len());
        let invoked = (at - rng.below(60)).max(free[client] + 1);
        let key = u8::try_from(rng.below(4)).unwrap();
        let than = model.keys.get(&key).map_or(0, |seen| seen.modified);
        let set = Put {
            key,
            value: n + 1,
            lease: 0,
        };
        let ask = match rng.below(10) {
            0..=2 => Ask::Get(Some(key)),
            3 => Ask::Get(None),
            4..=6 => Ask::Put(set),
            7 => Ask::Delete(key),
            _ => Ask::Txn(Txn {
                compare: Compare {
                    key,
                    target: Target::Mod,
                    relation: Relation::Equal,
                    than: than - i64::from(rng.percent(30)),
                },
                success: vec![Op::Put(set)],
                failure: vec![Op::Get(key)],
            }),
        };
        let lost = rng.percent(10);
        let outcome = match lost {
            true => {
                if rng.percent(50) {
                    model.apply(&ask);
                }
                Outcome::Unknown
            }
            // It took effect at a moment of its own, and was answered a while after.
            false => Outcome::Known(at.max(invoked) + 1 + rng.below(9), model.apply(&ask).reply),
        };
        free[client] = match &outcome {
            Outcome::Known(answered, _) => *answered,
            Outcome::Unknown => at,
        };
        history.operations.push(Operation {
            invoked,
            ask,
            outcome,
        });
    }
    history
}

#[test]
fn true_histories_pass_and_are_quickly_judged() {
    for seed in 0..60 {
        let history = played(seed, 600);
        let explanation =
            check(&history).unwrap_or_else(|verdict| panic!("seed {seed}: {verdict}"));
        assert!(explanation.choices < 20_000, "seed {seed}: {explanation:?}");
    }
}

#[test]
fn a_history_with_one_answer_changed_is_refused() {
    for seed in 0..60 {
        let mut history = played(seed, 200);
        let mut rng = Rng::new(seed);
        let changed = loop {
            let at = rng.pick(history.operations.len());
            let operation = &mut history.operations[at];
            let Outcome::Known(_, reply) = &mut operation.outcome else {
                continue;
            };
            match reply {
                Reply::Put(revision, _) | Reply::Txn(revision, true, _) => *revision += 1,
                Reply::Records(_, records) if !records.is_empty() => records[0].1.version += 1,
                _ => continue,
            }
            break at;
        };
        assert!(
            check(&history).is_err(),
            "seed {seed}: answer {changed} was changed"
        );
    }
}
