//! What clients and operators read of a node.

use std::time::Duration;

use kine2_mutation::{Mutation, mutated};
use kine2_mvcc::{
    Alarm, AlarmChange, AlarmKind, BackendError, BackendStats, Command, HashJob, Polled,
    RangeAnswer, RangeQuery, ReadError, Revision, Store, StoreHash, StoreStats, StreamId, WatchHub,
    WatchRequest,
};
use kine2_replication::Unit;

use crate::event::NodeStats;
use crate::node::Node;

impl<W> Node<W> {
    /// Whether this node is the primary and serves the store.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.replica.unit.is_active(&self.replica.part)
    }

    /// R1: what is applied here is what is newest, and nobody has to be asked: [`range`] is a
    /// linearizable read, [`keep_alive`] a renewal that counts.
    ///
    /// [`range`]: Self::range
    /// [`keep_alive`]: Self::keep_alive
    #[must_use]
    pub fn reads_locally(&self) -> bool {
        let (unit, part) = (&self.replica.unit, &self.replica.part);
        let is_applied = self.store.applied().index >= unit.commit_index(part).0;
        // Until what makes it primary is durable it counts no lease, and none may look gone.
        let counts = self.leases.is_counting() || mutated(Mutation::LeasesGoneAtActivation);
        unit.reads_locally(part) && counts && (is_applied || mutated(Mutation::ReadUnapplied))
    }

    /// The replica: its configuration, state and words.
    #[must_use]
    pub const fn unit(&self) -> &Unit {
        &self.replica.unit
    }

    /// Whether a client's command must be refused because too much is waiting.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.proposals.queue.is_full()
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
            queued: self.proposals.queue.len(),
            logging: self.proposals.logged(),
            leases_expired_total: self.leases.expired_total,
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

    /// Index of the last entry of the log.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.replica.unit.last_index(&self.replica.part).0
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

    /// Reads applied state; also answers the store's revision.
    ///
    /// # Errors
    /// If the revision is not there or the state cannot be read.
    pub fn range(&mut self, query: &RangeQuery) -> Result<(Revision, RangeAnswer), ReadError> {
        let result = self.store.range(query);
        let answer = self.watched_for_damage(result)?;
        Ok((self.store.revision(), answer))
    }

    /// Renews a lease and answers its TTL in seconds; 0 if there is none or it has expired
    /// (`etcd S46`). Counts only where this node [reads locally](Self::reads_locally).
    pub fn keep_alive(&mut self, now: Duration, id: i64) -> i64 {
        self.renew(id, now)
    }

    pub(crate) fn renew(&mut self, id: i64, now: Duration) -> i64 {
        let Some(ttl_seconds) = self.store.lease_ttl(id) else {
            return 0;
        };
        let renewed = self.leases.renew(id, ttl_seconds, now);
        if renewed { ttl_seconds } else { 0 }
    }

    /// Time left and granted seconds of a lease (`etcd S47`).
    #[must_use]
    pub fn time_to_live(&self, now: Duration, id: i64) -> Option<(Duration, i64)> {
        let granted = self.store.lease_ttl(id)?;
        let left = match self.is_active() && !self.leases.is_counting() {
            // It is about to get its whole time.
            true => Duration::from_secs(u64::try_from(granted).unwrap_or_default()),
            false => self.leases.remaining(id, now)?,
        };
        Some((left, granted))
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

    pub(crate) fn raise(&mut self, kind: AlarmKind) {
        let member_id = self.options.member_id;
        let alarm = AlarmChange::Raise(Alarm { member_id, kind });
        self.proposals.queue.push(Command::Alarm(alarm), None);
    }
}
