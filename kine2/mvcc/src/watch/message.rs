//! What a watch stream is asked and what it is told.

use bytes::Bytes;

use crate::key_range::KeyRange;
use crate::revision::Revision;

/// A request for a watcher (`etcd S29`–`S31`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// Id the client chose; 0 lets the stream choose.
    pub id: i64,
    /// Keys to watch.
    pub range: KeyRange,
    /// First revision wanted; 0 for what is yet to come.
    pub start: i64,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletes out.
    pub no_delete: bool,
    /// Add to each event the record before it.
    pub prev_kv: bool,
    /// Tell now and then that nothing happened (`etcd S40`).
    pub progress_notify: bool,
    /// Split what is larger than the fragment size (`etcd S41`).
    pub fragment: bool,
}

/// One `WatchResponse` but for the cluster's ids in its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchMessage {
    /// The watcher; -1 for a stream's progress or a create that failed.
    pub watch_id: i64,
    /// Revision of the header; 0 only where `etcd S32` says so.
    pub revision: Revision,
    /// What it tells.
    pub update: WatchUpdate,
}

/// Body of a [`WatchMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchUpdate {
    /// The watcher exists; it precedes every other message of its id (`etcd S34`).
    Created,
    /// The watcher was refused: created and cancelled in one (`etcd S29`, `S30`).
    Refused(CancelCause),
    /// The watcher is gone.
    Canceled(CancelCause),
    /// Changes, each an `mvccpb.Event` in wire form.
    Events {
        /// In order; all of a revision are in one message or in one chain of fragments.
        events: Vec<Bytes>,
        /// More of the same response follows at once (`etcd S41`).
        fragment: bool,
    },
    /// All changes up to the header's revision are on the wire (`etcd S39`, `S40`).
    Progress,
}

/// Why a watcher ended or was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelCause {
    /// The client asked.
    Requested,
    /// The range holds no key: reason `mvcc: watcher range is empty`.
    EmptyRange,
    /// The id is taken: reason `mvcc: duplicate watch ID provided on the WatchStream`.
    DuplicateId,
    /// The start is negative: reason `mvcc: required revision has been compacted`.
    NegativeStart,
    /// History it needs is gone; carries the compacted revision (`etcd S32`).
    Compacted(Revision),
}
