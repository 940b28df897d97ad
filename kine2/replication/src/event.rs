//! What happens to a unit.

use bytes::Bytes;
use kine2_wal::{Entry, Position};

use crate::ids::{Incarnation, PartName, RequestId, WitnessId, WitnessLife};
use crate::message::Frame;
use crate::output::WriteId;
use crate::part::LoadedPart;
use crate::policy::{Arbiter, Policies};
use crate::quarantine::Quarantine;
use crate::witness::WitnessWord;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// All writes of this part up to this one are durable.
    Written {
        /// The part.
        part: PartName,
        /// The last of them.
        through: WriteId,
    },
    /// Answer to [`Act::ReadLog`]: the position before the first entry wanted, and entries. If the
    /// log was cut meanwhile, the new base and no entries.
    ///
    /// [`Act::ReadLog`]: crate::Act::ReadLog
    LogRead {
        /// The part.
        part: PartName,
        /// The position before them.
        prev: Position,
        /// The entries, without a gap.
        entries: Vec<Entry>,
    },
    /// The log of the part was given up before this position, which is durable in a checkpoint.
    LogCut {
        /// The part.
        part: PartName,
        /// The new base.
        base: Position,
    },
    /// A frame came from the peer.
    Frame(Box<Frame>),
    /// The state of the streams to the peer changed.
    Link(Link),
    /// A session with a witness was opened; it names the witness's start (`repl W7`).
    WitnessSession {
        /// The witness.
        witness: WitnessId,
        /// Its start.
        life: WitnessLife,
    },
    /// The witness said something.
    Witness(Box<WitnessWord>),
    /// A client wants an entry ordered.
    Propose {
        /// The part.
        part: PartName,
        /// The entry's payload.
        payload: Bytes,
        /// The client's request.
        request: RequestId,
    },
    /// A client wants to read what is newest.
    Read {
        /// The part.
        part: PartName,
        /// The client's request.
        request: RequestId,
    },
    /// Answer to [`Act::MakeSnapshot`].
    ///
    /// [`Act::MakeSnapshot`]: crate::Act::MakeSnapshot
    SnapshotMade {
        /// The part.
        part: PartName,
        /// The entry it ends with: one that was applied.
        position: Position,
    },
    /// The snapshot being received is complete and durable beside the old state.
    SnapshotReceived {
        /// The part.
        part: PartName,
        /// The entry it ends with.
        position: Position,
    },
    /// What [`Act::Quarantine`] asked for is durable.
    ///
    /// [`Act::Quarantine`]: crate::Act::Quarantine
    Quarantined(Quarantine),
    /// A write, an fsync or a read of this part's disk failed (`repl I1`).
    DiskFailed {
        /// The part.
        part: PartName,
    },
    /// The node has storage of a part it had none of: empty, of a part that is new, or made when a
    /// configuration first named the part.
    PartAdded {
        /// The part.
        part: PartName,
        /// What is there.
        loaded: Box<LoadedPart>,
    },
    /// Answer to [`Act::Ping`]: whether one of the gateways answered.
    ///
    /// [`Act::Ping`]: crate::Act::Ping
    Pinged {
        /// Number of the question.
        number: u64,
        /// One did.
        answered: bool,
    },
    /// The operator wants something.
    Command(Command),
}

/// State of the streams to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A stream is up.
    Up,
    /// All streams ended or were reset.
    Down,
    /// After [`Link::Down`], a new connection was refused on each link: nobody listens there.
    Refused,
}

/// A command of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Hand over to the peer (`repl section 10`, Swap).
    Swap {
        /// Also if parts go away by it.
        partial: bool,
    },
    /// Stop durably (`repl S5`).
    Stop {
        /// Also if nobody can go on.
        force: bool,
    },
    /// Start again.
    Start,
    /// Go on as the primary: allowed if this node is it by the newest known configuration.
    Promote,
    /// Go on as the primary although others may know more (`repl section 12`). The other node must
    /// be off. Without a witness the arbiter is none from then on.
    PromoteForce {
        /// Do not ask the witness.
        without_witness: bool,
    },
    /// Go on as the primary in a part that is away, with what this node has of it, though its
    /// holder may have more. This node is the primary.
    PromoteForcePart {
        /// The part.
        part: PartName,
        /// Do not ask the witness.
        without_witness: bool,
    },
    /// Give up what this node has of a part that diverged: all beyond the primary's log goes to
    /// quarantine, and the part is filled anew.
    Rejoin(PartName),
    /// Change the unit's policies.
    SetPolicies(Policies),
    /// Add a part; the primary has its storage, reported by [`Event::PartAdded`] before.
    NewPart {
        /// Its name.
        part: PartName,
        /// The primary's storage of it.
        storage: Incarnation,
    },
    /// Delete a part that the primary holds; not the lead.
    DeletePart(PartName),
    /// Move the register to another arbiter (`repl section 11`).
    ChangeArbiter {
        /// The new one.
        arbiter: Arbiter,
        /// The old one cannot be asked.
        old_lost: bool,
    },
}
