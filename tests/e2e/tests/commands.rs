//! What the operator's commands do to a pair.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::{Duration, Instant};

use kine2_e2e::client::Client;
use kine2_e2e::pair::{Node, Pair};
use kine2_e2e::watcher::Watcher;

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a story; it may block, as clients run on threads of their own.
fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(story)
}

fn put(url: &str, key: &str) {
    let (url, key) = (url.to_owned(), key.to_owned());
    let put = std::thread::spawn(move || {
        run(async { Client::new(&url).put(&key, "v", PATIENCE).await.unwrap() })
    });
    put.join().unwrap();
}

#[test]
fn a_node_that_served_by_itself_becomes_the_first_of_a_pair() {
    let pair = Pair::grown(|url| put(url, "before"));
    run(async {
        for node in [Node::A, Node::B] {
            let client = Client::new(&pair.url(node));
            assert_eq!(client.get("before", false, PATIENCE).await.unwrap().1, 1);
        }
    });
}

#[test]
fn a_node_is_stopped_over_a_restart_and_started_again() {
    let mut pair = Pair::start();
    // The primary hands over first.
    pair.kine2(Node::A, &["stop"]);
    pair.wait_for(Node::A, "STOP");
    pair.wait_for(Node::B, "ALONE");
    put(&pair.url(Node::B), "meanwhile");
    pair.kill(Node::A);
    pair.start_node(Node::A);
    pair.wait_for(Node::A, "STOP");
    // Nobody could go on: refused, with what would do it all the same.
    let (done, said) = pair.try_kine2(Node::B, &["stop"]);
    assert!(!done && said.contains("--force"), "{said}");
    pair.kine2(Node::A, &["start"]);
    pair.wait_until_mirrored();
    assert_eq!(pair.state(Node::B), "PRIM");
}

#[test]
fn without_a_witness_the_other_node_goes_on_if_a_gateway_answers() {
    let mut pair = Pair::start();
    let (done, said) = pair.try_kine2(Node::A, &["witness", "remove", "--ping", "240.0.0.1"]);
    assert!(
        !done && said.contains("240.0.0.1 does not answer"),
        "{said}"
    );
    pair.kine2(Node::A, &["witness", "remove", "--ping", "127.0.0.1"]);
    let status = pair.status(Node::A);
    let policy = status["on_peer_loss"].as_str().unwrap();
    assert!(policy.contains("unsafe-policy"), "{status:#}");
    pair.wait_until_mirrored();
    put(&pair.url(Node::A), "before");
    // A node that started lately gives its peer more time.
    pair.stays(Node::B, "SECOND", Duration::from_millis(3_500));
    pair.kill_witness();
    pair.kill(Node::A);
    pair.wait_for(Node::B, "ALONE");
    put(&pair.url(Node::B), "after");
    pair.start_node(Node::A);
    pair.wait_until_mirrored();
    assert_eq!(pair.state(Node::A), "SECOND");
    // The primary goes on, too.
    pair.kill(Node::A);
    pair.wait_for(Node::B, "ALONE");
    pair.start_node(Node::A);
    pair.wait_until_mirrored();
    run(async {
        let client = Client::new(&pair.url(Node::A));
        for key in ["before", "after"] {
            assert_eq!(client.get(key, false, PATIENCE).await.unwrap().1, 1);
        }
    });
}

