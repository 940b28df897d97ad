//! The core among its sessions: who may ask what, what waits for the disk, and who is told.
//!
//! Owns no socket, thread or clock: the loop in `serve` brings inputs and takes batches of records.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kine2_replication::{
    Ask, ClusterId, NodeRef, Refusal, RegisterKey, Tell, UnitName, WitnessCall, WitnessWord,
};
use kine2_trust::Owner;
use kine2_witness_core::{Act, Event, Witness};
use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot};

use crate::authorities::Enrolled;
use crate::limits::{
    CLUSTERS_MAX, RECORDS_MAX, SESSIONS_MAX, SESSIONS_PER_CLUSTER_MAX, UNITS_PER_CLUSTER_MAX,
};
use crate::messages;
use crate::record::Record;

/// Number of a session, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// What comes from connections.
#[derive(Debug)]
pub(crate) enum Input {
    /// A node wants a session; it has one when `done` says so, until `out` is closed.
    Open {
        session: SessionId,
        owner: Owner,
        address: SocketAddr,
        out: mpsc::Sender<Bytes>,
        done: oneshot::Sender<Result<(), &'static str>>,
    },
    /// A session's connection has ended.
    Closed(SessionId),
    /// A session's node calls.
    Call(SessionId, Box<WitnessCall>),
    /// A cluster is enrolled; its code was good.
    Enrol {
        cluster: ClusterId,
        certificate: CertificateDer<'static>,
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Somebody wants to know how it is, of one cluster or all.
    Status {
        cluster: Option<ClusterId>,
        done: oneshot::Sender<String>,
    },
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) owner: Owner,
    pub(crate) address: SocketAddr,
    pub(crate) since: Duration,
    out: mpsc::Sender<Bytes>,
}

/// The core, its sessions, and what waits.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) core: Witness,
    pub(crate) enrolled: Arc<Enrolled>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    by_node: BTreeMap<(ClusterId, NodeRef), SessionId>,
    pub(crate) units: BTreeMap<ClusterId, BTreeSet<UnitName>>,
    /// Words that wait for a write to be durable, in order.
    held: VecDeque<(u64, NodeRef, WitnessWord)>,
    /// Records not yet given to the disk.
    records: Vec<Record>,
    /// Who waits for those records.
    enrolling: Vec<oneshot::Sender<Result<(), String>>>,
    /// The core's write that is the last of `records`, or was given to the disk.
    written: u64,
    durable: u64,
}

/// Records for the disk, and what is so once they are durable.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    pub(crate) promise: Promise,
}

/// What is so once a batch is durable.
#[derive(Debug)]
pub(crate) struct Promise {
    written: u64,
    enrolling: Vec<oneshot::Sender<Result<(), String>>>,
}

impl Service {
    pub(crate) fn new(
        core: Witness,
        enrolled: Arc<Enrolled>,
        keys: impl IntoIterator<Item = RegisterKey>,
    ) -> Self {
        let mut units: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for key in keys {
            units.entry(key.cluster).or_default().insert(key.unit);
        }
        Self {
            core,
            enrolled,
            sessions: BTreeMap::new(),
            by_node: BTreeMap::new(),
            units,
            held: VecDeque::new(),
            records: Vec::new(),
            enrolling: Vec::new(),
            written: 0,
            durable: 0,
        }
    }

    /// Whether it may be given another input.
    pub(crate) fn has_room(&self) -> bool {
        self.records.len() < RECORDS_MAX
    }

    pub(crate) fn handle(&mut self, now: Duration, input: Input) {
        match input {
            Input::Open {
                session,
                owner,
                address,
                out,
                done,
            } => {
                let opened = self.may_open(&owner);
                // One that has gone already is not opened.
                if done.send(opened).is_ok() && opened.is_ok() {
                    let since = now;
                    let one = Session {
                        owner,
                        address,
                        since,
                        out,
                    };
                    self.open(now, session, one);
                }
            }
            Input::Closed(session) => self.close(now, session),
            Input::Call(session, call) => self.call(now, session, *call),
            Input::Enrol {
                cluster,
                certificate,
                done,
            } => self.enrol(cluster, certificate, done),
            Input::Status { cluster, done } => {
                // One that has gone needs no answer.
                let _ = done.send(crate::status::status(self, now, cluster));
            }
        }
        self.take_steps(now);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.core.handle(now, Event::Tick);
        self.take_steps(now);
    }

    /// The records to be made durable next.
    pub(crate) fn take_batch(&mut self) -> Option<Batch> {
        (!self.records.is_empty()).then(|| Batch {
            records: std::mem::take(&mut self.records),
            promise: Promise {
                written: self.written,
                enrolling: std::mem::take(&mut self.enrolling),
            },
        })
    }

    /// A batch is durable: who waited for it is told.
    pub(crate) fn on_durable(&mut self, now: Duration, promise: Promise) {
        self.durable = promise.written;
        for done in promise.enrolling {
            let _ = done.send(Ok(()));
        }
        self.tell_held(now);
    }

