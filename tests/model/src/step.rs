//! What a step does.

use crate::action::Action;
use crate::message::Message;
use crate::mutation::Mutation;
use crate::settings::{Rollback, Settings};
use crate::state::{
    BOTH, Config, Entry, OTHER, PARTS, Pair, Phase, Read, State, bad, bit, other, seen,
};

impl Settings {
    /// False if the step is not possible after all.
    pub(crate) fn act(&self, state: &mut State, action: Action) -> bool {
        match action {
            Action::Write(id, part) => self.write(state, id, part),
            Action::Fsync(id, part) => {
                let node = &mut state.nodes[id];
                node.durable[part] = node.log[part].len();
                self.advance(state, id, part);
            }
            Action::Restart(id) => self.restart(state, id),
            Action::Deliver(message) => {
                if let Ok(at) = state.network.binary_search(&message) {
                    state.network.remove(at);
                }
                self.deliver(state, message);
            }
            Action::Read(id, part) => self.read(state, id, part),
            Action::ReadSecond(id, part) => {
                let number = take_read(state);
                let node = state.nodes[id];
                let floor = state.history_of(part, node.config.origin).len();
                state.nodes[id].read_index = Some(Read {
                    number,
                    floor,
                    part,
                });
                state.send(Message::ReadIndex {
                    to: other(id),
                    epoch: node.config.epoch,
                    part,
                    number,
                });
            }
            Action::Cut(id, part, point) => self.cut(state, id, part, point),
            Action::SnapshotSend(id, part) => self.send_snapshot(state, id, part),
            Action::Force(id, part) => {
                let Some(config) = self.forced(state, id, part) else {
                    return false;
                };
                self.force(state, id, config, part);
            }
            Action::Rejoin(id, part) => self.rejoin(state, id, part),
            Action::Remove(_)
            | Action::Drop(_)
            | Action::Takeover(_)
            | Action::Swap(_)
            | Action::Abdicate(_)
            | Action::AddSend(..)
            | Action::AddProcess(_)
            | Action::AddLocal(..)
            | Action::CasSend(_)
            | Action::CasProcess(_) => self.change(state, action),
            Action::Learn(..)
            | Action::Notice(_)
            | Action::LateReply(..)
            | Action::Init(_)
            | Action::ProposeMove(_)
            | Action::MoveAlone(_)
            | Action::AloneWithoutCas(_) => return self.take(state, action),
            Action::RollBack(lost) => self.roll_back(state, usize::from(lost)),
            Action::Session(id) => self.open_session(state, id),
            Action::ProbationEnds => state.witness.phase = Phase::Normal,
            Action::ClearPend(id) => {
                state.nodes[id].pend_add = 0;
                for part in PARTS {
                    self.advance(state, id, part);
                }
            }
        }
        true
    }

    fn write(&self, state: &mut State, id: u8, part: u8) {
        let left = state.budget.writes[part];
        state.budget.writes[part] -= 1;
        let node = &mut state.nodes[id];
        node.log[part].push(Entry {
            epoch: node.config.epoch,
            run: self.term_of(&node.config, node.run).1,
            id: 1 + self.writes[part].max(left) - left,
        });
        self.send_append(state, id, part);
    }

    /// Loses what was not fsynced, and all that is volatile.
    fn restart(&self, state: &mut State, id: u8) {
        state.budget.crashes -= 1;
        let first = state.register[0];
        let node = &mut state.nodes[id];
        for part in PARTS {
            let durable = node.durable[part];
            node.log[part].truncate(durable);
            node.commit[part] = node.commit[part].min(durable);
        }
        if self.forget_commit {
            node.commit = Pair::default();
        }
        self.restart_snapshots(node);
        node.forget_volatile();
        if self.breaks(Mutation::PendVolatile) {
            node.pend_add = 0;
        }
        if self.breaks(Mutation::PropVolatile) {
            node.proposed = 0;
        }
        if self.breaks(Mutation::CfgVolatile) && node.config.epoch > 1 {
            node.config = first;
            node.run = 1;
            node.pend_add = 0;
        }
        if node.config.primary == id && !node.twin {
            self.become_primary(state, id);
        }
    }

    fn read(&self, state: &mut State, id: u8, part: u8) {
        let number = take_read(state);
        let node = state.nodes[id];
        let floor = state.history_of(part, node.config.origin).len();
        if !node.config.has(id, part) {
            state.bad |= bad::SERVED;
        }
        let alone = if self.breaks(Mutation::AddJointReadsLocal) {
            node.config.in_sync[part] == bit(id)
        } else {
            self.is_alone(&node, id, part)
        };
        if alone || self.breaks(Mutation::LocalRead) {
            Self::respond(state, node.commit[part], floor);
            return;
        }
        state.nodes[id].read = Some(Read {
            number,
            floor,
            part,
        });
        state.send(Message::ReadConfirm {
            to: other(id),
            epoch: node.config.epoch,
            run: node.run,
            number,
        });
    }

