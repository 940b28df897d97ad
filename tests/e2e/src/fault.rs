//! What happens to a pair, and how it is mended.

use std::fmt;

use rustix::process::Signal;

use crate::pair::{Node, Pair};

/// Something that happens to a pair in service, whose primary is the node named first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The primary is killed.
    KillPrimary,
    /// The secondary is killed.
    KillSecondary,
    /// The primary stands still.
    StopPrimary,
    /// The secondary stands still.
    StopSecondary,
    /// The operator hands the role over.
    Swap,
    /// The primary is asked to end.
    EndPrimary,
    /// The witness is killed.
    KillWitness,
    /// Both nodes are killed at once.
    KillBoth,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::KillPrimary,
        Self::KillSecondary,
        Self::StopPrimary,
        Self::StopSecondary,
        Self::Swap,
        Self::EndPrimary,
        Self::KillWitness,
        Self::KillBoth,
    ];

    /// Does it.
    ///
    /// # Panics
    /// If it cannot be done.
    pub fn strike(self, pair: &mut Pair, primary: Node) {
        let secondary = primary.other();
        match self {
            Self::KillPrimary => pair.kill(primary),
            Self::KillSecondary => pair.kill(secondary),
            Self::StopPrimary => pair.signal(primary, Signal::STOP),
            Self::StopSecondary => pair.signal(secondary, Signal::STOP),
            // Refused while the other node is not in sync.
            Self::Swap => drop(pair.try_kine2(primary, &["swap"])),
            Self::EndPrimary => pair.signal(primary, Signal::TERM),
            Self::KillWitness => pair.kill_witness(),
            Self::KillBoth => {
                pair.kill(primary);
                pair.kill(secondary);
            }
        }
    }

    /// Brings back what was lost.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn mend(self, pair: &mut Pair, primary: Node) {
        let secondary = primary.other();
        match self {
            Self::KillPrimary => pair.start_node(primary),
            Self::KillSecondary => pair.start_node(secondary),
            Self::StopPrimary => pair.signal(primary, Signal::CONT),
            Self::StopSecondary => pair.signal(secondary, Signal::CONT),
            Self::Swap => {}
            Self::EndPrimary => {
                pair.wait_for_end(primary);
                pair.start_node(primary);
            }
            Self::KillWitness => pair.start_witness(),
            Self::KillBoth => {
                pair.start_node(secondary);
                pair.start_node(primary);
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillPrimary => "primary killed",
            Self::KillSecondary => "secondary killed",
            Self::StopPrimary => "primary stands still",
            Self::StopSecondary => "secondary stands still",
            Self::Swap => "swap",
            Self::EndPrimary => "primary ended by SIGTERM",
            Self::KillWitness => "witness killed",
            Self::KillBoth => "both killed",
        })
    }
}
