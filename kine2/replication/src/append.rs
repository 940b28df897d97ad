//! Ordering, acknowledging and committing entries (`repl L1` to L5).

use bytes::Bytes;
use kine2_mutation::{Mutation, mutated};
use kine2_wal::{Entry, LogIndex, Origin, Position, Term};

use crate::activation::follow;
use crate::hard_state::DataState;
use crate::ids::{PartName, RequestId};
use crate::limits::{WINDOW_BYTES_MAX, WINDOW_ENTRIES_MAX};
use crate::message::{Body, Heartbeat, StreamId};
use crate::output::{Act, Answer, Notice, Record, WriteId};
use crate::part::Sender;
use crate::unit::Unit;

impl Unit {
    /// The term of what this primary orders.
    pub(crate) fn term(&self) -> Term {
        let origin = match mutated(Mutation::TermWithoutOrigin) {
            true => Origin::NONE,
            false => self.hard.config.origin,
        };
        Term {
            epoch: self.hard.config.epoch.0,
            run: self.hard.run,
            origin,
        }
    }

    pub(crate) fn on_propose(&mut self, name: &PartName, payload: Bytes, request: RequestId) {
        let swapping = self.swap.is_some();
        let held_max = crate::limits::HELD_MAX;
        let Some(part) = self.parts.get_mut(name).filter(|part| part.active) else {
            return self.refuse(request);
        };
        let (tail_bytes, _) = part.log.tail_size();
        let open = part.log.end().0 - part.commit.0 + part.queue.len() as u64;
        let full = open >= WINDOW_ENTRIES_MAX
            || tail_bytes + part.queue_bytes + payload.len() > WINDOW_BYTES_MAX
            || (swapping && part.queue.len() >= held_max);
        if full {
            return self.answer(request, Answer::Busy);
        }
        part.queue_bytes += payload.len();
        part.queue.push_back((payload, request));
    }

    /// This node does not order the part: says who may.
    pub(crate) fn refuse(&mut self, request: RequestId) {
        let config = &self.hard.config;
        let answer = if self.is_primary() || self.hard.twin {
            Answer::Unavailable
        } else {
            Answer::NotPrimary(config.id(), config.primary.clone())
        };
        self.answer(request, answer);
    }

    /// L1: orders what waits, one batch while the disk writes the one before. During a handover
    /// nothing new is ordered.
    pub(crate) fn drive_queues(&mut self) {
        if self.swap.is_some() {
            return;
        }
        for name in self.part_names() {
            let part = &self.parts[&name];
            let (_, under_way) = part.log.tail_size();
            if part.active && !part.queue.is_empty() && under_way == 0 {
                self.order(&name);
            }
        }
    }

    fn order(&mut self, name: &PartName) {
        let (term, now) = (self.term(), self.now);
        let part = self.part(name);
        let mut last = part.log.last();
        let mut entries = Vec::with_capacity(part.queue.len());
        for (payload, request) in std::mem::take(&mut part.queue) {
            last = last.extend(term, &payload);
            part.waiters.push_back((last.index, request));
            entries.push(Entry {
                position: last,
                payload,
            });
        }
        part.queue_bytes = 0;
        part.unacked.push_back((last.index, now));
        let mut records = vec![Record::Entries(entries.clone())];
        records.extend(self.known_beside(name));
        let id = self.write(name, records);
        self.part(name).log.append(&entries, id);
    }

    pub(crate) fn on_written(&mut self, name: &PartName, through: WriteId) {
        let Some(part) = self.parts.get_mut(name) else {
            return;
        };
        let further = part.log.on_written(through);
        self.note_lead_written(name, through);
        self.on_installed(name, through);
        if further && !self.is_primary() {
            self.follow_commit(name);
            self.send_ack(name);
        }
    }

    /// L2: commits what is durable on every node in sync.
    pub(crate) fn drive_commits(&mut self) {
        for name in self.part_names() {
            let joint = match self.pending_add(&name) {
                Some(_) if mutated(Mutation::AddNoJoint) => false,
                _ => self.is_joint(&name) && !mutated(Mutation::AsyncCommit),
            };
            let part = &self.parts[&name];
            if !part.active {
                continue;
            }
            let (durable, end) = (part.log.durable(), part.log.end());
            let behind = part.matched.is_none_or(|matched| matched < end);
            if joint && behind && part.unacked.is_empty() {
                // What was there before the restart or the change of epoch counts, too.
                let now = self.now;
                self.part(&name).unacked.push_back((end, now));
            }
            let part = &self.parts[&name];
            let commit = if joint {
                part.matched.map_or(part.commit, |matched| {
                    if mutated(Mutation::CommitBeforeOwnFlush) {
                        matched
                    } else {
                        matched.min(durable)
                    }
                })
            } else {
                durable
            };
            if commit > part.commit {
                self.commit(&name, commit);
                if self.is_by_itself() {
                    continue;
                }
                let due = self.now + self.timers.commit_notice;
                self.commit_due = Some(self.commit_due.map_or(due, |at| at.min(due)));
            }
        }
    }

