//! etcd's own command line sees a pair as a cluster of two members.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]
#![expect(clippy::print_stderr, reason = "it says why it did nothing")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use kine2_e2e::pair::{Node, Pair};
use serde_json::Value;

/// What `scripts/etcdctl` says when it cannot be built.
const NOT_THERE: i32 = 2;

/// What etcdctl prints as JSON; nothing where it cannot be built.
fn etcdctl(pair: &Pair, asked: Node, command: &[&str]) -> Option<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/etcdctl");
    let output = Command::new(script)
        .arg(format!("--endpoints={}", pair.url(asked)))
        .arg("--write-out=json")
        .args(command)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NOT_THERE) {
        eprintln!("etcdctl is not there: {said}");
        return None;
    }
    assert!(output.status.success(), "etcdctl {command:?}: {said}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn etcdctl_shows_both_nodes_of_a_pair() {
    let pair = Pair::start();
    let both: BTreeSet<String> = Node::BOTH.map(|node| pair.url(node)).into();
    let mut leaders = BTreeSet::new();
    for asked in Node::BOTH {
        let Some(listed) = etcdctl(&pair, asked, &["member", "list"]) else {
            return;
        };
        let members = listed["members"].as_array().unwrap();
        let names = members
            .iter()
            .map(|member| member["name"].as_str().unwrap());
        assert_eq!(
            names.collect::<BTreeSet<_>>(),
            ["a", "b"].into(),
            "{listed:#}"
        );
        let urls = members.iter().map(|member| &member["clientURLs"][0]);
        let urls: BTreeSet<String> = urls.map(|url| url.as_str().unwrap().to_owned()).collect();
        assert_eq!(urls, both, "{listed:#}");

        let told = etcdctl(&pair, asked, &["endpoint", "status", "--cluster"]).unwrap();
        let told = told.as_array().unwrap();
        assert_eq!(told.len(), 2, "{told:#?}");
        for endpoint in told {
            let status = &endpoint["Status"];
            assert!(both.contains(endpoint["Endpoint"].as_str().unwrap()));
            leaders.insert(status["leader"].as_u64().unwrap());
            let id = status["header"]["member_id"].as_u64().unwrap();
            assert!(
                members.iter().any(|member| member["ID"] == id),
                "{endpoint:#}"
            );
        }
        let told = etcdctl(&pair, asked, &["endpoint", "health", "--cluster"]).unwrap();
        let healthy = told.as_array().unwrap().iter();
        assert_eq!(
            healthy.filter(|one| one["health"] == true).count(),
            2,
            "{told:#}"
        );
    }
    assert!(leaders.len() == 1 && !leaders.contains(&0), "{leaders:?}");
}
