//! Who is a member, and who is not.

use std::io::ErrorKind;
use std::time::SystemTime;

use kine2_replication::{ClusterId, NodeRef};
use kine2_trust::{Accepted, Owner, OwnerError, Refusal, RefusalKind, Trust, connect, self_signed};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use tempfile::{TempDir, tempdir};

use super::join::joined;
use super::stranger::{call_as, stranger};
use super::{CLUSTER, DAY, first, first_read, meet, node};

struct Pair {
    a: Trust,
    b: Trust,
    _dirs: [TempDir; 2],
}

fn pair() -> Pair {
    pair_made(SystemTime::now())
}

fn pair_made(made: SystemTime) -> Pair {
    let dirs = [tempdir().unwrap(), tempdir().unwrap()];
    let a = first(dirs[0].path(), CLUSTER, made);
    let b = joined(&a, dirs[1].path(), &node("b"), made);
    Pair { a, b, _dirs: dirs }
}

fn owner(name: &str) -> Owner {
    Owner {
        cluster: CLUSTER,
        node: node(name),
    }
}

/// `client` calls `server`: what each makes of the other.
async fn call(server: &Trust, client: &Trust) -> (Result<Owner, Refusal>, Result<Owner, Refusal>) {
    let (accepted, connected) = meet(server, async |stream| {
        let (stream, owner) = connect(client, stream).await?;
        match first_read(stream).await.unwrap_err() {
            error if error.kind() == ErrorKind::UnexpectedEof => Ok(owner),
            error => Err(Refusal::of_io(&error)),
        }
    })
    .await;
    let accepted = accepted.map(|accepted| match accepted {
        Accepted::Member(_, owner) => owner,
        Accepted::Joiner(_) => panic!("a member came as a joiner"),
    });
    (accepted, connected)
}

fn by_peer<T>(outcome: &Result<T, Refusal>) -> bool {
    matches!(outcome, Err(Refusal::ByPeer(_)))
}

#[tokio::test]
async fn members_know_each_other_by_name() {
    let Pair { a, b, _dirs } = pair();
    assert_eq!(call(&a, &b).await, (Ok(owner("b")), Ok(owner("a"))));
    assert_eq!(call(&b, &a).await, (Ok(owner("a")), Ok(owner("b"))));
}

#[tokio::test]
async fn one_without_a_certificate_is_refused() {
    let Pair { a, _dirs, .. } = pair();
    let (accepted, told) = meet(&a, async |s| call_as(stranger(None), s).await).await;
    assert_eq!(accepted.unwrap_err(), Refusal::NoCertificate);
    assert!(matches!(told, Refusal::ByPeer(_)), "{told}");
    assert_eq!(a.refusals().get(RefusalKind::NoCertificate), 1);
}

#[tokio::test]
async fn one_with_a_certificate_that_names_no_node_is_refused() {
    let Pair { a, _dirs, .. } = pair();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let anything = params.self_signed(&key).unwrap();
    params.subject_alt_names = [owner("a").uri(), owner("b").uri()]
        .map(|uri| SanType::URI(uri.try_into().unwrap()))
        .to_vec();
    let both = params.self_signed(&key).unwrap();
    let (witness, witness_key) = self_signed(SystemTime::now()).unwrap();
    let key = || PrivateKeyDer::Pkcs8(key.serialize_der().into());
    for (shown, why) in [
        ((anything.der().clone(), key()), OwnerError::Names(0)),
        ((both.der().clone(), key()), OwnerError::Names(2)),
        (
            (witness, witness_key.into()),
            OwnerError::Name("kine2://witness".into()),
        ),
    ] {
        let config = stranger(Some(shown));
        let (accepted, _) = meet(&a, async |s| call_as(config, s).await).await;
        assert_eq!(accepted.unwrap_err(), Refusal::Stranger(why));
    }
    assert_eq!(a.refusals().get(RefusalKind::Stranger), 3);
}

