//! Becoming active (`repl A1`, A2, D4): Hello, and the tail that only the other node has.

use std::collections::BTreeMap;

use kine2_mutation::{Mutation, mutated};
use kine2_wal::{Entry, LogIndex, Position};

use crate::hard_state::DataState;
use crate::ids::{NodeRef, PartName};
use crate::limits::FRAME_BYTES_MAX;
use crate::message::{Body, PartSummary};
use crate::output::{Act, Record};
use crate::part::{Fetch, Sender};
use crate::policy::Arbiter;
use crate::unit::{Phase, Unit};

impl Unit {
    /// Restart (`repl section 10`): asks the witness and the peer first; then acts by the newest
    /// configuration it has.
    pub(crate) fn end_probing(&mut self) {
        let Phase::Probing { since } = self.phase else {
            if self.phase == Phase::AloneUnheard && self.heard_anybody() {
                self.phase = Phase::Running;
                self.begin_if_primary();
            }
            return;
        };
        let asks_witness = matches!(self.hard.config.arbiter, Arbiter::Witness { .. });
        let asks_peer = self.hard.config.other(&self.me).is_some();
        let heard_all = (self.register.heard || !asks_witness) && (self.peer.heard || !asks_peer);
        let waited = self.now.saturating_sub(since);
        if !heard_all && waited < self.timers.boot_probe {
            return;
        }
        // In sync alone, and neither the witness nor the peer heard: the operator may have forced
        // the other node meanwhile.
        let lead = self.hard.config.lead.clone();
        let alone = self.is_primary() && !self.is_joint(&lead);
        if alone && (asks_witness || asks_peer) && !self.heard_anybody() {
            if waited < self.timers.alone_boot_wait {
                return;
            }
            if !self.hard.config.policies.boot_alone {
                self.phase = Phase::AloneUnheard;
                return;
            }
        }
        self.phase = Phase::Running;
        self.begin_if_primary();
    }

    fn heard_anybody(&self) -> bool {
        self.register.heard || self.peer.heard
    }

    pub(crate) fn begin_if_primary(&mut self) {
        self.peer.trust(self.now);
        if self.is_primary() && !self.hard.twin && !self.failed {
            self.begin_run();
        }
    }

    /// A1 for the parts this node holds alone; the others wait for [`Body::HelloAck`] (A2). D4:
    /// with an ADD in doubt a part is joint, so never A1.
    pub(crate) fn activate(&mut self) {
        for name in self.part_names() {
            let holds = self.holds(&name) || mutated(Mutation::ServeForeign);
            if !self.parts[&name].active && holds && !self.is_joint(&name) {
                self.activate_part(&name);
            }
        }
        self.drive_activation();
    }

    /// The part is active. A4: its reads wait until all that was in the log is committed.
    fn activate_part(&mut self, name: &PartName) {
        let part = self.part(name);
        part.fetching = None;
        part.active = true;
        part.barrier = part.log.end();
        if mutated(Mutation::NoBarrier) {
            part.barrier = LogIndex(0);
        }
        part.matched = None;
        part.sender = Sender::Idle;
        self.push(Act::Serve {
            part: name.clone(),
            active: true,
        });
        if mutated(Mutation::SwapInstantCommit) {
            let end = self.parts[name].log.end();
            self.commit(name, end);
        }
    }

    /// A2: says Hello until every joint part is active, and fetches tails.
    pub(crate) fn drive_activation(&mut self) {
        if !self.acts_as_primary() {
            return;
        }
        let mut waits = false;
        for name in self.part_names() {
            if self.parts[&name].active || !self.holds(&name) {
                continue;
            }
            match self.parts[&name].fetching {
                None => waits = true,
                Some(fetch) => self.drive_fetch(&name, fetch),
            }
        }
        let due = |at| self.now >= at + self.timers.heartbeat;
        if waits && self.hello_sent.is_none_or(due) {
            self.hello_sent = Some(self.now);
            let config = Box::new(self.hard.config.clone());
            self.send(Body::Hello(config));
        }
    }

    /// This node is the primary and past its start.
    pub(crate) fn acts_as_primary(&self) -> bool {
        self.is_primary() && self.phase == Phase::Running && !self.hard.twin && !self.failed
    }

    pub(crate) fn on_hello(&mut self) {
        self.peer.heard_active = self.now;
        let summaries = self.summaries();
        self.send(Body::HelloAck(summaries));
    }

