//! What becomes of writes that a forced promotion overruled.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::Duration;

use kine2_e2e::client::Client;
use kine2_e2e::pair::{Node, Pair};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);

fn put(pair: &Pair, node: Node, key: &str, value: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let url = pair.url(node);
    let put = async { Client::new(&url).put(key, value, PATIENCE).await };
    runtime.unwrap().block_on(put).unwrap();
}

fn json(pair: &Pair, node: Node, command: &[&str]) -> Value {
    let said = pair.kine2(node, &[command, &["-o", "json"]].concat());
    serde_json::from_str(&said).unwrap()
}

fn ids(pair: &Pair, node: Node) -> Vec<String> {
    let listed = json(pair, node, &["quarantine", "list"]);
    let kept = listed[0]["quarantine"]["kept"].as_array().unwrap().iter();
    kept.map(|kept| kept["id"].as_str().unwrap().to_owned())
        .collect()
}

fn kinds(pair: &Pair, node: Node) -> Vec<String> {
    let said = pair.kine2(node, &["events", "-n", "200", "-o", "json"]);
    let events = said.lines().map(|line| serde_json::from_str(line).unwrap());
    let kind = |event: Value| event["kind"].as_str().unwrap().to_owned();
    events.map(kind).collect()
}

/// a acknowledges by itself and stands still; b goes on by force, and writes.
fn overruled() -> Pair {
    let mut pair = Pair::start();
    put(&pair, Node::A, "both", "1");
    pair.kill(Node::B);
    pair.wait_for(Node::A, "ALONE");
    put(&pair, Node::A, "both", "of a");
    put(&pair, Node::A, "only-a", "of a");
    pair.kill_witness();
    pair.signal(Node::A, Signal::STOP);
    pair.start_node(Node::B);
    pair.wait_for(Node::B, "WAIT");
    pair.kine2(Node::B, &["promote", "--force", "--without-witness"]);
    pair.wait_for(Node::B, "ALONE");
    put(&pair, Node::B, "both", "of b");
    pair
}

#[test]
fn what_was_acknowledged_and_overruled_is_compared_exported_and_discarded() {
    let mut pair = overruled();
    pair.signal(Node::A, Signal::CONT);
    pair.wait_for(Node::A, "WAIT (diverged)");
    assert!(ids(&pair, Node::A).is_empty(), "the operator decides first");
    pair.kine2(Node::A, &["rejoin"]);
    pair.wait_for(Node::A, "SECOND");

    let [id] = &ids(&pair, Node::A)[..] else {
        panic!("there is one")
    };
    let found = json(&pair, Node::A, &["quarantine", "diff", id]);
    let differing = found[0]["difference"]["differing"].as_array().unwrap();
    let of = |key: &str| differing.iter().find(|one| one["key"] == key);
    let both = of("both").unwrap_or_else(|| panic!("{found:#}"));
    assert_eq!(
        (&both["put_away"], &both["now"]),
        (&"of a".into(), &"of b".into())
    );
    let only = of("only-a").unwrap_or_else(|| panic!("{found:#}"));
    assert_eq!(only["now"], Value::Null, "{found:#}");
    let said = pair.kine2(Node::A, &["quarantine", "diff", id]);
    assert!(
        said.contains("only-a") && said.contains("no such key"),
        "{said}"
    );

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("export");
    pair.kine2(
        Node::A,
        &["quarantine", "export", id, file.to_str().unwrap()],
    );
    let exported = std::fs::read_to_string(&file).unwrap();
    assert!(exported.contains("\"only-a\""), "{exported}");

    let status = pair.status(Node::A);
    assert!(
        status["quarantine_bytes"].as_u64().unwrap() > 0,
        "{status:#}"
    );
    // The other node has none, and a name that is not there is refused.
    assert!(ids(&pair, Node::B).is_empty());
    let (done, said) = pair.try_kine2(Node::A, &["quarantine", "discard", "x"]);
    assert!(!done && said.contains(id.as_str()), "{said}");
    pair.kine2(Node::A, &["quarantine", "discard", id]);
    assert!(ids(&pair, Node::A).is_empty());
    let kinds = kinds(&pair, Node::A);
    for kind in ["diverged", "quarantine-begun", "quarantined", "command"] {
        assert!(kinds.contains(&kind.to_owned()), "{kind} of {kinds:?}");
    }
}

#[test]
fn what_was_overruled_can_be_given_up_at_once() {
    let mut pair = overruled();
    pair.signal(Node::A, Signal::CONT);
    pair.wait_for(Node::A, "WAIT (diverged)");
    pair.kine2(Node::B, &["rejoin", "--discard", "--node", "a"]);
    pair.wait_for(Node::A, "SECOND");
    assert!(ids(&pair, Node::A).is_empty());
    // Nothing more is to be given up, and no part is away.
    let said = pair.kine2(Node::A, &["rejoin"]);
    assert!(said.contains("nothing to give up"), "{said}");
    let force = ["promote", "--force", "--part", "store"];
    let (done, said) = pair.try_kine2(Node::B, &force);
    assert!(!done && said.contains("not away"), "{said}");
}
