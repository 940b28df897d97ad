//! What a node is set to, what happens to it, and what it counts.

use std::time::Duration;

use kine2_mvcc::{
    BackendError, BackendStats, Command, CommandError, LogPosition, Store, WatchOptions,
};
use kine2_replication::{Entry, Event as ReplicaEvent, Position, Timers};
use thiserror::Error;

use crate::output::LogReader;

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The member's id; not 0.
    pub member_id: u64,
    /// Bytes of state at which writes that need space are refused; 0 for no limit.
    pub quota_bytes: u64,
    /// Bytes of the largest command that the log takes; larger ones are refused.
    pub command_bytes_max: usize,
    /// Shortest TTL of a lease; shorter ones are raised to it (`etcd S45`).
    pub lease_ttl_min: Duration,
    /// Bytes of records that are gathered for the backend before it gets them.
    pub save_bytes: usize,
    /// Time after which it gets them in any case.
    pub save_delay: Duration,
    /// Bytes of records after which the state is checkpointed.
    pub checkpoint_bytes: usize,
    /// Log entries after which it is checkpointed.
    pub checkpoint_entries: u64,
    /// Time after which it is checkpointed if anything changed.
    pub checkpoint_interval: Duration,
    /// Bytes of records the backend may lag behind; writes wait beyond.
    pub unsaved_bytes_max: usize,
    /// Settings of the watches.
    pub watch: WatchOptions,
    /// Timers of the replica.
    pub timers: Timers,
    /// Seed of lease ids.
    pub seed: u64,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<W> {
    /// A client asks for a change.
    Submit {
        /// The change. A lease grant with id 0 gets an id.
        command: Command,
        /// Who waits for the answer.
        waiter: W,
    },
    /// A client wants to read what is newest, and this node [cannot tell by itself] that it has
    /// it. Answered with [`Done::Readable`](crate::Done::Readable).
    ///
    /// [cannot tell by itself]: crate::Node::reads_locally
    Read {
        /// Who waits for the answer.
        waiter: W,
    },
    /// A client renews a lease. Answered with [`Done::KeptAlive`](crate::Done::KeptAlive).
    KeepAlive {
        /// The lease.
        id: i64,
        /// Who waits for the answer.
        waiter: W,
    },
    /// Something for the replica: frames, links, words of the witness, finished writes, cuts of
    /// the log, failed disks, the operator's commands, snapshots made. Not what the other events
    /// are for.
    Replica(ReplicaEvent),
    /// Answer to [`Work::ReadLog`](crate::Work::ReadLog): the position before the first entry wanted, and entries. If
    /// the log was cut meanwhile, the new base and no entries.
    LogRead {
        /// Who wanted it.
        reader: LogReader,
        /// The position before them.
        prev: Position,
        /// The entries, without a gap.
        entries: Vec<Entry>,
    },
    /// The snapshot being received is complete and durable beside the old state.
    SnapshotReceived {
        /// The entry it ends with.
        position: Position,
        /// The state, opened.
        store: Box<Store>,
    },
    /// The batch handed out is in the backend.
    Saved(BackendStats),
    /// The backend is durable up to here.
    Checkpointed(LogPosition),
    /// Time has passed.
    Tick,
}

/// Why a node cannot go on. It must not be used any more.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The state cannot be read.
    #[error("read the state: {0}")]
    State(#[from] BackendError),
    /// The log holds what is not a command.
    #[error("log entry {index}: {source}")]
    Command {
        /// Index of the entry.
        index: u64,
        /// What is wrong with it.
        source: CommandError,
    },
}

/// What a node counts, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Commands that wait for the log.
    pub queued: usize,
    /// Commands written to the log and not applied yet.
    pub logging: usize,
    /// Commands committed since the start.
    pub committed_total: u64,
    /// Commands refused before the log since the start.
    pub refused_total: u64,
    /// Leases that expired since the start.
    pub leases_expired_total: u64,
}
