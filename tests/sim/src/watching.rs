//! Whether a watch told what happened: in order, each change once, nothing left out.

use std::collections::BTreeMap;

use crate::history::{Changes, Key, Seen};

/// What a watch of all keys, or of one, was told, over as many streams as its client needed.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The key, or all of them.
    pub key: Option<Key>,
    /// First revision wanted.
    pub start: i64,
    /// Changes in the order told.
    pub told: Vec<Told>,
    /// All changes up to this revision are told, by what the store said of its progress.
    pub through: i64,
    /// Revisions `[from, to)` that were forgotten before they were told.
    gaps: Vec<(i64, i64)>,
}

/// A change, as a watch tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The key.
    pub key: Key,
    /// What it became; nothing if it was deleted.
    pub became: Option<Seen>,
    /// Revision of the change.
    pub revision: i64,
}

impl Watch {
    /// A watch of a key, or of all, from a revision on.
    #[must_use]
    pub fn new(key: Option<Key>, start: i64) -> Self {
        Self {
            key,
            start,
            told: Vec::new(),
            through: start - 1,
            gaps: Vec::new(),
        }
    }

    /// Where it goes on after its stream broke.
    #[must_use]
    pub fn resumes_at(&self) -> i64 {
        let last = self.told.last().map_or(0, |told| told.revision);
        (last.max(self.through) + 1).max(self.start)
    }

    /// Takes in the changes of one message, whole revisions.
    ///
    /// # Errors
    /// When one was told before, or comes too late.
    pub fn on_events(&mut self, events: &[Told]) -> Result<(), String> {
        let floor = self.resumes_at();
        if let Some(early) = events.iter().find(|told| told.revision < floor) {
            return Err(format!(
                "{early:?} is told although all before revision {floor} was told"
            ));
        }
        for (at, told) in events.iter().enumerate() {
            // Within a revision the changes come in the order of the transaction's steps.
            let early = |before: &&Told| {
                told.revision < before.revision
                    || (told.revision, told.key) == (before.revision, before.key)
            };
            if let Some(before) = events[..at].iter().rfind(early) {
                return Err(format!("{told:?} is told after {before:?}"));
            }
            if self.key.is_some_and(|key| key != told.key) {
                return Err(format!("{told:?} is not of the key that is watched"));
            }
        }
        self.told.extend_from_slice(events);
        Ok(())
    }

    /// Takes in that history before a revision is forgotten, and so the watch ended: who watches
    /// goes on there.
    ///
    /// # Errors
    /// When it needed nothing of that.
    pub fn on_compacted(&mut self, compacted: i64) -> Result<(), String> {
        let wanted = self.resumes_at();
        if compacted <= wanted {
            return Err(format!(
                "ended because all before {compacted} is forgotten, though it goes on at {wanted}"
            ));
        }
        self.gaps.push((wanted, compacted));
        self.through = compacted - 1;
        Ok(())
    }

    /// Takes in that all changes up to a revision were told.
    pub fn on_progress(&mut self, revision: i64) {
        self.through = self.through.max(revision);
    }

    /// Compares with what happened.
    ///
    /// # Errors
    /// When something told did not happen, or something that happened was left out.
    pub fn check(&self, happened: &BTreeMap<i64, Changes>) -> Result<(), String> {
        let last = self.told.last().map_or(0, |told| told.revision);
        let through = self.through.max(last);
        if through < self.start {
            return Ok(());
        }
        let wanted = |key: &Key| self.key.is_none_or(|one| one == *key);
        let happened: Vec<Told> = happened
            .range(self.start..=through)
            .flat_map(|(revision, changes)| {
                changes.iter().map(|(key, became)| Told {
                    key: *key,
                    became: *became,
                    revision: *revision,
                })
            })
            .filter(|told| wanted(&told.key) && !self.is_forgotten(told.revision))
            .collect();
        let mut told = self.told.clone();
        told.sort_by_key(|told| (told.revision, told.key));
        if happened == told {
            return Ok(());
        }
        let at = happened
            .iter()
            .zip(&told)
            .take_while(|(a, b)| a == b)
            .count();
        Err(format!(
            "the watch of {:?} from {}, complete up to {through}: change {at} was {:?}, told was {:?}",
            self.key,
            self.start,
            happened.get(at),
            told.get(at)
        ))
    }

