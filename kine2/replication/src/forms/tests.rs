use proptest::prelude::*;

use super::*;
use crate::config::Standing;
use crate::force::{force, force_part};
use crate::ids::{ClusterId, RegisterKey, WitnessId};

fn node(n: u8) -> NodeRef {
    NodeRef::new(["a", "b"][usize::from(n)], u128::from(n) + 1)
}

fn replica(n: u8) -> Replica {
    Replica {
        node: node(n),
        storage: Incarnation(u128::from(n) + 10),
    }
}

fn store() -> PartName {
    "store".into()
}

fn files() -> PartName {
    "files".into()
}

fn first() -> Config {
    Config::first(
        RegisterKey {
            cluster: ClusterId(1),
            unit: "main".into(),
        },
        7,
        node(0),
        store(),
        [(store(), Incarnation(10)), (files(), Incarnation(10))],
        Arbiter::Witness {
            id: WitnessId(9),
            address: "w:1".into(),
        },
        Policies::default(),
    )
    .unwrap()
}

fn made(config: &Config, caller: u8, form: Form) -> Config {
    form.make(config, &node(caller), config.uid + 1).unwrap()
}

fn add_form(part: PartName, n: u8) -> Form {
    Form::Add {
        part,
        replica: replica(n),
    }
}

/// Both nodes in sync for both parts.
fn mirror() -> Config {
    let lead = made(&first(), 0, add_form(store(), 1));
    made(&lead, 0, add_form(files(), 1))
}

#[test]
fn add_takes_the_lead_first() {
    let error = add_form(files(), 1)
        .make(&first(), &node(0), 1)
        .unwrap_err();
    assert_eq!(error, FormError::LeadFirst(node(1)));
    let both = mirror();
    assert_eq!(both.standing(&store()), Some(Standing::Mirror));
    assert_eq!(both.standing(&files()), Some(Standing::Mirror));
    assert_eq!(both.members.len(), 2);
}

#[test]
fn remove_is_all_parts_at_once_and_leaves_what_is_away() {
    let alone = made(&mirror(), 0, Form::Remove);
    assert_eq!(alone.standing(&store()), Some(Standing::Alone));
    assert_eq!(alone.standing(&files()), Some(Standing::Alone));
    // Lead mirrored, files only on a: b takes over, files are away.
    let away = made(&made(&first(), 0, add_form(store(), 1)), 1, Form::Takeover);
    assert_eq!(away.standing(&files()), Some(Standing::Away));
    let still = made(&away, 1, Form::Remove);
    assert_eq!(still.in_sync[&files()], BTreeSet::from([replica(0)]));
}

#[test]
fn a_swap_back_returns_the_part_that_was_away() {
    let lead = made(&first(), 0, add_form(store(), 1));
    let away = made(&lead, 1, Form::Takeover);
    let again = made(&away, 1, add_form(store(), 0));
    let back = made(&again, 1, Form::Swap);
    assert_eq!(back.primary, node(0));
    assert_eq!(back.standing(&files()), Some(Standing::Alone));
    assert_eq!(back.standing(&store()), Some(Standing::Mirror));
}

#[test]
fn abdicate_is_the_takeover_the_primary_asks_for() {
    let both = mirror();
    let given = made(&both, 0, Form::Abdicate);
    let taken = made(&both, 1, Form::Takeover);
    assert_eq!(given.in_sync, taken.in_sync);
    assert_eq!(given.primary, taken.primary);
}

#[test]
fn only_the_right_caller_may() {
    let both = mirror();
    assert!(Form::Takeover.make(&both, &node(0), 1).is_err());
    assert!(Form::Remove.make(&both, &node(1), 1).is_err());
    let other_life = NodeRef::new("b", 99);
    assert!(Form::Takeover.make(&both, &other_life, 1).is_err());
    assert!(Form::Takeover.make(&first(), &node(1), 1).is_err());
}

#[test]
fn a_wiped_node_comes_back_as_another_member() {
    let alone = made(&mirror(), 0, Form::Remove);
    let wiped = Replica {
        node: NodeRef::new("b", 77),
        storage: Incarnation(78),
    };
    let form = Form::Add {
        part: store(),
        replica: wiped.clone(),
    };
    let added = made(&alone, 0, form);
    assert!(added.members.contains(&wiped.node));
    assert!(!added.members.contains(&node(1)));
    added.check_shape().unwrap();
}

#[test]
fn a_drop_concerns_its_part_only() {
    let dropped = made(&mirror(), 0, Form::Drop(files()));
    assert_eq!(dropped.standing(&store()), Some(Standing::Mirror));
    assert_eq!(dropped.standing(&files()), Some(Standing::Alone));
    let error = Form::Drop(store()).make(&mirror(), &node(0), 1);
    assert_eq!(error, Err(FormError::IsLead(store())));
}

