//! A hash of the store's content, made in slices while the store goes on (`etcd S54`).
//!
//! Each kept change is hashed by itself and the hashes are added up, so the sum does not depend
//! on how far the space work of a compaction has come or in which order keys are walked. Equal
//! content at equal (revision, compacted revision) gives equal hashes on every replica.

use crate::answer::Refusal;
use crate::backend::BackendError;
use crate::index::{Entry, Key};
use crate::range::ReadError;
use crate::revision::{ChangeId, Revision};
use crate::store::Store;

/// Changes a step hashes at most, but at least one key.
const CHANGES_PER_STEP: usize = 500;

/// A hash and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHash {
    /// The hash.
    pub hash: u32,
    /// Revision of the store when it was asked for.
    pub current: Revision,
    /// Revision hashed: nothing newer is in it.
    pub at: Revision,
    /// Compacted revision; -1 if never.
    pub compacted: Revision,
}

/// A hash in the making.
#[derive(Debug)]
pub struct HashJob {
    current: Revision,
    at: Revision,
    compacted: Revision,
    next: Option<Key>,
    sum: u64,
}

impl HashJob {
    /// Starts a hash at `revision`, or the newest if it is 0.
    ///
    /// # Errors
    /// If the revision is compacted or yet to come (`etcd S54`).
    pub fn start(store: &Store, revision: Revision) -> Result<Self, Refusal> {
        if revision > store.revision {
            return Err(Refusal::FutureRevision);
        }
        if revision.0 > 0 && revision < store.compacted {
            return Err(Refusal::Compacted);
        }
        // As in etcd, nothing is as old as a negative revision.
        let at = if revision.0 == 0 {
            store.revision
        } else {
            revision
        };
        Ok(Self {
            current: store.revision,
            at,
            compacted: store.compacted,
            next: None,
            sum: 0,
        })
    }

    /// Hashes a slice; answers the hash once all is covered.
    ///
    /// # Errors
    /// If a compaction has overtaken the revision, or the backend cannot be read.
    pub fn step(&mut self, store: &Store) -> Result<Option<StoreHash>, ReadError> {
        if store.compacted != self.compacted {
            if self.at.0 > 0 && self.at < store.compacted {
                return Err(Refusal::Compacted.into());
            }
            // What counts as kept has changed: begin again.
            (self.compacted, self.next, self.sum) = (store.compacted, None, 0);
        }
        let mut place = store
            .index
            .lower_bound(self.next.as_ref().map_or(&[], |key| &key[..]));
        let mut done = 0;
        while done < CHANGES_PER_STEP && !store.index.is_end(place) {
            for id in kept(store.index.entry(place), self.at, self.compacted) {
                self.add(store, id)?;
                done += 1;
            }
            done += 1;
            place = store.index.after(place);
        }
        if !store.index.is_end(place) {
            self.next = Some(Key::clone(&store.index.entry(place).key));
            return Ok(None);
        }
        let [high, low] = [self.sum >> 32, self.sum & u64::from(u32::MAX)];
        let hash = u32::try_from(high ^ low).expect("both are 32 bits");
        let (current, at, compacted) = (self.current, self.at, self.compacted);
        Ok(Some(StoreHash {
            hash,
            current,
            at,
            compacted,
        }))
    }

    fn add(&mut self, store: &Store, id: ChangeId) -> Result<(), BackendError> {
        let record = store.record_kept(id)?;
        let crc = u64::from(crc32c::crc32c_append(id.sub, record.as_bytes()));
        // Spread the 32 bits over 64 before adding, or close values would cancel out.
        let mixed = (crc ^ u64::from(id.sub) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.sum = self.sum.wrapping_add(mixed ^ mixed >> 29);
        Ok(())
    }
}

/// The changes of a key that a store compacted at `compacted` keeps, up to `at`.
fn kept(entry: &Entry, at: Revision, compacted: Revision) -> impl Iterator<Item = ChangeId> {
    let newest = entry.newest_as_past();
    let all = || entry.older.iter().copied().chain([newest]);
    let base = all().rfind(|past| past.id().main <= compacted);
    let base = base
        .filter(|past| !past.tombstone)
        .filter(|past| past.id().main <= at);
    let rest = all().filter(move |past| past.id().main > compacted && past.id().main <= at);
    base.into_iter()
        .chain(rest)
        .map(|past| past.id())
        .collect::<Vec<_>>()
        .into_iter()
}
