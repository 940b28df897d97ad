//! What goes wrong by chance.

use std::io::ErrorKind;

use kine2_node::Event;
use kine2_replication::{
    Arbiter, Command, Event as ReplicaEvent, HardState, Incarnation, NodeRef, Policies, WitnessId,
};
use kine2_sim_kit::WitnessHost;
use kine2_wal::fake::Operation;

use crate::due::Due;
use crate::machine::Machine;
use crate::network::WITNESS;
use crate::plan::{ms, witness};
use crate::world::World;

impl World {
    pub(crate) fn on_fault(&mut self) {
        let every = u64::try_from(self.plan.fault_every.as_millis()).expect("short");
        let after = ms(10 + self.rng.below(2 * every));
        self.push(after, Due::Fault);
        if self.quiet {
            return;
        }
        let n = self.rng.pick(2);
        match self.rng.below(30) {
            0..3 => self.kill_for_a_while(n),
            3..5 => self.cut_power_for_a_while(n),
            5 => self.both_lose_power(),
            6 => self.cut_peers(),
            7..9 => self.cut_one_way(n),
            9 => self.cut_witness(n),
            10 => self.cut_witness_one_way(n),
            11 => {
                self.cut_peers();
                self.cut_witness(n);
            }
            12..14 => {
                let time = ms(self.rng.choose(&[50, 400, 1_000, 3_000, 12_000]));
                self.freeze(n, time);
            }
            14 => self.jump_clock(n),
            15 => self.slow_network(),
            16..18 => self.slow_disk(n),
            18 => {
                let w = self.rng.pick(2);
                self.crash_witness(w);
                let after = ms(20 + self.rng.below(3000));
                self.push(after, Due::StartWitness(w));
            }
            19..22 if self.plan.operator => self.operate(n),
            22..24 if self.plan.disks => self.break_disk(n),
            24 if self.plan.disks => self.wipe(n),
            25 if self.plan.rot => self.rot(n),
            _ => self.open_links(),
        }
    }

    fn down_time(&mut self) -> std::time::Duration {
        ms(20 + self.rng.below(3000))
    }

    fn kill_for_a_while(&mut self, n: usize) {
        self.kill(n);
        let after = self.down_time();
        self.push(after, Due::Start(n));
    }

    fn cut_power_for_a_while(&mut self, n: usize) {
        self.cut_power(n);
        let after = self.down_time();
        self.push(after, Due::Start(n));
    }

    fn both_lose_power(&mut self) {
        self.coverage.mark("node: both without power");
        for n in 0..2 {
            self.cut_power_for_a_while(n);
        }
    }

    fn cut_peers(&mut self) {
        self.coverage.mark("link: cut");
        self.network.cut(0, 1);
        self.tell_story("the nodes do not hear each other".to_owned());
    }

    fn cut_one_way(&mut self, n: usize) {
        self.coverage.mark("link: cut one way");
        self.network.cut_one_way(n, 1 - n);
        let line = format!(
            "{} is not heard by the other node",
            self.machines[n].me.name
        );
        self.tell_story(line);
    }

    /// Cuts a node from the witnesses; they notice it by their own silence timer.
    pub fn cut_witness(&mut self, n: usize) {
        self.coverage.mark("link to the witness: cut");
        self.network.cut(n, WITNESS);
        let life = self.machines[n].life;
        self.push(ms(9000), Due::SessionLost(n, life));
        let line = format!("{} is cut off from the witness", self.machines[n].me.name);
        self.tell_story(line);
    }

    fn cut_witness_one_way(&mut self, n: usize) {
        self.coverage.mark("link to the witness: cut one way");
        let (from, to) = self.rng.choose(&[(n, WITNESS), (WITNESS, n)]);
        self.network.cut_one_way(from, to);
        let life = self.machines[n].life;
        self.push(ms(9000), Due::SessionLost(n, life));
        self.tell_story(format!(
            "nothing gets from {from} to {to}; {WITNESS} is the witness"
        ));
    }

    /// A machine stands still.
    pub fn freeze(&mut self, n: usize, time: std::time::Duration) {
        self.coverage.mark("node: frozen");
        // What waits for an earlier, longer standstill must not come after what follows.
        let until = &mut self.machines[n].frozen_until;
        *until = (*until).max(self.now + time);
        let line = format!("{} is frozen for {time:?}", self.machines[n].me.name);
        self.tell_story(line);
    }

    /// A machine's clock goes forward, as after it was suspended.
    fn jump_clock(&mut self, n: usize) {
        self.coverage.mark("node: clock jumped");
        let by = ms(self.rng.choose(&[300, 1_000, 20_000, 3_600_000]));
        self.machines[n].skew += by;
        self.clients.leases.on_jump();
        let line = format!("the clock of {} jumps by {by:?}", self.machines[n].me.name);
        self.tell_story(line);
    }

    fn slow_network(&mut self) {
        self.coverage.mark("link: slow");
        self.network.slow = ms(self.rng.choose(&[20, 150, 600]));
        let after = self.down_time();
        self.push(after, Due::NetFast);
        let line = format!("frames take {:?} more", self.network.slow);
        self.tell_story(line);
    }

    /// A machine's disk does nothing for a while.
    fn slow_disk(&mut self, n: usize) {
        self.coverage.mark("disk: slow");
        self.machines[n].is_slow = true;
        let after = ms(100 + self.rng.below(6000));
        self.push(after, Due::Fast(n));
        let line = format!(
            "the disk of {} hangs for {after:?}",
            self.machines[n].me.name
        );
        self.tell_story(line);
    }

