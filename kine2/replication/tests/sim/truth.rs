//! What must hold: P1 to P8 of the protocol (`repl section 15`), from outside the nodes.

use std::collections::BTreeMap;

use kine2_replication::{
    Config, ConfigId, Entry, LogIndex, NodeName, PartName, Position, Replica, Term,
};

use super::disk::Image;

/// What was exposed, and who did it.
#[derive(Debug, Default)]
pub struct Truth {
    /// The one history of each part: whatever any node committed, acknowledged or showed.
    history: BTreeMap<PartName, Vec<Position>>,
    committers: BTreeMap<(PartName, ConfigId), NodeName>,
    /// Every entry that was ever in a log.
    names: BTreeMap<(PartName, LogIndex, Term), Position>,
    pub counts: Counts,
}

/// What a run reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub exposed: u64,
    pub acknowledged: u64,
    pub reads: u64,
    pub reads_at_secondary: u64,
    pub reads_mirrored: u64,
    pub truncations: u64,
    pub takeovers: u64,
    pub additions: u64,
    pub removals: u64,
    pub drops: u64,
    pub swaps: u64,
    pub abdications: u64,
    pub moves: u64,
    pub snapshots: u64,
    pub joint_commits: u64,
    pub crashes: u64,
    /// Parts of which a loss was accepted.
    pub forced: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.exposed += other.exposed;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.reads_at_secondary += other.reads_at_secondary;
        self.reads_mirrored += other.reads_mirrored;
        self.truncations += other.truncations;
        self.takeovers += other.takeovers;
        self.additions += other.additions;
        self.removals += other.removals;
        self.drops += other.drops;
        self.swaps += other.swaps;
        self.abdications += other.abdications;
        self.moves += other.moves;
        self.snapshots += other.snapshots;
        self.joint_commits += other.joint_commits;
        self.crashes += other.crashes;
        self.forced += other.forced;
    }
}

impl Truth {
    /// How much of the part is exposed.
    pub fn exposed(&self, part: &PartName) -> LogIndex {
        LogIndex(self.history.get(part).map_or(0, |h| h.len() as u64))
    }

    /// P2: there is one exposed history.
    pub fn expose(&mut self, node: &NodeName, part: &PartName, position: Position) {
        let history = self.history.entry(part.clone()).or_default();
        let at = usize::try_from(position.index.0).unwrap() - 1;
        match history.get(at) {
            Some(known) => assert_eq!(
                *known, position,
                "P2: {node} shows another entry of {part} than was shown"
            ),
            None => {
                assert_eq!(history.len(), at, "P2: {node} shows {part} with a gap");
                history.push(position);
                self.counts.exposed += 1;
            }
        }
    }

    /// The operator accepted the loss of what this image lacks.
    pub fn forced(&mut self, part: &PartName, image: &Image) {
        self.counts.forced += 1;
        let history = self.history.entry(part.clone()).or_default();
        // What was given up for a checkpoint was exposed, so it is a prefix of both.
        history.truncate(usize::try_from(image.base.index.0).unwrap());
        history.extend(image.entries.iter().map(|entry| entry.position));
    }

    /// P1: one committing primary for each configuration and part.
    pub fn commits(&mut self, node: &NodeName, part: &PartName, config: ConfigId) {
        let epoch = config.epoch;
        let committer = self.committers.entry((part.clone(), config));
        let committer = committer.or_insert_with(|| node.clone());
        assert_eq!(committer, node, "P1: two commit {part} in epoch {epoch}");
    }

    /// P3: a read holds what was exposed before it was called.
    pub fn read(&mut self, part: &PartName, floor: LogIndex, index: LogIndex) {
        assert!(
            index >= floor,
            "P3: a read of {part} at {index} misses what was exposed up to {floor}"
        );
        self.counts.reads += 1;
    }

    /// An acknowledged write is in the exposed history.
    pub fn acknowledge(&mut self, part: &PartName, position: Position) {
        let at = usize::try_from(position.index.0).unwrap() - 1;
        assert_eq!(
            self.history[part].get(at),
            Some(&position),
            "a write was acknowledged that is not exposed"
        );
        self.counts.acknowledged += 1;
    }

    /// P4: no exposed entry is cut where it was applied.
    pub fn truncate(&mut self, node: &NodeName, part: &PartName, to: LogIndex, applied: LogIndex) {
        self.counts.truncations += 1;
        assert!(
            to >= applied,
            "P4: {node} cuts {part} to {to}, applied is {applied}"
        );
    }

    /// P6: one name, one entry and one prefix.
    pub fn log(&mut self, part: &PartName, entries: &[Entry]) {
        for entry in entries {
            let position = entry.position;
            let name = (part.clone(), position.index, position.term);
            let known = self.names.entry(name).or_insert(position);
            assert_eq!(
                *known, position,
                "P6: two entries of {part} have the same index and term"
            );
        }
    }

    /// P5 and P8: every member of an in-sync set of the configuration in force has every exposed
    /// entry on its disk, and the configuration has its shape.
    pub fn config_in_force<'i>(
        &self,
        config: &Config,
        image: impl Fn(&Replica, &PartName) -> Option<&'i Image>,
    ) {
        config.check_shape().expect("P8");
        for (part, set) in &config.in_sync {
            let Some(last) = self.history.get(part).and_then(|h| h.last()) else {
                continue;
            };
            for replica in set {
                let Some(image) = image(replica, part) else {
                    continue;
                };
                assert!(
                    image.base.index >= last.index || image.position(last.index) == Some(*last),
                    "P5: {replica:?}, in sync for {part} in epoch {}, does not have {last:?}; \
                     its log ends {:?}",
                    config.epoch,
                    image.last(),
                );
                if image.base.index >= last.index {
                    assert_eq!(image.base, *last, "P5: the snapshot of {part} is another");
                }
            }
        }
    }
}
