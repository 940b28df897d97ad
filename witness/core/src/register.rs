//! One register: what is stored, and the rules of its change (`repl C2`).

use kine2_mutation::{Mutation, mutated};
use kine2_replication::{
    Arbiter, Cas, Config, Floors, Force, ForcedPart, Form, NodeRef, PartName, Reason, Refusal,
    WitnessId, force, force_part,
};

/// Registers of a witness at most.
pub const REGISTERS_MAX: usize = 4096;

/// The durable content of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The newest configuration under this witness.
    pub config: Config,
    /// The configuration that closed the register for good, by a move to another arbiter.
    pub moved_to: Option<Config>,
    /// A node knew more than this: the store went backwards. Durable, as a restart would forget
    /// it (`repl W3`); only a higher generation ends it.
    pub regressed: bool,
    /// What was final, as the nodes told (`repl I4`). Stored with each change, and now and then.
    pub floors: Floors,
}

impl Register {
    /// A register that holds `config`, which must name `witness` as its arbiter.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub(crate) fn new(config: Config, witness: WitnessId) -> Result<Self, Refusal> {
        config
            .check_shape()
            .map_err(|error| Refusal::Record(error.to_string()))?;
        match &config.arbiter {
            Arbiter::Witness { id, .. } if *id == witness => Ok(Self {
                config,
                moved_to: None,
                regressed: false,
                floors: Floors::default(),
            }),
            _ => Err(Refusal::Record(
                "the record names another arbiter; this witness is accepted".into(),
            )),
        }
    }

    /// The content as nodes see it: the newest configuration that came out of this register.
    pub(crate) fn newest(&self) -> &Config {
        self.moved_to.as_ref().unwrap_or(&self.config)
    }

    /// True if `cas` was carried out already: a repeated request (`repl D4`).
    pub(crate) fn is_done(&self, cas: &Cas) -> bool {
        *self.newest() == cas.new
    }

    /// The register after `cas` by `caller` (`repl C2`): the expected configuration is the stored
    /// one, the caller may use the form, and the new record is exactly what the form makes.
    /// `None` if another one is stored.
    ///
    /// # Errors
    /// Why the form cannot be used.
    pub(crate) fn swapped(&self, cas: &Cas, caller: &NodeRef) -> Result<Option<Self>, Refusal> {
        if self.moved_to.is_some() {
            return Ok(None);
        }
        if mutated(Mutation::BlindCas) {
            return Ok(Some(Self {
                config: cas.new.clone(),
                ..self.clone()
            }));
        }
        if cas.expected != self.config.id() {
            return Ok(None);
        }
        let made = cas
            .form
            .make(&self.config, caller, cas.new.uid)
            .map_err(Refusal::Form)?;
        if made != cas.new {
            return Err(Refusal::NotTheForm);
        }
        Ok(Some(match cas.form {
            Form::Move { .. } => Self {
                moved_to: Some(made),
                ..self.clone()
            },
            _ => {
                let mut floors = self.floors.clone();
                if let Form::Add { replica, .. } = &cas.form {
                    // What it forgot before it was brought level does not matter any more.
                    floors.boots.remove(&replica.node);
                }
                floors.keep_only(&made);
                Self {
                    config: made,
                    floors,
                    ..self.clone()
                }
            }
        }))
    }

    /// By `next` a node would be left as the only one with some part that `lacks` all of it that was
    /// final (`repl I4`).
    pub(crate) fn is_lost_by(
        &self,
        next: &Self,
        lacks: impl Fn(&NodeRef, &PartName) -> bool,
    ) -> bool {
        self.config.in_sync.iter().any(|(part, now)| {
            let then = next.config.in_sync.get(part);
            then.is_some_and(|then| {
                let shrinks = then.len() < now.len();
                shrinks && then.iter().any(|replica| lacks(&replica.node, part))
            })
        })
    }

    /// The register after a forced promotion asked for by `asked` (`repl section 12`, Q4). Its
    /// sets are made from those stored here: by its own stale configuration the node would take a
    /// part that is safe at the other node. Only a register that went backwards knows less.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) fn forced(&self, asked: Force, witness: WitnessId) -> Result<Self, Refusal> {
        let newest = self.newest();
        let Force { config, part } = asked;
        let higher = config.epoch.generation() > newest.epoch.generation();
        if self.regressed || !higher {
            // The same call again finds what was made of it.
            let done = !higher && config.uid == newest.uid && newest.reason == Reason::Force;
            return match done && self.moved_to.is_none() {
                true => Ok(self.clone()),
                false => self.replaced(config, witness),
            };
        }
        let made = match &part {
            None => forced_lead(newest, &config)?,
            Some(part) => forced_part(newest, &config, part)?,
        };
        Self::new(made, witness)
    }

    /// The register after Init: a record of a higher generation, for a move of the arbiter to here.
    /// It must not be made from an older configuration than the stored one: a primary that was
    /// deposed, here or before the unit moved here, would bring back its own. What the same
    /// primary left by an attempt before may be replaced.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) fn initialised(&self, new: Config, witness: WitnessId) -> Result<Self, Refusal> {
        let stored = self.newest();
        let left = stored.reason == Reason::Move && stored.primary == new.primary;
        let lowest = match left {
            true => stored.epoch.counter(),
            false => stored.epoch.counter() + 1,
        };
        if new.epoch.counter() < lowest && *stored != new {
            return Err(Refusal::Generation);
        }
        self.replaced(new, witness)
    }

    /// The register after the replacement by a record of a higher generation.
    ///
    /// # Errors
    /// Why it is not one.
    pub(crate) fn replaced(&self, new: Config, witness: WitnessId) -> Result<Self, Refusal> {
        if self.moved_to.is_none() && self.config == new {
            return Ok(self.clone());
        }
        if new.epoch.generation() <= self.newest().epoch.generation() {
            return Err(Refusal::Generation);
        }
        Self::new(new, witness)
    }
}

/// The record of a forced promotion that `asked` names, made from what is stored.
fn forced_lead(newest: &Config, asked: &Config) -> Result<Config, Refusal> {
    let Some(lead) = asked.replica(&newest.lead, &asked.primary) else {
        return Err(Refusal::Record(
            "the primary is not in sync for the lead part; one that is is accepted".into(),
        ));
    };
    let generation = asked.epoch.generation();
    let (node, arbiter) = (&asked.primary, asked.arbiter.clone());
    let made = force(newest, node, lead.storage, generation, arbiter, asked.uid);
    Ok(match mutated(Mutation::ForceOwnSets) {
        true => Config {
            in_sync: asked.in_sync.clone(),
            ..made
        },
        false => made,
    })
}

/// The same for a part other than the lead: only in the configuration that the operator saw.
fn forced_part(newest: &Config, asked: &Config, forced: &ForcedPart) -> Result<Config, Refusal> {
    let ForcedPart { part, expected } = forced;
    let replica = asked.replica(part, &asked.primary);
    let Some(replica) = replica.filter(|_| *expected == newest.id()) else {
        return Err(Refusal::Record(format!(
            "part {part} was forced in epoch {}, the register is in {}; the newest is accepted",
            expected.epoch, newest.epoch
        )));
    };
    let (generation, arbiter) = (asked.epoch.generation(), asked.arbiter.clone());
    force_part(
        newest,
        part,
        replica.storage,
        generation,
        arbiter,
        asked.uid,
    )
    .map_err(Refusal::Form)
}
