//! What goes back in time: a machine to an old image of its disk, the witness to an old backup.

use std::sync::Arc;

use kine2_replication::{Arbiter, Command, LogIndex, WitnessId};

use crate::due::Due;
use crate::log::Log;
use crate::plan::{ms, witness};
use crate::world::World;

impl World {
    /// A machine loses its power and comes back with an old image of its disk. What it lacks it
    /// gets from the other node, if nothing else fails until then: only that is promised, as
    /// neither the witness nor the other node keep floors of what it had (`repl I4`).
    pub(super) fn revert_machine(&mut self) {
        let n = self.rng.pick(2);
        let me = self.machines[n].me.clone();
        let Some(image) = self.images.machines[n].take().filter(|i| i.me == me) else {
            return;
        };
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
        let had = machine.on_disk.last().index.0;
        let (log, _) = Log::open(&machine.disk, seed).expect("a log that was whole");
        machine.on_disk = log.on_disk();
        let has = machine.on_disk.last().index.0;
        held.extend(machine.on_disk.entries.iter().copied());
        self.truth
            .forget_unless(|position| held.contains(&position));
        self.behind[n] = Some(LogIndex(had));
        self.coverage.mark("I4: a machine set back to an old image");
        if has < had {
            self.coverage
                .mark("I4: a machine lost what it had acknowledged");
        }
        self.tell_story(format!(
            "{me} is set back: its log ended {had}, it ends {has}"
        ));
        let time = self.rng.choose(&[ms(20), ms(400), ms(4_000)]);
        self.run_for(time);
        self.start(n);
        self.command(n, Command::Start);
        self.run_until(ms(60_000), "a machine set back has all again", |world| {
            world.behind[n].is_none()
        });
        self.must_mirror("after a machine was set back: mirrored", ms(60_000));
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
        if old.is_empty() || old == self.witnesses[w].durable {
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
