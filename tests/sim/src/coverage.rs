//! What a run reached: rules, states, changes of the configuration, rows of the failure table.
//! Everything is seen from outside; the cores know nothing of it.

use std::collections::BTreeMap;
use std::fmt;

/// Marks and how often each was reached.
#[derive(Clone, Default)]
pub struct Coverage {
    /// By where the name lies: names are compared only when they are read.
    marks: BTreeMap<(usize, usize), (&'static str, u64)>,
}

impl Coverage {
    /// This was reached.
    pub fn mark(&mut self, what: &'static str) {
        let place = (what.as_ptr().addr(), what.len());
        self.marks.entry(place).or_insert((what, 0)).1 += 1;
    }

    /// How often it was reached.
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        let same = self.marks.values().filter(|(name, _)| *name == what);
        same.map(|(_, count)| count).sum()
    }

    /// Takes in what another run reached.
    pub fn add(&mut self, other: &Self) {
        for (place, (what, count)) in &other.marks {
            self.marks.entry(*place).or_insert((*what, 0)).1 += count;
        }
    }

    fn by_name(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for (what, count) in self.marks.values() {
            *counts.entry(*what).or_default() += count;
        }
        counts
    }

    /// Those of [`WANTED`] that were not reached.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = WANTED.iter().filter(|what| self.count(what) == 0);
        missing.copied().collect()
    }

    /// Marks that were reached and are not in [`WANTED`]: the list is not complete then.
    #[must_use]
    pub fn unlisted(&self) -> Vec<&'static str> {
        let listed = |what: &&str| WANTED.contains(what) || RARE.contains(what);
        let names = self.by_name().into_keys();
        names.filter(|what| !listed(what)).collect()
    }
}

/// Marks that some thousands of seeds may reach or not: a node is `isolated` only while it reports
/// between losing everybody and its next configuration, and few logs end with a batch that had no
/// quiet time since.
pub const RARE: &[&str] = &[
    "state: WAIT (isolated)",
    "state: WAIT (diverged)",
    "state: WAIT (witness-regressed)",
    "disk: bits turned over, as a torn write",
    "disk: bits turned over, of no use",
    "N5: an install given up half way",
    "X4: restarted with an arbiter proposed",
    "history: not decided",
];

impl fmt::Debug for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.by_name()).finish()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in self.by_name() {
            writeln!(f, "{count:>10}  {what}")?;
        }
        Ok(())
    }
}

/// All marks. The seeds that CI runs must reach each of them.
pub const WANTED: &[&str] = &[
    "config: REMOVE",
    "config: TAKEOVER",
    "config: ADD",
    "config: SWAP",
    "config: ABDICATE",
    "config: MOVE",
    "config: FORCE",
    "config: POLICY",
    "state: PRIM",
    "state: SECOND",
    "state: ALONE",
    "state: STOP",
    "state: WAIT (outdated)",
    "state: WAIT (no-primary)",
    "state: WAIT (no-witness)",
    "state: WAIT (resolving)",
    "state: WAIT (failed)",
    "state: WAIT (reverted)",
    "notice: a handover called off",
    "notice: a disk failed",
    "C2: a change that came too late",
    "C3: told by the witness",
    "C3: an old register proves nothing",
    "C4: a configuration lost with the power",
    "K2: asked where it is not served",
    "K6: another storage added again",
    "L1: sent before it was durable",
    "L3: acknowledged",
    "L5: applied at the other node",
    "D3: an ADD given up",
    "I1: handed over with a failed disk",
    "I2: a damaged log given up",
    "I4: a machine set back to an old image",
    "I4: a machine lost what it had acknowledged",
    "I4: a node knows that it was set back",
    "I4: who was set back is taken out by the other",
    "I4: who was set back is told by the witness",
    "T2: leases given their whole time",
    "W2: a node knows that the witness went back",
    "W3: a witness set back",
    "W5: taken over from a node without a session",
    "W6: taken over from a node with a session",
    "S3: watches ended with the service",
    "force: a loss accepted",
    "force: the other node joined by its log",
    "force: the other node keeps what it has and waits",
    "A1: alone and active by itself",
    "A2: the tail of the other node fetched",
    "A2: active with the other node",
    "A3: active across an epoch",
    "A5: a run raised in the same epoch",
    "C5: a configuration told by the peer",
    "D2: committed while an ADD is in doubt",
    "D4: restarted with an ADD in doubt",
    "L2: committed by both",
    "L2: committed alone",
    "L4: a tail cut",
    "L4: a stream opened again after a refusal",
    "L6: a log cut",
    "N1: a snapshot made",
    "N4: a snapshot installed",
    "R1: read locally",
    "R2: read after a confirmation",
    "R3: read at the other node",
    "T3: a lease expired",
    "T4: a lease renewed",
    "X1: an arbiter proposed",
    "W4: refused on probation",
    "W6: a takeover refused, the primary is alive",
    "witness: a probe answered",
    "a lost call to the witness repeated",
    "client: answered",
    "client: sent to the other node",
    "client: not known",
    "client: compacted",
    "client: compacted, space freed",
    "client: the past read",
    "client: the past is gone",
    "client: alarm set",
    "client: refused by NOSPACE",
    "client: refused by CORRUPT",
    "watch: ended by a compaction",
    "watch: resumed",
    "watch: progress",
    "disk: a torn tail",
    "disk: a write lost by a power cut",
    "disk: a flush failed",
    "disk: broken at a start",
    "disk: full",
    "disk: slow",
    "disk: the state's newest checkpoint lost",
    "disk: no room for the next segment",
    "disk: bits turned over, found",
    "disk: wiped",
    "node: killed",
    "node: power cut",
    "node: both without power",
    "node: frozen",
    "node: clock jumped",
    "link: cut",
    "link: cut one way",
    "link: slow",
    "link to the witness: cut",
    "link to the witness: cut one way",
    "witness: crashed",
    "witness: far away",
    "frame: lost",
    "frame: repeated",
    "operator: swap",
    "operator: stop",
    "operator: start",
    "operator: change of arbiter",
    "operator: stop by force",
    "operator: promote",
    "operator: promote by force",
    "operator: promote by force, without the witness",
    "operator: other policies",
    "REC1: both nodes and the witness",
    "REC2: both nodes, no witness",
    "REC3: one node and the witness",
];
