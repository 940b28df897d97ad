//! Adopting configurations and runs (`repl C3`, C4, A3).

use kine2_mutation::{Mutation, mutated};
use kine2_wal::LogIndex;

use crate::config::{Config, Standing};
use crate::hard_state::HardState;
use crate::ids::PartName;
use crate::output::{Act, Notice};
use crate::unit::{Phase, Unit};

impl Unit {
    /// C3: acts by `config` from now on if it is newer than the own one, whoever told it.
    pub(crate) fn adopt(&mut self, config: Config) {
        let newer = config.epoch > self.hard.config.epoch || mutated(Mutation::AdoptOlder);
        if config.key() != self.key || config.check_names().is_err() {
            return;
        }
        // Q2: a twin never gives way, be its epoch lower or higher.
        if config.id().is_twin_of(&self.hard.config.id()) {
            return self.on_twin(config.id());
        }
        if !newer {
            return;
        }
        let old = self.hard.config.clone();
        // A3: a primary that adopts its own next epoch goes on in the parts it is active in.
        let goes_on = config.epoch == old.epoch.next()
            && config.primary == self.me
            && old.primary == self.me
            && self.parts.values().any(|part| part.active)
            && !self.hard.twin
            && !self.failed;
        if !goes_on {
            self.deactivate();
        }
        let pend_add = self.hard.pend_add.take();
        self.note_drops(&old, &config, pend_add.map(|pending| pending.part).as_ref());
        self.moving = self.moving.take().filter(|moving| !moving.is_done(&config));
        let run = u32::from(goes_on);
        let stopped = self.hard.stopped;
        let suspect = self.suspect_under(&config);
        // Q2: only another forced promotion says which of two twins counts.
        let twin = self.hard.twin && config.origin == old.origin;
        let kept = |name: &PartName| config.origin == old.origin && config.has(name, &self.me);
        let reverted = self.hard.reverted.iter().filter(|name| kept(name));
        let reverted = reverted.cloned().collect();
        self.hard = HardState {
            run,
            stopped,
            twin,
            suspect,
            reverted,
            ..HardState::adopting(config)
        };
        for (name, part) in &mut self.parts {
            let config = &self.hard.config;
            // What the operator says this node has counts, and is not given up. And what another
            // promoted node has in common is found out anew.
            if config.has(name, &self.me) || config.origin != old.origin {
                part.diverged = false;
                part.common = None;
                part.putting_away = None;
            }
            if config.origin != old.origin {
                part.known = LogIndex(0);
            }
        }
        self.forget_epoch();
        self.peer.trust(self.now);
        self.register.on_adopted();
        self.swap_back_since = None;
        if goes_on {
            self.keep_serving();
        }
        if self.failed {
            return;
        }
        // C4: durable before any effect; `keep_serving` only took away.
        self.write_hard();
        let id = self.hard.config.id();
        self.push(Act::Notice(Notice::Adopted(id)));
        // Who learns a configuration first tells the other (C5).
        if !mutated(Mutation::NoGossip) {
            self.send_config();
        }
        self.check_floors();
        self.report();
        self.stop_if_out();
        if self.is_primary() && self.phase == Phase::AloneUnheard {
            self.phase = Phase::Running;
        }
        if self.phase == Phase::Running && self.is_primary() {
            if goes_on {
                self.activate();
            } else {
                self.begin_run();
            }
        }
    }

    /// L3: the other node takes part in this run of the primary, durably before it says anything
    /// in it.
    pub(crate) fn accept_run(&mut self, run: u32) {
        self.hard.run = run;
        self.write_hard();
        self.forget_epoch();
    }

    /// A1, A2, A5: raises the run durably, then activates what can be.
    pub(crate) fn begin_run(&mut self) {
        let run = self.hard.run.checked_add(1);
        let same = mutated(Mutation::NoRun) || mutated(Mutation::NoRunNoFetch);
        self.hard.run = match self.hard.run {
            0 => 1,
            run if same => run,
            _ => run.expect("2^32 starts in one epoch are never made"),
        };
        self.write_hard();
        self.forget_epoch();
        self.peer.trust(self.now);
        self.activate();
    }

    /// Nothing the peer did in another epoch or run counts any more.
    fn forget_epoch(&mut self) {
        self.peer.forget();
        self.peer_opening = 0;
        self.hello_sent = None;
        for part in self.parts.values_mut() {
            part.fetching = None;
            part.forget_peer();
        }
    }

    /// A3: active parts stay so, with commit and barrier; match is unknown. Parts the new
    /// configuration does not name are not served.
    fn keep_serving(&mut self) {
        let names: Vec<_> = self.parts.keys().cloned().collect();
        for name in names {
            if self.parts[&name].active && !self.holds(&name) {
                self.deactivate_part(&name);
            }
        }
        // A handover under way is overtaken by this change.
        self.swap = None;
        self.stopping = false;
        self.reads.confirm_again(self.frame_number);
    }

    /// A peer that was taken out of a part, or whose ADD was given up, comes back after a pause.
    fn note_drops(&mut self, old: &Config, new: &Config, pend_add: Option<&PartName>) {
        if new.primary != self.me {
            return;
        }
        let (now, timers) = (self.now, self.timers);
        for (name, part) in &mut self.parts {
            let was_mirror = old.standing(name) == Some(Standing::Mirror);
            let given_up = pend_add == Some(name);
            if new.standing(name) == Some(Standing::Alone) && (was_mirror || given_up) {
                part.backoff.on_drop(now, &timers);
            }
        }
    }
}
