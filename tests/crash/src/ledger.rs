//! Writes to keys of their own, and what became of them: for faults, where a model would be too much.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use futures_util::future::join_all;
use kine2_proto::decoded::KeyValue;
use kine2_proto::etcdserverpb::RangeRequest;
use prost::Message;
use tonic::Status;

use crate::client::{Client, get, revision_of, soon};

/// Keys of a ledger.
const PREFIX: &[u8] = b"/f/";
const PREFIX_END: &[u8] = b"/f0";

/// What was written.
#[derive(Debug)]
pub struct Ledger {
    /// Acknowledged: key and revision.
    pub done: BTreeMap<String, i64>,
    /// Without an answer.
    pub doubt: Vec<String>,
    next: u64,
    value_bytes: usize,
}

impl Ledger {
    /// A ledger of values of a size.
    #[must_use]
    pub const fn of_bytes(value_bytes: usize) -> Self {
        Self {
            done: BTreeMap::new(),
            doubt: Vec::new(),
            next: 0,
            value_bytes,
        }
    }

    fn value(&self, key: &str) -> String {
        let mut value = key.to_owned();
        while value.len() < self.value_bytes {
            value.push_str(key);
        }
        value
    }

    /// Writes a number of keys, so many at once.
    ///
    /// # Errors
    /// The first error; the other writes of that time are noted all the same.
    pub async fn write(
        &mut self,
        client: &Client,
        count: usize,
        at_once: usize,
    ) -> Result<(), Status> {
        let mut left = count;
        while left > 0 {
            let now = left.min(at_once);
            left -= now;
            let keys: Vec<String> = (0..now)
                .map(|_| {
                    self.next += 1;
                    format!("/f/{:08}", self.next)
                })
                .collect();
            let puts = keys
                .iter()
                .map(|key| client.put(key.clone(), self.value(key)));
            let answers = join_all(puts).await;
            let mut failed = None;
            for (key, answer) in keys.into_iter().zip(answers) {
                match answer {
                    Ok(answer) => {
                        let revision = revision_of(answer.header.as_ref());
                        self.done.insert(key, revision);
                    }
                    Err(status) => {
                        self.doubt.push(key);
                        failed = Some(status);
                    }
                }
            }
            if let Some(status) = failed {
                return Err(status);
            }
        }
        Ok(())
    }

    /// Compares a server with it; what was in doubt is known then.
    ///
    /// # Errors
    /// What is not as it must be.
    pub async fn check(&mut self, client: &Client) -> anyhow::Result<()> {
        let request = RangeRequest {
            range_end: PREFIX_END.into(),
            ..get(PREFIX)
        };
        let answer = soon("read the ledger", client.range(request)).await?;
        let revision = revision_of(answer.header.as_ref());
        let mut found = BTreeMap::new();
        for kv in &answer.kvs {
            let kv = KeyValue::decode(&kv.0[..]).context("decode a record")?;
            let key = String::from_utf8(kv.key.to_vec())?;
            ensure!(
                kv.value == self.value(&key) && kv.version == 1,
                "{key} is not what was written"
            );
            found.insert(key, kv.mod_revision);
        }
        for (key, at) in &self.done {
            ensure!(
                found.get(key) == Some(at),
                "{key} was acknowledged at {at}, found {:?}, revision {revision}",
                found.get(key)
            );
        }
        for (key, at) in &found {
            if !self.done.contains_key(key) && !self.doubt.contains(key) {
                bail!("{key} is there at {at}, nobody wrote it");
            }
        }
        let changes = i64::try_from(found.len())?;
        ensure!(
            revision == 1 + changes,
            "the revision is {revision} after {changes} writes"
        );
        self.done = found;
        self.doubt.clear();
        Ok(())
    }
}
