//! Linearizable reads: at the primary (`repl R1`, R2) and at the other node (R3).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kine2_mutation::{Mutation, mutated};
use kine2_wal::LogIndex;

use crate::event::Link;
use crate::ids::{PartName, RequestId};
use crate::limits::READS_MAX;
use crate::message::{Body, ReadId};
use crate::output::Answer;
use crate::unit::Unit;

/// Reads that wait.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// At the primary.
    local: VecDeque<Waiting>,
    /// Number and time of the last [`Body::ReadConfirm`].
    confirm: Option<(u64, Duration)>,
    /// At the other node.
    remote: BTreeMap<ReadId, Remote>,
    /// Number of the last read asked for at the primary.
    number: u64,
}

/// A read at the primary.
#[derive(Debug)]
struct Waiting {
    part: PartName,
    request: RequestId,
    /// The lowest number of a frame sent after the read arrived (`repl R2`).
    need: u64,
}

/// A read at the other node.
#[derive(Debug)]
struct Remote {
    part: PartName,
    request: RequestId,
    asked: Duration,
    /// What the primary said.
    index: Option<LogIndex>,
}

impl Reads {
    /// Takes out all that wait.
    pub(crate) fn take_all(&mut self) -> Vec<RequestId> {
        self.confirm = None;
        let local = std::mem::take(&mut self.local).into_iter();
        let remote = std::mem::take(&mut self.remote).into_values();
        let remote = remote.map(|read| read.request);
        local.map(|read| read.request).chain(remote).collect()
    }

    /// A3: the reads go on in the new epoch, as if they arrived now.
    pub(crate) fn confirm_again(&mut self, frame_number: u64) {
        self.confirm = None;
        for read in &mut self.local {
            read.need = frame_number + 1;
        }
    }

    /// A confirmation under way may be lost.
    pub(crate) fn on_link(&mut self) {
        self.confirm = None;
    }

    fn len(&self) -> usize {
        self.local.len() + self.remote.len()
    }
}

impl Unit {
    pub(crate) fn on_read(&mut self, part: PartName, request: RequestId) {
        if self.reads.len() >= READS_MAX {
            return self.answer(request, Answer::Busy);
        }
        let active = self.parts.get(&part).is_some_and(|p| p.active);
        if active {
            let need = match mutated(Mutation::StaleConfirm) {
                true => self.peer.echoed,
                false => self.frame_number + 1,
            };
            self.reads.local.push_back(Waiting {
                part,
                request,
                need,
            });
            return;
        }
        let reachable = self.peer.link == Link::Up
            && self.peer.node.as_ref() == Some(&self.hard.config.primary);
        // A part that this node does not follow is read at the primary.
        let open = self.parts.get(&part).is_some_and(|p| p.receiver.is_some());
        if self.is_primary() || !reachable || !open || self.hard.twin {
            return self.refuse(request);
        }
        self.reads.number += 1;
        let read = ReadId {
            boot: self.boot,
            number: self.reads.number,
        };
        let remote = Remote {
            part: part.clone(),
            request,
            asked: self.now,
            index: None,
        };
        self.reads.remote.insert(read, remote);
        self.send(Body::ReadIndex { part, read });
    }

    /// R1 and R2: answers what is confirmed, and asks for the confirmation of the rest, one at a
    /// time for all reads that came meanwhile.
    pub(crate) fn drive_reads(&mut self) {
        self.ask_indexes_again();
        let mut waiting = VecDeque::new();
        let mut unasked = false;
        for read in std::mem::take(&mut self.reads.local) {
            let Some(part) = self.parts.get(&read.part).filter(|part| part.active) else {
                self.answer(read.request, Answer::Unavailable);
                continue;
            };
            // A4, R1, R2. D2: the rule is the one in force when the read is answered.
            let settled = part.commit >= part.barrier;
            let local = match self.pending_add(&read.part) {
                Some(_) if mutated(Mutation::AddJointReadsLocal) => true,
                _ => !self.is_joint(&read.part) || mutated(Mutation::LocalRead),
            };
            let confirmed = local || self.peer.echoed >= read.need;
            let index = part.commit;
            if settled && confirmed {
                self.answer(read.request, Answer::ReadAt(index));
            } else {
                unasked |= !confirmed && read.need > self.frame_number;
                waiting.push_back(read);
            }
        }
        self.reads.local = waiting;
        let under_way = self.reads.confirm.is_some_and(|(number, at)| {
            number > self.peer.echoed && self.now < at + self.timers.heartbeat
        });
        if unasked && !under_way && self.peer.link == Link::Up {
            self.send(Body::ReadConfirm);
            self.reads.confirm = Some((self.frame_number, self.now));
        }
    }

    /// R3, at the primary: active and settled, in the same epoch (the frame's was compared).
    pub(crate) fn on_read_index(&mut self, name: &PartName, read: ReadId) {
        let part = self.parts.get(name);
        let settled = part.filter(|part| {
            let active = part.active || mutated(Mutation::ReadIndexNotServed);
            let behind = part.commit < part.barrier && !mutated(Mutation::ReadIndexNoBarrier);
            active && !behind
        });
        let index = settled.map(|part| part.commit);
        self.send(Body::ReadIndexAck { read, index });
    }

    /// R3, at the other node, still in that epoch: on adopting another one all reads are taken out.
    pub(crate) fn on_read_index_ack(&mut self, read: ReadId, index: Option<LogIndex>) {
        let Some(read) = self.reads.remote.get_mut(&read) else {
            return;
        };
        // The first answer counts: it was given after the read arrived.
        read.index = read.index.or(index);
        let name = read.part.clone();
        // L5: it says how far the primary has committed, too.
        if let (Some(index), Some(part)) = (index, self.parts.get_mut(&name)) {
            part.told = part.told.max(index);
        }
        self.follow_commit(&name);
    }

    /// Answers the reads whose index is committed here.
    pub(crate) fn answer_indexed(&mut self, name: &PartName) {
        let part = &self.parts[name];
        let commit = part.commit;
        // What is applied here may be what the operator overruled by force, until it is known to
        // be of the primary's log.
        if part.verified.is_none_or(|verified| verified < commit) {
            return;
        }
        let reached = |index| index <= commit || mutated(Mutation::ReadIndexUnapplied);
        let ready = |read: &Remote| read.part == *name && read.index.is_some_and(reached);
        let remote = self.reads.remote.iter();
        let requests: Vec<_> = remote
            .filter(|(_, read)| ready(read))
            .map(|(id, read)| (*id, read.request))
            .collect();
        for (id, request) in requests {
            self.reads.remote.remove(&id);
            self.answer(request, Answer::ReadAt(commit));
        }
    }

    fn ask_indexes_again(&mut self) {
        let (now, pause) = (self.now, self.timers.heartbeat);
        let mut again = Vec::new();
        for (id, read) in &mut self.reads.remote {
            if read.index.is_none() && now >= read.asked + pause {
                read.asked = now;
                again.push((read.part.clone(), *id));
            }
        }
        for (part, read) in again {
            self.send(Body::ReadIndex { part, read });
        }
    }
}
