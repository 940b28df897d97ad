//! What can happen next in a state.

use crate::message::Message;
use crate::mutation::Mutation;
use crate::settings::{Rollback, Settings};
use crate::state::{
    BOTH, Config, LEAD, NODES, Node, OTHER, PARTS, Phase, State, UNKNOWN, bit, counter, other,
};
use crate::witness::Caller;

/// One step of a node, the witness, a client, the operator or the adversary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// A client writes: node, part.
    Write(u8, u8),
    Fsync(u8, u8),
    /// Crash and restart.
    Restart(u8),
    Deliver(Message),
    /// Forms sent and processed in one step: only ADD needs more (D2).
    Remove(u8),
    Drop(u8),
    Takeover(u8),
    Swap(u8),
    Abdicate(u8),
    AddSend(u8, u8),
    AddProcess(u8),
    /// A node learns this configuration from the register.
    Learn(u8, u8),
    /// A linearizable read at a primary: node, part.
    Read(u8, u8),
    /// A read by ReadIndex at the other node.
    ReadSecond(u8, u8),
    /// The new witness takes what a node made for a change of the arbiter.
    Init(u8),
    ProposeMove(u8),
    /// Forms sent and processed apart.
    CasSend(Config),
    CasProcess(Config),
    /// A node learns the other's configuration.
    Notice(u8),
    /// The log of a part is cut here.
    Cut(u8, u8, u8),
    SnapshotSend(u8, u8),
    /// `promote --force`; with true of the other part.
    Force(u8, bool),
    /// `rejoin --discard` of a part.
    Rejoin(u8, u8),
    /// ADD by a primary without an arbiter.
    AddLocal(u8, u8),
    /// The register loses its last changes, so many.
    RollBack(u8),
    Session(u8),
    ProbationEnds,
    LateReply(u8, Config),
    /// The unit moves to a new arbiter while its lead is ALONE.
    MoveAlone(u8),
    /// Only under mutations.
    ClearPend(u8),
    AloneWithoutCas(u8),
}

impl Settings {
    pub(crate) fn possible(&self, state: &State, actions: &mut Vec<Action>) {
        for id in NODES {
            let node = &state.nodes[id];
            for part in PARTS {
                let may_write = node.is_active(part) && state.budget.writes[part] > 0;
                if may_write && !node.log[part].is_full() {
                    actions.push(Action::Write(id, part));
                }
                if node.durable[part] < node.log[part].len() {
                    actions.push(Action::Fsync(id, part));
                }
            }
            if state.budget.crashes > 0 {
                actions.push(Action::Restart(id));
            }
            self.primary_forms(state, id, actions);
            self.takeovers(state, id, actions);
            self.adds(state, id, actions);
            self.lessons(state, id, actions);
            self.reads(state, id, actions);
            if self.has_snapshots() {
                self.snapshots(state, id, actions);
            }
            if self.forces > 0 {
                self.operator(state, id, actions);
            }
            if self.breaks(Mutation::PendClearByRead)
                && node.pend_add != 0
                && is_current(state, node)
            {
                actions.push(Action::ClearPend(id));
            }
            let mirror = node.config.in_sync[LEAD] == BOTH;
            if self.breaks(Mutation::NoCas) && node.active != 0 && mirror {
                actions.push(Action::AloneWithoutCas(id));
            }
        }
        self.witness_steps(state, actions);
        for config in &state.cas {
            let held = state.register.last().expect("the register is never empty");
            if held.epoch + 1 == config.epoch && config.epoch <= self.epoch_max {
                actions.push(Action::CasProcess(*config));
            }
        }
        actions.extend(
            state
                .network
                .iter()
                .map(|message| Action::Deliver(*message)),
        );
    }

    /// A CAS, at once or in two steps.
    fn push_cas(&self, state: &State, config: Config, at_once: Action, actions: &mut Vec<Action>) {
        if !self.arbiter_moves || config.epoch > 10 {
            actions.push(at_once);
        } else if !state.cas.contains(&config) {
            actions.push(Action::CasSend(config));
        }
    }

    fn primary_forms(&self, state: &State, id: u8, actions: &mut Vec<Action>) {
        let node = &state.nodes[id];
        let config = &node.config;
        if self.initialised(state, id).is_some() {
            actions.push(Action::Init(id));
        }
        if self.move_of(state, id).is_some() {
            // With an ADD in doubt the node that it names has a say, too.
            if config.in_sync[LEAD] == BOTH || node.has_pend_add(LEAD) {
                actions.push(Action::ProposeMove(id));
            } else if !self.arbiter_moves || self.inits > 0 {
                actions.push(Action::MoveAlone(id));
            }
        }
        let usable = self.has_room(state, node) && is_current(state, node) && config.primary == id;
        let free = node.proposed == 0 || self.breaks(Mutation::PropNoSuspend);
        if !usable || !free || !self.witness_takes(state, Caller::Primary) {
            return;
        }
        let mirror_somewhere = config.in_sync.0.contains(&BOTH);
        if mirror_somewhere || node.pend_add != 0 {
            let removed = self.remove_of(config, id);
            self.push_cas(state, removed, Action::Remove(id), actions);
        }
        let voluntary = state.budget.voluntary > 0;
        if config.in_sync[LEAD] == BOTH {
            // SWAP to the holder of a part that is away needs no budget: it happens by itself (K7).
            if voluntary || config.is_away(OTHER) {
                actions.push(Action::Swap(id));
            }
            if voluntary {
                actions.push(Action::Abdicate(id));
            }
        }
        // DROP is also the bump of an ADD in doubt (D3).
        let dropped = self.dropped_part();
        if (config.in_sync[dropped] == BOTH && voluntary) || node.has_pend_add(dropped) {
            actions.push(Action::Drop(id));
        }
    }

