//! What must hold: P1 to P8 of the protocol (`repl section 15`), from outside the nodes.

use std::collections::BTreeMap;

use kine2_replication::{
    Config, ConfigId, Entry, LogIndex, NodeName, Origin, PartName, Position, Replica, Term,
};
use kine2_sim_kit::{LogView, PartTruth};

use super::disk::Image;

/// What was exposed, and who did it.
#[derive(Debug, Default)]
pub struct Truth {
    /// The exposed histories of each part. The first is the one of nodes that know of no forced
    /// promotion; it also knows the names and the committers of all.
    parts: BTreeMap<PartName, Vec<PartTruth>>,
    /// Which of them counts for who descends from a forced promotion.
    lines: BTreeMap<(PartName, Origin), usize>,
    acknowledged: BTreeMap<(PartName, LogIndex, Term), Position>,
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
    /// Parts in which a node was promoted by force.
    pub forced: u64,
    /// Those of which it lacked something that was exposed.
    pub overruled: u64,
    /// Quarantines.
    pub quarantines: u64,
    /// Parts that were given up by the operator.
    pub rejoins: u64,
    /// Twins that stopped.
    pub twins: u64,
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
        self.overruled += other.overruled;
        self.quarantines += other.quarantines;
        self.rejoins += other.rejoins;
        self.twins += other.twins;
    }
}

impl Truth {
    /// What all histories of a part share.
    fn part(&mut self, part: &PartName) -> &mut PartTruth {
        self.part_of(part, Origin::NONE)
    }

    /// The history that counts for who descends from that origin.
    fn part_of(&mut self, part: &PartName, origin: Origin) -> &mut PartTruth {
        let line = self.line(part, origin);
        let lines = self.parts.entry(part.clone()).or_default();
        if lines.is_empty() {
            lines.push(PartTruth::default());
        }
        &mut lines[line]
    }

    fn known(&self, part: &PartName, origin: Origin) -> Option<&PartTruth> {
        self.parts.get(part)?.get(self.line(part, origin))
    }

    fn line(&self, part: &PartName, origin: Origin) -> usize {
        let line = self.lines.get(&(part.clone(), origin));
        line.copied().unwrap_or(0)
    }

    /// How much of the part is exposed, for who descends from that origin.
    pub fn exposed(&self, part: &PartName, origin: Origin) -> LogIndex {
        self.known(part, origin)
            .map_or(LogIndex(0), PartTruth::exposed)
    }

    /// P2: there is one exposed history; after a forced promotion one for each side.
    pub fn expose(
        &mut self,
        node: &NodeName,
        part: &PartName,
        position: Position,
        origin: Origin,
        own: &Image,
    ) {
        let truth = self.part_of(part, origin);
        while origin != Origin::NONE && truth.exposed().next() < position.index {
            // Shown by it before it heard of its promotion.
            let next = own.holds(truth.exposed().next());
            truth.expose(node, next.expect("it was applied"));
        }
        if truth.expose(node, position) {
            self.counts.exposed += 1;
        }
    }

    /// A promotion was forced in a configuration of `parent`, and nobody gave this part up by it.
    pub fn goes_on(&mut self, part: &PartName, parent: Origin, origin: Origin) {
        let line = self.line(part, parent);
        self.lines.insert((part.clone(), origin), line);
    }

    /// A promotion was forced, and what the promoted node has of the part counts from then on: as
    /// much as the others saw of it, and what it shows itself.
    pub fn forks(
        &mut self,
        part: &PartName,
        parent: Origin,
        origin: Origin,
        own: &Image,
        applied: LogIndex,
    ) {
        let seen = self.part_of(part, parent).history();
        let equal =
            |(at, position): &(u64, &Position)| own.holds(LogIndex(*at)) == Some(**position);
        let common = (1..).zip(seen).take_while(equal).count();
        let lost = common < seen.len();
        let count = applied.max(LogIndex(common as u64));
        self.counts.forced += 1;
        self.counts.overruled += u64::from(lost);
        let lines = self.parts.entry(part.clone()).or_default();
        lines.push(PartTruth::of(own.first(count)));
        let line = lines.len() - 1;
        self.lines.insert((part.clone(), origin), line);
    }

    /// P10: whatever was acknowledged is kept somewhere.
    pub fn all_kept(&self, is_kept: impl Fn(&PartName, Position) -> bool) {
        for ((part, ..), position) in &self.acknowledged {
            assert!(
                is_kept(part, *position),
                "P10: {position:?} of {part} was acknowledged, and is on no disk and in no quarantine"
            );
        }
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

    pub fn acknowledge(&mut self, part: &PartName, position: Position, origin: Origin) {
        self.part_of(part, origin).acknowledge(position);
        let name = (part.clone(), position.index, position.term);
        self.acknowledged.insert(name, position);
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
            let Some(truth) = self.known(part, config.origin) else {
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
