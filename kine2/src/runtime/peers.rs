//! Where the peer is: a line `host:port` for every link in the data directory's file `peers`,
//! written when a node joins, unless the configuration says it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

const FILE: &str = "peers";

/// The addresses, and the file they are kept in.
#[derive(Debug)]
pub(crate) struct PeerAddresses {
    path: PathBuf,
    list: Vec<String>,
    /// The configuration's, which the file does not change.
    is_given: bool,
}

impl PeerAddresses {
    /// Those of the configuration, or of the data directory.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn load(data_dir: &Path, given: &[String]) -> anyhow::Result<Self> {
        let path = data_dir.join(FILE);
        let list = if given.is_empty() {
            match fs::read_to_string(&path) {
                Ok(text) => text.lines().map(str::to_owned).collect(),
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                Err(error) => {
                    return Err(error).with_context(|| format!("read {}", path.display()));
                }
            }
        } else {
            given.to_vec()
        };
        Ok(Self {
            path,
            list,
            is_given: !given.is_empty(),
        })
    }

    /// The addresses, the best first.
    pub(crate) fn list(&self) -> &[String] {
        &self.list
    }

    /// Keeps other ones. Answers whether they count: the configuration's come first.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn keep(&mut self, list: Vec<String>) -> anyhow::Result<bool> {
        let draft = self.path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&draft)?;
            for address in &list {
                writeln!(file, "{address}")?;
            }
            file.sync_all()?;
            fs::rename(&draft, &self.path)?;
            let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
            File::open(dir)?.sync_all()
        };
        write().with_context(|| format!("write {}", self.path.display()))?;
        if !self.is_given {
            self.list = list;
        }
        Ok(!self.is_given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_unless_they_are_given() {
        let dir = tempfile::tempdir().unwrap();
        let mut none = PeerAddresses::load(dir.path(), &[]).unwrap();
        assert!(none.list().is_empty());
        assert!(none.keep(vec!["b:1".into(), "b:2".into()]).unwrap());
        let kept = PeerAddresses::load(dir.path(), &[]).unwrap();
        assert_eq!(kept.list(), ["b:1", "b:2"]);
        let mut given = PeerAddresses::load(dir.path(), &["c:1".into()]).unwrap();
        assert!(!given.keep(vec!["d:1".into()]).unwrap());
        assert_eq!(given.list(), ["c:1"]);
    }
}
