//! Floors: what was final of each part, as the witness and the other node remember it
//! (`repl I4`). A disk or a machine that is set back to an old image forgets what it acknowledged,
//! and cannot know that; the others can.
//!
//! A floor is a committed entry. It is not the highest entry that a node had on its disk, as a tail
//! that was never final is cut lawfully; what is committed is on every node in sync for its part,
//! for ever, until a forced promotion begins another history.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use kine2_mutation::{Mutation, mutated};
use kine2_wal::{LogIndex, Term};

use crate::config::{Config, ConfigId};
use crate::fields::{Reader, RecordError, put_count, put_marks, put_node};
use crate::hard_state::DataState;
use crate::history::History;
use crate::ids::{NodeRef, PartName};
use crate::message::Body;
use crate::output::{Act, Notice};
use crate::policy::{Arbiter, LonePolicy};
use crate::unit::Unit;

/// An entry by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// What a node says it has of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHoldings {
    /// The last durable entry.
    pub end: Mark,
    /// The last entry known to be committed.
    pub commit: Mark,
}

/// What a node says it has, with each report and each change it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// How often it started.
    pub boot: u64,
    /// The configuration it acts by.
    pub config: ConfigId,
    /// The parts it is in sync for.
    pub parts: BTreeMap<PartName, PartHoldings>,
}

/// What a witness knows was final, and how often nodes had started: each of it only rises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// The last entry of each part that is known to be committed.
    pub parts: BTreeMap<PartName, Mark>,
    /// Starts of the nodes, since each was added last.
    pub boots: BTreeMap<NodeRef, u64>,
}

impl Floors {
    /// Takes in what a node of `config` says. True if a floor rose. One that is below a floor, acts
    /// by a newer configuration or another forced promotion, or names what this configuration does
    /// not, says nothing of its history.
    pub fn raise(&mut self, config: &Config, node: &NodeRef, held: &Holdings) -> bool {
        let older = held.config.origin == config.origin && held.config.epoch < config.epoch;
        let of_config = (older || held.config == config.id()) && config.members.contains(node);
        let knows = |part| config.in_sync.contains_key(part) && !self.lacks(node, held, part);
        if !of_config || !held.parts.keys().all(knows) {
            return false;
        }
        let mut rose = self.boots.get(node).is_none_or(|boot| *boot < held.boot);
        if rose {
            self.boots.insert(node.clone(), held.boot);
        }
        for (part, held) in &held.parts {
            let floor = self.parts.get(part);
            if floor.is_none_or(|floor| floor.index < held.commit.index) {
                self.parts.insert(part.clone(), held.commit);
                rose = true;
            }
        }
        rose
    }

    /// Forgets parts and nodes that `config` does not name.
    pub fn keep_only(&mut self, config: &Config) {
        self.parts
            .retain(|part, _| config.in_sync.contains_key(part));
        self.boots.retain(|node, _| config.members.contains(node));
    }

    /// The node does not have all of `part` that was final, or forgot a start of its own. By the
    /// last entry alone: terms never fall along a log.
    #[must_use]
    pub fn lacks(&self, node: &NodeRef, held: &Holdings, part: &PartName) -> bool {
        let forgot = self.boots.get(node).is_some_and(|boot| *boot > held.boot);
        let Some(PartHoldings { end, .. }) = held.parts.get(part) else {
            return forgot;
        };
        let below = |floor: &Mark| end.index < floor.index || end.term < floor.term;
        forgot || self.parts.get(part).is_some_and(below)
    }
}

impl Floors {
    /// The bytes, as the witness stores them (docs/witness.md): the count of parts (1), of each its
    /// name and mark; the count of nodes (1), of each who it is and its starts (8).
    ///
    /// # Panics
    /// If there are more than a configuration names.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_marks(&mut out, &self.parts);
        put_count(&mut out, self.boots.len());
        for (node, boot) in &self.boots {
            put_node(&mut out, node);
            out.put_u64_le(*boot);
        }
        out.freeze()
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader { bytes, version: 0 };
        let parts = reader.marks("floors")?;
        let mut boots = BTreeMap::new();
        for _ in 0..reader.u8("nodes")? {
            let node = reader.node()?;
            if boots.insert(node, reader.u64("starts")?).is_some() {
                return Err(RecordError::Twice("nodes"));
            }
        }
        match reader.bytes.len() {
            0 => Ok(Self { parts, boots }),
            rest => Err(RecordError::Long(rest)),
        }
    }
}

