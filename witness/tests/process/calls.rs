//! What a witness is for.

use std::time::Duration;

use kine2_proto::kine2::Nothing;
use kine2_proto::kine2::witness_hello::Purpose;
use kine2_replication::{Ask, Form, Reason, Refusal, Tell};
use tempfile::tempdir;

use super::cluster::{Cluster, add_b, node};
use super::link::{Connection, Session, enrol, witness_of};
use super::witness::{Process, run, status, token};

#[tokio::test]
async fn a_pair_is_enrolled_and_the_survivor_takes_over() {
    let dir = tempdir().unwrap();
    let process = Process::start(dir.path());
    let (cluster, to) = (Cluster::new(0xc1), process.address);
    let code = token(dir.path(), to);
    assert_eq!(enrol(to, &code, &cluster.a).await, "");
    let (witness, key) = (witness_of(&code), cluster.key("main"));
    let mut a = Session::open(to, &cluster.a, witness).await;
    let first = cluster.first("main", witness);
    let made = a.call(&key, Ask::Init(Box::new(first.clone()))).await;
    assert_eq!(made, Tell::Register(Box::new(first.clone())));
    a.report(&key, &first).await;
    // A unit of one member waits for no other.
    let Tell::Register(mirror) = a.cas(&key, add_b()).await else {
        panic!("ADD was refused");
    };
    let mut b = Session::open(to, &cluster.b, witness).await;
    let told = b.word().await;
    assert_eq!(told.tell, Tell::Register(mirror.clone()));
    a.report(&key, &mirror).await;
    b.report(&key, &mirror).await;
    let take = b.make(&key, Form::Takeover).await;
    // The primary is silent, but its session is open: the takeover waits for the verdict. When the
    // connection closes it goes on, if probation allows.
    drop(a);
    let taken = loop {
        match b.call(&key, Ask::Cas(Box::new(take.clone()))).await {
            Tell::Refused(Refusal::Probation | Refusal::PrimaryAlive) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            told => break told,
        }
    };
    let Tell::Register(taken) = taken else {
        panic!("{taken:?}");
    };
    assert_eq!(taken.primary, node("b"));
    assert_eq!(taken.reason, Reason::Takeover);
    let status = status(dir.path());
    let unit = &status["clusters"][0]["units"][0];
    assert_eq!(unit["primary"], "b", "{status}");
    assert_eq!(unit["in_sync"]["store"], serde_json::json!(["b"]));
    assert_eq!(unit["regressed"], false);
    assert_eq!(status["clusters"][0]["sessions"][0]["name"], "b");
    let text = String::from_utf8(run(&["status"], dir.path()).stdout).unwrap();
    assert!(
        text.contains("unit main: epoch 3 (takeover), primary b"),
        "{text}"
    );
}

#[tokio::test]
async fn a_register_that_went_backwards_is_shown() {
    let dir = tempdir().unwrap();
    let process = Process::start(dir.path());
    let (cluster, to) = (Cluster::new(0xc1), process.address);
    let code = token(dir.path(), to);
    assert_eq!(enrol(to, &code, &cluster.a).await, "");
    let (witness, key) = (witness_of(&code), cluster.key("main"));
    let mut a = Session::open(to, &cluster.a, witness).await;
    let first = cluster.first("main", witness);
    a.call(&key, Ask::Init(Box::new(first.clone()))).await;
    let later = add_b().make(&first, &node("a"), 9).unwrap();
    a.report(&key, &later).await;
    let refused = a.cas(&key, add_b()).await;
    assert_eq!(refused, Tell::Refused(Refusal::Regressed));
    let status = status(dir.path());
    assert_eq!(status["clusters"][0]["units"][0]["regressed"], true);
    let text = String::from_utf8(run(&["status"], dir.path()).stdout).unwrap();
    assert!(text.contains("REGRESSED"), "{text}");
}

#[tokio::test]
async fn a_node_may_ask_for_the_status_of_its_own_cluster() {
    let dir = tempdir().unwrap();
    let process = Process::start(dir.path());
    let to = process.address;
    let clusters = [Cluster::new(0xc1), Cluster::new(0xc2)];
    for cluster in &clusters {
        let code = token(dir.path(), to);
        assert_eq!(enrol(to, &code, &cluster.a).await, "");
    }
    let witness = witness_of(&token(dir.path(), to));
    let config = clusters[1].b.witness_client_config(witness).unwrap();
    let mut connection = Connection::open(to, config).await.unwrap();
    let welcome = connection.greet(Purpose::Status(Nothing {})).await.unwrap();
    let status: serde_json::Value = serde_json::from_str(&welcome.status).unwrap();
    let names: Vec<_> = status["clusters"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 1, "{status}");
    assert_eq!(names[0]["cluster"], format!("{:032x}", 0xc2));
    assert_eq!(status["refused"], serde_json::Value::Null);
}
