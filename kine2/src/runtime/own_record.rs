//! What the log keeps beside its entries: this node's place in its unit, and how often it started.

use anyhow::{Context, bail, ensure};
use kine2_node::STORE;
use kine2_replication::{
    Arbiter, ClusterId, Config, DataState, Durable, Epoch, HardState, Incarnation, LonePolicy,
    NodeRef, Policies, RegisterKey,
};
use kine2_wal::{Recovery, Term};

use super::identity::{NodeIdentity, random_id};

/// Name of the unit that holds the store.
const UNIT: &str = "main";
/// Longest name of a node in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The record found in the log, for this start: one more than before. A log without one gets the
/// record of a node that is a unit by itself, or of one that joined the unit of this
/// configuration and holds nothing yet.
///
/// # Errors
/// If the record cannot be understood, or is another node's.
pub(super) fn load(
    recovery: &Recovery,
    identity: NodeIdentity,
    name: &str,
    joined: Option<&Config>,
) -> anyhow::Result<(NodeRef, Durable)> {
    let mut durable = match (recovery.hard_state.as_deref(), joined) {
        (None, None) => first(recovery.last.term, identity, name)?,
        (None, Some(config)) => Durable {
            boot: 0,
            storage: Incarnation(random()?),
            data: DataState::Complete,
            hard: Some(HardState::adopting(config.clone())),
        },
        (Some([1, term @ ..]), _) => {
            first(decode_term(term)?.max(recovery.last.term), identity, name)?
        }
        (Some(bytes), _) => Durable::decode(bytes).context("the log's record of this node")?,
    };
    durable.boot += 1;
    let incarnation = incarnation(identity);
    let hard = durable.hard.as_ref();
    let hard = hard.context("the log's record of this node has no configuration")?;
    let mut members = hard.config.members.iter();
    if let Some(me) = members.find(|member| member.incarnation == incarnation) {
        return Ok((me.clone(), durable));
    }
    // A node that is not in yet, or not any more, is known by its certificate.
    if joined.is_none() {
        bail!(
            "the log is of a unit with the members {:?}, and this node ({:x}) is none of them: the \
             identity beside it is another node's",
            hard.config.members,
            incarnation.0
        );
    }
    let me = NodeRef {
        name: name.into(),
        incarnation,
    };
    Ok((me, durable))
}

/// Whether no other node has a part in what is committed: then all of the log is (`repl A1`).
pub(super) fn is_alone(me: &NodeRef, durable: &Durable) -> bool {
    let hard = durable.hard.as_ref();
    hard.is_some_and(|hard| hard.config.members.iter().eq([me]))
}

/// A unit of one, in an epoch that is not below that of any entry.
fn first(used: Term, identity: NodeIdentity, name: &str) -> anyhow::Result<Durable> {
    ensure!(
        name.len() <= NAME_BYTES_MAX,
        "the name has {} bytes; at most {NAME_BYTES_MAX} are accepted",
        name.len()
    );
    let storage = Incarnation(random()?);
    let config = Config::first(
        RegisterKey {
            cluster: ClusterId(identity.cluster_id.into()),
            unit: UNIT.into(),
        },
        random_id()?,
        NodeRef {
            name: name.into(),
            incarnation: incarnation(identity),
        },
        STORE.into(),
        [(STORE.into(), storage)],
        Arbiter::None(LonePolicy::Stop),
        Policies::default(),
    )?;
    let epoch = Epoch(used.epoch).max(config.epoch);
    Ok(Durable {
        boot: 0,
        storage,
        data: DataState::Complete,
        hard: Some(HardState {
            run: used.run,
            ..HardState::adopting(Config { epoch, ..config })
        }),
    })
}

fn random() -> anyhow::Result<u128> {
    Ok(u128::from(random_id()?) << 64 | u128::from(random_id()?))
}

pub(super) fn incarnation(identity: NodeIdentity) -> Incarnation {
    Incarnation(identity.member_id.into())
}

/// The record of version 1, which knew no units: `version:u8 epoch:u64 run:u32`, little endian.
fn decode_term(bytes: &[u8]) -> anyhow::Result<Term> {
    let Some((epoch, run)) = bytes.split_first_chunk::<8>() else {
        bail!("the log's record of this node ends within its epoch");
    };
    let run = run.try_into().context("the log's record of this node")?;
    Ok(Term::new(
        u64::from_le_bytes(*epoch),
        u32::from_le_bytes(run),
    ))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kine2_wal::Position;

    use super::*;

    const IDENTITY: NodeIdentity = NodeIdentity {
        cluster_id: 7,
        member_id: 9,
    };

    fn recovery(hard_state: Option<Bytes>, last: Term) -> Recovery {
        Recovery {
            base: Position::START,
            last: Position {
                term: last,
                ..Position::START
            },
            hard_state,
            torn_tail: None,
        }
    }

    #[test]
    fn a_new_log_is_of_a_unit_of_one() {
        let (me, durable) = load(&recovery(None, Term::default()), IDENTITY, "shop", None).unwrap();
        assert!(is_alone(&me, &durable));
        let hard = durable.hard.clone().unwrap();
        assert_eq!((durable.boot, hard.run), (1, 0));
        assert_eq!(hard.config.primary, me);
        // It is found again, whatever the node is called now, and the start is counted.
        let again = recovery(Some(durable.encode()), Term::default());
        let (found, next) = load(&again, IDENTITY, "market", None).unwrap();
        assert_eq!((found, next.boot), (me, 2));
    }

    #[test]
    fn a_node_that_joined_holds_nothing_and_is_not_alone() {
        let (_, durable) = load(&recovery(None, Term::default()), IDENTITY, "shop", None).unwrap();
        let config = durable.hard.unwrap().config;
        let other = NodeIdentity {
            member_id: 10,
            ..IDENTITY
        };
        let none = recovery(None, Term::default());
        let (me, durable) = load(&none, other, "market", Some(&config)).unwrap();
        assert_eq!(me, NodeRef::new("market", 10));
        assert!(!is_alone(&me, &durable));
        assert_eq!(durable.hard.as_ref().unwrap().config, config);
        // And again, from its own log.
        let kept = recovery(Some(durable.encode()), Term::default());
        let (again, next) = load(&kept, other, "market", Some(&config)).unwrap();
        assert_eq!((again, next.boot), (me, 2));
    }

    #[test]
    fn a5_a_log_of_version_1_goes_on_above_its_terms() {
        let noted: Vec<u8> = [&[1][..], &3u64.to_le_bytes(), &4u32.to_le_bytes()].concat();
        let last = Term::new(3, 9);
        let (_, durable) =
            load(&recovery(Some(noted.into()), last), IDENTITY, "shop", None).unwrap();
        let hard = durable.hard.unwrap();
        assert_eq!((hard.config.epoch, hard.run), (Epoch(3), 9));
    }

    #[test]
    fn a_record_that_is_not_understood_or_anothers_is_refused() {
        for bytes in [&[][..], &[9], &[1, 2], &[1; 20]] {
            let found = recovery(Some(Bytes::copy_from_slice(bytes)), Term::default());
            assert!(load(&found, IDENTITY, "shop", None).is_err(), "{bytes:?}");
        }
        let (_, durable) = load(&recovery(None, Term::default()), IDENTITY, "shop", None).unwrap();
        let other = NodeIdentity {
            member_id: 10,
            ..IDENTITY
        };
        let found = recovery(Some(durable.encode()), Term::default());
        assert!(load(&found, other, "shop", None).is_err());
    }
}
