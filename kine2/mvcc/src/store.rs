//! The store: keys, leases and alarms as the applied log made them.

use kine2_mutation::{Mutation, mutated};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::answer::{Answer, Applied, Refusal};
use crate::backend::{Backend, BackendError, LogPosition, StateBatch};
use crate::cache::Cache;
use crate::cells;
use crate::command::{Alarm, AlarmChange, AlarmKind, Command, Compact, LeaseGrant};
use crate::compaction::Compaction;
use crate::event::{Event, Previous};
use crate::history::previous_of;
use crate::index::{Entry, Index, Key, Place};
use crate::key_range::KeyRange;
use crate::lease::LeaseTable;
use crate::record::Record;
use crate::revision::{ChangeId, Revision};
use crate::ring::{Ring, RingBounds};

/// Keys a step of compaction walks at most.
const COMPACT_KEYS_PER_STEP: usize = 1_000;
/// Changes a step of compaction frees at most.
const COMPACT_CHANGES_PER_STEP: usize = 200;

/// Bounds of what the store keeps in memory besides the index.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Records kept for reading, in bytes; 0 for none.
    pub cache_bytes: usize,
    /// Recent changes kept for watches.
    pub ring_events_max: usize,
    /// The same in bytes.
    pub ring_bytes_max: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            ring_events_max: 10_000,
            ring_bytes_max: 16 << 20,
        }
    }
}

/// What the store counts, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Keys that are there now.
    pub keys: usize,
    /// Keys in the index, deleted ones with history among them.
    pub indexed_keys: usize,
    /// Leases.
    pub leases: usize,
    /// Bytes of records kept for reading.
    pub cache_bytes: usize,
    /// Recent changes in memory.
    pub ring_events: usize,
    /// Their bytes.
    pub ring_bytes: usize,
    /// Bytes of records the backend does not have yet.
    pub unsaved_bytes: usize,
    /// What was done since the start.
    pub done: OpCounts,
}

/// Operations since the start, those in transactions among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCounts {
    /// Reads of a key or range; a slice of a long one counts by itself.
    pub ranges: u64,
    /// Puts.
    pub puts: u64,
    /// Deletes of a key or range, whatever they found.
    pub deletes: u64,
    /// Transactions that did more than one of these.
    pub txns: u64,
}

impl OpCounts {
    pub(crate) const fn sum(&self) -> u64 {
        self.ranges + self.puts + self.deletes
    }
}

/// Keys, leases and alarms at one place of the log.
///
/// Commands go in by [`apply`](Self::apply); the batches for the backend come out by
/// [`take_batch`](Self::take_batch) and are confirmed by [`batch_applied`](Self::batch_applied).
/// Between the two their records are served from memory.
#[derive(Debug)]
pub struct Store {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) index: Index,
    pub(crate) ring: Ring,
    pub(crate) cache: Cache,
    pub(crate) leases: LeaseTable,
    alarms: BTreeSet<Alarm>,
    pub(crate) revision: Revision,
    /// Reads below it are refused; -1 if nothing was ever compacted.
    pub(crate) compacted: Revision,
    pub(crate) compaction: Compaction,
    applied: LogPosition,
    /// Changes made since the last batch was taken.
    pub(crate) batch: StateBatch,
    batch_bytes: usize,
    taken_bytes: usize,
    /// Revision the backend has reached.
    saved: Revision,
    pub(crate) done: OpCounts,
}

impl Store {
    /// Opens the state a backend holds and rebuilds the index from its metadata.
    ///
    /// # Errors
    /// If the backend cannot be read, or what it holds contradicts itself.
    pub fn open(backend: Arc<dyn Backend>, options: StoreOptions) -> Result<Self, BackendError> {
        let held = backend.held()?;
        let restored = cells::restore(&held.cells)?;
        let ring_bounds = RingBounds {
            events_max: options.ring_events_max,
            bytes_max: options.ring_bytes_max,
        };
        let mut store = Self {
            index: Index::default(),
            ring: Ring::new(held.revision, ring_bounds),
            cache: Cache::new(options.cache_bytes),
            leases: restored.leases,
            alarms: restored.alarms,
            revision: held.revision,
            compacted: restored.compacted,
            compaction: Compaction::default(),
            applied: held.applied,
            batch: StateBatch {
                applied: held.applied,
                ..StateBatch::default()
            },
            batch_bytes: 0,
            taken_bytes: 0,
            saved: held.revision,
            done: OpCounts::default(),
            backend,
        };
        store.rebuild_index()?;
        Ok(store)
    }

