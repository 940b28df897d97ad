//! What goes wrong, and that all comes back.

use std::time::Duration;

use kine2_replication::{
    Arbiter, Command, Event, HardState, Incarnation, Link, LogIndex, NodeRef, PartName, Standing,
    WitnessId,
};

use kine2_sim_kit::WitnessHost;

use super::disk::{Disk, Image};
use super::{Due, Sim, arbiter, ms, store};

impl Sim {
    pub(super) fn fault(&mut self) {
        let every = u64::try_from(self.plan.fault_every.as_millis()).unwrap();
        let after = ms(10 + self.rng.below(2 * every));
        self.push(after, Due::Fault);
        if self.now < self.quiet_until {
            return;
        }
        let n = self.rng.pick(2);
        if self.operator_forces(n) {
            return;
        }
        if self.ambush.is_none() && self.rng.percent(self.plan.ambushes) {
            return self.arm();
        }
        match self.rng.below(20) {
            0..=2 => {
                self.crash(n);
                let after = ms(20 + self.rng.below(3000));
                self.push(after, Due::Restart(n));
            }
            3 => {
                for n in 0..2 {
                    self.crash(n);
                    let after = ms(20 + self.rng.below(4000));
                    self.push(after, Due::Restart(n));
                }
            }
            4 => self.cut_link(0, 1),
            5 => self.cut_link(n, 2),
            6 => {
                self.links.cut_one_way(n, 1 - n);
            }
            7 => {
                let (from, to) = self.rng.choose(&[(n, 2), (2, n)]);
                self.links.cut_one_way(from, to);
            }
            8 => {
                let until = self.now + ms(self.rng.below(2500));
                self.nodes[n].frozen_until = until;
            }
            9 => {
                let w = self.rng.pick(2);
                self.crash_witness(w);
                let after = ms(20 + self.rng.below(3000));
                self.push(after, Due::RestartWitness(w));
            }
            10 if self.plan.operator => {
                let partial = self.rng.percent(50);
                self.command(n, Command::Swap { partial });
            }
            11 if self.plan.operator && !self.pings() => self.change_arbiter(n),
            12 if self.plan.operator => {
                if self.rng.percent(50) {
                    self.command(n, Command::Stop { force: false });
                } else {
                    self.command(n, Command::Start);
                }
            }
            15 => {
                self.cut_link(0, 1);
                self.cut_link(n, 2);
            }
            16..=17 => {
                let part = self.parts[self.rng.pick(2)].clone();
                self.slow.insert((n, part.clone()));
                let after = ms(500 + self.rng.below(6000));
                self.push(after, Due::Fast(n, part));
            }
            13 if self.plan.disks => self.fail_disk_for_a_while(n),
            14 if self.plan.disks => self.wipe(n),
            _ => self.heal_links(),
        }
    }

    /// A disk fails; the node is started again later, and its disk works again.
    pub(super) fn fail_disk_for_a_while(&mut self, n: usize) {
        let part = self.parts[self.rng.pick(2)].clone();
        self.fail_disk(n, part);
        let after = ms(500 + self.rng.below(3000));
        self.push(after, Due::Replace(n));
    }

    /// A node loses all it has, and joins again: only where that loses nothing, as everything is
    /// on the other node, too.
    fn wipe(&mut self, n: usize) {
        let config = self.config();
        let other = self.nodes[1 - n].me.clone();
        let lone = !matches!(config.arbiter, Arbiter::Witness { .. });
        let everywhere = self.parts.iter().all(|part| config.has(part, &other));
        // Nor while a change is under way by which it may become the only one.
        let calls = self.queue.values().any(|due| matches!(due, Due::Call(..)));
        let stores = self.witnesses.iter().any(WitnessHost::is_writing);
        // With an arbiter that is taken for lost, or beside a disk that failed, it would be two losses
        // at once.
        let ails = !self.nodes[1 - n].failed.is_empty();
        if !everywhere || lone || calls || stores || ails || self.plan.operator {
            return;
        }
        self.crash(n);
        self.replace(n);
        let after = ms(500 + self.rng.below(3000));
        self.push(after, Due::Restart(n));
    }