    fn may_open(&self, owner: &Owner) -> Result<(), &'static str> {
        let key = (owner.cluster, owner.node.clone());
        if self.by_node.contains_key(&key) {
            return Ok(());
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return Err("the witness has as many sessions as it may");
        }
        let first = (owner.cluster, NodeRef::new("", 0));
        let of_cluster = self.by_node.range(first..);
        let of_cluster = of_cluster.take_while(|((cluster, _), _)| *cluster == owner.cluster);
        match of_cluster.count() < SESSIONS_PER_CLUSTER_MAX {
            true => Ok(()),
            false => Err("the cluster has as many sessions as it may"),
        }
    }

    fn open(&mut self, now: Duration, id: SessionId, session: Session) {
        let (cluster, node) = (session.owner.cluster, session.owner.node.clone());
        self.sessions.insert(id, session);
        // An older one of the same node ends: its connection may be dead without knowing it. The
        // node itself is there, so the core hears of no end.
        if let Some(old) = self.by_node.insert((cluster, node.clone()), id) {
            self.sessions.remove(&old);
        }
        self.core.handle(now, Event::Opened { cluster, node });
    }

    fn close(&mut self, now: Duration, id: SessionId) {
        // One that was replaced is gone already.
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        let Owner { cluster, node } = session.owner;
        self.by_node.remove(&(cluster, node.clone()));
        self.core.handle(now, Event::Closed { cluster, node });
    }

    fn call(&mut self, now: Duration, id: SessionId, call: WitnessCall) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let Owner { cluster, node } = &session.owner;
        if call.key.cluster != *cluster || call.caller != *node {
            let owner = session.owner.clone();
            tracing::warn!(%owner, called_as = ?call.caller, key = ?call.key,
                "a call in another's name ends the session");
            let why = "a call in the name of another than the certificate's owner";
            let _ = session.out.try_send(messages::bye(why));
            return self.close(now, id);
        }
        if self.is_one_too_many(&call) {
            let word = self.refused(&call, Refusal::RegistersMax);
            return self.tell(now, &call.caller, &word);
        }
        self.core.handle(now, Event::Call(call));
    }

    /// A register is asked for that its cluster may not have.
    fn is_one_too_many(&self, call: &WitnessCall) -> bool {
        let makes = matches!(call.ask, Ask::Init(_) | Ask::Force(_));
        let units = self.units.get(&call.key.cluster);
        makes
            && units.is_some_and(|units| {
                units.len() >= UNITS_PER_CLUSTER_MAX && !units.contains(&call.key.unit)
            })
    }

    fn refused(&self, call: &WitnessCall, refusal: Refusal) -> WitnessWord {
        WitnessWord {
            key: call.key.clone(),
            witness: self.core.id(),
            life: self.core.life(),
            answers: Some(call.number),
            floors: None,
            tell: Tell::Refused(refusal),
        }
    }

    fn enrol(
        &mut self,
        cluster: ClusterId,
        certificate: CertificateDer<'static>,
        done: oneshot::Sender<Result<(), String>>,
    ) {
        let known = self.enrolled.fingerprint(cluster);
        let fingerprint = kine2_trust::Fingerprint::of(&certificate);
        let outcome = match known {
            Some(known) if known == fingerprint => Ok(()),
            Some(_) => Err("the cluster is enrolled with another authority".to_owned()),
            None if self.enrolled.len() >= CLUSTERS_MAX => Err(format!(
                "the witness has {CLUSTERS_MAX} clusters, as many as it may"
            )),
            // From here on handshakes know it. What they lead to is written behind its record, so
            // nothing of it is durable without that.
            None => self
                .enrolled
                .insert(cluster, &certificate)
                .map_err(|error| error.to_string()),
        };
        if outcome.is_err() {
            let _ = done.send(outcome);
            return;
        }
        tracing::info!(cluster = %format!("{:032x}", cluster.0), "a cluster is enrolled");
        self.records.push(Record::Cluster(cluster, certificate));
        self.enrolling.push(done);
    }

    fn take_steps(&mut self, now: Duration) {
        for step in self.core.take_steps() {
            match step.act {
                Act::Store {
                    write,
                    key,
                    register,
                } => {
                    let units = self.units.entry(key.cluster).or_default();
                    units.insert(key.unit);
                    self.written = write;
                    self.records.push(Record::Register(register));
                }
                Act::Send { to, word } => self.held.push_back((step.after, to, word)),
            }
        }
        self.tell_held(now);
    }

    /// Sends what need not wait any longer. The order stays: a later word waits for no earlier
    /// write than one before it.
    fn tell_held(&mut self, now: Duration) {
        while let Some((_, to, word)) = self.held.pop_front_if(|(after, ..)| *after <= self.durable)
        {
            self.tell(now, &to, &word);
        }
    }

    fn tell(&mut self, now: Duration, to: &NodeRef, word: &WitnessWord) {
        let key = (word.key.cluster, to.clone());
        let Some(id) = self.by_node.get(&key).copied() else {
            return;
        };
        let out = &self.sessions[&id].out;
        if out.try_send(messages::word(word)).is_err() {
            tracing::warn!(node = ?to, "it leaves too many messages unread: its session ends");
            self.close(now, id);
            // What the core has to say to that.
            self.take_steps(now);
        }
    }
}
