//! The gateway that a node asks under policy `ping`: it stands where the witness would.

use std::time::Duration;

use kine2_replication::{Arbiter, Config, LonePolicy, Reason, Timers};

use super::{Due, Sim, ms};

/// The arbiter of clusters that ask a gateway.
pub fn gateway() -> Arbiter {
    Arbiter::None(LonePolicy::Ping(vec![[192, 0, 2, 1].into()]))
}

impl Sim {
    pub(super) fn pings(&self) -> bool {
        self.plan.arbiter == gateway()
    }

    /// A question goes to the gateway; its answer may come late, or never.
    pub(super) fn ping(&mut self, n: usize, number: u64) {
        let boot = self.nodes[n].boot;
        let reached = !self.is_cut(n, 2) && !self.is_cut(2, n) && !self.lost();
        if !reached {
            if self.rng.percent(50) {
                self.push(ms(400), Due::Pinged(n, boot, number, false));
            }
            // The answer to an earlier question comes only now.
            if number > 1 && !self.plan.calm && self.rng.percent(20) {
                let after = ms(1 + self.rng.below(600));
                self.push(after, Due::Pinged(n, boot, number - 1, true));
            }
            return;
        }
        self.gateway_saw[n] = self.now;
        let late = !self.healing && !self.plan.calm && self.rng.percent(10);
        let after = match late {
            true => ms(500 + self.rng.below(2500)),
            false => self.delay() * 2,
        };
        self.push(after, Due::Pinged(n, boot, number, true));
    }

    /// Who goes alone by itself has just been answered.
    pub(super) fn check_gone_alone(&self, n: usize, old: Option<&Config>, new: &Config) {
        let before = old.is_some_and(|old| old.id() == new.id());
        let node = &self.nodes[n];
        if before || new.reason != Reason::Ping || new.primary != node.me {
            return;
        }
        let age: Duration = self.now - self.gateway_saw[n];
        assert!(
            age <= Timers::default().ping_timeout,
            "{} went alone {age:?} after the gateway saw it last",
            node.me
        );
    }

    /// One node goes on without the other while the gateway answers.
    pub(super) fn lose_one(&mut self) {
        // A disk that was slow may have taken the peer out once more.
        self.run_for(ms(2000));
        self.run_until(20_000, "REC1: it stays so", Self::all_mirrored_mut);
        let n = self.rng.pick(2);
        self.crash(n);
        for part in self.parts.clone() {
            self.run_until(20_000, "ping: one node goes on", |sim| sim.is_served(&part));
            self.must_write(&part);
        }
    }
}
