//! The list.

use std::fmt;

/// Whose rules a mutation breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// `kine2-replication` and `kine2-witness-core`.
    Replication,
    /// `kine2-wal`.
    Log,
    /// `kine2-mvcc`.
    Store,
    /// `kine2-node`.
    Node,
}

/// What tests are expected to say of a mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// They find it.
    Found,
    /// It does no harm, for the reason given: another rule covers it. They do not find it, and a
    /// test that does is news.
    Harmless(&'static str),
}

macro_rules! mutations {
    ($($room:ident { $($name:ident $rule:literal $what:literal $(harmless $why:literal)?;)* })*) => {
        /// A rule broken on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutation {
            $($(#[doc = $what] $name,)*)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Self] = &[$($(Self::$name,)*)*];

            /// Those of a room.
            #[must_use]
            pub fn of(room: Room) -> Vec<Self> {
                Self::ALL.iter().copied().filter(|m| m.room() == room).collect()
            }

            /// Whose rule it is.
            #[must_use]
            pub const fn room(self) -> Room {
                match self { $($(Self::$name)|* => Room::$room,)* }
            }

            /// The rule, as the protocol or the format names it.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self { $($(Self::$name => $rule,)*)* }
            }

            /// How it is broken.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $($(Self::$name => $what,)*)* }
            }

            /// Whether tests find it.
            #[must_use]
            pub const fn expected(self) -> Expected {
                match self { $($(Self::$name => mutations!(@expected $($why)?),)*)* }
            }
        }
    };
    (@expected) => { Expected::Found };
    (@expected $why:literal) => { Expected::Harmless($why) };
}

