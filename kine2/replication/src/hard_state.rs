//! What a node keeps durably of a unit beside the logs (`repl section 3`).

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::floors::Mark;
use crate::ids::{PartName, Replica};

/// The durable state of a node in a unit: one record of the lead part's log on disk, replaced as
/// a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardState {
    /// The highest configuration adopted.
    pub config: Config,
    /// The highest run used as the primary, or accepted as the other node, in its epoch; 0 on
    /// adopting.
    pub run: u32,
    /// An ADD that may have been sent from this epoch and is not resolved (`repl D2`).
    pub pend_add: Option<PendingAdd>,
    /// A proposed change of the arbiter (`repl X1`).
    pub prop: Option<Config>,
    /// Stopped by the operator.
    pub stopped: bool,
    /// Another configuration is as good as this one (`repl Q2`): nothing is served until a forced
    /// promotion says which counts.
    pub twin: bool,
    /// Parts of which nothing may be dropped that is not in quarantine: the configuration descends
    /// from a forced promotion that did not know what is here (`repl Q1`).
    pub suspect: BTreeSet<PartName>,
    /// How far each part was known to be committed when this was written (`repl I4`).
    pub known: BTreeMap<PartName, Mark>,
    /// Parts that this node is in sync for by its configuration and has not all of that was final:
    /// it was set back (`repl I4`).
    pub reverted: BTreeSet<PartName>,
}

/// An ADD in doubt. The replica is kept too: only its acknowledgements count while the part is
/// joint, so that another node in its place cannot stand in for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingAdd {
    /// The part.
    pub part: PartName,
    /// Who would be in sync.
    pub replica: Replica,
}

impl HardState {
    /// The state on adopting `config`.
    #[must_use]
    pub fn adopting(config: Config) -> Self {
        Self {
            config,
            run: 0,
            pend_add: None,
            prop: None,
            stopped: false,
            twin: false,
            suspect: BTreeSet::new(),
            known: BTreeMap::new(),
            reverted: BTreeSet::new(),
        }
    }
}

/// Whether a part's data can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataState {
    /// A state and a log that follows from it: up to date while in sync, else outdated.
    #[default]
    Complete,
    /// Half installed (`repl I3`): can never be promoted.
    Inconsistent,
    /// A write or an fsync failed (`repl I1`).
    Failed,
}
