//! The node itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kine2_mvcc::{
    Alarm, AlarmChange, AlarmKind, Answer, Applied, BackendError, BackendStats, Command,
    CommandError, Event as Change, HashJob, LeaseGrant, LogPosition, Polled, RangeAnswer,
    RangeQuery, ReadError, Refusal, Revision, Store, StoreHash, StoreStats, StreamId, WatchHub,
    WatchOptions, WatchRequest,
};
use thiserror::Error;

use crate::lease_clock::{ACTIVATION_GRACE, LeaseClock};
use crate::output::{LogEntry, Output};
use crate::queue::{BATCH_ENTRIES_MAX, Queue};
use crate::saving::{CheckpointBounds, SaveBounds, Saving};

/// Leases whose expiry is under way at the same time.
const EXPIRING_MAX: usize = 500;
/// Longest time between two ticks.
const WAKE_MAX: Duration = Duration::from_millis(500);
/// A wake-up this late means that the node itself stood still (`repl section 8`).
const STALL_MIN: Duration = Duration::from_millis(200);

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The member's id; not 0.
    pub member_id: u64,
    /// Term of what this node appends: epoch and run (`repl section 2`).
    pub epoch: u64,
    /// See `epoch`.
    pub run: u32,
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
    /// All entries handed out are durable.
    Persisted,
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
    /// Commands written to the log and not durable yet.
    pub logging: usize,
    /// Commands committed since the start.
    pub committed_total: u64,
    /// Commands refused before the log since the start.
    pub refused_total: u64,
    /// Leases that expired since the start.
    pub leases_expired_total: u64,
}

#[derive(Debug)]
struct Logged<W> {
    position: LogPosition,
    command: Command,
    waiter: Option<W>,
}

/// One node of a unit, `W` being who waits for an answer.
#[derive(Debug)]
pub struct Node<W> {
    options: NodeOptions,
    store: Store,
    watches: WatchHub,
    clock: LeaseClock,
    queue: Queue<W>,
    logged: VecDeque<Logged<W>>,
    last_index: u64,
    saving: Saving<W>,
    /// Revocations of expired leases that are under way.
    expiring: usize,
    /// Leases that clients are revoking, and how many times: bounded by the queue and one batch.
    revoking: BTreeMap<i64, usize>,
    /// The alarm for damage that a read met is under way.
    raising_corrupt: bool,
    /// The disk has no room for more log than the current segment.
    log_is_full: bool,
    /// When the node asked to be woken at the latest.
    wake_at: Option<Duration>,
    random: u64,
    stats: NodeStats,
    output: Output<W>,
    scratch: Vec<Arc<Change>>,
}

impl<W> Node<W> {
    /// A node over a store whose log has been replayed by [`replay`], active from `now` on.
    ///
    /// [`replay`]: Self::replay
    #[must_use]
    pub fn new(options: NodeOptions, store: Store, now: Duration) -> Self {
        let mut clock = LeaseClock::default();
        for (id, ttl_seconds) in store.lease_ttls() {
            clock.start(
                id,
                seconds(ttl_seconds).saturating_add(ACTIVATION_GRACE),
                now,
            );
        }
        Self {
            watches: WatchHub::new(options.watch),
            clock,
            queue: Queue::new(),
            logged: VecDeque::new(),
            last_index: store.applied().index,
            saving: Saving::new(
                SaveBounds {
                    bytes: options.save_bytes,
                    delay: options.save_delay,
                },
                CheckpointBounds {
                    bytes: options.checkpoint_bytes,
                    entries: options.checkpoint_entries,
                    interval: options.checkpoint_interval,
                },
                now,
            ),
            expiring: 0,
            revoking: BTreeMap::new(),
            raising_corrupt: false,
            log_is_full: false,
            wake_at: None,
            random: options.seed,
            stats: NodeStats::default(),
            output: Output::default(),
            scratch: Vec::new(),
            options,
            store,
        }
    }