    /// The newest revision.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The compacted revision; -1 if nothing was ever compacted.
    #[must_use]
    pub const fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The last log entry applied.
    #[must_use]
    pub const fn applied(&self) -> LogPosition {
        self.applied
    }

    /// Alarms raised.
    #[must_use]
    pub const fn alarms(&self) -> &BTreeSet<Alarm> {
        &self.alarms
    }

    /// Whether an alarm of this kind is raised.
    #[must_use]
    pub fn has_alarm(&self, kind: AlarmKind) -> bool {
        self.alarms.iter().any(|alarm| alarm.kind == kind)
    }

    /// TTLs of all leases in seconds, by id.
    pub fn lease_ttls(&self) -> impl Iterator<Item = (i64, i64)> {
        self.leases
            .iter()
            .map(|(id, lease)| (id, lease.ttl_seconds))
    }

    /// TTL of a lease in seconds.
    #[must_use]
    pub fn lease_ttl(&self, id: i64) -> Option<i64> {
        self.leases.get(id).map(|lease| lease.ttl_seconds)
    }

    /// Keys that hang on a lease, in order.
    #[must_use]
    pub fn lease_keys(&self, id: i64) -> Vec<Bytes> {
        let keys = self.leases.get(id).map(|lease| &lease.keys);
        keys.into_iter()
            .flatten()
            .map(|key| Bytes::copy_from_slice(key))
            .collect()
    }

