//! Faults that wait for their moment: a state that lasts for milliseconds, and what does most harm
//! in it. Random faults hardly ever hit it.

use std::time::Duration;

use kine2_replication::{
    Arbiter, Ask, Body, Command, Config, Event, Form, Link, PartName, Reason, Standing,
};
use kine2_witness_core::Register;

use super::{Due, Sim, arbiter, ms, store};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambush {
    /// A node has an ADD in doubt, or an arbiter proposed.
    Doubt,
    /// The peer was just added to a part.
    Added,
    /// The lead is mirrored, another part is alone.
    LeadOnly,
    /// The lead is mirrored, another part is away.
    Away,
    /// A change is asked for: it takes long to reach the witness, and meanwhile the operator has
    /// the arbiter replaced as if it were lost.
    Asked,
    /// An arbiter is proposed: that takes long to reach the peer, which takes over meanwhile.
    Proposed,
    /// The primary is cut off until the other serves; then the two meet, and the deposed one is not
    /// told by the witness.
    Deposed,
    /// The witness crashes while it makes a change durable, and who asked for it cannot tell it.
    Storing,
    /// The witness comes back as it was before a takeover, and the primary that was deposed is the
    /// first to see it.
    RolledBack,
    /// The same while the answer to the takeover is on its way.
    RolledBackUnheard,
}

/// No other faults for so long after an ambush.
const HOLD: Duration = ms(9000);

impl Sim {
    pub(super) fn arm(&mut self) {
        let some = [
            Ambush::Doubt,
            Ambush::Added,
            Ambush::LeadOnly,
            Ambush::Away,
            Ambush::Storing,
            Ambush::Deposed,
        ];
        let moved = [Ambush::Asked, Ambush::Proposed, Ambush::Proposed];
        let rolled = [Ambush::RolledBack, Ambush::RolledBackUnheard];
        let ambush = if self.plan.rolls && self.rng.percent(70) {
            rolled[self.rng.pick(2)]
        } else if self.plan.operator && self.rng.percent(self.plan.moves) {
            moved[self.rng.pick(3)]
        } else {
            some[self.rng.pick(6)]
        };
        if ambush == Ambush::Proposed {
            self.replace_arbiter();
        }
        self.ambush = Some(ambush);
    }

    /// Strikes if the moment is there.
    pub(super) fn strike(&mut self, config: &Config) {
        let Some(ambush) = self.ambush else { return };
        // What an ambush leads to may be the moment for the next one.
        let quiet = self.now < self.quiet_until && ambush != Ambush::Away;
        if self.healing || quiet {
            return;
        }
        let primary = self.nodes.iter().position(|n| n.me == config.primary);
        let Some(p) = primary.filter(|p| self.nodes[*p].unit.is_some()) else {
            return;
        };
        let stands = |part: &PartName, standing| config.standing(part) == Some(standing);
        let mirrored = stands(&store(), Standing::Mirror);
        let files = &self.parts[1];
        let moment = match ambush {
            Ambush::Doubt => return self.strike_doubt(),
            Ambush::Deposed => return self.depose(p, mirrored),
            Ambush::Added => config.reason == Reason::Add && mirrored,
            Ambush::LeadOnly => mirrored && stands(files, Standing::Alone),
            Ambush::Away => mirrored && stands(files, Standing::Away),
            Ambush::Storing => return self.strike_storing(),
            Ambush::Asked => return self.strike_asked(p),
            Ambush::Proposed => return self.strike_proposed(p),
            Ambush::RolledBack | Ambush::RolledBackUnheard => return self.roll_back(ambush, p),
        };
        if !moment {
            return;
        }
        self.begin_ambush(ambush);
        match self.rng.below(6) {
            0 | 1 => self.crash_for_a_while(p),
            2 => self.crash_for_a_while(1 - p),
            3 => self.cut_link(0, 1),
            4 if self.plan.disks => self.fail_disk_for_a_while(p),
            _ => self.command(p, Command::Swap { partial: true }),
        }
    }

    fn begin_ambush(&mut self, ambush: Ambush) {
        if self.trace {
            println!("{:?} ambush: {ambush:?}", self.now);
        }
        let next = ambush == Ambush::LeadOnly && self.rng.percent(60);
        self.ambush = next.then_some(Ambush::Away);
        self.quiet_until = self.now + HOLD;
        self.push(HOLD, Due::AmbushOver);
    }

