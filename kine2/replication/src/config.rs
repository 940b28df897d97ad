//! The configuration of a unit: one small record that says who may order, commit and serve.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kine2_mutation::{Mutation, mutated};
use kine2_wal::Origin;
use thiserror::Error;

use crate::epoch::Epoch;
use crate::forms::Reason;
use crate::ids::{ClusterId, NAME_BYTES_MAX, NodeRef, PartName, RegisterKey, Replica, UnitName};
use crate::policy::{Arbiter, GATEWAYS_MAX, LonePolicy, Policies};

/// Nodes of a unit at most.
pub const MEMBERS_MAX: usize = 2;
/// Parts of a unit at most.
pub const PARTS_MAX: usize = 16;

/// The configuration of a unit in one epoch. It changes as a whole, by a [`Form`].
///
/// [`Form`]: crate::Form
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The cluster.
    pub cluster: ClusterId,
    /// The unit.
    pub unit: UnitName,
    /// The configuration's number.
    pub epoch: Epoch,
    /// Random; the same epoch with another uid is a twin (`repl section 12`).
    pub uid: u64,
    /// The last forced promotion it descends from (`repl Q2`).
    pub origin: Origin,
    /// Who orders.
    pub primary: NodeRef,
    /// The part whose in-sync nodes may become primary.
    pub lead: PartName,
    /// For each part, who has everything that was promised.
    pub in_sync: BTreeMap<PartName, BTreeSet<Replica>>,
    /// The nodes of the unit, the primary among them.
    pub members: BTreeSet<NodeRef>,
    /// Where the register is.
    pub arbiter: Arbiter,
    /// Policies of the unit.
    pub policies: Policies,
    /// What made this configuration.
    pub reason: Reason,
}

/// Names one configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigId {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its uid.
    pub uid: u64,
    /// The last forced promotion it descends from.
    pub origin: Origin,
}

impl ConfigId {
    /// Q2: neither may give way to the other. They are of one epoch, or were made by forced
    /// promotions that did not know of each other.
    #[must_use]
    pub fn is_twin_of(&self, other: &Self) -> bool {
        let same_epoch = self.epoch == other.epoch && self.uid != other.uid;
        let same_generation = self.epoch.generation() == other.epoch.generation();
        let apart =
            same_generation && self.origin != other.origin && !mutated(Mutation::TwinByEpoch);
        same_epoch || apart
    }
}

impl fmt::Debug for ConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.epoch)
    }
}

/// How a part stands in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Two nodes in sync.
    Mirror,
    /// The primary only.
    Alone,
    /// Only the node that is not primary: served by nobody (`repl K2`).
    Away,
}

/// Why a record is not a configuration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ShapeError {
    /// The lead has no entry among the in-sync sets.
    #[error("the lead part {0} has no in-sync set")]
    NoLead(PartName),
    /// Primary not in sync for the lead.
    #[error("the primary {0} is not in sync for the lead part")]
    PrimaryNotInLead(NodeRef),
    /// An in-sync set is empty, or holds more than two or one node twice.
    #[error("part {0} is in sync on {1} nodes; one or two different ones are accepted")]
    Size(PartName, usize),
    /// A part is mirrored while the lead is not.
    #[error("part {0} is mirrored while the lead is not")]
    MirrorBeforeLead(PartName),
    /// Members are not one or two differently named nodes with the primary among them.
    #[error("the members must be one or two nodes of different names, the primary among them")]
    Members,
    /// Too many parts.
    #[error("{0} parts; at most {PARTS_MAX} are accepted")]
    Parts(usize),
    /// Policy `ping` asks nobody, or too many.
    #[error("policy ping asks {0} addresses; 1 to {GATEWAYS_MAX} are accepted")]
    Gateways(usize),
    /// A name or address is longer than is kept on disk.
    #[error("{what} has {bytes} bytes; at most {NAME_BYTES_MAX} are accepted")]
    Long {
        /// Which.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
}

impl Config {
    /// The first configuration of a unit: `primary` alone, for each of its parts (`repl section
    /// 10`, Bootstrap).
    ///
    /// # Errors
    /// When `lead` is not among `parts`.
    pub fn first(
        key: RegisterKey,
        uid: u64,
        primary: NodeRef,
        lead: PartName,
        parts: impl IntoIterator<Item = (PartName, crate::Incarnation)>,
        arbiter: Arbiter,
        policies: Policies,
    ) -> Result<Self, ShapeError> {
        let replica = |storage| Replica {
            node: primary.clone(),
            storage,
        };
        let config = Self {
            cluster: key.cluster,
            unit: key.unit,
            epoch: Epoch::new(0, 1),
            uid,
            origin: Origin::NONE,
            in_sync: parts
                .into_iter()
                .map(|(part, storage)| (part, BTreeSet::from([replica(storage)])))
                .collect(),
            lead,
            members: BTreeSet::from([primary.clone()]),
            primary,
            arbiter,
            policies,
            reason: Reason::Init,
        };
        config.check_shape()?;
        Ok(config)
    }

