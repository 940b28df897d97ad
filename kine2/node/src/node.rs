//! The node itself: what happened goes to the replica, the log's entries to the store, and what
//! follows to the clients.

use std::sync::Arc;
use std::time::Duration;

use kine2_mutation::{Mutation, mutated};
use kine2_mvcc::{
    AlarmChange, AlarmKind, Answer as Answered, Applied, BackendStats, Command, Compact,
    Event as Change, LeaseGrant, LogPosition, Refusal, Store, WatchHub,
};
use kine2_replication::{
    Answer, Event as ReplicaEvent, Loaded, LogIndex, PartName, RequestId, Standing, WriteId,
};

use crate::event::{Event, NodeError, NodeOptions, NodeStats};
use crate::leases::Leases;
use crate::output::{Cut, Done, Output, Rejected};
use crate::proposals::{Logged, Proposals};
use crate::reads::{Read, Reads};
use crate::replica::Replica;
use crate::saving::{CheckpointBounds, SaveBounds, Saving};

/// Longest time between two ticks.
const WAKE_MAX: Duration = Duration::from_millis(500);
/// A wake-up this late means that the node itself stood still (`repl section 8`).
const STALL_MIN: Duration = Duration::from_millis(200);

/// A snapshot on its way to be the state.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) store: Box<Store>,
    /// The write that switches the log to it, once it was given out.
    pub(crate) write: Option<WriteId>,
}

/// One node of a unit, `W` being who waits for an answer. Its unit has one part, the store.
#[derive(Debug)]
pub struct Node<W> {
    pub(crate) options: NodeOptions,
    pub(crate) store: Store,
    pub(crate) watches: WatchHub,
    pub(crate) replica: Replica,
    pub(crate) proposals: Proposals<W>,
    pub(crate) reads: Reads<W>,
    pub(crate) leases: Leases,
    pub(crate) saving: Saving<W>,
    pub(crate) incoming: Option<Incoming>,
    /// Entries to be applied are being read from the log.
    pub(crate) reading_log: bool,
    /// The alarm for damage that a read met is under way.
    pub(crate) raising_corrupt: bool,
    /// The disk has no room for more log than the current segment.
    pub(crate) log_is_full: bool,
    /// When the node asked to be woken at the latest.
    wake_at: Option<Duration>,
    pub(crate) random: u64,
    pub(crate) stats: NodeStats,
    pub(crate) output: Output<W>,
    scratch: Vec<Arc<Change>>,
}