    fn is_forgotten(&self, revision: i64) -> bool {
        let mut gaps = self.gaps.iter();
        gaps.any(|(from, to)| (*from..*to).contains(&revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: Key, revision: i64) -> Told {
        let seen = Seen {
            value: u64::try_from(revision).unwrap(),
            create: 2,
            modified: revision,
            version: revision - 1,
            lease: 0,
        };
        Told {
            key,
            became: Some(seen),
            revision,
        }
    }

    fn happened(changes: &[Told]) -> BTreeMap<i64, Changes> {
        let mut happened = BTreeMap::<i64, Changes>::new();
        for told in changes {
            let revision = happened.entry(told.revision).or_default();
            revision.insert(told.key, told.became);
        }
        happened
    }

    #[test]
    fn a_watch_that_told_all_passes() {
        let all = happened(&[change(1, 2), change(2, 3), change(1, 4), change(2, 4)]);
        let mut watch = Watch::new(None, 3);
        watch.on_events(&[change(2, 3)]).unwrap();
        assert_eq!(watch.resumes_at(), 4);
        watch.on_events(&[change(1, 4), change(2, 4)]).unwrap();
        watch.check(&all).unwrap();
        let mut one = Watch::new(Some(1), 1);
        one.on_events(&[change(1, 2)]).unwrap();
        one.check(&all).unwrap();
    }

    #[test]
    fn a_gap_is_found() {
        let all = happened(&[change(1, 2), change(1, 3), change(1, 4)]);
        let mut watch = Watch::new(None, 2);
        watch.on_events(&[change(1, 2), change(1, 4)]).unwrap();
        assert!(watch.check(&all).is_err());
    }

    #[test]
    fn half_a_revision_is_found() {
        let all = happened(&[change(1, 2), change(2, 2)]);
        let mut watch = Watch::new(None, 2);
        watch.on_events(&[change(1, 2)]).unwrap();
        assert!(watch.check(&all).is_err());
        assert!(
            watch.on_events(&[change(2, 2)]).is_err(),
            "and never mended"
        );
    }

    #[test]
    fn a_change_told_twice_is_found() {
        let mut watch = Watch::new(None, 2);
        watch.on_events(&[change(1, 2)]).unwrap();
        assert!(watch.on_events(&[change(1, 2)]).is_err());
    }

    #[test]
    fn progress_ahead_of_what_was_told_is_found() {
        let all = happened(&[change(1, 2), change(1, 3)]);
        let mut watch = Watch::new(None, 2);
        watch.on_events(&[change(1, 2)]).unwrap();
        watch.on_progress(3);
        assert!(watch.check(&all).is_err());
        assert!(watch.on_events(&[change(1, 3)]).is_err());
    }

    #[test]
    fn what_was_forgotten_before_it_was_told_is_left_out() {
        let all = happened(&[change(1, 2), change(1, 3), change(1, 4), change(1, 5)]);
        let mut watch = Watch::new(None, 2);
        watch.on_events(&[change(1, 2)]).unwrap();
        assert!(watch.on_compacted(3).is_err(), "it needs nothing before 3");
        watch.on_compacted(5).unwrap();
        assert_eq!(watch.resumes_at(), 5);
        watch.on_events(&[change(1, 5)]).unwrap();
        watch.check(&all).unwrap();
    }

    #[test]
    fn what_never_happened_is_found() {
        let mut watch = Watch::new(None, 2);
        watch.on_events(&[change(1, 2)]).unwrap();
        assert!(watch.check(&BTreeMap::new()).is_err());
    }
}
