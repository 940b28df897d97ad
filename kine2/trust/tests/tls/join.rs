//! One-time codes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kine2_replication::NodeRef;
use kine2_trust::{
    Accepted, Asking, Authority, Code, CodeKind, CodeRefusal, Fingerprint, JoinError, JoinRefusal,
    Refusal, RefusalKind, Trust, admit, joining_client, nobody,
};
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{CLUSTER, first, meet, node};

const LIFE: Duration = Duration::from_secs(600);

fn code_of(a: &Trust, now: SystemTime) -> Code {
    let addresses = vec!["127.0.0.1:2380".into()];
    let code = Code::new(CodeKind::Join, addresses, a.fingerprint(), LIFE, now).unwrap();
    a.codes().add(&code, now).unwrap();
    code
}

/// The trust of a node that joined the cluster of `a`, without a connection between.
pub(crate) fn joined(a: &Trust, dir: &Path, node: &NodeRef, now: SystemTime) -> Trust {
    let code = code_of(a, now);
    let asking = Asking::begin(&code, node.clone(), Bytes::new()).unwrap();
    let admission = admit(&a.codes(), asking.request(), now, |_, _| Ok(())).unwrap();
    let answer = admission.answer(&a.authority().unwrap(), Bytes::new(), now);
    let joined = asking.answered(answer.unwrap(), now).unwrap();
    // Opening it would renew a certificate that was made long ago.
    Trust::join(&dir.join("tls"), &joined, now).unwrap()
}

/// The joiner's side of a connection: one message there, one back.
async fn exchange(stream: TcpStream, code: &Code, request: Bytes) -> Result<Bytes, Refusal> {
    let connector = TlsConnector::from(Arc::new(joining_client(code).unwrap()));
    let stream = connector.connect(nobody(), stream).await;
    let mut stream = stream.map_err(|error| Refusal::of_io(&error))?;
    stream
        .write_u32_le(u32::try_from(request.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&request).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; stream.read_u32_le().await.unwrap() as usize];
    stream.read_exact(&mut answer).await.unwrap();
    Ok(answer.into())
}

