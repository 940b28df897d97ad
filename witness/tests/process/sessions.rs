//! When a session is there, and when it is not.

use std::time::{Duration, Instant};

use kine2_proto::kine2::WitnessUp;
use kine2_proto::kine2::witness_down::Message as Down;
use kine2_proto::kine2::witness_up::Message as Up;
use kine2_replication::{Ask, Tell};
use tempfile::{TempDir, tempdir};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::cluster::{Cluster, add_b};
use super::link::{Session, enrol, witness_of};
use super::witness::{Process, token};

/// A pair of which both nodes have a session.
struct Pair {
    process: Process,
    cluster: Cluster,
    a: Session,
    b: Session,
    _dir: TempDir,
}

impl Pair {
    async fn start() -> Self {
        let dir = tempdir().unwrap();
        let process = Process::start(dir.path());
        let (cluster, to) = (Cluster::new(0xc1), process.address);
        let code = token(dir.path(), to);
        assert_eq!(enrol(to, &code, &cluster.a).await, "");
        let (witness, key) = (witness_of(&code), cluster.key("main"));
        let mut a = Session::open(to, &cluster.a, witness).await;
        let first = cluster.first("main", witness);
        a.call(&key, Ask::Init(Box::new(first.clone()))).await;
        a.report(&key, &first).await;
        let added = a.cas(&key, add_b()).await;
        assert!(matches!(added, Tell::Register(_)), "{added:?}");
        let mut b = Session::open(to, &cluster.b, witness).await;
        assert!(matches!(b.word().await.tell, Tell::Register(_)));
        assert_eq!(b.word().await.tell, Tell::Peer { connected: true });
        assert_eq!(a.word().await.tell, Tell::Peer { connected: true });
        Self {
            process,
            cluster,
            a,
            b,
            _dir: dir,
        }
    }
}

async fn keep_alive(session: &mut Session, number: u64) {
    let message = Some(Up::KeepAlive(number));
    session.connection.send(&WitnessUp { message }).await;
}

#[tokio::test]
async fn a_closed_session_is_told_to_the_other_node_at_once() {
    let mut pair = Pair::start().await;
    let closed = Instant::now();
    drop(pair.b);
    assert_eq!(pair.a.word().await.tell, Tell::Peer { connected: false });
    let took = closed.elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn a_new_session_of_a_node_takes_the_place_of_its_old_one() {
    let mut pair = Pair::start().await;
    let witness = pair.a.witness;
    let mut new = Session::open(pair.process.address, &pair.cluster.b, witness).await;
    assert!(matches!(new.word().await.tell, Tell::Register(_)));
    assert_eq!(pair.b.next().await, None);
    // The other node never hears that it was gone.
    assert_eq!(pair.a.word().await.tell, Tell::Peer { connected: true });
    drop(pair.b);
    let key = pair.cluster.key("main");
    let number = pair.a.send(&key, Ask::Get).await;
    assert_eq!(pair.a.word().await.answers, Some(number));
}

#[tokio::test]
async fn who_keeps_it_alive_stays_and_who_is_silent_goes() {
    let mut pair = Pair::start().await;
    let started = Instant::now();
    let mut number = 0;
    // a says something every two seconds, b nothing.
    let gone_after = loop {
        number += 1;
        keep_alive(&mut pair.a, number).await;
        assert_eq!(pair.a.next().await, Some(Down::KeepAlive(number)));
        let next = tokio::time::timeout(Duration::from_secs(2), pair.a.next()).await;
        match next {
            Err(_) => assert!(number < 10, "b stays"),
            Ok(Some(Down::Word(word))) => {
                let word = kine2_peer::wire::word_from_wire(word).unwrap();
                assert_eq!(word.tell, Tell::Peer { connected: false });
                break started.elapsed();
            }
            Ok(other) => panic!("{other:?}"),
        }
    };
    let expected = Duration::from_secs(8)..Duration::from_secs(11);
    assert!(expected.contains(&gone_after), "{gone_after:?}");
    keep_alive(&mut pair.a, 99).await;
    assert_eq!(pair.a.next().await, Some(Down::KeepAlive(99)));
}

#[tokio::test]
async fn who_reads_nothing_is_closed_and_delays_nobody() {
    let mut pair = Pair::start().await;
    let key = pair.cluster.key("main");
    let flood = async {
        loop {
            pair.b.send(&key, Ask::Get).await;
        }
    };
    let other = async {
        let mut slowest = Duration::ZERO;
        loop {
            let asked = Instant::now();
            let number = pair.a.send(&key, Ask::Get).await;
            let word = pair.a.word().await;
            match word.answers {
                Some(answered) => assert_eq!(answered, number),
                None => {
                    assert_eq!(word.tell, Tell::Peer { connected: false });
                    return slowest;
                }
            }
            slowest = slowest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let slowest = tokio::select! {
        () = flood => unreachable!("it never ends"),
        slowest = other => slowest,
    };
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_session() {
    let mut pair = Pair::start().await;
    let length = (64 << 10) + 1_u32;
    let write = &mut pair.b.connection.write;
    write.write_all(&length.to_le_bytes()).await.unwrap();
    write.flush().await.unwrap();
    assert_eq!(pair.b.next().await, None);
    assert_eq!(pair.a.word().await.tell, Tell::Peer { connected: false });
}

/// Connections that say nothing take all places for handshakes; they are thrown out and nodes come
/// through.
#[tokio::test]
async fn silent_connections_keep_no_node_out_for_long() {
    let pair = Pair::start().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(pair.process.address).await.unwrap());
    }
    let asked = Instant::now();
    let witness = pair.a.witness;
    Session::open(pair.process.address, &pair.cluster.a, witness).await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(11), "{took:?}");
    drop(silent);
}
