//! Reads of keys and ranges (`etcd S7`–`S13`).

use kine2_mutation::{Mutation, mutated};
use thiserror::Error;

use crate::answer::{RangeAnswer, Refusal};
use crate::backend::BackendError;
use crate::command::{RangeQuery, RevisionBounds, Sort, SortBy};
use crate::index::Place;
use crate::key_range::KeyRange;
use crate::record::{KeyValue, Record};
use crate::revision::{ChangeId, Revision};
use crate::store::Store;

/// Why a read was not answered.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It asks for what the store does not have.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The backend could not be read.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A key that a read found, and the change it found it at.
#[derive(Clone, Copy, Debug)]
struct Hit {
    place: Place,
    id: ChangeId,
    newest: bool,
}

impl Store {
    /// Answers a query at the newest or an older revision.
    ///
    /// # Errors
    /// If the revision is compacted or yet to come, or the backend cannot be read.
    pub fn range(&mut self, query: &RangeQuery) -> Result<RangeAnswer, ReadError> {
        let asked = Revision(query.revision);
        let revision = if asked.0 > 0 { asked } else { self.revision };
        if revision > self.revision {
            return Err(Refusal::FutureRevision.into());
        }
        if revision < self.compacted && !mutated(Mutation::CompactedReadable) {
            return Err(Refusal::Compacted.into());
        }
        let answer = self.range_at(query, revision)?;
        self.cache.shrink(&mut self.index);
        Ok(answer)
    }

