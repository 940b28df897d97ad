//! Frames from and to the peer: which ones count (`repl C5`, C3, L3), and who does what they ask.

use kine2_mutation::{Mutation, mutated};

use crate::config::{Config, Standing};
use crate::event::Link;
use crate::ids::NodeRef;
use crate::message::{Body, Frame};
use crate::output::Act;
use crate::unit::Unit;

impl Unit {
    /// Takes in a frame of the peer.
    pub(crate) fn on_frame(&mut self, frame: Frame) {
        if frame.key != self.key || frame.from.name == self.me.name || self.failed {
            return;
        }
        let own = self.hard.config.epoch;
        if frame.id.is_twin_of(&self.hard.config.id()) {
            self.heard_peer();
            return self.on_twin(frame.id);
        }
        // C5: a frame of a lower epoch is not processed; its sender learns the newer one.
        if frame.id.epoch < own {
            self.heard_peer();
            if self.breaks_fence(&frame) {
                return;
            }
            return self.send_config();
        }
        if frame.id.epoch > own {
            // C3: from anybody, in any order, at any time.
            match carried_config(&frame.body) {
                Some(config)
                    if config.id() == frame.id
                        && config.key() == self.key
                        && !mutated(Mutation::NoGossip) =>
                {
                    let config = config.clone();
                    self.adopt(config);
                }
                _ => return self.send_config(),
            }
        }
        if frame.id != self.hard.config.id() {
            return;
        }
        self.heard_peer();
        if self.hard.twin || !self.accepts_from(&frame.from) {
            return;
        }
        if self.is_primary() {
            if frame.run == self.hard.run || mutated(Mutation::AddAnyEpochAck) {
                self.peer.node = Some(frame.from.clone());
                self.peer.echo = self.peer.echo.max(frame.number);
                if frame.echo <= self.frame_number {
                    self.peer.on_echo(frame.echo);
                }
                self.on_secondary_frame(frame);
            } else if frame.run > self.hard.run {
                self.on_forgotten_run(frame.run);
            }
            return;
        }
        // L3: run >= the own one, then store it. A primary that forgot it is told.
        if frame.run < self.hard.run {
            return self.send_config();
        }
        if frame.run > self.hard.run {
            self.accept_run(frame.run);
        }
        self.peer.node = Some(frame.from.clone());
        self.peer.echo = self.peer.echo.max(frame.number);
        self.on_primary_frame(frame);
    }

    /// The other node accepted a run of this epoch that this primary does not know of: its disk
    /// went back (`repl I4`). It must not use that run again (A5).
    fn on_forgotten_run(&mut self, run: u32) {
        self.deactivate();
        self.hard.run = run;
        self.begin_if_primary();
    }

    fn heard_peer(&mut self) {
        self.peer.heard = true;
    }

    /// The other member of the configuration; at a primary whose lead is alone also another life
    /// or another node that wants to become it.
    fn accepts_from(&self, from: &NodeRef) -> bool {
        let config = &self.hard.config;
        if !self.is_primary() {
            return config.primary == *from;
        }
        // While an ADD is in doubt, the two nodes of L2 and R2 are this one and the one it names.
        if let Some(pending) = &self.hard.pend_add {
            return pending.replica.node == *from;
        }
        config.other(&self.me) == Some(from)
            || config.standing(&config.lead) == Some(Standing::Alone)
    }

    /// What a primary says to this node.
    fn on_primary_frame(&mut self, frame: Frame) {
        match frame.body {
            Body::Hello(_) => self.on_hello(),
            Body::FetchTail { part, after } => self.on_fetch_tail(&part, after),
            Body::Open { opening, parts, .. } => self.on_open(&frame.from, opening, parts),
            Body::Append {
                part,
                stream,
                prev,
                entries,
                commit,
            } => {
                self.peer.heard_active = self.now;
                self.peer.heard_serving = true;
                self.on_append(&part, stream, prev, entries, commit);
            }
            Body::Diverges { part, stream } => self.on_diverges(&part, stream),
            Body::ReadConfirm => self.send(Body::ReadConfirmAck),
            Body::Heartbeat(heartbeat) => self.on_primary_heartbeat(heartbeat),
            Body::ReadIndexAck { read, index } => self.on_read_index_ack(read, index),
            Body::SnapshotOffer {
                part,
                stream,
                position,
            } => self.on_snapshot_offer(&part, stream, position, &frame.from),
            Body::Propose { config, to } => self.on_arbiter_proposed(*config, &to),
            Body::ConfigNotice(_) => {}
            // What only the other node says is not heard from a primary.
            Body::HelloAck(_)
            | Body::Tail { .. }
            | Body::OpenAck { .. }
            | Body::Ack { .. }
            | Body::Nack { .. }
            | Body::ReadConfirmAck
            | Body::ReadIndex { .. }
            | Body::SnapshotAccept { .. }
            | Body::SnapshotDone { .. }
            | Body::Leave
            | Body::PartFailed(_) => {}
        }
    }

    /// What the other node says to this primary.
    fn on_secondary_frame(&mut self, frame: Frame) {
        match frame.body {
            Body::HelloAck(parts) => self.on_hello_ack(&frame.from, &parts),
            Body::Tail {
                part,
                prev,
                entries,
            } => self.on_tail(&part, prev, entries),
            Body::OpenAck { opening, parts } => self.on_open_ack(&frame.from, opening, parts),
            Body::Ack {
                part,
                stream,
                matched,
            } => self.on_ack(&part, stream, matched),
            Body::Nack { part, stream } => self.on_nack(&part, stream),
            Body::ReadIndex { part, read } => self.on_read_index(&part, read),
            Body::SnapshotAccept {
                part,
                position,
                take,
            } => self.on_snapshot_accept(&part, position, take),
            Body::SnapshotDone { part, position } => self.on_snapshot_done(&part, position),
            Body::Leave => self.peer.left = Some(self.now),
            Body::PartFailed(part) => {
                if let Some(part) = self.parts.get_mut(&part) {
                    part.peer_lost = true;
                }
            }
            Body::ReadConfirmAck | Body::Heartbeat(_) | Body::ConfigNotice(_) => {}
            // What only a primary says is not heard from the other node.
            Body::Hello(_)
            | Body::FetchTail { .. }
            | Body::Open { .. }
            | Body::Append { .. }
            | Body::Diverges { .. }
            | Body::ReadConfirm
            | Body::ReadIndexAck { .. }
            | Body::SnapshotOffer { .. }
            | Body::Propose { .. } => {}
        }
    }

    pub(crate) fn send(&mut self, body: Body) {
        if self.peer.link != Link::Up {
            return;
        }
        self.frame_number += 1;
        self.peer.on_sent(self.frame_number, self.now);
        let frame = Frame {
            key: self.key.clone(),
            from: self.me.clone(),
            id: self.hard.config.id(),
            run: self.hard.run,
            number: self.frame_number,
            echo: self.peer.echo,
            body,
        };
        self.push(Act::Send(Box::new(frame)));
    }

    pub(crate) fn send_config(&mut self) {
        let config = Box::new(self.hard.config.clone());
        self.send(Body::ConfigNotice(config));
    }
}

/// The configuration a frame carries, if it is the sender's own.
fn carried_config(body: &Body) -> Option<&Config> {
    match body {
        Body::Hello(config) | Body::ConfigNotice(config) | Body::Open { config, .. } => {
            Some(config)
        }
        _ => None,
    }
}
