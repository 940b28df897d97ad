//! Frames between the two nodes of a unit (`repl section 6`, kine2.Peer).

use std::collections::BTreeMap;

use kine2_wal::{Entry, LogIndex, Position};

use crate::config::{Config, ConfigId};
use crate::hard_state::DataState;
use crate::history::History;
use crate::ids::{Incarnation, NodeRef, PartName, RegisterKey};

/// A frame. Every one says which configuration and run its sender acts by (`repl C5`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Cluster and unit.
    pub key: RegisterKey,
    /// Who sends.
    pub from: NodeRef,
    /// The sender's configuration.
    pub id: ConfigId,
    /// The primary's run, or the one the other node accepted.
    pub run: u32,
    /// The sender's number of this frame; rises while the sender is up.
    pub number: u64,
    /// The highest number of a frame that the sender took in, sent in this same configuration and
    /// run (`repl R2`); 0 for none.
    pub echo: u64,
    /// What it says.
    pub body: Body,
}

/// Names an opening of a part's stream. Made by the receiver, repeated by the sender in each
/// [`Body::Append`], so that nothing sent for an earlier opening is taken for this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    /// How often the receiver started.
    pub boot: u64,
    /// The receiver's number of the opening.
    pub opening: u64,
}

/// Names a read of a node, over all its starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId {
    /// How often the node started.
    pub boot: u64,
    /// Its number of the read.
    pub number: u64,
}

/// What a node has of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartSummary {
    /// Incarnation of its storage.
    pub storage: Incarnation,
    /// Whether its data can be used.
    pub data: DataState,
    /// The terms of its log.
    pub history: History,
    /// Committed up to here, as far as it knows.
    pub commit: LogIndex,
}

/// A part's stream as its receiver opened it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Which opening.
    pub stream: StreamId,
    /// What the receiver has.
    pub summary: PartSummary,
}

/// What a frame says. P is the primary, S the other node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// P→S: activation (`repl A2`).
    Hello(Box<Config>),
    /// S→P: S is in that configuration and run, and has this.
    HelloAck(BTreeMap<PartName, PartSummary>),
    /// P→S: send the entries after your copy of this position.
    FetchTail {
        /// The part.
        part: PartName,
        /// P's last entry.
        after: Position,
    },
    /// S→P: entries of S after P's last.
    Tail {
        /// The part.
        part: PartName,
        /// The position before them.
        prev: Position,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// P→S: opens the streams of these parts.
    Open {
        /// P's configuration.
        config: Box<Config>,
        /// P's number of the opening.
        opening: u64,
        /// What P has.
        parts: BTreeMap<PartName, PartSummary>,
    },
    /// S→P: answer to [`Body::Open`].
    OpenAck {
        /// Number of the opening.
        opening: u64,
        /// What S has.
        parts: BTreeMap<PartName, Opened>,
    },
    /// P→S: entries.
    Append {
        /// The part.
        part: PartName,
        /// The opening this follows from.
        stream: StreamId,
        /// The position before them.
        prev: Position,
        /// The entries; may be empty.
        entries: Vec<Entry>,
        /// P's commit index.
        commit: LogIndex,
    },
    /// S→P: the log of this part is the same as P's up to here, and durable.
    Ack {
        /// The part.
        part: PartName,
        /// The opening by which that is known.
        stream: StreamId,
        /// The last such entry.
        matched: LogIndex,
    },
    /// S→P: an Append could not be taken in; the part's stream must be opened again.
    Nack {
        /// The part.
        part: PartName,
        /// The opening it followed from.
        stream: StreamId,
    },
    /// P→S: what is final at S in this part is not in P's log (`repl N3`).
    Diverges {
        /// The part.
        part: PartName,
        /// The opening that showed it.
        stream: StreamId,
    },
    /// P→S: are you still in this configuration and run (`repl R2`)?
    ReadConfirm,
    /// S→P: yes.
    ReadConfirmAck,
    /// Both: a sign of life.
    Heartbeat(Heartbeat),
    /// Both: the sender's whole configuration (`repl C5`).
    ConfigNotice(Box<Config>),
    /// S→P: where must I be to read (`repl R3`)?
    ReadIndex {
        /// The part.
        part: PartName,
        /// S's number of the read.
        read: ReadId,
    },
    /// P→S: answer to [`Body::ReadIndex`].
    ReadIndexAck {
        /// S's number of the read.
        read: ReadId,
        /// P's commit index; nothing if P cannot say.
        index: Option<LogIndex>,
    },
    /// P→S: a snapshot of a part follows on a stream of its own (`repl N1`).
    SnapshotOffer {
        /// The part.
        part: PartName,
        /// The opening that showed the need.
        stream: StreamId,
        /// The entry it ends with.
        position: Position,
    },
    /// S→P: send it. Said again to every offer until it has come.
    SnapshotAccept {
        /// The part.
        part: PartName,
        /// The entry it ends with.
        position: Position,
        /// S's number of this try: with another number S begins anew.
        take: u64,
    },
    /// S→P: it is installed and durable; open the stream.
    SnapshotDone {
        /// The part.
        part: PartName,
        /// The entry it ended with.
        position: Position,
    },
    /// P→S: the change of a lost arbiter (`repl X1`).
    Propose {
        /// The configuration to come.
        config: Box<Config>,
        /// Who must accept it: the other node in sync for the lead, or the one that an ADD in doubt
        /// names.
        to: NodeRef,
    },
    /// S→P: S goes on without being in sync (`repl section 10`, Leave).
    Leave,
    /// S→P: S's disk of this part failed (`repl I1`).
    PartFailed(PartName),
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// True if the sender is the primary and the lead part is active.
    pub active: bool,
    /// P's commit indexes.
    pub commits: BTreeMap<PartName, LogIndex>,
}
