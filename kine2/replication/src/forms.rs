//! The forms: the only ways a configuration changes (`repl section 5`, the table under C5).
//!
//! A form makes the new record from the stored one, whole and exactly. The witness makes it again
//! and compares (`repl C2`), so a caller cannot write what its form does not say.

mod broken;

use std::collections::BTreeSet;
use std::fmt;

use kine2_mutation::{Mutation, mutated};
use thiserror::Error;

use crate::config::{Config, PARTS_MAX, ShapeError};
use crate::ids::{Incarnation, NodeRef, PartName, Replica};
use crate::policy::{Arbiter, Policies};

/// A change of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The primary goes on without its peer, in all parts at once; also the bump that ends an ADD
    /// in doubt (`repl D3`).
    Remove,
    /// The primary goes on without its peer in this part, which is not the lead.
    Drop(PartName),
    /// The other node in sync for the lead takes over from a suspected primary.
    Takeover,
    /// The primary takes this replica of the peer into the part's in-sync set.
    Add {
        /// The part.
        part: PartName,
        /// The peer's data of it.
        replica: Replica,
    },
    /// The primary hands over to the peer; who is in sync stays.
    Swap,
    /// The primary steps out and hands over to the peer.
    Abdicate,
    /// The primary adds a part, in sync for it alone.
    NewPart {
        /// Its name.
        part: PartName,
        /// Incarnation of the primary's storage of it.
        storage: Incarnation,
    },
    /// The primary deletes a part it is in sync for, not the lead.
    DeletePart(PartName),
    /// The primary changes the policies.
    Policy(Policies),
    /// The primary moves the register to another arbiter; the old one is closed for good.
    Move {
        /// The new one.
        arbiter: Arbiter,
        /// The new generation.
        generation: u32,
    },
}

/// What made a configuration; a word for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The first configuration.
    Init,
    /// [`Form::Remove`].
    Remove,
    /// [`Form::Drop`].
    Drop,
    /// [`Form::Takeover`].
    Takeover,
    /// [`Form::Add`].
    Add,
    /// [`Form::Swap`].
    Swap,
    /// [`Form::Abdicate`].
    Abdicate,
    /// [`Form::NewPart`] or [`Form::DeletePart`].
    Parts,
    /// [`Form::Policy`].
    Policy,
    /// [`Form::Move`], and the change of an arbiter that is lost (`repl section 11`).
    Move,
    /// A forced promotion by the operator (`repl section 12`).
    Force,
    /// A node that lost its peer went alone, as a gateway answered it (`repl section 11`).
    Ping,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Init => "init",
            Self::Remove => "remove",
            Self::Drop => "drop",
            Self::Takeover => "takeover",
            Self::Add => "add",
            Self::Swap => "swap",
            Self::Abdicate => "abdicate",
            Self::Parts => "parts",
            Self::Policy => "policy",
            Self::Move => "move",
            Self::Force => "force",
            Self::Ping => "ping",
        })
    }
}

/// Why a form cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FormError {
    /// The caller may not use it.
    #[error("{form} is for the {may}; {caller} is not it in epoch {epoch}")]
    Caller {
        /// Name of the form.
        form: Reason,
        /// Who may.
        may: &'static str,
        /// Who wanted to.
        caller: NodeRef,
        /// In which configuration.
        epoch: crate::Epoch,
    },
    /// There is no other node in sync for the lead.
    #[error("{0} needs a second node in sync for the lead part")]
    NoPeer(Reason),
    /// The part is not of the unit.
    #[error("the unit has no part {0}")]
    UnknownPart(PartName),
    /// The part exists already.
    #[error("the unit has a part {0} already")]
    KnownPart(PartName),
    /// The lead cannot be dropped or deleted by itself.
    #[error("{0} is the lead part; only a part that is not can be dropped or deleted")]
    IsLead(PartName),
    /// The primary is not in sync for the part.
    #[error("the primary is not in sync for part {0}")]
    NotHeld(PartName),
    /// ADD to a part that is mirrored already.
    #[error("part {0} is mirrored already")]
    Mirrored(PartName),
    /// ADD of the primary's own name.
    #[error("{0} is the primary itself; the other node can be added")]
    AddsPrimary(NodeRef),
    /// ADD to a part of a node that is not in the lead.
    #[error("{0} is not in sync for the lead part, which is added first")]
    LeadFirst(NodeRef),
    /// Too many parts.
    #[error("the unit has {PARTS_MAX} parts, the most accepted")]
    PartsMax,
    /// A part is forced that is not away.
    #[error("part {0} is not away; only one that the primary is not in sync for can be forced")]
    NotAway(PartName),
    /// What it makes cannot be kept.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The generation is not higher.
    #[error("generation {0} is not higher than that of the configuration, {1}")]
    Generation(u32, u32),
}

