//! Reductions: messages, ADDs and CASes that can have no effect any more are taken off the way. Argued by hand; `keep_messages`
//! runs without the first.

use crate::message::Message;
use crate::mutation::Mutation;
use crate::settings::Settings;
use crate::state::{NODES, Node, PARTS, Pair, State, UNKNOWN, other};

impl Settings {
    pub(crate) fn prune(&self, state: &mut State) {
        let first = state.register.last().map_or(0, |config| config.epoch);
        let moved = state.register_moved.last().map_or(0, |config| config.epoch);
        for id in NODES {
            let expected = state.adds[id].0;
            let held = if expected > 10 && moved != 0 {
                moved
            } else {
                first
            };
            if expected != 0 && expected < held {
                state.adds[id] = (0, 0);
            }
        }
        state.cas.retain(|config| config.epoch > first);
        if !self.keeps_all() {
            let nodes = state.nodes;
            state.network.retain(|message| may_matter(&nodes, message));
        }
    }

    fn keeps_all(&self) -> bool {
        self.keep_messages
            || matches!(
                self.mutation,
                Mutation::NoFence
                    | Mutation::CfgVolatile
                    | Mutation::WitnessRollback
                    | Mutation::ConfirmAnyEpoch
                    | Mutation::NoCas
                    | Mutation::AddAnyEpochAck
                    | Mutation::RunAny
                    | Mutation::NoSessionCheck
                    | Mutation::ProbationTakeoverOnly
                    | Mutation::NoProbation
                    | Mutation::LateReply
            )
    }
}

fn may_matter(nodes: &Pair<Node>, message: &Message) -> bool {
    match *message {
        Message::Append {
            to,
            config,
            run,
            part,
            log,
            commit,
            ..
        } => {
            let (node, peer) = (&nodes[to], &nodes[other(to)]);
            let told = run == node.run
                && node.log[part].len() == log.len()
                && log.is_prefix_of(&node.log[part])
                && node.commit[part] >= commit
                && peer.matched[part] != UNKNOWN
                && peer.matched[part] >= log.len()
                && peer.config == node.config
                && peer.run == node.run;
            let current = config.epoch == node.config.epoch
                && node.config.primary != to
                && run >= node.run
                && !told;
            config.epoch > node.config.epoch || current
        }
        Message::Ack {
            to,
            epoch,
            run,
            part,
            index,
        } => {
            let node = &nodes[to];
            epoch == node.config.epoch
                && run == node.run
                && node.config.primary == to
                && node.config.has(to, part)
                && (node.matched[part] == UNKNOWN || index > node.matched[part])
        }
        Message::Hello { to, config, run } => {
            let (node, peer) = (&nodes[to], &nodes[other(to)]);
            let needed = waits_for_peer(peer, other(to));
            let newer = config.epoch > node.config.epoch;
            let current = config.epoch == node.config.epoch && run >= node.run;
            let answered = peer.config.epoch == config.epoch && (!needed || peer.run > run);
            newer || (current && !answered)
        }
        Message::HelloAck { to, epoch, run, .. } => {
            let node = &nodes[to];
            epoch == node.config.epoch && run == node.run && waits_for_peer(node, to)
        }
        Message::ReadConfirm {
            to,
            epoch,
            run,
            number,
        } => {
            let (node, peer) = (&nodes[to], &nodes[other(to)]);
            let asked = peer.read.is_some_and(|read| read.number == number);
            let current = epoch == node.config.epoch && run >= node.run;
            asked && (epoch > node.config.epoch || current)
        }
        Message::ReadConfirmAck { to, number, .. } => {
            nodes[to].read.is_some_and(|read| read.number == number)
        }
        Message::ReadIndex {
            to, epoch, number, ..
        } => {
            let peer = &nodes[other(to)];
            let asked = peer.read_index.is_some_and(|read| read.number == number);
            asked && epoch >= nodes[to].config.epoch
        }
        Message::ReadIndexReply { to, number, .. } => {
            let waiting = nodes[to].read_index;
            waiting.is_some_and(|read| read.number == number)
        }
        Message::Propose { to, config } => config.epoch > nodes[to].config.epoch,
        Message::Snapshot {
            to, config, run, ..
        } => {
            let node = &nodes[to];
            let current =
                config.epoch == node.config.epoch && node.config.primary != to && run >= node.run;
            config.epoch > node.config.epoch || current
        }
    }
}

/// Whether some part of the node is to become active with the peer's answer.
fn waits_for_peer(node: &Node, id: u8) -> bool {
    let mut parts = PARTS.into_iter();
    parts.any(|part| node.config.has(id, part) && !node.is_active(part))
}
