//! What watches read back: recent changes from memory, older ones from the backend.

use std::sync::Arc;

use crate::backend::{BackendError, Change};
use crate::event::{Event, Previous};
use crate::index::Entry;
use crate::key_range::KeyRange;
use crate::record::Record;
use crate::revision::{ChangeId, Revision};
use crate::store::Store;

/// Changes of a range in order, whole transactions.
#[derive(Clone, Debug, Default)]
pub struct EventPage {
    /// The changes.
    pub events: Vec<Arc<Event>>,
    /// Where to go on; `None` when all up to the end was read.
    pub next: Option<Revision>,
}

/// The store as watches see it.
pub trait History {
    /// The newest revision.
    fn current(&self) -> Revision;

    /// The compacted revision; -1 if nothing was ever compacted.
    fn compacted(&self) -> Revision;

    /// Changes of keys in `range` at revisions `[from, until)`, at most about `limit_bytes` of
    /// records, but at least one transaction.
    ///
    /// # Errors
    /// If the backend cannot be read.
    fn events(
        &self,
        range: &KeyRange,
        from: Revision,
        until: Revision,
        limit_bytes: usize,
    ) -> Result<EventPage, BackendError>;

    /// The record of a change; `None` if it is compacted.
    ///
    /// # Errors
    /// If the backend cannot be read.
    fn record(&self, id: ChangeId) -> Result<Option<Record>, BackendError>;
}

impl History for Store {
    fn current(&self) -> Revision {
        self.revision
    }

    fn compacted(&self) -> Revision {
        self.compacted
    }

    fn events(
        &self,
        range: &KeyRange,
        from: Revision,
        until: Revision,
        limit_bytes: usize,
    ) -> Result<EventPage, BackendError> {
        let in_memory = self.ring.floor().next();
        if from >= in_memory {
            return Ok(self.recent(range, from, until, limit_bytes));
        }
        let page = self
            .backend
            .history(range, from, until.min(in_memory), limit_bytes)?;
        let events = page
            .changes
            .into_iter()
            .map(|change| self.event_of(change))
            .collect();
        let next = page
            .next
            .or_else(|| (in_memory < until).then_some(in_memory));
        Ok(EventPage { events, next })
    }

    fn record(&self, id: ChangeId) -> Result<Option<Record>, BackendError> {
        Self::record(self, id)
    }
}

impl Store {
    fn recent(
        &self,
        range: &KeyRange,
        from: Revision,
        until: Revision,
        limit_bytes: usize,
    ) -> EventPage {
        let mut page = EventPage::default();
        let mut bytes = 0;
        let mut last = Revision::default();
        for event in self.ring.since(from) {
            let main = event.id().main;
            if main >= until {
                break;
            }
            if bytes >= limit_bytes && main > last {
                page.next = Some(main);
                break;
            }
            if range.contains(event.record().view().key) {
                bytes += event.record().len();
                last = main;
                page.events.push(Arc::clone(event));
            }
        }
        page
    }

    /// A change from the backend with what its key was before, as far as the index still knows.
    fn event_of(&self, change: Change) -> Arc<Event> {
        let fields = change.record.view();
        let created = fields.create_revision == change.id.main.0;
        let entry = self.index.get(fields.key);
        let previous = entry.map_or(Previous::Absent, |entry| {
            previous_of(entry, change.id, created)
        });
        Arc::new(Event::new(change.id, change.record, previous))
    }
}

/// What a key was before the transaction of a change. A transaction may change a key more than
/// once; what it made itself is no previous state, and what it created had none (`etcd S36`).
pub(crate) fn previous_of(entry: &Entry, id: ChangeId, created: bool) -> Previous {
    let below = entry.older.partition_point(|past| past.id().main < id.main);
    match entry.older[..below].last() {
        Some(past) if !past.tombstone && !created => Previous::Stored(past.id()),
        _ => Previous::Absent,
    }
}
