//! What lies in quarantine, and how it goes. Nothing goes by itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, bail};
use kine2_replication::{QUARANTINE_HEADER_BYTES_MAX, QuarantineHeader};
use serde::{Deserialize, Serialize};

use super::QUARANTINE_DIR;
use crate::runtime::journal::utc;

const ENTRIES: &str = "entries";
const STATE: &str = "state";

/// What was put away once.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Kept {
    /// Its name: that of its files, but for the endings.
    pub(crate) id: String,
    /// When it was written, in UTC.
    pub(crate) at: String,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// What its header says, or why it cannot be read.
    pub(crate) header: Result<Header, String>,
    /// The state is there too.
    pub(crate) has_state: bool,
}

/// Whose it is and why it was put away.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Header {
    /// The part.
    pub(crate) part: String,
    /// The node that held it.
    pub(crate) node: String,
    /// The first entry.
    pub(crate) first: u64,
    /// The last one.
    pub(crate) last: u64,
    /// Epoch of the configuration that overruled it.
    pub(crate) overruled_by: String,
}

/// All that lies in the quarantine of a data directory, the oldest first.
///
/// # Errors
/// If the directory cannot be read.
pub(crate) fn list(data_dir: &Path) -> anyhow::Result<Vec<Kept>> {
    let dir = data_dir.join(QUARANTINE_DIR);
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    for (name, meta) in files(&dir)? {
        let Some((id, ending @ (ENTRIES | STATE))) = name.rsplit_once('.') else {
            // Being written, or what a crash left of that.
            continue;
        };
        let at = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let one = kept.entry(id.to_owned()).or_insert_with(|| Kept {
            id: id.to_owned(),
            at: utc(at),
            bytes: 0,
            header: Err(
                "its entries are not there: it was not finished, or is being discarded".into(),
            ),
            has_state: false,
        });
        one.bytes += meta.len();
        if ending == STATE {
            one.has_state = true;
        } else {
            one.at = utc(at);
            one.header = header(&dir.join(&name)).map_err(|error| format!("{error:#}"));
        }
    }
    let mut kept: Vec<Kept> = kept.into_values().collect();
    kept.sort_by(|one, two| one.at.cmp(&two.at));
    Ok(kept)
}

/// Bytes in the quarantine, all files together.
pub(crate) fn size(data_dir: &Path) -> u64 {
    let files = files(&data_dir.join(QUARANTINE_DIR));
    let files = files.unwrap_or_default();
    files.iter().map(|(_, meta)| meta.len()).sum()
}

/// Deletes one, the entries first: without them the rest counts as unfinished. Answers how many
/// bytes are free by that.
///
/// # Errors
/// If there is none of this name, or it cannot be deleted.
pub(crate) fn discard(data_dir: &Path, id: &str) -> anyhow::Result<u64> {
    let kept = find(data_dir, id)?;
    let dir = data_dir.join(QUARANTINE_DIR);
    for ending in [ENTRIES, STATE] {
        let path = dir.join(format!("{}.{ending}", kept.id));
        match fs::remove_file(&path) {
            Ok(()) => File::open(&dir)?.sync_all()?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("delete {}", path.display())),
        }
    }
    Ok(kept.bytes)
}

/// The one of this name. A name is one that is there, so it leads nowhere else.
///
/// # Errors
/// If there is none; it says which there are.
pub(crate) fn find(data_dir: &Path, id: &str) -> anyhow::Result<Kept> {
    let all = list(data_dir)?;
    let names: Vec<String> = all.iter().map(|kept| kept.id.clone()).collect();
    match all.into_iter().find(|kept| kept.id == id) {
        Some(kept) => Ok(kept),
        None if names.is_empty() => bail!("nothing is in quarantine here"),
        None => bail!("{id} is not in quarantine; there is: {}", names.join(", ")),
    }
}

fn header(path: &Path) -> anyhow::Result<Header> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    // The prefix and the checksum are beside the header's own bytes.
    let most = QUARANTINE_HEADER_BYTES_MAX as u64 + 64;
    file.take(most).read_to_end(&mut bytes)?;
    let (header, _) = QuarantineHeader::decode(&bytes)?;
    Ok(Header {
        part: header.what.part.to_string(),
        node: header.node.name.to_string(),
        first: header.base.index.next().0,
        last: header.what.through.0,
        overruled_by: header.what.by.epoch.to_string(),
    })
}

fn files(dir: &Path) -> anyhow::Result<Vec<(String, fs::Metadata)>> {
    let listed = match fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", dir.display())),
    };
    let files = listed.flatten().filter_map(|entry| {
        // One that is deleted meanwhile is not there.
        let meta = entry.metadata().ok()?;
        Some((entry.file_name().into_string().ok()?, meta))
    });
    Ok(files.collect())
}
