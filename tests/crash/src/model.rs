//! The store as it has to be, computed from its history of changes and from what clients asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use kine2_proto::decoded::KeyValue;
use prost::Message;

use crate::history::{Effect, History, Read, Write};

/// Keys that tell which write made a revision: `/m/CLIENT`, with the id first in the value.
pub const MARKERS: &[u8] = b"/m/";
/// Keys that are deleted by themselves, without a marker.
pub const PLAIN: &[u8] = b"/d/";

/// A change as a watch tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The key as it became; of a delete only key and revision.
    pub kv: KeyValue,
    /// It deletes the key.
    pub deletes: bool,
}

/// All changes of one revision, in order.
#[derive(Clone, Debug)]
pub struct Step {
    /// The revision.
    pub revision: i64,
    /// Its changes.
    pub changes: Vec<Change>,
    /// When it came.
    pub received: Instant,
}

/// A change that is kept.
#[derive(Clone, Debug)]
struct Kept {
    change: Change,
    /// Its place within the revision.
    sub: u32,
}

/// The store as it has to be.
#[derive(Debug)]
pub struct Model {
    /// Its revision.
    pub revision: i64,
    /// History below is forgotten; -1 if nothing is.
    pub compacted: i64,
    keys: BTreeMap<Bytes, Vec<Kept>>,
    attached: BTreeMap<i64, BTreeSet<Bytes>>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: -1,
            keys: BTreeMap::new(),
            attached: BTreeMap::new(),
        }
    }
}

impl Model {
    /// Takes in the next revision, and finds the one write that explains it.
    ///
    /// # Errors
    /// If no write does, or it does so only in part, or its counters are wrong.
    pub fn apply(&mut self, step: &Step, history: &mut History) -> anyhow::Result<()> {
        let revision = step.revision;
        ensure!(
            revision == self.revision + 1,
            "revision {revision} follows {}",
            self.revision
        );
        self.explain(step, history)
            .with_context(|| format!("revision {revision}: {}", summary(&step.changes)))?;
        for (sub, change) in step.changes.iter().enumerate() {
            self.take(revision, u32::try_from(sub)?, change.clone())
                .with_context(|| format!("revision {revision}: {}", summary(&step.changes)))?;
        }
        self.revision = revision;
        Ok(())
    }

    fn explain(&self, step: &Step, history: &mut History) -> anyhow::Result<()> {
        let marker = step
            .changes
            .iter()
            .find(|change| change.kv.key.starts_with(MARKERS));
        if let Some(marker) = marker {
            let id = marked_id(&marker.kv.value).context("the marker has no id")?;
            let write = history.writes.remove(&id);
            let write =
                write.with_context(|| format!("write {id} was not made, or made before"))?;
            return self
                .check(step, &write)
                .with_context(|| format!("write {id}"));
        }
        let [first, ..] = &step.changes[..] else {
            bail!("it has no change");
        };
        ensure!(first.deletes, "a put that nobody made");
        if first.kv.key.starts_with(PLAIN) {
            let deletes = |write: &Write| {
                matches!(&write.effects[..], [Effect::Delete { key }] if *key == first.kv.key)
                    && write.revision.is_none_or(|at| at == step.revision)
            };
            // One that was acknowledged here goes before one whose outcome is unknown.
            let candidates = history.writes.iter().filter(|(_, write)| deletes(write));
            let found = candidates.max_by_key(|(_, write)| write.revision);
            let id = *found.context("a delete that nobody made")?.0;
            let write = history.writes.remove(&id).context("it was just found")?;
            return self.check(step, &write);
        }
        self.explain_revocation(step, history, first)
    }

    fn explain_revocation(
        &self,
        step: &Step,
        history: &History,
        first: &Change,
    ) -> anyhow::Result<()> {
        let id = self.current(&first.kv.key).map_or(0, |kv| kv.lease);
        let lease = history
            .leases
            .get(&id)
            .context("a delete that nobody made")?;
        ensure!(
            lease.revoked.is_some() || lease.has_expired(step.received),
            "lease {id} was neither revoked nor has it expired"
        );
        let deleted: BTreeSet<&Bytes> = step.changes.iter().map(|change| &change.kv.key).collect();
        let all = step.changes.iter().all(|change| change.deletes);
        let attached = self.attached.get(&id).into_iter().flatten();
        ensure!(
            all && deleted == attached.collect(),
            "the end of lease {id} does not delete just what hangs on it"
        );
        Ok(())
    }

    /// Is the step all that the write asked for, at the right place, with its compares?
    fn check(&self, step: &Step, write: &Write) -> anyhow::Result<()> {
        if let Some(at) = write.revision {
            ensure!(at == step.revision, "it was acknowledged at revision {at}");
        }
        for (key, expected) in &write.compares {
            let found = self.current(key).map_or(0, |kv| kv.mod_revision);
            ensure!(
                found == *expected,
                "{} was at {found}, the write was for {expected}",
                key.escape_ascii()
            );
        }
        let happens = |effect: &&Effect| match effect {
            Effect::Put { .. } => true,
            Effect::Delete { key } => self.current(key).is_some(),
        };
        let expected: Vec<&Effect> = write.effects.iter().filter(happens).collect();
        let same = |(effect, change): (&&Effect, &Change)| match effect {
            Effect::Put { key, value, lease } => {
                let kv = &change.kv;
                !change.deletes && kv.key == key && kv.value == value && kv.lease == *lease
            }
            Effect::Delete { key } => change.deletes && change.kv.key == key,
        };
        let whole =
            expected.len() == step.changes.len() && expected.iter().zip(&step.changes).all(same);
        ensure!(whole, "only a part of it, or something else, is there");
        Ok(())
    }

