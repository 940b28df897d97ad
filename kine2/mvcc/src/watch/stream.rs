//! One client's stream: its watchers and what waits to be sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::matcher::WatcherKey;
use super::message::WatchMessage;
use crate::event::Event;
use crate::revision::Revision;

/// Bytes of records that wait in one stream before its watchers are parked.
pub(super) const STREAM_BYTES_MAX: usize = 4 << 20;
/// Bytes of records joined into one response.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// Something to send.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// As it is.
    Message(WatchMessage),
    /// Changes for one watcher; never empty.
    Events(Batch),
}

/// Changes of whole revisions for one watcher.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) watch_id: i64,
    /// The header's revision (`etcd S38`).
    pub(super) revision: Revision,
    pub(super) events: Vec<Arc<Event>>,
    pub(super) bytes: usize,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
}

impl Batch {
    /// Whether `next` may go in the same response.
    pub(super) fn joins(&self, next: &Self) -> bool {
        self.watch_id == next.watch_id
            && self.prev_kv == next.prev_kv
            && self.fragment == next.fragment
            && self.bytes + next.bytes <= RESPONSE_BYTES_MAX
    }

    pub(super) fn join(&mut self, next: Self) {
        self.revision = next.revision;
        self.bytes += next.bytes;
        self.events.extend(next.events);
    }
}

/// A stream's watchers and queue.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Watchers by the id the client knows.
    pub(super) watchers: BTreeMap<i64, WatcherKey>,
    /// Watchers that read history until they are back at the present.
    pub(super) lagging: BTreeSet<WatcherKey>,
    /// The client asked for progress and was not answered yet (`etcd S39`).
    pub(super) progress_wanted: bool,
    /// It is in the hub's list of ready streams.
    pub(super) is_listed: bool,
    next_id: i64,
    queue: VecDeque<Outgoing>,
    queued_bytes: usize,
}

impl Stream {
    /// The id of a new watcher; `None` if the one asked for is taken (`etcd S29`).
    pub(super) fn allot_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 {
            return (!self.watchers.contains_key(&asked)).then_some(asked);
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        Some(id)
    }

    /// Whether events must wait in history instead of here.
    pub(super) fn is_full(&self, queue_max: usize) -> bool {
        self.queue.len() >= queue_max || self.queued_bytes >= STREAM_BYTES_MAX
    }

    pub(super) fn push_message(&mut self, message: WatchMessage) {
        self.queue.push_back(Outgoing::Message(message));
    }

    pub(super) fn push_events(&mut self, batch: Batch) {
        self.queued_bytes += batch.bytes;
        self.queue.push_back(Outgoing::Events(batch));
    }

    /// The next thing to send, as many revisions of one watcher together as fit.
    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        let mut batch = match self.queue.pop_front()? {
            Outgoing::Events(batch) => batch,
            message @ Outgoing::Message(_) => return Some(message),
        };
        while let Some(Outgoing::Events(next)) = self.queue.front() {
            if !batch.joins(next) {
                break;
            }
            let Some(Outgoing::Events(next)) = self.queue.pop_front() else {
                break;
            };
            batch.join(next);
        }
        self.queued_bytes -= batch.bytes;
        Some(Outgoing::Events(batch))
    }

    pub(super) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Whether a poll would find something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.lagging.is_empty()
    }
}
