//! The streams by which the peer's logs are brought level and kept so (`repl section 7`).

use std::collections::BTreeMap;

use kine2_mutation::{Mutation, mutated};
use kine2_wal::{Entry, LogIndex, Position};

use crate::event::Link;
use crate::hard_state::DataState;
use crate::ids::{NodeRef, PartName, Replica};
use crate::limits::{FRAME_BYTES_MAX, WINDOW_ENTRIES_MAX};
use crate::message::{Body, Opened, PartSummary, StreamId};
use crate::output::{Act, Notice};
use crate::part::{Receiver, Sender, Sending, SnapshotOut};
use crate::unit::Unit;

impl Unit {
    /// Opens what is not open, sends what is not sent.
    pub(crate) fn drive_senders(&mut self) {
        if !self.acts_as_primary() || self.peer.link != Link::Up {
            return;
        }
        let mut to_open = Vec::new();
        for name in self.part_names() {
            // K1, K2: only an active part's log is sent.
            if !self.parts[&name].active && !mutated(Mutation::StreamForeign) {
                continue;
            }
            self.reopen_if_stuck(&name);
            match self.parts[&name].sender {
                Sender::Idle => to_open.push(name),
                Sender::Sending(sending) => self.pump(&name, sending),
                Sender::Snapshot(out) => self.drive_snapshot(&name, out),
                Sender::Opening { .. } | Sender::Diverged => {}
            }
        }
        if !to_open.is_empty() {
            self.open(to_open);
        }
    }

    /// Frames may be lost: a stream without progress is opened again.
    fn reopen_if_stuck(&mut self, name: &PartName) {
        let (now, reopen) = (self.now, self.timers.reopen);
        let part = self.part(name);
        let stuck = match &part.sender {
            Sender::Opening { since, .. } => now >= *since + reopen,
            Sender::Sending(sending) => {
                let acked = part.matched.is_some_and(|m| m.next() >= sending.next);
                sending.begun && !sending.reading && !acked && now >= sending.progress + reopen
            }
            Sender::Idle | Sender::Snapshot(_) | Sender::Diverged => false,
        };
        if stuck {
            part.sender = Sender::Idle;
        }
    }

    fn open(&mut self, names: Vec<PartName>) {
        self.opening += 1;
        let (opening, since) = (self.opening, self.now);
        let mut parts = BTreeMap::new();
        for name in names {
            let part = self.part(&name);
            part.sender = Sender::Opening { opening, since };
            parts.insert(name, part.summary());
        }
        let config = Box::new(self.hard.config.clone());
        self.send(Body::Open {
            config,
            opening,
            parts,
        });
    }

    pub(crate) fn on_open(
        &mut self,
        from: &NodeRef,
        opening: u64,
        theirs: BTreeMap<PartName, PartSummary>,
    ) {
        self.peer.heard_active = self.now;
        if opening <= self.peer_opening {
            return;
        }
        self.peer_opening = opening;
        let mut parts = BTreeMap::new();
        for (name, theirs) in theirs {
            // K1, K3: who is not in sync for a part says nothing about it.
            let foreign = !self.hard.config.has(&name, from) && !mutated(Mutation::StreamForeign);
            if foreign || !self.parts.contains_key(&name) {
                continue;
            }
            if !self.settle_divergence(&name, &theirs) {
                continue;
            }
            self.opening += 1;
            let stream = StreamId {
                boot: self.boot,
                opening: self.opening,
            };
            let part = self.part(&name);
            let common = part.log.history().common_point(&theirs.history);
            part.receiver = Some(Receiver {
                stream,
                point: common.map(|(index, _)| index),
            });
            let summary = part.summary();
            parts.insert(name, Opened { stream, summary });
        }
        self.send(Body::OpenAck { opening, parts });
    }

    pub(crate) fn on_open_ack(
        &mut self,
        from: &NodeRef,
        opening: u64,
        theirs: BTreeMap<PartName, Opened>,
    ) {
        for (name, opened) in theirs {
            let Some(part) = self.parts.get(&name) else {
                continue;
            };
            let current =
                matches!(part.sender, Sender::Opening { opening: own, .. } if own == opening);
            let active = part.active || mutated(Mutation::StreamForeign);
            if active && current {
                self.begin_stream(from, &name, &opened);
            }
        }
    }