    pub fn fail_disk(&mut self, n: usize, part: PartName) {
        self.nodes[n].failed.insert(part.clone());
        self.tell(n, Event::DiskFailed { part });
    }

    /// A node that is down has lost all it had, and joins the unit as it stands.
    pub fn replace(&mut self, n: usize) {
        let config = self.config();
        self.end_session(n);
        self.wipes += 1;
        let life = 1000 * self.wipes;
        let node = &mut self.nodes[n];
        node.me = NodeRef::new(node.me.name.as_str(), life + n as u128);
        for (k, (part, disk)) in node.disks.iter_mut().enumerate() {
            let hard = (*part == store()).then(|| HardState::adopting(config.clone()));
            *disk = Disk::new(Image::empty(Incarnation(life + 10 + k as u128), hard));
        }
    }

    pub(super) fn change_arbiter(&mut self, n: usize) {
        let Some(unit) = &self.nodes[n].unit else {
            return;
        };
        let id = match unit.config().arbiter {
            Arbiter::Witness {
                id: WitnessId(1), ..
            } => 2,
            _ => 1,
        };
        let old_lost = self.rng.percent(50);
        let arbiter = arbiter(id);
        self.command(n, Command::ChangeArbiter { arbiter, old_lost });
    }

    /// Both nodes get storage for a new part; the primary, `n`, adds it.
    pub fn new_part(&mut self, n: usize, part: PartName) {
        let k = self.parts.len() as u128;
        self.parts.push(part.clone());
        for m in [n, 1 - n] {
            let image = Image::empty(Incarnation(100 + 10 * m as u128 + k), None);
            let loaded = Box::new(image.loaded());
            let node = &mut self.nodes[m];
            node.disks.insert(part.clone(), Disk::new(image));
            node.applied.insert(part.clone(), LogIndex(0));
            let part = part.clone();
            self.tell(m, Event::PartAdded { part, loaded });
        }
        let storage = self.nodes[n].disks[&part].durable.storage;
        self.command(n, Command::NewPart { part, storage });
    }

    pub fn command(&mut self, n: usize, command: Command) {
        if self.nodes[n].frozen_until <= self.now {
            self.tell(n, Event::Command(command));
        }
    }

