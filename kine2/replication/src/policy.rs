//! Who decides changes of a configuration, and the policies kept in it.

use std::net::IpAddr;

use crate::ids::{NodeName, WitnessId};

/// Addresses that policy `ping` asks at most.
pub const GATEWAYS_MAX: usize = 4;

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LonePolicy {
    /// Nobody goes on until the operator promotes a node.
    Stop,
    /// The primary goes on; the register is at the primary.
    PreferPrimary,
    /// Either node goes on if one of these addresses answers it: [`GATEWAYS_MAX`] at most, one at
    /// least. Unsafe: where both nodes reach one and not each other, both go on.
    Ping(Vec<IpAddr>),
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
    /// Under policy `ping` the side that loses gives up what it did alone by itself: it goes to
    /// quarantine, and the node is filled anew. Else it waits for the operator.
    pub ping_auto_discard: bool,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            swap_back: true,
            boot_alone: true,
            preferred: None,
            ping_auto_discard: false,
        }
    }
}