    /// The common point is the newest term found in both histories, and the earlier of its ends.
    fn begin_stream(&mut self, from: &NodeRef, name: &PartName, opened: &Opened) {
        let now = self.now;
        let replica = self.hard.config.replica(name, from).cloned();
        let part = self.part(name);
        let theirs = &opened.summary;
        let whole = theirs.data == DataState::Complete;
        // K6: in sync by the configuration, and yet not what it names: first out, then resync.
        if replica
            .as_ref()
            .is_some_and(|r| r.storage != theirs.storage || !whole)
        {
            part.peer_lost = true;
            return;
        }
        let shown = Replica {
            node: from.clone(),
            storage: theirs.storage,
        };
        if part.peer.as_ref() != Some(&shown) {
            part.matched = None;
            part.peer = Some(shown);
        }
        if self.must_have_all(name, from) && self.peer_lacks(name, &opened.summary.history) {
            self.part(name).peer_lost = true;
            return;
        }
        let part = self.part(name);
        let base = part.log.history().base().index;
        let point = match part.log.history().common_point(&theirs.history) {
            Some((point, _)) if whole && (point >= base || theirs.commit > point) => point,
            // N2: never to a node in sync; it is taken out first.
            _ if replica.is_some() && !mutated(Mutation::SnapshotInSync) => {
                part.peer_lost = true;
                return;
            }
            // Half installed, or the log that is kept does not reach it.
            _ => return self.begin_snapshot(name, opened),
        };
        if theirs.commit > point && self.is_own_lineage(theirs) {
            return self.note_reverted(name);
        }
        let part = self.part(name);
        if theirs.commit > point {
            // What is final there is not in this log (`repl N3`).
            part.peer_lost = replica.is_some();
            return self.stop_diverged(name, opened.stream);
        }
        // N3: another chain above what is committed there is no divergence; the peer drops it.
        let expect = theirs.history.position_at(point);
        part.sender = Sender::Sending(Sending {
            stream: opened.stream,
            next: point.next(),
            begun: false,
            reading: false,
            expect: expect.filter(|_| point <= theirs.commit),
            progress: now,
        });
    }

    /// The other node has every entry that is final: it is in sync, or an ADD of it is in doubt.
    fn must_have_all(&self, name: &PartName, node: &NodeRef) -> bool {
        let pending = self.pending_add(name);
        self.hard.config.has(name, node) || pending.is_some_and(|replica| replica.node == *node)
    }

    /// What is final at the other node was ordered under the same forced promotion, or none, as this
    /// node's configuration: nobody overruled it, so this log was set back (`repl I4`).
    fn is_own_lineage(&self, theirs: &PartSummary) -> bool {
        let term = theirs.history.term_at(theirs.commit);
        let own = self.hard.config.origin;
        term.is_some_and(|term| term.origin == own) && !mutated(Mutation::NoFloorAtPeer)
    }

    /// The peer's log contradicts this one where both are final: nothing more is sent, and the
    /// peer keeps what it has.
    fn stop_diverged(&mut self, name: &PartName, stream: StreamId) {
        self.part(name).sender = Sender::Diverged;
        self.push(Act::Notice(Notice::Diverged(name.clone())));
        let part = name.clone();
        self.send(Body::Diverges { part, stream });
    }

    fn begin_snapshot(&mut self, name: &PartName, opened: &Opened) {
        self.part(name).sender = Sender::Snapshot(SnapshotOut {
            stream: opened.stream,
            position: None,
            accepted: None,
            offered: self.now,
        });
        let part = name.clone();
        self.push(Act::MakeSnapshot { part });
    }

    /// Sends what the window permits: from memory what is not durable yet (A5 makes that safe),
    /// from the disk what is.
    fn pump(&mut self, name: &PartName, mut sending: Sending) {
        while !sending.reading {
            let part = &self.parts[name];
            let log = &part.log;
            let next = sending.next;
            if sending.begun && next > log.end() {
                break;
            }
            let acked = part.matched.map_or(next.0 - 1, |m| m.0);
            if next.0 > acked + WINDOW_ENTRIES_MAX {
                break;
            }
            if next <= log.history().base().index {
                // The log was cut meanwhile.
                self.part(name).sender = Sender::Idle;
                return;
            }
            match log.entries_from(next) {
                Some((prev, entries)) => {
                    if !self.send_entries(name, &mut sending, prev, entries) {
                        return;
                    }
                }
                None => {
                    let through = log.durable();
                    sending.reading = true;
                    self.push(Act::ReadLog {
                        part: name.clone(),
                        from: next,
                        through,
                        bytes_max: FRAME_BYTES_MAX,
                    });
                }
            }
        }
        self.part(name).sender = Sender::Sending(sending);
    }

