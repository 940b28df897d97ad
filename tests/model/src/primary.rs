//! Becoming active, committing, adopting a configuration (rules C, A, L2).

use crate::message::Message;
use crate::mutation::Mutation;
use crate::settings::Settings;
use crate::state::{
    BOTH, Config, LEAD, Log, Node, OTHER, PARTS, State, UNKNOWN, bad, bit, generation, other, seen,
};

impl Settings {
    /// The first `upto` entries of a node's part are seen outside: committed, applied, shown.
    pub(crate) fn expose(&self, state: &mut State, node: u8, part: u8, upto: u8) {
        let log = state.nodes[node].log[part];
        let origin = state.nodes[node].config.origin;
        let is_garbage = state.nodes[node].garbage & bit(part) != 0;
        let history = state.history_of_mut(part, origin);
        let upto = upto.min(log.len());
        let mut broken = upto > 0 && is_garbage;
        for index in 1..=upto {
            if index <= history.len() {
                broken |= history.at(index) != log.at(index);
            } else {
                history.push(log.at(index));
            }
        }
        if broken {
            state.bad |= bad::EXPOSED;
        }
        if self.forces > 0 {
            state.acked[part] |= log.first(upto).ids();
        }
    }

    /// Sends a part's log to the peer; K1: only a primary in sync for the part does.
    pub(crate) fn send_append(&self, state: &mut State, node: u8, part: u8) {
        let from = state.nodes[node];
        if !from.config.has(node, part) && !self.breaks(Mutation::StreamForeign) {
            return;
        }
        state.send(Message::Append {
            to: other(node),
            config: from.config,
            run: from.run,
            part,
            log: from.log[part],
            base: from.base[part],
            commit: from.commit[part],
        });
    }

    /// L2, R2: whether the part needs the peer, by its set or by an ADD in doubt.
    pub(crate) fn is_joint(&self, node: &Node, part: u8) -> bool {
        let pend = node.has_pend_add(part);
        let lead_gone = node.config.in_sync[LEAD] != BOTH;
        let other_gone = node.config.in_sync[OTHER] != BOTH;
        match self.mutation {
            // The primary believes that REMOVE removed the peer from all parts.
            Mutation::RemoveLeadOnly if lead_gone => return pend,
            Mutation::RemoveOtherOnly if other_gone => return pend,
            _ => {}
        }
        let obeyed = match self.mutation {
            Mutation::AddNoJoint => false,
            Mutation::PendLeadOnly => part == LEAD && node.pend_add != 0,
            Mutation::PendWrongPart => node.has_pend_add(other(part)),
            _ => pend,
        };
        node.config.in_sync[part] == BOTH || obeyed
    }

    /// Whether the node may act for the part by itself.
    pub(crate) fn is_alone(&self, node: &Node, id: u8, part: u8) -> bool {
        let holds = node.config.has(id, part) || self.breaks(Mutation::ServeForeign);
        holds && !self.is_joint(node, part)
    }

    /// L2: commits what may be committed.
    pub(crate) fn advance(&self, state: &mut State, id: u8, part: u8) {
        let node = state.nodes[id];
        if !node.is_active(part) {
            return;
        }
        let mut commit = node.durable[part];
        if self.is_joint(&node, part) && !self.breaks(Mutation::AsyncCommit) {
            let matched = match node.matched[part] {
                UNKNOWN => 0,
                known => known,
            };
            commit = if self.breaks(Mutation::CommitBeforeOwnFsync) {
                matched
            } else {
                commit.min(matched)
            };
        }
        if commit > node.commit[part] {
            state.nodes[id].commit[part] = commit;
            if !state.committers[part].note(node.config.slot(), id) {
                state.bad |= bad::TWO_COMMITTERS;
            }
            if !node.config.has(id, part) {
                state.bad |= bad::SERVED;
            }
            Self::note_commit(state, &node, id, part);
            self.expose(state, id, part, commit);
            self.send_append(state, id, part);
        }
    }

    fn note_commit(state: &mut State, node: &Node, id: u8, part: u8) {
        let config = node.config;
        if node.has_pend_add(part) {
            state.seen |= seen::JOINT;
            if part == OTHER {
                state.seen |= seen::JOINT_OTHER;
            }
        }
        if id == 1 && config.in_sync[part] == BOTH {
            state.seen |= seen::SWAPPED_COMMIT;
        }
        if part == OTHER {
            let top = state.top();
            if top.primary != id && top.in_sync[OTHER] == bit(id) {
                state.seen |= seen::DEPOSED;
            }
            let was_away = |old: &Config| {
                old.epoch < config.epoch && old.in_sync[OTHER] == bit(id) && old.primary != id
            };
            if config.primary == id && state.register.iter().any(was_away) {
                state.seen |= seen::BACK;
            }
        }
    }

