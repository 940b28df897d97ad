//! A witness is known by its id.

use std::sync::Arc;
use std::time::SystemTime;

use kine2_replication::{ClusterId, WitnessId};
use kine2_trust::{
    Authorities, Owner, Refusal, Requirement, member_server, nobody, self_signed, witness_id_of,
};
use rustls::pki_types::{PrivateKeyDer, TrustAnchor};
use tempfile::tempdir;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{CLUSTER, ends, first};

/// Knows one cluster.
#[derive(Debug)]
struct Known(TrustAnchor<'static>);

impl Authorities for Known {
    fn anchors(&self, cluster: ClusterId) -> Option<Arc<[TrustAnchor<'static>]>> {
        (cluster == CLUSTER).then(|| Arc::from(vec![self.0.clone()]))
    }
}

#[tokio::test]
async fn a_node_calls_the_witness_of_its_configuration_and_no_other() {
    let dir = tempdir().unwrap();
    let now = SystemTime::now();
    let a = first(dir.path(), CLUSTER, now);
    let (certificate, key) = self_signed(now).unwrap();
    let id = witness_id_of(&certificate);
    let known = Known(kine2_trust::anchor(&a.authority_certificate()).unwrap());
    let server = member_server(
        vec![certificate],
        PrivateKeyDer::Pkcs8(key),
        Arc::new(known),
        Requirement::Optional,
    );
    let server = TlsAcceptor::from(Arc::new(server.unwrap()));
    let call = async |id: WitnessId| {
        let client = TlsConnector::from(Arc::new(a.witness_client_config(id).unwrap()));
        let (here, there) = ends().await;
        let (served, called) = tokio::join!(server.accept(there), client.connect(nobody(), here));
        let owner = served
            .map(|stream| Owner::of(&stream.get_ref().1.peer_certificates().unwrap()[0]).unwrap());
        let refusal = |error: std::io::Error| Refusal::of_io(&error);
        (owner.map_err(refusal), called.map(|_| ()).map_err(refusal))
    };
    assert_eq!(call(id).await, (Ok(a.owner().clone()), Ok(())));
    let (served, called) = call(WitnessId(id.0 ^ 1)).await;
    assert!(matches!(served, Err(Refusal::ByPeer(_))), "{served:?}");
    assert_eq!(called, Err(Refusal::NotThePinned));
}
