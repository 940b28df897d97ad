//! What an operator does about a forced promotion: parts that are away, what was overruled, and what
//! was put away of it.

use kine2_mvcc::{KeyRange, RangeQuery};
use kine2_replication::{Command, PartName, PartWord, Standing, Unit};

use super::Admin;
use super::commands::raised;
use super::wire::{Answer, Shelf};
use crate::runtime::quarantine::{Contents, Difference, Kept, Writes, discard, list};

/// Keys looked up before others get their turn.
const KEYS_AT_ONCE: usize = 64;

impl Admin {
    pub(super) async fn promote_part(&self, part: &str, without_witness: bool) -> Answer {
        let name: PartName = part.into();
        let (standing, primary, is_primary, epoch) = self.look(|unit| {
            let config = unit.config();
            let standing = config.standing(&name);
            let is_primary = config.primary == *unit.me();
            (
                standing,
                config.primary.name.to_string(),
                is_primary,
                config.epoch,
            )
        });
        match standing {
            None => return Answer::failed(format!("there is no part {part}")),
            Some(Standing::Mirror | Standing::Alone) => {
                return Answer::Refused(format!(
                    "part {part} is not away: the primary has all of it, and serves it"
                ));
            }
            Some(Standing::Away) if !is_primary => {
                return Answer::Refused(format!(
                    "only the primary can take part {part} over: `--node {primary}`"
                ));
            }
            Some(Standing::Away) => {}
        }
        let command = Command::PromoteForcePart {
            part: name.clone(),
            without_witness,
        };
        let done = move |unit: &Unit| {
            let config = unit.config();
            let has_it = config.has(&name, unit.me());
            has_it && raised(config.epoch, epoch)
        };
        match self.command(command, done).await {
            true => Answer::Done(format!("this node serves part {part} now")),
            false => Answer::failed(format!(
                "part {part} was not taken over: `kine2 events` says why"
            )),
        }
    }

    /// Gives up what diverged, part by part; with `and_discard` also what was put away by that.
    pub(super) async fn rejoin(&self, and_discard: bool) -> Answer {
        let diverged = self.look(|unit| {
            let parts = unit.status().parts.into_iter();
            let diverged = parts.filter(|(_, part)| part.word == PartWord::Diverged);
            diverged.map(|(name, _)| name).collect::<Vec<_>>()
        });
        if diverged.is_empty() {
            return Answer::Done(
                "no part of this node has diverged: nothing to give up".to_owned(),
            );
        }
        let before = match self.kept().await {
            Ok(kept) => kept,
            Err(error) => return Answer::failed(error),
        };
        for name in diverged {
            let part = name.clone();
            let done = move |unit: &Unit| {
                let parts = unit.status().parts;
                let part = parts.get(&part);
                part.is_none_or(|part| part.word != PartWord::Diverged)
            };
            if !self.command(Command::Rejoin(name.clone()), done).await {
                return Answer::failed(format!(
                    "part {name} was not put away yet: `kine2 events` says how far it is; try again"
                ));
            }
        }
        let put_away = match self.kept().await {
            Ok(kept) => kept,
            Err(error) => return Answer::failed(error),
        };
        // One that is written again is the same, and new all the same.
        let is_new = |kept: &&Kept| !before.contains(kept);
        let new: Vec<String> = put_away
            .iter()
            .filter(is_new)
            .map(|kept| kept.id.clone())
            .collect();
        if !and_discard {
            return Answer::Done(format!(
                "given up, and put away in quarantine ({}); this node is filled anew by the primary",
                new.join(", ")
            ));
        }
        for id in new {
            let discarded = self.quarantine_discard(id).await;
            if !matches!(discarded, Answer::Done(_)) {
                return discarded;
            }
        }
        Answer::Done("given up and discarded; this node is filled anew by the primary".to_owned())
    }

    async fn kept(&self) -> Result<Vec<Kept>, String> {
        let data_dir = self.data_dir.clone();
        let listed = tokio::task::spawn_blocking(move || list(&data_dir)).await;
        match listed {
            Ok(Ok(kept)) => Ok(kept),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) async fn quarantined(&self) -> Answer {
        let node = self.look(|unit| unit.me().name.to_string());
        match self.kept().await {
            Ok(kept) => Answer::Quarantine(Shelf { node, kept }),
            Err(error) => Answer::failed(error),
        }
    }

    pub(super) async fn quarantine_discard(&self, id: String) -> Answer {
        let data_dir = self.data_dir.clone();
        let name = id.clone();
        let discarded = tokio::task::spawn_blocking(move || discard(&data_dir, &name)).await;
        match discarded {
            Ok(Ok(bytes)) => Answer::Done(format!("{id} is deleted, {bytes} bytes")),
            Ok(Err(error)) => Answer::failed(format!("{error:#}")),
            Err(error) => Answer::failed(error.to_string()),
        }
    }

    pub(super) async fn quarantine_diff(&self, id: String) -> Answer {
        match self.difference(id).await {
            Ok(difference) => Answer::Difference(Box::new(difference)),
            Err(error) => Answer::failed(format!("{error:#}")),
        }
    }

    async fn difference(&self, id: String) -> anyhow::Result<Difference> {
        let data_dir = self.data_dir.clone();
        let reading = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let mut contents = Contents::open(&data_dir, &id)?;
            let writes = Writes::of(&mut contents)?;
            Ok((contents, writes))
        });
        let (contents, writes) = reading.await??;
        let mut now = Vec::new();
        for keys in writes.keys().chunks(KEYS_AT_ONCE) {
            for key in keys {
                let query = RangeQuery::all(KeyRange::single(key.clone()));
                let (_, found) = self.pair.node().range(&query)?;
                let record = found.records.first();
                let value = record.map(|record| record.view().value.to_vec().into());
                now.push(value);
            }
            tokio::task::yield_now().await;
        }
        Ok(writes.beside(&contents, &now))
    }
}
