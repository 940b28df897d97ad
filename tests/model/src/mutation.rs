//! Broken rules. Each must be caught by a property; a rule whose break is not caught is not needed, or not covered.

use crate::settings::{Force, Rollback, Settings};
use crate::state::Pair;

macro_rules! mutations {
    ($($name:ident: $broken:literal,)*) => {
        /// The one rule a run breaks.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mutation {
            /// No rule is broken.
            None,
            $(#[doc = $broken] $name,)*
        }

        impl Mutation {
            /// All but `None`.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What is done wrong.
            pub fn broken(self) -> &'static str {
                match self {
                    Self::None => "nothing",
                    $(Self::$name => $broken,)*
                }
            }
        }
    };
}

mutations! {
    StaleTakeover: "TAKEOVER by a node that is not in sync for the lead",
    BlindCas: "TAKEOVER without comparing the expected epoch",
    NoCas: "a primary goes ALONE without a CAS",
    AckBeforeDurable: "S acks before its fsync",
    CommitBeforeOwnFsync: "P commits on S's ack alone",
    AsyncCommit: "P commits in MIRROR without S's ack",
    ExposeEarlyS: "S applies all it has, not what P says is committed",
    LocalRead: "P answers a read in MIRROR without asking S",
    ConfirmAnyEpoch: "S confirms a read of another epoch",
    RunAny: "S confirms a read of another run",
    NoBarrier: "reads before the barrier is committed (A4)",
    NoFence: "frames of a lower epoch are processed (C5)",
    CfgVolatile: "an adopted configuration is not durable (C4)",
    NoTrunc: "S keeps its own tail (L4)",
    NoRun: "a restarted primary uses the same run (A5)",
    NoRunNoPull: "the same, and it does not fetch S's tail",
    NoPull: "a restarted primary does not fetch S's tail (A2)",
    SwapInstantCommit: "the new primary of a MIRROR part commits its whole log at once",
    AddNoJoint: "pend_add does not change the commit rule (D2)",
    AddJointReadsLocal: "pend_add does not change the read rule (D2)",
    PendVolatile: "pend_add is lost by a restart (D2)",
    PendClearByRead: "pend_add ends because the register still shows the old value (D3)",
    AddNotCaughtUp: "ADD before S has all that is committed (D1)",
    AddAnyEpochAck: "acks of another epoch or run count (D1, L2)",
    WitnessRollback: "the register goes back, and nobody notices",
    NoGossip: "nodes do not tell each other newer configurations",
    PropVolatile: "a proposed arbiter is forgotten by a restart (X1)",
    PropNoSuspend: "forms are used while an arbiter is proposed (X2)",
    PropLearnOld: "the old arbiter is believed while another is proposed (X2)",
    PropNotBased: "S accepts a proposal made from another epoch (X3)",
    InitAnyCounter: "the new witness begins a register anew by what was made from an older configuration (X1)",
    TakeoverAllParts: "TAKEOVER takes every part",
    AbdicateAllParts: "ABDICATE gives every part",
    SwapTakesAll: "SWAP puts the new primary into every set",
    ServeForeign: "the primary serves a part that is away (K2)",
    StreamForeign: "a primary that is not in sync for a part sends its log (K1)",
    RemoveLeadOnly: "REMOVE changes the lead's set only, P believes all",
    RemoveOtherOnly: "REMOVE changes the other set only, P believes all",
    RemoveStuck: "REMOVE changes the lead's set only, and P knows it",
    RemoveStripsAway: "REMOVE takes a part that is away",
    PendLeadOnly: "pend_add is obeyed by the lead only",
    PendWrongPart: "pend_add is obeyed by the wrong part",
    SharedMatch: "the lead's match permits ADD of the other part (D1)",
    AddLeadAddsAll: "ADD of the lead adds S to all parts (K4)",
    DropLead: "DROP of the lead alone",
    AddPartFirst: "ADD of the other part before the lead (K4)",
    NoSwapBack: "no SWAP to the holder of a part that is away (K7)",
    CutUncommitted: "the log is cut at its end, not at the commit index (L6)",
    CutBeforeCheckpoint: "the log is cut before the state that replaces it is durable (L6)",
    SnapshotUncommitted: "a snapshot of all P has, not of what is committed (N1)",
    SnapshotInSync: "a node in sync is given a snapshot, and takes it (N2)",
    SnapshotOverHeld: "S installs a snapshot of what it holds already and drops what it holds beyond (N6)",
    SnapshotTailStops: "S refuses a snapshot because its uncommitted tail differs (N3 by the letter)",
    SnapshotOverDiverged: "S installs a snapshot over a committed history that is not P's (N3)",
    InstallMixed: "an install goes on with the end of another snapshot (N5)",
    InconsistentVolatile: "a restart forgets that data are half installed (I3)",
    InconsistentAcks: "S acks entries on top of half-installed data (I3)",
    ForceOwnSets: "promote --force takes the parts of the own configuration, not of the register's",
    ForceInconsistent: "promote --force takes half-installed data",
    QuarantineByHint: "only what is known to be committed is put in quarantine (section 12 by the letter)",
    OverwriteFirst: "the losing side is overwritten before its quarantine is durable",
    NoDivergedStop: "the losing side truncates below its commit instead of stopping",
    TwinByEpoch: "only an equal epoch makes a twin, only a higher generation a quarantine (section 12 by the letter)",
    ForcePartKeepsMirror: "promote --force --part leaves the lead MIRROR (section 12 by the letter)",
    TermWithoutUid: "a term is only epoch and run, so twins name different entries the same (section 2 by the letter)",
    NoSessionCheck: "the witness does not compare sessions with its register (W3)",
    ProbationTakeoverOnly: "probation holds up TAKEOVER only (W4 by the letter)",
    NoProbation: "a restarted witness takes CAS at once (W4)",
    LateReply: "a reply of the witness's earlier life is believed after a new session (W7)",
}

