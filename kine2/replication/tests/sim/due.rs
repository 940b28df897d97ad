//! What is under way in a simulation.

use kine2_replication::{
    Frame, Link, LogIndex, PartName, Position, Quarantine, WitnessCall, WitnessId, WitnessLife,
    WitnessWord,
};

/// Something under way.
#[derive(Clone, Debug)]
pub enum Due {
    Frame(usize, Box<Frame>),
    Link(usize, Link),
    Synced(usize, PartName),
    LogRead(usize, u64, PartName, LogIndex, LogIndex, usize),
    SnapshotMade(usize, u64, PartName),
    SnapshotData(usize, PartName, Position),
    SnapshotReceived(usize, u64, PartName, Position),
    Quarantined(usize, u64, Box<Quarantine>),
    Pinged(usize, u64, u64, bool),
    Call(usize, Box<WitnessCall>),
    Word(usize, Box<WitnessWord>),
    Session(usize, bool),
    Opened(usize, WitnessId, WitnessLife),
    WitnessSynced(usize),
    Restart(usize),
    /// The disk works again: the node is started anew.
    Replace(usize),
    RestartWitness(usize),
    Client,
    /// A read that reached a node while it was frozen.
    LateRead(usize, PartName),
    /// A slow disk catches up.
    Fast(usize, PartName),
    Fault,
    /// The node that asks is cut off.
    CutOff(usize),
    AmbushOver,
    /// The node starts anew while it is cut off from its peer.
    CrashApart(usize),
    /// The two nodes hear each other again.
    Meet,
    /// All links are whole after an ambush.
    Healed,
}

impl Due {
    /// The node that takes it in.
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::Frame(n, _)
            | Self::Link(n, _)
            | Self::Synced(n, _)
            | Self::LogRead(n, ..)
            | Self::SnapshotMade(n, ..)
            | Self::SnapshotData(n, ..)
            | Self::SnapshotReceived(n, ..)
            | Self::Quarantined(n, ..)
            | Self::Pinged(n, ..)
            | Self::LateRead(n, _)
            | Self::Opened(n, ..)
            | Self::Word(n, _) => Some(*n),
            Self::Call(..)
            | Self::Session(..)
            | Self::WitnessSynced(_)
            | Self::Restart(_)
            | Self::Replace(_)
            | Self::Fast(..)
            | Self::RestartWitness(_)
            | Self::Client
            | Self::CutOff(_)
            | Self::AmbushOver
            | Self::CrashApart(_)
            | Self::Meet
            | Self::Healed
            | Self::Fault => None,
        }
    }
}