    /// C3, C4: takes a configuration, durably.
    pub(crate) fn adopt(&self, state: &mut State, id: u8, config: Config) {
        let node = &mut state.nodes[id];
        let forced = config.origin != node.config.origin;
        let by_letter = self.breaks(Mutation::TwinByEpoch);
        if forced && (!by_letter || generation(config.epoch) > generation(node.config.epoch)) {
            // Who was promoted by force did not know what is here; the own parts that are away stay as they are.
            node.suspect = BOTH;
            for part in PARTS {
                if config.has(id, part) {
                    node.suspect &= !bit(part);
                    node.diverged &= !bit(part);
                }
            }
            node.twin = false;
        }
        node.config = config;
        node.run = 0;
        node.pend_add = 0;
        node.proposed = 0;
        node.forget_volatile();
    }

    /// The term of entries made in a configuration and run. Its second number also names the forced promotion the
    /// configuration descends from, since two of them may make the same epoch.
    pub(crate) fn term_of(&self, config: &Config, run: u8) -> (u8, u8) {
        if self.breaks(Mutation::TermWithoutUid) {
            (config.epoch, run)
        } else {
            (config.epoch, run + 32 * config.origin)
        }
    }

    /// A1 for the parts the node has alone; A2 (Hello) for joint ones; nothing for parts away.
    pub(crate) fn activate(&self, state: &mut State, id: u8) {
        let mut hello = false;
        for part in PARTS {
            let node = &mut state.nodes[id];
            if node.is_active(part) {
                continue;
            }
            if self.is_alone(node, id, part) {
                self.open_part(state, id, part);
                self.advance(state, id, part);
                self.send_append(state, id, part);
            } else if node.config.has(id, part) {
                hello = true;
            } else {
                // Nothing is sent (K1), except under StreamForeign.
                self.send_append(state, id, part);
            }
        }
        if hello {
            let (config, run) = (state.nodes[id].config, state.nodes[id].run);
            let to = other(id);
            state.send(Message::Hello { to, config, run });
        }
    }

    /// The part becomes active: the log is fsynced, its end is the barrier.
    pub(crate) fn open_part(&self, state: &mut State, id: u8, part: u8) {
        let node = &mut state.nodes[id];
        node.durable[part] = node.log[part].len();
        node.active |= bit(part);
        node.barrier[part] = node.log[part].len();
        node.matched[part] = UNKNOWN;
        if node.garbage & bit(part) != 0 {
            state.bad |= bad::SERVED;
        }
    }

    /// A1, A2, A5: a new run, from the start.
    pub(crate) fn become_primary(&self, state: &mut State, id: u8) {
        let node = &mut state.nodes[id];
        node.active = 0;
        if matches!(self.mutation, Mutation::NoRun | Mutation::NoRunNoPull) {
            node.run = 1;
        } else {
            node.run += 1;
        }
        self.activate(state, id);
    }

    /// Adopts a newer configuration and acts by it; A3 for the own next epoch.
    pub(crate) fn learn(&self, state: &mut State, id: u8, config: Config) {
        let before = state.nodes[id];
        let goes_on = before.active != 0
            && config.primary == id
            && before.config.primary == id
            && config.epoch == before.config.epoch + 1;
        self.adopt(state, id, config);
        if config.primary != id {
            return;
        }
        if !goes_on {
            self.become_primary(state, id);
            return;
        }
        state.nodes[id].run = 1;
        for part in PARTS {
            if before.is_active(part) {
                let node = &mut state.nodes[id];
                node.active |= bit(part);
                node.barrier[part] = before.barrier[part];
                if self.is_alone(node, id, part) {
                    node.durable[part] = node.log[part].len();
                }
                self.advance(state, id, part);
                self.send_append(state, id, part);
            }
        }
        self.activate(state, id);
    }

    /// The tail a restarted primary fetches from S (A2).
    pub(crate) fn pull(&self, state: &mut State, id: u8, part: u8, tail: &Log, base: u8) {
        let node = &mut state.nodes[id];
        let own = node.log[part];
        let pulls = !matches!(self.mutation, Mutation::NoPull | Mutation::NoRunNoPull);
        if pulls && own.len() < tail.len() && own.is_prefix_of(tail) {
            if own.len() < base {
                // S cut what P lacks: it cannot be fetched.
                state.bad |= bad::STOPPED;
                return;
            }
            node.log[part] = *tail;
            state.seen |= seen::PULL;
        }
    }
}
