//! What a node wants done.

use bytes::Bytes;
use kine2_mvcc::{Applied, LogPosition, Refusal, StateBatch, StreamId};

/// An entry for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub position: LogPosition,
    /// The command's byte form.
    pub payload: Bytes,
}

/// Work for the driver, in the order of the fields.
#[derive(Debug)]
pub struct Output<W> {
    /// Append these and make them durable, then report [`Event::Persisted`]. None come again
    /// before that.
    ///
    /// [`Event::Persisted`]: crate::Event::Persisted
    pub persist: Vec<LogEntry>,
    /// Answers to clients. All of it is durable.
    pub answers: Vec<(W, Result<Applied, Refusal>)>,
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
    /// The log below this index is not needed any more.
    pub cut_below: Option<u64>,
}

impl<W> Default for Output<W> {
    fn default() -> Self {
        Self {
            persist: Vec::new(),
            answers: Vec::new(),
            ready_streams: Vec::new(),
            state: None,
            checkpoint: false,
            damage: None,
            cut_below: None,
        }
    }
}
