//! Rules broken on purpose: what clients see must tell, or an invariant. `ONLY=Name SEEDS=n` hunts
//! for one of all.

use kine2_mutation::{Mutation, Room, asked, hunt};
use kine2_sim::plan::Plan;
use kine2_sim::world::World;

/// Found within few seeds, some of each room.
const SOON: &[Mutation] = &[
    Mutation::AckBeforeDurable,
    Mutation::AsyncCommit,
    Mutation::CommitUnverified,
    Mutation::NoBarrier,
    Mutation::AddNoJoint,
    Mutation::AppliedBeforeCommit,
    Mutation::StepsBeforeDurable,
    Mutation::OwnRecordLost,
    Mutation::ReadUnconfirmed,
    Mutation::ReadUnapplied,
    Mutation::UnknownAsUntried,
    Mutation::RefusedStays,
    Mutation::AnswersSwapped,
    Mutation::LeasesNotActivated,
    Mutation::LeaseNoFreshTime,
    Mutation::LeaseOfOtherNotStarted,
    Mutation::StallIgnored,
    Mutation::WakesForCorrupt,
    Mutation::RenewedAnywhere,
    Mutation::WatchToldTwice,
    Mutation::WatchOwnOnly,
    Mutation::WatchMissesExpiry,
    Mutation::SwitchBeforeDurable,
    Mutation::CompactionNotApplied,
    Mutation::AlarmNotApplied,
    Mutation::LogNoFlush,
    Mutation::LogNoDirectoryFlush,
    Mutation::LogTruncationIgnored,
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

#[test]
fn each_broken_rule_is_found() {
    let rooms = [Room::Node, Room::Log, Room::Store, Room::Replication];
    let all = rooms.into_iter().flat_map(Mutation::of).collect();
    let (mutations, seeds) = asked(all, SOON, SOON_SEEDS);
    hunt(&mutations, seeds, |seed| {
        if let Err(story) = World::run(Plan::of(seed)) {
            // What failed comes last.
            let what = story.lines().rfind(|line| !line.starts_with(' '));
            panic!("{}", what.unwrap_or_default());
        }
    });
}