    pub(crate) fn summaries(&self) -> BTreeMap<PartName, PartSummary> {
        let names = self.part_names().into_iter();
        names
            .map(|name| {
                let summary = self.parts[&name].summary();
                (name, summary)
            })
            .collect()
    }

    pub(crate) fn on_hello_ack(
        &mut self,
        from: &NodeRef,
        summaries: &BTreeMap<PartName, PartSummary>,
    ) {
        if !self.acts_as_primary() {
            return;
        }
        for name in self.part_names() {
            let part = &self.parts[&name];
            if part.active || !self.holds(&name) || part.fetching.is_some() {
                continue;
            }
            let theirs = summaries.get(&name);
            if !self.is_peer_replica(&name, from, theirs) {
                self.part(&name).peer_lost = true;
                continue;
            }
            let summary = theirs.expect("it was found in sync");
            if self.peer_lacks(&name, &summary.history) {
                self.part(&name).peer_lost = true;
                continue;
            }
            let part = &self.parts[&name];
            let (last, theirs) = (part.log.last(), theirs.expect("it was found in sync"));
            let target = theirs.history.last().index;
            let skips = mutated(Mutation::NoFetch) || mutated(Mutation::NoRunNoFetch);
            let behind = target > last.index && theirs.history.holds(last.index, last.term);
            if behind && !skips {
                // The own log is a prefix of the other's.
                self.part(&name).fetching = Some(Fetch {
                    target,
                    asked: self.now,
                });
                self.send(Body::FetchTail {
                    part: name,
                    after: last,
                });
            } else if theirs.commit > last.index && !skips {
                // What is final there is not here, and cannot be fetched: only the other has it.
                self.note_reverted(&name);
            } else {
                self.activate_part(&name);
            }
        }
    }

    /// K6: the peer has the replica that the configuration names, or the ADD in doubt (D4).
    fn is_peer_replica(
        &self,
        name: &PartName,
        from: &NodeRef,
        theirs: Option<&PartSummary>,
    ) -> bool {
        let Some(theirs) = theirs else { return false };
        let replica = self.hard.config.replica(name, from);
        let named = replica.or_else(|| self.pending_add(name));
        theirs.data == DataState::Complete
            && named.is_some_and(|r| r.node == *from && r.storage == theirs.storage)
    }

    fn drive_fetch(&mut self, name: &PartName, fetch: Fetch) {
        let log = &self.parts[name].log;
        if log.durable() >= fetch.target {
            self.activate_part(name);
            return;
        }
        // The frame was lost, or the other node lost its tail by a crash: it is asked anew.
        if log.end() < fetch.target && self.now >= fetch.asked + self.timers.reopen {
            self.part(name).fetching = None;
        }
    }

    fn ask_tail(&mut self, name: &PartName, target: LogIndex, after: Position) {
        let asked = self.now;
        self.part(name).fetching = Some(Fetch { target, asked });
        let part = name.clone();
        self.send(Body::FetchTail { part, after });
    }

    pub(crate) fn on_fetch_tail(&mut self, name: &PartName, after: Position) {
        let Some(part) = self.parts.get(name) else {
            return;
        };
        let end = part.log.durable();
        if !part.log.holds(after.index, after.term) || end <= after.index {
            return;
        }
        self.push(Act::ReadLog {
            part: name.clone(),
            from: after.index.next(),
            through: end,
            bytes_max: FRAME_BYTES_MAX,
        });
    }

    /// A2: entries that only S had, under the terms they have.
    pub(crate) fn on_tail(&mut self, name: &PartName, prev: Position, entries: Vec<Entry>) {
        let Some(part) = self.parts.get(name) else {
            return;
        };
        let Some(fetch) = part.fetching else { return };
        if part.active || part.log.last() != prev || !follow(prev, &entries) || entries.is_empty() {
            return;
        }
        let last = entries[entries.len() - 1].position;
        let id = self.write(name, vec![Record::Entries(entries.clone())]);
        self.part(name).log.append(&entries, id);
        if last.index < fetch.target {
            self.ask_tail(name, fetch.target, last);
        }
    }
}

/// True if the entries follow `prev` and each other, by index, term and chain.
pub(crate) fn follow(prev: Position, entries: &[Entry]) -> bool {
    let mut last = prev;
    entries.iter().all(|entry| {
        let before = last;
        last = entry.position;
        entry.position.term >= before.term
            && before.extend(entry.position.term, &entry.payload) == entry.position
    })
}