    /// What it counts.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            keys: self.index.live(),
            indexed_keys: self.index.len(),
            leases: self.leases.len(),
            cache_bytes: self.cache.bytes(),
            ring_events: self.ring.len(),
            ring_bytes: self.ring.bytes(),
            unsaved_bytes: self.unsaved_bytes(),
            done: self.done,
        }
    }

    /// Applies the entry at `position`: changes everything it asks, or nothing and says why.
    ///
    /// # Errors
    /// If the backend could not be read. The store is then between two entries' states and must
    /// not be used any more.
    ///
    /// # Panics
    /// If `position` does not follow the last applied entry.
    pub fn apply(
        &mut self,
        position: LogPosition,
        command: &Command,
    ) -> Result<Result<Applied, Refusal>, BackendError> {
        assert_eq!(
            position.index,
            self.applied.index + 1,
            "entries are applied in order"
        );
        let answer = match self.alarm_refusal(command) {
            Some(refusal) => Err(refusal),
            None => self.execute(command)?,
        };
        self.applied = position;
        self.batch.applied = position;
        self.batch.revision = self.revision;
        self.ring.trim(self.saved);
        self.cache.shrink(&mut self.index);
        Ok(answer.map(|answer| Applied {
            revision: self.revision,
            answer,
        }))
    }

    /// Whether records that are read or written are kept in memory for later reads, within the
    /// budget. While a log is replayed nobody reads, and what passes by would only fill memory.
    pub const fn set_caching(&mut self, is_on: bool) {
        self.cache.set_on(is_on);
    }

    /// What the last applied entries changed, from revision `from` on; in memory for the newest
    /// at least.
    pub fn events_since(&self, from: Revision) -> impl Iterator<Item = &Arc<Event>> {
        self.ring.since(from)
    }

    /// Takes what the backend is to apply next; `None` if there is nothing. Batches go to the
    /// backend in the order they were taken.
    pub fn take_batch(&mut self) -> Option<StateBatch> {
        if !self.has_batch() {
            return None;
        }
        let batch = &mut self.batch;
        let (applied, revision) = (batch.applied, batch.revision);
        let mut taken = std::mem::take(batch);
        // Slices of two compactions may have met in it.
        taken.removed.sort_unstable();
        self.batch.applied = applied;
        self.taken_bytes += std::mem::take(&mut self.batch_bytes);
        Some(StateBatch {
            applied,
            revision,
            ..taken
        })
    }

    /// Says that the backend has applied everything up to `revision`, `record_bytes` of records
    /// in this batch.
    pub fn batch_applied(&mut self, revision: Revision, record_bytes: usize) {
        self.saved = revision;
        self.taken_bytes -= record_bytes;
        self.ring.trim(self.saved);
    }

    /// Bytes of records in memory that the backend does not have yet.
    #[must_use]
    pub const fn unsaved_bytes(&self) -> usize {
        self.batch_bytes + self.taken_bytes
    }

    /// Bytes of records that [`take_batch`](Self::take_batch) would give.
    #[must_use]
    pub const fn gathered_bytes(&self) -> usize {
        self.batch_bytes
    }

    /// Whether [`take_batch`](Self::take_batch) would give something.
    #[must_use]
    pub fn has_batch(&self) -> bool {
        // Whatever touches the batch sets its revision.
        self.batch.revision != Revision::default()
    }

    /// Whether space work of a compaction is left.
    #[must_use]
    pub const fn compacting(&self) -> bool {
        !self.compaction.is_idle()
    }

    /// Whether a slice of it should be done now: what the one before freed has been taken, so that
    /// no batch keeps the backend for long.
    #[must_use]
    pub const fn can_compact_step(&self) -> bool {
        self.compacting() && self.batch.removed.is_empty()
    }

    /// Does a slice of a compaction's space work.
    pub fn compact_step(&mut self) {
        if self.compaction.is_idle() {
            return;
        }
        self.compaction.step(
            &mut self.index,
            COMPACT_KEYS_PER_STEP,
            COMPACT_CHANGES_PER_STEP,
            &mut self.batch.removed,
        );
        if !self.batch.removed.is_empty() {
            self.batch.revision = self.revision;
            self.batch.applied = self.applied;
        }
    }

    fn alarm_refusal(&self, command: &Command) -> Option<Refusal> {
        let changes = match command {
            Command::Noop | Command::Alarm(_) => false,
            Command::Txn(txn) => !txn.only_reads(),
            _ => true,
        };
        if changes && self.has_alarm(AlarmKind::Corrupt) {
            return Some(Refusal::Corrupt);
        }
        let full = command.space_cost() > 0 && self.has_alarm(AlarmKind::NoSpace);
        full.then_some(Refusal::NoSpace)
    }

    fn execute(&mut self, command: &Command) -> Result<Result<Answer, Refusal>, BackendError> {
        Ok(match command {
            Command::Noop => Ok(Answer::Nothing),
            Command::Put(put) => self.put_alone(put)?.map(Answer::Put),
            Command::Delete(delete) => Ok(Answer::Delete(self.delete_alone(delete)?)),
            Command::Txn(txn) => self.txn(txn)?.map(Answer::Txn),
            Command::Compact(compact) => self.compact(*compact),
            Command::LeaseGrant(grant) => self.grant_lease(*grant),
            Command::LeaseRevoke { id } => self.revoke_lease(*id)?,
            Command::Alarm(change) => Ok(Answer::Alarms(self.change_alarm(*change))),
        })
    }

    fn compact(&mut self, compact: Compact) -> Result<Answer, Refusal> {
        let target = Revision(compact.revision);
        if target <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if target > self.revision {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = target;
        self.compaction.start(target);
        if !mutated(Mutation::CompactionUnsaved) {
            self.batch
                .cells
                .insert(cells::COMPACTED, Some(cells::number(target.0)));
        }
        Ok(Answer::Compacted)
    }

    fn grant_lease(&mut self, grant: LeaseGrant) -> Result<Answer, Refusal> {
        if !self.leases.grant(grant.id, grant.ttl_seconds) {
            return Err(Refusal::LeaseExists);
        }
        if mutated(Mutation::LeaseUnsaved) {
            return Ok(Answer::LeaseGranted(grant));
        }
        self.batch.cells.insert(
            cells::lease(grant.id),
            Some(cells::number(grant.ttl_seconds)),
        );
        Ok(Answer::LeaseGranted(grant))
    }

    /// `etcd S48`: the lease and all its keys in one transaction.
    fn revoke_lease(&mut self, id: i64) -> Result<Result<Answer, Refusal>, BackendError> {
        let Some(lease) = self.leases.revoke(id) else {
            return Ok(Err(Refusal::LeaseNotFound));
        };
        if !mutated(Mutation::LeaseKeysStay) {
            self.delete_keys(&lease.keys)?;
        }
        self.batch.cells.insert(cells::lease(id), None);
        Ok(Ok(Answer::LeaseRevoked))
    }

    fn change_alarm(&mut self, change: AlarmChange) -> Vec<Alarm> {
        let (alarm, changed, cell) = match change {
            AlarmChange::Raise(alarm) => (alarm, self.alarms.insert(alarm), Some(Bytes::new())),
            AlarmChange::Clear(alarm) => (alarm, self.alarms.remove(&alarm), None),
        };
        if changed {
            self.batch.cells.insert(cells::alarm(alarm), cell);
        }
        // Raising one that is there answers it as well.
        let answered = changed || matches!(change, AlarmChange::Raise(_));
        answered.then_some(alarm).into_iter().collect()
    }

    /// Makes `record` the newest of its key, which is in the index at `place` (`Ok`) or has to be
    /// put there (`Err`). All changes of the store's keys pass here.
    pub(crate) fn set(
        &mut self,
        place: Result<Place, Place>,
        id: ChangeId,
        record: Record,
        create: i64,
        version: i64,
        lease: i64,
    ) {
        let live = create != 0;
        let is_kept = live && self.cache.is_on();
        let cached = is_kept.then(|| record.clone());
        let mut live_delta = i8::from(live);
        let previous = match place {
            Ok(place) => {
                let before = self.index.entry(place);
                live_delta -= i8::from(before.is_live());
                let (was_live, was, old_lease) = (before.is_live(), before.newest, before.lease);
                let key = Key::clone(&before.key);
                let old = self.index.update(place, |entry| {
                    entry.older.push(entry.newest_as_past());
                    entry.newest = id;
                    entry.create_revision = create;
                    entry.version = version;
                    entry.lease = lease;
                    std::mem::replace(&mut entry.cached, cached)
                });
                self.leases.move_key(&key, old_lease, lease);
                self.cache.dropped(old.as_ref().map_or(0, Record::len));
                match old {
                    _ if was.main == id.main => {
                        previous_of(self.index.entry(place), id, create == id.main.0)
                    }
                    Some(record) => Previous::Known(record),
                    None if was_live => Previous::Stored(was),
                    None => Previous::Absent,
                }
            }
            Err(place) => {
                let key: Key = record.view().key.into();
                self.leases.move_key(&key, 0, lease);
                let entry = Entry {
                    key,
                    newest: id,
                    create_revision: create,
                    version,
                    lease,
                    cached,
                    recently_read: false,
                    older: Vec::new(),
                };
                self.index.insert_at(place, entry);
                Previous::Absent
            }
        };
        if is_kept {
            self.cache.added(record.len());
        }
        self.batch_bytes += record.len();
        self.batch.changes.push(crate::backend::Change {
            id,
            record: record.clone(),
        });
        self.ring
            .push(Arc::new(Event::new(id, record, previous)), live_delta);
    }

    /// The record of a change that the index or a watch names; `None` if it is compacted.
    ///
    /// # Errors
    /// If the backend cannot be read.
    pub fn record(&self, id: ChangeId) -> Result<Option<Record>, BackendError> {
        match self.ring.get(id) {
            Some(event) => Ok(Some(event.record().clone())),
            None => self.backend.get(id),
        }
    }

    /// The record of a change that must be there.
    pub(crate) fn record_kept(&self, id: ChangeId) -> Result<Record, BackendError> {
        self.record(id)?.ok_or_else(|| {
            BackendError::Damaged(format!("the record of change {id} is in the index only"))
        })
    }

    fn rebuild_index(&mut self) -> Result<(), BackendError> {
        let (index, leases) = (&mut self.index, &mut self.leases);
        let (mut damage, mut last) = (None, ChangeId::default());
        let newest = self.revision;
        self.backend.metas(&mut |meta| {
            if damage.is_none() && (meta.id <= last || meta.id.main > newest) {
                damage = Some(format!(
                    "change {} follows {last} at revision {newest}",
                    meta.id
                ));
            }
            last = meta.id;
            match index.seek(meta.key) {
                Ok(place) => {
                    let before = index.entry(place);
                    leases.move_key(&Key::clone(&before.key), before.lease, meta.lease);
                    index.update(place, |entry| {
                        entry.older.push(entry.newest_as_past());
                        entry.newest = meta.id;
                        entry.create_revision = meta.create_revision;
                        entry.version = meta.version;
                        entry.lease = meta.lease;
                    });
                }
                Err(place) => {
                    let key: Key = meta.key.into();
                    leases.move_key(&key, 0, meta.lease);
                    let entry = Entry {
                        key,
                        newest: meta.id,
                        create_revision: meta.create_revision,
                        version: meta.version,
                        lease: meta.lease,
                        cached: None,
                        recently_read: false,
                        older: Vec::new(),
                    };
                    index.insert_at(place, entry);
                }
            }
        })?;
        if let Some(what) = damage {
            return Err(BackendError::Damaged(what));
        }
        // What a compaction had freed logically may still be there: free it again.
        if self.compacted > Revision(0) {
            self.compaction.start(self.compacted);
        }
        Ok(())
    }

    /// Keys that are there now in a range.
    #[must_use]
    pub fn live_in(&self, range: &KeyRange) -> usize {
        self.index.live_in(range)
    }
}

/// Cells read back: see `cells.rs`.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) leases: LeaseTable,
    pub(crate) alarms: BTreeSet<Alarm>,
    pub(crate) compacted: Revision,
}

impl Default for Restored {
    fn default() -> Self {
        Self {
            leases: LeaseTable::default(),
            alarms: BTreeSet::new(),
            compacted: Revision(-1),
        }
    }
}

/// The cells of a backend by name.
pub(crate) type Cells = BTreeMap<Bytes, Bytes>;
