//! What is under way in a simulation.

use std::sync::Arc;

use kine2_node::LogRead;
use kine2_replication::{
    Frame, Link, LogIndex, Position, Quarantine, WitnessCall, WitnessId, WitnessLife, WitnessWord,
};

use crate::episodes::Episode;
use crate::history::{Ask, Reply};
use crate::process::Caller;

/// Something under way. Numbers name the machine, witness, client or watch that it is for.
#[derive(Clone, Debug)]
pub enum Due {
    Frame(usize, Box<Frame>),
    Link(usize, Link),
    Flush(usize),
    LogRead(usize, u64, LogRead),
    SnapshotMade(usize, u64),
    SnapshotData(usize, Position, Arc<Vec<u8>>),
    SnapshotReceived(usize, u64, Position, Arc<Vec<u8>>),
    /// The state's engine does the next thing.
    Engine(usize, u64),
    Cut(usize, u64, LogIndex),
    /// What was overruled by force is put away.
    Quarantined(usize, u64, Box<Quarantine>),
    /// The gateway answers a question of this process, or nothing does.
    Pinged(usize, u64, u64, bool),
    Call(usize, Box<WitnessCall>),
    Word(usize, Box<WitnessWord>),
    /// A process opens its sessions with the witnesses.
    SessionWanted(usize),
    /// The witnesses notice that this process of a machine does not speak any more.
    SessionLost(usize, u64),
    /// A process of a machine knows that its session is open.
    Opened(usize, u64, WitnessId, WitnessLife),
    WitnessFlush(usize),
    Start(usize),
    /// Down and up again: its disk works again.
    Restart(usize),
    StartWitness(usize),
    /// A slow disk is fast again.
    Fast(usize),
    /// A machine lost all it had.
    Wiped(usize),
    /// A broken disk works again.
    Mend(usize),
    /// A link is fast again.
    NetFast,
    /// A client is free.
    Client(usize),
    Request(usize, Caller, Ask),
    Said(Caller, Said),
    Timeout(Caller),
    /// A client that was refused asks the other node.
    Retry(Caller),
    /// A watch without a stream looks for a node; one with a stream asks how far it is.
    Watch(usize),
    Fault,
    Episode(Episode),
    /// Images of the disks are made, to go back to later.
    KeepImages,
    /// Bits turn over on the disk of a machine that is down; then it starts.
    Rot(usize),
}

/// What a client is told by a node.
#[derive(Clone, Debug)]
pub enum Said {
    Reply(Reply),
    /// Nothing was tried: the other node may be asked.
    NotTried,
    /// It may have been carried out, or may be later.
    Unknown,
}

impl Due {
    /// The machine that takes it in: one that is frozen does so later.
    #[must_use]
    pub fn machine(&self) -> Option<usize> {
        match self {
            Self::Frame(n, _)
            | Self::Link(n, _)
            | Self::Flush(n)
            | Self::LogRead(n, ..)
            | Self::SnapshotMade(n, _)
            | Self::SnapshotData(n, ..)
            | Self::SnapshotReceived(n, ..)
            | Self::Engine(n, _)
            | Self::Cut(n, ..)
            | Self::Quarantined(n, ..)
            | Self::Pinged(n, ..)
            | Self::Opened(n, ..)
            | Self::Request(n, ..)
            | Self::Word(n, _) => Some(*n),
            Self::Call(..)
            | Self::SessionWanted(_)
            | Self::SessionLost(..)
            | Self::WitnessFlush(_)
            | Self::Start(_)
            | Self::Restart(_)
            | Self::StartWitness(_)
            | Self::Fast(_)
            | Self::Mend(_)
            | Self::Wiped(_)
            | Self::NetFast
            | Self::Client(_)
            | Self::Said(..)
            | Self::Timeout(_)
            | Self::Retry(_)
            | Self::Watch(_)
            | Self::Episode(_)
            | Self::KeepImages
            | Self::Rot(_)
            | Self::Fault => None,
        }
    }
}
