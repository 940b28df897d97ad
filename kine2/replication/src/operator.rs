//! Handovers, stopping, and the operator's overrides (`repl K7`, S5, sections 10 and 12).

use std::time::Duration;

use kine2_mutation::{Mutation, mutated};

use crate::config::Standing;
use crate::event::Command;
use crate::forms::Form;
use crate::hard_state::DataState;
use crate::ids::PartName;
use crate::message::Body;
use crate::output::{Act, Notice};
use crate::policy::{Arbiter, LonePolicy};
use crate::unit::{Phase, Unit};

/// A handover that waits until the logs are equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swap {
    /// When it is called off.
    deadline: Duration,
}

impl Unit {
    pub(crate) fn on_command(&mut self, command: Command) {
        match command {
            Command::Swap { partial } => self.on_swap(partial),
            Command::Stop { force } => self.on_stop(force),
            Command::Start => self.on_start(),
            Command::Promote => self.on_promote(),
            Command::PromoteForce { without_witness } => self.on_promote_force(without_witness),
            Command::ChangeArbiter { arbiter, old_lost } => {
                self.on_change_arbiter(arbiter, old_lost);
            }
            Command::PromoteForcePart {
                part,
                without_witness,
            } => self.on_promote_force_part(&part, without_witness),
            Command::Rejoin(part) => self.on_rejoin(&part),
            Command::SetPolicies(policies) => self.ask_form(Form::Policy(policies)),
            Command::NewPart { part, storage } => self.ask_form(Form::NewPart { part, storage }),
            Command::DeletePart(part) => self.ask_form(Form::DeletePart(part)),
        }
    }

    /// Swap, steps 1 and 2: the lead is mirrored and the peer in sync for every part that is
    /// served here, unless it shall be partial; then new writes are held back.
    fn on_swap(&mut self, partial: bool) {
        let config = &self.hard.config;
        let lead = self.parts.get(&config.lead);
        let possible = self.acts_as_primary()
            && lead.is_some_and(|part| part.active)
            && config.standing(&config.lead) == Some(Standing::Mirror)
            && (partial || self.peer_has_all_served())
            && self.hears_arbiter()
            && !self.suspects_peer();
        if !possible {
            return self.push(Act::Notice(Notice::SwapOff));
        }
        self.swap = Some(Swap {
            deadline: self.now + self.timers.swap_drain,
        });
    }

    /// The peer is in sync for every part that this primary serves.
    pub(crate) fn peer_has_all_served(&self) -> bool {
        let config = &self.hard.config;
        let Some(peer) = self.config_peer() else {
            return false;
        };
        let mut served = config.in_sync.keys().filter(|name| self.holds(name));
        served.all(|name| config.has(name, peer))
    }

    /// All that was ordered is committed.
    pub(crate) fn is_drained(&self) -> bool {
        let drained = |name: &PartName| {
            let part = &self.parts[name];
            !part.active || part.commit == part.log.end()
        };
        self.part_names().iter().all(drained)
    }

    /// Calls a handover off that takes too long, and begins the one that gives a part back (K7).
    pub(crate) fn drive_swap(&mut self) {
        if self.swap.is_some_and(|swap| self.now >= swap.deadline) {
            self.swap = None;
            self.stopping = false;
            self.swap_back_since = Some(self.now);
            self.push(Act::Notice(Notice::SwapOff));
        }
        let delay = if self.can_give_back() {
            self.timers.swap_back_delay
        } else if self.prefers_peer() {
            self.timers.failback_delay
        } else {
            self.swap_back_since = None;
            return;
        };
        let since = *self.swap_back_since.get_or_insert(self.now);
        if self.swap.is_none() && self.now >= since + delay {
            self.swap_back_since = Some(self.now);
            self.on_swap(false);
        }
    }