mutations! {
    Replication {
        StaleTakeover "C2" "TAKEOVER by a node that is not in sync for the lead.";
        BlindCas "C2" "The witness does not compare what is expected with what it holds.";
        NoCas "C1" "A primary goes on alone without the witness.";
        TakeoverAllParts "C2" "TAKEOVER takes every part.";
        AbdicateAllParts "C2" "ABDICATE gives every part.";
        SwapTakesAll "C2" "SWAP puts the new primary into every set.";
        RemoveStuck "C2" "REMOVE changes the set of the lead only.";
        RemoveOtherOnly "C2" "REMOVE changes the sets of the other parts only.";
        RemoveStripsAway "C2" "REMOVE takes a part that is away.";
        AddLeadAddsAll "K4" "ADD of the lead adds the peer to all parts.";
        CfgVolatile "C4" "Nothing waits for a configuration, run or intent to be durable.";
        NoFence "C5" "Entries of a lower epoch are acknowledged.";
        NoGossip "C5" "Nodes do not tell each other newer configurations.";
        ServeForeign "K2" "The primary serves a part that is away.";
        StreamForeign "K1" "A primary sends the log of a part that is away, and the holder takes it.";
        AdoptOlder "C3" "A node adopts an older configuration that the register tells.";
        AckBeforeDurable "L3" "Entries are acknowledged before they are durable.";
        CommitBeforeOwnFlush "L2" "Commit on the peer's acknowledgement alone.";
        ResetCountsAtOnce "N4" "A snapshot is acknowledged before the switch to it is durable.";
        OldFrameCuts "L4" "A late frame cuts what came after it.";
        AnswerBeforeStored "C2" "The witness answers before its register is durable.";
        AsyncCommit "L2" "Commit of a mirrored part without the peer.";
        ExposeEarly "L5" "The other node commits all it has, not what the primary told.";
        CommitUnverified "L5" "The other node commits what was told beyond its verified prefix.";
        NoTruncation "L4" "The other node keeps a tail of its own.";
        AddAnyEpochAck "L2" "Acknowledgements of another epoch, run or opening count.";
        NoRun "A5" "A restarted primary uses the same run.";
        NoRunNoFetch "A5" "The same, and it does not fetch the peer's tail.";
        NoFetch "A2" "A restarted primary does not fetch the peer's tail."
            harmless "the disks of the simulator forget nothing that was synced";
        SwapInstantCommit "A2" "The new primary of a mirrored part commits its whole log at once.";
        NoBarrier "A4" "Reads at the primary do not wait for the barrier.";
        ReadIndexNoBarrier "A4" "A ReadIndex is answered before the barrier is committed.";
        LocalRead "R2" "A read of a mirrored part is not confirmed.";
        StaleConfirm "R2" "A frame that was sent before the read arrived confirms it.";
        ConfirmAnyEpoch "R2" "A read of a lower epoch is confirmed.";
        ReadIndexNotServed "R3" "A primary that does not serve the part answers a ReadIndex.";
        ReadIndexUnapplied "R3" "The other node answers a read before it has what the primary named.";
        AddNotCaughtUp "D1" "ADD before the peer has all that is committed.";
        SharedMatch "D1" "What the peer has of the lead permits ADD of another part.";
        AddNoJoint "D2" "An ADD in doubt does not change the rule of commit.";
        AddJointReadsLocal "D2" "An ADD in doubt does not change the rule of reads.";
        PendVolatile "D2" "An ADD in doubt is forgotten by a restart.";
        PendLeadOnly "D2" "An ADD in doubt is obeyed by the lead only.";
        PendWrongPart "D2" "An ADD in doubt is obeyed by another part.";
        PendClearByRead "D3" "An ADD in doubt ends because the register shows the old value.";
        NoSwapBack "K7" "No SWAP to the holder of a part that is away.";
        AddPartFirst "K4" "ADD of another part is asked for before that of the lead.";
        SnapshotUncommitted "N1" "A snapshot of all that is there, not of what is committed.";
        SnapshotInSync "N2" "A node in sync takes a snapshot."
            harmless "what it would bring is there already (N6)";
        SnapshotTailStops "N3" "A tail that is not committed makes the peer stop as diverged.";
        SnapshotOverHeld "N6" "A snapshot of what is held is taken, and drops what is beyond."
            harmless "an offer names its opening, and a stream is opened anew after each snapshot";
        PropVolatile "X1" "A proposed arbiter is forgotten by a restart.";
        PropLearnOld "X2" "The old arbiter is heard while another is proposed.";
        PropNotBased "X3" "A proposal made from another configuration is accepted.";
        NoSessionCheck "W3" "The witness does not compare what nodes know with its register.";
        ProbationTakeoverOnly "W4" "A restarted witness holds back TAKEOVER only.";
        NoProbation "W4" "A restarted witness takes any form at once.";
        TermWithoutOrigin "Q3" "A term does not name the forced promotion it descends from.";
        QuarantineByHint "Q1" "Only what is known to be committed is kept from being cut.";
        OverwriteFirst "Q1" "What is overruled is cut before its quarantine is durable.";
        NoDivergedStop "L4" "What is overruled is cut although it is known to be committed.";
        ForceInconsistent "I3" "A part that is half installed is promoted by force.";
        PingWithoutAnswer "section 11" "A node goes alone although no gateway answers it.";
        PingLateAnswer "section 11" "An answer of the gateway counts however late it comes.";
        NoFloorAtWitness "I4" "The witness keeps no floors: it neither tells nor refuses who was set back.";
        NoFloorAtPeer "I4" "The nodes do not compare what is final with what the other has.";
        ForceOwnSets "Q4" "A forced promotion takes its sets from the node's configuration, not from the register.";
        ForcePartKeepsMirror "Q4" "A part promoted by force leaves the lead mirrored.";
        TwinByEpoch "Q2" "Only an equal epoch makes twins, only a higher generation a quarantine.";
        LateReply "W7" "A word of the witness's earlier life is believed after a new session.";
    }
    Log {
        LogNoFlush "group commit" "What was written is not flushed.";
        LogDurableEarly "group commit" "An entry counts as durable once it is staged.";
        LogNoChecksum "recovery" "Records are not compared with their checksums.";
        LogNoDirectoryFlush "segments" "The directory is not flushed.";
        LogNoSettle "recovery" "The end of the log is not written again when it is opened.";
        LogTruncationIgnored "records" "A truncation is ignored when the log is opened.";
        LogHardStateLost "records" "A new segment begins without the hard state.";
        LogSameId "segments" "All segments have the same id, so an old record in a used file counts.";
        LogResetKeeps "records" "A reset does not say that what was before is gone.";
    }
    Store {
        VersionNotRaised "S14" "A put does not raise the version.";
        CreateMoves "S14" "A put changes the revision of creation.";
        CompareFirstOnly "S16" "A compare of a range looks at its first key only.";
        MoreForgotten "S9" "A range that was cut short does not say so.";
        CountStale "S10" "The count of an older revision is that of the newest.";
        LeaseKeysStay "S48" "A lease that is revoked leaves its keys.";
        LeaseNotMoved "S14" "A key stays with the lease it had before.";
        LeaseUnsaved "S46" "A lease is forgotten by a restart.";
        CompactTooMuch "S26" "A compaction takes the newest change of a key up to its revision, too.";
        WatchTombstoneGone "S26" "A compaction takes a tombstone at its revision.";
        CompactedReadable "S25" "Revisions that were compacted are read.";
        CompactionUnsaved "S25" "A compaction is forgotten by a restart.";
        RingForgets "S35" "Changes that the backend lacks leave memory.";
        WatchMissesFirst "S31" "A watcher is not told of the first revision after its creation.";
        WatchMissesFull "S35" "What came while a stream was full is not told later.";
    }
    Node {
        AppliedBeforeCommit "section 3" "A command is applied once it is written, not once it is committed.";
        StepsBeforeDurable "C4" "A step is taken before what it waits for is durable.";
        OwnRecordLost "C4" "A change of the hard state does not reach the log.";
        ReadUnconfirmed "R2" "A read is answered without a confirmation.";
        ReadUnapplied "R1" "The primary reads before it has applied what is committed.";
        FailedDiskReads "I1" "Reads that wait for a disk that failed are answered.";
        UnknownAsUntried "section 10" "A write that may be carried out is answered as one that nobody tried.";
        RefusedStays "S2" "Commands that were refused at the end of the service stay in the queue.";
        AnswersSwapped "section 3" "Two commands of one batch get each other's answers.";
        CutCommandsStay "L4" "Commands that were cut from the log stay in memory.";
        ResetKeepsCommands "N4" "Commands from before a gap, or of a log that began anew, stay in memory.";
        SignsOfLifeWait "section 8" "Heartbeats wait until what is committed is applied.";
        LeaseCountsOn "T1" "A node that is not primary any more goes on ending leases.";
        LeasesNotActivated "T2" "Leases that are there at an activation are not counted.";
        LeasesGoneAtActivation "T2" "A node says that leases are gone until what makes it primary is durable.";
        LeaseNoFreshTime "T2" "Leases get no time at an activation.";
        LeaseNoGrace "T2" "Leases get their time at an activation, and no grace.";
        LeaseOfOtherNotStarted "T2" "A lease granted by the primary before is not counted.";
        ExpiryUnconfirmed "T3" "A lease ends without a confirmation.";
        StallIgnored "T3" "A standstill is not given to leases.";
        SilenceIgnored "T3" "A silence of the peer is not given to leases.";
        RefusedExpiryForgotten "T3" "An expired lease that a corrupt store kept is never ended.";
        ExpiredWhileRevoked "T3" "A lease that a client is revoking is ended by time as well.";
        WakesForCorrupt "T3" "A node wakes for leases that its corrupt store keeps.";
        RenewalUnconfirmed "T4" "A renewal is answered without a confirmation.";
        RenewedAnywhere "T4" "A node that is not primary answers renewals.";
        ExpiredRenewed "S46" "A lease is renewed whose end is on its way.";
        WatchToldTwice "S31" "Watches are told everything twice.";
        WatchOwnOnly "S31" "Watches are told only of what this node ordered.";
        WatchMissesExpiry "S31" "Watches are not told of keys that end with their lease.";
        SwitchKeepsWatches "S31" "Watches go on over a state that came as a snapshot.";
        SwitchKeepsSaving "N4" "A state that came as a snapshot waits for what the old one had to save.";
        SwitchKeepsBatch "N4" "Changes of the old state are saved into the one that came as a snapshot."
            harmless "a batch is taken from the store as the output is, never before";
        SwitchBeforeDurable "N4" "The state is switched before the log is, durably.";
        CutAtNewestCheckpoint "L6" "The log is cut up to the newest checkpoint.";
        CutBeyondCheckpoint "L6" "The log is cut beyond the newest checkpoint.";
        CutIgnoresPeer "L6" "The log is cut though the peer needs it still."
            harmless "the peer is given a snapshot";
        CompactionNotApplied "S25" "A compaction is carried out by the node that ordered it only.";
        CompactionAnsweredEarly "S25" "A physical compaction is answered before its space is free.";
        CheckpointCoversAll "S25" "A checkpoint counts for what was saved after it began.";
        SpaceWorkStops "S25" "The space of a compaction is never freed.";
        AlarmNotApplied "S53" "An alarm is set at the node that ordered it only.";
        NoSpaceNotRaised "S53" "A write is refused for lack of space, and no alarm raised.";
        QuotaIgnored "S53" "The quota is not looked at.";
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