    fn operate(&mut self, n: usize) {
        match self.rng.below(8) {
            5 => {
                self.coverage.mark("operator: promote");
                self.command(n, Command::Promote);
            }
            6 => {
                self.coverage.mark("operator: stop by force");
                self.command(n, Command::Stop { force: true });
            }
            7 => self.change_policies(n),
            0..2 => {
                self.coverage.mark("operator: swap");
                let partial = self.rng.percent(50);
                self.command(n, Command::Swap { partial });
            }
            2 => {
                self.coverage.mark("operator: stop");
                self.command(n, Command::Stop { force: false });
            }
            3 => {
                self.coverage.mark("operator: start");
                for n in 0..2 {
                    self.command(n, Command::Start);
                }
            }
            _ => self.change_arbiter(n),
        }
    }

    fn change_policies(&mut self, n: usize) {
        self.coverage.mark("operator: other policies");
        let names = self
            .machines
            .each_ref()
            .map(|machine| machine.me.name.clone());
        let policies = Policies {
            swap_back: self.rng.percent(50),
            boot_alone: self.rng.percent(80),
            preferred: self
                .rng
                .choose(&[None, Some(names[0].clone()), Some(names[1].clone())]),
            ..Policies::default()
        };
        self.command(n, Command::SetPolicies(policies));
    }

    fn change_arbiter(&mut self, n: usize) {
        let Some(process) = &self.machines[n].process else {
            return;
        };
        let id = match process.node.unit().config().arbiter {
            Arbiter::Witness {
                id: WitnessId(1), ..
            } => 2,
            _ => 1,
        };
        self.coverage.mark("operator: change of arbiter");
        let old_lost = self.rng.percent(50);
        let arbiter = witness(id);
        self.command(n, Command::ChangeArbiter { arbiter, old_lost });
    }

    /// The operator says something to a node.
    pub fn command(&mut self, n: usize, command: Command) {
        let machine = &self.machines[n];
        if machine.frozen_until > self.now || machine.process.is_none() {
            return;
        }
        let line = format!("operator at {}: {command:?}", machine.me.name);
        self.tell_story(line);
        let command = ReplicaEvent::Command(command);
        self.turn(n, Some(Event::Replica(command)));
    }

    /// The next write or flush fails, or the disk is full; it works again after a restart.
    fn break_disk(&mut self, n: usize) {
        let disk = &self.machines[n].disk;
        if self.rng.percent(30) {
            self.coverage.mark("disk: full");
            self.clients.alarms.nodes_raise = true;
            disk.limit_bytes(Some(0));
        } else {
            self.coverage.mark("disk: a flush failed");
            let operation = self.rng.choose(&[Operation::Write, Operation::Sync]);
            disk.fail_nth(operation, 1 + self.rng.below(4), ErrorKind::Other);
        }
        let line = format!("the disk of {} breaks", self.machines[n].me.name);
        self.tell_story(line);
        let after = ms(500 + self.rng.below(3000));
        self.push(after, Due::Mend(n));
    }

    pub(crate) fn on_mend(&mut self, n: usize) {
        let disk = &self.machines[n].disk;
        disk.limit_bytes(None);
        // A failure that was planned and did not come never does.
        for operation in [Operation::Write, Operation::Sync] {
            disk.fail_nth(operation, u64::MAX, ErrorKind::Other);
        }
        if self.machines[n].has_failed() {
            // What the failed flush was to write may be lost: only a power cut tells.
            if self.rng.percent(50) {
                self.cut_power(n);
            } else {
                self.kill(n);
            }
            self.start(n);
        }
    }

    /// A machine goes down to lose all it has, and to join again.
    fn wipe(&mut self, n: usize) {
        self.kill(n);
        // What it asked of the witness before is decided by then.
        let after = ms(2500) + self.down_time();
        self.push(after, Due::Wiped(n));
    }

    /// The machine is wiped where that loses nothing, and started in any case.
    pub(crate) fn on_wiped(&mut self, n: usize) {
        if self.is_spare(n) {
            self.replace(n);
        }
        self.start(n);
    }

    /// A machine is down and nothing is lost with what it has: the other one has it, and no change
    /// is under way by which this one may become the only one.
    pub(crate) fn is_spare(&self, n: usize) -> bool {
        let config = self.config();
        let lone = !matches!(config.arbiter, Arbiter::Witness { .. });
        let elsewhere = config.has(&self.part, &self.machines[1 - n].me);
        let calls = self.queue.values().any(|due| matches!(due, Due::Call(..)));
        let stores = self.witnesses.iter().any(WitnessHost::is_writing);
        let is_down = self.machines[n].process.is_none();
        // X4: what the other one waits for from this node would never come.
        let other = self.machines[1 - n].on_disk.hard();
        let is_awaited = other.prop.is_some();
        is_down
            && elsewhere
            && !is_awaited
            && self.behind[1 - n].is_none()
            && !lone
            && !calls
            && !stores
    }

    /// A machine that is down has lost all it had, and joins the unit as it stands.
    pub fn replace(&mut self, n: usize) {
        self.coverage.mark("disk: wiped");
        let config = self.config().clone();
        self.end_sessions(n);
        self.wipes += 1;
        let life = 1000 * self.wipes;
        let old = &self.machines[n];
        let me = NodeRef::new(old.me.name.as_str(), life + n as u128);
        let hard = HardState::adopting(config);
        let mut machine = Machine::new(me, Incarnation(life + 10), hard);
        machine.skew = old.skew;
        machine.life = old.life;
        let line = format!("{} has lost all it had, and joins again", old.me.name);
        self.machines[n] = machine;
        self.behind[n] = None;
        self.tell_story(line);
    }

    /// All links are open again.
    pub fn open_links(&mut self) {
        self.network.heal();
        for n in 0..2 {
            let after = self.delay();
            self.push(after, Due::SessionWanted(n));
        }
        self.tell_story("all links are open".to_owned());
    }
}