    /// K7: the lead is mirrored, some part is away at the peer as it is now, and the peer is in sync
    /// for every part served here. What only a node had that is gone is given back to nobody.
    fn can_give_back(&self) -> bool {
        let config = &self.hard.config;
        let mut parts = config.in_sync.keys();
        config.policies.swap_back
            && !mutated(Mutation::NoSwapBack)
            && self.acts_as_primary()
            && config.standing(&config.lead) == Some(Standing::Mirror)
            && parts.any(|name| {
                let away = config.standing(name) == Some(Standing::Away);
                away && self
                    .config_peer()
                    .is_some_and(|peer| config.has(name, peer))
            })
            && self.peer_has_all_served()
            && self.parts.get(&config.lead).is_some_and(|part| part.active)
    }

    /// The other node is the preferred one, and has all that is served here.
    fn prefers_peer(&self) -> bool {
        let config = &self.hard.config;
        let preferred = config.policies.preferred.as_ref();
        let is_peer = self
            .config_peer()
            .is_some_and(|peer| Some(&peer.name) == preferred);
        is_peer
            && !self.timers.failback_delay.is_zero()
            && self.acts_as_primary()
            && config.standing(&config.lead) == Some(Standing::Mirror)
            && self.peer_has_all_served()
            && self.parts.get(&config.lead).is_some_and(|part| part.active)
    }

    /// S5: the other node goes on first, unless forced.
    fn on_stop(&mut self, forced: bool) {
        if forced {
            return self.stop_now();
        }
        if self.is_primary() {
            self.on_swap(true);
            if self.swap.is_none() {
                return;
            }
        }
        self.stopping = true;
        self.stop_if_out();
    }

    /// Stops once nothing depends on this node.
    pub(crate) fn stop_if_out(&mut self) {
        if self.stopping && !self.hard.config.in_lead(&self.me) {
            self.stop_now();
        } else if self.stopping && !self.is_primary() {
            self.send(Body::Leave);
        }
    }

    fn stop_now(&mut self) {
        self.deactivate();
        self.stopping = false;
        // A stopped node says nothing, and must not wake up for it.
        self.commit_due = None;
        self.hard.stopped = true;
        self.write_hard();
    }

    fn on_start(&mut self) {
        self.stopping = false;
        if self.hard.stopped {
            self.hard.stopped = false;
            self.write_hard();
            self.started = self.now;
            self.register.heard = false;
            self.peer.heard = false;
            self.peer.heard_serving = false;
            self.peer.trust(self.now);
            self.phase = Phase::Probing { since: self.now };
        }
    }

    /// `promote`: this node is the primary by the newest configuration it knows, and its lead is
    /// whole.
    fn on_promote(&mut self) {
        let lead = self.hard.config.lead.clone();
        if !self.is_primary() || !self.holds(&lead) || self.hard.prop.is_some() {
            return;
        }
        if matches!(self.phase, Phase::AloneUnheard | Phase::Probing { .. }) {
            self.phase = Phase::Running;
            self.begin_if_primary();
        }
        let lost = self.is_joint(&lead) && self.suspects_peer();
        if lost && self.hard.config.arbiter.is_ping() {
            return self.go_alone_as_told();
        }
        if lost && self.hard.config.arbiter == Arbiter::None(LonePolicy::Stop) {
            let uid = self.seed.next();
            if let Ok(new) = Form::Remove.make(&self.hard.config, &self.me, uid) {
                self.adopt(new);
            }
        }
    }

    /// I1: a failed write or flush is final. The lead's failure ends this node's role in the unit;
    /// another part's only its own.
    pub(crate) fn on_disk_failed(&mut self, name: &PartName) {
        if !self.parts.contains_key(name) {
            return;
        }
        self.part(name).data = DataState::Failed;
        self.push(Act::Notice(Notice::PartFailed(name.clone())));
        if *name == self.hard.config.lead {
            self.failed = true;
            self.deactivate();
            if !self.is_primary() {
                self.send(Body::Leave);
            }
            return;
        }
        self.deactivate_part(name);
        if !self.is_primary() {
            self.send(Body::PartFailed(name.clone()));
        }
    }
}
