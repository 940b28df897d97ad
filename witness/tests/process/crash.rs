//! What it must not forget.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kine2_replication::{Ask, Form, Tell};
use tempfile::tempdir;

use super::cluster::{Cluster, add_b};
use super::link::{Session, enrol, witness_of};
use super::witness::{Process, program, run, status, token};

fn state_bytes(dir: &Path) -> u64 {
    fs::metadata(dir.join("witness.state")).unwrap().len()
}

#[tokio::test]
async fn a_restart_keeps_clusters_registers_and_used_codes() {
    let dir = tempdir().unwrap();
    let mut process = Process::start(dir.path());
    let cluster = Cluster::new(0xc1);
    let code = token(dir.path(), process.address);
    assert_eq!(enrol(process.address, &code, &cluster.a).await, "");
    let (witness, key) = (witness_of(&code), cluster.key("main"));
    let mut a = Session::open(process.address, &cluster.a, witness).await;
    let first = cluster.first("main", witness);
    a.call(&key, Ask::Init(Box::new(first.clone()))).await;
    a.report(&key, &first).await;
    let Tell::Register(added) = a.cas(&key, add_b()).await else {
        panic!("ADD was refused");
    };
    let before = status(dir.path());
    process.kill();
    let process = Process::start(dir.path());
    let after = status(dir.path());
    assert_eq!(after["witness"], before["witness"]);
    assert_ne!(after["life"], before["life"]);
    assert_eq!(
        after["clusters"][0]["units"],
        before["clusters"][0]["units"]
    );
    let mut a = Session::open(process.address, &cluster.a, witness).await;
    assert_eq!(a.get(&key).await, *added);
    let other = Cluster::new(0xc2);
    let refused = enrol(process.address, &code, &other.a).await;
    assert!(refused.contains("used already"), "{refused}");
}

/// The register is changed again and again, and the process killed at once when the change is in
/// the file, before its answer was read.
#[tokio::test]
async fn a_kill_between_write_and_answer_loses_nothing() {
    let dir = tempdir().unwrap();
    let mut process = Process::start(dir.path());
    let cluster = Cluster::new(0xc1);
    let code = token(dir.path(), process.address);
    assert_eq!(enrol(process.address, &code, &cluster.a).await, "");
    let (witness, key) = (witness_of(&code), cluster.key("main"));
    let mut a = Session::open(process.address, &cluster.a, witness).await;
    let first = cluster.first("main", witness);
    a.call(&key, Ask::Init(Box::new(first.clone()))).await;
    let mut stored = first;
    for round in 0..10 {
        a.report(&key, &stored).await;
        let form = Form::Policy(kine2_replication::Policies {
            boot_alone: round % 2 == 1,
            ..stored.policies.clone()
        });
        let cas = a.make(&key, form).await;
        let bytes = state_bytes(dir.path());
        a.send(&key, Ask::Cas(Box::new(cas.clone()))).await;
        let sent = Instant::now();
        while state_bytes(dir.path()) == bytes {
            let waited = sent.elapsed();
            assert!(waited < Duration::from_secs(10), "nothing is written");
            std::hint::spin_loop();
        }
        process.kill();
        process = Process::start(dir.path());
        a = Session::open(process.address, &cluster.a, witness).await;
        assert_eq!(a.get(&key).await, cas.new, "round {round}");
        // The node, which saw no answer, asks again and is told what it is.
        let again = a.call(&key, Ask::Cas(Box::new(cas.clone()))).await;
        assert_eq!(again, Tell::Register(Box::new(cas.new.clone())));
        stored = cas.new;
    }
}

/// The file may not grow, as on a full disk: what cannot be written is not answered, and the
/// process ends.
#[tokio::test]
async fn a_failed_write_ends_the_process_without_an_answer() {
    let dir = tempdir().unwrap();
    let mut process = Process::start(dir.path());
    let cluster = Cluster::new(0xc1);
    let code = token(dir.path(), process.address);
    assert_eq!(enrol(process.address, &code, &cluster.a).await, "");
    let (witness, key) = (witness_of(&code), cluster.key("main"));
    let mut a = Session::open(process.address, &cluster.a, witness).await;
    let first = cluster.first("main", witness);
    a.call(&key, Ask::Init(Box::new(first.clone()))).await;
    process.kill();
    let blocks = state_bytes(dir.path()) / 512 + 1;
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    command.args(["-c", &script, "sh"]);
    command.arg(program().get_program()).arg("serve");
    let mut process = Process::started_by(command, dir.path());
    let mut a = Session::open(process.address, &cluster.a, witness).await;
    let mut stored = a.get(&key).await;
    let mut ended = false;
    for round in 0..20 {
        a.report(&key, &stored).await;
        let policies = kine2_replication::Policies {
            boot_alone: round % 2 == 1,
            ..stored.policies.clone()
        };
        let cas = a.make(&key, Form::Policy(policies)).await;
        let number = a.send(&key, Ask::Cas(Box::new(cas.clone()))).await;
        match a.next().await {
            Some(kine2_proto::kine2::witness_down::Message::Word(word)) => {
                assert_eq!(word.answers, Some(number));
                stored = cas.new;
            }
            None => {
                ended = true;
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(ended, "20 records fit in one block");
    let status = process.ended();
    assert_eq!(status.code(), Some(1), "signal {:?}", status.signal());
    process.logs("can no longer be written");
    // What was answered is there; what was not may be cut off.
    let process = Process::start(dir.path());
    let mut a = Session::open(process.address, &cluster.a, witness).await;
    assert_eq!(a.get(&key).await, stored);
}

#[test]
fn a_damaged_store_is_not_served_from() {
    let dir = tempdir().unwrap();
    drop(Process::start(dir.path()));
    let path = dir.path().join("witness.state");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = run(&["serve", "--listen", "127.0.0.1:0"], dir.path());
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("damaged at byte"), "{why}");
    assert!(why.contains("witness replace"), "{why}");
}

#[test]
fn one_directory_has_one_witness() {
    let dir = tempdir().unwrap();
    let missing = run(&["token"], dir.path());
    let why = String::from_utf8(missing.stderr).unwrap();
    assert!(why.contains("no witness yet"), "{why}");
    let why = String::from_utf8(run(&["status"], dir.path()).stderr).unwrap();
    assert!(why.contains("no witness serves"), "{why}");
    let _process = Process::start(dir.path());
    let second = run(&["serve", "--listen", "127.0.0.1:0"], dir.path());
    assert_eq!(second.status.code(), Some(1));
    let why = String::from_utf8(second.stderr).unwrap();
    assert!(why.contains("another kine2-witness uses"), "{why}");
}
