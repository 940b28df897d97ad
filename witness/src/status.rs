//! How the witness is: for `kine2-witness status`, and for nodes that ask for their own cluster.

use std::time::Duration;

use kine2_replication::{ClusterId, Config, NodeRef, RegisterKey, UnitName};
use kine2_trust::{RefusalCounts, RefusalKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::service::Service;

/// What `status` tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Id of the witness, hexadecimal as all ids here.
    pub(crate) witness: String,
    /// Which start of it.
    pub(crate) life: String,
    pub(crate) uptime_seconds: u64,
    pub(crate) clusters: Vec<Cluster>,
    /// Connections refused since the start, by reason; only to the operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) refused: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) cluster: String,
    pub(crate) sessions: Vec<Node>,
    pub(crate) units: Vec<Unit>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) incarnation: String,
    pub(crate) address: String,
    pub(crate) connected_seconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Unit {
    pub(crate) unit: String,
    /// The epoch as one number, and as people write it.
    pub(crate) epoch: u64,
    pub(crate) epoch_text: String,
    pub(crate) uid: String,
    pub(crate) primary: String,
    pub(crate) lead: String,
    pub(crate) in_sync: BTreeMap<String, Vec<String>>,
    pub(crate) members: Vec<String>,
    /// What made this configuration.
    pub(crate) reason: String,
    /// The register was closed: the unit has another arbiter.
    pub(crate) moved: bool,
    /// A node knew more than this register: it must be replaced.
    pub(crate) regressed: bool,
}

/// The status as JSON; `refused` is filled in by who has the counts.
pub(crate) fn status(service: &Service, now: Duration, only: Option<ClusterId>) -> String {
    let clusters = match only {
        Some(cluster) => vec![cluster],
        None => service.enrolled.clusters(),
    };
    let mut found: BTreeMap<ClusterId, Cluster> = BTreeMap::new();
    for id in clusters {
        let units = service.units.get(&id).into_iter().flatten();
        let cluster = Cluster {
            cluster: hex(id.0),
            sessions: Vec::new(),
            units: units
                .filter_map(|unit| unit_of(service, id, unit))
                .collect(),
        };
        found.insert(id, cluster);
    }
    for session in service.sessions.values() {
        if let Some(cluster) = found.get_mut(&session.owner.cluster) {
            cluster.sessions.push(Node {
                name: session.owner.node.name.to_string(),
                incarnation: hex(session.owner.node.incarnation.0),
                address: session.address.to_string(),
                connected_seconds: now.saturating_sub(session.since).as_secs(),
            });
        }
    }
    let status = Status {
        witness: hex(service.core.id().0),
        life: format!("{:016x}", service.core.life().0),
        uptime_seconds: now.as_secs(),
        clusters: found.into_values().collect(),
        refused: BTreeMap::new(),
    };
    serde_json::to_string(&status).expect("it is plain data")
}

fn unit_of(service: &Service, cluster: ClusterId, unit: &UnitName) -> Option<Unit> {
    let unit = unit.clone();
    let register = service.core.register(&RegisterKey { cluster, unit })?;
    let config = register.moved_to.as_ref().unwrap_or(&register.config);
    let moved = register.moved_to.is_some();
    Some(unit_as(config, moved, register.regressed))
}

fn unit_as(config: &Config, moved: bool, regressed: bool) -> Unit {
    let name = |node: &NodeRef| node.name.to_string();
    let in_sync = config.in_sync.iter().map(|(part, replicas)| {
        let names = replicas.iter().map(|replica| name(&replica.node));
        (part.to_string(), names.collect())
    });
    Unit {
        unit: config.unit.to_string(),
        epoch: config.epoch.0,
        epoch_text: config.epoch.to_string(),
        uid: format!("{:016x}", config.uid),
        primary: name(&config.primary),
        lead: config.lead.to_string(),
        in_sync: in_sync.collect(),
        members: config.members.iter().map(name).collect(),
        reason: format!("{:?}", config.reason).to_lowercase(),
        moved,
        regressed,
    }
}

fn hex(id: u128) -> String {
    format!("{id:032x}")
}

impl Status {
    /// Adds how many were refused.
    pub(crate) fn with_refused(mut self, counts: &RefusalCounts) -> Self {
        let counts = RefusalKind::ALL.map(|kind| (kind.label().to_owned(), counts.get(kind)));
        self.refused = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        self
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let (clusters, up) = (self.clusters.len(), self.uptime_seconds);
        let _ = writeln!(out, "witness {}", self.witness);
        let _ = writeln!(out, "up {up} s, {clusters} clusters");
        for cluster in &self.clusters {
            let _ = writeln!(out, "\ncluster {}", cluster.cluster);
            if cluster.sessions.is_empty() {
                let _ = writeln!(out, "  no node is connected");
            }
            for node in &cluster.sessions {
                let (name, address) = (&node.name, &node.address);
                let _ = writeln!(out, "  node {name} connected from {address}");
            }
            for unit in &cluster.units {
                let _ = writeln!(out, "  {}", unit.text());
            }
        }
        if !self.refused.is_empty() {
            let _ = writeln!(out, "\nrefused since the start");
            for (reason, count) in &self.refused {
                let _ = writeln!(out, "  {reason}: {count}");
            }
        }
        out
    }
}

impl Unit {
    fn text(&self) -> String {
        let nobody = Vec::new();
        let in_sync = self
            .in_sync
            .get(&self.lead)
            .unwrap_or(&nobody)
            .join(" and ");
        let Self {
            unit,
            epoch_text,
            primary,
            lead,
            reason,
            ..
        } = self;
        let trouble = match (self.regressed, self.moved) {
            (true, _) => "; REGRESSED: a node knew more than this witness, replace it",
            (false, true) => "; closed: the unit has another arbiter",
            (false, false) => "",
        };
        format!(
            "unit {unit}: epoch {epoch_text} ({reason}), primary {primary}, {lead} in sync on \
             {in_sync}{trouble}"
        )
    }
}