    /// Which configuration this is.
    #[must_use]
    pub fn id(&self) -> ConfigId {
        ConfigId {
            epoch: self.epoch,
            uid: self.uid,
            origin: self.origin,
        }
    }

    /// Key of its register.
    #[must_use]
    pub fn key(&self) -> RegisterKey {
        RegisterKey {
            cluster: self.cluster,
            unit: self.unit.clone(),
        }
    }

    /// The other node than `node`, if the unit has one.
    #[must_use]
    pub fn other(&self, node: &NodeRef) -> Option<&NodeRef> {
        self.members.iter().find(|m| m.name != node.name)
    }

    /// Who is in sync for `part`; nobody if the unit has no such part.
    pub fn replicas(&self, part: &PartName) -> impl Iterator<Item = &Replica> {
        self.in_sync.get(part).into_iter().flatten()
    }

    /// The replica of `node` in sync for `part`.
    #[must_use]
    pub fn replica(&self, part: &PartName, node: &NodeRef) -> Option<&Replica> {
        self.replicas(part).find(|r| r.node == *node)
    }

    /// True if `node` is in sync for `part`.
    #[must_use]
    pub fn has(&self, part: &PartName, node: &NodeRef) -> bool {
        self.replica(part, node).is_some()
    }

    /// True if `node` is in sync for the lead part.
    #[must_use]
    pub fn in_lead(&self, node: &NodeRef) -> bool {
        self.has(&self.lead, node)
    }

    /// How `part` stands, if the unit has it.
    #[must_use]
    pub fn standing(&self, part: &PartName) -> Option<Standing> {
        let set = self.in_sync.get(part)?;
        Some(if set.len() == MEMBERS_MAX {
            Standing::Mirror
        } else if self.has(part, &self.primary) {
            Standing::Alone
        } else {
            Standing::Away
        })
    }

    /// Names and addresses are as long as what is kept on disk can hold.
    ///
    /// # Errors
    /// The one that is too long.
    pub fn check_names(&self) -> Result<(), ShapeError> {
        if let Arbiter::None(LonePolicy::Ping(gateways)) = &self.arbiter
            && !(1..=GATEWAYS_MAX).contains(&gateways.len())
        {
            return Err(ShapeError::Gateways(gateways.len()));
        }
        let nodes = self.members.iter().chain([&self.primary]);
        let parts = self.in_sync.keys().chain([&self.lead]);
        let nodes = nodes.chain(self.in_sync.values().flatten().map(|r| &r.node));
        let nodes = nodes.map(|node| ("the name of a node", node.name.as_str()));
        let parts = parts.map(|part| ("the name of a part", part.as_str()));
        let unit = ("the name of the unit", self.unit.as_str());
        let preferred = self.policies.preferred.iter();
        let preferred = preferred.map(|name| ("the name of the preferred node", name.as_str()));
        let address = match &self.arbiter {
            Arbiter::Witness { address, .. } => Some(("the address of the witness", &**address)),
            Arbiter::None(_) => None,
        };
        let mut all = nodes
            .chain(parts)
            .chain([unit])
            .chain(preferred)
            .chain(address);
        match all.find(|(_, text)| text.len() > NAME_BYTES_MAX) {
            Some((what, text)) => Err(ShapeError::Long {
                what,
                bytes: text.len(),
            }),
            None => Ok(()),
        }
    }

    /// The stated shape: the primary is in the lead; no set is empty; a part other than the lead
    /// is mirrored only if the lead is (`repl C5`, the line under the table of forms).
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_shape(&self) -> Result<(), ShapeError> {
        self.check_names()?;
        if self.in_sync.len() > PARTS_MAX {
            return Err(ShapeError::Parts(self.in_sync.len()));
        }
        let Some(lead) = self.in_sync.get(&self.lead) else {
            return Err(ShapeError::NoLead(self.lead.clone()));
        };
        let names: BTreeSet<_> = self.members.iter().map(|m| &m.name).collect();
        if names.len() != self.members.len()
            || !(1..=MEMBERS_MAX).contains(&names.len())
            || !self.members.contains(&self.primary)
        {
            return Err(ShapeError::Members);
        }
        if !self.in_lead(&self.primary) {
            return Err(ShapeError::PrimaryNotInLead(self.primary.clone()));
        }
        for (part, set) in &self.in_sync {
            let names: BTreeSet<_> = set.iter().map(|r| &r.node.name).collect();
            if names.len() != set.len() || !(1..=MEMBERS_MAX).contains(&set.len()) {
                return Err(ShapeError::Size(part.clone(), set.len()));
            }
            if set.len() > lead.len() {
                return Err(ShapeError::MirrorBeforeLead(part.clone()));
            }
        }
        Ok(())
    }
}
