//! What a node does with a frame of its peer (rules C5, L3 to L5, A2, A4, R2, R3, X3).

use crate::message::Message;
use crate::mutation::Mutation;
use crate::settings::Settings;
use crate::state::{Config, Log, PARTS, State, UNKNOWN, bad, generation, other, seen};

/// An Append as it arrives.
pub(crate) struct Append {
    pub(crate) config: Config,
    pub(crate) run: u8,
    pub(crate) part: u8,
    pub(crate) log: Log,
    pub(crate) base: u8,
    pub(crate) commit: u8,
}

impl Settings {
    pub(crate) fn deliver(&self, state: &mut State, message: Message) {
        match message {
            Message::Append {
                to,
                config,
                run,
                part,
                log,
                base,
                commit,
            } => {
                let append = Append {
                    config,
                    run,
                    part,
                    log,
                    base,
                    commit,
                };
                self.on_append(state, to, &append);
            }
            Message::Ack {
                to,
                epoch,
                run,
                part,
                index,
            } => {
                let node = &mut state.nodes[to];
                let fits = epoch == node.config.epoch && run == node.run;
                let known = node.matched[part];
                if node.is_active(part)
                    && (fits || self.breaks(Mutation::AddAnyEpochAck))
                    && (known == UNKNOWN || index > known)
                {
                    node.matched[part] = index;
                    self.advance(state, to, part);
                }
            }
            Message::Hello { to, config, run } => self.on_hello(state, to, config, run),
            Message::HelloAck {
                to,
                epoch,
                run,
                log,
                base,
            } => {
                for part in PARTS {
                    let node = &state.nodes[to];
                    let waits = node.config.primary == to
                        && !node.is_active(part)
                        && node.config.has(to, part);
                    if waits && node.config.epoch == epoch && node.run == run {
                        self.pull(state, to, part, &log[part], base[part]);
                        self.open_part(state, to, part);
                        if self.breaks(Mutation::SwapInstantCommit) {
                            let all = state.nodes[to].log[part].len();
                            state.nodes[to].commit[part] = all;
                            self.expose(state, to, part, all);
                        }
                        self.advance(state, to, part);
                        self.send_append(state, to, part);
                    }
                }
            }
            Message::Propose { to, config } => {
                let own = state.nodes[to].config;
                let based = config == Self::moved(&own, generation(config.epoch));
                let is_new = own.epoch < 10 && (based || self.breaks(Mutation::PropNotBased));
                if is_new {
                    self.adopt(state, to, config);
                }
            }
            Message::Snapshot { .. } => self.on_snapshot(state, message),
            _ => self.on_read_frame(state, message),
        }
    }

    /// C5, C3: false if the frame is not to be processed.
    pub(crate) fn accepts(&self, state: &mut State, to: u8, config: Config) -> bool {
        let own = state.nodes[to].config;
        if self.are_twins(&own, &config) {
            self.stop_as_twin(state, to);
            return false;
        }
        if config.epoch < own.epoch && !self.breaks(Mutation::NoFence) {
            return false;
        }
        if config.epoch > own.epoch {
            self.adopt(state, to, config);
        }
        true
    }

    fn on_append(&self, state: &mut State, to: u8, append: &Append) {
        let (config, run, part) = (append.config, append.run, append.part);
        if !self.accepts(state, to, config) {
            return;
        }
        let node = state.nodes[to];
        if node.config.epoch == config.epoch && node.config.primary == to {
            return;
        }
        if config.epoch == node.config.epoch {
            if run < node.run {
                return;
            }
            state.nodes[to].run = run;
        }
        let inconsistent = state.nodes[to].is_inconsistent(part);
        if inconsistent && !self.breaks(Mutation::InconsistentAcks) {
            return;
        }
        if !self.settle_divergence(state, to, part, &append.log) {
            return;
        }
        let Some(log) = self.connect(state, to, append) else {
            return;
        };
        self.merge(state, to, append, &log);
        let node = &mut state.nodes[to];
        let commit = if self.breaks(Mutation::ExposeEarlyS) {
            node.log[part].len()
        } else {
            append.commit.min(node.log[part].len())
        };
        if commit > node.commit[part] {
            node.commit[part] = commit;
            self.expose(state, to, part, commit);
        }
        state.send(Message::Ack {
            to: other(to),
            epoch: config.epoch,
            run,
            part,
            index: log.len(),
        });
    }

