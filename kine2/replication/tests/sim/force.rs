//! The operator forces promotions, at any moment, and what they overrule comes back with its data.

use kine2_replication::{
    Command, Config, DataState, LogIndex, Origin, PartName, PartWord, Position, Quarantine,
    Standing, State, Unit, WaitReason,
};

use super::{Due, Sim, ms, store};

/// Configurations as they were found last, at each place that can hold one.
pub type Places = [Option<Config>; 4];

impl Sim {
    /// By chance, the operator promotes a node by force, or gives up what diverged.
    pub(super) fn operator_forces(&mut self, n: usize) -> bool {
        let has_unit = self.nodes[n].unit.is_some() && self.nodes[n].frozen_until <= self.now;
        if self.plan.forces == 0 || !has_unit {
            return false;
        }
        if self.forces_left > 0 && self.rng.percent(40) && self.forces_at_its_worst(n) {
            self.forces_left -= 1;
            return true;
        }
        if !self.rng.percent(30) {
            return false;
        }
        if self.rng.percent(50) {
            self.rejoin_diverged(n);
            return false;
        }
        if self.forces_left == 0 {
            return false;
        }
        let without_witness = self.rng.percent(50);
        let by_part = self.rng.percent(35);
        let part = by_part.then(|| self.parts[1].clone());
        self.forces_left -= 1;
        self.force(n, part, without_witness);
        true
    }

    /// A forced promotion at the moment at which it overrules most, if this is one.
    fn forces_at_its_worst(&mut self, n: usize) -> bool {
        let (lead, part) = (store(), self.parts[1].clone());
        let newest = self.config();
        let Some(own) = self.nodes[n].unit.as_ref().map(Unit::config).cloned() else {
            return false;
        };
        let me = self.nodes[n].me.clone();
        if own.id() != newest.id() && own.has(&part, &me) && !newest.has(&part, &me) {
            // By what it knows it would take a part that is safe at the other node.
            self.force(n, None, false);
            return true;
        }
        let is_away = own.standing(&part) == Some(Standing::Away);
        if own.primary == me && is_away && own.standing(&lead) == Some(Standing::Mirror) {
            // The other node does not hear of it, and takes the lead over.
            self.cut_link(0, 1);
            self.cut_link(n, 2);
            self.force(n, Some(part), true);
            return true;
        }
        let other = &self.nodes[1 - n];
        let is_up = other.unit.is_some() && other.frozen_until <= self.now;
        if is_up && self.rng.percent(20) {
            // Both, neither knowing of the other.
            self.cut_link(0, 1);
            for m in 0..2 {
                self.force(m, None, true);
            }
            return true;
        }
        false
    }

    /// The operator promotes the node, in all it can be or in one part.
    pub fn force(&mut self, n: usize, part: Option<PartName>, without_witness: bool) {
        self.forced_part[n].clone_from(&part);
        let command = match part {
            None => Command::PromoteForce { without_witness },
            Some(part) => Command::PromoteForcePart {
                part,
                without_witness,
            },
        };
        self.command(n, command);
    }

    fn rejoin_diverged(&mut self, n: usize) {
        for part in self.parts.clone() {
            if self.word(n, &part) == Some(PartWord::Diverged) {
                self.command(n, Command::Rejoin(part));
            }
        }
    }

    fn word(&self, n: usize, part: &PartName) -> Option<PartWord> {
        let status = self.nodes[n].unit.as_ref().map(Unit::status)?;
        status.parts.get(part).map(|status| status.word)
    }

    /// A promotion that was just stored says what is true for who descends from it.
    pub(super) fn note_promotions(&mut self) {
        for place in 0..4 {
            let now = self.held_at(place);
            if now == self.places[place] {
                continue;
            }
            let before = std::mem::replace(&mut self.places[place], now.clone());
            if let (Some(now), Some(before)) = (now, before)
                && now.origin != Origin::NONE
                && self.origins.insert(now.origin)
            {
                self.promoted(&now, &before, place >= 2);
            }
        }
    }

    fn held_at(&self, place: usize) -> Option<Config> {
        match place {
            0 | 1 => {
                let hard = self.nodes[place].disks[&store()].durable.hard.as_ref();
                hard.map(|hard| hard.config.clone())
            }
            _ => {
                let register = self.witnesses[place - 2].durable.values().next();
                register.map(|r| r.moved_to.as_ref().unwrap_or(&r.config).clone())
            }
        }
    }

