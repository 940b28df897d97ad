//! The sentences of events.

use kine2_replication::{Arbiter, Config, LonePolicy, Notice, Reason, Standing, State, WaitReason};

use super::Kind;

pub(crate) const PEER_FOUND: &str = "the other node is connected";
pub(crate) const PEER_LOST: &str =
    "no link to the other node is up: it is off, or the network is cut";
pub(crate) const WITNESS_FOUND: &str = "the witness answers";
pub(crate) const WITNESS_LOST: &str =
    "the witness does not answer: all goes on, but if a node is lost now the other one waits";
pub(crate) const SERVES: &str = "this node orders all writes from now on";
pub(crate) const SERVES_NO_MORE: &str = "this node does not order writes any more";
pub(crate) const NO_SPACE: &str = "alarm NOSPACE: the state has reached quota-bytes, or the disk is \
    full; what needs space is refused until there is space and the alarm is disarmed (a state gives \
    space back when history is compacted and the state defragmented)";
pub(crate) const CORRUPT: &str =
    "alarm CORRUPT: every write is refused until the cause is mended and the alarm disarmed";

/// The program begins; `ended_well` is how it ended the last time.
pub(crate) fn started(ended_well: Option<bool>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match ended_well {
        None => format!("kine2 {version} serves here for the first time"),
        Some(true) => format!("kine2 {version} serves again"),
        Some(false) => format!(
            "kine2 {version} serves again; it was not asked to end the last time: it was killed, the \
             machine went down, or a disk failed"
        ),
    }
}

pub(crate) fn failed(why: &anyhow::Error) -> String {
    format!("{why:#}: nothing more is served, and the program ends")
}

/// What is put away needs more room than it should.
pub(crate) fn quarantine_large(bytes: u64, bytes_max: u64) -> String {
    format!(
        "{} MiB are in quarantine, more than quarantine-bytes ({} MiB): look through it, then `kine2 \
         quarantine discard ID`",
        bytes >> 20,
        bytes_max >> 20
    )
}

/// What the unit became here.
pub(crate) fn state(state: State) -> String {
    let text = match state {
        State::Prim => "this node is the primary, and both nodes have all data",
        State::Second => "this node has all data and follows the primary",
        State::Alone => "this node is the primary and goes on without the other one",
        State::Stop => "this node was stopped by an operator",
        State::Wait(reason) => match reason {
            WaitReason::Outdated => "this node does not have all data and waits to catch up",
            WaitReason::NoPrimary => "this node has all data, and hears no primary",
            WaitReason::NoWitness => {
                "this node has all data, but lost the other one, and nobody says that it may go on"
            }
            WaitReason::Isolated => {
                "this node alone has all data, and heard nobody since its start"
            }
            WaitReason::Resolving => "this node finds out what is newest, or gets ready to serve",
            WaitReason::Inconsistent => "this node's copy is half made",
            WaitReason::Diverged => {
                "this node has what a forced promotion overruled, and waits for `kine2 rejoin`"
            }
            WaitReason::Twin => {
                "the same epoch was made twice by force: nobody can tell which counts"
            }
            WaitReason::Failed => "a disk of this node failed",
            WaitReason::NoGateway => {
                "this node has all data, but lost the other one, and no gateway answers it for long \
                 enough"
            }
            WaitReason::Reverted => {
                "this node was set back to an old image and lacks what was acknowledged"
            }
            WaitReason::WitnessRegressed => "the witness came back from an old copy",
        },
    };
    format!("{state}: {text}")
}

/// What is in force, and what made it so.
pub(crate) fn configuration(config: &Config) -> String {
    let primary = &config.primary.name;
    let other = config.other(&config.primary);
    let other = other.map_or("nobody", |other| other.name.as_str());
    let is_mirrored = config.standing(&config.lead) == Some(Standing::Mirror);
    match config.reason {
        Reason::Init => format!("the cluster began with {primary}"),
        Reason::Remove => format!(
            "{primary} goes on without {other}, which was not heard, left, or was too slow; {other} \
             catches up before it counts again"
        ),
        Reason::Drop => format!("{primary} goes on without {other} in one part"),
        Reason::Takeover => {
            format!("{primary} took over from {other}, which was not heard by it any more")
        }
        Reason::Add if is_mirrored => format!("{other} has caught up: both nodes have all data"),
        Reason::Add => format!("{other} has caught up in one part"),
        Reason::Swap => format!("the role was handed over to {primary}"),
        Reason::Abdicate => format!(
            "{other} stepped out, as its disk failed or stood still, and handed over to {primary}"
        ),
        Reason::Parts => "a part was added or deleted".to_owned(),
        Reason::Policy => "the policies were changed".to_owned(),
        Reason::Move => match &config.arbiter {
            Arbiter::Witness { address, .. } => {
                format!("the witness at {address} decides from now on")
            }
            Arbiter::None(LonePolicy::Stop) => {
                "there is no witness from now on: if a node is lost, the other waits for an operator"
                    .to_owned()
            }
            Arbiter::None(LonePolicy::PreferPrimary) => {
                format!("there is no witness from now on: {primary} goes on if {other} is lost")
            }
            Arbiter::None(LonePolicy::Ping(_)) => "there is no witness from now on: either node \
                                                   goes on if a gateway answers it"
                .to_owned(),
        },
        Reason::Ping => format!(
            "{primary} lost {other} and goes on alone, as a gateway answered it; what {other} does \
             alone meanwhile will not count"
        ),
        Reason::Force => format!(
            "an operator made {primary} go on by force; what only {other} had acknowledged does not \
             count any more"
        ),
    }
}

/// What the unit has to say, but for configurations.
pub(crate) fn notice(notice: &Notice) -> (Kind, String) {
    match notice {
        Notice::Adopted(config) => (
            Kind::Configuration,
            format!("another configuration is in force: {}", config.epoch),
        ),
        Notice::Twin(config) => (
            Kind::Twin,
            format!(
                "epoch {} was made twice, by force on both sides: both nodes stop until `kine2 promote \
                 --force` on one of them",
                config.epoch
            ),
        ),
        Notice::Diverged(part) => (
            Kind::Diverged,
            format!(
                "part {part} holds here what was acknowledged and then overruled by force: it waits \
                 for `kine2 rejoin`"
            ),
        ),
        Notice::Quarantined(part) => (
            Kind::Quarantined,
            format!(
                "what part {part} held here beyond what counts is put away: `kine2 quarantine list`"
            ),
        ),
        Notice::Refused(why) => (
            Kind::Refused,
            format!("what was asked for cannot be done: {why}"),
        ),
        Notice::WitnessRegressed => (
            Kind::WitnessRegressed,
            "the witness knows less than this node: it came back from an old copy; `kine2 witness \
             replace CODE`"
                .to_owned(),
        ),
        Notice::SwapOff => (
            Kind::SwapOff,
            "a handover was called off: the other node was not fit to take over, or not in time"
                .to_owned(),
        ),
        Notice::PartFailed(part) => (
            Kind::PartFailed,
            format!("a write or flush of part {part} failed on this node's disk; that is final"),
        ),
        Notice::Reverted(part) => (
            Kind::Reverted,
            format!(
                "this node was set back: it lacks what was acknowledged of part {part}, and serves \
                 nothing of it until the other node has brought it level"
            ),
        ),
    }
}
