//! What a unit wants done.

use kine2_wal::{Entry, LogIndex, Position};

use crate::config::ConfigId;
use crate::forms::FormError;
use crate::hard_state::{DataState, HardState};
use crate::ids::{Incarnation, NodeRef, PartName, RequestId};
use crate::message::Frame;
use crate::quarantine::Quarantine;
use crate::witness::WitnessCall;

/// Number of a disk write of a unit; they rise over all its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// A thing to do. Steps are done in the order given, each only when the write it names is durable;
/// a step that waits holds back those after it.
///
/// `after` names a write of the lead part: the newest of the unit's hard state. So nothing is sent,
/// committed, answered, or written on another part's disk under a configuration, a run or an
/// intent that a crash could take back (`repl C4`, D2, L3, X1). Durability of entries needs no
/// such wait: acknowledgements and commits come out only after [`Event::Written`].
///
/// [`Event::Written`]: crate::Event::Written
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The write that must be durable first; `WriteId(0)` for none.
    pub after: WriteId,
    /// What is to be done.
    pub act: Act,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Give this to the part's disk; report [`Event::Written`] when it is durable. Writes of one
    /// part become durable in the order given. A part fails for good with its first failed write.
    ///
    /// [`Event::Written`]: crate::Event::Written
    Write(Write),
    /// Send to the peer, if there is a stream; it may get lost.
    Send(Box<Frame>),
    /// Call the witness it names; it may get lost.
    Call(Box<WitnessCall>),
    /// Entries up to here are committed: apply them, in order.
    Apply {
        /// The part.
        part: PartName,
        /// The last of them.
        through: LogIndex,
    },
    /// Answer a client. What it may see is applied by the steps before.
    Answer {
        /// The client's request.
        request: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Read durable entries from the part's log, as many as fit, and report [`Event::LogRead`].
    ///
    /// [`Event::LogRead`]: crate::Event::LogRead
    ReadLog {
        /// The part.
        part: PartName,
        /// The first entry.
        from: LogIndex,
        /// The last one wanted.
        through: LogIndex,
        /// Payload bytes after which to end.
        bytes_max: usize,
    },
    /// Make a snapshot of the part's state as it is, and report [`Event::SnapshotMade`]
    /// (`repl N1`).
    ///
    /// [`Event::SnapshotMade`]: crate::Event::SnapshotMade
    MakeSnapshot {
        /// The part.
        part: PartName,
    },
    /// Send the snapshot of this position to the peer on a stream of its own.
    SendSnapshot {
        /// The part.
        part: PartName,
        /// The entry it ends with.
        position: Position,
    },
    /// Take in the snapshot that comes on a stream of its own, beside the old state, and report
    /// [`Event::SnapshotReceived`] when it is complete and durable (`repl N4`).
    ///
    /// [`Event::SnapshotReceived`]: crate::Event::SnapshotReceived
    ReceiveSnapshot {
        /// The part.
        part: PartName,
        /// Who sends it.
        sender: NodeRef,
        /// The entry it ends with.
        position: Position,
    },
    /// The part is served from now on, or not any more: streams and addresses follow
    /// (`repl S3`, S4).
    Serve {
        /// The part.
        part: PartName,
        /// True if it is served as the primary's.
        active: bool,
    },
    /// Put this away durably, and report [`Event::Quarantined`] (`repl Q1`). The same may be asked
    /// for again after a restart.
    ///
    /// [`Event::Quarantined`]: crate::Event::Quarantined
    Quarantine(Quarantine),
    /// Ask the gateways of the arbiter (policy `ping`) whether this node is on the network, and
    /// report [`Event::Pinged`]. An answer that comes late is not counted.
    ///
    /// [`Event::Pinged`]: crate::Event::Pinged
    Ping {
        /// Number of the question.
        number: u64,
    },
    /// Something the operator should know.
    Notice(Notice),
}

/// A write to one part's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The part.
    pub part: PartName,
    /// Its number.
    pub id: WriteId,
    /// What is written, in this order; one flush for all.
    pub records: Vec<Record>,
}

/// A record on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The unit's hard state; in the lead part only.
    Hard(Box<HardState>),
    /// The log ends here; what follows never was.
    Truncate(Position),
    /// Entries at the log's end.
    Entries(Vec<Entry>),
    /// Switch to the snapshot received: the state is the one of this position, and the log is
    /// empty after it. One durable step (`repl N4`).
    Reset(Position),
    /// Whether the part's data can be used.
    Data(DataState),
    /// The part's storage is another one from here on: no in-sync set names it (`repl K6`).
    Storage(Incarnation),
}

/// Answer to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The proposed entry is committed, and applied by the steps before.
    Committed(LogIndex),
    /// The state as applied up to here, or later, may be read.
    ReadAt(LogIndex),
    /// This node does not order the part; nothing was tried. The primary of this configuration
    /// may be asked, once (`repl S2`).
    NotPrimary(ConfigId, NodeRef),
    /// The proposal may or may not be committed; it must not be repeated (`repl section 10`,
    /// Ambiguous writes).
    Unknown,
    /// Nobody serves the part now; nothing was tried.
    Unavailable,
    /// Too much is under way; nothing was tried.
    Busy,
}

/// Something the operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Another configuration is in force here.
    Adopted(ConfigId),
    /// The same epoch was made twice (`repl section 12`).
    Twin(ConfigId),
    /// A part's log or state contradicts the primary's where both are final.
    Diverged(PartName),
    /// What a part held beyond the primary's log is in quarantine, and given up here.
    Quarantined(PartName),
    /// What the operator asked for cannot be done.
    Refused(FormError),
    /// The register at the witness is older than what this node knows (`repl W2`).
    WitnessRegressed,
    /// A planned handover was called off.
    SwapOff,
    /// A disk of this part failed.
    PartFailed(PartName),
    /// What was final of this part is not here: the disk or the machine was set back (`repl I4`).
    Reverted(PartName),
}
