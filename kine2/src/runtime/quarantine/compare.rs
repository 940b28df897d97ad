//! What a quarantine would have written beside what the store has now.
//!
//! What a transaction did depended on what it found; the branch for which it was made (`then`, or
//! `else` where that writes nothing) is taken for done, and the key is marked.

use std::collections::BTreeMap;

use bytes::Bytes;
use kine2_mvcc::{Command, Delete, Put, RangeEnd, TxnOp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::contents::Contents;
use super::plain::bytes;

/// Keys that are compared; what touches more is cut off.
const KEYS_MAX: usize = 100_000;
/// Keys that differ and are shown.
const SHOWN_MAX: usize = 1_000;
/// Bytes of a value that are shown.
const VALUE_BYTES_MAX: usize = 120;

/// What a quarantine and the store have of the same keys.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Difference {
    /// Its name.
    pub(crate) id: String,
    /// Entries that were read.
    pub(crate) entries: u64,
    /// Keys that it writes.
    pub(crate) keys: usize,
    /// Those of them that are in the store as it would have them.
    pub(crate) same: usize,
    /// Those that are not, by key, the first thousand.
    pub(crate) differing: Vec<Differing>,
    /// How many more differ.
    pub(crate) more: usize,
    /// What could not be compared, in words.
    pub(crate) remarks: Vec<String>,
}

/// A key that differs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Differing {
    pub(crate) key: Value,
    /// What it would have; nothing if it deletes the key. The first bytes of a long value.
    pub(crate) put_away: Option<Value>,
    /// What the store has.
    pub(crate) now: Option<Value>,
    /// It was written in a transaction, so perhaps not.
    pub(crate) is_conditional: bool,
}

/// What the quarantine does to each key in the end.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    keys: BTreeMap<Bytes, Written>,
    entries: u64,
    cut_off: usize,
    ranges: usize,
    keeping: usize,
}

#[derive(Debug)]
struct Written {
    value: Option<Bytes>,
    is_conditional: bool,
}

impl Writes {
    /// Reads all entries.
    ///
    /// # Errors
    /// If one is damaged.
    pub(crate) fn of(contents: &mut Contents) -> anyhow::Result<Self> {
        let mut writes = Self::default();
        while let Some((_, command)) = contents.next()? {
            writes.entries += 1;
            writes.take_in(&command);
        }
        Ok(writes)
    }

    fn take_in(&mut self, command: &Command) {
        match command {
            Command::Put(put) => self.put(put, false),
            Command::Delete(delete) => self.delete(delete, false),
            Command::Txn(txn) => self.branch(&txn.success, &txn.failure),
            Command::Noop
            | Command::Compact(_)
            | Command::LeaseGrant(_)
            | Command::LeaseRevoke { .. }
            | Command::Alarm(_) => {}
        }
    }

    fn branch(&mut self, then: &[TxnOp], or_else: &[TxnOp]) {
        let writes = |op: &TxnOp| !matches!(op, TxnOp::Range(_));
        let ops = if then.iter().any(writes) {
            then
        } else {
            or_else
        };
        for op in ops {
            match op {
                TxnOp::Range(_) => {}
                TxnOp::Put(put) => self.put(put, true),
                TxnOp::Delete(delete) => self.delete(delete, true),
                TxnOp::Txn(txn) => self.branch(&txn.success, &txn.failure),
            }
        }
    }

    fn put(&mut self, put: &Put, is_conditional: bool) {
        if put.ignore_value {
            self.keeping += 1;
            return;
        }
        self.write(put.key.clone(), Some(put.value.clone()), is_conditional);
    }

    fn delete(&mut self, delete: &Delete, is_conditional: bool) {
        let range = &delete.range;
        if range.end == RangeEnd::Single {
            return self.write(range.start.clone(), None, is_conditional);
        }
        self.ranges += 1;
        let is_in = |key: &Bytes| match &range.end {
            RangeEnd::Single => false,
            RangeEnd::Before(end) => *key >= range.start && key < end,
            RangeEnd::Unbounded => *key >= range.start,
        };
        for (_, written) in self.keys.iter_mut().filter(|(key, _)| is_in(key)) {
            written.value = None;
            written.is_conditional |= is_conditional;
        }
    }

    fn write(&mut self, key: Bytes, value: Option<Bytes>, is_conditional: bool) {
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&key) {
            self.cut_off += 1;
            return;
        }
        let written = Written {
            value,
            is_conditional,
        };
        self.keys.insert(key, written);
    }

    /// The keys that are to be looked up.
    pub(crate) fn keys(&self) -> Vec<Bytes> {
        self.keys.keys().cloned().collect()
    }

    /// Beside what the store has of the keys, in their order.
    pub(crate) fn beside(&self, contents: &Contents, now: &[Option<Bytes>]) -> Difference {
        let mut difference = Difference {
            id: contents.kept.id.clone(),
            entries: self.entries,
            keys: self.keys.len(),
            remarks: self.remarks(contents),
            ..Difference::default()
        };
        for ((key, written), now) in self.keys.iter().zip(now) {
            if written.value == *now {
                difference.same += 1;
            } else if difference.differing.len() < SHOWN_MAX {
                difference.differing.push(Differing {
                    key: bytes(key),
                    put_away: written.value.as_ref().map(|value| short(value)),
                    now: now.as_ref().map(|value| short(value)),
                    is_conditional: written.is_conditional,
                });
            } else {
                difference.more += 1;
            }
        }
        difference
    }

    fn remarks(&self, contents: &Contents) -> Vec<String> {
        let mut remarks = Vec::new();
        if contents.kept.has_state {
            remarks.push(
                "the log did not reach back to what both nodes had in common: the whole state of \
                 then lies beside the entries (.state), and keys that only it has are not compared"
                    .to_owned(),
            );
        }
        for (count, what) in [
            (
                self.cut_off,
                "writes of further keys are not compared: there are too many",
            ),
            (
                self.ranges,
                "deletions of ranges are taken for the keys named here only",
            ),
            (
                self.keeping,
                "writes that kept a key's value are not compared",
            ),
        ] {
            if count > 0 {
                remarks.push(format!("{count} {what}"));
            }
        }
        remarks
    }
}

/// The beginning of a value, with its length if that is not all.
fn short(value: &[u8]) -> Value {
    if value.len() <= VALUE_BYTES_MAX {
        return bytes(value);
    }
    let beginning = String::from_utf8_lossy(&value[..VALUE_BYTES_MAX]);
    let beginning = beginning.trim_end_matches(char::REPLACEMENT_CHARACTER);
    Value::String(format!("{beginning}… ({} bytes)", value.len()))
}
