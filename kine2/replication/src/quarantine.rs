//! What the losing side of a forced promotion does with what it holds (`repl section 12`, Q1).
//!
//! A configuration that descends from another forced promotion was made by somebody who did not
//! know what is here. Whatever lies beyond the common point may have been acknowledged, whatever
//! this node's commit index says: a restart forgets it. So it is put away before any of it is cut.
//! If some of it is known to be committed the part waits for the operator, who gives it up by
//! [`Command::Rejoin`].
//!
//! [`Command::Rejoin`]: crate::Command::Rejoin

use kine2_mutation::{Mutation, mutated};
use kine2_wal::{LogIndex, Origin};

use crate::config::{Config, ConfigId};
use crate::hard_state::DataState;
use crate::ids::{Incarnation, PartName};
use crate::message::PartSummary;
use crate::output::{Act, Notice, Record};
use crate::unit::Unit;

/// What is put away of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The part.
    pub part: PartName,
    /// Incarnation of its storage.
    pub storage: Incarnation,
    /// The last entry known to be in the log that counts too; those after it are put away.
    pub after: LogIndex,
    /// The last entry, which is durable.
    pub through: LogIndex,
    /// The state is to be put away as well: the log does not reach back to the last common entry.
    pub with_state: bool,
    /// The configuration that overrules it.
    pub by: ConfigId,
}

/// A part's quarantine under way.
#[derive(Clone, Debug)]
pub(crate) struct PuttingAway {
    what: Quarantine,
    /// The operator gives the part up.
    rejoins: bool,
}

impl Unit {
    /// The parts of which nothing may be dropped unseen once `new` is adopted. What it says this
    /// node has counts: it stays.
    pub(crate) fn suspect_under(&self, new: &Config) -> std::collections::BTreeSet<PartName> {
        let old = &self.hard.config;
        let higher = new.epoch.generation() > old.epoch.generation();
        let forced = new.origin != old.origin && (higher || !mutated(Mutation::TwinByEpoch));
        let names: Vec<_> = match forced {
            true => self.parts.keys().cloned().collect(),
            false => self.hard.suspect.iter().cloned().collect(),
        };
        let foreign = |name: &PartName| !new.has(name, &self.me);
        names.into_iter().filter(foreign).collect()
    }

    /// Q1: whether the primary may say what this node's log of the part is. What would be cut goes
    /// to quarantine first; meanwhile the primary's opening is not answered, and it opens again.
    pub(crate) fn settle_divergence(&mut self, name: &PartName, theirs: &PartSummary) -> bool {
        if !self.hard.suspect.contains(name) {
            return true;
        }
        let part = &self.parts[name];
        // Half-installed data were never shown.
        if part.data != DataState::Complete || part.diverged {
            return true;
        }
        let common = part.log.history().common_point(&theirs.history);
        let common = common.map(|(index, _)| index);
        let end = part.log.end();
        let known = common.unwrap_or(LogIndex(0));
        if known < part.commit && !mutated(Mutation::NoDivergedStop) {
            // The primary learns of it by the answer.
            self.part(name).common = common;
            self.diverge(name);
            return true;
        }
        if known >= end || mutated(Mutation::QuarantineByHint) {
            self.trust_part(name);
            return true;
        }
        self.put_away(name, common, false);
        false
    }

    /// Asks for the quarantine of what lies beyond `common`, once all of it is durable.
    fn put_away(&mut self, name: &PartName, common: Option<LogIndex>, rejoins: bool) {
        let part = &self.parts[name];
        let (base, end) = (part.log.history().base().index, part.log.end());
        if part.log.durable() < end {
            return;
        }
        let what = Quarantine {
            part: name.clone(),
            storage: part.storage,
            after: common.unwrap_or(base).max(base),
            through: end,
            with_state: common.is_none_or(|common| common < base),
            by: self.hard.config.id(),
        };
        let under_way = part.putting_away.as_ref();
        if under_way.is_some_and(|under_way| under_way.what == what) {
            return;
        }
        self.part(name).putting_away = Some(PuttingAway {
            what: what.clone(),
            rejoins,
        });
        self.push(Act::Quarantine(what.clone()));
        if mutated(Mutation::OverwriteFirst) {
            self.on_quarantined(&what);
        }
    }

    pub(crate) fn on_quarantined(&mut self, what: &Quarantine) {
        let Some(part) = self.parts.get_mut(&what.part) else {
            return;
        };
        let done = part.putting_away.take_if(|away| away.what == *what);
        let Some(done) = done else { return };
        let name = &what.part;
        self.push(Act::Notice(Notice::Quarantined(name.clone())));
        if done.rejoins {
            self.renew(name);
        }
        self.trust_part(name);
    }

    /// Nothing of the part is left that must not be dropped.
    fn trust_part(&mut self, name: &PartName) {
        if self.hard.suspect.remove(name) {
            self.write_hard();
        }
    }

    /// The operator gives up what this node has of a part that diverged.
    pub(crate) fn on_rejoin(&mut self, name: &PartName) {
        let Some(part) = self.parts.get(name) else {
            return;
        };
        let usable = part.data == DataState::Complete && !self.failed;
        if part.diverged && usable && !self.hard.config.has(name, &self.me) {
            self.put_away(name, part.common, true);
        }
    }

    /// The part has a new storage from here on, of which nothing can be used; a snapshot takes its
    /// place. What was committed here does not count any more.
    fn renew(&mut self, name: &PartName) {
        let random = u128::from(self.seed.next()) << 64 | u128::from(self.seed.next());
        let storage = Incarnation(random);
        let part = self.part(name);
        part.storage = storage;
        part.data = DataState::Inconsistent;
        part.diverged = false;
        part.commit = LogIndex(0);
        part.known = LogIndex(0);
        part.forget_peer();
        // What was known of the old storage says nothing of the new one.
        self.write_hard();
        let records = vec![
            Record::Storage(storage),
            Record::Data(DataState::Inconsistent),
        ];
        self.write(name, records);
    }

    /// The origin of the configuration this node acts by.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.hard.config.origin
    }
}
