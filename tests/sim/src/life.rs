//! Starts and ends of nodes in a simulation.

use kine2_mvcc::Backend;
use kine2_replication::{Link, Loaded, LoadedPart, LogIndex};
use kine2_wal::WalError;

use crate::due::{Due, Said};
use crate::log::Log;
use crate::plan::ms;
use crate::process::Process;
use crate::world::World;

impl World {
    /// Starts the node of a machine that has none running.
    ///
    /// # Panics
    /// When its log is not what was written.
    pub fn start(&mut self, n: usize) {
        if self.machines[n].process.is_some() {
            return;
        }
        let seed = self.rng.draw();
        let log = match self.open_log(n, seed) {
            Ok(log) => log,
            Err(error @ WalError::Io { .. }) => {
                // The disk is broken still: whoever started it tries again.
                self.coverage.mark("disk: broken at a start");
                let line = format!("{} does not start: {error}", self.machines[n].me.name);
                self.tell_story(line);
                return self.push(ms(300), Due::Start(n));
            }
            Err(error @ WalError::Damaged { .. }) if self.machines[n].is_rotten => {
                // Another incarnation, which gets all from the other node.
                self.coverage.mark("I2: a damaged log given up");
                let line = format!("{} does not start: {error}", self.machines[n].me.name);
                self.tell_story(line);
                self.replace(n);
                return self.start(n);
            }
            Err(error) => panic!("{}: a log that was whole: {error}", self.machines[n].me),
        };
        let part = self.part.clone();
        let machine = &mut self.machines[n];
        machine.life += 1;
        machine.is_slow = false;
        machine.is_rotten = false;
        machine.on_disk = log.on_disk();
        machine.settle_state();
        let held = machine.state.held().expect("a state in memory");
        let own = machine.on_disk.own.clone();
        let store = LoadedPart {
            storage: own.storage,
            data: own.data,
            history: machine.on_disk.history(),
            commit: LogIndex(held.applied.index),
        };
        let loaded = Loaded {
            me: machine.me.clone(),
            boot: own.boot,
            hard: machine.on_disk.hard().clone(),
            parts: [(part, store)].into(),
            seed,
        };
        let in_doubt = loaded.hard.pend_add.is_some();
        let proposed = loaded.hard.prop.is_some();
        let clock = machine.clock(self.now);
        let process = Process::new(&self.plan, loaded, log, &machine.state, clock);
        machine.process = Some(process);
        let name = machine.me.name.clone();
        self.tell_story(format!("{name} starts"));
        if in_doubt {
            self.coverage.mark("D4: restarted with an ADD in doubt");
        }
        if proposed {
            self.coverage.mark("X4: restarted with an arbiter proposed");
        }
        self.turn(n, None);
        if self.machines[1 - n].process.is_some() {
            for m in 0..2 {
                let after = self.delay();
                self.push(after, Due::Link(m, Link::Up));
            }
        }
        let after = self.delay();
        self.push(after, Due::SessionWanted(n));
    }

    /// Opens the log and counts the start in it, durably.
    fn open_log(&mut self, n: usize, seed: u64) -> Result<Log, WalError> {
        let (mut log, recovery) = Log::open(&self.machines[n].disk, seed)?;
        if recovery.torn_tail.is_some() {
            self.coverage.mark("disk: a torn tail");
        }
        let mut own = log.on_disk().own;
        own.boot += 1;
        log.keep(&own)?;
        Ok(log)
    }

    /// Ends the process. Its sockets close; what it gave to the kernel is kept.
    pub fn kill(&mut self, n: usize) {
        let Some(mut process) = self.machines[n].process.take() else {
            return;
        };
        self.coverage.mark("node: killed");
        let machine = &mut self.machines[n];
        if self.rng.percent(50) && !process.failed {
            // The write that was under way is done by the kernel; a failure of the disk is met
            // again by the next start.
            let all = process.log.under_way();
            let _ = process.log.flush(all, &mut machine.on_disk);
        }
        machine.frozen_until = self.now;
        let name = machine.me.name.clone();
        self.tell_story(format!("{name} is killed"));
        self.close_sockets(n);
        self.hang_up_on_clients(n);
        self.end_watches_of(n);
        let after = self.delay();
        self.push(after, Due::Link(1 - n, Link::Down));
        self.push(after + ms(5), Due::Link(1 - n, Link::Refused));
        let life = self.machines[n].life;
        self.push(after, Due::SessionLost(n, life));
        self.note_state(n);
    }

    /// What was on its way to the process, or waited in its sockets, is lost with them.
    fn close_sockets(&mut self, n: usize) {
        self.queue.retain(|_, due| due.machine() != Some(n));
    }

    /// Clients notice that their connections are closed.
    fn hang_up_on_clients(&mut self, n: usize) {
        for caller in self.clients.waiting_at(n) {
            let after = self.delay();
            self.push(after, Due::Said(caller, Said::Unknown));
        }
    }

    /// Cuts the power of a machine: what was not flushed is lost in part, and nobody is told.
    ///
    /// # Panics
    /// When something durable is lost.
    pub fn cut_power(&mut self, n: usize) {
        let seed = self.rng.draw();
        let reach = self.rng.below(8);
        let Some(mut process) = self.machines[n].process.take() else {
            return;
        };
        self.coverage.mark("node: power cut");
        let machine = &mut self.machines[n];
        let possible = process.log.possible_ends(&machine.on_disk);
        let all = process.log.under_way();
        let newest = process.log.own_under_way();
        if all > 0 && !process.failed {
            machine.disk.cut_power_after(reach);
            // It fails where the power is gone.
            let _ = process.log.flush(all, &mut machine.on_disk);
        }
        machine.disk.crash(seed);
        let falls_further = self.rng.percent(20) && machine.state.crash_further();
        machine.state.crash();
        machine.frozen_until = self.now;
        // Judged here, while it is known what may be there.
        let (log, recovery) = Log::open(&machine.disk, seed).expect("a log that is whole");
        assert!(
            possible.contains(&recovery.last),
            "{}: after the power cut the log ends {:?}; it must be one of {possible:?}",
            machine.me,
            recovery.last
        );
        machine.on_disk = log.on_disk();
        if newest.is_some_and(|newest| newest.hard != machine.on_disk.own.hard) {
            self.coverage
                .mark("C4: a configuration lost with the power");
        }
        let name = machine.me.name.clone();
        if falls_further {
            self.coverage
                .mark("disk: the state's newest checkpoint lost");
        }
        if possible.last() != Some(&recovery.last) {
            self.coverage.mark("disk: a write lost by a power cut");
        }
        if recovery.torn_tail.is_some() {
            self.coverage.mark("disk: a torn tail");
        }
        self.tell_story(format!("{name} loses its power"));
        self.close_sockets(n);
        self.end_watches_of(n);
        let life = self.machines[n].life;
        self.push(ms(9000), Due::SessionLost(n, life));
        self.note_state(n);
    }
}