    /// Forms at the register.
    fn change(&self, state: &mut State, action: Action) {
        match action {
            Action::Remove(id) => {
                let config = self.remove_of(&held(state, id), id);
                state.push_register(config);
            }
            Action::Drop(id) => {
                let from = held(state, id);
                if from.in_sync[self.dropped_part()] == BOTH {
                    state.budget.voluntary -= 1;
                }
                state.push_register(self.drop_of(&from, id));
            }
            Action::Takeover(id) => {
                let config = self.takeover_of(&held(state, id), id);
                state.push_register(config);
            }
            Action::Swap(id) => {
                let from = held(state, id);
                if from.in_sync[OTHER] != bit(other(id)) {
                    state.budget.voluntary -= 1;
                }
                state.push_register(self.swap_of(&from, id));
            }
            Action::Abdicate(id) => {
                state.budget.voluntary -= 1;
                let config = self.abdicate_of(&held(state, id), id);
                state.push_register(config);
            }
            Action::AddSend(id, part) => {
                let node = &mut state.nodes[id];
                node.pend_add |= bit(part);
                node.read = None;
                state.adds[id] = (node.config.epoch, part);
            }
            Action::AddProcess(id) => {
                let (expected, part) = state.adds[id];
                let config = self.add_of(&state.top_for(expected), id, part);
                note_add(state, id, part);
                state.push_register(config);
            }
            Action::AddLocal(id, part) => {
                let config = self.add_of(&state.nodes[id].config, id, part);
                note_add(state, id, part);
                self.learn(state, id, config);
            }
            Action::CasSend(config) => {
                state.cas.push(config);
                state.cas.sort();
            }
            Action::CasProcess(config) => state.register.push(config),
            _ => {}
        }
    }

    /// Configurations that reach a node.
    fn take(&self, state: &mut State, action: Action) -> bool {
        match action {
            Action::Learn(id, epoch) => {
                let mut held = state.register.iter().chain(&state.register_moved);
                let Some(config) = held.find(|config| config.epoch == epoch).copied() else {
                    return false;
                };
                self.learn(state, id, config);
            }
            Action::LateReply(id, config) => self.learn(state, id, config),
            Action::Notice(id) => {
                let config = state.nodes[other(id)].config;
                if self.are_twins(&state.nodes[id].config, &config) {
                    self.stop_as_twin(state, id);
                } else {
                    self.learn(state, id, config);
                }
            }
            Action::Init(id) => {
                let Some(config) = self.initialised(state, id) else {
                    return false;
                };
                state.budget.inits -= 1;
                if !state.register_moved.is_empty() {
                    state.seen |= seen::INIT_REPLACED;
                }
                state.register_moved.push(config);
                state.moved_by_init = true;
                state.nodes[id].made = Some(config);
            }
            Action::ProposeMove(id) => {
                let Some(config) = self.move_of(state, id) else {
                    return false;
                };
                if self.inits == 0 {
                    state.register_moved = vec![config];
                }
                let node = &mut state.nodes[id];
                if node.pend_add != 0 {
                    state.seen |= seen::MOVED_IN_DOUBT;
                }
                node.proposed = config.epoch;
                node.made = None;
                let to = other(id);
                state.send(Message::Propose { to, config });
            }
            Action::MoveAlone(id) => {
                let Some(config) = self.move_of(state, id) else {
                    return false;
                };
                if self.inits == 0 {
                    state.register_moved = vec![config];
                }
                self.learn(state, id, config);
            }
            Action::AloneWithoutCas(id) => {
                let config = self.remove_of(&state.nodes[id].config, id);
                self.learn(state, id, config);
            }
            _ => {}
        }
        true
    }

    /// Budget of rollbacks at the start.
    pub(crate) fn rollbacks(&self) -> u8 {
        u8::from(self.rollback != Rollback::Never || self.breaks(Mutation::WitnessRollback))
    }
}

fn take_read(state: &mut State) -> u8 {
    let number = state.budget.reads;
    state.budget.reads -= 1;
    number
}

fn held(state: &State, id: u8) -> Config {
    state.top_for(state.nodes[id].config.epoch)
}

fn note_add(state: &mut State, id: u8, part: u8) {
    if state.seen & seen::INSTALL != 0 && state.nodes[other(id)].base[part] > 0 {
        state.seen |= seen::ADD_AFTER_INSTALL;
    }
}