/// The floors of a register, beside its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldFloors {
    /// The configuration they were told with.
    pub config: ConfigId,
    /// The floors.
    pub floors: Floors,
}

/// The log does not hold an entry that was final.
pub(crate) fn lacks(history: &History, mark: Mark) -> bool {
    mark.index >= history.base().index && !history.holds(mark.index, mark.term)
}

impl Unit {
    /// What this node has of the parts it is in sync for.
    pub(crate) fn held(&self) -> Holdings {
        let parts = self.part_names().into_iter().filter_map(|name| {
            let part = &self.parts[&name];
            let counts = self.hard.config.has(&name, &self.me)
                && part.data == DataState::Complete
                && part.installing.is_none()
                && !part.diverged
                && !self.hard.suspect.contains(&name);
            let mark = |index| {
                let term = part.log.history().term_at(index)?;
                Some(Mark { index, term })
            };
            let (end, commit) = (mark(part.log.durable())?, mark(part.floor())?);
            counts.then_some((name, PartHoldings { end, commit }))
        });
        Holdings {
            boot: self.boot,
            config: self.hard.config.id(),
            parts: parts.collect(),
        }
    }

    /// Compares what the witness knows was final with what is here, if it knows it of the
    /// configuration that this node acts by.
    pub(crate) fn check_floors(&mut self) {
        let own = self.hard.config.id();
        let told = self.register.floors.as_ref();
        let Some(told) = told.filter(|told| told.config == own) else {
            return;
        };
        let boots = told.floors.boots.get(&self.me);
        let forgot = boots.is_some_and(|boot| *boot > self.boot);
        let lacking: Vec<_> = self
            .part_names()
            .into_iter()
            .filter(|name| {
                let part = &self.parts[name];
                let floor = told.floors.parts.get(name);
                self.hard.config.has(name, &self.me)
                    && part.data == DataState::Complete
                    && (forgot || floor.is_some_and(|mark| lacks(part.log.history(), *mark)))
            })
            .collect();
        for name in lacking {
            self.note_reverted(&name);
        }
    }

    /// This node is in sync for the part by its configuration, and has not all that was final: it
    /// was set back. It neither serves the part nor takes over, also after a restart, until a
    /// configuration says that it is not in sync, or a forced promotion that what it has counts.
    pub(crate) fn note_reverted(&mut self, name: &PartName) {
        if self.failed || !self.hard.reverted.insert(name.clone()) {
            return;
        }
        self.push(Act::Notice(Notice::Reverted(name.clone())));
        if self.is_primary() {
            self.deactivate_part(name);
        }
        self.write_hard();
        if !self.is_primary() {
            self.send(Body::PartFailed(name.clone()));
        }
    }

    /// The other node must have what is final here, and has not: of a node that is in sync, or may
    /// be, that says it was set back.
    pub(crate) fn peer_lacks(&self, name: &PartName, theirs: &History) -> bool {
        if mutated(Mutation::NoFloorAtPeer) || !self.takes_out_who_was_set_back() {
            return false;
        }
        let part = &self.parts[name];
        let index = part.matched.unwrap_or_default().max(part.floor());
        let term = part.log.history().term_at(index);
        term.is_some_and(|term| lacks(theirs, Mark { index, term }))
    }

    /// The primary told that more is final than this node has, which is in sync by the same
    /// configuration.
    pub(crate) fn check_told(&mut self, name: &PartName) {
        let part = &self.parts[name];
        let below = self.hard.config.has(name, &self.me)
            && part.data == DataState::Complete
            && part.told > part.log.end();
        if below && self.takes_out_who_was_set_back() && !mutated(Mutation::NoFloorAtPeer) {
            self.note_reverted(name);
        }
    }

    /// Without an arbiter nobody is taken out by a form: the stream brings what is missing.
    fn takes_out_who_was_set_back(&self) -> bool {
        match &self.hard.config.arbiter {
            Arbiter::Witness { .. } | Arbiter::None(LonePolicy::PreferPrimary) => true,
            Arbiter::None(LonePolicy::Stop | LonePolicy::Ping(..)) => false,
        }
    }