    /// The node is cut off from its peer, and perhaps from the witness, while what it asked for is
    /// on its way; perhaps it starts anew there.
    fn strike_doubt(&mut self) {
        let doubts = |n: &usize| {
            let unit = self.nodes[*n].unit.as_ref();
            unit.is_some_and(|unit| {
                let hard = unit.hard_state();
                hard.pend_add.is_some() || hard.prop.is_some()
            })
        };
        let Some(n) = (0..2).find(doubts) else { return };
        self.begin_ambush(Ambush::Doubt);
        let after = self.delay() * 3;
        self.push(after, Due::CutOff(n));
    }

    pub(super) fn cut_off(&mut self, n: usize) {
        self.cut_link(0, 1);
        if self.rng.percent(60) {
            self.cut_link(n, 2);
        }
        if self.rng.percent(50) {
            let killed = self.rng.percent(50);
            self.crash_as(n, killed);
            let after = ms(50 + self.rng.below(500));
            self.push(after, Due::Restart(n));
        }
    }

    /// The operator takes the witness for lost.
    fn replace_arbiter(&mut self) {
        let Arbiter::Witness { id, .. } = self.config().arbiter else {
            return;
        };
        let other = arbiter(if id == self.witnesses[0].id { 2 } else { 1 });
        for n in 0..2 {
            let command = Command::ChangeArbiter {
                arbiter: other.clone(),
                old_lost: true,
            };
            self.command(n, command);
        }
    }

    fn depose(&mut self, p: usize, mirrored: bool) {
        let up = self.nodes.iter().all(|node| node.unit.is_some());
        if !mirrored || !up || !self.links.are_whole() {
            return;
        }
        self.begin_ambush(Ambush::Deposed);
        self.cut_link(0, 1);
        self.links.cut(p, 2);
        let after = ms(1500 + self.rng.below(3000));
        self.push(after, Due::Meet);
    }

    /// The link between the nodes is whole again.
    pub(super) fn meet(&mut self) {
        self.links.open(0, 1);
    }

    pub(super) fn crash_apart(&mut self, n: usize) {
        self.cut_link(0, 1);
        self.crash_as(n, false);
        let after = ms(50 + self.rng.below(500));
        self.push(after, Due::Restart(n));
    }

    fn strike_storing(&mut self) {
        let storing = |w: &usize| self.witnesses[*w].is_writing();
        let Some(w) = (0..2).find(storing) else {
            return;
        };
        let register = self.witnesses[w].writing().expect("it stores");
        let asked_by = register.config.primary.clone();
        let Some(n) = self.nodes.iter().position(|n| n.me == asked_by) else {
            return;
        };
        self.begin_ambush(Ambush::Storing);
        self.crash_witness(w);
        self.cut_link(0, 1);
        self.links.cut_one_way(n, 2);
        let after = ms(50 + self.rng.below(500));
        self.push(after, Due::RestartWitness(w));
    }

    fn strike_asked(&mut self, p: usize) {
        let asks = |due: &Due| {
            let Due::Call(_, call) = due else {
                return false;
            };
            let Ask::Cas(cas) = &call.ask else {
                return false;
            };
            !matches!(cas.form, Form::Add { .. } | Form::Move { .. })
        };
        let late = self.take_due(asks);
        if late.is_empty() || self.nodes[p].unit.is_none() {
            return;
        }
        self.begin_ambush(Ambush::Asked);
        for due in late {
            let after = ms(100 + self.rng.below(1500));
            self.push(after, due);
        }
        self.heal_links();
        self.replace_arbiter();
    }

    fn strike_proposed(&mut self, p: usize) {
        let proposes = |due: &Due| match due {
            Due::Frame(n, frame) => *n != p && matches!(frame.body, Body::Propose { .. }),
            _ => false,
        };
        let late = self.take_due(proposes);
        if late.is_empty() {
            return;
        }
        self.begin_ambush(Ambush::Proposed);
        if self.rng.percent(50) {
            // It comes in time, but who proposed it starts anew and does not hear of it.
            for due in late {
                self.push(ms(1), due);
            }
            let after = ms(20) + self.delay();
            return self.push(after, Due::CrashApart(p));
        }
        self.cut_link(0, 1);
        let after = ms(1200 + self.rng.below(1500));
        self.push(after, Due::Healed);
        for due in late {
            self.push(after, due);
        }
    }

