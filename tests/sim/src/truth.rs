//! What must hold at any moment: P1 to P8 of the protocol (`repl section 15`), from outside.

use std::collections::BTreeMap;

use kine2_replication::{Config, Entry, Epoch, LogIndex, NodeName, Position, Replica, Term};

use crate::log::OnDisk;

/// What was exposed, and who did it.
#[derive(Debug, Default)]
pub struct Truth {
    /// The one history: whatever any node committed, acknowledged or showed.
    history: Vec<Position>,
    committers: BTreeMap<Epoch, NodeName>,
    /// Every entry that was ever in a log.
    names: BTreeMap<(LogIndex, Term), Position>,
}

impl Truth {
    /// How much is exposed.
    #[must_use]
    pub fn exposed(&self) -> LogIndex {
        LogIndex(self.history.len() as u64)
    }

    /// P2: there is one exposed history.
    pub fn expose(&mut self, node: &NodeName, position: Position) {
        let at = place(position.index);
        match self.history.get(at) {
            Some(known) => assert_eq!(
                *known, position,
                "P2: {node} shows another entry than was shown"
            ),
            None => {
                assert_eq!(self.history.len(), at, "P2: {node} shows a gap");
                self.history.push(position);
            }
        }
    }

    /// P1: one committing primary for each epoch.
    pub fn commits(&mut self, node: &NodeName, epoch: Epoch) {
        let committer = self.committers.entry(epoch).or_insert_with(|| node.clone());
        assert_eq!(committer, node, "P1: two commit in epoch {epoch}");
    }

    /// P3: a read holds what was exposed before it was called.
    pub fn read(&self, floor: LogIndex, index: LogIndex) {
        assert!(
            index >= floor,
            "P3: a read at {index} misses what was exposed up to {floor}"
        );
    }

    /// P4: no exposed entry is cut where it was applied.
    pub fn truncate(&self, node: &NodeName, to: LogIndex, applied: LogIndex) {
        assert!(
            to >= applied,
            "P4: {node} cuts to {to}, applied is {applied}"
        );
    }

    /// P6: one name, one entry and one prefix.
    pub fn log(&mut self, entries: &[Entry]) {
        for entry in entries {
            let position = entry.position;
            let known = self
                .names
                .entry((position.index, position.term))
                .or_insert(position);
            assert_eq!(
                *known, position,
                "P6: two entries have the same index and term"
            );
        }
    }

    /// P5 and P8: every member of the in-sync set of the configuration in force has every
    /// exposed entry on its disk, and the configuration has its shape.
    pub fn in_force<'d>(&self, config: &Config, on_disk: impl Fn(&Replica) -> Option<&'d OnDisk>) {
        let Some(last) = self.history.last() else {
            return;
        };
        for replica in &config.in_sync[&config.lead] {
            let Some(on_disk) = on_disk(replica) else {
                continue;
            };
            assert!(
                on_disk.position(last.index) == Some(*last) || on_disk.base.index > last.index,
                "P5: {replica:?}, in sync in epoch {}, does not have {last:?}; its log ends {:?}",
                config.epoch,
                on_disk.last(),
            );
        }
    }
}

fn place(index: LogIndex) -> usize {
    usize::try_from(index.0 - 1).expect("an index of an entry")
}
