//! Rules between nodes that are broken on purpose, by a test, and take more than a condition.

use kine2_mutation::{Mutation, mutated};

use crate::message::{Body, Frame};
use crate::output::Act;
use crate::unit::Unit;

impl Unit {
    /// C5: a frame of a lower epoch is answered as if this node were still in it.
    pub(crate) fn breaks_fence(&mut self, frame: &Frame) -> bool {
        let body = match &frame.body {
            Body::Append {
                part,
                stream,
                prev,
                entries,
                ..
            } if mutated(Mutation::NoFence) => Body::Ack {
                part: part.clone(),
                stream: *stream,
                matched: entries.last().map_or(*prev, |e| e.position).index,
            },
            Body::ReadConfirm if mutated(Mutation::ConfirmAnyEpoch) => Body::ReadConfirmAck,
            Body::Ack {
                part,
                stream,
                matched,
            } if mutated(Mutation::AddAnyEpochAck) => {
                self.on_ack(part, *stream, *matched);
                return true;
            }
            Body::Propose { config, .. } if mutated(Mutation::PropNotBased) => {
                self.adopt((**config).clone());
                return true;
            }
            _ => return mutated(Mutation::NoGossip),
        };
        self.frame_number += 1;
        let answer = Frame {
            key: self.key.clone(),
            from: self.me.clone(),
            id: frame.id,
            run: frame.run,
            number: self.frame_number,
            echo: frame.number,
            body,
        };
        self.push(Act::Send(Box::new(answer)));
        true
    }
}
