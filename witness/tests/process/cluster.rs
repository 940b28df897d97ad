//! A cluster of two nodes, as far as a witness sees it.

use std::time::SystemTime;

use bytes::Bytes;
use kine2_replication::{
    Arbiter, ClusterId, Config, Form, Incarnation, NodeRef, PartName, Policies, RegisterKey,
    Replica, WitnessId,
};
use kine2_trust::{Asking, Code, CodeKind, Trust, admit};
use tempfile::{TempDir, tempdir};

pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) a: Trust,
    pub(crate) b: Trust,
    _dirs: [TempDir; 2],
}

pub(crate) fn node(name: &str) -> NodeRef {
    NodeRef::new(name, 1)
}

impl Cluster {
    pub(crate) fn new(id: u128) -> Self {
        Self::made(id, SystemTime::now())
    }

    pub(crate) fn made(id: u128, now: SystemTime) -> Self {
        let dirs = [tempdir().unwrap(), tempdir().unwrap()];
        let id = ClusterId(id);
        let a = Trust::init(&dirs[0].path().join("tls"), id, &node("a"), now).unwrap();
        let life = std::time::Duration::from_secs(60);
        let code = Code::new(CodeKind::Join, Vec::new(), a.fingerprint(), life, now).unwrap();
        a.codes().add(&code, now).unwrap();
        let asking = Asking::begin(&code, node("b"), Bytes::new()).unwrap();
        let admission = admit(&a.codes(), asking.request(), now, |_, _| Ok(())).unwrap();
        let answer = admission.answer(&a.authority().unwrap(), Bytes::new(), now);
        let joined = asking.answered(answer.unwrap(), now).unwrap();
        let b = Trust::join(&dirs[1].path().join("tls"), &joined, now).unwrap();
        Self {
            id,
            a,
            b,
            _dirs: dirs,
        }
    }

    pub(crate) fn key(&self, unit: &str) -> RegisterKey {
        RegisterKey {
            cluster: self.id,
            unit: unit.into(),
        }
    }

    /// The first configuration of a unit: a alone.
    pub(crate) fn first(&self, unit: &str, witness: WitnessId) -> Config {
        let store = PartName::from("store");
        Config::first(
            self.key(unit),
            1,
            node("a"),
            store.clone(),
            [(store, Incarnation(5))],
            Arbiter::Witness {
                id: witness,
                address: "w:1".into(),
            },
            Policies::default(),
        )
        .unwrap()
    }
}

pub(crate) fn add_b() -> Form {
    Form::Add {
        part: "store".into(),
        replica: Replica {
            node: node("b"),
            storage: Incarnation(6),
        },
    }
}
