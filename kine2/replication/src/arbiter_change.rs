//! Changing the arbiter (`repl section 11`, X1 to X4).

use std::time::Duration;

use crate::config::{Config, Standing};
use crate::event::Link;
use crate::forms::Form;
use crate::ids::{NodeRef, WitnessId};
use crate::message::Body;
use crate::policy::Arbiter;
use crate::unit::Unit;
use crate::witness::{Ask, Refusal, Tell, WitnessWord};

/// A change that the operator asked for.
#[derive(Clone, Debug)]
pub(crate) struct Moving {
    arbiter: Arbiter,
    /// The old arbiter cannot be asked.
    old_lost: bool,
    /// Higher with each attempt, so that what a failed one left is never valid.
    generation: u32,
    /// The configuration to come, once it is made.
    made: Option<Config>,
    /// The new witness holds it.
    stored: bool,
    asked: Option<Duration>,
    /// Number of the last call before `made` was made: answers up to it are of other attempts.
    made_at: u64,
}

impl Moving {
    /// `config` is the change.
    pub(crate) fn is_done(&self, config: &Config) -> bool {
        self.made.as_ref() == Some(config)
    }
}

impl Unit {
    pub(crate) fn on_change_arbiter(&mut self, arbiter: Arbiter, old_lost: bool) {
        let generation = self.hard.config.epoch.generation() + 1;
        self.moving = Some(Moving {
            arbiter,
            old_lost: old_lost || self.register.regressed,
            generation,
            made: None,
            stored: false,
            asked: None,
            made_at: 0,
        });
    }

    /// Makes the configuration, has the new witness hold it, then brings it into force.
    pub(crate) fn drive_arbiter_change(&mut self) {
        let lead = self.hard.config.lead.clone();
        let active = self.parts.get(&lead).is_some_and(|part| part.active);
        // X1: the lead is active.
        if !self.acts_as_primary() || !active || self.hard.prop.is_some() {
            return;
        }
        let Some(mut moving) = self.moving.take() else {
            return;
        };
        self.make_move(&mut moving);
        let Some(new) = moving.made.clone() else {
            return;
        };
        if !moving.stored {
            if let Arbiter::Witness { id, .. } = moving.arbiter {
                self.init(&mut moving, id, &new);
            } else {
                moving.stored = true;
            }
        }
        let ready = moving.stored;
        let by_cas =
            !moving.old_lost && matches!(self.hard.config.arbiter, Arbiter::Witness { .. });
        if !ready || by_cas {
            // MOVE is asked for as every form, see `moving_form`.
            self.moving = Some(moving);
            return;
        }
        let mirror = self.hard.config.standing(&lead) == Some(Standing::Mirror);
        if mirror || self.hard.pend_add.is_some() {
            // X1: durably, then Propose. With an ADD in doubt the node that it names may have rights
            // to the unit by what the old witness says: once it accepts it does not hear that any
            // more.
            self.hard.prop = Some(new);
            self.write_hard();
            self.propose_again();
        } else {
            // The other node has no rights to the unit.
            self.adopt(new);
        }
    }

    fn make_move(&mut self, moving: &mut Moving) {
        let base = self.hard.config.epoch.counter() + 1;
        let fits = |made: &Config| made.epoch.counter() == base;
        if moving.made.as_ref().is_some_and(fits) {
            return;
        }
        let form = Form::Move {
            arbiter: moving.arbiter.clone(),
            generation: moving.generation,
        };
        let uid = self.seed.next();
        moving.made = form.make(&self.hard.config, &self.me, uid).ok();
        moving.stored = false;
        moving.made_at = self.register.number();
        moving.generation += 1;
    }

    fn init(&mut self, moving: &mut Moving, witness: WitnessId, new: &Config) {
        let pause = self.timers.cas_timeout;
        if moving.asked.is_none_or(|at| self.now >= at + pause) {
            moving.asked = Some(self.now);
            self.call(witness, Ask::Init(Box::new(new.clone())));
        }
    }

    /// What the new witness says to Init.
    pub(crate) fn on_new_witness(&mut self, word: &WitnessWord) {
        let Some(moving) = &mut self.moving else {
            return;
        };
        if !matches!(moving.arbiter, Arbiter::Witness { id, .. } if id == word.witness) {
            return;
        }
        match &word.tell {
            Tell::Register(config) if moving.made.as_ref() == Some(config.as_ref()) => {
                moving.stored = true;
            }
            Tell::Refused(Refusal::Generation)
                if !moving.stored && word.answers.is_some_and(|n| n > moving.made_at) =>
            {
                moving.made = None;
            }
            _ => {}
        }
    }

    /// With the old witness reachable the change is a form like others; it closes that register.
    pub(crate) fn moving_form(&self) -> Option<Form> {
        let moving = self.moving.as_ref()?;
        let made = moving.made.as_ref()?;
        let usable = moving.stored
            && !moving.old_lost
            && self.is_primary()
            && self.hard.pend_add.is_none()
            && made.epoch.counter() == self.hard.config.epoch.counter() + 1;
        usable.then(|| Form::Move {
            arbiter: moving.arbiter.clone(),
            generation: made.epoch.generation(),
        })
    }

    /// The uid of a form's record: that of the one the new witness holds, if it is MOVE.
    pub(crate) fn uid_for(&mut self, form: &Form) -> u64 {
        let moving = self.moving.as_ref().and_then(|moving| moving.made.as_ref());
        match (form, moving) {
            (Form::Move { .. }, Some(made)) => made.uid,
            _ => self.seed.next(),
        }
    }

    /// X1: proposes, again and again. X4: it ends only by adopting a newer configuration that
    /// comes from the other node, never by a timeout.
    pub(crate) fn propose_again(&mut self) {
        if self.is_primary()
            && self.peer.link == Link::Up
            && let Some(prop) = self.hard.prop.clone()
        {
            let pending = self.hard.pend_add.as_ref();
            let named = pending.map(|pending| &pending.replica.node);
            if let Some(to) = named.or_else(|| self.config_peer()).cloned() {
                let config = Box::new(prop);
                self.send(Body::Propose { config, to });
            }
        }
    }

    /// X3: accepted only in exactly the configuration it was made from (the frame's was compared), by
    /// the node that has a say beside the primary; adopting it is the moment it takes effect.
    pub(crate) fn on_arbiter_proposed(&mut self, new: Config, to: &NodeRef) {
        let config = &self.hard.config;
        let form = Form::Move {
            arbiter: new.arbiter.clone(),
            generation: new.epoch.generation(),
        };
        let made = form.make(config, &config.primary, new.uid);
        if made.as_ref() == Ok(&new) && *to == self.me {
            self.adopt(new);
        }
    }
}