    /// Applies an entry of the log to a store that is behind it; entries it has are passed over.
    ///
    /// # Errors
    /// If the entry is not a command or the state cannot be read.
    pub fn replay(store: &mut Store, entry: &LogEntry) -> Result<(), NodeError> {
        if entry.position.index <= store.applied().index {
            return Ok(());
        }
        let command = Command::decode(&entry.payload).map_err(|source| NodeError::Command {
            index: entry.position.index,
            source,
        })?;
        // A refusal is an outcome like any other: it was answered when the entry was new.
        let _ = store.apply(entry.position, &command)?;
        Ok(())
    }

    /// Takes in what happened.
    ///
    /// # Errors
    /// If the state cannot be read: the node must not be used any more.
    pub fn apply(&mut self, now: Duration, event: Event<W>) -> Result<(), NodeError> {
        match event {
            Event::Submit { command, waiter } => self.on_submit(command, waiter),
            Event::Persisted => self.on_persisted(now)?,
            Event::Saved(stats) => self.on_saved(stats),
            Event::Checkpointed(position) => self.on_checkpointed(now, position),
            Event::Tick => self.on_tick(now),
        }
        Ok(())
    }

    /// What is to be done now. Collecting a batch for the log waits for this call, so that all
    /// that was submitted before goes out in one write.
    pub fn take_output(&mut self, now: Duration) -> Output<W> {
        self.fill_log_batch();
        self.fill_state_batch(now);
        self.output.ready_streams = self.watches.take_ready();
        std::mem::take(&mut self.output)
    }

    /// When [`Event::Tick`] is due at the latest. A node that is woken later than that takes it
    /// that it stood still.
    pub fn next_wake(&mut self, now: Duration) -> Duration {
        let wakes = [
            self.next_expiry(),
            self.watches.next_deadline(),
            self.saving.next_deadline(),
            self.has_space_work().then_some(now),
        ];
        let soonest = wakes.into_iter().flatten().min();
        let wake_at = soonest
            .map_or(now + WAKE_MAX, |at| at.min(now + WAKE_MAX))
            .max(now);
        self.wake_at = Some(wake_at);
        wake_at
    }

    /// From now on everything is saved and made durable as soon as it can be.
    pub fn settle(&mut self) {
        self.saving.settle();
    }

