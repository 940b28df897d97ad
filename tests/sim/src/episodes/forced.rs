//! A promotion by force, and the return of who was overruled.

use kine2_replication::{Command, Reason};

use crate::due::Due;
use crate::history::Reply;
use crate::model::Model;
use crate::plan::ms;
use crate::world::World;

impl World {
    /// A node falls behind, perhaps; the other one is lost; the one that is left is promoted, and
    /// what it has is the truth from then on. Then the lost one comes back with its data.
    pub(super) fn force_and_return(&mut self) {
        let lost = self.rng.pick(2);
        let forced = 1 - lost;
        if self.rng.percent(70) {
            self.fall_behind(forced);
        }
        self.stop_clients();
        self.lose(lost);
        self.end_faults(&[forced]);
        let time = ms(100 + self.rng.below(2_500));
        self.run_for(time);
        let known = self.machines[forced].on_disk.hard().config.epoch;
        if self.config().epoch.generation() > known.generation() {
            // Both would have the same epoch; a transcript plays twins.
            self.end_faults(&[lost]);
            return self.resume_clients();
        }
        self.judge_history();
        self.promote(forced);
        self.begin_anew(forced);
        let time = ms(self.rng.below(3_000));
        self.run_for(time);
        self.come_back(lost);
    }

    fn lose(&mut self, n: usize) {
        if self.rng.percent(50) {
            self.cut_power(n);
        } else {
            self.kill(n);
        }
    }

    /// Writes go on without this node.
    fn fall_behind(&mut self, n: usize) {
        self.lose(n);
        let time = ms(300 + self.rng.below(4_000));
        self.run_for(time);
    }

    fn promote(&mut self, n: usize) {
        let without_witness = self.rng.percent(30);
        self.coverage.mark(match without_witness {
            true => "operator: promote by force, without the witness",
            false => "operator: promote by force",
        });
        self.forcing = true;
        self.command(n, Command::PromoteForce { without_witness });
        self.run_until(ms(20_000), "a node promoted by force serves", |world| {
            let process = world.machines[n].process.as_ref();
            let is_whole = |process: &crate::process::Process| {
                process.applied().0 == process.node.last_index()
            };
            // It may have taken over by itself meanwhile.
            let config = world.config();
            let is_its = config.primary == world.machines[n].me;
            let decided = !world.forcing || is_its && config.reason == Reason::Takeover;
            decided && world.primary() == Some(n) && process.is_some_and(is_whole)
        });
        self.forcing = false;
    }

    /// A configuration made by force is in force: the log of its primary is the truth.
    pub(crate) fn accept_loss(&mut self) {
        let primary = &self.config().primary;
        let forced = self.machines.iter().find(|machine| machine.me == *primary);
        let on_disk = &forced.expect("it is one of the two").on_disk;
        let lost = self
            .truth
            .exposed()
            .0
            .saturating_sub(on_disk.last().index.0);
        let (base, entries) = (on_disk.base.index, on_disk.entries.clone());
        self.truth.rebase(base, entries);
        self.forcing = false;
        self.was_forced = true;
        if lost > 0 {
            self.coverage.mark("force: a loss accepted");
        }
        self.tell_story(format!("the loss of {lost} entries is accepted"));
    }

    /// Clients start anew with what this node has.
    fn begin_anew(&mut self, n: usize) {
        let process = self.process(n);
        let Reply::Records(revision, records) = process.read(None) else {
            panic!("a read answers records");
        };
        let store = process.node.store();
        let first = Model {
            revision,
            keys: records.into_iter().collect(),
            leases: store.lease_ttls().map(|(id, _)| id).collect(),
        };
        let compacted = store.compacted().0;
        self.clients.begin_anew(first, compacted);
        self.forget_watches();
        self.add_watches(revision + 1);
        self.resume_clients();
    }

    fn resume_clients(&mut self) {
        self.clients.stopped = false;
        for c in 0..self.clients.count() {
            self.push(ms(10), Due::Client(c));
        }
    }

    /// Who was overruled stops at once. If what is final there is not so any more it keeps what it
    /// has and waits; the operator wipes it.
    fn come_back(&mut self, n: usize) {
        let kept = self.machines[n].on_disk.last();
        let forced = self.config().epoch.generation();
        self.start(n);
        self.run_until(ms(30_000), "who was overruled learns of it", |world| {
            world.machines[n].on_disk.hard().config.epoch.generation() >= forced
        });
        let diverged = |world: &Self| {
            let process = world.machines[n].process.as_ref();
            process.is_some_and(|p| p.node.unit().status().state.to_string() == "WAIT (diverged)")
        };
        self.run_until(
            ms(60_000),
            "who was overruled is mirrored or waits",
            |world| world.is_mirrored() || diverged(world),
        );
        if !diverged(self) {
            return self
                .coverage
                .mark("force: the other node joined by its log");
        }
        self.coverage
            .mark("force: the other node keeps what it has and waits");
        self.run_for(ms(2_000));
        assert!(diverged(self), "who was overruled waits for the operator");
        assert_eq!(
            self.machines[n].on_disk.last(),
            kept,
            "who was overruled keeps what it has"
        );
        self.kill(n);
        self.replace(n);
        self.start(n);
        self.must_mirror("after force: mirrored again", ms(60_000));
    }
}