/// The member's side.
async fn serve(a: &Trust, accepted: Accepted, now: SystemTime) -> Result<NodeRef, JoinRefusal> {
    let Accepted::Joiner(mut stream) = accepted else {
        panic!("a joiner came as a member");
    };
    let mut request = vec![0; stream.read_u32_le().await.unwrap() as usize];
    stream.read_exact(&mut request).await.unwrap();
    let admitted = admit(&a.codes(), request.into(), now, |node, payload| {
        assert_eq!(&payload[..], b"from joiner");
        match node.name.as_str() {
            "a" => Err("there is a node named a already".to_owned()),
            _ => Ok(()),
        }
    });
    let payload = Bytes::from_static(b"from member");
    let answer = match &admitted {
        Ok(admission) => admission.answer(&a.authority().unwrap(), payload, now)?,
        Err(refusal) => refusal.answer(),
    };
    stream
        .write_u32_le(u32::try_from(answer.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&answer).await.unwrap();
    stream.flush().await.unwrap();
    admitted.map(|admission| admission.node().clone())
}

#[tokio::test]
async fn a_code_lets_one_node_in_over_the_network() {
    let dirs = [tempdir().unwrap(), tempdir().unwrap()];
    let now = SystemTime::now();
    let a = first(dirs[0].path(), CLUSTER, now);
    let code = code_of(&a, now).to_string();
    let code = Code::read(&code, CodeKind::Join, now).unwrap();
    let join = async |name: &str| {
        let payload = Bytes::from_static(b"from joiner");
        let asking = Asking::begin(&code, node(name), payload).unwrap();
        let request = asking.request();
        let (here, there) = super::ends().await;
        let server = async {
            let accepted = kine2_trust::accept(&a, there).await.unwrap();
            serve(&a, accepted, now).await
        };
        let (served, answer) = tokio::join!(server, exchange(here, &code, request));
        (served, asking.answered(answer.unwrap(), now))
    };
    // What the cluster does not take leaves the code open.
    let (served, answered) = join("a").await;
    assert!(matches!(served, Err(JoinRefusal::Cluster(_))), "{served:?}");
    let told = answered.unwrap_err().to_string();
    assert_eq!(told, "the cluster refused: there is a node named a already");
    let (served, answered) = join("b").await;
    assert_eq!(served.unwrap(), node("b"));
    let answered = answered.unwrap();
    assert_eq!(&answered.payload[..], b"from member");
    let b = Trust::join(&dirs[1].path().join("tls"), &answered, now).unwrap();
    assert_eq!(b.owner().node, node("b"));
    assert_eq!(b.fingerprint(), a.fingerprint());
    // Each can renew its own.
    assert!(b.renew(now + 300 * super::DAY).unwrap());
    let (served, answered) = join("c").await;
    let used = |refusal: &JoinRefusal| matches!(refusal, JoinRefusal::Code(CodeRefusal::Used));
    assert!(served.is_err_and(|refusal| used(&refusal)));
    let told = answered.unwrap_err();
    assert!(matches!(told, JoinError::Refused(_)), "{told}");
}

#[tokio::test]
async fn a_joiner_refuses_a_server_that_its_code_does_not_name() {
    let dir = tempdir().unwrap();
    let now = SystemTime::now();
    let a = first(dir.path(), CLUSTER, now);
    let mut code = code_of(&a, now);
    code.fingerprint = Fingerprint([0; 32]);
    let (accepted, connected) = meet(&a, async |s| exchange(s, &code, Bytes::new()).await).await;
    assert!(matches!(accepted, Err(Refusal::ByPeer(_))), "{accepted:?}");
    assert_eq!(connected, Err(Refusal::NotThePinned));
    assert_eq!(a.refusals().get(RefusalKind::ByPeer), 1);
}

#[test]
fn unknown_expired_and_malformed_requests_are_told_apart() {
    let dir = tempdir().unwrap();
    let now = SystemTime::now();
    let a = first(dir.path(), CLUSTER, now);
    let ask = |code: &Code, now| {
        let asking = Asking::begin(code, node("b"), Bytes::new()).unwrap();
        admit(&a.codes(), asking.request(), now, |_, _| Ok(())).map(|_| ())
    };
    let code = code_of(&a, now);
    let expired = ask(&code, now + LIFE).unwrap_err();
    assert!(matches!(expired, JoinRefusal::Code(CodeRefusal::Expired)));
    let life = Duration::from_secs(600);
    let never = Code::new(CodeKind::Join, Vec::new(), a.fingerprint(), life, now).unwrap();
    let unknown = ask(&never, now).unwrap_err();
    assert!(matches!(unknown, JoinRefusal::Code(CodeRefusal::Unknown)));
    assert_eq!(unknown.kind(), RefusalKind::Code);
    for bad in [&b""[..], b"\xff", &[0; 100_000], b"\x08\x02"] {
        let bad = Bytes::copy_from_slice(bad);
        let refusal = admit(&a.codes(), bad, now, |_, _| Ok(())).unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::Protocol, "{refusal}");
    }
    let enrol = Code {
        kind: CodeKind::Enrol,
        ..code.clone()
    };
    let asking = Asking::begin(&enrol, node("b"), Bytes::new());
    assert!(matches!(asking, Err(JoinError::Kind)));
    ask(&code, now).unwrap();
}

#[test]
fn a_joiner_takes_only_what_its_code_promises() {
    let dir = tempdir().unwrap();
    let now = SystemTime::now();
    let a = first(dir.path(), CLUSTER, now);
    let authority = a.authority().unwrap();
    let other = Authority::make(CLUSTER, now).unwrap();
    let untrue = |authority: &Authority, name: &str, own_key: bool| {
        let code = code_of(&a, now);
        let asking = Asking::begin(&code, node("b"), Bytes::new()).unwrap();
        let sent = Asking::begin(&code, node(name), Bytes::new()).unwrap();
        let sent = if own_key {
            asking.request()
        } else {
            sent.request()
        };
        let admission = admit(&a.codes(), sent, now, |_, _| Ok(())).unwrap();
        let answer = admission.answer(authority, Bytes::new(), now).unwrap();
        asking.answered(answer, now).unwrap_err().to_string()
    };
    assert!(untrue(&other, "b", true).contains("another authority"));
    assert!(untrue(&authority, "c", false).contains("another node"));
    assert!(untrue(&authority, "b", false).contains("another key"));
}
