//! Forced promotions, and the records they make (`repl section 12`).
//!
//! Each begins a new generation and an origin of its own (Q2), and names no node but the promoted
//! one in any set that one is in (Q4): the other node may not know of it.

use std::collections::BTreeSet;

use kine2_mutation::{Mutation, mutated};
use kine2_wal::Origin;

use crate::config::{Config, ConfigId, MEMBERS_MAX, Standing};
use crate::forms::{FormError, Reason, go_alone};
use crate::hard_state::DataState;
use crate::ids::{Incarnation, NodeRef, PartName, Replica};
use crate::output::{Act, Notice};
use crate::policy::{Arbiter, LonePolicy};
use crate::unit::{Phase, Unit};

/// A forced promotion that the witness is asked to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Force {
    /// The record, made by the caller from what it knows. The witness makes it again from what is
    /// stored.
    pub config: Config,
    /// The part that is forced, if it is not the lead.
    pub part: Option<ForcedPart>,
}

/// A part that is forced at the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedPart {
    /// Which.
    pub part: PartName,
    /// The configuration that the operator saw: with another one, another node may be the primary,
    /// or the part may be in sync by now.
    pub expected: ConfigId,
}

/// The record of a forced promotion of `node`: it is the primary, alone in the lead with
/// `lead_storage`, and alone in every other part it was in sync for.
///
/// # Panics
/// If the generation is not higher than that of `newest`.
#[must_use]
pub fn force(
    newest: &Config,
    node: &NodeRef,
    lead_storage: Incarnation,
    generation: u32,
    arbiter: Arbiter,
    uid: u64,
) -> Config {
    let mut new = begin(newest, generation, arbiter, uid);
    let replica = Replica {
        node: node.clone(),
        storage: lead_storage,
    };
    new.in_sync
        .insert(new.lead.clone(), BTreeSet::from([replica]));
    if !new.members.contains(node) {
        new.members.retain(|m| m.name != node.name);
        if new.members.len() == MEMBERS_MAX {
            let gone = newest.primary.clone();
            new.members.remove(&gone);
        }
        new.members.insert(node.clone());
    }
    go_alone(&mut new, node);
    new
}

/// The record of a forced promotion of the primary in `part`, which is away: it is alone in that
/// part with `storage`, and in every part it was in sync for, the lead among them. The lead does
/// not stay mirrored: the other node may not know of it, and take the lead over in the old
/// generation.
///
/// # Errors
/// If the part is not away.
///
/// # Panics
/// If the generation is not higher than that of `newest`.
pub fn force_part(
    newest: &Config,
    part: &PartName,
    storage: Incarnation,
    generation: u32,
    arbiter: Arbiter,
    uid: u64,
) -> Result<Config, FormError> {
    match newest.standing(part) {
        None => return Err(FormError::UnknownPart(part.clone())),
        Some(Standing::Mirror | Standing::Alone) => {
            return Err(FormError::NotAway(part.clone()));
        }
        Some(Standing::Away) => {}
    }
    let mut new = begin(newest, generation, arbiter, uid);
    let node = new.primary.clone();
    if !mutated(Mutation::ForcePartKeepsMirror) {
        go_alone(&mut new, &node);
    }
    new.in_sync
        .insert(part.clone(), BTreeSet::from([Replica { node, storage }]));
    Ok(new)
}

pub(crate) fn begin(newest: &Config, generation: u32, arbiter: Arbiter, uid: u64) -> Config {
    Config {
        epoch: newest.epoch.next_in_generation(generation),
        uid,
        origin: origin_of(uid),
        reason: Reason::Force,
        arbiter,
        ..newest.clone()
    }
}

/// The origin that a forced promotion with this uid begins.
fn origin_of(uid: u64) -> Origin {
    let folded = (uid >> 32) ^ (uid & 0xffff_ffff);
    let folded = u32::try_from(folded).expect("it has 32 bits");
    Origin(folded.max(1))
}

impl Unit {
    /// `promote --force`: never with a lead that is half installed.
    pub(crate) fn on_promote_force(&mut self, without_witness: bool) {
        let config = &self.hard.config;
        let Some(lead) = self.parts.get(&config.lead) else {
            return;
        };
        if !self.can_be_forced(lead.data) {
            return;
        }
        let generation = config.epoch.generation() + 1;
        let (storage, arbiter) = (lead.storage, self.arbiter_of_force(without_witness));
        let uid = self.seed.next();
        let config = &self.hard.config;
        let config = force(config, &self.me, storage, generation, arbiter, uid);
        self.phase = Phase::Running;
        self.bring_force(Force { config, part: None });
    }

    /// `promote --force --part`: at the primary, of a part that is away, never of one that is half
    /// installed.
    pub(crate) fn on_promote_force_part(&mut self, name: &PartName, without_witness: bool) {
        let config = &self.hard.config;
        let Some(part) = self.parts.get(name) else {
            return self.refuse_command(FormError::UnknownPart(name.clone()));
        };
        let lead = config.lead.clone();
        if !self.is_primary() || self.hard.twin || !self.holds(&lead) {
            return self.refuse_command(FormError::Caller {
                form: Reason::Force,
                may: "primary",
                caller: self.me.clone(),
                epoch: config.epoch,
            });
        }
        if !self.can_be_forced(part.data) {
            return;
        }
        let generation = config.epoch.generation() + 1;
        let expected = config.id();
        let (storage, arbiter) = (part.storage, self.arbiter_of_force(without_witness));
        let uid = self.seed.next();
        let made = force_part(&self.hard.config, name, storage, generation, arbiter, uid);
        match made {
            Ok(config) => self.bring_force(Force {
                config,
                part: Some(ForcedPart {
                    part: name.clone(),
                    expected,
                }),
            }),
            Err(error) => self.refuse_command(error),
        }
    }

    /// What is half installed, or lies on a disk that failed, is never promoted.
    fn can_be_forced(&self, data: DataState) -> bool {
        !self.failed
            && match data {
                DataState::Complete => true,
                DataState::Inconsistent => mutated(Mutation::ForceInconsistent),
                DataState::Failed => false,
            }
    }

    fn arbiter_of_force(&self, without_witness: bool) -> Arbiter {
        match without_witness {
            true => Arbiter::None(LonePolicy::Stop),
            false => self.hard.config.arbiter.clone(),
        }
    }

    /// The witness stores it, or without one this node acts by it at once.
    fn bring_force(&mut self, force: Force) {
        match force.config.arbiter {
            Arbiter::Witness { .. } => self.register.forcing = Some(force),
            Arbiter::None(_) => self.adopt(force.config),
        }
    }

    fn refuse_command(&mut self, error: FormError) {
        self.push(Act::Notice(Notice::Refused(error)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_promotion_begins_an_origin() {
        assert_ne!(origin_of(0), Origin::NONE);
        assert_ne!(origin_of(7 << 32 | 7), Origin::NONE);
        assert_ne!(origin_of(7), origin_of(8));
        assert_ne!(origin_of(7 << 32), origin_of(8 << 32));
    }
}
