//! How things are at a node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kine2_replication::{Arbiter, Config, LonePolicy, PartName, Standing, State, Unit};
use serde::{Deserialize, Serialize};

use crate::runtime::pair::Pair;

/// A node and its unit as it sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct NodeStatus {
    /// Its name.
    pub(crate) node: String,
    /// Version of the program.
    pub(crate) version: String,
    /// The cluster's id.
    pub(crate) cluster: String,
    /// PRIM, SECOND, ALONE, WAIT with a reason, or STOP.
    pub(crate) state: String,
    /// The configuration in force.
    pub(crate) epoch: String,
    /// What made it.
    pub(crate) reason: String,
    /// The primary by it.
    pub(crate) primary: String,
    /// Both nodes.
    pub(crate) members: Vec<String>,
    /// The store, and other parts.
    pub(crate) parts: BTreeMap<String, PartStatus>,
    /// Links to the other node that are up.
    pub(crate) links_up: usize,
    /// Where the other node is looked for.
    pub(crate) peers: Vec<String>,
    /// The witness; nothing if there is none.
    pub(crate) witness: Option<WitnessStatus>,
    /// What happens without a witness when the nodes lose each other.
    pub(crate) on_peer_loss: Option<String>,
    /// Whether the other node can take over now.
    pub(crate) can_fail_over: bool,
    /// Why, in words.
    pub(crate) because: String,
    /// The policies, as `kine2 policy set` takes them.
    #[serde(default)]
    pub(crate) policies: BTreeMap<String, String>,
    /// Bytes that were put away after forced promotions.
    #[serde(default)]
    pub(crate) quarantine_bytes: u64,
    /// Whether that is more than it should be.
    #[serde(default)]
    pub(crate) quarantine_is_large: bool,
    /// Revision of the store.
    pub(crate) revision: i64,
}

/// A part.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PartStatus {
    /// One word.
    pub(crate) state: String,
    /// Last entry of the log.
    pub(crate) last: u64,
    /// Last durable entry.
    pub(crate) durable: u64,
    /// Last entry known to be committed.
    pub(crate) committed: u64,
    /// What the other node has acknowledged to this primary.
    pub(crate) acknowledged: Option<u64>,
}

/// The witness.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct WitnessStatus {
    /// Its id.
    pub(crate) id: String,
    /// Where it is.
    pub(crate) address: String,
    /// Whether it answers.
    pub(crate) state: String,
}

impl NodeStatus {
    /// `quarantine` is what lies there and what it may have, in bytes.
    pub(super) fn of(pair: &Pair, quarantine: (u64, u64)) -> Self {
        let node = pair.node();
        let unit = node.unit();
        let (config, status) = (unit.config(), unit.status());
        let witness = match &config.arbiter {
            Arbiter::None(_) => None,
            Arbiter::Witness { id, address } => Some(WitnessStatus {
                id: format!("{:032x}", id.0),
                address: address.clone(),
                state: match pair.witness_trouble(*id) {
                    _ if unit.hears_arbiter() => "ok".to_owned(),
                    Some(trouble) if !trouble.is_empty() => format!("lost: {trouble}"),
                    _ => "lost".to_owned(),
                },
            }),
        };
        let (can_fail_over, because) = outlook(unit, status.state);
        Self {
            node: unit.me().name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: format!("{:016x}", config.cluster.0),
            state: status.state.to_string(),
            epoch: config.epoch.to_string(),
            reason: config.reason.to_string(),
            primary: config.primary.name.to_string(),
            members: config.members.iter().map(ToString::to_string).collect(),
            parts: status
                .parts
                .into_iter()
                .map(|(name, part)| {
                    let part = PartStatus {
                        state: part.word.to_string(),
                        last: part.end.0,
                        durable: part.durable.0,
                        committed: part.commit.0,
                        acknowledged: part.matched.map(|matched| matched.0),
                    };
                    (name.to_string(), part)
                })
                .collect(),
            links_up: pair.stats().links_up,
            peers: pair.peer_addresses(),
            on_peer_loss: match &config.arbiter {
                Arbiter::Witness { .. } => None,
                Arbiter::None(LonePolicy::Stop) => Some("stop".to_owned()),
                Arbiter::None(LonePolicy::PreferPrimary) => Some("prefer-primary".to_owned()),
                Arbiter::None(LonePolicy::Ping(gateways)) => {
                    Some(format!("ping {} (unsafe-policy)", in_words(gateways)))
                }
            },
            witness,
            policies: policies(config),
            quarantine_bytes: quarantine.0,
            quarantine_is_large: quarantine.0 > quarantine.1,
            can_fail_over,
            because,
            revision: node.store().revision().0,
        }
    }
}

fn policies(config: &Config) -> BTreeMap<String, String> {
    let policies = &config.policies;
    let preferred = policies.preferred.as_ref();
    let preferred = preferred.map_or("none", |name| name.as_str()).to_owned();
    BTreeMap::from([
        ("swap-back".to_owned(), policies.swap_back.to_string()),
        ("boot-alone".to_owned(), policies.boot_alone.to_string()),
        ("preferred".to_owned(), preferred),
        (
            "ping-auto-discard".to_owned(),
            policies.ping_auto_discard.to_string(),
        ),
    ])
}

/// Whether the other node can take over now, and why, as this node sees it.
fn outlook(unit: &Unit, state: State) -> (bool, String) {
    let config = unit.config();
    let primary = &config.primary;
    let Some(secondary) = config.other(primary) else {
        let why = "there is one node: `kine2 join-token` here and `kine2 join CODE` on another add \
                   the second";
        return (false, why.to_owned());
    };
    if config.standing(&config.lead) != Some(Standing::Mirror) {
        return (
            false,
            format!("only {primary} has all data: {secondary} is away or catching up"),
        );
    }
    match (&config.arbiter, state) {
        (_, State::Wait(reason)) => (false, format!("this node waits: {reason}")),
        (_, State::Stop) => (false, "this node was stopped: `kine2 start`".to_owned()),
        (Arbiter::Witness { .. }, _) if unit.hears_arbiter() => (
            true,
            format!("{primary} and {secondary} have the same data, and the witness answers"),
        ),
        (Arbiter::Witness { .. }, _) => (
            false,
            "the witness does not answer: both nodes serve, but if one is lost now the other waits"
                .to_owned(),
        ),
        (Arbiter::None(LonePolicy::Stop), _) => (
            false,
            "there is no witness: if a node is lost, the other waits for `kine2 promote`; \
             `kine2 witness add CODE` mends that"
                .to_owned(),
        ),
        (Arbiter::None(LonePolicy::PreferPrimary), _) => (
            false,
            format!(
                "there is no witness: {primary} goes on without {secondary}, but not the other way \
                 round"
            ),
        ),
        (Arbiter::None(LonePolicy::Ping(gateways)), _) => (
            true,
            format!(
                "{primary} and {secondary} have the same data, and who loses the other goes on if \
                 {} answers it; unsafe-policy: a witness would tell which one",
                in_words(gateways)
            ),
        ),
    }
}

/// One of these addresses.
pub(super) fn in_words(gateways: &[IpAddr]) -> String {
    let all: Vec<_> = gateways.iter().map(ToString::to_string).collect();
    all.join(" or ")
}

/// How the store stands in the configuration.
pub(super) fn is_mirrored(unit: &Unit) -> bool {
    let lead: &PartName = &unit.config().lead;
    unit.config().standing(lead) == Some(Standing::Mirror)
}