#[test]
fn without_a_witness_a_node_that_is_left_waits_for_the_operator() {
    let mut pair = Pair::start();
    pair.kine2(Node::A, &["witness", "remove"]);
    let status = pair.status(Node::A);
    assert_eq!(status["on_peer_loss"], "stop", "{status:#}");
    assert_eq!(status["can_fail_over"], false, "{status:#}");
    run(async {
        // S3: who watches where no primary is comes again.
        let watcher = Watcher::start(&[pair.url(Node::A)]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        pair.kill(Node::B);
        pair.wait_for(Node::A, "WAIT");
        tokio::time::sleep(Duration::from_millis(4_500)).await;
        let seen = watcher.finish(0).await;
        assert_eq!(seen.streams_ended, 2, "once there, once by the test");
        // It waits for a primary, but not for long.
        let begun = Instant::now();
        let put = Client::new(&pair.url(Node::A))
            .put("k", "v", PATIENCE)
            .await;
        let error = put.unwrap_err();
        assert!(begun.elapsed() < PATIENCE, "{error}");
    });
    pair.kine2(Node::A, &["promote"]);
    pair.wait_for(Node::A, "ALONE");
    put(&pair.url(Node::A), "promoted");
    // And the other one catches up, and the witness is taken in again.
    pair.start_node(Node::B);
    pair.wait_for(Node::B, "SECOND");
    let code = pair.witness_code();
    pair.kine2(Node::A, &["witness", "add", &code]);
    pair.wait_until_mirrored();
}

#[test]
fn a_node_goes_on_by_force_when_all_others_are_gone() {
    let mut pair = Pair::start();
    put(&pair.url(Node::A), "before");
    pair.kill_witness();
    pair.kill(Node::A);
    pair.wait_for(Node::B, "WAIT");
    let (done, said) = pair.try_kine2(Node::B, &["promote"]);
    assert!(!done && said.contains("refused"), "{said}");
    pair.kine2(Node::B, &["promote", "--force", "--without-witness"]);
    pair.wait_for(Node::B, "ALONE");
    run(async {
        let b = Client::new(&pair.url(Node::B));
        assert_eq!(b.get("before", false, PATIENCE).await.unwrap().1, 1);
    });
    // The other one had nothing more, and comes back as its second.
    pair.start_node(Node::A);
    pair.wait_for(Node::A, "SECOND");
}

#[test]
fn a_name_that_no_node_has_is_refused() {
    let pair = Pair::start();
    let (done, said) = pair.try_kine2(Node::A, &["swap", "--node", "c"]);
    assert!(!done && said.contains("there is no node c"), "{said}");
    assert_eq!(pair.primary(), Node::A);
    pair.kine2(Node::B, &["swap", "--node", "a"]);
    pair.wait_for(Node::B, "PRIM");
}

#[test]
fn the_status_is_told_of_either_node_at_either_node() {
    let pair = Pair::start();
    for (asked, named) in [(Node::A, Node::B), (Node::B, Node::A), (Node::A, Node::A)] {
        let command = ["status", "-o", "json", "--node", named.name()];
        let said = pair.kine2(asked, &command);
        let answers: serde_json::Value = serde_json::from_str(&said).unwrap();
        let told = &answers[0]["status"];
        assert_eq!(told["state"].as_str().unwrap(), pair.state(named), "{said}");
    }
}

#[test]
fn policies_are_changed_online_at_the_primary_or_refused_with_the_reason() {
    let mut pair = Pair::start();
    for (command, why) in [
        (["preferred", "c"], "there is no node c"),
        (["on-peer-loss", "stop"], "witness remove"),
        (["speed", "high"], "swap-back"),
    ] {
        let (done, said) = pair.try_kine2(Node::A, &[&["policy", "set"][..], &command].concat());
        assert!(!done && said.contains(why), "{said}");
    }
    let (done, said) = pair.try_kine2(Node::B, &["policy", "set", "swap-back", "false"]);
    assert!(!done && said.contains("--node a"), "{said}");
    pair.kine2(
        Node::B,
        &["policy", "set", "swap-back", "false", "--node", "a"],
    );
    pair.kine2(Node::A, &["policy", "set", "preferred", "b"]);
    pair.wait_until_mirrored();
    for node in Node::BOTH {
        let begun = Instant::now();
        loop {
            let policies = pair.status(node)["policies"].clone();
            if policies["swap-back"] == "false" && policies["preferred"] == "b" {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{policies:#}");
        }
    }
    pair.kine2(Node::A, &["witness", "remove"]);
    pair.kine2(
        Node::A,
        &["policy", "set", "on-peer-loss", "prefer-primary"],
    );
    pair.kill(Node::B);
    pair.wait_for(Node::A, "ALONE");
    put(&pair.url(Node::A), "alone");
}
