//! Who this node is: written once into the data directory, never changed.
//!
//! ```text
//! kine2-identity 1
//! cluster-id 0123456789abcdef
//! member-id fedcba9876543210
//! ```

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};

const FILE: &str = "identity";
const HEADER: &str = "kine2-identity 1";

/// Ids of the cluster and of this member; neither is 0 (`etcd S3`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeIdentity {
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
}

impl NodeIdentity {
    /// Reads the identity of a data directory that has one.
    ///
    /// # Errors
    /// If the file cannot be read or understood.
    pub(super) fn load(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(FILE);
        let read = fs::read_to_string(&path).with_context(|| {
            format!(
                "read {}, which says whose log and state lie beside it",
                path.display()
            )
        })?;
        Self::parse(&read).with_context(|| format!("read {}", path.display()))
    }

    /// Reads the identity of a data directory, or makes one for a new directory.
    ///
    /// # Errors
    /// If the file cannot be read, written or understood.
    pub(super) fn load_or_create(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(FILE);
        match fs::symlink_metadata(&path) {
            Ok(_) => {
                // Who wrote it may have been killed before its name was durable.
                sync(data_dir).with_context(|| format!("flush {}", data_dir.display()))?;
                Self::load(data_dir)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let identity = Self {
                    cluster_id: random_id()?,
                    member_id: random_id()?,
                };
                identity
                    .write(data_dir)
                    .with_context(|| format!("write {}", path.display()))?;
                Ok(identity)
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Makes that of a node that joins a cluster.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn create(data_dir: &Path, cluster_id: u64, member_id: u64) -> anyhow::Result<()> {
        let identity = Self {
            cluster_id,
            member_id,
        };
        let path = data_dir.join(FILE);
        let written = identity.write(data_dir);
        written.with_context(|| format!("write {}", path.display()))
    }

    /// Whether a data directory has one.
    pub(super) fn is_in(data_dir: &Path) -> bool {
        data_dir.join(FILE).exists()
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        ensure!(
            header == HEADER,
            "first line is {header:?}, expected {HEADER:?}"
        );
        let mut id = |name: &str| {
            let line = lines.next().unwrap_or_default();
            let Some(hex) = line.strip_prefix(name) else {
                bail!("line is {line:?}, expected {name:?} and 16 hexadecimal digits");
            };
            let id =
                u64::from_str_radix(hex.trim(), 16).with_context(|| format!("line {line:?}"))?;
            ensure!(id != 0, "{name} is 0");
            Ok(id)
        };
        Ok(Self {
            cluster_id: id("cluster-id ")?,
            member_id: id("member-id ")?,
        })
    }

    /// A crash leaves the old directory or the whole file, never a part of it.
    fn write(self, data_dir: &Path) -> anyhow::Result<()> {
        let Self {
            cluster_id,
            member_id,
        } = self;
        let draft = data_dir.join("identity.new");
        let mut file = File::create(&draft)?;
        write!(
            file,
            "{HEADER}\ncluster-id {cluster_id:016x}\nmember-id {member_id:016x}\n"
        )?;
        file.sync_all()?;
        fs::rename(&draft, data_dir.join(FILE))?;
        sync(data_dir)
    }
}

/// Makes the names in a directory durable.
fn sync(dir: &Path) -> anyhow::Result<()> {
    Ok(File::open(dir)?.sync_all()?)
}

/// A random number that is positive as a signed one too: some clients print ids as such.
pub(super) fn random_id() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    loop {
        getrandom::fill(&mut bytes).context("ask the kernel for random bytes")?;
        let id = u64::from_le_bytes(bytes) >> 1;
        if id != 0 {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let made = NodeIdentity::load_or_create(dir.path()).unwrap();
        assert_eq!(NodeIdentity::load_or_create(dir.path()).unwrap(), made);
    }

    #[test]
    fn a_damaged_file_is_refused_with_what_was_expected() {
        for text in [
            "",
            "kine2-identity 2\n",
            "kine2-identity 1\ncluster-id xyz\nmember-id 1\n",
        ] {
            let error = format!("{:#}", NodeIdentity::parse(text).unwrap_err());
            assert!(error.contains("line"), "{error}");
        }
    }
}