    /// The primary's log as this node may know it: its own entries up to where the sender's log begins, then the sender's.
    /// None if the two do not meet (Nack: the part needs a snapshot).
    fn connect(&self, state: &mut State, to: u8, append: &Append) -> Option<Log> {
        let (part, log, base) = (append.part, &append.log, append.base);
        let node = &state.nodes[to];
        let (own, own_base) = (&node.log[part], node.base[part]);
        let meets = |index: u8| {
            index == 0
                || (own.len() >= index
                    && log.len() >= index
                    && own.at(index).term() == log.at(index).term())
        };
        if !meets(own_base) {
            // An old frame ends before what was cut; else what is committed here is not in the primary's log.
            let is_old = log.len() < own_base
                && own.at(log.len() + 1).term() == self.term_of(&append.config, append.run);
            if !is_old {
                state.bad |= bad::STOPPED;
            }
            return None;
        }
        if !meets(base) {
            if node.config.has(to, part) {
                // In sync, and may not have a snapshot (N2).
                state.bad |= bad::STOPPED;
            }
            return None;
        }
        let mut joined = own.first(base);
        for entry in log.entries().iter().skip(usize::from(base)) {
            joined.push(*entry);
        }
        Some(joined)
    }

    /// L4: drops what differs from the primary's log, durably, and takes the rest.
    fn merge(&self, state: &mut State, to: u8, append: &Append, log: &Log) {
        let part = append.part;
        let own = state.nodes[to].log[part];
        let mut merged = own;
        if self.breaks(Mutation::NoTrunc) && own.len() >= log.len() {
            // Keeps its own.
        } else if log.is_prefix_of(&own) {
            if own.len() > log.len() {
                let next = own.at(log.len() + 1);
                // Entries of the current epoch and run: then the frame is merely old.
                if next.term() != self.term_of(&append.config, append.run) {
                    merged.truncate(log.len());
                    state.seen |= seen::TRUNCATE;
                }
            }
        } else {
            if !own.is_prefix_of(log) {
                state.seen |= seen::TRUNCATE;
            }
            merged = *log;
        }
        let kept = own.common(&merged);
        if kept < state.nodes[to].commit[part] {
            state.bad |= bad::TRUNCATED;
        }
        let node = &mut state.nodes[to];
        node.log[part] = merged;
        node.durable[part] = if self.breaks(Mutation::AckBeforeDurable) {
            node.durable[part].min(kept)
        } else {
            merged.len()
        };
        node.commit[part] = node.commit[part].min(merged.len());
    }

    fn on_hello(&self, state: &mut State, to: u8, config: Config, run: u8) {
        if config.epoch < state.nodes[to].config.epoch || !self.accepts(state, to, config) {
            return;
        }
        let node = &mut state.nodes[to];
        if node.config.primary == to || run < node.run {
            return;
        }
        node.run = run;
        let (log, base) = (node.log, node.base);
        state.send(Message::HelloAck {
            to: other(to),
            epoch: config.epoch,
            run,
            log,
            base,
        });
    }

    fn on_read_frame(&self, state: &mut State, message: Message) {
        match message {
            Message::ReadConfirm {
                to,
                epoch,
                run,
                number,
            } => {
                let node = &state.nodes[to];
                let same_epoch = node.config.epoch == epoch;
                let confirms = (same_epoch && node.run == run)
                    || self.breaks(Mutation::ConfirmAnyEpoch)
                    || (self.breaks(Mutation::RunAny) && same_epoch);
                if confirms {
                    let to = other(to);
                    state.send(Message::ReadConfirmAck {
                        to,
                        epoch,
                        run,
                        number,
                    });
                }
            }
            Message::ReadConfirmAck {
                to,
                epoch,
                run,
                number,
            } => {
                let node = state.nodes[to];
                let Some(read) = node.read.filter(|read| read.number == number) else {
                    return;
                };
                if node.is_active(read.part) && node.config.epoch == epoch && node.run == run {
                    state.nodes[to].read = None;
                    state.seen |= seen::MIRROR_READ;
                    Self::respond(state, node.commit[read.part], read.floor);
                }
            }
            Message::ReadIndex {
                to,
                epoch,
                part,
                number,
            } => {
                let node = state.nodes[to];
                let past_barrier =
                    node.commit[part] >= node.barrier[part] || self.breaks(Mutation::NoBarrier);
                if node.is_active(part) && node.config.epoch == epoch && past_barrier {
                    let (to, index) = (other(to), node.commit[part]);
                    state.send(Message::ReadIndexReply {
                        to,
                        epoch,
                        number,
                        index,
                    });
                }
            }
            Message::ReadIndexReply {
                to,
                epoch,
                number,
                index,
            } => {
                let node = state.nodes[to];
                let Some(read) = node.read_index.filter(|read| read.number == number) else {
                    return;
                };
                if node.config.epoch == epoch && node.config.primary != to {
                    state.nodes[to].read_index = None;
                    state.seen |= seen::READ_AT_SECOND;
                    if !node.config.has(to, read.part) {
                        state.seen |= seen::READ_OUT_OF_SYNC;
                    }
                    Self::respond(state, index, read.floor);
                }
            }
            Message::Append { .. }
            | Message::Ack { .. }
            | Message::Hello { .. }
            | Message::HelloAck { .. }
            | Message::Propose { .. }
            | Message::Snapshot { .. } => {}
        }
    }

    /// A read returns the state at this index.
    pub(crate) fn respond(state: &mut State, index: u8, floor: u8) {
        if index < floor {
            state.bad |= bad::READ;
        }
    }
}
