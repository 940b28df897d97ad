//! What operators see (`repl section 4`).

use std::collections::BTreeMap;
use std::fmt;

use kine2_wal::LogIndex;

use crate::config::Standing;
use crate::event::Link;
use crate::hard_state::DataState;
use crate::ids::PartName;
use crate::policy::Arbiter;
use crate::unit::{Phase, Unit};

/// State of a unit at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Primary, the lead mirrored and served.
    Prim,
    /// In sync for the lead, the primary's stream is up.
    Second,
    /// Primary, the lead in sync here only and served.
    Alone,
    /// Orders nothing.
    Wait(WaitReason),
    /// Stopped by the operator.
    Stop,
}

/// Why a node waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Not in sync for the lead.
    Outdated,
    /// In sync, and no active primary is heard.
    NoPrimary,
    /// The peer is lost, and the configuration cannot be changed.
    NoWitness,
    /// In sync alone, and nobody was heard after the start.
    Isolated,
    /// Asking others for the newest configuration, or getting ready.
    Resolving,
    /// The lead's data is half installed.
    Inconsistent,
    /// The lead's log contradicts the primary's where both are final.
    Diverged,
    /// The configuration was made twice.
    Twin,
    /// The lead's disk failed.
    Failed,
    /// The peer is lost, and no gateway answers, or not for long enough (policy `ping`).
    NoGateway,
    /// The lead has not all that was final: the disk or the machine was set back.
    Reverted,
    /// The witness went backwards in time.
    WitnessRegressed,
}

impl WaitReason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Outdated,
        Self::NoPrimary,
        Self::NoWitness,
        Self::Isolated,
        Self::Resolving,
        Self::Inconsistent,
        Self::Diverged,
        Self::Twin,
        Self::Failed,
        Self::NoGateway,
        Self::Reverted,
        Self::WitnessRegressed,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prim => f.write_str("PRIM"),
            Self::Second => f.write_str("SECOND"),
            Self::Alone => f.write_str("ALONE"),
            Self::Wait(reason) => write!(f, "WAIT ({reason})"),
            Self::Stop => f.write_str("STOP"),
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outdated => "outdated",
            Self::NoPrimary => "no-primary",
            Self::NoWitness => "no-witness",
            Self::Isolated => "isolated",
            Self::Resolving => "resolving",
            Self::Inconsistent => "inconsistent",
            Self::Diverged => "diverged",
            Self::Twin => "twin",
            Self::Failed => "failed",
            Self::NoGateway => "no-gateway",
            Self::Reverted => "reverted",
            Self::WitnessRegressed => "witness-regressed",
        })
    }
}

/// One word about a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartWord {
    /// In sync on both nodes.
    Mirror,
    /// In sync at the primary only.
    Alone,
    /// In sync at the node that is not primary: served by nobody.
    Away,
    /// This node's disk of it failed.
    Failed,
    /// This node's data of it is half installed.
    Inconsistent,
    /// This node's log of it contradicts the primary's.
    Diverged,
    /// This node has not all of it that was final: the disk or the machine was set back.
    Reverted,
}

impl fmt::Display for PartWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mirror => "mirror",
            Self::Alone => "alone",
            Self::Away => "away",
            Self::Failed => "failed",
            Self::Inconsistent => "inconsistent",
            Self::Diverged => "diverged",
            Self::Reverted => "reverted",
        })
    }
}

/// A part as its node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartStatus {
    /// How it stands.
    pub word: PartWord,
    /// This node may order, commit and read it.
    pub active: bool,
    /// Its last entry here.
    pub end: LogIndex,
    /// Its last durable entry here.
    pub durable: LogIndex,
    /// Its last entry known to be committed.
    pub commit: LogIndex,
    /// Acknowledged by the peer in this epoch and run.
    pub matched: Option<LogIndex>,
}

/// A unit as its node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its state.
    pub state: State,
    /// An ADD to this part is in doubt.
    pub joint: Option<PartName>,
    /// Both nodes may go alone (policy `ping`).
    pub unsafe_policy: bool,
    /// Its parts.
    pub parts: BTreeMap<PartName, PartStatus>,
}

