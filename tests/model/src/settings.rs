//! Bounds and switches of a run.

use crate::mutation::Mutation;
use crate::state::Pair;

/// The model: the protocol's rules (one of them perhaps broken) within bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The rule that is broken.
    pub mutation: Mutation,
    /// Highest epoch counter.
    pub epoch_max: u8,
    /// Client writes for each part.
    pub writes: Pair<u8>,
    /// Restarts.
    pub crashes: u8,
    /// Linearizable reads, at either node.
    pub reads: u8,
    /// SWAP, ABDICATE and DROP without need.
    pub voluntary: u8,
    /// Start states, as bits: 1 all MIRROR, 2 all ALONE, 4 lead MIRROR and the other part ALONE, 8 the other part away.
    pub starts: u8,
    /// Tries the recovery schedules in every state.
    pub recover: bool,
    /// Without a witness, policy `prefer-primary`: there is no TAKEOVER.
    pub without_takeover: bool,
    /// The arbiter may be changed online; REMOVE and TAKEOVER are sent and processed apart.
    pub arbiter_moves: bool,
    /// Init at the new witness, apart from what follows, so many times. Anybody who takes itself for the primary may ask.
    pub inits: u8,
    /// Keeps messages that can have no effect any more.
    pub keep_messages: bool,
    /// Only what clients see: properties P5 to P7 and P9 are left out.
    pub visible_only: bool,
    /// A restart forgets the commit index.
    pub forget_commit: bool,
    /// Times a log is cut.
    pub cuts: u8,
    /// Snapshots sent.
    pub snapshots: u8,
    /// Forced promotions.
    pub forces: u8,
    /// How they are made.
    pub force: Force,
    /// How a witness comes back from an old copy.
    pub rollback: Rollback,
}

/// How `promote --force` works.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Force {
    /// The register at the witness is replaced.
    #[default]
    AtWitness,
    /// `--without-witness`: only the node itself knows; its arbiter is then none.
    WithoutWitness,
    /// No witness, policy `ping`: not the operator, but a node that lost its peer and reaches the named address goes on
    /// alone. It is a forced promotion all the same; the primary's is of a higher generation than the other node's.
    Ping,
}

/// How a witness comes back from an old copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rollback {
    /// It never does.
    #[default]
    Never,
    /// Both nodes open a session before its probation ends.
    Connected,
    /// Its probation ends while nodes are cut off. The protocol does not promise to survive this.
    CutOff,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mutation: Mutation::None,
            epoch_max: 4,
            writes: Pair([1, 1]),
            crashes: 1,
            reads: 1,
            voluntary: 1,
            starts: 5,
            recover: false,
            without_takeover: false,
            arbiter_moves: false,
            inits: 0,
            keep_messages: false,
            visible_only: false,
            forget_commit: false,
            cuts: 0,
            snapshots: 0,
            forces: 0,
            force: Force::AtWitness,
            rollback: Rollback::Never,
        }
    }
}

impl Settings {
    /// Whether this rule is the broken one.
    pub fn breaks(&self, mutation: Mutation) -> bool {
        self.mutation == mutation
    }

    /// Whether logs are cut or snapshots sent.
    pub fn has_snapshots(&self) -> bool {
        self.cuts > 0 || self.snapshots > 0
    }

    /// Whether configurations of this epoch have no arbiter.
    pub fn is_without_arbiter(&self, epoch: u8) -> bool {
        let forced = self.force == Force::WithoutWitness && epoch > 10;
        self.forces > 0 && (forced || self.force == Force::Ping)
    }

    /// Whether the other nodes' configurations are learned by a notice of its own, not only with other frames.
    pub fn has_notices(&self) -> bool {
        self.arbiter_moves || self.forces > 0 || self.rollback != Rollback::Never
    }

    /// Refuses bounds that the model's small numbers cannot hold.
    ///
    /// # Errors
    /// Says which bound, and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let epoch_most = if self.forces > 0 { 7 } else { 9 };
        let limits = [
            ("e", self.epoch_max, epoch_most),
            ("w0", self.writes[0], 4),
            ("w1", self.writes[1], 4),
            ("forces", self.forces, 3),
            ("init", self.starts, 15),
            ("inits", self.inits, 2),
        ];
        for (key, value, most) in limits {
            if value > most {
                return Err(format!("{key}={value}: at most {most} is expected"));
            }
        }
        let moves = u8::from(self.arbiter_moves)
            + u8::from(self.forces > 0)
            + u8::from(self.rollback != Rollback::Never);
        if self.recover && (self.forces > 0 || self.rollback != Rollback::Never) {
            return Err(
                "recover=1 knows no operator: it goes with neither forces nor roll".to_owned(),
            );
        }
        if self.inits > 0 && !self.arbiter_moves {
            return Err("inits goes with mv=1".to_owned());
        }
        if moves > 1 {
            return Err("mv, forces and roll are separate switches: give one of them".to_owned());
        }
        Ok(())
    }
}