    fn takeovers(&self, state: &State, id: u8, actions: &mut Vec<Action>) {
        let node = &state.nodes[id];
        let member = node.config.has(id, LEAD);
        let current = is_current(state, node);
        let rightful = current && (member || self.breaks(Mutation::StaleTakeover));
        let blind = self.breaks(Mutation::BlindCas) && member && !current;
        if self.without_takeover || node.config.primary == id || !self.has_room(state, node) {
            return;
        }
        if (rightful || blind) && self.witness_takes(state, Caller::Takeover) {
            let taken = self.takeover_of(&node.config, id);
            self.push_cas(state, taken, Action::Takeover(id), actions);
        }
    }

    /// D1, K4: S has all that is committed; one ADD at a time; the lead first.
    fn adds(&self, state: &State, id: u8, actions: &mut Vec<Action>) {
        let node = &state.nodes[id];
        for part in PARTS {
            let proof = if self.breaks(Mutation::SharedMatch) {
                LEAD
            } else {
                part
            };
            let matched = node.matched[proof];
            let caught_up = matched != UNKNOWN
                && (matched >= node.commit[proof] || self.breaks(Mutation::AddNotCaughtUp));
            let in_turn = part == LEAD
                || node.config.in_sync[LEAD] == BOTH
                || self.breaks(Mutation::AddPartFirst);
            let alone = node.is_active(part) && node.config.in_sync[part] == bit(id);
            let idle = node.pend_add == 0 && node.proposed == 0;
            if !(alone && idle && caught_up && in_turn) {
                continue;
            }
            if counter(node.config.epoch) >= self.epoch_max {
                continue;
            }
            if self.is_without_arbiter(node.config.epoch) {
                actions.push(Action::AddLocal(id, part));
            } else if state.adds[id].0 != node.config.epoch {
                actions.push(Action::AddSend(id, part));
            }
        }
        let (expected, part) = state.adds[id];
        if expected != 0 && counter(expected) < self.epoch_max {
            let held = state.top_for(expected);
            let fits = held.epoch == expected && held.in_sync[part] == bit(id);
            if fits && self.witness_takes(state, Caller::Primary) {
                actions.push(Action::AddProcess(id));
            }
        }
    }

    fn lessons(&self, state: &State, id: u8, actions: &mut Vec<Action>) {
        let node = &state.nodes[id];
        let own = node.config.epoch;
        let listens = node.proposed == 0 || own > 10 || self.breaks(Mutation::PropLearnOld);
        if listens && !self.is_without_arbiter(own) {
            let at_witness = if own > 10 && !state.register_moved.is_empty() {
                &state.register_moved
            } else {
                &state.register
            };
            for config in at_witness.iter().filter(|config| config.epoch > own) {
                actions.push(Action::Learn(id, config.epoch));
            }
            for config in self.late_replies(state, id) {
                actions.push(Action::LateReply(id, config));
            }
        }
        let told = &state.nodes[other(id)].config;
        let twins = self.are_twins(&node.config, told) && !node.twin;
        if self.has_notices() && (told.epoch > own || twins) {
            actions.push(Action::Notice(id));
        }
    }

    fn reads(&self, state: &State, id: u8, actions: &mut Vec<Action>) {
        let node = &state.nodes[id];
        if state.budget.reads == 0 {
            return;
        }
        for part in PARTS {
            // A part nobody writes needs no reads.
            if self.writes[part] == 0 {
                continue;
            }
            let past_barrier =
                node.commit[part] >= node.barrier[part] || self.breaks(Mutation::NoBarrier);
            if node.is_active(part) && node.read.is_none() && past_barrier {
                actions.push(Action::Read(id, part));
            }
            if node.config.primary != id && node.read_index.is_none() {
                actions.push(Action::ReadSecond(id, part));
            }
        }
    }

    fn snapshots(&self, state: &State, id: u8, actions: &mut Vec<Action>) {
        let node = &state.nodes[id];
        for part in PARTS {
            if state.budget.cuts > 0
                && let Some(point) = self.cut_point(node, id, part)
            {
                actions.push(Action::Cut(id, part, point));
            }
            if state.budget.snapshots > 0 && self.may_send_snapshot(node, id, part) {
                actions.push(Action::SnapshotSend(id, part));
            }
        }
    }

    fn operator(&self, state: &State, id: u8, actions: &mut Vec<Action>) {
        for part in [false, true] {
            if self.forced(state, id, part).is_some() {
                actions.push(Action::Force(id, part));
            }
        }
        for part in PARTS {
            if state.nodes[id].diverged & bit(part) != 0 {
                actions.push(Action::Rejoin(id, part));
            }
        }
    }

    fn witness_steps(&self, state: &State, actions: &mut Vec<Action>) {
        if !self.has_rollback() {
            return;
        }
        if state.budget.rollbacks > 0 {
            let lost_max = if self.rollback == Rollback::Never {
                1
            } else {
                2
            };
            for lost in 1..=lost_max {
                if state.register.len() > usize::from(lost) {
                    actions.push(Action::RollBack(lost));
                }
            }
        }
        for id in NODES {
            if self.may_open_session(state, id) {
                actions.push(Action::Session(id));
            }
        }
        if self.rollback == Rollback::CutOff && state.witness.phase == Phase::Probation {
            actions.push(Action::ProbationEnds);
        }
    }

    /// Whether there may be a further epoch, and an arbiter to give it.
    fn has_room(&self, state: &State, node: &Node) -> bool {
        let own = node.config.epoch;
        counter(state.top_for(own).epoch) < self.epoch_max && !self.is_without_arbiter(own)
    }
}

/// Whether the register holds just what the node knows.
fn is_current(state: &State, node: &Node) -> bool {
    state.top_for(node.config.epoch) == node.config
}
