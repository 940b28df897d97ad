//! `promote --force`, and what the losing side does with what it holds (section 12).

use crate::mutation::Mutation;
use crate::settings::{Force, Settings};
use crate::state::{
    BOTH, Config, LEAD, Log, Node, OTHER, PARTS, State, bad, bit, counter, generation, seen,
};

impl Settings {
    /// The configuration a forced promotion of the node would make, if it is allowed.
    pub(crate) fn forced(&self, state: &State, id: u8, part: bool) -> Option<Config> {
        let node = &state.nodes[id];
        let own = node.config;
        let known = match self.force {
            Force::AtWitness => *state.register.last().expect("the register is never empty"),
            Force::WithoutWitness | Force::Ping => own,
        };
        let usable = |part| !node.is_inconsistent(part) || self.breaks(Mutation::ForceInconsistent);
        if state.budget.forces == 0 || counter(known.epoch) >= self.epoch_max {
            return None;
        }
        let origin = state.forced + 1;
        if self.force == Force::Ping {
            return self.goes_alone(node, id, origin).filter(|_| !part);
        }
        if part {
            let is_current = own == known && own.primary == id && !node.twin;
            let may = is_current && own.is_away(OTHER) && usable(OTHER);
            return may.then(|| self.force_part_of(&known, id, origin));
        }
        let mut config = self.force_of(&known, id, origin);
        if self.breaks(Mutation::ForceOwnSets) && own.has(id, OTHER) {
            config.in_sync[OTHER] = bit(id);
        }
        usable(LEAD).then_some(config)
    }

    /// Policy `ping`: who lost its peer goes on alone, each in a generation of its own; the primary's is the higher, so it wins.
    /// The nodes' own numbers keep two generations apart also when a handover made both the other node.
    fn goes_alone(&self, node: &Node, id: u8, origin: u8) -> Option<Config> {
        let own = &node.config;
        let mirror = own.in_sync[LEAD] == BOTH && !node.twin;
        if !mirror || node.is_inconsistent(LEAD) {
            return None;
        }
        let mut config = self.takeover_of(own, id);
        let higher = 1 + id + if own.primary == id { 2 } else { 0 };
        config.epoch = 10 * (generation(own.epoch) + higher) + counter(own.epoch) + 1;
        config.origin = origin;
        Some(config)
    }

    /// The operator promotes the node: a history of its own begins for each part it takes.
    pub(crate) fn force(&self, state: &mut State, id: u8, config: Config, by_part: bool) {
        state.budget.forces -= 1;
        state.forced += 1;
        let parent = if self.force == Force::AtWitness {
            state.register.last().expect("never empty").origin
        } else {
            state.nodes[id].config.origin
        };
        let origin = config.origin;
        for part in PARTS {
            let named = (part == LEAD) != by_part;
            let line = state.line[part][usize::from(parent)];
            state.line[part][usize::from(origin)] = line;
            // Who is in sync by the register has all there is, and the other side can add nothing: one history goes on.
            let in_sync = self.force == Force::AtWitness
                && state.register.last().is_some_and(|held| held.has(id, part));
            if in_sync || config.in_sync[part] != bit(id) {
                continue;
            }
            if self.force == Force::AtWitness && !named {
                // Nobody gave this part up.
                state.bad |= bad::FORCED;
            }
            let seen_outside = *state.history_of(part, parent);
            let own = state.nodes[id].on_disk(part);
            if !seen_outside.is_prefix_of(&own) {
                state.seen |= if by_part {
                    seen::FORCE_PART
                } else {
                    seen::FORCE_LOST
                };
            }
            let common = own.common(&seen_outside);
            state.forks.push(seen_outside.first(common));
            let fork = u8::try_from(state.forks.len()).expect("few forks");
            state.line[part][usize::from(origin)] = fork;
        }
        if self.force == Force::AtWitness {
            state.register.push(config);
        }
        self.learn(state, id, config);
        let node = &mut state.nodes[id];
        node.suspect &= !taken(&config, id);
        node.diverged &= !taken(&config, id);
    }

    /// Whether the node may take the primary's log. If a forced promotion lies between, all that would be dropped goes to
    /// quarantine first; if some of it is known to be committed, the node stops and waits for the operator.
    pub(crate) fn settle_divergence(
        &self,
        state: &mut State,
        id: u8,
        part: u8,
        primary: &Log,
    ) -> bool {
        let node = &mut state.nodes[id];
        if node.diverged & bit(part) != 0 {
            return false;
        }
        let by_letter = self.breaks(Mutation::TwinByEpoch);
        let suspect = node.suspect & bit(part) != 0;
        if !(suspect || by_letter) || self.breaks(Mutation::NoDivergedStop) {
            return true;
        }
        let own = node.on_disk(part);
        let common = own.common(primary);
        if common < node.commit[part] {
            node.diverged |= bit(part);
            return false;
        }
        if suspect && common < own.len() && !self.breaks(Mutation::QuarantineByHint) {
            node.quarantine[part] |= own.ids() & !own.first(common).ids();
            state.seen |= seen::QUARANTINE;
        }
        node.suspect &= !bit(part);
        true
    }

    /// The operator gives up the losing side of a part: quarantine, then a new part incarnation, empty.
    pub(crate) fn rejoin(&self, state: &mut State, id: u8, part: u8) {
        let node = &mut state.nodes[id];
        if !self.breaks(Mutation::OverwriteFirst) {
            node.quarantine[part] |= node.on_disk(part).ids();
        }
        node.diverged &= !bit(part);
        node.suspect &= !bit(part);
        node.log[part].truncate(0);
        node.durable[part] = 0;
        node.commit[part] = 0;
        node.base[part] = 0;
        state.seen |= seen::REJOIN | seen::QUARANTINE;
    }

    /// Whether neither configuration may give way to the other.
    pub(crate) fn are_twins(&self, own: &Config, told: &Config) -> bool {
        let by_letter = self.breaks(Mutation::TwinByEpoch);
        self.forces > 0 && own.is_twin_of(told) && (!by_letter || own.epoch == told.epoch)
    }

    /// The node learned of a configuration as good as its own.
    pub(crate) fn stop_as_twin(&self, state: &mut State, id: u8) {
        let node: &mut Node = &mut state.nodes[id];
        node.forget_volatile();
        node.twin = true;
        state.seen |= seen::TWIN;
    }
}

fn taken(config: &Config, id: u8) -> u8 {
    PARTS
        .into_iter()
        .filter(|part| config.has(id, *part))
        .fold(0, |set, part| set | bit(part))
}
