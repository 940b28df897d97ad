//! Certificates change while the node runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use kine2_trust::{Accepted, Authority, Fingerprint, Trust, TrustError, connect};
use tempfile::tempdir;

use super::join::joined;
use super::{CLUSTER, DAY, first, meet, node};

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let dirs = [tempdir().unwrap(), tempdir().unwrap()];
    let now = SystemTime::now();
    let a = first(dirs[0].path(), CLUSTER, now);
    let b = joined(&a, dirs[1].path(), &node("b"), now);
    let shown = async || {
        let (_, shown) = meet(&a, async |stream| {
            let (stream, _) = connect(&b, stream).await.unwrap();
            Fingerprint::of(&stream.get_ref().1.peer_certificates().unwrap()[0])
        })
        .await;
        shown
    };
    let before = shown().await;
    assert!(!a.renew(now + 240 * DAY).unwrap(), "more than a third left");
    assert_eq!(shown().await, before);
    assert!(a.renew(now + 250 * DAY).unwrap(), "less than a third left");
    assert!(!a.renew(now + 250 * DAY).unwrap(), "it was renewed");
    assert_ne!(shown().await, before);
}

#[tokio::test]
async fn a_second_authority_is_accepted_without_a_restart() {
    let dirs = [tempdir().unwrap(), tempdir().unwrap()];
    let now = SystemTime::now();
    let a = first(dirs[0].path(), CLUSTER, now);
    let b = first(dirs[1].path(), CLUSTER, now);
    let call = async || {
        let (accepted, connected) = meet(&a, async |s| connect(&b, s).await.map(|_| ())).await;
        accepted.is_ok_and(|accepted| matches!(accepted, Accepted::Member(..))) && connected.is_ok()
    };
    assert!(!call().await);
    let certificate = |at: usize| dirs[at].path().join("tls/authority.crt");
    let [one, other] = [0, 1].map(|at| fs::read_to_string(certificate(at)).unwrap());
    fs::write(certificate(0), one.clone() + &other).unwrap();
    fs::write(certificate(1), other.clone() + &one).unwrap();
    assert!(call().await);
    // The other one takes over: a's certificate is renewed by it, and the first is not needed.
    let key = |at: usize| dirs[at].path().join("tls/authority.key");
    fs::write(certificate(0), other.clone() + &one).unwrap();
    fs::copy(key(1), key(0)).unwrap();
    assert!(a.renew(now).unwrap());
    assert!(!a.renew(now).unwrap());
    for at in [0, 1] {
        fs::write(certificate(at), &other).unwrap();
    }
    assert!(call().await);
}

#[test]
fn damaged_files_change_nothing_while_it_runs_and_are_named_at_the_start() {
    let dir = tempdir().unwrap();
    let tls = dir.path().join("tls");
    let now = SystemTime::now();
    let a = first(dir.path(), CLUSTER, now);
    let fingerprint = a.fingerprint();
    for name in ["node.pem", "authority.crt"] {
        let good = fs::read(tls.join(name)).unwrap();
        for bad in [&b""[..], &good[..good.len() / 2], b"-----BEGIN X-----\n"] {
            fs::write(tls.join(name), bad).unwrap();
            assert_eq!(a.fingerprint(), fingerprint, "{name}");
            let error = Trust::open(&tls, now).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        fs::write(tls.join(name), good).unwrap();
        Trust::open(&tls, now).unwrap();
    }
    fs::copy(tls.join("authority.key"), tls.join("old.key")).unwrap();
    let other = Authority::make(CLUSTER, now).unwrap();
    let other_dir = tempdir().unwrap();
    let other_tls = other_dir.path().join("tls");
    first(other_dir.path(), CLUSTER, now);
    fs::copy(other_tls.join("authority.key"), tls.join("authority.key")).unwrap();
    let error = Trust::open(&tls, now).unwrap().authority().unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
    assert_ne!(other.fingerprint(), fingerprint);
}

#[test]
fn keys_are_the_owners_alone_and_a_second_init_is_refused() {
    let dir = tempdir().unwrap();
    let now = SystemTime::now();
    let a = first(dir.path(), CLUSTER, now);
    for file in fs::read_dir(dir.path().join("tls")).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.path());
    }
    let again = Trust::init(&dir.path().join("tls"), CLUSTER, &node("a"), now);
    assert!(matches!(again, Err(TrustError::Exists(_))), "{again:?}");
    let opened = Trust::open(&dir.path().join("tls"), now).unwrap();
    assert_eq!(opened.owner(), a.owner());
    assert_eq!(opened.fingerprint(), a.fingerprint());
}

#[test]
fn an_old_certificate_is_renewed_at_the_start() {
    let dir = tempdir().unwrap();
    let now = SystemTime::now();
    drop(first(dir.path(), CLUSTER, now - 3 * 365 * DAY));
    let a = Trust::open(&dir.path().join("tls"), now).unwrap();
    assert!(!a.renew(now).unwrap());
}
