//! What goes back in time: a machine to an old image of its disk, the witness to an old backup.

use std::collections::BTreeMap;
use std::sync::Arc;

use kine2_replication::{Arbiter, Command, LogIndex, RegisterKey, WitnessId};
use kine2_witness_core::{Options, Register};

use super::MachineImage;
use crate::due::Due;
use crate::log::Log;
use crate::network::WITNESS;
use crate::plan::{ms, witness};
use crate::world::World;

/// What else fails while a machine comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// The witness is down.
    NoWitness,
    /// The other node does not reach the witness, and then it is lost or cut off as well.
    NoPeer,
}

impl World {
    /// A machine loses its power and comes back with an old image of its disk, by chance while
    /// something else fails, too. Whoever knows what it had says so (`repl I4`): it neither serves
    /// nor takes over, and gets what it lacks from the other node.
    pub(super) fn revert_machine(&mut self) {
        let n = self.rng.pick(2);
        let me = self.machines[n].me.clone();
        let Some(image) = self.images.machines[n].take().filter(|i| i.me == me) else {
            return;
        };
        let mut meanwhile = match self.config().arbiter {
            Arbiter::Witness { .. } => {
                self.rng
                    .choose(&[Meanwhile::Nothing, Meanwhile::NoWitness, Meanwhile::NoPeer])
            }
            Arbiter::None(_) => Meanwhile::Nothing,
        };
        let is_primary = self.config().primary == me;
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::NoWitness => (0..2).for_each(|w| self.crash_witness(w)),
            Meanwhile::NoPeer => {
                self.network.cut(1 - n, WITNESS);
                let time = ms(self.rng.below(3_000));
                self.run_for(time);
            }
        }
        let has = self.set_back(n, &image);
        let floor = self.floor();
        if meanwhile == Meanwhile::NoPeer && floor.is_none_or(|floor| floor <= has) {
            // Nobody is left who knows better: only a loss of one thing is survived.
            self.open_links();
            meanwhile = Meanwhile::Nothing;
        }
        let other = self.machines[1 - n].process.as_ref();
        let peer_knows = !is_primary && other.is_some_and(|process| process.applied() > has);
        let time = self.rng.choose(&[ms(20), ms(400), ms(4_000)]);
        self.run_for(time);
        if meanwhile == Meanwhile::NoPeer {
            return self.come_back_alone(n);
        }
        self.start(n);
        self.command(n, Command::Start);
        if meanwhile == Meanwhile::NoWitness {
            self.run_for(ms(2_000));
            (0..2).for_each(|w| self.start_witness(w));
        }
        if peer_knows && meanwhile == Meanwhile::NoWitness {
            let part = self.part.clone();
            self.run_until(ms(60_000), "a node set back is not in sync", |world| {
                !world.config().has(&part, &world.machines[n].me)
            });
            self.coverage
                .mark("I4: who was set back is taken out by the other");
        }
        self.has_all_again(n);
        if meanwhile == Meanwhile::NoWitness {
            // Who starts anew lets nobody go on alone for a while (`repl W4`).
            self.run_for(Options::default().probation);
        }
    }

    fn has_all_again(&mut self, n: usize) {
        self.run_until(ms(60_000), "a machine set back has all again", |world| {
            world.behind[n].is_none()
        });
        self.must_mirror("after a machine was set back: mirrored", ms(60_000));
    }

    /// The machine comes back alone: only the witness can tell it what it had. It must not do
    /// anything until the other one is back.
    fn come_back_alone(&mut self, n: usize) {
        if self.rng.percent(50) {
            self.kill(1 - n);
        } else {
            self.network.cut(0, 1);
        }
        self.start(n);
        self.command(n, Command::Start);
        let end = self.now + ms(8_000);
        self.run_until(ms(9_000), "time goes on", |world| {
            let process = world.machines[n].process.as_ref();
            assert!(
                process.is_some_and(|process| !process.node.is_active()),
                "I4: a machine that was set back serves"
            );
            world.now >= end
        });
        let state = self.process(n).node.unit().status().state.to_string();
        // An image from before it was in sync takes it for outdated, which is as safe.
        if state == "WAIT (reverted)" {
            self.coverage
                .mark("I4: who was set back is told by the witness");
        } else {
            assert_eq!(state, "WAIT (outdated)", "I4");
        }
        self.end_faults(&[1 - n]);
        self.has_all_again(n);
        // The silence is given to all leases, also to those granted at its end (`repl T3`): they end
        // later than the checks of any other fault allow.
        self.run_for(ms(13_000));
    }

    /// The last entry that the witness of the configuration in force was told to be final.
    fn floor(&self) -> Option<LogIndex> {
        let Arbiter::Witness { id, .. } = self.config().arbiter else {
            return None;
        };
        let w = self.witnesses.iter().position(|host| host.id == id)?;
        let (origin, floor) = self.told_final[w]?;
        (origin == self.config().origin).then_some(floor)
    }

    /// Its power is cut, and its disk is that of the image. Returns where its log ends.
    fn set_back(&mut self, n: usize, image: &MachineImage) -> LogIndex {
        let me = image.me.clone();
        self.cut_power(n);
        // Its streams ended with it: nothing that it said before comes after what it says next.
        self.queue.retain(|_, due| match due {
            Due::Frame(to, _) => *to == n,
            Due::Call(_, call) => call.caller != me,
            _ => true,
        });
        let seed = self.rng.draw();
        let other = &self.machines[1 - n];
        let process = other.process.as_ref();
        let mut held = other.on_disk.entries.clone();
        held.extend(
            process
                .into_iter()
                .flat_map(|p| p.log.possible_ends(&other.on_disk)),
        );
        let machine = &mut self.machines[n];
        machine.disk.restore(&image.log);
        machine.state = Arc::clone(&image.state);
        machine.incoming = image.incoming.as_ref().map(Arc::clone);
        let had = machine.on_disk.last().index;
        let (log, _) = Log::open(&machine.disk, seed).expect("a log that was whole");
        machine.on_disk = log.on_disk();
        let has = machine.on_disk.last().index;
        held.extend(machine.on_disk.entries.iter().copied());
        self.truth
            .forget_unless(|position| held.contains(&position));
        self.behind[n] = Some(had);
        self.was_set_back = true;
        self.coverage.mark("I4: a machine set back to an old image");
        if has < had {
            self.coverage
                .mark("I4: a machine lost what it had acknowledged");
        }
        self.tell_story(format!(
            "{me} is set back: its log ended {had}, it ends {has}"
        ));
        has
    }

    /// The witness goes back to a backup; the operator replaces it once it says so.
    pub(super) fn revert_witness(&mut self) {
        let Arbiter::Witness {
            id: WitnessId(id), ..
        } = self.config().arbiter
        else {
            return;
        };
        let w = usize::from(id != 1);
        let old = self.images.witnesses[w].clone();
        // What was final may be older in it: that alone nobody notices.
        let configs = |registers: &BTreeMap<RegisterKey, Register>| -> Vec<_> {
            let configs = registers.values().map(|register| register.config.id());
            configs.collect()
        };
        if old.is_empty() || configs(&old) == configs(&self.witnesses[w].durable) {
            return;
        }
        self.crash_witness(w);
        let time = ms(10 + self.rng.below(2_000));
        self.run_for(time);
        self.witnesses[w].durable = old;
        self.start_witness(w);
        self.coverage.mark("W3: a witness set back");
        self.tell_story(format!("witness {} is set back to a backup", w + 1));
        self.run_until(ms(20_000), "a witness set back says so", |world| {
            let mut registers = world.witnesses[w].durable.values();
            registers.any(|register| register.regressed)
        });
        // Nodes look at it every 3 s, and ignore it then.
        let time = self.rng.choose(&[ms(0), ms(5_000)]);
        self.run_for(time);
        for n in 0..2 {
            let (arbiter, old_lost) = (witness(2 - w as u128), true);
            self.command(n, Command::ChangeArbiter { arbiter, old_lost });
        }
        self.run_until(ms(30_000), "the witness is replaced", |world| {
            world.config().arbiter == witness(2 - w as u128)
        });
        self.must_mirror("after the witness was replaced: mirrored", ms(60_000));
    }
}
