//! What the journal tells of a pair.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::{Duration, Instant};

use kine2_e2e::pair::{Node, Pair};
use serde_json::Value;

/// Events are written by and by.
const WITHIN: Duration = Duration::from_secs(30);

fn events(pair: &Pair, asked: Node, more: &[&str]) -> Vec<Value> {
    let command = [&["events", "-o", "json", "-n", "1000"], more].concat();
    let said = pair.kine2(asked, &command);
    let lines = said.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits for an event of this kind with all these words.
fn wait_for(pair: &Pair, node: Node, kind: &str, words: &[&str]) -> Value {
    let begun = Instant::now();
    loop {
        let all = events(pair, node, &[]);
        let found = all.iter().rev().find(|event| {
            let text = event["text"].as_str().unwrap();
            event["kind"] == kind && words.iter().all(|word| text.contains(word))
        });
        if let Some(found) = found {
            return found.clone();
        }
        assert!(begun.elapsed() < WITHIN, "no {kind} {words:?} in {all:#?}");
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "it waits for real processes")]
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn a_takeover_is_told_with_its_cause_and_what_was_measured() {
    let mut pair = Pair::start();
    wait_for(&pair, Node::A, "witness-found", &[]);
    wait_for(&pair, Node::A, "peer-found", &[]);
    pair.kine2(Node::A, &["swap"]);
    pair.wait_for(Node::B, "PRIM");
    let swap = wait_for(&pair, Node::B, "configuration", &["handed over to b"]);
    assert_eq!(swap["measured"]["cause"], "swap", "{swap:#}");
    wait_for(&pair, Node::A, "command", &["`swap`", "b is the primary"]);

    pair.kill(Node::B);
    pair.wait_for(Node::A, "ALONE");
    let takeover = wait_for(&pair, Node::A, "configuration", &["a took over from b"]);
    let measured = &takeover["measured"];
    assert_eq!(measured["cause"], "takeover", "{takeover:#}");
    assert_eq!(measured["witness_heard"], true, "{takeover:#}");
    assert!(measured["peer_silent_ms"].is_u64(), "{takeover:#}");
    wait_for(&pair, Node::A, "peer-lost", &[]);
    pair.kill_witness();
    wait_for(&pair, Node::A, "witness-lost", &[]);

    // The journal of a node that does not run is read all the same, and goes on where it was.
    let of_b = events(&pair, Node::B, &[]);
    assert!(of_b.iter().all(|event| event["node"] == "b"), "{of_b:#?}");
    pair.start_node(Node::B);
    wait_for(&pair, Node::B, "start", &["was not asked to end"]);
    let again = events(&pair, Node::B, &[]);
    let numbers: Vec<u64> = again
        .iter()
        .map(|event| event["n"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|two| two[0] + 1 == two[1]),
        "{numbers:?}"
    );
    assert_eq!(again[..of_b.len()], of_b);
}

#[test]
fn both_journals_are_read_at_one_node_and_codes_are_not_in_them() {
    let pair = Pair::start();
    let code = pair.kine2(Node::A, &["join-token"]);
    wait_for(&pair, Node::A, "command", &["`join-token`"]);
    let all = events(&pair, Node::A, &["--node", "all"]);
    for node in Node::BOTH {
        let of_node = all.iter().filter(|event| event["node"] == node.name());
        assert!(of_node.count() > 2, "{all:#?}");
    }
    let times = |two: &[Value]| two[0]["at"].as_str() <= two[1]["at"].as_str();
    assert!(all.windows(2).all(times), "{all:#?}");
    for event in &all {
        assert!(!event.to_string().contains(code.trim()), "{event:#}");
    }
    let last = pair.kine2(Node::B, &["events", "-n", "2"]);
    assert_eq!(last.lines().count(), 2, "{last}");
}
