//! R1 to R3: one fixed fair schedule without further faults, tried from a state.

use stateright::Model;

use crate::action::Action;
use crate::message::Message;
use crate::mutation::Mutation;
use crate::settings::Settings;
use crate::state::{BOTH, NODES, OTHER, PARTS, Pair, State, bit, other};

/// Steps within which a unit must be back.
const STEPS_MAX: usize = 120;

impl Settings {
    /// Whether the nodes in `alive`, with the witness or without, commit a new write in every part of `needed`.
    pub(crate) fn recovers(&self, from: &State, alive: u8, witness: bool, needed: u8) -> bool {
        let roomy = Self {
            epoch_max: 9,
            ..self.clone()
        };
        let mut state = from.clone();
        state.budget.writes = Pair([needed & 1, needed >> 1]);
        state.budget.crashes = 0;
        state.budget.voluntary = 0;
        state.budget.reads = 0;
        state.budget.cuts = 0;
        state.budget.snapshots = if self.has_snapshots() { 4 } else { 0 };
        // It starts with an empty network: what was under way is lost, and all shake hands again.
        state.network.clear();
        for id in NODES.into_iter().filter(|id| alive & bit(*id) != 0) {
            state.budget.crashes = 1;
            if let Some(next) = roomy.next_state(&state, Action::Restart(id)) {
                state = next;
            }
        }
        let before = state.history;
        for _ in 0..STEPS_MAX {
            if state.bad != 0 {
                return false;
            }
            let mut possible = Vec::new();
            roomy.actions(&state, &mut possible);
            possible.retain(|action| self.is_fair(&state, *action, alive, witness));
            possible.sort_by_key(rank);
            let Some(action) = possible.first() else {
                break;
            };
            state = roomy
                .next_state(&state, *action)
                .expect("a possible step changes the state");
        }
        PARTS.into_iter().all(|part| {
            let written = state.budget.writes[part] == 0;
            let shown = state.history[part].len() > before[part].len();
            needed & bit(part) == 0 || is_full(from, part) || (written && shown)
        })
    }

    /// Whether the step belongs to the schedule.
    fn is_fair(&self, state: &State, action: Action, alive: u8, witness: bool) -> bool {
        let lives = |id: u8| alive & bit(id) != 0;
        let together = alive == BOTH;
        let top = state.top();
        let epochs = NODES.into_iter().filter(|id| lives(*id));
        let newest = epochs.map(|id| state.nodes[id].config.epoch).max();
        let away =
            |id: u8| top.in_sync[OTHER] == bit(other(id)) && !self.breaks(Mutation::NoSwapBack);
        match action {
            Action::Write(id, _) | Action::Fsync(id, _) => {
                lives(id) && Some(state.nodes[id].config.epoch) == newest
            }
            Action::Deliver(message) => {
                let read = matches!(
                    message,
                    Message::ReadConfirm { .. } | Message::ReadIndex { .. }
                );
                together && !read
            }
            Action::Learn(id, epoch) => {
                let told = together && !self.breaks(Mutation::NoGossip);
                let by_peer = told && epoch == state.nodes[other(id)].config.epoch;
                lives(id) && ((witness && epoch == top.epoch) || by_peer)
            }
            Action::AddProcess(id) => witness && lives(id) && together,
            Action::AddSend(id, 0) | Action::Swap(id) => witness && together && away(id),
            Action::Remove(id) | Action::Takeover(id) => witness && alive == bit(id),
            Action::SnapshotSend(id, part) => together && needs_snapshot(state, id, part),
            _ => false,
        }
    }
}

/// Lessons first, then messages, forms and disks; writes last.
fn rank(action: &Action) -> u8 {
    match action {
        Action::Learn(..) => 0,
        Action::Deliver(_) => 1,
        Action::Remove(_)
        | Action::Takeover(_)
        | Action::AddProcess(_)
        | Action::AddSend(..)
        | Action::Swap(_) => 2,
        Action::Fsync(..) => 3,
        Action::SnapshotSend(..) => 4,
        _ => 5,
    }
}

/// Whether the peer lacks what the node's log no longer has.
fn needs_snapshot(state: &State, id: u8, part: u8) -> bool {
    let (node, peer) = (&state.nodes[id], &state.nodes[other(id)]);
    let common = node.log[part].common(&peer.log[part]);
    let same_epoch = peer.config == node.config;
    same_epoch && (peer.is_inconsistent(part) || common < node.base[part])
}

/// Whether no further write to the part can be modelled.
fn is_full(state: &State, part: u8) -> bool {
    state.nodes.0.iter().any(|node| node.log[part].is_full())
}