    fn promoted(&mut self, new: &Config, old: &Config, at_witness: bool) {
        let n = self.nodes.iter().position(|node| node.me == new.primary);
        let n = n.expect("it is one of the two");
        let named = self.forced_part[n].clone().unwrap_or_else(store);
        let own = self.made_from.get(&new.origin).filter(|_| !at_witness);
        let old = &own.unwrap_or(old).clone();
        let me = self.nodes[n].me.clone();
        for part in self.parts.clone() {
            let set_back = self.nodes[n].image.is_some();
            let in_sync = at_witness && old.has(&part, &me) && !set_back;
            if in_sync || !new.has(&part, &me) {
                self.truth.goes_on(&part, old.origin, new.origin);
                continue;
            }
            assert!(
                !at_witness || part == named || set_back,
                "P11: nobody gave up {part}, and {me} takes it in epoch {}",
                new.epoch
            );
            let node = &self.nodes[n];
            let (image, applied) = (&node.disks[&part].durable, node.applied[&part]);
            assert_ne!(
                image.data,
                DataState::Inconsistent,
                "P7: {me} is promoted in {part}, which is half installed"
            );
            self.truth
                .forks(&part, old.origin, new.origin, image, applied);
        }
    }

    /// What a node puts away is on its disk after a while.
    pub(super) fn put_away(&mut self, n: usize, what: Quarantine) {
        let (boot, after) = (self.nodes[n].boot, self.delay() * 3);
        self.push(after, Due::Quarantined(n, boot, Box::new(what)));
    }

    pub(super) fn on_put_away(&mut self, n: usize, what: &Quarantine) {
        let node = &mut self.nodes[n];
        let image = &node.disks[&what.part].durable;
        let from = if what.with_state { 1 } else { what.after.0 + 1 };
        let kept = (from..=what.through.0).filter_map(|index| image.holds(LogIndex(index)));
        let kept: Vec<_> = kept.collect();
        node.quarantine
            .entry(what.part.clone())
            .or_default()
            .extend(kept);
        self.truth.counts.quarantines += 1;
    }

    /// P10, while no disk was lost.
    pub(super) fn check_kept(&self) {
        if (self.plan.forces == 0 && !self.pings()) || self.given_up {
            return;
        }
        let nodes = &self.nodes;
        self.truth.all_kept(|part, position: Position| {
            nodes.iter().any(|node| {
                let image = &node.disks[part].durable;
                let whole = image.data == DataState::Complete;
                let there = whole && image.holds(position.index) == Some(position);
                let away = node.quarantine.get(part);
                there || away.is_some_and(|away| away.contains(&position))
            })
        });
    }

    /// Both nodes meet, and the operator decides what they cannot, now and then.
    pub(super) fn operator_decides(&mut self) {
        if self.origins.is_empty() || self.now < self.decides_next {
            return;
        }
        self.decides_next = self.now + ms(3000);
        for n in 0..2 {
            if !self.plan.auto_discard {
                self.rejoin_diverged(n);
            }
        }
        let is_twin = |n: &usize| {
            let status = self.nodes[*n].unit.as_ref().map(Unit::status);
            status.is_some_and(|status| status.state == State::Wait(WaitReason::Twin))
        };
        if (0..2).any(|n| is_twin(&n)) {
            self.truth.counts.twins += 1;
            let n = self.rng.pick(2);
            self.force(n, None, true);
        }
        self.force_what_nobody_has();
    }

    /// A part is away at a node that has given up what it had.
    fn force_what_nobody_has(&mut self) {
        let config = self.config();
        for part in self.parts.clone() {
            let gone = config.replicas(&part).all(|replica| {
                let node = self.nodes.iter().find(|node| node.me == replica.node);
                node.is_none_or(|node| node.disks[&part].durable.storage != replica.storage)
            });
            let primary = self.nodes.iter().position(|n| n.me == config.primary);
            if let (true, Some(n), Some(Standing::Away)) = (gone, primary, config.standing(&part)) {
                self.force(n, Some(part), true);
            }
        }
    }
}
