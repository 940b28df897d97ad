//! What nodes and the witness say to each other (`repl section 6`, kine2.Witness).

use std::fmt;

use crate::config::{Config, ConfigId};
use crate::epoch::Epoch;
use crate::floors::{Holdings, ToldFloors};
use crate::force::Force;
use crate::forms::{Form, FormError};
use crate::ids::{NodeRef, RegisterKey, WitnessId, WitnessLife};

/// A call of a node, for one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessCall {
    /// The register.
    pub key: RegisterKey,
    /// The witness that is meant; another one refuses (`repl W1`).
    pub witness: WitnessId,
    /// Who calls.
    pub caller: NodeRef,
    /// The caller's number of this call; the answer repeats it.
    pub number: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What a node asks of the witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The register's content.
    Get,
    /// A compare-and-swap.
    Cas(Box<Cas>),
    /// Create the register, or replace it by a higher generation.
    Init(Box<Config>),
    /// The operator's replacement by a higher generation.
    Force(Box<Force>),
    /// What the node knows and how it is; no answer.
    Report(Report),
    /// The node suspects the primary of this epoch; no answer.
    Suspect(Epoch),
    /// Answer to [`Tell::Probe`]; no answer.
    ProbeAck {
        /// Number of the probe.
        nonce: u64,
        /// True if the node is the active primary and its disk keeps up.
        healthy: bool,
    },
}

impl Ask {
    /// Whether the witness answers it by itself.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        match self {
            Self::Get | Self::Cas(_) | Self::Init(_) | Self::Force(_) => true,
            Self::Report(_) | Self::Suspect(_) | Self::ProbeAck { .. } => false,
        }
    }
}

/// A compare-and-swap of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cas {
    /// The form used.
    pub form: Form,
    /// The configuration that must be stored.
    pub expected: ConfigId,
    /// The new one: exactly what the form makes of it.
    pub new: Config,
    /// What the caller has (`repl I4`); nothing from programs that know no floors.
    pub held: Option<Holdings>,
}

/// A node's report about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The highest epoch it adopted.
    pub epoch: Epoch,
    /// As in [`Ask::ProbeAck`].
    pub healthy: bool,
    /// What it has (`repl I4`); nothing from programs that know no floors.
    pub held: Option<Holdings>,
}

/// What the witness tells a node, for one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessWord {
    /// The register.
    pub key: RegisterKey,
    /// Which witness speaks.
    pub witness: WitnessId,
    /// Which of its starts (`repl W7`).
    pub life: WitnessLife,
    /// Number of the call it answers; nothing if it speaks on its own.
    pub answers: Option<u64>,
    /// What was final, with a register's content and with [`Refusal::Reverted`] (`repl I4`);
    /// nothing from programs that know no floors.
    pub floors: Option<Box<ToldFloors>>,
    /// What it says.
    pub tell: Tell,
}

/// What the witness says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// The register's content: after a change, and as the answer to every call that was carried
    /// out or came too late. Its content counts, not whose change it was (`repl C3`).
    Register(Box<Config>),
    /// The register was closed for good by a move to another arbiter.
    Moved(Box<Config>),
    /// The call was refused.
    Refused(Refusal),
    /// Are you there, and well?
    Probe {
        /// Number of the probe.
        nonce: u64,
    },
    /// Whether the other node has a session.
    Peer {
        /// True if it has one.
        connected: bool,
    },
}

/// Why the witness refused a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no such register.
    UnknownRegister,
    /// The caller means another witness.
    OtherWitness,
    /// The form cannot be used.
    Form(FormError),
    /// The new record is not what the form makes of the stored one.
    NotTheForm,
    /// The record to be stored is malformed, or names another key or arbiter.
    Record(String),
    /// The primary answers; ask again soon (`repl section 8`, primary_grace_max).
    PrimaryAlive,
    /// The witness started lately and has not heard both nodes (`repl W4`).
    Probation,
    /// The register went backwards in time (`repl W3`).
    Regressed,
    /// Not a higher generation than the stored one, or made from an older configuration.
    Generation,
    /// The witness holds as many registers as it may.
    RegistersMax,
    /// A node would be left as the only one with a part and has not all of it that was final: it
    /// was set back (`repl I4`).
    Reverted,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRegister => f.write_str("the witness has no register of this unit"),
            Self::OtherWitness => f.write_str("another witness answers at this address"),
            Self::Form(error) => error.fmt(f),
            Self::NotTheForm => f.write_str("the record is not what the form makes"),
            Self::Record(what) => f.write_str(what),
            Self::PrimaryAlive => f.write_str("the primary is alive"),
            Self::Probation => f.write_str("the witness started lately"),
            Self::Regressed => f.write_str("the register went backwards"),
            Self::Generation => f.write_str("the record is not of a higher generation than the stored one, or of an older counter"),
            Self::RegistersMax => f.write_str("the witness holds as many registers as it may"),
            Self::Reverted => f.write_str("who would go on alone has not all that was final"),
        }
    }
}