    /// Checks a change's counters and keeps it.
    fn take(&mut self, revision: i64, sub: u32, change: Change) -> anyhow::Result<()> {
        let before = self.current(&change.kv.key).cloned();
        let kv = &change.kv;
        let counters = if change.deletes {
            let old = before
                .as_ref()
                .context("a key is deleted that was not there")?;
            self.detach(old.lease, &kv.key.clone());
            (0, 0)
        } else if let Some(old) = &before {
            if old.lease != kv.lease {
                self.detach(old.lease, &kv.key.clone());
            }
            (old.create_revision, old.version + 1)
        } else {
            (revision, 1)
        };
        let found = (kv.create_revision, kv.version);
        ensure!(
            found == counters && kv.mod_revision == revision,
            "{} has create revision, version, revision {found:?} {}, expected {counters:?} {revision}",
            kv.key.escape_ascii(),
            kv.mod_revision
        );
        if kv.lease != 0 {
            let keys = self.attached.entry(kv.lease).or_default();
            keys.insert(kv.key.clone());
        }
        let kept = self.keys.entry(kv.key.clone()).or_default();
        kept.push(Kept { change, sub });
        Ok(())
    }

    fn detach(&mut self, lease: i64, key: &Bytes) {
        if let Some(keys) = self.attached.get_mut(&lease) {
            keys.remove(key);
        }
    }

    /// Keys that hang on a lease.
    pub fn attached(&self, lease: i64) -> impl Iterator<Item = &Bytes> {
        self.attached.get(&lease).into_iter().flatten()
    }

    fn current(&self, key: &[u8]) -> Option<&KeyValue> {
        self.at(key, i64::MAX)
    }

    /// The key as it was at a revision.
    fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let kept = self.keys.get(key)?;
        let newest = kept
            .iter()
            .rev()
            .find(|kept| kept.change.kv.mod_revision <= revision)?;
        (!newest.change.deletes).then_some(&newest.change.kv)
    }

    /// Everything as it was at a revision that is not compacted, in order.
    #[must_use]
    pub fn content(&self, revision: i64) -> Vec<&KeyValue> {
        let keys = self.keys.keys();
        keys.filter_map(|key| self.at(key, revision)).collect()
    }

    /// Was the read right?
    ///
    /// # Errors
    /// If not.
    pub fn check_read(&self, read: &Read) -> anyhow::Result<()> {
        let expected = self.at(&read.key, read.at);
        let expected = expected.map_or((0, 0), |kv| (kv.mod_revision, kv.version));
        ensure!(
            read.found == expected,
            "a read of {} at revision {} gave {:?}, expected {expected:?}",
            read.key.escape_ascii(),
            read.at,
            read.found
        );
        Ok(())
    }

    /// Forgets what a compaction forgets.
    pub fn compact(&mut self, target: i64) {
        self.compacted = target;
        self.keys.retain(|_, kept| {
            let up_to = kept.partition_point(|kept| kept.change.kv.mod_revision <= target);
            let base = up_to.checked_sub(1);
            let gone = base.map_or(0, |base| base + usize::from(kept[base].change.deletes));
            kept.drain(..gone);
            !kept.is_empty()
        });
    }

    /// Changes after a revision, all those not compacted if it is lower, in order.
    #[must_use]
    pub fn changes_after(&self, revision: i64) -> Vec<&Change> {
        let all = self.keys.values().flatten();
        let mut changes: Vec<&Kept> = all
            .filter(|kept| kept.change.kv.mod_revision > revision)
            .collect();
        changes.sort_by_key(|kept| (kept.change.kv.mod_revision, kept.sub));
        changes.into_iter().map(|kept| &kept.change).collect()
    }

    /// What `HashKV` has to answer for the newest revision: of each kept change a checksum over its
    /// place and its bytes, spread to 64 bits, added up, folded to 32.
    #[must_use]
    pub fn hash(&self) -> u32 {
        let mut sum = 0u64;
        for kept in self.keys.values().flatten() {
            let sub = u64::from(kept.sub);
            let bytes = kept.change.kv.encode_to_vec();
            let checksum = u64::from(crc32c::crc32c_append(kept.sub, &bytes));
            let mixed = (checksum ^ sub << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            sum = sum.wrapping_add(mixed ^ mixed >> 29);
        }
        let folded = (sum >> 32) ^ (sum & 0xffff_ffff);
        u32::try_from(folded).unwrap_or_default()
    }
}

fn marked_id(value: &[u8]) -> Option<u64> {
    let end = value.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&value[..end]).ok()?.parse().ok()
}

/// Changes in a few words.
fn summary(changes: &[Change]) -> String {
    let word = |change: &Change| {
        let verb = if change.deletes { "delete" } else { "put" };
        format!("{verb} {}", change.kv.key.escape_ascii())
    };
    let words: Vec<String> = changes.iter().map(word).collect();
    words.join(", ")
}