    /// One frame, of as many of the entries as fit. False if the peer's log is another one.
    fn send_entries(
        &mut self,
        name: &PartName,
        sending: &mut Sending,
        prev: Position,
        mut entries: Vec<Entry>,
    ) -> bool {
        let expected = sending.expect.filter(|expect| expect.index == prev.index);
        if expected.is_some_and(|expect| expect.chain != prev.chain) {
            self.stop_diverged(name, sending.stream);
            return false;
        }
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.payload.len();
            bytes <= FRAME_BYTES_MAX
        };
        let fit = entries.iter().take_while(fits).count().max(1);
        entries.truncate(fit);
        if let Some(last) = entries.last() {
            sending.next = last.position.index.next();
        }
        if !sending.begun
            || self.parts[name]
                .matched
                .is_some_and(|m| m.next() >= prev.index.next())
        {
            sending.progress = self.now;
        }
        sending.begun = true;
        let commit = self.parts[name].commit;
        self.part(name).told = commit;
        self.send(Body::Append {
            part: name.clone(),
            stream: sending.stream,
            prev,
            entries,
            commit,
        });
        true
    }

    /// Entries from the own log: for the peer's stream, or for a primary that fetches a tail.
    pub(crate) fn on_log_read(&mut self, name: &PartName, prev: Position, entries: Vec<Entry>) {
        let Some(part) = self.parts.get_mut(name) else {
            return;
        };
        // The log may have changed since it was read.
        let last = entries.last().map_or(prev, |entry| entry.position);
        let current = part.log.holds(last.index, last.term);
        if !self.is_primary() {
            if current && !entries.is_empty() {
                let part = name.clone();
                self.send(Body::Tail {
                    part,
                    prev,
                    entries,
                });
            }
            return;
        }
        let part = self.part(name);
        let Sender::Sending(mut sending) = part.sender else {
            return;
        };
        if !sending.reading {
            return;
        }
        sending.reading = false;
        // Not what is wanted: the log was cut meanwhile, or the answer is an old stream's.
        let other = sending.next != prev.index.next() || entries.is_empty();
        if !current || other {
            part.sender = Sender::Idle;
            return;
        }
        if self.send_entries(name, &mut sending, prev, entries) {
            self.part(name).sender = Sender::Sending(sending);
        }
    }

    pub(crate) fn on_nack(&mut self, name: &PartName, stream: StreamId) {
        let Some(part) = self.parts.get_mut(name) else {
            return;
        };
        let again = match part.sender {
            Sender::Sending(sending) => sending.stream == stream,
            // The peer gave up what it had.
            Sender::Diverged => true,
            Sender::Idle | Sender::Opening { .. } | Sender::Snapshot(_) => false,
        };
        if again {
            part.sender = Sender::Idle;
        }
    }

    /// L6: the log of the part may be given up before this index; the driver's own rules (its
    /// checkpoints, and how much it keeps for a peer that is out) come on top.
    #[must_use]
    pub fn keep_from(&self, name: &PartName) -> Option<LogIndex> {
        let part = self.parts.get(name)?;
        // Nothing may be lost of what may have to go to quarantine.
        if part.diverged || self.hard.twin || self.hard.suspect.contains(name) {
            return Some(part.log.history().base().index.next());
        }
        let mut keep = part.commit;
        if self.is_primary() && self.is_joint(name) {
            keep = keep.min(part.matched.unwrap_or(LogIndex(0)));
        }
        if let Sender::Snapshot(out) = part.sender {
            keep = keep.min(out.position.map_or(LogIndex(0), |p| p.index));
        }
        Some(keep.next())
    }

    pub(crate) fn on_log_cut(&mut self, name: &PartName, base: Position) {
        if let Some(part) = self.parts.get_mut(name)
            && base.index > part.log.history().base().index
            && base.index <= part.commit
        {
            part.log.cut(base);
        }
    }
}
