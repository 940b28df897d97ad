//! Snapshots, for a peer that the kept log does not reach (`repl N1` to N6).

use kine2_mutation::{Mutation, mutated};
use kine2_wal::Position;

use crate::hard_state::DataState;
use crate::ids::{NodeRef, PartName};
use crate::message::{Body, StreamId};
use crate::output::{Act, Record, WriteId};
use crate::part::{Part, Sender, SnapshotOut};
use crate::unit::Unit;

/// A snapshot that is being switched to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Installing {
    pub(crate) write: WriteId,
    pub(crate) position: Position,
}

/// A snapshot that is being received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiving {
    pub(crate) position: Position,
    take: u64,
}

impl Unit {
    /// N1: a state at one applied index, made while this primary serves.
    pub(crate) fn on_snapshot_made(&mut self, name: &PartName, position: Position) {
        let Some(part) = self.parts.get_mut(name) else {
            return;
        };
        let early = position.index > part.commit && !mutated(Mutation::SnapshotUncommitted);
        if early || !part.log.holds(position.index, position.term) {
            return;
        }
        if let Sender::Snapshot(out) = &mut part.sender
            && out.position.is_none()
        {
            out.position = Some(position);
            let stream = out.stream;
            self.offer(name, stream, position);
        }
    }

    fn offer(&mut self, name: &PartName, stream: StreamId, position: Position) {
        let part = name.clone();
        self.send(Body::SnapshotOffer {
            part,
            stream,
            position,
        });
    }

    /// Offers again what was not answered: frames may be lost, and the peer may have restarted.
    pub(crate) fn drive_snapshot(&mut self, name: &PartName, mut out: SnapshotOut) {
        let pause = self.timers.reopen;
        let Some(position) = out.position else {
            return;
        };
        if self.now < out.offered + pause {
            return;
        }
        out.offered = self.now;
        self.part(name).sender = Sender::Snapshot(out);
        self.offer(name, out.stream, position);
    }

    pub(crate) fn on_snapshot_offer(
        &mut self,
        name: &PartName,
        stream: StreamId,
        position: Position,
        from: &NodeRef,
    ) {
        // K1, and N2: who is in sync by its own configuration takes none.
        let in_sync = self.hard.config.has(name, &self.me) && !mutated(Mutation::SnapshotInSync);
        if !self.hard.config.has(name, from) || in_sync {
            return;
        }
        let Some(part) = self.parts.get(name) else {
            return;
        };
        if holds(part, position) {
            self.part(name).receiving = None;
            let part = name.clone();
            return self.send(Body::SnapshotDone { part, position });
        }
        if part
            .receiver
            .is_none_or(|receiver| receiver.stream != stream)
        {
            // The opening was forgotten by a restart: the primary opens again.
            let part = name.clone();
            return self.send(Body::SnapshotDone { part, position });
        }
        // N3: what is final here is kept; a tail that is not is replaced.
        let term = part.log.history().term_at(position.index);
        let other = part.commit == position.index && term.is_some_and(|t| t != position.term);
        let tail = mutated(Mutation::SnapshotTailStops) && part.log.end() > part.commit;
        let final_here = part.data == DataState::Complete;
        if final_here && (part.commit > position.index || other || tail) {
            return self.diverge(name);
        }
        if part.installing.is_some() || part.diverged {
            return;
        }
        let under_way = part.receiving.filter(|r| r.position == position);
        let take = match under_way {
            // The first answer may be lost.
            Some(receiving) => receiving.take,
            None => self.receive(name, position, from),
        };
        let part = name.clone();
        self.send(Body::SnapshotAccept {
            part,
            position,
            take,
        });
    }

    fn receive(&mut self, name: &PartName, position: Position, from: &NodeRef) -> u64 {
        // N5: another snapshot starts again.
        self.opening += 1;
        let take = self.opening;
        self.part(name).receiving = Some(Receiving { position, take });
        self.push(Act::ReceiveSnapshot {
            part: name.clone(),
            sender: from.clone(),
            position,
        });
        take
    }

    pub(crate) fn on_snapshot_accept(&mut self, name: &PartName, position: Position, take: u64) {
        let Some(part) = self.parts.get_mut(name) else {
            return;
        };
        if let Sender::Snapshot(out) = &mut part.sender
            && out.position == Some(position)
            && out.accepted != Some(take)
        {
            out.accepted = Some(take);
            let part = name.clone();
            self.push(Act::SendSnapshot { part, position });
        }
    }

    /// N4: switches by one durable record; acknowledgements start only after it.
    pub(crate) fn on_snapshot_received(&mut self, name: &PartName, position: Position) {
        let in_sync = self.hard.config.has(name, &self.me) && !mutated(Mutation::SnapshotInSync);
        let Some(part) = self.parts.get(name) else {
            return;
        };
        let receiving = part.receiving.is_some_and(|r| r.position == position);
        let expected = receiving && part.commit <= position.index && !holds(part, position);
        if !expected || in_sync || self.failed {
            return;
        }
        let records = vec![Record::Reset(position), Record::Data(DataState::Complete)];
        let write = self.write(name, records);
        let part = self.part(name);
        part.receiving = None;
        part.receiver = None;
        part.verified = None;
        part.data = DataState::Complete;
        part.log.reset(position, write);
        part.installing = Some(Installing { write, position });
        if mutated(Mutation::ResetCountsAtOnce) {
            self.on_installed(name, write);
        }
    }

    /// The switch is durable.
    pub(crate) fn on_installed(&mut self, name: &PartName, through: WriteId) {
        let part = self.part(name);
        let Some(done) = part.installing.take_if(|i| i.write <= through) else {
            return;
        };
        part.commit = part.commit.max(done.position.index);
        let (part, position) = (name.clone(), done.position);
        self.send(Body::SnapshotDone { part, position });
    }

    /// The peer has it: the stream is opened anew, and goes on from there.
    pub(crate) fn on_snapshot_done(&mut self, name: &PartName, position: Position) {
        let Some(part) = self.parts.get_mut(name) else {
            return;
        };
        if matches!(part.sender, Sender::Snapshot(out) if out.position == Some(position)) {
            part.sender = Sender::Idle;
        }
    }
}

/// N6: what a snapshot of `position` would bring is here already, in the log or below where it was
/// cut. Switching to it would drop what came after, which may be acknowledged.
fn holds(part: &Part, position: Position) -> bool {
    let base = part.log.history().base();
    let below = position.index < base.index && position.term <= base.term;
    let whole = part.data == DataState::Complete && part.installing.is_none();
    let held = !mutated(Mutation::SnapshotOverHeld);
    held && whole && (below || part.log.holds(position.index, position.term))
}
