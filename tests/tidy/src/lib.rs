//! The tree as the rules see it: its files and its dependency graph.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

/// The workspace's root.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("tests/tidy lies two levels below the root")
        .to_owned()
}

/// Paths of all files that belong to the tree, relative to its root: tracked ones, and new ones
/// that are not ignored.
///
/// # Errors
/// If git does not answer.
pub fn files() -> anyhow::Result<Vec<PathBuf>> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .current_dir(root())
        .output()
        .context("ask git for the files of the tree")?;
    ensure!(
        listed.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let names = String::from_utf8(listed.stdout).context("a file name is not text")?;
    let paths = names.split_terminator('\0').map(PathBuf::from);
    // A file that was removed and not yet committed is still listed.
    Ok(paths.filter(|path| root().join(path).is_file()).collect())
}

/// Text of the files with one of these endings, with their paths.
///
/// # Errors
/// If one cannot be read.
pub fn texts(endings: &[&str]) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let has_ending = |path: &PathBuf| {
        path.extension()
            .is_some_and(|ending| endings.iter().any(|known| ending == *known))
    };
    let paths = files()?.into_iter().filter(has_ending);
    paths
        .map(|path| {
            let text = std::fs::read_to_string(root().join(&path))
                .with_context(|| format!("read {}", path.display()))?;
            Ok((path, text))
        })
        .collect()
}

/// Which package needs which, development needs left out.
#[derive(Debug)]
pub struct Graph {
    needs: BTreeMap<String, BTreeSet<String>>,
    names: BTreeMap<String, String>,
}

impl Graph {
    /// Reads it from cargo.
    ///
    /// # Errors
    /// If cargo does not answer as expected.
    pub fn read() -> anyhow::Result<Self> {
        let answer = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(root())
            .output()
            .context("run cargo metadata")?;
        ensure!(
            answer.status.success(),
            "{}",
            String::from_utf8_lossy(&answer.stderr)
        );
        let all: Value = serde_json::from_slice(&answer.stdout).context("read cargo metadata")?;
        let mut graph = Self {
            needs: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        for package in array(&all["packages"]) {
            graph
                .names
                .insert(text(&package["id"]), text(&package["name"]));
        }
        for node in array(&all["resolve"]["nodes"]) {
            let needed = array(&node["deps"]).iter().filter(|dep| is_normal(dep));
            let needed = needed.map(|dep| text(&dep["pkg"])).collect();
            graph.needs.insert(text(&node["id"]), needed);
        }
        Ok(graph)
    }

    /// Names of all packages that end up in the package of this name, itself left out.
    ///
    /// # Panics
    /// If there is no such package.
    #[must_use]
    pub fn closure(&self, name: &str) -> BTreeSet<String> {
        let mut open: Vec<&String> = vec![self.id(name)];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            for needed in &self.needs[id] {
                if seen.insert(needed) {
                    open.push(needed);
                }
            }
        }
        seen.into_iter().map(|id| self.names[id].clone()).collect()
    }

    /// Names of the packages it needs itself.
    ///
    /// # Panics
    /// If there is no such package.
    #[must_use]
    pub fn direct(&self, name: &str) -> BTreeSet<String> {
        self.needs[self.id(name)]
            .iter()
            .map(|id| self.names[id].clone())
            .collect()
    }

    /// Whether there is a package of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names.values().any(|known| known == name)
    }

    fn id(&self, name: &str) -> &String {
        let found = self.names.iter().find(|(_, known)| *known == name);
        found
            .unwrap_or_else(|| panic!("there is no package {name}"))
            .0
    }
}

fn is_normal(dep: &Value) -> bool {
    array(&dep["dep_kinds"])
        .iter()
        .any(|kind| kind["kind"].is_null())
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