    /// Whether nothing is under way and the state is durable.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.logged.is_empty() && self.saving.is_settled()
    }

    /// Forgets all who wait for an answer, dropping them: a disk has failed, and the node must not
    /// be used any more.
    pub fn abandon(&mut self) {
        self.queue = Queue::new();
        self.logged.clear();
        self.saving.forget_waiters();
        self.output = Output::default();
    }

    /// Whether a client's command must be refused because too much is waiting.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.queue.is_full()
    }

    /// The store, to read.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// What it counts.
    #[must_use]
    pub fn stats(&self) -> NodeStats {
        NodeStats {
            queued: self.queue.len(),
            logging: self.logged.len(),
            ..self.stats
        }
    }

    /// The store's counters.
    #[must_use]
    pub fn store_stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// The watches, for their counters.
    #[must_use]
    pub const fn watches(&self) -> &WatchHub {
        &self.watches
    }

    /// Index of the last entry this node has given to the log.
    #[must_use]
    pub const fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Bytes of the state: the backend's files and what has not reached them.
    #[must_use]
    pub fn state_bytes(&self) -> BackendStats {
        let unsaved = self.store.unsaved_bytes() as u64;
        let BackendStats {
            file_bytes,
            used_bytes,
        } = self.saving.stats;
        BackendStats {
            file_bytes: file_bytes + unsaved,
            used_bytes: used_bytes + unsaved,
        }
    }

    /// Tells the size of the backend when it is not a batch that changed it.
    pub fn set_state_bytes(&mut self, stats: BackendStats) {
        self.saving.stats = stats;
    }

    /// Tells whether the log has no room beyond its current segment. What needs space is refused
    /// then, so that what is left goes to what frees some (`etcd S53`).
    pub const fn set_log_full(&mut self, is_full: bool) {
        self.log_is_full = is_full;
    }

    /// Reads applied state (`repl R1`); also answers the store's revision.
    ///
    /// # Errors
    /// If the revision is not there or the state cannot be read.
    pub fn range(&mut self, query: &RangeQuery) -> Result<(Revision, RangeAnswer), ReadError> {
        let result = self.store.range(query);
        let answer = self.watched_for_damage(result)?;
        Ok((self.store.revision(), answer))
    }

    /// Renews a lease and answers its TTL in seconds; 0 if there is none or it has expired
    /// (`etcd S46`).
    pub fn keep_alive(&mut self, now: Duration, id: i64) -> i64 {
        let Some(ttl_seconds) = self.store.lease_ttl(id) else {
            return 0;
        };
        let renewed = self.clock.renew(id, seconds(ttl_seconds), now);
        if renewed { ttl_seconds } else { 0 }
    }

    /// Time left and granted seconds of a lease (`etcd S47`).
    #[must_use]
    pub fn time_to_live(&self, now: Duration, id: i64) -> Option<(Duration, i64)> {
        let granted = self.store.lease_ttl(id)?;
        Some((self.clock.remaining(id, now)?, granted))
    }

    /// Does a slice of a hash over the store.
    ///
    /// # Errors
    /// As [`HashJob::step`].
    pub fn hash_step(&mut self, job: &mut HashJob) -> Result<Option<StoreHash>, ReadError> {
        let result = job.step(&self.store);
        self.watched_for_damage(result)
    }

    /// Opens a watch stream.
    pub fn open_stream(&mut self) -> StreamId {
        self.watches.open_stream()
    }

    /// Ends a watch stream and its watchers.
    pub fn close_stream(&mut self, stream: StreamId) {
        self.watches.close_stream(stream);
    }

    /// Adds a watcher.
    pub fn watch(&mut self, now: Duration, stream: StreamId, request: WatchRequest) {
        self.watches.create(now, stream, request, &self.store);
    }

    /// Ends a watcher.
    pub fn cancel_watch(&mut self, stream: StreamId, id: i64) {
        self.watches.cancel(stream, id, &self.store);
    }

    /// Asks for a stream's progress.
    pub fn request_progress(&mut self, stream: StreamId) {
        self.watches.request_progress(stream);
    }

    /// The next messages of a stream.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn poll_stream(&mut self, stream: StreamId, bytes_max: usize) -> Result<Polled, ReadError> {
        let result = self.watches.poll(stream, &self.store, bytes_max);
        self.watched_for_damage(result.map_err(ReadError::Backend))
    }

    /// Raises the alarm CORRUPT when a read met damage: what else the state holds is not to be
    /// trusted with new writes (`etcd S53`). Reads that meet none go on.
    fn watched_for_damage<T>(&mut self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        if let Err(ReadError::Backend(BackendError::Damaged(what))) = &result
            && !self.raising_corrupt
            && !self.store.has_alarm(AlarmKind::Corrupt)
        {
            self.raising_corrupt = true;
            self.output.damage = Some(what.clone());
            self.raise(AlarmKind::Corrupt);
        }
        result
    }

    fn raise(&mut self, kind: AlarmKind) {
        let member_id = self.options.member_id;
        let alarm = AlarmChange::Raise(Alarm { member_id, kind });
        self.queue.push(Command::Alarm(alarm), None);
    }

    fn on_submit(&mut self, command: Command, waiter: W) {
        match self.admit(command) {
            Ok(command) => {
                if let Command::LeaseRevoke { id } = command {
                    *self.revoking.entry(id).or_default() += 1;
                }
                self.queue.push(command, Some(waiter));
            }
            Err(refusal) => {
                self.stats.refused_total += 1;
                self.output.answers.push((waiter, Err(refusal)));
            }
        }
    }

    /// Refuses what the log cannot take and what the quota forbids, and fills in what the primary decides (`repl section 3`:
    /// whatever is not deterministic is decided before the log).
    fn admit(&mut self, command: Command) -> Result<Command, Refusal> {
        if command.size_bound() > self.options.command_bytes_max {
            return Err(Refusal::TooLarge);
        }
        let cost = command.space_cost();
        if cost > 0 && !self.store.has_alarm(AlarmKind::NoSpace) {
            let quota = self.options.quota_bytes;
            let is_reached = quota > 0 && self.state_bytes().file_bytes + cost >= quota;
            if is_reached || self.log_is_full {
                self.raise(AlarmKind::NoSpace);
                return Err(Refusal::NoSpace);
            }
        }
        Ok(match command {
            Command::LeaseGrant(grant) => {
                let ttl_min = i64::try_from(self.options.lease_ttl_min.as_secs())
                    .expect("a TTL that was configured");
                let id = if grant.id == 0 {
                    self.fresh_lease_id()
                } else {
                    grant.id
                };
                let ttl_seconds = grant.ttl_seconds.max(ttl_min);
                Command::LeaseGrant(LeaseGrant { id, ttl_seconds })
            }
            other => other,
        })
    }

    fn fresh_lease_id(&mut self) -> i64 {
        loop {
            let id = (splitmix64(&mut self.random) >> 1).cast_signed();
            if id != 0 && self.store.lease_ttl(id).is_none() {
                return id;
            }
        }
    }

    /// Everything handed out is durable, so it is committed: apply and answer it.
    fn on_persisted(&mut self, now: Duration) -> Result<(), NodeError> {
        while let Some(entry) = self.logged.pop_front() {
            self.on_committed(now, entry)?;
        }
        Ok(())
    }

    fn on_committed(&mut self, now: Duration, entry: Logged<W>) -> Result<(), NodeError> {
        let before = self.store.revision();
        let result = self.store.apply(entry.position, &entry.command)?;
        if let Command::LeaseRevoke { id } = entry.command {
            self.revocation_is_over(id, entry.waiter.is_some());
            let has_expired = self.clock.remaining(id, now) == Some(Duration::ZERO);
            if result == Err(Refusal::Corrupt) && has_expired {
                // It is there still, and its time is over.
                self.clock.start(id, Duration::ZERO, now);
            }
        }
        self.stats.committed_total += 1;
        self.after_apply(now, &entry.command, &result);
        if self.store.revision() > before {
            self.publish();
        }
        let Some(waiter) = entry.waiter else {
            return Ok(());
        };
        match (result, &entry.command) {
            (Ok(applied), Command::Compact(compact)) if compact.physical => {
                self.saving.await_space_work(waiter, applied);
            }
            (result, _) => self.output.answers.push((waiter, result)),
        }
        Ok(())
    }

    fn revocation_is_over(&mut self, id: i64, by_client: bool) {
        if !by_client {
            self.expiring -= 1;
        } else if let Some(count) = self.revoking.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.revoking.remove(&id);
            }
        }
    }

    /// What follows from a command besides the store's own state.
    fn after_apply(&mut self, now: Duration, command: &Command, result: &Result<Applied, Refusal>) {
        match (command, result.as_ref().map(|applied| &applied.answer)) {
            (Command::LeaseGrant(_), Ok(Answer::LeaseGranted(grant))) => {
                self.clock.start(grant.id, seconds(grant.ttl_seconds), now);
            }
            (Command::LeaseRevoke { id }, Ok(_)) => self.clock.stop(*id),
            (Command::Alarm(AlarmChange::Raise(alarm)), _) if alarm.kind == AlarmKind::Corrupt => {
                self.raising_corrupt = false;
            }
            _ => {}
        }
    }

    fn publish(&mut self) {
        let revision = self.store.revision();
        self.scratch
            .extend(self.store.events_since(revision).map(Arc::clone));
        self.watches.publish(revision, &self.scratch);
        self.scratch.clear();
    }

    fn on_saved(&mut self, stats: BackendStats) {
        let (revision, bytes) = self.saving.on_saved(stats);
        self.store.batch_applied(revision, bytes);
    }

    fn on_checkpointed(&mut self, now: Duration, position: LogPosition) {
        self.output.cut_below = self.saving.on_checkpointed(now, position);
        self.answer_compactions();
    }

    fn answer_compactions(&mut self) {
        let durable = self.saving.take_durable();
        let answers = durable.map(|(waiter, applied)| (waiter, Ok(applied)));
        self.output.answers.extend(answers);
    }

    fn on_tick(&mut self, now: Duration) {
        let stall = self
            .wake_at
            .take()
            .and_then(|due| now.checked_sub(due))
            .unwrap_or_default();
        if stall >= STALL_MIN {
            // Renewals may have been waiting for us all that time (`repl T3`).
            self.clock.extend_all(stall);
        }
        let room = self.room_for_expiry();
        for id in self.clock.expire(now, room) {
            if self.revoking.contains_key(&id) {
                // A revocation is on its way, and a grant of the same id may stand behind it: a
                // second revocation would end that lease instead of this one.
                continue;
            }
            self.expiring += 1;
            self.stats.leases_expired_total += 1;
            self.queue.push(Command::LeaseRevoke { id }, None);
        }
        self.watches.tick(now, &self.store);
        if self.has_space_work() {
            self.store.compact_step();
            if !self.store.compacting() {
                self.saving.on_space_work_done(self.store.has_batch());
                self.answer_compactions();
            }
        }
    }

    /// When a lease expires that there is room for among those under way.
    fn next_expiry(&self) -> Option<Duration> {
        let has_room = self.room_for_expiry() > 0;
        has_room.then(|| self.clock.next_deadline()).flatten()
    }

    /// How many more leases may expire now. A corrupt store refuses to revoke any (`etcd S53`).
    fn room_for_expiry(&self) -> usize {
        if self.store.has_alarm(AlarmKind::Corrupt) {
            return 0;
        }
        EXPIRING_MAX - self.expiring
    }

    /// Whether a slice of a compaction's work can be done: the backend takes one at a time, and
    /// a node that is about to stop leaves the rest to its next start.
    fn has_space_work(&self) -> bool {
        self.store.can_compact_step() && !self.saving.is_settling()
    }

    /// Hands out the next batch for the log, unless one is under way or the backend lags.
    fn fill_log_batch(&mut self) {
        let lagging = self.store.unsaved_bytes() > self.options.unsaved_bytes_max;
        if !self.logged.is_empty() || self.queue.is_empty() || lagging {
            return;
        }
        let mut buffer = BytesMut::new();
        let mut ends = Vec::new();
        while ends.len() < BATCH_ENTRIES_MAX {
            let Some(next) = self.queue.pop(buffer.len()) else {
                break;
            };
            next.command.encode(&mut buffer);
            ends.push(buffer.len());
            self.last_index += 1;
            let (epoch, run, index) = (self.options.epoch, self.options.run, self.last_index);
            let position = LogPosition { epoch, run, index };
            self.logged.push_back(Logged {
                position,
                command: next.command,
                waiter: next.waiter,
            });
        }
        let buffer: Bytes = buffer.freeze();
        let mut start = 0;
        for (entry, end) in self.logged.iter().zip(ends) {
            let payload = buffer.slice(start..end);
            self.output.persist.push(LogEntry {
                position: entry.position,
                payload,
            });
            start = end;
        }
    }

    fn fill_state_batch(&mut self, now: Duration) {
        if self.saving.is_in_flight() {
            return;
        }
        if self.saving.is_checkpoint_due(now, self.store.applied()) {
            return self.start_checkpoint();
        }
        if self.store.has_batch() {
            // A slice of a compaction goes at once: the next one waits for it.
            let due = self.saving.is_save_due(now, self.store.gathered_bytes());
            if due || self.store.compacting() {
                let batch = self.store.take_batch().expect("there is one");
                self.saving.on_taken(&batch);
                self.output.state = Some(batch);
            }
        } else if self.saving.is_settling() && self.saving.can_checkpoint() {
            self.start_checkpoint();
        }
    }

    fn start_checkpoint(&mut self) {
        self.saving.start_checkpoint();
        self.output.checkpoint = true;
    }
}

/// A TTL as time; a TTL is never negative once granted.
fn seconds(ttl_seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or_default())
}

/// A small generator: lease ids need to be spread, not secret (Steele, Lea, Flood 2014).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