    /// Entries up to `through` are committed: they are applied, then their clients are answered.
    pub(crate) fn commit(&mut self, name: &PartName, through: LogIndex) {
        self.part(name).commit = through;
        self.push(Act::Apply {
            part: name.clone(),
            through,
        });
        loop {
            let waiters = &mut self.part(name).waiters;
            let Some((index, request)) = waiters.pop_front_if(|(index, _)| *index <= through)
            else {
                return;
            };
            self.answer(request, Answer::Committed(index));
        }
    }

    /// L2: the peer has the log up to `matched` durably, in this epoch and run (the frame's were
    /// compared).
    pub(crate) fn on_ack(&mut self, name: &PartName, stream: StreamId, matched: LogIndex) {
        let now = self.now;
        let Some(part) = self.parts.get_mut(name).filter(|part| part.active) else {
            return;
        };
        if matched > part.log.end() || part.matched.is_some_and(|m| matched <= m) {
            return;
        }
        // Of this opening: so of the replica that it showed.
        let current = matches!(part.sender, Sender::Sending(sending) if sending.stream == stream);
        if !current && !mutated(Mutation::AddAnyEpochAck) {
            return;
        }
        part.matched = Some(matched);
        while part
            .unacked
            .pop_front_if(|(end, _)| *end <= matched)
            .is_some()
        {}
        if let Sender::Sending(sending) = &mut part.sender {
            sending.progress = now;
        }
    }

    /// Entries from the primary (`repl L3`, L4). Epoch and run were compared, and the sender is
    /// the primary.
    pub(crate) fn on_append(
        &mut self,
        name: &PartName,
        stream: StreamId,
        prev: Position,
        entries: Vec<Entry>,
        commit: LogIndex,
    ) {
        // K1: only who is in sync for the part says what its log is. K3 follows: a holder of a
        // part that is away has a primary that is not.
        let in_sync = self.hard.config.has(name, &self.hard.config.primary);
        if !in_sync && !mutated(Mutation::StreamForeign) {
            return;
        }
        let current = self.term();
        let Some(part) = self.parts.get(name) else {
            return;
        };
        let receiver = part.receiver.filter(|receiver| receiver.stream == stream);
        let usable = part.data == DataState::Complete
            && part.receiving.is_none()
            && part.installing.is_none();
        let (Some(receiver), true, false) = (receiver, usable, part.diverged) else {
            return self.nack(name, stream);
        };
        let log = &part.log;
        let known = log.history().position_at(prev.index);
        if known.is_some_and(|known| known.term == prev.term && known.chain != prev.chain) {
            return self.drop_tail(name, stream, prev.index);
        }
        // One that ends below where this log was cut is merely old, too.
        if !log.holds(prev.index, prev.term) || !follow(prev, &entries) {
            return self.nack(name, stream);
        }
        let held = entries
            .iter()
            .take_while(|e| log.holds(e.position.index, e.position.term));
        let held = held.count();
        let at = match held {
            0 => prev,
            n => entries[n - 1].position,
        };
        let mut fresh = &entries[held..];
        let verified = entries.last().map_or(prev, |e| e.position).index;
        let already = part.verified.unwrap_or(LogIndex(0));

        // L4: after the common point nothing of another term than the present one stays; it is
        // the point if this is the first frame of the stream. An old frame cuts nothing.
        let next_term = log.history().term_at(at.index.next());
        let is_point = receiver.point == Some(at.index) && entries.is_empty();
        let cut = match next_term {
            None => false,
            Some(term) if term == current => {
                if !fresh.is_empty() {
                    // One name for two entries: this cannot be.
                    return self.diverge(name);
                }
                false
            }
            Some(_) if mutated(Mutation::NoTruncation) => {
                fresh = &[];
                false
            }
            Some(_) if mutated(Mutation::OldFrameCuts) => true,
            Some(_) => !fresh.is_empty() || (is_point && already <= at.index),
        };
        if cut && at.index < part.commit {
            return self.diverge(name);
        }
        let mut records = Vec::new();
        if cut {
            records.push(Record::Truncate(at));
        }
        if !fresh.is_empty() {
            records.push(Record::Entries(fresh.to_vec()));
            records.extend(self.known_beside(name));
        }
        let writes = !records.is_empty();
        if writes {
            let id = self.write(name, records);
            let part = self.part(name);
            if cut {
                part.log.truncate(at, id);
            }
            if !fresh.is_empty() {
                part.log.append(fresh, id);
            }
        }
        let part = self.part(name);
        part.verified = Some(already.max(verified));
        part.told = part.told.max(commit);
        self.check_told(name);
        self.follow_commit(name);
        if !writes {
            self.send_ack(name);
        }
    }

