//! The rules. Each test says in its name what it holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kine2_tidy::{Graph, files, root, texts};

/// Crates that decide and do nothing, with all they may be made of.
const CORES: &[(&str, &str)] = &[
    ("kine2-mvcc", "kine2/mvcc"),
    ("kine2-node", "kine2/node"),
    ("kine2-replication", "kine2/replication"),
    ("kine2-wal", "kine2/wal"),
    ("kine2-witness-core", "witness/core"),
];
/// What a core may be made of: data structures, checksums, errors, and what derives them.
const PURE: &[&str] = &[
    "bytes",
    "crc32c",
    "kine2-mutation",
    "kine2-mvcc",
    "kine2-replication",
    "kine2-wal",
    "proc-macro2",
    "quote",
    "rustc_version",
    "semver",
    "syn",
    "thiserror",
    "thiserror-impl",
    "twox-hash",
    "unicode-ident",
];
/// Lines after which a file holds a second noun.
const FILE_LINES_MAX: usize = 800;

#[test]
fn cores_are_made_of_nothing_that_does_io() {
    let graph = Graph::read().unwrap();
    let pure: BTreeSet<String> = PURE.iter().map(ToString::to_string).collect();
    for (name, _) in CORES.iter().filter(|(name, _)| graph.has(name)) {
        let foreign: Vec<String> = graph.closure(name).difference(&pure).cloned().collect();
        assert!(
            foreign.is_empty(),
            "{name} is made of {foreign:?}: is that free of I/O?"
        );
    }
}

#[test]
fn cores_refuse_clocks_threads_files_and_hash_maps() {
    let mut rules = BTreeSet::new();
    for (_, dir) in CORES {
        let dir = root().join(dir);
        if dir.is_dir() {
            let path = dir.join("clippy.toml");
            let text = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                text.contains("Instant::now"),
                "{} is missing or empty",
                path.display()
            );
            rules.insert(text);
        }
    }
    assert_eq!(rules.len(), 1, "the cores' clippy.toml differ");
}

#[test]
fn arrows_point_inward() {
    let graph = Graph::read().unwrap();
    let outer = |inner: &str, outer: &[&str]| {
        for name in outer {
            assert!(
                !graph.closure(inner).contains(*name),
                "{inner} needs {name}"
            );
        }
    };
    outer(
        "kine2-mvcc",
        &[
            "kine2-node",
            "kine2-backend",
            "kine2-etcd-api",
            "kine2-wal",
            "kine2",
        ],
    );
    outer(
        "kine2-wal",
        &[
            "kine2-mvcc",
            "kine2-node",
            "kine2-backend",
            "kine2-etcd-api",
            "kine2",
        ],
    );
    outer("kine2-node", &["kine2-backend", "kine2-etcd-api", "kine2"]);
    outer(
        "kine2-replication",
        &[
            "kine2-mvcc",
            "kine2-node",
            "kine2-backend",
            "kine2-etcd-api",
            "kine2-witness-core",
            "kine2",
        ],
    );
    outer(
        "kine2-backend",
        &["kine2-node", "kine2-etcd-api", "kine2-wal", "kine2"],
    );
    outer(
        "kine2-etcd-api",
        &["kine2-node", "kine2-backend", "kine2-wal", "kine2"],
    );
    let rooms_of_a_node = ["kine2-node", "kine2-backend", "kine2-etcd-api", "kine2"];
    outer("kine2-peer", &rooms_of_a_node);
    outer(
        "kine2-trust",
        &[&rooms_of_a_node[..], &["kine2-peer"]].concat(),
    );
    // A witness is small, and has nothing of the data.
    outer("kine2-witness", &rooms_of_a_node);
}

#[test]
fn dependencies_of_the_workspace_are_used_by_a_member() {
    let table = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, table) = table.split_once("[workspace.dependencies]").unwrap();
    let (table, _) = table.split_once("\n[").unwrap();
    let named = table
        .lines()
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name));
    let manifests: String = texts(&["toml"])
        .unwrap()
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    for name in named {
        let used = manifests.contains(&format!("\n{name}.workspace"))
            || manifests.contains(&format!("\n{name} = {{ workspace"));
        assert!(
            used,
            "no member uses {name}: take it out of the workspace's table"
        );
    }
}

#[test]
fn a_file_is_one_noun() {
    for (path, text) in texts(&["rs", "go"]).unwrap() {
        let lines = text.lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines",
            path.display()
        );
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [
        "to".to_owned() + "do!(",
        "TO".to_owned() + "DO",
        "FIX".to_owned() + "ME",
        "#[ig".to_owned() + "nore",
    ];
    for (path, text) in texts(&["rs", "go", "sh", "proto"]).unwrap() {
        for mark in &marks {
            let found = text.contains(mark.as_str());
            assert!(!found, "{} has {mark}", path.display());
        }
    }
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    let hosts = [
        "proxy.go".to_owned() + "lang",
        "static.cra".to_owned() + "tes",
        "registry.np".to_owned() + "mjs",
    ];
    let homes = [
        "/wo".to_owned() + "rk/",
        "/ro".to_owned() + "ot/",
        "/ho".to_owned() + "me/",
    ];
    for (path, text) in texts(&["rs", "go", "sh", "md", "toml", "yaml", "proto"]).unwrap() {
        for word in hosts.iter().chain(&homes) {
            assert!(
                !text.contains(word.as_str()),
                "{} names {word}",
                path.display()
            );
        }
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    for (path, text) in texts(&["md"]).unwrap() {
        let dir = root().join(path.parent().unwrap_or_else(|| Path::new("")));
        for (at, _) in text.match_indices("](") {
            let target = &text[at + 2..];
            let target = &target[..target.find([')', ' ', '\n']).unwrap_or(target.len())];
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(
                dir.join(file).exists(),
                "{} points to {target}",
                path.display()
            );
        }
    }
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    for path in files().unwrap() {
        let Ok(text) = fs::read(root().join(&path)) else {
            continue;
        };
        if text.starts_with(b"#!/") {
            let mode = fs::metadata(root().join(&path))
                .unwrap()
                .permissions()
                .mode();
            assert!(mode & 0o111 != 0, "{} has no execute bit", path.display());
        }
    }
}
