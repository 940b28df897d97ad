//! Whether history was forgotten when clients said so, and only then; and whether what was read of
//! it is what was there.
//!
//! Compactions and reads of the past change nothing that clients see of the present: they are
//! judged here and not by order.

use std::collections::BTreeMap;

use crate::history::{Changes, Key, Moment, Seen};

/// What is known of compactions and reads of the past.
#[derive(Clone, Debug, Default)]
pub struct Compactions {
    /// The highest revision before which anybody asked to forget.
    asked: i64,
    /// Those that were answered, and when.
    done: Vec<(Moment, i64)>,
    reads: Vec<PastRead>,
}

/// A read at a revision, answered.
#[derive(Clone, Debug)]
struct PastRead {
    key: Option<Key>,
    revision: i64,
    records: Vec<(Key, Seen)>,
}

impl Compactions {
    /// Of a store whose history before a revision is forgotten, perhaps.
    #[must_use]
    pub fn of(asked: i64) -> Self {
        Self {
            asked,
            ..Self::default()
        }
    }

    /// A client asks to forget what is before a revision.
    pub fn on_asked(&mut self, revision: i64) {
        self.asked = self.asked.max(revision);
    }

    /// It is done, it says.
    ///
    /// # Errors
    /// When as much was forgotten before it was asked for.
    pub fn on_done(&mut self, invoked: Moment, now: Moment, revision: i64) -> Result<(), String> {
        if let Some((_, before)) = self.done_before(invoked).find(|(_, at)| *at >= revision) {
            return Err(format!(
                "history before {revision} is forgotten, it says, though it was before {before}"
            ));
        }
        self.done.push((now, revision));
        Ok(())
    }

    /// Somebody is told that history before `needed` is gone: a compaction that needs more than
    /// what is gone, a read at that revision, a watch from there.
    ///
    /// # Errors
    /// When nobody asked for that.
    pub fn on_refused(&self, needed: i64) -> Result<(), String> {
        if self.asked >= needed {
            return Ok(());
        }
        Err(format!(
            "history before {needed} is gone, it says, and nobody asked for more than {}",
            self.asked
        ))
    }

    /// A read of the past, answered.
    ///
    /// # Errors
    /// When what it needed was forgotten before it was asked for.
    pub fn on_read(
        &mut self,
        invoked: Moment,
        key: Option<Key>,
        revision: i64,
        records: Vec<(Key, Seen)>,
    ) -> Result<(), String> {
        if let Some((_, done)) = self.done_before(invoked).find(|(_, at)| *at > revision) {
            return Err(format!(
                "a read at {revision} is answered, all before {done} was forgotten"
            ));
        }
        self.reads.push(PastRead {
            key,
            revision,
            records,
        });
        Ok(())
    }

    /// Compares what was read of the past with what happened, from these keys on.
    ///
    /// # Errors
    /// The first read that is wrong.
    pub fn check(
        &self,
        first: &BTreeMap<Key, Seen>,
        happened: &BTreeMap<i64, Changes>,
    ) -> Result<(), String> {
        let mut reads: Vec<&PastRead> = self.reads.iter().collect();
        reads.sort_by_key(|read| read.revision);
        let mut keys = first.clone();
        let mut changes = happened.iter().peekable();
        for read in reads {
            while let Some((_, changes)) = changes.next_if(|(at, _)| **at <= read.revision) {
                for (key, became) in changes {
                    match became {
                        Some(seen) => keys.insert(*key, *seen),
                        None => keys.remove(key),
                    };
                }
            }
            let wanted = |key: &Key| read.key.is_none_or(|one| one == *key);
            let there = keys.iter().filter(|(key, _)| wanted(key));
            let there: Vec<_> = there.map(|(key, seen)| (*key, *seen)).collect();
            if there != read.records {
                return Err(format!("{read:?}: there was {there:?}"));
            }
        }
        Ok(())
    }

    fn done_before(&self, moment: Moment) -> impl Iterator<Item = (Moment, i64)> {
        let done = self.done.iter().copied();
        done.filter(move |(answered, _)| *answered < moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(modified: i64) -> Seen {
        Seen {
            value: u64::try_from(modified).unwrap(),
            create: 2,
            modified,
            version: modified - 1,
            lease: 0,
        }
    }

    #[test]
    fn history_that_nobody_asked_to_forget_must_be_there() {
        let mut compactions = Compactions::default();
        assert!(compactions.on_refused(3).is_err());
        compactions.on_asked(5);
        assert!(compactions.on_refused(3).is_ok());
        assert!(compactions.on_refused(6).is_err());
    }

    #[test]
    fn history_that_was_forgotten_must_not_be_there() {
        let mut compactions = Compactions::default();
        compactions.on_asked(5);
        compactions.on_done(1, 2, 5).unwrap();
        assert!(compactions.on_read(3, None, 4, Vec::new()).is_err());
        assert!(compactions.on_read(3, None, 5, Vec::new()).is_ok());
        assert!(
            compactions.on_read(1, None, 4, Vec::new()).is_ok(),
            "it was asked for before"
        );
        assert!(compactions.on_done(3, 4, 5).is_err(), "twice");
    }

    #[test]
    fn what_is_read_of_the_past_must_be_what_was_there() {
        let happened = BTreeMap::from([
            (2, Changes::from([(1, Some(seen(2)))])),
            (3, Changes::from([(1, Some(seen(3)))])),
            (4, Changes::from([(1, None)])),
        ]);
        let none = BTreeMap::new();
        let mut right = Compactions::default();
        right.on_read(1, None, 4, Vec::new()).unwrap();
        right.on_read(1, Some(1), 3, vec![(1, seen(3))]).unwrap();
        right.on_read(1, None, 2, vec![(1, seen(2))]).unwrap();
        right.check(&none, &happened).unwrap();
        let mut wrong = Compactions::default();
        wrong.on_read(1, None, 2, vec![(1, seen(3))]).unwrap();
        assert!(wrong.check(&none, &happened).is_err());
    }
}
