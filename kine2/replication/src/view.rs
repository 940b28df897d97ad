//! What a driver may ask a unit besides giving it events.

use std::time::Duration;

use bytes::Bytes;
use kine2_wal::LogIndex;

use crate::ids::{NodeRef, PartName, RequestId};
use crate::limits::WINDOW_ENTRIES_MAX;
use crate::policy::Arbiter;
use crate::unit::Unit;

impl Unit {
    /// Takes in a proposal, as [`Event::Propose`] does, but orders nothing before the next call of
    /// [`handle`](Self::handle): all that is proposed until then becomes one batch.
    ///
    /// [`Event::Propose`]: crate::Event::Propose
    pub fn propose(&mut self, part: &PartName, payload: Bytes, request: RequestId) {
        self.on_propose(part, payload, request);
    }

    /// How many proposals would be ordered at once: none while a batch is on its way to the disk, or
    /// this node does not order the part, or hands it over. Up to
    /// [`WINDOW_BYTES_MAX`](crate::WINDOW_BYTES_MAX) of them are taken.
    #[must_use]
    pub fn room(&self, part: &PartName) -> usize {
        let open = self.parts.get(part).filter(|part| part.active);
        let Some(part) = open.filter(|_| self.swap.is_none()) else {
            return 0;
        };
        let (_, under_way) = part.log.tail_size();
        if under_way > 0 || !part.queue.is_empty() {
            return 0;
        }
        let ordered = part.log.end().0 - part.commit.0;
        usize::try_from(WINDOW_ENTRIES_MAX.saturating_sub(ordered)).unwrap_or(usize::MAX)
    }

    /// This node.
    #[must_use]
    pub const fn me(&self) -> &NodeRef {
        &self.me
    }

    /// This node is the primary and serves the part (`repl K2`).
    #[must_use]
    pub fn is_active(&self, part: &PartName) -> bool {
        self.parts.get(part).is_some_and(|part| part.active)
    }

    /// R1 and A4: the part is read from what is applied here, without asking anybody, if all that
    /// is committed is applied.
    #[must_use]
    pub fn reads_locally(&self, part: &PartName) -> bool {
        let settled = |part: &crate::part::Part| part.active && part.commit >= part.barrier;
        self.parts.get(part).is_some_and(settled) && !self.is_joint(part)
    }

    /// What is committed of the part, as far as this node knows.
    #[must_use]
    pub fn commit_index(&self, part: &PartName) -> LogIndex {
        self.parts.get(part).map_or(LogIndex(0), |part| part.commit)
    }

    /// Index of the last entry of the part's log.
    #[must_use]
    pub fn last_index(&self, part: &PartName) -> LogIndex {
        self.parts
            .get(part)
            .map_or(LogIndex(0), |part| part.log.end())
    }

    /// When the newest frame that the peer has echoed was sent: until then nobody else had become
    /// primary of what is mirrored.
    #[must_use]
    pub const fn confirmed_at(&self) -> Duration {
        self.peer.echoed_sent
    }

    /// When the peer was last heard to be active, or to have heard this node; the start, if it was not
    /// since then.
    #[must_use]
    pub fn peer_heard_at(&self) -> Duration {
        self.peer.heard_active.max(self.peer.echoed_sent)
    }

    /// Nobody else is there to be heard or told anything: no peer, and no witness.
    pub(crate) fn is_by_itself(&self) -> bool {
        let config = &self.hard.config;
        config.members.len() == 1 && matches!(config.arbiter, Arbiter::None(_))
    }
}