    pub fn cut_link(&mut self, a: usize, b: usize) {
        self.links.cut(a, b);
        if b == 2 {
            self.push(ms(9000), Due::Session(a, false));
        }
    }

    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.links.cut_one_way(from, to);
    }

    pub fn freeze(&mut self, n: usize, time: Duration) {
        self.nodes[n].frozen_until = self.now + time;
    }

    /// The disk catches up.
    pub fn make_fast(&mut self, n: usize, part: PartName) {
        self.slow.remove(&(n, part.clone()));
        for _ in 0..self.nodes[n].disks[&part].under_way() {
            self.push(ms(1), Due::Synced(n, part.clone()));
        }
    }

    pub fn heal_links(&mut self) {
        if self.trace {
            println!("{:?} heal", self.now);
        }
        self.links.heal();
        for n in 0..2 {
            let after = self.delay();
            self.push(after, Due::Session(n, true));
        }
    }

    /// No more faults.
    pub(super) fn heal(&mut self) {
        self.healing = true;
        self.ambush = None;
        self.rolling = None;
        self.heal_links();
        self.queue.retain(|_, due| {
            !matches!(
                due,
                Due::Fault
                    | Due::Client
                    | Due::Restart(_)
                    | Due::CutOff(_)
                    | Due::AmbushOver
                    | Due::CrashApart(_)
                    | Due::Meet
                    | Due::Healed
                    | Due::Replace(_)
                    | Due::RestartWitness(_)
            )
        });
        for (n, part) in std::mem::take(&mut self.slow) {
            self.make_fast(n, part);
        }
        for n in 0..2 {
            self.nodes[n].frozen_until = Duration::ZERO;
            if !self.nodes[n].failed.is_empty() {
                self.crash(n);
            }
            self.start(n);
            self.command(n, Command::Start);
            self.push(ms(1), Due::Link(n, Link::Up));
        }
        self.without_witness();
        for w in 0..2 {
            self.start_witness(w);
        }
        self.replace_regressed();
    }

    /// REC2: both nodes serve the lead without the witness.
    fn without_witness(&mut self) {
        // A node that lost all is not one of the two.
        let config = self.config();
        let whole = config
            .members
            .iter()
            .all(|m| self.nodes.iter().any(|n| n.me == *m));
        if !whole || !self.origins.is_empty() || !self.rng.percent(30) {
            return;
        }
        for w in 0..2 {
            self.crash_witness(w);
        }
        let lead = store();
        self.run_until(
            20_000,
            "REC2: the lead is served without the witness",
            |sim| sim.is_served(&lead),
        );
        self.must_write(&lead);
    }

    /// REC1: both nodes and the witness: every part is served and mirrored again. Then, by chance,
    /// REC3: either node alone serves all.
    pub(super) fn recover(&mut self) {
        self.run_until(60_000, "REC1: all is mirrored and served", |sim| {
            sim.operator_decides();
            sim.all_mirrored() && sim.parts.iter().all(|part| sim.is_served(part))
        });
        self.check_kept();
        for part in self.parts.clone() {
            self.must_write(&part);
        }
        if self.pings() {
            return self.lose_one();
        }
        if !matches!(self.config().arbiter, Arbiter::Witness { .. }) {
            return;
        }
        // What was asked for before is over.
        self.run_for(ms(2000));
        self.run_until(20_000, "REC1: it stays so", Self::all_mirrored_mut);
        let n = self.rng.pick(2);
        self.crash(n);
        for part in self.parts.clone() {
            self.run_until(20_000, "REC3: one node goes on", |sim| sim.is_served(&part));
            self.must_write(&part);
        }
        if self.rng.percent(40) {
            self.force_the_last(n);
        }
    }

    /// The last node in sync is lost, too; the operator accepts what the other one, `n`, lacks. From
    /// then on its history is the one that counts.
    fn force_the_last(&mut self, n: usize) {
        self.crash(1 - n);
        self.start(n);
        self.run_for(ms(6000));
        let lead = store();
        assert!(!self.is_served(&lead), "an outdated node serves by itself");
        let without_witness = self.rng.percent(30);
        self.given_up = true;
        self.force(n, None, without_witness);
        self.run_until(20_000, "a forced node serves the lead", |sim| {
            sim.is_served(&lead)
        });
        self.must_write(&lead);
        // The other one joins again, empty.
        self.replace(1 - n);
        self.start(1 - n);
        self.run_until(20_000, "after force the lead is mirrored again", |sim| {
            sim.config().standing(&lead) == Some(Standing::Mirror)
        });
        self.must_write(&lead);
    }

    /// A write to the part is committed soon.
    pub fn must_write(&mut self, part: &PartName) {
        let before = self.truth.counts.acknowledged;
        let part = part.clone();
        let mut tries = 0;
        self.run_until(10_000, "a write is committed", |sim| {
            if tries % 50 == 0 {
                for n in 0..2 {
                    sim.write(n, part.clone());
                }
            }
            tries += 1;
            sim.truth.counts.acknowledged > before
        });
    }

    pub fn run_until(&mut self, millis: u64, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + ms(millis);
        while !done(self) {
            assert!(
                self.now < end,
                "{what}: not within {millis} ms: {}",
                self.describe()
            );
            self.step();
        }
    }
}