#[test]
fn a_move_is_a_higher_generation() {
    let form = |generation| Form::Move {
        arbiter: Arbiter::None(crate::LonePolicy::Stop),
        generation,
    };
    let moved = made(&mirror(), 0, form(4));
    assert_eq!(moved.epoch.generation(), 4);
    assert_eq!(moved.epoch.counter(), mirror().epoch.counter() + 1);
    assert_eq!(
        form(4).make(&moved, &node(0), 1),
        Err(FormError::Generation(4, 4))
    );
}

#[test]
fn force_makes_an_outdated_node_the_only_one() {
    let alone = made(&mirror(), 0, Form::Remove);
    let forced = force(
        &alone,
        &node(1),
        Incarnation(11),
        1,
        alone.arbiter.clone(),
        5,
    );
    assert_eq!(forced.primary, node(1));
    assert_eq!(forced.in_sync[&store()], BTreeSet::from([replica(1)]));
    assert_eq!(forced.standing(&files()), Some(Standing::Away));
    assert_ne!(forced.origin, alone.origin);
    forced.check_shape().unwrap();
}

#[test]
fn force_of_a_part_leaves_nobody_else_in_any_set_of_the_primary() {
    let taken = made(&made(&mirror(), 0, Form::Drop(files())), 1, Form::Takeover);
    let add = Form::Add {
        part: store(),
        replica: replica(0),
    };
    let back = made(&taken, 1, add);
    assert_eq!(back.standing(&files()), Some(Standing::Away));
    let storage = Incarnation(77);
    let make = |config: &Config, part: PartName| {
        force_part(config, &part, storage, 1, config.arbiter.clone(), 5)
    };
    let forced = make(&back, files()).unwrap();
    let node = node(1);
    let files_of_b = Replica { node, storage };
    assert_eq!(forced.in_sync[&files()], BTreeSet::from([files_of_b]));
    assert_eq!(forced.in_sync[&store()], BTreeSet::from([replica(1)]));
    assert_eq!(forced.primary, back.primary);
    forced.check_shape().unwrap();
    assert_eq!(make(&back, store()), Err(FormError::NotAway(store())));
}

#[test]
fn names_longer_than_the_disk_keeps_are_refused() {
    let long = "x".repeat(crate::NAME_BYTES_MAX + 1);
    let preferred = Some(long.as_str().into());
    let forms = [
        Form::NewPart {
            part: long.as_str().into(),
            storage: Incarnation(1),
        },
        Form::Policy(Policies {
            preferred,
            ..Policies::default()
        }),
        Form::Move {
            arbiter: Arbiter::Witness {
                id: WitnessId(3),
                address: long,
            },
            generation: 7,
        },
    ];
    for form in forms {
        let refused = form.make(&mirror(), &node(0), 1);
        assert!(
            matches!(
                &refused,
                Err(FormError::Shape(ShapeError::Long { bytes: 256, .. }))
            ),
            "{refused:?}"
        );
    }
}

fn any_form() -> impl Strategy<Value = Form> {
    let part = prop_oneof![Just(store()), Just(files()), Just(PartName::from("more"))];
    let replica = (0..2u8, 0..2u128).prop_map(|(n, life)| Replica {
        node: NodeRef::new(["a", "b"][usize::from(n)], u128::from(n) + 1 + life * 100),
        storage: Incarnation(u128::from(n) + 10 + life * 100),
    });
    prop_oneof![
        Just(Form::Remove),
        part.clone().prop_map(Form::Drop),
        Just(Form::Takeover),
        (part.clone(), replica).prop_map(|(part, replica)| Form::Add { part, replica }),
        Just(Form::Swap),
        Just(Form::Abdicate),
        part.clone().prop_map(|part| Form::NewPart {
            part,
            storage: Incarnation(30)
        }),
        part.prop_map(Form::DeletePart),
        (0..4u32).prop_map(|generation| Form::Move {
            arbiter: Arbiter::None(crate::LonePolicy::Stop),
            generation,
        }),
    ]
}

proptest! {
    /// `repl P8`: whatever forms are used in whatever order by whomever, the shape holds, the
    /// epoch rises, and who is not named by the form gains nothing.
    #[test]
    fn every_chain_of_forms_keeps_the_shape(
        steps in prop::collection::vec((0..2u8, 0..2u128, any_form()), 0..40)
    ) {
        let mut config = first();
        for (n, life, form) in steps {
            let caller = NodeRef::new(
                ["a", "b"][usize::from(n)],
                u128::from(n) + 1 + life * 100,
            );
            let Ok(new) = form.make(&config, &caller, config.uid + 1) else { continue };
            prop_assert_eq!(new.check_shape(), Ok(()));
            prop_assert!(new.epoch > config.epoch);
            for (part, set) in &new.in_sync {
                let gained: Vec<_> = set
                    .iter()
                    .filter(|r| !config.in_sync.get(part).is_some_and(|old| old.contains(*r)))
                    .collect();
                match &form {
                    Form::Add { part: added, replica } if added == part =>
                        prop_assert_eq!(gained, vec![replica]),
                    Form::NewPart { part: made, .. } if made == part =>
                        prop_assert_eq!(gained.len(), 1),
                    _ => prop_assert!(gained.is_empty()),
                }
            }
            config = new;
        }
    }
}
