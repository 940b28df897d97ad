//! Going alone without a witness, by what a gateway answers (policy `ping`, `repl section 11`).
//!
//! A node that lost its peer asks the gateway whether it is itself cut off. The answer says nothing
//! of the peer, so both nodes may go alone: the policy is unsafe, and built so that the loss is on
//! one side only and kept there. Going alone is a forced promotion: a generation and an origin of
//! its own. The generation of who was the primary is higher, so it wins when the two meet, and what
//! the other one did goes to quarantine (`repl section 12`).
//!
//! Lost with a restart: all of it. A node that started anew does not go alone before it heard its
//! peer: the peer may have done so meanwhile.

use std::time::Duration;

use kine2_mutation::{Mutation, mutated};

use crate::config::Config;
use crate::force::begin;
use crate::forms::{Form, Reason, go_alone};
use crate::ids::NodeRef;
use crate::output::Act;
use crate::policy::{Arbiter, LonePolicy};
use crate::unit::Unit;

/// What is known of the gateway while the peer is suspected to be lost.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    /// Number of the last question; over all suspicions.
    number: u64,
    /// Since when it is asked.
    since: Option<Duration>,
    /// When it was asked last.
    asked: Option<Duration>,
    /// The last question has no answer yet.
    waits: bool,
    /// When the newest question was asked that was answered in time.
    answered: Option<Duration>,
    /// When a question was given up last.
    silent: Option<Duration>,
}

impl Gateway {
    /// The peer is not suspected any more: a later suspicion begins anew.
    pub(crate) fn forget(&mut self) {
        *self = Self {
            number: self.number,
            ..Self::default()
        };
    }

    /// It is asked for so short a time that its answer may come any moment.
    pub(crate) fn may_answer(&self, now: Duration, patience: Duration) -> bool {
        self.since.is_some_and(|since| now < since + patience)
    }
}

impl LonePolicy {
    /// A node goes on alone because a gateway answers, whatever its peer does.
    #[must_use]
    pub fn is_unsafe(&self) -> bool {
        matches!(self, Self::Ping(_))
    }
}

impl Arbiter {
    /// The register is nowhere, and each node may go alone.
    #[must_use]
    pub fn is_ping(&self) -> bool {
        matches!(self, Self::None(policy) if policy.is_unsafe())
    }
}

/// The record of `node` that goes on without its peer from `config`, which it is in sync in.
pub(crate) fn alone(config: &Config, node: &NodeRef, reason: Reason, uid: u64) -> Config {
    let raise = raise(config, node);
    let generation = config.epoch.generation() + raise;
    let mut new = begin(config, generation, config.arbiter.clone(), uid);
    new.reason = reason;
    go_alone(&mut new, node);
    new
}

/// By how much a node raises the generation: the primary by more than the other node. The order of
/// their names keeps two apart also when a handover that one has not heard of made both of them
/// the other node.
fn raise(config: &Config, node: &NodeRef) -> u32 {
    let is_first = config.members.first() == Some(node);
    let rank = if is_first { 1 } else { 2 };
    rank + if config.primary == *node { 2 } else { 0 }
}

impl Unit {
    /// An answer to [`Act::Ping`], or that there was none.
    pub(crate) fn on_pinged(&mut self, number: u64, answered: bool) {
        let late = self.is_late(number);
        if late && mutated(Mutation::PingLateAnswer) && answered {
            self.gateway.answered = Some(self.now);
            self.gateway.silent = None;
        }
        if late {
            return;
        }
        let gateway = &mut self.gateway;
        gateway.waits = false;
        match answered {
            true => gateway.answered = gateway.asked,
            false => gateway.silent = Some(self.now),
        }
    }

    /// What was asked before the last question, or is answered after its time, says nothing of now.
    fn is_late(&self, number: u64) -> bool {
        let gateway = &self.gateway;
        let in_time = |asked| self.now <= asked + self.timers.ping_timeout;
        !gateway.waits || number != gateway.number || !gateway.asked.is_some_and(in_time)
    }

    /// The policy is `ping`, and this form would have a node go alone.
    pub(crate) fn asks_gateway(&self, form: &Form) -> bool {
        self.hard.config.arbiter.is_ping() && matches!(form, Form::Remove | Form::Takeover)
    }