impl<W> Node<W> {
    /// A node that starts now, over a state that its log has and goes on from.
    ///
    /// # Panics
    /// If the unit has no store.
    #[must_use]
    pub fn new(options: NodeOptions, loaded: Loaded, store: Store, now: Duration) -> Self {
        let saving = new_saving(&options, now);
        Self {
            watches: WatchHub::new(options.watch),
            replica: Replica::new(loaded, options.timers, now),
            proposals: Proposals::new(),
            reads: Reads::default(),
            leases: Leases::default(),
            saving,
            incoming: None,
            reading_log: false,
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

    /// Takes in what happened.
    ///
    /// # Errors
    /// If the state cannot be read, or the log holds what is no command: the node must not be
    /// used any more.
    pub fn apply(&mut self, now: Duration, event: Event<W>) -> Result<(), NodeError> {
        match event {
            Event::Submit { command, waiter } => {
                self.on_submit(command, waiter);
                return Ok(());
            }
            Event::Read { waiter } if mutated(Mutation::ReadUnconfirmed) => {
                self.output.answers.push((waiter, Ok(Done::Readable)));
            }
            Event::Read { waiter } => self.ask(now, Read::Client(waiter)),
            Event::KeepAlive { id, waiter } if mutated(Mutation::RenewalUnconfirmed) => {
                let renewed = self.renew(id, now);
                let answer = Ok(Done::KeptAlive(renewed));
                self.output.answers.push((waiter, answer));
            }
            Event::KeepAlive { id, waiter } => {
                self.ask(now, Read::KeepAlive { id, waiter });
            }
            Event::Replica(event) => self.on_replica(now, event),
            Event::LogRead {
                reader,
                prev,
                entries,
            } => self.on_log_read(now, reader, prev, entries)?,
            Event::SnapshotReceived { position, store } => {
                self.on_snapshot_received(now, position, store);
            }
            Event::Saved(stats) => self.on_saved(stats),
            Event::Checkpointed(position) => self.on_checkpointed(now, position),
            Event::Tick => self.on_tick(now),
        }
        self.carry_out(now)
    }

    /// What is to be done now. Collecting a batch for the log waits for this call, so that all
    /// that was submitted before goes out in one write.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn take_output(&mut self, now: Duration) -> Result<Output<W>, NodeError> {
        self.propose(now);
        self.carry_out(now)?;
        self.fill_state_batch(now);
        self.output.ready_streams = self.watches.take_ready();
        Ok(std::mem::take(&mut self.output))
    }

    /// When [`Event::Tick`] is due at the latest. A node that is woken later than that takes it
    /// that it stood still.
    pub fn next_wake(&mut self, now: Duration) -> Duration {
        let wakes = [
            Some(self.replica.unit.deadline()),
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

    /// A client of the peer waits until what it wrote is applied there: the peer hears at once how
    /// far is committed.
    pub fn hasten_commit(&mut self) {
        self.replica.unit.hasten_commit();
    }

    /// From now on everything is saved and made durable as soon as it can be.
    pub fn settle(&mut self) {
        self.saving.settle();
    }

    /// Whether nothing is under way that this node can finish by itself, and the state is durable.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let finishes = self.replica.unit.reads_locally(&self.replica.part);
        let is_done = self.proposals.is_empty() && self.replica.is_idle();
        (is_done || !finishes) && self.saving.is_settled()
    }

    /// Forgets all who wait for an answer, dropping them: a disk has failed, and the node must not
    /// be used any more.
    pub fn abandon(&mut self) {
        self.proposals = Proposals::new();
        self.reads = Reads::default();
        self.saving.forget_waiters();
        self.output = Output::default();
    }

    /// Tells whether the log has no room beyond its current segment. What needs space is refused
    /// then, so that what is left goes to what frees some (`etcd S53`).
    pub const fn set_log_full(&mut self, is_full: bool) {
        self.log_is_full = is_full;
    }

    pub(crate) fn part(&self) -> PartName {
        self.replica.part.clone()
    }

    fn on_submit(&mut self, command: Command, waiter: W) {
        if !self.is_active() {
            self.stats.refused_total += 1;
            self.output.answers.push((waiter, Err(self.not_primary())));
            return;
        }
        match self.admit(command) {
            Ok(command) => {
                if let Command::LeaseRevoke { id } = command {
                    self.leases.on_revoking(id);
                }
                self.proposals.queue.push(command, Some(waiter));
            }
            Err(refusal) => {
                self.stats.refused_total += 1;
                self.output.answers.push((waiter, Err(refusal.into())));
            }
        }
    }

    /// Why a request cannot be carried out while this node is not active.
    fn not_primary(&self) -> Rejected {
        let config = self.replica.unit.config();
        if config.primary == *self.replica.unit.me() {
            Rejected::Unavailable
        } else {
            Rejected::NotPrimary(config.id(), config.primary.clone())
        }
    }

    /// Gives the replica what waits, if it can order it now.
    fn propose(&mut self, now: Duration) {
        let lagging = self.store.unsaved_bytes() > self.options.unsaved_bytes_max;
        if self.proposals.queue.is_empty() || lagging {
            return;
        }
        let Replica { unit, part, .. } = &mut self.replica;
        let entries = unit.room(part);
        if entries > 0 {
            self.proposals.propose(entries, |payload, request| {
                unit.propose(part, payload, request);
            });
            self.replica.handle(now, ReplicaEvent::Tick);
        }
    }

    fn on_replica(&mut self, now: Duration, event: ReplicaEvent) {
        if let ReplicaEvent::Written { through, .. } = &event
            && let Some(incoming) = &self.incoming
            && incoming.write.is_some_and(|write| write <= *through)
        {
            self.switch_state(now);
        }
        self.replica.handle(now, event);
    }

    /// Asks the replica for a confirmation that this node has what is newest.
    pub(crate) fn ask(&mut self, now: Duration, read: Read<W>) {
        let part = self.part();
        let request = self.reads.add(read);
        self.replica
            .handle(now, ReplicaEvent::Read { part, request });
    }

    /// The store is served here from now on, or not any more.
    pub(crate) fn on_serve(&mut self, now: Duration, active: bool) {
        if active {
            self.leases.activate(&self.store, now);
            return;
        }
        self.leases.deactivate();
        self.raising_corrupt = false;
        for waiter in self.proposals.take_queue() {
            // Nothing was tried.
            self.output.answers.push((waiter, Err(self.not_primary())));
        }
    }

    pub(crate) fn on_answer(&mut self, now: Duration, request: RequestId, answer: Answer) {
        if let Some(read) = self.reads.take(request) {
            return self.on_read_answer(now, read, answer);
        }
        let (waiter, rejected) = match answer {
            // It was answered when it was applied.
            Answer::Committed(_) | Answer::ReadAt(_) => return,
            Answer::Unknown if mutated(Mutation::UnknownAsUntried) => {
                (self.proposals.abandon(request), Rejected::Unavailable)
            }
            Answer::Unknown => (self.proposals.abandon(request), Rejected::Unknown),
            Answer::NotPrimary(config, primary) => (
                self.proposals.refuse(request),
                Rejected::NotPrimary(config, primary),
            ),
            Answer::Unavailable => (self.proposals.refuse(request), Rejected::Unavailable),
            Answer::Busy => (self.proposals.refuse(request), Rejected::Busy),
        };
        if let Some(waiter) = waiter {
            self.output.answers.push((waiter, Err(rejected)));
        }
    }

    fn on_read_answer(&mut self, now: Duration, read: Read<W>, answer: Answer) {
        let rejected = match answer {
            Answer::ReadAt(_) => None,
            Answer::NotPrimary(config, primary) => Some(Rejected::NotPrimary(config, primary)),
            Answer::Busy => Some(Rejected::Busy),
            Answer::Committed(_) | Answer::Unknown | Answer::Unavailable => {
                Some(Rejected::Unavailable)
            }
        };
        let (waiter, answer) = match (read, rejected) {
            (Read::Client(waiter), None) => (waiter, Ok(Done::Readable)),
            (Read::KeepAlive { id, waiter }, None) => {
                // T4: only the primary's clock counts; R3 may have confirmed another node's read.
                // The time counts from the answer: it may have stood still since the request.
                let answer = if self.is_active() && self.leases.is_counting() {
                    Ok(Done::KeptAlive(self.renew(id, now)))
                } else if mutated(Mutation::RenewedAnywhere) {
                    let ttl_seconds = self.store.lease_ttl(id);
                    Ok(Done::KeptAlive(ttl_seconds.unwrap_or_default()))
                } else {
                    Err(self.not_primary())
                };
                (waiter, answer)
            }
            (Read::Expiry { asked }, rejected) => {
                self.leases.is_confirming = false;
                if rejected.is_none() && self.is_active() {
                    // The word that ends a silence gives it to the leases before any of them ends.
                    self.note_confirmed(now, self.reads_locally());
                    self.expire(asked);
                }
                return;
            }
            (Read::Client(waiter) | Read::KeepAlive { waiter, .. }, Some(rejected)) => {
                (waiter, Err(rejected))
            }
        };
        self.output.answers.push((waiter, answer));
    }

    pub(crate) fn on_committed(
        &mut self,
        now: Duration,
        entry: Logged<W>,
    ) -> Result<(), NodeError> {
        let before = self.store.revision();
        let command = match &entry.command {
            Command::Compact(_) if !entry.is_own && mutated(Mutation::CompactionNotApplied) => {
                NOTHING
            }
            Command::Alarm(_) if !entry.is_own && mutated(Mutation::AlarmNotApplied) => NOTHING,
            command => command,
        };
        let result = self.store.apply(entry.position, command)?;
        if let Command::LeaseRevoke { id } = entry.command
            && entry.is_own
        {
            let is_refused = result == Err(Refusal::Corrupt);
            self.leases
                .on_revoked(id, entry.waiter.is_some(), is_refused, now);
        }
        self.stats.committed_total += 1;
        self.after_apply(now, &entry, &result);
        let is_silent = match &entry.command {
            Command::LeaseRevoke { .. } => mutated(Mutation::WatchMissesExpiry),
            _ => !entry.is_own && mutated(Mutation::WatchOwnOnly),
        };
        if self.store.revision() > before && !is_silent {
            self.publish();
        }
        let Some(waiter) = entry.waiter else {
            return Ok(());
        };
        match (result, &entry.command) {
            (Ok(applied), Command::Compact(compact))
                if compact.physical && !mutated(Mutation::CompactionAnsweredEarly) =>
            {
                self.saving.await_space_work(waiter, applied);
            }
            (result, _) => {
                let answer = result.map(Done::Applied).map_err(Rejected::Refused);
                self.output.answers.push((waiter, answer));
            }
        }
        Ok(())
    }

    /// What follows from a command besides the store's own state.
    fn after_apply(&mut self, now: Duration, entry: &Logged<W>, result: &Result<Applied, Refusal>) {
        match (
            &entry.command,
            result.as_ref().map(|applied| &applied.answer),
        ) {
            (Command::LeaseGrant(_), Ok(Answered::LeaseGranted(grant))) => {
                let LeaseGrant { id, ttl_seconds } = *grant;
                if entry.is_own {
                    self.leases.start(id, ttl_seconds, now);
                } else if !mutated(Mutation::LeaseOfOtherNotStarted) {
                    self.leases.start_graced(id, ttl_seconds, now);
                }
            }
            (Command::LeaseRevoke { id }, Ok(_)) => self.leases.stop(*id),
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
        if mutated(Mutation::WatchToldTwice) {
            self.watches.publish(revision, &self.scratch);
        }
        self.scratch.clear();
    }

    fn on_saved(&mut self, stats: BackendStats) {
        let (revision, bytes) = self.saving.on_saved(stats);
        self.store.batch_applied(revision, bytes);
    }

    fn on_checkpointed(&mut self, now: Duration, position: LogPosition) {
        let spare = self.saving.on_checkpointed(now, position);
        // L6: what the peer still needs is kept as well.
        let keep = self.replica.unit.keep_from(&self.replica.part);
        if let (Some(spare), Some(keep)) = (spare, keep) {
            let config = self.replica.unit.config();
            let standing = config.standing(&self.replica.part);
            let below = if mutated(Mutation::CutIgnoresPeer) {
                LogIndex(spare)
            } else if mutated(Mutation::CutBeyondCheckpoint) {
                LogIndex(self.store.applied().index)
            } else {
                LogIndex(spare).min(keep)
            };
            self.output.cut = Some(Cut {
                below,
                peer_is_out: config.members.len() > 1 && standing != Some(Standing::Mirror),
            });
        }
        self.answer_compactions();
    }

    fn answer_compactions(&mut self) {
        let durable = self.saving.take_durable();
        let answers = durable.map(|(waiter, applied)| (waiter, Ok(Done::Applied(applied))));
        self.output.answers.extend(answers);
    }

    fn on_tick(&mut self, now: Duration) {
        let stall = self
            .wake_at
            .take()
            .and_then(|due| now.checked_sub(due))
            .unwrap_or_default();
        if stall >= STALL_MIN && !mutated(Mutation::StallIgnored) {
            self.leases.on_stall(stall, now);
        }
        if now >= self.replica.unit.deadline() {
            self.replica.handle(now, ReplicaEvent::Tick);
        }
        self.drive_leases(now);
        self.watches.tick(now, &self.store);
        if self.has_space_work() {
            self.store.compact_step();
            if !self.store.compacting() {
                self.saving.on_space_work_done(self.store.has_batch());
                self.answer_compactions();
            }
        }
    }

    /// T3: what is due expires by itself where nobody else has a say, else after a confirmation
    /// that began when it was due.
    fn drive_leases(&mut self, now: Duration) {
        if !self.is_active() && !mutated(Mutation::LeaseCountsOn) {
            return;
        }
        let is_local = self.reads_locally();
        self.note_confirmed(now, is_local);
        if self.next_expiry().is_none_or(|due| due > now) {
            return;
        }
        if is_local || mutated(Mutation::ExpiryUnconfirmed) || mutated(Mutation::LeaseCountsOn) {
            self.expire(now);
        } else if !self.leases.is_confirming {
            self.leases.is_confirming = true;
            self.ask(now, Read::Expiry { asked: now });
        }
    }

    /// Until now, or until it was confirmed, nobody else had become primary.
    fn note_confirmed(&mut self, now: Duration, is_local: bool) {
        let confirmed = match is_local {
            true => now,
            false => self.replica.unit.confirmed_at(),
        };
        self.leases.on_confirmed(confirmed, is_local);
    }

    fn expire(&mut self, confirmed: Duration) {
        if self.store.has_alarm(AlarmKind::Corrupt) {
            return;
        }
        for id in self.leases.expire(confirmed) {
            self.proposals.queue.push(Command::LeaseRevoke { id }, None);
        }
    }

    /// When a lease expires next. A corrupt store refuses to revoke any (`etcd S53`).
    fn next_expiry(&self) -> Option<Duration> {
        let is_corrupt =
            self.store.has_alarm(AlarmKind::Corrupt) && !mutated(Mutation::WakesForCorrupt);
        // A node whose disk failed is not told any more that it does not serve.
        let is_active = self.is_active() || mutated(Mutation::LeaseCountsOn);
        let expires = is_active && !is_corrupt;
        let due = self.leases.next_expiry().filter(|_| expires)?;
        // While it is being confirmed there is nothing to wake up for.
        (!self.leases.is_confirming).then_some(due)
    }

    /// Whether a slice of a compaction's work can be done: the backend takes one at a time, and
    /// a node that is about to stop leaves the rest to its next start.
    fn has_space_work(&self) -> bool {
        self.store.can_compact_step()
            && !self.saving.is_settling()
            && !mutated(Mutation::SpaceWorkStops)
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

/// A command that a store refuses, for one that is broken on purpose not to be carried out.
const NOTHING: &Command = &Command::Compact(Compact {
    revision: -1,
    physical: false,
});

pub(crate) fn new_saving<W>(options: &NodeOptions, now: Duration) -> Saving<W> {
    Saving::new(
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
    )
}
