//! What must hold of one part's logs at any moment (`repl section 15`), from outside.

use std::collections::BTreeMap;

use kine2_replication::{ConfigId, Entry, LogIndex, NodeName, Position, Replica, Term};

/// What is on a disk of a log.
pub trait LogView {
    /// The position of an entry that is there, or of the base.
    fn position(&self, index: LogIndex) -> Option<Position>;
    /// The end.
    fn last(&self) -> Position;
}

/// What was exposed of a part, and who did it.
#[derive(Debug, Default)]
pub struct PartTruth {
    /// The one history: whatever any node committed, acknowledged or showed.
    history: Vec<Position>,
    committers: BTreeMap<ConfigId, NodeName>,
    /// Every entry that was ever in a log.
    names: BTreeMap<(LogIndex, Term), Position>,
}

impl PartTruth {
    /// That of who was promoted by force: what it has is what counts from then on.
    #[must_use]
    pub fn of(history: Vec<Position>) -> Self {
        Self {
            history,
            ..Self::default()
        }
    }

    /// What is exposed, from the first entry on.
    #[must_use]
    pub fn history(&self) -> &[Position] {
        &self.history
    }

    /// How much is exposed.
    #[must_use]
    pub fn exposed(&self) -> LogIndex {
        LogIndex(self.history.len() as u64)
    }

    /// P2: there is one exposed history. Answers whether this is new in it.
    ///
    /// # Panics
    /// When it is not of that history.
    pub fn expose(&mut self, node: &NodeName, position: Position) -> bool {
        let at = place(position.index);
        match self.history.get(at) {
            Some(known) => {
                assert_eq!(
                    *known, position,
                    "P2: {node} shows another entry than was shown"
                );
                false
            }
            None => {
                assert_eq!(self.history.len(), at, "P2: {node} shows a gap");
                self.history.push(position);
                true
            }
        }
    }

    /// P1: one committing primary for each configuration.
    ///
    /// # Panics
    /// When another one committed in it.
    pub fn commits(&mut self, node: &NodeName, config: ConfigId) {
        let committer = self.committers.entry(config);
        let committer = committer.or_insert_with(|| node.clone());
        assert_eq!(committer, node, "P1: two commit in epoch {}", config.epoch);
    }

    /// P3: a read holds what was exposed before it was called.
    ///
    /// # Panics
    /// When it does not.
    pub fn read(&self, floor: LogIndex, index: LogIndex) {
        assert!(
            index >= floor,
            "P3: a read at {index} misses what was exposed up to {floor}"
        );
    }

    /// P4: no exposed entry is cut where it was applied.
    ///
    /// # Panics
    /// When one is.
    pub fn truncate(&self, node: &NodeName, to: LogIndex, applied: LogIndex) {
        assert!(
            to >= applied,
            "P4: {node} cuts to {to}, applied is {applied}"
        );
    }

    /// P5: a replica in sync has every exposed entry on its disk.
    ///
    /// # Panics
    /// When it lacks one.
    pub fn in_sync(&self, replica: &Replica, disk: &impl LogView) {
        let Some(last) = self.history.last() else {
            return;
        };
        assert!(
            disk.position(last.index) == Some(*last),
            "P5: {replica:?}, in sync, does not have {last:?}; its log ends {:?}",
            disk.last(),
        );
    }

    /// P6: one name, one entry and one prefix.
    ///
    /// # Panics
    /// When two entries have one name.
    pub fn log(&mut self, entries: &[Entry]) {
        for entry in entries {
            let position = entry.position;
            let name = (position.index, position.term);
            let known = self.names.entry(name).or_insert(position);
            assert_eq!(
                *known, position,
                "P6: two entries have the same index and term"
            );
        }
    }

    /// An acknowledged write is in the exposed history.
    ///
    /// # Panics
    /// When it is not.
    pub fn acknowledge(&self, position: Position) {
        assert_eq!(
            self.history.get(place(position.index)),
            Some(&position),
            "a write was acknowledged that is not exposed"
        );
    }

    /// The operator accepted the loss of what a log lacks: from now on its history counts. What is
    /// not kept of it, up to `base`, was exposed before.
    pub fn rebase(&mut self, base: LogIndex, entries: impl IntoIterator<Item = Position>) {
        self.history.truncate(place(base.next()));
        self.history.extend(entries);
    }

    /// Whether everything that was exposed is there.
    #[must_use]
    pub fn is_held_by(&self, disk: &impl LogView) -> bool {
        let last = self.history.last();
        last.is_none_or(|last| disk.position(last.index) == Some(*last))
    }

    /// A disk forgot what it had: names of entries that nobody has any more are free again.
    pub fn forget_unless(&mut self, is_kept: impl Fn(Position) -> bool) {
        self.names.retain(|_, position| is_kept(*position));
    }
}

fn place(index: LogIndex) -> usize {
    usize::try_from(index.0 - 1).expect("an index of an entry")
}