#[tokio::test]
async fn a_foreign_authority_of_the_same_cluster_is_refused_both_ways() {
    let Pair { a, b, _dirs } = pair();
    let dir = tempdir().unwrap();
    // Its certificate names the same cluster and node; only who issued it differs.
    let forged = joined(
        &first(dir.path(), CLUSTER, SystemTime::now()),
        &dir.path().join("b"),
        &node("b"),
        SystemTime::now(),
    );
    let foreign = Refusal::ForeignAuthority(owner("b"));
    let config = stranger(Some(identity(&dir.path().join("b"))));
    let (accepted, told) = meet(&a, async |s| call_as(config, s).await).await;
    assert_eq!(accepted.unwrap_err(), foreign);
    assert!(matches!(told, Refusal::ByPeer(_)), "{told}");
    let (accepted, connected) = call(&forged, &b).await;
    assert!(by_peer(&accepted), "{accepted:?}");
    assert_eq!(connected, Err(foreign));
    assert_eq!(a.refusals().get(RefusalKind::ForeignAuthority), 1);
    assert_eq!(b.refusals().get(RefusalKind::ForeignAuthority), 1);
}

#[tokio::test]
async fn another_cluster_is_refused_both_ways() {
    let Pair { a, _dirs, .. } = pair();
    let dir = tempdir().unwrap();
    let other = first(dir.path(), ClusterId(0xc2), SystemTime::now());
    let of = |trust: &Trust| Refusal::OtherCluster(trust.owner().clone());
    let (accepted, connected) = call(&a, &other).await;
    // The client sees the other cluster first, and says so.
    assert!(by_peer(&accepted), "{accepted:?}");
    assert_eq!(connected, Err(of(&a)));
    let config = stranger(Some(identity(dir.path())));
    let (accepted, _) = meet(&a, async |s| call_as(config, s).await).await;
    assert_eq!(accepted.unwrap_err(), of(&other));
    assert_eq!(a.refusals().get(RefusalKind::OtherCluster), 1);
    assert_eq!(other.refusals().get(RefusalKind::OtherCluster), 1);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_both_ways() {
    // Made 370 days ago, and the node did not run since: it would have renewed it.
    let old = pair_made(SystemTime::now() - 370 * DAY);
    let (accepted, connected) = call(&old.a, &old.b).await;
    assert!(by_peer(&accepted), "{accepted:?}");
    assert_eq!(connected, Err(Refusal::Expired(owner("a"))));
    old.a.renew(SystemTime::now()).unwrap();
    let (accepted, connected) = call(&old.a, &old.b).await;
    assert_eq!(accepted, Err(Refusal::Expired(owner("b"))));
    assert!(by_peer(&connected), "{connected:?}");
    assert_eq!(old.a.refusals().get(RefusalKind::Expired), 1);
    old.b.renew(SystemTime::now()).unwrap();
    assert_eq!(call(&old.a, &old.b).await, (Ok(owner("b")), Ok(owner("a"))));
}

#[tokio::test]
async fn one_that_speaks_something_else_is_refused() {
    let Pair { a, _dirs, .. } = pair();
    let (accepted, ()) = meet(&a, async |stream| {
        stream.try_write(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    })
    .await;
    assert_eq!(accepted.unwrap_err().kind(), RefusalKind::Protocol);
    let mut old = stranger(Some(identity(_dirs[1].path())));
    old.alpn_protocols = vec![b"kine2-unknown".to_vec()];
    let (accepted, _) = meet(&a, async |s| call_as(old, s).await).await;
    assert_eq!(accepted.unwrap_err().kind(), RefusalKind::Protocol);
}

#[test]
fn a_node_of_a_long_name_is_a_member_too() {
    let dir = tempdir().unwrap();
    let name = "ü".repeat(127);
    let long = NodeRef::new(&name, u128::MAX);
    let trust = Trust::init(dir.path(), CLUSTER, &long, SystemTime::now()).unwrap();
    assert_eq!(trust.owner().node, long);
}

/// Certificate and key of the node that keeps its trust in `dir`.
fn identity(
    dir: &std::path::Path,
) -> (
    rustls::pki_types::CertificateDer<'static>,
    PrivateKeyDer<'static>,
) {
    use rustls::pki_types::pem::PemObject;
    let path = dir.join("tls/node.pem");
    let certificate = rustls::pki_types::CertificateDer::from_pem_file(&path).unwrap();
    (certificate, PrivateKeyDer::from_pem_file(&path).unwrap())
}