    /// Answers a query at `revision`, which is kept. A transaction under way reads its own
    /// changes at the revision it is making.
    pub(crate) fn range_at(
        &mut self,
        query: &RangeQuery,
        revision: Revision,
    ) -> Result<RangeAnswer, BackendError> {
        self.done.ranges += 1;
        let plain = query.bounds == RevisionBounds::default() && !needs_sort(query.sort);
        if query.count_only {
            let count = to_i64(self.count_at(&query.range, revision));
            return Ok(RangeAnswer {
                count,
                ..RangeAnswer::default()
            });
        }
        let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0);
        if plain {
            let limit = limit.unwrap_or(usize::MAX);
            let wanted = limit.saturating_add(usize::from(query.uncounted));
            let mut hits = self.hits(&query.range, revision, wanted);
            // Only a range that was cut short needs counting.
            let count = if hits.len() == limit && !query.uncounted {
                self.count_at(&query.range, revision)
            } else {
                hits.len()
            };
            hits.truncate(limit);
            let more = count > hits.len() && !mutated(Mutation::MoreForgotten);
            let records = self.load(&hits, query.keys_only)?;
            return Ok(RangeAnswer {
                records,
                more,
                count: to_i64(count),
            });
        }
        let mut hits = self.hits(&query.range, revision, usize::MAX);
        let count = to_i64(hits.len());
        self.filter(&mut hits, query.bounds)?;
        if let Some(sort) = query.sort {
            self.sort(&mut hits, sort)?;
        }
        let more = limit.is_some_and(|limit| hits.len() > limit);
        hits.truncate(limit.unwrap_or(usize::MAX));
        let records = self.load(&hits, query.keys_only)?;
        Ok(RangeAnswer {
            records,
            more,
            count,
        })
    }

    /// The first `limit` keys that were there at `revision`.
    fn hits(&self, range: &KeyRange, revision: Revision, limit: usize) -> Vec<Hit> {
        let find = |place| {
            let entry = self.index.entry(place);
            let id = entry.at(revision)?;
            Some(Hit {
                place,
                id,
                newest: id == entry.newest,
            })
        };
        if range.is_single() {
            return self
                .index
                .find(&range.start)
                .and_then(find)
                .into_iter()
                .collect();
        }
        self.index
            .places(range)
            .filter_map(find)
            .take(limit)
            .collect()
    }

    /// Keys of the range that were there at `revision`: today's, less what was born since, plus
    /// what died.
    fn count_at(&self, range: &KeyRange, revision: Revision) -> usize {
        if mutated(Mutation::CountStale) {
            return self.index.live_in(range);
        }
        if revision >= self.revision && self.ring.since(revision.next()).next().is_none() {
            return self.index.live_in(range);
        }
        if revision < self.ring.floor() {
            let there = |place: &Place| self.index.entry(*place).at(revision).is_some();
            return self.index.places(range).filter(there).count();
        }
        let since = self.ring.births_and_deaths_since(revision.next());
        let delta: i64 = since
            .filter(|(event, _)| range.contains(event.record().view().key))
            .map(|(_, delta)| i64::from(delta))
            .sum();
        usize::try_from(to_i64(self.index.live_in(range)) - delta)
            .expect("no fewer keys than none were there")
    }

    /// The records of hits, in their order.
    fn load(&mut self, hits: &[Hit], keys_only: bool) -> Result<Vec<Record>, BackendError> {
        if keys_only {
            return hits.iter().map(|hit| self.load_key(*hit)).collect();
        }
        let mut records: Vec<Option<Record>> = hits.iter().map(|hit| self.cached(*hit)).collect();
        let missing = |slot: &usize| records[*slot].is_none();
        let mut cold: Vec<usize> = (0..hits.len()).filter(missing).collect();
        // The backend keeps records in the order of their changes: neighbours share a block.
        cold.sort_unstable_by_key(|slot| hits[*slot].id);
        for slot in cold {
            let record = self.record_kept(hits[slot].id)?;
            if hits[slot].newest {
                self.keep(hits[slot].place, &record);
            }
            records[slot] = Some(record);
        }
        Ok(records
            .into_iter()
            .map(|record| record.expect("loaded above"))
            .collect())
    }

    fn cached(&mut self, hit: Hit) -> Option<Record> {
        if !hit.newest {
            return None;
        }
        let entry = self.index.entry_mut(hit.place);
        entry.recently_read = true;
        entry.cached.clone()
    }

    fn keep(&mut self, place: Place, record: &Record) {
        if !self.cache.is_on() {
            return;
        }
        self.index.entry_mut(place).cached = Some(record.clone());
        self.cache.added(record.len());
    }

    /// The record without its value (`etcd S12`); the index alone knows it if it is the newest.
    fn load_key(&self, hit: Hit) -> Result<Record, BackendError> {
        if !hit.newest {
            return Ok(self.record_kept(hit.id)?.without_value());
        }
        let entry = self.index.entry(hit.place);
        let fields = KeyValue {
            key: &entry.key,
            create_revision: entry.create_revision,
            mod_revision: entry.newest.main.0,
            version: entry.version,
            value: &[],
            lease: entry.lease,
        };
        Ok(fields.to_record())
    }

    /// The newest record of a live key.
    pub(crate) fn newest_record(&mut self, place: Place) -> Result<Record, BackendError> {
        let id = self.index.entry(place).newest;
        let loaded = self.load(
            &[Hit {
                place,
                id,
                newest: true,
            }],
            false,
        )?;
        Ok(loaded.into_iter().next().expect("one hit gives one record"))
    }

    fn filter(&self, hits: &mut Vec<Hit>, bounds: RevisionBounds) -> Result<(), BackendError> {
        let within = |value: i64, min: i64, max: i64| {
            (min == 0 || value >= min) && (max == 0 || value <= max)
        };
        hits.retain(|hit| within(hit.id.main.0, bounds.min_mod, bounds.max_mod));
        if bounds.min_create == 0 && bounds.max_create == 0 {
            return Ok(());
        }
        let mut kept = Vec::with_capacity(hits.len());
        for hit in hits.drain(..) {
            let create = self.load_key(hit)?.view().create_revision;
            if within(create, bounds.min_create, bounds.max_create) {
                kept.push(hit);
            }
        }
        *hits = kept;
        Ok(())
    }

    /// Sorts by a field, ties in key order (`etcd S11`).
    fn sort(&mut self, hits: &mut Vec<Hit>, sort: Sort) -> Result<(), BackendError> {
        let records = match sort.by {
            SortBy::Key | SortBy::Mod => Vec::new(),
            SortBy::Value => self.load(hits, false)?,
            SortBy::Version | SortBy::Create => self.load(hits, true)?,
        };
        let mut order: Vec<usize> = (0..hits.len()).collect();
        let compare = |a: &usize, b: &usize| match sort.by {
            SortBy::Key => a.cmp(b),
            SortBy::Mod => hits[*a].id.main.cmp(&hits[*b].id.main),
            SortBy::Value => records[*a].view().value.cmp(records[*b].view().value),
            SortBy::Version => records[*a].view().version.cmp(&records[*b].view().version),
            SortBy::Create => records[*a]
                .view()
                .create_revision
                .cmp(&records[*b].view().create_revision),
        };
        if sort.descending {
            order.sort_by(|a, b| compare(b, a));
        } else {
            order.sort_by(compare);
        }
        *hits = order.into_iter().map(|slot| hits[slot]).collect();
        Ok(())
    }
}

/// Key order, ascending, is how hits come anyway.
fn needs_sort(sort: Option<Sort>) -> bool {
    sort.is_some_and(|sort| sort.by != SortBy::Key || sort.descending)
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).expect("keys fit in memory")
}
