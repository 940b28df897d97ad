//! The hub: all watchers of a node.
//!
//! A watcher is *in sync* when everything it should know up to the present is in its stream's
//! queue or sent. New changes are then pushed to it as they are applied. If its stream's queue is
//! full it is *lagging*: it is parked with the next revision it needs and reads history when its
//! stream is polled, until it is back at the present. So a slow client costs its bounded queue,
//! delays nobody, and misses nothing that is not compacted.

use kine2_mutation::{Mutation, mutated};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::matcher::{Matcher, WatcherKey};
use super::message::{CancelCause, WatchMessage, WatchRequest, WatchUpdate};
use super::stream::{Batch, Outgoing, Stream};
use crate::backend::BackendError;
use crate::event::Event;
use crate::history::History;
use crate::key_range::KeyRange;
use crate::revision::Revision;

/// Bytes of records that one read of history brings.
const CATCH_UP_BYTES: usize = 1 << 20;
/// Reads of history in one poll.
const CATCH_UP_READS: usize = 4;
/// Bytes a response needs besides its events.
const RESPONSE_OVERHEAD: usize = 64;

/// Settings of the hub.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// Time after which a quiet watcher that asked for it hears of progress; up to a tenth is
    /// added or taken so that watchers do not all speak at once (`etcd S40`).
    pub progress_interval: Duration,
    /// Responses that wait in a stream before its watchers are parked (`etcd S42`).
    pub stream_queue_max: usize,
    /// Encoded size at which a response is split if the watcher wants it (`etcd S41`).
    pub fragment_bytes: usize,
    /// Seed of the progress times.
    pub seed: u64,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            progress_interval: Duration::from_secs(600),
            stream_queue_max: 128,
            fragment_bytes: 2 << 20,
            seed: 0,
        }
    }
}

/// A client's watch stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u64);

/// What a poll brought.
#[derive(Debug, Default)]
pub struct Polled {
    /// Messages to be written in this order with nothing between them.
    pub messages: Vec<WatchMessage>,
    /// There is more: poll again.
    pub more: bool,
}

/// What the hub counts, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchStats {
    /// Open streams.
    pub streams: usize,
    /// Watchers.
    pub watchers: usize,
    /// Watchers that read history.
    pub lagging: usize,
    /// Responses that wait to be sent.
    pub queued: usize,
    /// Events handed to streams since the start.
    pub events_total: u64,
}

#[derive(Debug)]
struct Watcher {
    stream: StreamId,
    id: i64,
    range: KeyRange,
    /// As asked for; 0 or less for a watcher from now on.
    start: Revision,
    /// The first revision that is not in the stream's queue or sent.
    next: Revision,
    lagging: bool,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    fragment: bool,
    progress: Option<Progress>,
}

/// When a quiet watcher hears of progress.
#[derive(Clone, Copy, Debug)]
struct Progress {
    due: Duration,
    /// Nothing was sent to it since it last heard.
    quiet: bool,
}

impl Watcher {
    /// Whether it may hear of progress at `current`: not before its start is reached
    /// (`etcd S31`).
    fn has_begun(&self, current: Revision) -> bool {
        self.start <= current
    }

    fn wants(&self, event: &Event) -> bool {
        if event.is_delete() {
            !self.no_delete
        } else {
            !self.no_put
        }
    }
}

/// All watchers.
#[derive(Debug)]
pub struct WatchHub {
    options: WatchOptions,
    streams: BTreeMap<StreamId, Stream>,
    watchers: BTreeMap<WatcherKey, Watcher>,
    matcher: Matcher,
    progress: BTreeSet<(Duration, WatcherKey)>,
    ready: Vec<StreamId>,
    next_stream: u64,
    next_watcher: WatcherKey,
    random: u64,
    events_total: u64,
    /// Watchers a revision concerns, with their events; kept for its memory.
    touched: BTreeMap<WatcherKey, Vec<Arc<Event>>>,
}

impl WatchHub {
    /// A hub without watchers.
    #[must_use]
    pub fn new(options: WatchOptions) -> Self {
        Self {
            streams: BTreeMap::new(),
            watchers: BTreeMap::new(),
            matcher: Matcher::default(),
            progress: BTreeSet::new(),
            ready: Vec::new(),
            next_stream: 0,
            next_watcher: 0,
            random: options.seed,
            events_total: 0,
            touched: BTreeMap::new(),
            options,
        }
    }

