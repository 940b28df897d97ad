//! Who is not let in, and what nobody may do to another.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use kine2_proto::kine2::Nothing;
use kine2_proto::kine2::witness_down::Message as Down;
use kine2_proto::kine2::witness_hello::Purpose;
use kine2_replication::{Ask, ClusterId, Refusal as Refused, Tell, WitnessId};
use kine2_trust::{Code, Fingerprint, Refusal, joining_client};
use tempfile::tempdir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::cluster::{Cluster, add_b, node};
use super::link::{Connection, Session, enrol, enrol_as, witness_of};
use super::witness::{Process, status, token};

#[tokio::test]
async fn strangers_and_foreign_certificates_are_refused_and_counted() {
    let dir = tempdir().unwrap();
    let process = Process::start(dir.path());
    let (cluster, to) = (Cluster::new(0xc1), process.address);
    let code = token(dir.path(), to);
    let witness = witness_of(&code);
    // Not enrolled yet.
    refused(to, &cluster, witness).await;
    assert_eq!(enrol(to, &code, &cluster.a).await, "");
    Session::open(to, &cluster.a, witness).await;
    // The same cluster by another authority; another cluster; one whose certificate is over.
    refused(to, &Cluster::new(0xc1), witness).await;
    refused(to, &Cluster::new(0xc2), witness).await;
    let old = Cluster::made(0xc3, SystemTime::now() - Duration::from_secs(370 * 86400));
    let code = token(dir.path(), to);
    assert_eq!(enrol(to, &code, &old.a).await, "");
    refused(to, &old, witness).await;
    // No certificate at all.
    for purpose in [Purpose::Session(Nothing {}), Purpose::Status(Nothing {})] {
        let config = joining_client(&code).unwrap();
        let mut connection = Connection::open(to, config).await.unwrap();
        let welcome = connection.greet(purpose).await.unwrap();
        assert!(welcome.refused.contains("no certificate"), "{welcome:?}");
        assert!(welcome.status.is_empty());
    }
    // Something else than TLS, and then than the protocol.
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    process.logs("reason=\"protocol\"");
    let config = joining_client(&code).unwrap();
    let mut connection = Connection::open(to, config).await.unwrap();
    connection.write.write_all(b"GET / HTTP").await.unwrap();
    connection.write.flush().await.unwrap();
    assert_eq!(
        connection
            .next::<kine2_proto::kine2::WitnessWelcome>()
            .await,
        None
    );
    process.logs("reason=\"protocol\"");
    let status = status(dir.path());
    let count = |reason: &str| status["refused"][reason].as_u64().unwrap_or(0);
    assert_eq!(count("other_cluster"), 2, "{status}");
    assert_eq!(count("foreign_authority"), 1, "{status}");
    assert_eq!(count("expired"), 1, "{status}");
    assert_eq!(count("no_certificate"), 2, "{status}");
    assert_eq!(count("protocol"), 2, "{status}");
}

async fn refused(to: SocketAddr, cluster: &Cluster, witness: WitnessId) {
    let refused = Session::try_open(to, &cluster.a, witness).await;
    assert!(refused.is_err(), "{:?} was let in", cluster.id);
}

#[tokio::test]
async fn a_node_refuses_a_witness_that_is_not_its_own() {
    let dir = tempdir().unwrap();
    let process = Process::start(dir.path());
    let (cluster, to) = (Cluster::new(0xc1), process.address);
    let code = token(dir.path(), to);
    assert_eq!(enrol(to, &code, &cluster.a).await, "");
    let other = WitnessId(witness_of(&code).0 ^ 1);
    let config = cluster.a.witness_client_config(other).unwrap();
    let refused = Connection::open(to, config).await.map(|_| ());
    assert_eq!(refused, Err(Refusal::NotThePinned));
    let code = Code {
        fingerprint: Fingerprint([0; 32]),
        ..code
    };
    let config = joining_client(&code).unwrap();
    let refused = Connection::open(to, config).await.map(|_| ());
    assert_eq!(refused, Err(Refusal::NotThePinned));
}