    /// What is known to be final, for the next start: the disk keeps it with the hard state.
    pub(crate) fn note_known(&mut self) {
        let known = self.parts.iter().filter_map(|(name, part)| {
            let index = part.floor();
            let term = part.log.history().term_at(index)?;
            let counts = part.data == DataState::Complete && part.installing.is_none();
            counts.then_some((name.clone(), Mark { index, term }))
        });
        self.hard.known = known.collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ClusterId, Incarnation, RegisterKey};
    use crate::policy::Policies;

    fn config() -> Config {
        let [a, b] = nodes();
        let store = PartName::from("store");
        let key = RegisterKey {
            cluster: ClusterId(1),
            unit: "main".into(),
        };
        let mut config = Config::first(
            key,
            1,
            a,
            store.clone(),
            [(store, Incarnation(5))],
            Arbiter::None(LonePolicy::Stop),
            Policies::default(),
        )
        .unwrap();
        config.members.insert(b);
        config
    }

    fn nodes() -> [NodeRef; 2] {
        [NodeRef::new("a", 1), NodeRef::new("b", 2)]
    }

    fn floors() -> impl Strategy<Value = Floors> {
        let mark = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>());
        let mark = mark.prop_map(|(index, epoch, run, origin)| Mark {
            index: LogIndex(index),
            term: Term {
                epoch,
                run,
                origin: kine2_wal::Origin(origin),
            },
        });
        let parts = prop::collection::btree_map("[a-z]{1,9}", mark, 0..4);
        let boots = prop::collection::btree_map(("[a-z]{1,9}", any::<u128>()), any::<u64>(), 0..3);
        (parts, boots).prop_map(|(parts, boots)| Floors {
            parts: parts
                .into_iter()
                .map(|(name, mark)| (PartName::from(&name[..]), mark))
                .collect(),
            boots: boots
                .into_iter()
                .map(|((name, life), boot)| (NodeRef::new(&name[..], life), boot))
                .collect(),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(floors in floors(), cut in any::<prop::sample::Index>()) {
            let bytes = floors.encode();
            prop_assert_eq!(Floors::decode(&bytes), Ok(floors));
            prop_assert!(Floors::decode(&bytes[..cut.index(bytes.len())]).is_err());
            let more = [&bytes[..], &[0]].concat();
            prop_assert_eq!(Floors::decode(&more), Err(RecordError::Long(1)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Floors::decode(&bytes);
        }
    }

    fn mark(index: u64, epoch: u64) -> Mark {
        Mark {
            index: LogIndex(index),
            term: Term::new(epoch, 1),
        }
    }

    fn held(boot: u64, end: Mark, commit: Mark) -> Holdings {
        Holdings {
            boot,
            config: config().id(),
            parts: BTreeMap::from([("store".into(), PartHoldings { end, commit })]),
        }
    }

    #[test]
    fn floors_only_rise_and_who_is_below_raises_none() {
        let ([a, b], config) = (nodes(), config());
        let store = PartName::from("store");
        let mut floors = Floors::default();
        assert!(floors.raise(&config, &a, &held(1, mark(9, 1), mark(7, 1))));
        assert!(!floors.raise(&config, &a, &held(1, mark(9, 1), mark(6, 1))));
        // A register that went back does not know what came after (`repl W2`).
        let mut newer = held(1, mark(19, 1), mark(17, 1));
        newer.config.epoch = newer.config.epoch.next();
        assert!(!floors.raise(&config, &a, &newer));
        assert_eq!(floors.parts[&store], mark(7, 1));
        // By its index, and by its term: entries that were cut and written anew.
        for end in [mark(6, 1), mark(9, 0)] {
            let set_back = held(5, end, end);
            assert!(floors.lacks(&b, &set_back, &store));
            assert!(!floors.raise(&config, &b, &set_back));
        }
        assert_eq!(floors.boots.get(&b), None);
        assert!(!floors.lacks(&b, &held(1, mark(7, 1), mark(1, 1)), &store));
        assert!(!floors.lacks(&b, &held(1, mark(8, 2), mark(1, 1)), &store));
    }

    #[test]
    fn a_node_that_forgot_a_start_is_below() {
        let ([a, b], config) = (nodes(), config());
        let store = PartName::from("store");
        let mut floors = Floors::default();
        let at = mark(3, 1);
        assert!(floors.raise(&config, &a, &held(8, at, at)));
        assert!(floors.lacks(&a, &held(7, at, at), &store));
        assert!(!floors.lacks(&a, &held(8, at, at), &store));
        assert!(!floors.lacks(&b, &held(1, at, at), &store));
    }
}
