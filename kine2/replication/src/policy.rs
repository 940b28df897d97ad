//! Who decides changes of a configuration, and the policies kept in it.

use crate::ids::{NodeName, WitnessId};

/// Where the register of a unit is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Arbiter {
    /// At a witness.
    Witness {
        /// Which one; another at the same address is not it (`repl W1`).
        id: WitnessId,
        /// How nodes reach it.
        address: String,
    },
    /// There is none.
    None(LonePolicy),
}

/// What a node does without a witness when it loses its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LonePolicy {
    /// Nobody goes on until the operator promotes a node.
    Stop,
    /// The primary goes on; the register is at the primary.
    PreferPrimary,
}

/// Policies of a unit, changed by commands only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policies {
    /// Give a part that is away back to its holder by a swap (`repl K7`).
    pub swap_back: bool,
    /// A node in sync alone serves after a restart without hearing from anybody.
    pub boot_alone: bool,
    /// The node that shall be primary when both are well.
    pub preferred: Option<NodeName>,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            swap_back: true,
            boot_alone: true,
            preferred: None,
        }
    }
}