#[tokio::test]
async fn a_code_enrols_one_cluster_once() {
    let dir = tempdir().unwrap();
    let process = Process::start(dir.path());
    let to = process.address;
    let (one, other) = (Cluster::new(0xc1), Cluster::new(0xc2));
    let code = token(dir.path(), to);
    // A request that is wrong in itself leaves the code open.
    let refused = enrol_as(to, &code, ClusterId(0xc9), &one.a).await;
    assert!(refused.contains("another cluster's"), "{refused}");
    assert_eq!(enrol(to, &code, &one.a).await, "");
    let refused = enrol(to, &code, &other.a).await;
    assert!(refused.contains("used already"), "{refused}");
    let mut unknown = token(dir.path(), to);
    unknown.secret.0[0] ^= 1;
    let refused = enrol(to, &unknown, &other.a).await;
    assert!(refused.contains("not known"), "{refused}");
    // Nobody takes a cluster over by a code; the cluster itself may come again.
    let refused = enrol(to, &token(dir.path(), to), &Cluster::new(0xc1).a).await;
    assert!(refused.contains("another authority"), "{refused}");
    assert_eq!(enrol(to, &token(dir.path(), to), &one.b).await, "");
    let status = status(dir.path());
    assert_eq!(status["clusters"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(status["refused"]["code"], 4, "{status}");
}

#[tokio::test]
async fn a_certificate_of_one_cluster_never_touches_another() {
    let dir = tempdir().unwrap();
    let process = Process::start(dir.path());
    let to = process.address;
    let (one, other) = (Cluster::new(0xc1), Cluster::new(0xc2));
    for cluster in [&one, &other] {
        assert_eq!(enrol(to, &token(dir.path(), to), &cluster.a).await, "");
    }
    let witness = witness_of(&token(dir.path(), to));
    let mut mine = Session::open(to, &one.a, witness).await;
    // Two clusters may have a unit, and even nodes, of one name.
    let (key, first) = (one.key("main"), one.first("main", witness));
    mine.call(&key, Ask::Init(Box::new(first.clone()))).await;
    let mut theirs = Session::open(to, &other.a, witness).await;
    let own = theirs.call(&other.key("main"), Ask::Get).await;
    assert_eq!(own, Tell::Refused(Refused::UnknownRegister));
    let stolen = add_b().make(&first, &node("a"), 2).unwrap();
    for ask in [
        Ask::Get,
        Ask::Init(Box::new(first.clone())),
        Ask::Force(Box::new(kine2_replication::Force {
            config: stolen.clone(),
            part: None,
        })),
        Ask::Suspect(first.epoch),
    ] {
        let mut theirs = Session::open(to, &other.a, witness).await;
        theirs.send(&key, ask).await;
        assert!(is_thrown_out(&mut theirs).await);
    }
    // Nor under its own key with another's record.
    let mut theirs = Session::open(to, &other.a, witness).await;
    let refused = theirs
        .call(&other.key("main"), Ask::Init(Box::new(stolen)))
        .await;
    assert!(
        matches!(refused, Tell::Refused(Refused::Record(_))),
        "{refused:?}"
    );
    // Nor as the other node of the same cluster.
    let mut as_b = Session::open(to, &one.a, witness).await;
    as_b.send_as(&key, node("b"), Ask::Get).await;
    assert!(is_thrown_out(&mut as_b).await);
    let mut mine = Session::open(to, &one.a, witness).await;
    assert_eq!(mine.get(&key).await, first);
}

/// Whether the session is told that it ends, and does.
async fn is_thrown_out(session: &mut Session) -> bool {
    loop {
        match session.next().await {
            Some(Down::Bye(why)) => {
                assert!(why.contains("in the name of another"), "{why}");
                return session.next().await.is_none();
            }
            Some(Down::Word(word)) if word.answers.is_none() => {}
            _ => return false,
        }
    }
}

#[tokio::test]
async fn a_cluster_has_its_share_of_registers_and_no_more() {
    let dir = tempdir().unwrap();
    let process = Process::start(dir.path());
    let (cluster, to) = (Cluster::new(0xc1), process.address);
    let code = token(dir.path(), to);
    assert_eq!(enrol(to, &code, &cluster.a).await, "");
    let witness = witness_of(&code);
    let mut a = Session::open(to, &cluster.a, witness).await;
    for number in 0..=32 {
        let unit = format!("u{number}");
        let first = Box::new(cluster.first(&unit, witness));
        let told = a.call(&cluster.key(&unit), Ask::Init(first)).await;
        match number {
            32 => assert_eq!(told, Tell::Refused(Refused::RegistersMax)),
            _ => assert!(matches!(told, Tell::Register(_)), "{number}: {told:?}"),
        }
    }
}
