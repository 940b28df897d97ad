//! What must hold: P1 to P8 of the protocol (`repl section 15`), from outside the nodes.

use std::collections::BTreeMap;

use kine2_replication::{Config, ConfigId, Entry, LogIndex, NodeName, PartName, Position, Replica};
use kine2_sim_kit::{LogView, PartTruth};

use super::disk::Image;

/// What was exposed, and who did it.
#[derive(Debug, Default)]
pub struct Truth {
    parts: BTreeMap<PartName, PartTruth>,
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
    fn part(&mut self, part: &PartName) -> &mut PartTruth {
        self.parts.entry(part.clone()).or_default()
    }

    /// How much of the part is exposed.
    pub fn exposed(&self, part: &PartName) -> LogIndex {
        self.parts.get(part).map_or(LogIndex(0), PartTruth::exposed)
    }

    /// P2.
    pub fn expose(&mut self, node: &NodeName, part: &PartName, position: Position) {
        if self.part(part).expose(node, position) {
            self.counts.exposed += 1;
        }
    }

    /// The operator accepted the loss of what this image lacks.
    pub fn forced(&mut self, part: &PartName, image: &Image) {
        self.counts.forced += 1;
        let entries = image.entries.iter().map(|entry| entry.position);
        self.part(part).rebase(image.base.index, entries);
    }

    /// P1.
    pub fn commits(&mut self, node: &NodeName, part: &PartName, config: ConfigId) {
        self.part(part).commits(node, config);
    }

    /// P3.
    pub fn read(&mut self, part: &PartName, floor: LogIndex, index: LogIndex) {
        self.part(part).read(floor, index);
        self.counts.reads += 1;
    }

    pub fn acknowledge(&mut self, part: &PartName, position: Position) {
        self.part(part).acknowledge(position);
        self.counts.acknowledged += 1;
    }

    /// P4.
    pub fn truncate(&mut self, node: &NodeName, part: &PartName, to: LogIndex, applied: LogIndex) {
        self.counts.truncations += 1;
        self.part(part).truncate(node, to, applied);
    }

    /// P6.
    pub fn log(&mut self, part: &PartName, entries: &[Entry]) {
        self.part(part).log(entries);
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
            let Some(truth) = self.parts.get(part) else {
                continue;
            };
            for replica in set {
                if let Some(image) = image(replica, part) {
                    truth.in_sync(replica, image);
                }
            }
        }
    }
}

impl LogView for Image {
    fn position(&self, index: LogIndex) -> Option<Position> {
        self.position(index)
    }

    fn last(&self) -> Position {
        self.last()
    }
}