    /// Takes out what is under way.
    fn take_due(&mut self, wanted: impl Fn(&Due) -> bool) -> Vec<Due> {
        let keys: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, due)| wanted(due))
            .map(|(key, _)| *key)
            .collect();
        let taken = keys.iter().filter_map(|key| self.queue.remove(key));
        taken.collect()
    }

    fn crash_for_a_while(&mut self, n: usize) {
        self.crash(n);
        let after = ms(20 + self.rng.below(6000));
        self.push(after, Due::Restart(n));
    }

    /// From a state in which all is well: the primary is cut off, the other takes over, and then
    /// the witness forgets it.
    fn roll_back(&mut self, ambush: Ambush, p: usize) {
        let well = self.links.are_whole()
            && self.nodes.iter().all(|node| node.unit.is_some())
            && self.nodes.iter().all(|node| node.frozen_until <= self.now)
            && self.witnesses[0].is_up()
            && !self.witnesses[0].is_writing()
            && matches!(self.config().arbiter, Arbiter::Witness { id, .. } if id == self.witnesses[0].id)
            && !self.queue.values().any(|due| matches!(due, Due::Call(..)))
            && self.all_mirrored();
        if !well {
            return;
        }
        self.begin_ambush(ambush);
        self.keep_witness();
        self.cut_link(0, 1);
        self.links.cut(p, 2);
        self.rolling = Some((ambush, p));
    }

    /// The takeover is in the register: now the witness goes back.
    pub(super) fn roll_on(&mut self) {
        let Some((ambush, p)) = self.rolling else {
            return;
        };
        if self.now >= self.quiet_until - ms(6500) {
            self.rolling = None;
            return;
        }
        let taken = |register: &Register| register.config.reason == Reason::Takeover;
        let kept = self.backup.values().next().map(|r| r.config.epoch);
        let newer = |register: &Register| Some(register.config.epoch) > kept;
        let durable = self.witnesses[0].durable.values().next();
        if !durable.is_some_and(|register| taken(register) && newer(register)) {
            return;
        }
        let s = 1 - p;
        let knows = |n: usize| {
            let unit = self.nodes[n].unit.as_ref();
            unit.map(|unit| unit.config().epoch) > kept
        };
        match ambush {
            Ambush::RolledBack if !knows(s) => return,
            Ambush::RolledBackUnheard if knows(s) => {
                self.rolling = None;
                return;
            }
            _ => {}
        }
        self.rolling = None;
        if ambush == Ambush::RolledBackUnheard {
            self.delay_words(s, ms(1500));
        }
        for n in 0..2 {
            self.links.open(n, 2);
        }
        self.restore_witness();
        if ambush == Ambush::RolledBack {
            // The deposed one is first.
            self.queue
                .retain(|_, due| !matches!(due, Due::Session(n, true) if *n == s));
            let after = ms(300 + self.rng.below(1000));
            self.push(after, Due::Session(s, true));
        }
    }

    /// What the witness said to the node is on its way for longer.
    fn delay_words(&mut self, n: usize, time: Duration) {
        let late = self.take_due(|due| matches!(due, Due::Word(to, _) if *to == n));
        for due in late {
            self.push(time, due);
        }
    }

    pub(super) fn end_ambush(&mut self) {
        self.rolling = None;
        // While the witness is of no use and the peer out of reach nothing is in doubt.
        self.replace_regressed();
        self.quiet_until = self.now + ms(1500);
        self.push(ms(1500), Due::Healed);
    }

    pub(super) fn end_quiet(&mut self) {
        self.heal_links();
        for n in 0..2 {
            self.tell(n, Event::Link(Link::Up));
        }
    }

    /// The operator replaces a witness that went backwards.
    pub(super) fn replace_regressed(&mut self) {
        for w in 0..2 {
            let mut registers = self.witnesses[w].durable.values();
            if registers.any(|register| register.regressed) {
                for n in 0..2 {
                    let command = Command::ChangeArbiter {
                        arbiter: arbiter(2 - w as u128),
                        old_lost: true,
                    };
                    self.command(n, command);
                }
            }
        }
    }
}
