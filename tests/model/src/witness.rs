//! A witness that comes back from an old copy of its register (W2 to W4, W7).

use crate::mutation::Mutation;
use crate::settings::{Rollback, Settings};
use crate::state::{BOTH, Config, LEAD, NODES, Node, Phase, State, bit, counter, generation, seen};

/// A form that moves the right to serve to S while its primary may live, or one its primary asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Primary,
    Takeover,
}

impl Settings {
    /// Whether the register may go back at all.
    pub(crate) fn has_rollback(&self) -> bool {
        self.rollback != Rollback::Never || self.breaks(Mutation::WitnessRollback)
    }

    /// W3, W4: whether the witness takes a CAS now.
    pub(crate) fn witness_takes(&self, state: &State, caller: Caller) -> bool {
        match state.witness.phase {
            Phase::Normal => true,
            Phase::Regressed => false,
            Phase::Probation => {
                let free = self.breaks(Mutation::ProbationTakeoverOnly);
                state.witness.sessions == BOTH || (free && caller == Caller::Primary)
            }
        }
    }

    /// The witness restarts with a copy that lacks its last `lost` changes.
    pub(crate) fn roll_back(&self, state: &mut State, lost: usize) {
        state.budget.rollbacks -= 1;
        let kept = state.register.len() - lost;
        let gone = state.register.split_off(kept);
        if self.rollback == Rollback::Never {
            return;
        }
        state.witness.lost = gone;
        state.witness.sessions = 0;
        if !self.breaks(Mutation::NoProbation) {
            state.witness.phase = Phase::Probation;
        }
        // An ADD that was answered may be sent again: whoever has it in doubt does not know.
        for id in NODES {
            let node = &state.nodes[id];
            if node.pend_add != 0 && state.top_for(node.config.epoch) == node.config {
                let part = u8::from(!node.has_pend_add(LEAD));
                state.adds[id] = (node.config.epoch, part);
            }
        }
    }

    /// Whether the node has something to tell the witness.
    pub(crate) fn may_open_session(&self, state: &State, id: u8) -> bool {
        let witness = &state.witness;
        let opens = witness.sessions & bit(id) == 0 && witness.phase == Phase::Probation;
        let ahead = self.is_ahead(state, &state.nodes[id]);
        let node = &state.nodes[id];
        self.rollback != Rollback::Never
            && node.config.epoch < 10
            && witness.phase != Phase::Regressed
            && (opens || ahead)
    }

    /// W3: the witness compares what the node knows with its register.
    pub(crate) fn open_session(&self, state: &mut State, id: u8) {
        state.witness.sessions |= bit(id);
        if state.witness.sessions == BOTH {
            state.seen |= seen::PROBATION_PASSED;
        }
        if self.is_ahead(state, &state.nodes[id]) {
            state.witness.phase = Phase::Regressed;
            state.seen |= seen::REGRESSED;
        }
    }

    fn is_ahead(&self, state: &State, node: &Node) -> bool {
        let register = state.register.last().expect("the register is never empty");
        node.config.epoch > register.epoch && !self.breaks(Mutation::NoSessionCheck)
    }

    /// Configurations of the witness's earlier life that the node may still learn from a reply under way.
    pub(crate) fn late_replies(&self, state: &State, id: u8) -> Vec<Config> {
        let has_session = state.witness.sessions & bit(id) != 0;
        if has_session && !self.breaks(Mutation::LateReply) {
            return Vec::new();
        }
        let own = state.nodes[id].config.epoch;
        let lost = state.witness.lost.iter();
        lost.filter(|config| config.epoch > own).copied().collect()
    }

    /// Init at the new witness. It holds nothing, or it was prepared by an attempt of the same primary, or what it holds was made from
    /// an older configuration: a primary that was deposed, here or before the unit moved here, would bring back its own.
    pub(crate) fn initialised(&self, state: &State, id: u8) -> Option<Config> {
        let node = &state.nodes[id];
        let free = state.budget.inits > 0 && node.made.is_none();
        if !free || !self.wants_move(state, id) {
            return None;
        }
        let Some(stored) = state.register_moved.last() else {
            return Some(Self::moved(&node.config, 1));
        };
        let left = state.moved_by_init && stored.primary == id;
        let lowest = counter(stored.epoch) + u8::from(!left);
        let may = counter(node.config.epoch) + 1 >= lowest || self.breaks(Mutation::InitAnyCounter);
        let next = generation(stored.epoch) + 1;
        (may && next <= 2).then(|| Self::moved(&node.config, next))
    }

    /// The configuration by which the unit moves to the new arbiter, if its witness holds it.
    pub(crate) fn move_of(&self, state: &State, id: u8) -> Option<Config> {
        let node = &state.nodes[id];
        if !self.wants_move(state, id) {
            return None;
        }
        if self.inits == 0 {
            return state
                .register_moved
                .is_empty()
                .then(|| Self::moved(&node.config, 1));
        }
        let fits = |made: &Config| *made == Self::moved(&node.config, generation(made.epoch));
        node.made.filter(fits)
    }

    /// X1, and section 11 for a lead that is ALONE: whether the primary may move the unit to a new arbiter.
    fn wants_move(&self, state: &State, id: u8) -> bool {
        let node = &state.nodes[id];
        let wanted = self.arbiter_moves || state.witness.phase == Phase::Regressed;
        wanted
            && node.config.primary == id
            && node.config.epoch < 10
            && counter(node.config.epoch) < self.epoch_max
            && node.is_active(LEAD)
            && node.proposed == 0
    }
}