impl Form {
    /// Its name, as the record made by it says.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Remove => Reason::Remove,
            Self::Drop(_) => Reason::Drop,
            Self::Takeover => Reason::Takeover,
            Self::Add { .. } => Reason::Add,
            Self::Swap => Reason::Swap,
            Self::Abdicate => Reason::Abdicate,
            Self::NewPart { .. } | Self::DeletePart(_) => Reason::Parts,
            Self::Policy(_) => Reason::Policy,
            Self::Move { .. } => Reason::Move,
        }
    }

    /// The record that `caller` makes of `stored` by this form, with this uid.
    ///
    /// # Errors
    /// Why this caller cannot use the form on this record.
    pub fn make(&self, stored: &Config, caller: &NodeRef, uid: u64) -> Result<Config, FormError> {
        self.check_caller(stored, caller)?;
        let mut new = Config {
            epoch: stored.epoch.next(),
            uid,
            reason: self.reason(),
            ..stored.clone()
        };
        match self {
            Self::Remove | Self::Takeover => go_alone(&mut new, caller),
            Self::Drop(part) => drop_part(&mut new, part)?,
            Self::Add { part, replica } => add(&mut new, part, replica)?,
            Self::Swap => new.primary = lead_peer(stored, Reason::Swap)?,
            Self::Abdicate => {
                let peer = lead_peer(stored, Reason::Abdicate)?;
                go_alone(&mut new, &peer);
            }
            Self::NewPart { part, storage } => new_part(&mut new, part, *storage)?,
            Self::DeletePart(part) => delete_part(&mut new, part)?,
            Self::Policy(policies) => new.policies = policies.clone(),
            Self::Move {
                arbiter,
                generation,
            } => {
                if *generation <= stored.epoch.generation() {
                    let own = stored.epoch.generation();
                    return Err(FormError::Generation(*generation, own));
                }
                new.epoch = stored.epoch.next_in_generation(*generation);
                new.arbiter = arbiter.clone();
            }
        }
        new.check_names()?;
        broken::break_rule(self, stored, caller, &mut new);
        Ok(new)
    }

    fn check_caller(&self, stored: &Config, caller: &NodeRef) -> Result<(), FormError> {
        let is_primary = stored.primary == *caller;
        let (allowed, may) = match self {
            Self::Takeover => (
                !is_primary && (stored.in_lead(caller) || mutated(Mutation::StaleTakeover)),
                "other node in sync for the lead part",
            ),
            _ => (is_primary, "primary"),
        };
        if allowed {
            return Ok(());
        }
        Err(FormError::Caller {
            form: self.reason(),
            may,
            caller: caller.clone(),
            epoch: stored.epoch,
        })
    }
}

/// `node` is the primary and goes on alone in every part it is in sync for; what only the other
/// holds stays with the other (AWAY).
pub(crate) fn go_alone(config: &mut Config, node: &NodeRef) {
    config.primary = node.clone();
    for set in config.in_sync.values_mut() {
        if set.iter().any(|r| r.node == *node) {
            set.retain(|r| r.node == *node);
        }
    }
}

fn drop_part(config: &mut Config, part: &PartName) -> Result<(), FormError> {
    let primary = config.primary.clone();
    held_part(config, part, &primary)?.retain(|r| r.node == primary);
    Ok(())
}

fn add(config: &mut Config, part: &PartName, replica: &Replica) -> Result<(), FormError> {
    let primary = config.primary.clone();
    if replica.node.name == primary.name {
        return Err(FormError::AddsPrimary(replica.node.clone()));
    }
    let is_lead = *part == config.lead;
    if !is_lead && !config.in_lead(&replica.node) {
        return Err(FormError::LeadFirst(replica.node.clone()));
    }
    let Some(set) = config.in_sync.get_mut(part) else {
        return Err(FormError::UnknownPart(part.clone()));
    };
    if !set.iter().any(|r| r.node == primary) {
        return Err(FormError::NotHeld(part.clone()));
    }
    if set.len() != 1 {
        return Err(FormError::Mirrored(part.clone()));
    }
    set.insert(replica.clone());
    if is_lead {
        config.members = BTreeSet::from([primary, replica.node.clone()]);
    }
    Ok(())
}

fn lead_peer(config: &Config, form: Reason) -> Result<NodeRef, FormError> {
    config
        .replicas(&config.lead)
        .map(|r| &r.node)
        .find(|node| **node != config.primary)
        .cloned()
        .ok_or(FormError::NoPeer(form))
}

fn new_part(config: &mut Config, part: &PartName, storage: Incarnation) -> Result<(), FormError> {
    if config.in_sync.contains_key(part) {
        return Err(FormError::KnownPart(part.clone()));
    }
    if config.in_sync.len() == PARTS_MAX {
        return Err(FormError::PartsMax);
    }
    let node = config.primary.clone();
    let set = BTreeSet::from([Replica { node, storage }]);
    config.in_sync.insert(part.clone(), set);
    Ok(())
}

fn delete_part(config: &mut Config, part: &PartName) -> Result<(), FormError> {
    let primary = config.primary.clone();
    held_part(config, part, &primary)?;
    config.in_sync.remove(part);
    Ok(())
}

/// The set of a part other than the lead that `primary` is in.
fn held_part<'c>(
    config: &'c mut Config,
    part: &PartName,
    primary: &NodeRef,
) -> Result<&'c mut BTreeSet<Replica>, FormError> {
    if *part == config.lead {
        return Err(FormError::IsLead(part.clone()));
    }
    match config.in_sync.get_mut(part) {
        None => Err(FormError::UnknownPart(part.clone())),
        Some(set) if !set.iter().any(|r| r.node == *primary) => {
            Err(FormError::NotHeld(part.clone()))
        }
        Some(set) => Ok(set),
    }
}

#[cfg(test)]
mod tests;