    /// Goes alone once the gateway answers; until then asks it again and again. A peer that leaves
    /// does not go on, so nobody has to be asked.
    pub(crate) fn go_alone_if_answered(&mut self) {
        let leaves = self.is_primary() && self.peer_leaves();
        if !leaves {
            self.ask_gateway();
            if !self.may_go_alone() {
                return;
            }
        }
        let reason = if leaves { Reason::Remove } else { Reason::Ping };
        let uid = self.seed.next();
        let new = alone(&self.hard.config, &self.me, reason, uid);
        self.adopt(new);
    }

    /// `promote`, where the gateway does not say that this node may go on.
    pub(crate) fn go_alone_as_told(&mut self) {
        let uid = self.seed.next();
        let new = alone(&self.hard.config, &self.me, Reason::Force, uid);
        self.adopt(new);
    }

    fn ask_gateway(&mut self) {
        let (now, timers) = (self.now, self.timers);
        let gateway = &mut self.gateway;
        gateway.since.get_or_insert(now);
        let given_up = |asked| now > asked + timers.ping_timeout;
        if gateway.waits && gateway.asked.is_some_and(given_up) {
            gateway.waits = false;
            gateway.silent = Some(now);
        }
        let due = gateway.asked.is_none_or(|at| now >= at + timers.ping_pause);
        if due && !gateway.waits {
            gateway.number += 1;
            gateway.asked = Some(now);
            gateway.waits = true;
            let number = gateway.number;
            self.push(Act::Ping { number });
        }
    }

    /// The gateway answers now, and did so without a gap for as long as the link to the peer may
    /// take to come back with it: a switch that starts anew brings both.
    fn may_go_alone(&self) -> bool {
        if mutated(Mutation::PingWithoutAnswer) {
            return true;
        }
        let (gateway, timers) = (&self.gateway, &self.timers);
        let (now, patience) = (self.now, timers.suspect_primary + timers.ping_head_start);
        let fresh = |at| now <= at + timers.ping_timeout;
        let settled = gateway.silent.is_none_or(|at| now > at + patience);
        // The primary comes first; what is killed may be back soon.
        let silence = now.saturating_sub(self.peer.heard_active);
        let waited = self.is_primary() || silence > patience;
        self.peer.heard && waited && settled && gateway.answered.is_some_and(fresh)
    }

    /// `ping-auto-discard`: what diverged because both went alone is put away and filled anew
    /// without the operator.
    pub(crate) fn drive_discards(&mut self) {
        let config = &self.hard.config;
        if !(config.arbiter.is_ping() && config.policies.ping_auto_discard) {
            return;
        }
        for name in self.part_names() {
            if self.parts[&name].diverged && self.hard.suspect.contains(&name) {
                self.on_rejoin(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, Incarnation, PartName, RegisterKey, Replica};
    use crate::policy::Policies;

    fn mirror() -> (Config, NodeRef, NodeRef) {
        let (a, b) = (NodeRef::new("a", 1), NodeRef::new("b", 2));
        let key = RegisterKey {
            cluster: ClusterId(7),
            unit: "main".into(),
        };
        let lead = PartName::from("store");
        let config = Config::first(
            key,
            1,
            a.clone(),
            lead.clone(),
            [(lead.clone(), Incarnation(11))],
            Arbiter::None(LonePolicy::Ping(vec![[192, 0, 2, 1].into()])),
            Policies::default(),
        );
        let replica = Replica {
            node: b.clone(),
            storage: Incarnation(12),
        };
        let add = Form::Add {
            part: lead,
            replica,
        };
        (add.make(&config.unwrap(), &a, 2).unwrap(), a, b)
    }

    #[test]
    fn the_primary_of_the_last_common_configuration_wins() {
        let (common, a, b) = mirror();
        let swapped = Form::Swap.make(&common, &a, 3).unwrap();
        for common in [common, swapped] {
            let primary = common.primary.clone();
            let other = if primary == a { &b } else { &a };
            let wins = alone(&common, &primary, Reason::Ping, 4);
            let loses = alone(&common, other, Reason::Ping, 5);
            assert!(wins.epoch > loses.epoch);
            assert!(!wins.id().is_twin_of(&loses.id()));
            assert_eq!(wins.check_shape(), Ok(()));
            assert_eq!(wins.primary, primary);
        }
    }

    #[test]
    fn a_handover_that_one_has_not_heard_of_makes_no_twins() {
        let (common, a, b) = mirror();
        let swapped = Form::Swap.make(&common, &a, 3).unwrap();
        let (by_a, by_b) = (
            alone(&swapped, &a, Reason::Ping, 4),
            alone(&common, &b, Reason::Ping, 5),
        );
        assert!(!by_a.id().is_twin_of(&by_b.id()));
    }
}