    /// Opens a stream.
    pub fn open_stream(&mut self) -> StreamId {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        self.streams.insert(id, Stream::default());
        id
    }

    /// Ends a stream and its watchers.
    pub fn close_stream(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.remove(&stream) else {
            return;
        };
        for watcher in closed.watchers.into_values() {
            self.forget(watcher);
        }
    }

    /// Adds a watcher, or refuses it; either way the stream is told (`etcd S29`–`S34`).
    pub fn create(
        &mut self,
        now: Duration,
        stream_id: StreamId,
        mut request: WatchRequest,
        history: &impl History,
    ) {
        let current = history.current();
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        if request.range.start.is_empty() {
            request.range.start = Bytes::from_static(b"\0");
        }
        let refused = if request.start < 0 {
            Err(CancelCause::NegativeStart)
        } else if request.range.is_empty() {
            Err(CancelCause::EmptyRange)
        } else {
            stream.allot_id(request.id).ok_or(CancelCause::DuplicateId)
        };
        let id = match refused {
            Ok(id) => id,
            Err(cause) => {
                let update = WatchUpdate::Refused(cause);
                stream.push_message(WatchMessage {
                    watch_id: -1,
                    revision: current,
                    update,
                });
                return self.list(stream_id);
            }
        };
        let update = WatchUpdate::Created;
        stream.push_message(WatchMessage {
            watch_id: id,
            revision: current,
            update,
        });
        let key = self.next_watcher;
        self.next_watcher += 1;
        let next = if request.start == 0 {
            match mutated(Mutation::WatchMissesFirst) {
                true => current.next().next(),
                false => current.next(),
            }
        } else {
            Revision(request.start)
        };
        let lagging = next <= current;
        stream.watchers.insert(id, key);
        if lagging {
            stream.lagging.insert(key);
        }
        self.matcher.insert(key, &request.range);
        let progress = request.progress_notify.then(|| {
            let due = now + self.jittered_interval();
            self.progress.insert((due, key));
            Progress { due, quiet: true }
        });
        let watcher = Watcher {
            stream: stream_id,
            id,
            range: request.range,
            start: Revision(request.start),
            next,
            lagging,
            no_put: request.no_put,
            no_delete: request.no_delete,
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress,
        };
        self.watchers.insert(key, watcher);
        self.list(stream_id);
    }

