//! The last changes, in memory: for watches, for reads just behind the newest revision, and for
//! everything the backend does not have yet.

use kine2_mutation::{Mutation, mutated};
use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::Event;
use crate::revision::{ChangeId, Revision};

/// Slots at the end that are looked at one by one before all are searched.
const NEWEST_SLOTS: usize = 8;

/// Bounds of the [`Ring`]. Changes the backend lacks are kept beyond them; the node holds writes
/// back before those grow without end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingBounds {
    pub(crate) events_max: usize,
    pub(crate) bytes_max: usize,
}

#[derive(Debug)]
struct Slot {
    /// The event's, so that a search does not touch the events.
    id: ChangeId,
    event: Arc<Event>,
    /// What the change did to the number of live keys: 1, 0 or -1.
    live_delta: i8,
}

/// Changes in order; whole transactions.
#[derive(Debug)]
pub(crate) struct Ring {
    slots: VecDeque<Slot>,
    bytes: usize,
    /// Every change above this revision is here.
    floor: Revision,
    bounds: RingBounds,
}

impl Ring {
    /// An empty ring of a store at `revision`.
    pub(crate) const fn new(revision: Revision, bounds: RingBounds) -> Self {
        Self {
            slots: VecDeque::new(),
            bytes: 0,
            floor: revision,
            bounds,
        }
    }

    /// Every change above this revision is here.
    pub(crate) const fn floor(&self) -> Revision {
        self.floor
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the next change.
    pub(crate) fn push(&mut self, event: Arc<Event>, live_delta: i8) {
        debug_assert!(self.slots.back().is_none_or(|last| last.id < event.id()));
        self.bytes += event.memory_bytes();
        self.slots.push_back(Slot {
            id: event.id(),
            event,
            live_delta,
        });
    }

    /// Forgets the oldest transactions while beyond the bounds, up to what the backend has.
    pub(crate) fn trim(&mut self, in_backend: Revision) {
        while self.slots.len() > self.bounds.events_max || self.bytes > self.bounds.bytes_max {
            let Some(oldest) = self.slots.front().map(|slot| slot.id.main) else {
                return;
            };
            if oldest > in_backend && !mutated(Mutation::RingForgets) {
                return;
            }
            while let Some(slot) = self.slots.pop_front_if(|slot| slot.id.main == oldest) {
                self.bytes -= slot.event.memory_bytes();
            }
            self.floor = oldest;
        }
    }

    pub(crate) fn get(&self, id: ChangeId) -> Option<&Arc<Event>> {
        let found = self.slots.binary_search_by(|slot| slot.id.cmp(&id)).ok()?;
        Some(&self.slots[found].event)
    }

    /// Changes at `from` and above.
    pub(crate) fn since(&self, from: Revision) -> impl Iterator<Item = &Arc<Event>> {
        self.slots_since(from).map(|slot| &slot.event)
    }

    /// Changes at `from` and above that made a key or deleted one, with +1 or -1.
    pub(crate) fn births_and_deaths_since(
        &self,
        from: Revision,
    ) -> impl Iterator<Item = (&Arc<Event>, i8)> {
        self.slots_since(from)
            .filter(|slot| slot.live_delta != 0)
            .map(|slot| (&slot.event, slot.live_delta))
    }

    fn slots_since(&self, from: Revision) -> impl Iterator<Item = &Slot> {
        // Mostly it is the last change that is asked for.
        let newest = self.slots.iter().rev().take(NEWEST_SLOTS);
        let newest = newest.take_while(|slot| slot.id.main >= from).count();
        let first = if newest < NEWEST_SLOTS {
            self.slots.len() - newest
        } else {
            self.slots.partition_point(|slot| slot.id.main < from)
        };
        self.slots.range(first..)
    }
}
