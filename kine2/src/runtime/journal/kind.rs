//! The kinds of events. `docs/operations.md` says of each what it means, whether the data are safe,
//! and what is to be done.

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The program began to serve.
    Start,
    /// The program was asked to end.
    Stop,
    /// The program ended by itself, as a disk failed.
    Failed,
    /// The state of the unit changed here.
    State,
    /// Another configuration is in force here.
    Configuration,
    /// This node serves the store as its primary.
    Serves,
    /// It does so no longer.
    ServesNoMore,
    /// The other node is heard.
    PeerFound,
    /// It is not heard any more.
    PeerLost,
    /// The witness answers.
    WitnessFound,
    /// It does not.
    WitnessLost,
    /// The witness knows less than it did.
    WitnessRegressed,
    /// An operator's command was carried out, or not.
    Command,
    /// What was asked for cannot be done.
    Refused,
    /// A handover was called off.
    SwapOff,
    /// The same epoch was made twice.
    Twin,
    /// A part contradicts the primary's.
    Diverged,
    /// What was overruled is being put away.
    QuarantineBegun,
    /// It is put away.
    Quarantined,
    /// What is put away needs much room.
    QuarantineLarge,
    /// A disk of a part failed.
    PartFailed,
    /// This node lacks what was acknowledged: it was set back to an old image.
    Reverted,
    /// An alarm was raised.
    Alarm,
    /// An alarm was disarmed.
    AlarmOver,
}

impl Kind {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 24] = [
        Self::Start,
        Self::Stop,
        Self::Failed,
        Self::State,
        Self::Configuration,
        Self::Serves,
        Self::ServesNoMore,
        Self::PeerFound,
        Self::PeerLost,
        Self::WitnessFound,
        Self::WitnessLost,
        Self::WitnessRegressed,
        Self::Command,
        Self::Refused,
        Self::SwapOff,
        Self::Twin,
        Self::Diverged,
        Self::QuarantineBegun,
        Self::Quarantined,
        Self::QuarantineLarge,
        Self::PartFailed,
        Self::Reverted,
        Self::Alarm,
        Self::AlarmOver,
    ];

    /// Its name, in files and answers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Failed => "failed",
            Self::State => "state",
            Self::Configuration => "configuration",
            Self::Serves => "serves",
            Self::ServesNoMore => "serves-no-more",
            Self::PeerFound => "peer-found",
            Self::PeerLost => "peer-lost",
            Self::WitnessFound => "witness-found",
            Self::WitnessLost => "witness-lost",
            Self::WitnessRegressed => "witness-regressed",
            Self::Command => "command",
            Self::Refused => "refused",
            Self::SwapOff => "swap-off",
            Self::Twin => "twin",
            Self::Diverged => "diverged",
            Self::QuarantineBegun => "quarantine-begun",
            Self::Quarantined => "quarantined",
            Self::QuarantineLarge => "quarantine-large",
            Self::PartFailed => "part-failed",
            Self::Reverted => "reverted",
            Self::Alarm => "alarm",
            Self::AlarmOver => "alarm-over",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kine2_replication::WaitReason;

    use super::*;

    const DOCS: &str = include_str!("../../../../docs/operations.md");

    /// First cells of a table's rows, as they stand between backquotes; each row is whole.
    fn rows(heading: &str) -> BTreeSet<String> {
        let (_, below) = DOCS.split_once(&format!("\n## {heading}\n")).unwrap();
        let section = below.split("\n## ").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        rows.map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            assert!(cells.len() >= 5 && !cells[2].is_empty(), "{row}");
            assert!(
                cells[3..cells.len() - 1]
                    .iter()
                    .all(|cell| !cell.is_empty()),
                "{row}"
            );
            cells[1].trim_matches('`').to_owned()
        })
        .collect()
    }

    #[test]
    fn the_manual_names_every_event_and_no_other() {
        let kinds: BTreeSet<String> = Kind::ALL.map(|kind| kind.name().to_owned()).into();
        assert_eq!(kinds.len(), Kind::ALL.len());
        assert_eq!(rows("Events"), kinds);
    }

    #[test]
    fn the_manual_names_every_state_and_no_other() {
        let waits = WaitReason::ALL.map(|reason| format!("WAIT ({reason})"));
        let others = ["PRIM", "SECOND", "ALONE", "STOP"].map(str::to_owned);
        let states: BTreeSet<String> = waits.into_iter().chain(others).collect();
        assert_eq!(rows("States"), states);
    }
}