    /// Ends a watcher; an unknown id is ignored (`etcd S33`).
    pub fn cancel(&mut self, stream_id: StreamId, id: i64, history: &impl History) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let Some(key) = stream.watchers.remove(&id) else {
            return;
        };
        stream.lagging.remove(&key);
        let update = WatchUpdate::Canceled(CancelCause::Requested);
        stream.push_message(WatchMessage {
            watch_id: id,
            revision: history.current(),
            update,
        });
        self.forget(key);
        self.list(stream_id);
    }

    /// Asks for a message of progress once every watcher of the stream is in sync. A stream
    /// without watchers is not answered; requests that wait are answered together (`etcd S39`).
    pub fn request_progress(&mut self, stream_id: StreamId) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        if !stream.watchers.is_empty() {
            stream.progress_wanted = true;
            self.list(stream_id);
        }
    }

    /// Tells all whom it concerns what revision `revision` changed.
    pub fn publish(&mut self, revision: Revision, events: &[Arc<Event>]) {
        let mut touched = std::mem::take(&mut self.touched);
        for event in events {
            self.matcher.visit(event.record().view().key, |key| {
                let watcher = &self.watchers[&key];
                if !watcher.lagging && watcher.next <= revision && watcher.wants(event) {
                    touched.entry(key).or_default().push(Arc::clone(event));
                }
            });
        }
        while let Some((key, events)) = touched.pop_first() {
            self.push(key, revision, events);
        }
        self.touched = touched;
    }

    fn push(&mut self, key: WatcherKey, revision: Revision, events: Vec<Arc<Event>>) {
        let watcher = self
            .watchers
            .get_mut(&key)
            .expect("a watcher that was just found");
        let stream = self
            .streams
            .get_mut(&watcher.stream)
            .expect("a watcher's stream is there");
        if stream.is_full(self.options.stream_queue_max) {
            watcher.lagging = true;
            watcher.next = match mutated(Mutation::WatchMissesFull) {
                true => revision.next(),
                false => revision,
            };
            stream.lagging.insert(key);
            return;
        }
        if let Some(progress) = &mut watcher.progress {
            progress.quiet = false;
        }
        self.events_total += events.len() as u64;
        stream.push_events(Batch {
            watch_id: watcher.id,
            revision,
            bytes: events.iter().map(|event| event.record().len()).sum(),
            events,
            prev_kv: watcher.prev_kv,
            fragment: watcher.fragment,
        });
        let stream_id = watcher.stream;
        self.list(stream_id);
    }

    /// Sends progress to quiet watchers whose time has come (`etcd S40`).
    pub fn tick(&mut self, now: Duration, history: &impl History) {
        while let Some((due, key)) = self
            .progress
            .first()
            .copied()
            .filter(|(due, _)| *due <= now)
        {
            self.progress.remove(&(due, key));
            let next_due = now + self.jittered_interval();
            self.progress.insert((next_due, key));
            let watcher = self
                .watchers
                .get_mut(&key)
                .expect("a timer's watcher is there");
            let told = watcher.progress.replace(Progress {
                due: next_due,
                quiet: true,
            });
            let current = history.current();
            let in_sync = !watcher.lagging && watcher.has_begun(current);
            if in_sync && told.is_some_and(|progress| progress.quiet) {
                let stream_id = watcher.stream;
                let message = WatchMessage {
                    watch_id: watcher.id,
                    revision: current,
                    update: WatchUpdate::Progress,
                };
                let stream = self
                    .streams
                    .get_mut(&stream_id)
                    .expect("a watcher's stream");
                if !stream.is_full(self.options.stream_queue_max) {
                    stream.push_message(message);
                    self.list(stream_id);
                }
            }
        }
    }

    /// When [`tick`](Self::tick) is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.progress.first().map(|(due, _)| *due)
    }

    /// Streams that got something to send since the last call.
    pub fn take_ready(&mut self) -> Vec<StreamId> {
        for id in &self.ready {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.is_listed = false;
            }
        }
        std::mem::take(&mut self.ready)
    }

    /// The next messages of a stream, about `bytes_max` of them.
    ///
    /// # Errors
    /// If history cannot be read.
    pub fn poll(
        &mut self,
        stream_id: StreamId,
        history: &impl History,
        bytes_max: usize,
    ) -> Result<Polled, BackendError> {
        let mut polled = Polled::default();
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return Ok(polled);
        };
        let mut bytes = 0;
        while bytes < bytes_max {
            match stream.pop() {
                Some(Outgoing::Message(message)) => polled.messages.push(message),
                Some(Outgoing::Events(batch)) => {
                    bytes += batch.bytes;
                    render(
                        batch,
                        history,
                        self.options.fragment_bytes,
                        &mut polled.messages,
                    )?;
                }
                None => break,
            }
        }
        if bytes < bytes_max {
            self.catch_up(stream_id, history, &mut polled.messages)?;
        }
        let stream = self.streams.get_mut(&stream_id).expect("found above");
        if stream.progress_wanted && stream.queue_len() == 0 && stream.lagging.is_empty() {
            let current = history.current();
            let mut watchers = stream.watchers.values().map(|key| &self.watchers[key]);
            if watchers.all(|watcher| watcher.has_begun(current)) {
                stream.progress_wanted = false;
                let update = WatchUpdate::Progress;
                polled.messages.push(WatchMessage {
                    watch_id: -1,
                    revision: current,
                    update,
                });
            }
        }
        polled.more = stream.has_work();
        Ok(polled)
    }

    /// Reads history for the watcher that is furthest behind, a few times.
    fn catch_up(
        &mut self,
        stream_id: StreamId,
        history: &impl History,
        messages: &mut Vec<WatchMessage>,
    ) -> Result<(), BackendError> {
        for _ in 0..CATCH_UP_READS {
            let stream = self
                .streams
                .get_mut(&stream_id)
                .expect("a stream that is polled");
            let furthest = stream
                .lagging
                .iter()
                .min_by_key(|key| self.watchers[key].next);
            let Some(key) = furthest.copied() else {
                return Ok(());
            };
            let watcher = self.watchers.get_mut(&key).expect("a stream's watcher");
            let (current, compacted) = (history.current(), history.compacted());
            if watcher.next < compacted {
                let id = watcher.id;
                stream.watchers.remove(&id);
                stream.lagging.remove(&key);
                self.forget(key);
                // Header revision 0, compact_revision in its own field (`etcd S32`).
                let update = WatchUpdate::Canceled(CancelCause::Compacted(compacted));
                messages.push(WatchMessage {
                    watch_id: id,
                    revision: Revision(0),
                    update,
                });
                continue;
            }
            let until = current.next();
            let page = history.events(&watcher.range, watcher.next, until, CATCH_UP_BYTES)?;
            watcher.next = page.next.unwrap_or(until);
            if page.next.is_none() {
                watcher.lagging = false;
                stream.lagging.remove(&key);
            }
            let wanted = page.events.into_iter().filter(|event| watcher.wants(event));
            let events: Vec<Arc<Event>> = wanted.collect();
            if events.is_empty() {
                continue;
            }
            if let Some(progress) = &mut watcher.progress {
                progress.quiet = false;
            }
            self.events_total += events.len() as u64;
            let batch = Batch {
                watch_id: watcher.id,
                revision: current,
                bytes: 0,
                events,
                prev_kv: watcher.prev_kv,
                fragment: watcher.fragment,
            };
            return render(batch, history, self.options.fragment_bytes, messages);
        }
        Ok(())
    }

    /// What it counts.
    #[must_use]
    pub fn stats(&self) -> WatchStats {
        WatchStats {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            lagging: self
                .streams
                .values()
                .map(|stream| stream.lagging.len())
                .sum(),
            queued: self.streams.values().map(Stream::queue_len).sum(),
            events_total: self.events_total,
        }
    }

    /// Forgets a watcher that its stream has forgotten.
    fn forget(&mut self, key: WatcherKey) {
        let Some(watcher) = self.watchers.remove(&key) else {
            return;
        };
        self.matcher.remove(key, &watcher.range);
        if let Some(progress) = watcher.progress {
            self.progress.remove(&(progress.due, key));
        }
    }

    /// Notes that the stream has something to send.
    fn list(&mut self, stream_id: StreamId) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        if !std::mem::replace(&mut stream.is_listed, true) {
            self.ready.push(stream_id);
        }
    }

    /// The interval, up to a tenth longer or shorter.
    fn jittered_interval(&mut self) -> Duration {
        // xorshift64 (Marsaglia 2003) on a state that is never 0.
        let mut x = self.random | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random = x;
        let tenths_of_percent = u32::try_from(900 + x % 200).expect("below 1,100");
        self.options.progress_interval / 1_000 * tenths_of_percent
    }
}