    /// L3: acknowledges the verified prefix that is durable, never more.
    fn send_ack(&mut self, name: &PartName) {
        let part = &self.parts[name];
        let (Some(verified), Some(receiver)) = (part.verified, part.receiver) else {
            return;
        };
        let matched = if mutated(Mutation::AckBeforeDurable) {
            verified
        } else {
            verified.min(part.log.durable())
        };
        let (part, stream) = (name.clone(), receiver.stream);
        self.send(Body::Ack {
            part,
            stream,
            matched,
        });
    }

    /// L5: commits up to what the primary told, within the verified prefix; what is applied here
    /// is durable here, so that nothing shown is lost by a crash.
    pub(crate) fn follow_commit(&mut self, name: &PartName) {
        let part = &self.parts[name];
        let verified = match part.verified {
            Some(verified) if !mutated(Mutation::CommitUnverified) => verified,
            None if !mutated(Mutation::CommitUnverified) => return,
            _ => part.log.end(),
        };
        let told = match mutated(Mutation::ExposeEarly) {
            true => verified,
            false => part.told,
        };
        let commit = told.min(verified).min(part.log.durable());
        if commit > part.commit {
            self.commit(name, commit);
        }
        self.answer_indexed(name);
    }

    pub(crate) fn on_primary_heartbeat(&mut self, heartbeat: Heartbeat) {
        if heartbeat.active {
            self.peer.heard_active = self.now;
            self.peer.heard_serving = true;
        }
        for (name, commit) in heartbeat.commits {
            let in_sync = self.hard.config.has(&name, &self.hard.config.primary);
            if let Some(part) = self.parts.get_mut(&name).filter(|_| in_sync) {
                part.told = part.told.max(commit);
                self.check_told(&name);
                self.follow_commit(&name);
            }
        }
        self.send_heartbeat();
    }

    fn nack(&mut self, name: &PartName, stream: StreamId) {
        let part = name.clone();
        self.send(Body::Nack { part, stream });
    }

    /// The primary found it, by this node's own words of that opening.
    pub(crate) fn on_diverges(&mut self, name: &PartName, stream: StreamId) {
        let receiver = self.parts.get(name).and_then(|part| part.receiver);
        if receiver.is_some_and(|receiver| receiver.stream == stream) {
            self.diverge(name);
        }
    }

    /// N3: the log is another one at `index`. At or below the commit index that is a divergence;
    /// above it the tail is merely not committed, and is dropped back to the newest entry before
    /// whose chain is known, so that the next opening finds an earlier common point.
    fn drop_tail(&mut self, name: &PartName, stream: StreamId, index: LogIndex) {
        let part = &self.parts[name];
        let to = part.log.history().position_before(index);
        match to.filter(|to| to.index >= part.commit) {
            Some(to) => {
                let id = self.write(name, vec![Record::Truncate(to)]);
                let part = self.part(name);
                part.log.truncate(to, id);
                part.verified = part.verified.map(|verified| verified.min(to.index));
                part.receiver = None;
                self.nack(name, stream);
            }
            // Where it begins to differ is not known: it may be at what is committed.
            None => self.diverge(name),
        }
    }

    /// L4: the log would have to be cut below what is committed. Stop, and keep the data.
    pub(crate) fn diverge(&mut self, name: &PartName) {
        let part = self.part(name);
        if !part.diverged {
            part.diverged = true;
            part.receiver = None;
            self.push(Act::Notice(Notice::Diverged(name.clone())));
        }
    }
}
