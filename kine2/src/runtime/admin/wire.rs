//! What an operator asks of a node, and is answered.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::status::NodeStatus;
use crate::runtime::journal::Entry;
use crate::runtime::quarantine::{Difference, Kept};

/// A request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Request {
    /// Who is to carry it out.
    pub(crate) node: For,
    /// What.
    pub(crate) order: Order,
}

/// Who is to carry something out.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum For {
    /// The node asked.
    This,
    /// Both.
    All,
    /// The one of this name.
    Named(String),
}

/// What is to be done.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Tell how things are.
    Status,
    /// Tell what is in the journal.
    Events {
        /// Only events after this number.
        after: u64,
        /// The last of them, at most.
        last: usize,
    },
    /// Make a one-time code for a node.
    JoinToken {
        /// How long it is good.
        minutes: u64,
    },
    /// Hand the role over to the other node.
    Swap {
        /// Also if parts go away by it.
        partial: bool,
    },
    /// Stop durably.
    Stop {
        /// Also if nobody can go on.
        force: bool,
    },
    /// Start again.
    Start,
    /// Go on as the primary.
    Promote {
        /// Although the other node may know more; it must be off.
        force: bool,
        /// Do not ask the witness; from then on there is none.
        without_witness: bool,
        /// Only in this part, which is away.
        #[serde(default)]
        part: Option<String>,
    },
    /// Give up what this node has of parts that diverged, once it is put away.
    Rejoin {
        /// And delete what was put away then.
        discard: bool,
    },
    /// Tell what is in quarantine.
    Quarantined,
    /// Compare what is in quarantine with the store.
    QuarantineDiff {
        /// Its name.
        id: String,
    },
    /// Delete what is in quarantine.
    QuarantineDiscard {
        /// Its name.
        id: String,
    },
    /// Change a policy of the cluster.
    PolicySet {
        /// Which.
        key: String,
        /// What it is to be.
        value: String,
    },
    /// Have a witness decide.
    WitnessAdd {
        /// What `kine2-witness token` printed.
        code: String,
        /// The witness in force cannot be asked any more.
        old_lost: bool,
    },
    /// Have no witness any more.
    WitnessRemove {
        /// The primary goes on without its peer.
        prefer_primary: bool,
        /// Either node goes on if one of these addresses answers it.
        #[serde(default)]
        ping: Vec<IpAddr>,
        /// The witness in force cannot be asked any more.
        lost: bool,
    },
}

/// What is answered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// It is done; in words.
    Done(String),
    /// How things are.
    Status(Box<NodeStatus>),
    /// What is in the journal.
    Events(Events),
    /// What is in quarantine.
    Quarantine(Shelf),
    /// What is in quarantine beside what the store has.
    Difference(Box<Difference>),
    /// It is not done, because it would not be safe; what would make it safe.
    Refused(String),
    /// It is not done; why.
    Failed(String),
}

/// What is in quarantine at a node, the oldest first.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Shelf {
    /// Its name.
    pub(crate) node: String,
    /// It.
    pub(crate) kept: Vec<Kept>,
}

/// Events of a node, the oldest first.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Events {
    /// Its name.
    pub(crate) node: String,
    /// They.
    pub(crate) events: Vec<Entry>,
}

impl Order {
    /// What is to be told of it in the journal once it is carried out; nothing of what only looks.
    /// Codes are secrets.
    pub(super) fn told(&self) -> Option<String> {
        let with = |name: &str, switches: &[(bool, &str)]| {
            let set = switches.iter().filter(|(is_set, _)| *is_set);
            let switches: String = set.map(|(_, switch)| format!(" --{switch}")).collect();
            Some(format!("{name}{switches}"))
        };
        match self {
            Self::Status
            | Self::Events { .. }
            | Self::Quarantined
            | Self::QuarantineDiff { .. } => None,
            Self::Rejoin { discard } => with("rejoin", &[(*discard, "discard")]),
            Self::QuarantineDiscard { id } => with(&format!("quarantine discard {id}"), &[]),
            Self::PolicySet { key, value } => with(&format!("policy set {key} {value}"), &[]),
            Self::JoinToken { .. } => with("join-token", &[]),
            Self::Swap { partial } => with("swap", &[(*partial, "partial")]),
            Self::Stop { force } => with("stop", &[(*force, "force")]),
            Self::Start => with("start", &[]),
            Self::Promote {
                force,
                without_witness,
                part,
            } => {
                let part = part.as_ref().map(|part| format!(" --part {part}"));
                let part = part.unwrap_or_default();
                let switches = [(*force, "force"), (*without_witness, "without-witness")];
                with(&format!("promote{part}"), &switches)
            }
            Self::WitnessAdd { old_lost, .. } => with("witness add", &[(*old_lost, "lost")]),
            Self::WitnessRemove {
                prefer_primary,
                ping,
                lost,
            } => with(
                "witness remove",
                &[
                    (*prefer_primary, "prefer-primary"),
                    (!ping.is_empty(), "ping"),
                    (*lost, "lost"),
                ],
            ),
        }
    }
}

impl Answer {
    pub(super) fn failed(why: String) -> Self {
        Self::Failed(why)
    }
}