/// Encodes a batch as one message, or as a chain of fragments (`etcd S41`).
fn render(
    batch: Batch,
    history: &impl History,
    fragment_bytes: usize,
    messages: &mut Vec<WatchMessage>,
) -> Result<(), BackendError> {
    let (watch_id, revision) = (batch.watch_id, batch.revision);
    let mut events: Vec<Bytes> = Vec::with_capacity(batch.events.len());
    let mut bytes = RESPONSE_OVERHEAD;
    for event in &batch.events {
        let encoded = encode(event, batch.prev_kv, history)?;
        let grown = bytes + encoded.len() + RESPONSE_OVERHEAD / 4;
        if batch.fragment && grown >= fragment_bytes && !events.is_empty() {
            let events = std::mem::take(&mut events);
            let update = WatchUpdate::Events {
                events,
                fragment: true,
            };
            messages.push(WatchMessage {
                watch_id,
                revision,
                update,
            });
            bytes = RESPONSE_OVERHEAD;
        }
        bytes += encoded.len() + RESPONSE_OVERHEAD / 4;
        events.push(encoded);
    }
    let update = WatchUpdate::Events {
        events,
        fragment: false,
    };
    messages.push(WatchMessage {
        watch_id,
        revision,
        update,
    });
    Ok(())
}

/// An event in wire form. The record before is left out once the revision before is compacted
/// (`etcd S36`).
fn encode(event: &Event, prev_kv: bool, history: &impl History) -> Result<Bytes, BackendError> {
    let before = Revision(event.id().main.0 - 1);
    if !prev_kv || before < history.compacted() {
        return Ok(event.encoded().clone());
    }
    Ok(event.encoded_with_prev(|id| history.record(id))?.clone())
}