impl Mutation {
    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|mutation| format!("{mutation:?}") == name)
    }

    /// Why breaking this rule is thought to do no harm, if it did none within any bounds tried.
    #[must_use]
    pub fn harmless(self) -> Option<&'static str> {
        match self {
            Self::RunAny => Some("the barrier and the acks of the new run seem to cover it"),
            Self::NoPull => Some(
                "saves data only when a disk forgot something, which the model's disks never do",
            ),
            Self::PropNoSuspend => {
                Some("a CAS at the old register has no effect once S follows the new one")
            }
            Self::DropLead => Some("blocks, and loses nothing"),
            Self::AddPartFirst => Some("keeps the number of shapes small, and no more"),
            Self::SnapshotInSync => {
                Some("a node in sync holds all of any snapshot, so N6 refuses it")
            }
            _ => None,
        }
    }

    /// Small bounds within which it does harm.
    #[must_use]
    pub fn bounds(self) -> Settings {
        let common = Settings {
            mutation: self,
            epoch_max: 5,
            writes: Pair([1, 2]),
            ..Settings::default()
        };
        // One part, few steps: enough for most, and quick.
        let lead = Settings {
            epoch_max: 4,
            writes: Pair([1, 0]),
            voluntary: 0,
            starts: 1,
            ..common.clone()
        };
        let other = Settings {
            writes: Pair([0, 2]),
            reads: 0,
            starts: 4,
            ..lead.clone()
        };
        match self {
            Self::CfgVolatile
            | Self::NoFence
            | Self::AddNoJoint
            | Self::PendVolatile
            | Self::PendClearByRead
            | Self::AddNotCaughtUp
            | Self::AddAnyEpochAck
            | Self::PendLeadOnly
            | Self::PendWrongPart
            | Self::AddLeadAddsAll => other,
            Self::ConfirmAnyEpoch => lead,
            Self::AddJointReadsLocal => Settings {
                writes: Pair([0, 1]),
                reads: 1,
                ..other
            },
            Self::NoBarrier => Settings {
                writes: Pair([2, 0]),
                crashes: 0,
                voluntary: 1,
                ..lead
            },
            Self::RunAny | Self::NoPull | Self::DropLead | Self::AddPartFirst => Settings {
                epoch_max: 3,
                writes: Pair([0, 1]),
                ..common
            },
            Self::NoGossip | Self::RemoveStuck | Self::NoSwapBack => Settings {
                epoch_max: 4,
                writes: Pair([1, 1]),
                reads: 0,
                voluntary: 0,
                recover: true,
                ..common
            },
            Self::PropVolatile | Self::PropNoSuspend | Self::PropLearnOld | Self::PropNotBased => {
                Settings {
                    epoch_max: 3,
                    reads: 0,
                    arbiter_moves: true,
                    starts: 5,
                    ..lead
                }
            }
            Self::InitAnyCounter => Settings {
                epoch_max: 4,
                reads: 0,
                crashes: 0,
                arbiter_moves: true,
                inits: 2,
                starts: 1,
                ..lead
            },
            Self::CutUncommitted
            | Self::CutBeforeCheckpoint
            | Self::SnapshotUncommitted
            | Self::SnapshotOverHeld
            | Self::SnapshotTailStops
            | Self::InconsistentVolatile
            | Self::InconsistentAcks => Self::with_snapshots(other),
            Self::SnapshotInSync => Settings {
                epoch_max: 3,
                writes: Pair([0, 1]),
                ..Self::with_snapshots(other)
            },
            Self::InstallMixed => Settings {
                snapshots: 2,
                crashes: 0,
                ..Self::with_snapshots(other)
            },
            Self::SnapshotOverDiverged => Settings {
                snapshots: 1,
                crashes: 0,
                writes: Pair([2, 0]),
                starts: 2,
                ..Self::with_force(lead)
            },
            Self::ForceInconsistent => Settings {
                snapshots: 1,
                writes: Pair([0, 1]),
                starts: 4,
                ..Self::with_force(lead)
            },
            Self::ForceOwnSets => Self::with_force(lead),
            Self::QuarantineByHint | Self::OverwriteFirst | Self::NoDivergedStop => {
                Self::with_force(lead)
            }
            Self::ForcePartKeepsMirror => Settings {
                voluntary: 1,
                starts: 4,
                force: Force::WithoutWitness,
                ..Self::with_force(lead)
            },
            Self::TermWithoutUid => Settings {
                writes: Pair([2, 0]),
                forces: 2,
                force: Force::WithoutWitness,
                ..Self::with_force(lead)
            },
            Self::TwinByEpoch => Settings {
                forces: 2,
                force: Force::WithoutWitness,
                ..Self::with_force(lead)
            },
            Self::NoSessionCheck
            | Self::ProbationTakeoverOnly
            | Self::NoProbation
            | Self::LateReply => Settings {
                reads: 0,
                crashes: 0,
                rollback: Rollback::Connected,
                ..lead
            },
            _ => common,
        }
    }

    fn with_snapshots(base: Settings) -> Settings {
        Settings {
            cuts: 1,
            snapshots: 1,
            ..base
        }
    }

    fn with_force(base: Settings) -> Settings {
        Settings {
            reads: 0,
            starts: 7,
            forces: 1,
            forget_commit: true,
            ..base
        }
    }
}
