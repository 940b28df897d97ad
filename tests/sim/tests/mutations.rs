//! Rules broken on purpose: what clients see must tell, or an invariant. `ONLY=Name SEEDS=n` hunts
//! for one of all.

use kine2_mutation::{Mutation, Room, asked, hunt};
use kine2_sim::plan::Plan;
use kine2_sim::scripts;
use kine2_sim::world::World;

/// Found within few seeds, some of each room.
const SOON: &[Mutation] = &[
    Mutation::AckBeforeDurable,
    Mutation::AsyncCommit,
    Mutation::CommitUnverified,
    Mutation::NoBarrier,
    Mutation::AddNoJoint,
    Mutation::AppliedBeforeCommit,
    Mutation::OwnRecordLost,
    Mutation::ReadUnconfirmed,
    Mutation::ReadUnapplied,
    Mutation::AnswersSwapped,
    Mutation::LeasesNotActivated,
    Mutation::LeaseNoFreshTime,
    Mutation::LeaseOfOtherNotStarted,
    Mutation::WatchToldTwice,
    Mutation::WatchOwnOnly,
    Mutation::WatchMissesExpiry,
    Mutation::SwitchBeforeDurable,
    Mutation::CompactionNotApplied,
    Mutation::AlarmNotApplied,
    Mutation::LogNoFlush,
    Mutation::LogNoDirectoryFlush,
    Mutation::LogHardStateLost,
    Mutation::VersionNotRaised,
    Mutation::LeaseKeysStay,
    Mutation::LeaseUnsaved,
    Mutation::CompactTooMuch,
    Mutation::CompactedReadable,
    Mutation::WatchMissesFull,
    Mutation::NoFloorAtWitness,
    Mutation::NoFloorAtPeer,
];
/// Seeds after which one of them is given up.
const SOON_SEEDS: u64 = 200;

/// Put to the test by a script, and hardly by chance.
const SCRIPTED: &[Mutation] = &[
    Mutation::SignsOfLifeWait,
    Mutation::LeasesGoneAtActivation,
    Mutation::ExpiryUnconfirmed,
    Mutation::SilenceIgnored,
    Mutation::RefusedExpiryForgotten,
    Mutation::ExpiredWhileRevoked,
    Mutation::ExpiredRenewed,
    Mutation::RenewalUnconfirmed,
    Mutation::NoSpaceNotRaised,
    Mutation::QuotaIgnored,
];

/// Of no meaning where a unit has one part, the store.
const OF_OTHER_PARTS: &[Mutation] = &[
    Mutation::TakeoverAllParts,
    Mutation::AbdicateAllParts,
    Mutation::SwapTakesAll,
    Mutation::RemoveStuck,
    Mutation::RemoveStripsAway,
    Mutation::AddLeadAddsAll,
    Mutation::ServeForeign,
    Mutation::SharedMatch,
    Mutation::PendLeadOnly,
    Mutation::PendWrongPart,
    Mutation::NoSwapBack,
    Mutation::AddPartFirst,
    Mutation::StreamForeign,
    Mutation::ForceOwnSets,
    Mutation::ForcePartKeepsMirror,
];

/// What else whole nodes do not show, or hardly: the tests of its crate find it.
const ELSEWHERE: &[Mutation] = &[
    // What is durable is known beside the log.
    Mutation::LogDurableEarly,
    // Clients compare one key at a time.
    Mutation::CompareFirstOnly,
    // A power cut right after a reset; a deletion at the very revision of a compaction.
    Mutation::LogResetKeeps,
    Mutation::WatchTombstoneGone,
    // Nobody asks a gateway.
    Mutation::PingWithoutAnswer,
    Mutation::PingLateAnswer,
    // Promotions by force come at the end of a story, of a node that is alone.
    Mutation::TermWithoutOrigin,
    Mutation::QuarantineByHint,
    Mutation::OverwriteFirst,
    Mutation::NoDivergedStop,
    Mutation::ForceInconsistent,
    Mutation::TwinByEpoch,
    // Orders of things for which the core's simulator lies in wait.
    Mutation::AnswerBeforeStored,
    Mutation::AddAnyEpochAck,
    Mutation::ConfirmAnyEpoch,
    Mutation::AddJointReadsLocal,
    Mutation::PendVolatile,
    Mutation::SnapshotUncommitted,
    Mutation::PropVolatile,
    Mutation::PropLearnOld,
    Mutation::PropNotBased,
    Mutation::ProbationTakeoverOnly,
    Mutation::NoProbation,
    Mutation::LateReply,
    // Harmless to that one's disks, not to those of a machine set back.
    Mutation::NoFetch,
];

/// Those that whole nodes are to find under a seed; `ONLY` may name any.
fn by_seeds() -> Vec<Mutation> {
    if std::env::var_os("ONLY").is_some() {
        return Mutation::ALL.to_vec();
    }
    let others = [SCRIPTED, OF_OTHER_PARTS, ELSEWHERE].concat();
    let rooms = [Room::Node, Room::Log, Room::Store, Room::Replication];
    let all = rooms.into_iter().flat_map(Mutation::of);
    all.filter(|mutation| !others.contains(mutation)).collect()
}

#[test]
fn each_broken_rule_is_found() {
    let (mutations, seeds) = asked(by_seeds(), SOON, SOON_SEEDS);
    hunt(&mutations, seeds, |seed| {
        if let Err(story) = World::run(Plan::of(seed)) {
            // What failed comes last.
            let what = story.lines().rfind(|line| !line.starts_with(' '));
            panic!("{}", what.unwrap_or_default());
        }
    });
}

#[test]
fn each_broken_rule_that_needs_a_script_is_found() {
    let all = SCRIPTED.to_vec();
    let (mutations, _) = asked(all, SCRIPTED, 0);
    hunt(&mutations, scripts::ALL.len() as u64, |number| {
        let number = usize::try_from(number).expect("few scripts");
        let (name, play) = scripts::ALL[number];
        let played = std::panic::catch_unwind(play);
        assert!(played.is_ok(), "the script \"{name}\"");
    });
}
