//! What a node wants done.

use bytes::Bytes;
use kine2_mvcc::{Applied, LogPosition, Refusal, StateBatch, StreamId};
use kine2_replication::{Act, ConfigId, Entry, LogIndex, NodeRef, PartName, Position, WriteId};

/// Work for the driver, in the order of the fields.
#[derive(Debug)]
pub struct Output<W> {
    /// To be done or begun in this order.
    pub work: Vec<Work>,
    /// Answers to clients. All they tell is durable wherever it must be.
    pub answers: Vec<(W, Result<Done, Rejected>)>,
    /// The state is another one (a snapshot was taken in): watch streams opened before are gone,
    /// and their clients must be told to come again.
    pub streams_ended: bool,
    /// Watch streams that have something to send.
    pub ready_streams: Vec<StreamId>,
    /// Apply this to the backend, then report [`Event::Saved`]. None comes again before that.
    ///
    /// [`Event::Saved`]: crate::Event::Saved
    pub state: Option<StateBatch>,
    /// Once what was given to the backend is applied, make it durable and report
    /// [`Event::Checkpointed`].
    ///
    /// [`Event::Checkpointed`]: crate::Event::Checkpointed
    pub checkpoint: bool,
    /// Damage to the state that a read met: tell the operator. The alarm is on its way.
    pub damage: Option<String>,
    /// What of the log may go.
    pub cut: Option<Cut>,
}

/// What of the log is not needed any more. Once it is cut, report
/// [`LogCut`](kine2_replication::Event::LogCut).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The first entry that is needed.
    pub below: LogIndex,
    /// The peer is out, and comes back sooner by log than by a snapshot: what there is room for is
    /// kept for it (`repl L6`).
    pub peer_is_out: bool,
}

impl<W> Default for Output<W> {
    fn default() -> Self {
        Self {
            work: Vec::new(),
            answers: Vec::new(),
            streams_ended: false,
            ready_streams: Vec::new(),
            state: None,
            checkpoint: false,
            damage: None,
            cut: None,
        }
    }
}

/// A thing to do.
#[derive(Debug)]
pub enum Work {
    /// Give this to the log of the part; report
    /// [`Written`](kine2_replication::Event::Written) when it is durable. Writes of one part become
    /// durable in the order given; several may be made durable, and reported, together.
    Write(LogWrite),
    /// Read durable entries from the part's log and report [`Event::LogRead`].
    ///
    /// [`Event::LogRead`]: crate::Event::LogRead
    ReadLog(LogRead),
    /// The state of [`Event::SnapshotReceived`] is the node's from now on, its backend the one
    /// that [`Output::state`] is for: the old one goes, and nothing of it is reported any more.
    ///
    /// [`Event::SnapshotReceived`]: crate::Event::SnapshotReceived
    SwitchState,
    /// As its documentation says: `Send`, `Call`, the acts of snapshots, `Quarantine`, `Serve`,
    /// `Notice`; and of parts that are not the store, `Apply`. No other.
    Act(Act),
}

/// A write to the log of one part: one flush for all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogWrite {
    /// The part.
    pub part: PartName,
    /// Its number.
    pub id: WriteId,
    /// What is written, in this order.
    pub records: Vec<LogRecord>,
}

/// A record of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRecord {
    /// What the node keeps beside the entries; replaces the one before.
    Hard(Bytes),
    /// The log ends here; what follows never was.
    Truncate(Position),
    /// Entries at the log's end.
    Entries(Vec<Entry>),
    /// The log is empty after this position, and what is kept beside it is this, in one durable
    /// step (`repl N4`).
    Reset(Position, Bytes),
}

/// Entries to be read from a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// The part.
    pub part: PartName,
    /// Goes back with what was read.
    pub reader: LogReader,
    /// The first entry.
    pub from: LogIndex,
    /// The last one wanted.
    pub through: LogIndex,
    /// Payload bytes after which to end.
    pub bytes_max: usize,
}

/// Who wants to read a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogReader {
    /// The node, to apply committed entries that it does not hold in memory.
    State,
    /// The replica, to send them to the peer.
    Replica,
}

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The command is committed and applied.
    Applied(Applied),
    /// The state may be read: it holds all that was acknowledged before the request came.
    Readable,
    /// The lease lives on for so many seconds; 0 if there is none or it has expired.
    KeptAlive(i64),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The store refused it: definite, nothing was changed.
    Refused(Refusal),
    /// This node does not order writes; nothing was tried. The primary of this configuration may
    /// be asked, once (`repl S2`).
    NotPrimary(ConfigId, NodeRef),
    /// Nobody serves the store now; nothing was tried.
    Unavailable,
    /// The command may take effect yet, or never; it must not be repeated (`repl section 10`,
    /// Ambiguous writes).
    Unknown,
    /// Too much is under way; nothing was tried.
    Busy,
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The log's name for a position, as the store's.
pub(crate) const fn store_position(position: Position) -> LogPosition {
    LogPosition {
        epoch: position.term.epoch,
        run: position.term.run,
        index: position.index.0,
    }
}