impl Unit {
    /// What this node knows of the unit.
    #[must_use]
    pub fn status(&self) -> Status {
        let names = self.part_names().into_iter();
        Status {
            state: self.state(),
            joint: self.hard.pend_add.as_ref().map(|add| add.part.clone()),
            unsafe_policy: self.hard.config.arbiter.is_ping(),
            parts: names
                .map(|name| {
                    let status = self.part_status(&name);
                    (name, status)
                })
                .collect(),
        }
    }

    fn part_status(&self, name: &PartName) -> PartStatus {
        let part = &self.parts[name];
        let word = match part.data {
            DataState::Failed => PartWord::Failed,
            DataState::Inconsistent => PartWord::Inconsistent,
            DataState::Complete if part.diverged => PartWord::Diverged,
            DataState::Complete if self.hard.reverted.contains(name) => PartWord::Reverted,
            DataState::Complete => match self.hard.config.standing(name) {
                Some(Standing::Mirror) => PartWord::Mirror,
                Some(Standing::Away) => PartWord::Away,
                Some(Standing::Alone) | None => PartWord::Alone,
            },
        };
        PartStatus {
            word,
            active: part.active,
            end: part.log.end(),
            durable: part.log.durable(),
            commit: part.commit,
            matched: part.matched,
        }
    }

    /// The unit's state at this node.
    #[must_use]
    pub fn state(&self) -> State {
        if self.hard.stopped {
            return State::Stop;
        }
        if let Some(reason) = self.trouble() {
            return State::Wait(reason);
        }
        let lead = &self.hard.config.lead;
        if self.is_primary() {
            let active = self.parts.get(lead).is_some_and(|part| part.active);
            let mirror = self.hard.config.standing(lead) == Some(Standing::Mirror);
            return match (active, mirror) {
                _ if self.phase == Phase::AloneUnheard => State::Wait(WaitReason::Isolated),
                (true, false) => State::Alone,
                // A primary that lost its peer and cannot change the configuration is none.
                (true, true) if self.is_blocked() => State::Wait(self.lacks()),
                (true, true) => State::Prim,
                (false, _) => State::Wait(WaitReason::Resolving),
            };
        }
        if !self.holds(lead) {
            return State::Wait(WaitReason::Outdated);
        }
        let silent = self.now.saturating_sub(self.peer.heard_active) > self.timers.suspect_primary;
        if self.peer.link != Link::Up || silent {
            let witness = matches!(self.hard.config.arbiter, Arbiter::Witness { .. });
            return State::Wait(if witness && !self.register.heard {
                WaitReason::NoWitness
            } else {
                WaitReason::NoPrimary
            });
        }
        State::Second
    }

    /// What a primary that lost its peer would need.
    fn lacks(&self) -> WaitReason {
        match self.hard.config.arbiter.is_ping() {
            true => WaitReason::NoGateway,
            false => WaitReason::NoWitness,
        }
    }

    /// The peer is lost, and the configuration was not changed in good time.
    fn is_blocked(&self) -> bool {
        let patience = self.timers.cas_timeout;
        let is_asking = self.register.is_asking(self.now, patience)
            || self.gateway.may_answer(self.now, patience);
        self.suspects_peer() && !is_asking
    }

    fn trouble(&self) -> Option<WaitReason> {
        let lead = self.parts.get(&self.hard.config.lead);
        if self.hard.twin {
            return Some(WaitReason::Twin);
        }
        match lead.map(|part| part.data) {
            Some(DataState::Failed) => return Some(WaitReason::Failed),
            Some(DataState::Inconsistent) => return Some(WaitReason::Inconsistent),
            Some(DataState::Complete) | None => {}
        }
        if lead.is_some_and(|part| part.diverged) {
            return Some(WaitReason::Diverged);
        }
        if self.hard.reverted.contains(&self.hard.config.lead) {
            return Some(WaitReason::Reverted);
        }
        let cut_off = self.register.regressed && self.suspects_peer();
        cut_off.then_some(WaitReason::WitnessRegressed)
    }
}
