//! The clusters that were enrolled, as handshakes look them up.

use std::collections::BTreeMap;
use std::sync::Arc;

use kine2_replication::ClusterId;
use kine2_trust::{Authorities, AuthorityError, Fingerprint, anchor};
use parking_lot::RwLock;
use rustls::pki_types::{CertificateDer, TrustAnchor};

/// The clusters that were enrolled, and their authorities.
#[derive(Debug, Default)]
pub(crate) struct Enrolled {
    clusters: RwLock<BTreeMap<ClusterId, One>>,
}

#[derive(Debug)]
struct One {
    fingerprint: Fingerprint,
    anchors: Arc<[TrustAnchor<'static>]>,
}

impl Enrolled {
    pub(crate) fn insert(
        &self,
        cluster: ClusterId,
        certificate: &CertificateDer<'_>,
    ) -> Result<(), AuthorityError> {
        let one = One {
            fingerprint: Fingerprint::of(certificate),
            anchors: Arc::new([anchor(certificate)?]),
        };
        self.clusters.write().insert(cluster, one);
        Ok(())
    }

    /// Fingerprint of the cluster's authority.
    pub(crate) fn fingerprint(&self, cluster: ClusterId) -> Option<Fingerprint> {
        self.clusters
            .read()
            .get(&cluster)
            .map(|one| one.fingerprint)
    }

    pub(crate) fn clusters(&self) -> Vec<ClusterId> {
        self.clusters.read().keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.clusters.read().len()
    }
}

impl Authorities for Enrolled {
    fn anchors(&self, cluster: ClusterId) -> Option<Arc<[TrustAnchor<'static>]>> {
        let clusters = self.clusters.read();
        clusters.get(&cluster).map(|one| Arc::clone(&one.anchors))
    }
}
