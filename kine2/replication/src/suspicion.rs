//! Who is suspected, and signs of life (`repl section 8`). Liveness only.

use std::collections::BTreeMap;

use crate::config::Standing;
use crate::hard_state::DataState;
use crate::message::{Body, Heartbeat, StreamId};
use crate::part::Part;
use crate::unit::Unit;

impl Unit {
    /// The peer is suspected to be lost: the one who may goes on without it.
    pub(crate) fn suspects_peer(&self) -> bool {
        if self.is_primary() {
            self.suspects_secondary()
        } else {
            self.suspects_primary()
        }
    }

    fn suspects_secondary(&self) -> bool {
        let age = self.now.saturating_sub(self.peer.echoed_sent);
        let hint = self.timers.suspect_hint;
        let suspects_us = self.peer.suspects_us.is_some_and(|at| self.now < at + hint);
        self.peer.refused
            || self.peer_leaves()
            || age > self.timers.suspect_secondary
            || (suspects_us && age > hint)
    }

    /// The peer wants to go on without being in sync (`repl S5`).
    pub(crate) fn peer_leaves(&self) -> bool {
        let valid = self.timers.suspect_secondary;
        self.peer.left.is_some_and(|at| self.now < at + valid)
    }

    fn suspects_primary(&self) -> bool {
        let silent = self.now.saturating_sub(self.peer.heard_active) > self.timers.suspect_primary;
        if self.gives_grace() {
            return self.peer.refused && self.register.peer_connected == Some(false);
        }
        self.peer.refused || silent
    }

    /// After the start, a primary that did not serve yet gets more time: it may be starting too.
    fn gives_grace(&self) -> bool {
        !self.peer.heard_serving && self.now < self.started + self.timers.boot_grace
    }

    /// The other node tells the witness early, so that its verdict is ready.
    pub(crate) fn should_hint(&self) -> bool {
        let silence = self.now.saturating_sub(self.peer.heard_active);
        let lost = self.peer.link != crate::event::Link::Up;
        !self.is_primary()
            && self.hard.config.in_lead(&self.me)
            && !self.gives_grace()
            && (lost || silence > self.timers.suspect_hint)
    }

    /// The part's oldest entry not acknowledged is too old, though the peer answers
    /// (`repl section 8`, slow_drop_after).
    pub(crate) fn is_slow(&self, name: &crate::PartName) -> bool {
        let after = self.timers.slow_drop_after;
        let mirrored = self.hard.config.standing(name) == Some(Standing::Mirror);
        let oldest = self.parts[name].unacked.front();
        mirrored
            && !after.is_zero()
            && self.parts[name].active
            && oldest.is_some_and(|(_, at)| self.now > *at + after)
    }

    /// Heartbeats keep their pace whatever else is sent: only they say that the primary is active,
    /// and go over every link.
    pub(crate) fn drive_heartbeat(&mut self) {
        let owes = |part: &Part| part.active && part.commit > part.told;
        if !self.parts.values().any(owes) {
            // It went with entries.
            self.commit_due = None;
        }
        let commit_due = self.commit_due.is_some_and(|due| self.now >= due);
        let due = |at| self.now >= at + self.timers.heartbeat;
        if commit_due || self.peer.beat_sent.is_none_or(due) {
            self.send_heartbeat();
            self.say_what_is_lost();
            self.propose_again();
        }
        if commit_due {
            self.commit_due = None;
        }
    }

    /// S, leaving or with a failed disk: the primary goes on without it (`repl S5`, I1).
    fn say_what_is_lost(&mut self) {
        if self.is_primary() {
            return;
        }
        if self.stopping || self.failed {
            self.send(Body::Leave);
        }
        for name in self.part_names() {
            let in_sync = self.hard.config.has(&name, &self.me);
            let part = &self.parts[&name];
            let reverted = self.hard.reverted.contains(&name);
            if in_sync && (part.data == DataState::Failed || reverted) {
                self.send(Body::PartFailed(name));
            } else if part.data == DataState::Inconsistent && part.receiver.is_none() {
                // A part that was given up waits to be filled.
                let (boot, opening) = (self.boot, self.opening);
                let stream = StreamId { boot, opening };
                self.send(Body::Nack { part: name, stream });
            }
        }
    }

    pub(crate) fn send_heartbeat(&mut self) {
        let lead = self.parts.get(&self.hard.config.lead);
        let active = lead.is_some_and(|part| part.active);
        let mut commits = BTreeMap::new();
        for (name, part) in self.parts.iter_mut().filter(|(_, part)| part.active) {
            part.told = part.commit;
            commits.insert(name.clone(), part.commit);
        }
        self.peer.beat_sent = Some(self.now);
        self.send(Body::Heartbeat(Heartbeat { active, commits }));
    }
}
