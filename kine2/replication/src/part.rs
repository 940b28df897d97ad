//! One part of a unit at one node: its log, and how far it is replicated.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use kine2_wal::{LogIndex, Position};

use crate::backoff::Backoff;
use crate::hard_state::DataState;
use crate::history::History;
use crate::ids::{Incarnation, Replica, RequestId};
use crate::log::PartLog;
use crate::message::{PartSummary, StreamId};
use crate::quarantine::PuttingAway;
use crate::snapshot::{Installing, Receiving};

/// A part as it was found on the disk.
#[derive(Clone, Debug)]
pub struct LoadedPart {
    /// Incarnation of its storage.
    pub storage: Incarnation,
    /// Whether its data can be used.
    pub data: DataState,
    /// The terms of its log.
    pub history: History,
    /// Entries up to here are known to be committed: applied to the durable state, or more.
    pub commit: LogIndex,
}

/// A part. All but `storage`, `log`, `data`, `commit` and `known` is forgotten on adopting a configuration
/// (but for `repl A3`).
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) storage: Incarnation,
    pub(crate) log: PartLog,
    pub(crate) data: DataState,
    /// Committed, as far as is known here; never falls but when the part is given up.
    pub(crate) commit: LogIndex,
    /// Known to be committed before the last start, and maybe not applied yet: a floor only, as
    /// somebody may have overruled it since (`repl I4`).
    pub(crate) known: LogIndex,
    /// The log contradicts the primary's below the commit index (`repl L4`).
    pub(crate) diverged: bool,
    /// The last entry in common with the primary that overruled this node, if it is known.
    pub(crate) common: Option<LogIndex>,
    /// What is on its way to quarantine.
    pub(crate) putting_away: Option<PuttingAway>,

    /// This node may order, commit and read the part (`repl K2`).
    pub(crate) active: bool,
    /// On the way to being active by A2.
    pub(crate) fetching: Option<Fetch>,
    /// No linearizable read before `commit` reaches this (`repl A4`).
    pub(crate) barrier: LogIndex,
    /// Acknowledged by the peer in this epoch and run (`repl L2`).
    pub(crate) matched: Option<LogIndex>,
    /// What is sent to the peer.
    pub(crate) sender: Sender,
    /// Proposals not ordered yet.
    pub(crate) queue: VecDeque<(Bytes, RequestId)>,
    /// Bytes of `queue`.
    pub(crate) queue_bytes: usize,
    /// Clients that wait for an entry's commit, by index.
    pub(crate) waiters: VecDeque<(LogIndex, RequestId)>,
    /// When entries were ordered that the peer has not acknowledged: the oldest first.
    pub(crate) unacked: VecDeque<(LogIndex, Duration)>,

    /// The stream from the primary.
    pub(crate) receiver: Option<Receiver>,
    /// The log is the primary's of this epoch and run up to here (`repl L3`).
    pub(crate) verified: Option<LogIndex>,
    /// The highest commit index the primary of this epoch and run told; at the primary, what it
    /// told the peer.
    pub(crate) told: LogIndex,
    /// A snapshot that is being received.
    pub(crate) receiving: Option<Receiving>,
    /// A snapshot that is being switched to; not forgotten on adopting.
    pub(crate) installing: Option<Installing>,

    /// The peer's replica that the last opening showed; `matched` is of it.
    pub(crate) peer: Option<Replica>,
    /// The peer said that its disk of this part failed, or showed another storage than the one in
    /// sync.
    pub(crate) peer_lost: bool,
    pub(crate) backoff: Backoff,
}

/// P fetches the tail that only S has (`repl A2`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    /// S's last entry.
    pub(crate) target: LogIndex,
    /// When it was asked for last.
    pub(crate) asked: Duration,
}

/// The primary's half of a part's stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Sender {
    /// Nothing is open.
    #[default]
    Idle,
    /// Open was sent.
    Opening {
        /// Its number.
        opening: u64,
        /// When.
        since: Duration,
    },
    /// Entries are sent.
    Sending(Sending),
    /// The peer needs a snapshot.
    Snapshot(SnapshotOut),
    /// The peer's log contradicts this one where both are final; nothing is sent.
    Diverged,
}

/// Entries are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) stream: StreamId,
    /// The next entry to send.
    pub(crate) next: LogIndex,
    /// The first frame was sent.
    pub(crate) begun: bool,
    /// Entries are being read from the disk.
    pub(crate) reading: bool,
    /// What the peer holds at the common point, if it knows the chain there.
    pub(crate) expect: Option<Position>,
    /// When an acknowledgement brought the peer further, or nothing was open.
    pub(crate) progress: Duration,
}

/// A snapshot on its way to the peer (`repl N1`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct SnapshotOut {
    pub(crate) stream: StreamId,
    /// Its position, once it is made.
    pub(crate) position: Option<Position>,
    /// The peer takes it: its number of that.
    pub(crate) accepted: Option<u64>,
    /// When it was offered last.
    pub(crate) offered: Duration,
}

/// The other node's half of a part's stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver {
    pub(crate) stream: StreamId,
    /// The last common entry, by the histories at the opening; nothing if there is none.
    pub(crate) point: Option<LogIndex>,
}

impl Part {
    pub(crate) fn new(loaded: LoadedPart) -> Self {
        Self {
            storage: loaded.storage,
            commit: match loaded.data {
                // Nothing of what is half installed, or given up, is final.
                DataState::Inconsistent => LogIndex(0),
                DataState::Complete | DataState::Failed => loaded
                    .commit
                    .max(loaded.history.base().index)
                    .min(loaded.history.last().index),
            },
            known: LogIndex(0),
            log: PartLog::new(loaded.history),
            data: loaded.data,
            diverged: false,
            common: None,
            putting_away: None,
            active: false,
            fetching: None,
            barrier: LogIndex(0),
            matched: None,
            sender: Sender::Idle,
            queue: VecDeque::new(),
            queue_bytes: 0,
            waiters: VecDeque::new(),
            unacked: VecDeque::new(),
            receiver: None,
            verified: None,
            told: LogIndex(0),
            receiving: None,
            installing: None,
            peer: None,
            peer_lost: false,
            backoff: Backoff::default(),
        }
    }

    pub(crate) fn summary(&self) -> PartSummary {
        PartSummary {
            storage: self.storage,
            data: self.data,
            history: self.log.history().clone(),
            commit: self.floor(),
        }
    }

    /// The last entry that is known to be committed, now or before the last start.
    pub(crate) fn floor(&self) -> LogIndex {
        self.commit.max(self.known)
    }

    /// Forgets what belongs to an epoch and run. The clients that waited are the caller's.
    pub(crate) fn forget(&mut self) {
        self.active = false;
        self.fetching = None;
        self.barrier = LogIndex(0);
        self.forget_peer();
    }

    /// Forgets what the peer did in an epoch and run (`repl A3`: match is unknown again).
    pub(crate) fn forget_peer(&mut self) {
        self.matched = None;
        self.sender = Sender::Idle;
        self.unacked.clear();
        self.receiver = None;
        self.verified = None;
        self.told = LogIndex(0);
        self.receiving = None;
        self.peer = None;
        self.peer_lost = false;
    }
}
