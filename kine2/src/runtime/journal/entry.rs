//! One event of the journal.

use std::time::{Duration, SystemTime};

use kine2_replication::{Arbiter, Unit};
use serde::{Deserialize, Serialize};

/// An event. Its kind is text, so that one of a newer program can be read too.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// Rises by one with each event of a node.
    #[serde(rename = "n")]
    pub(crate) number: u64,
    /// When, in UTC, as this node's clock shows it.
    pub(crate) at: String,
    /// The name of its [`Kind`](super::Kind).
    pub(crate) kind: String,
    /// A plain sentence.
    pub(crate) text: String,
    /// How things were just then; nothing where no unit was there to be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) measured: Option<Measured>,
}

/// How things were at a node.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Measured {
    /// State of the unit.
    pub(crate) state: String,
    /// The configuration in force.
    pub(crate) epoch: String,
    /// What made it.
    pub(crate) cause: String,
    /// The primary by it.
    pub(crate) primary: String,
    /// For how long the other node was silent, in milliseconds; nothing if there is none.
    pub(crate) peer_silent_ms: Option<u64>,
    /// Whether the witness was heard; nothing if there is none.
    pub(crate) witness_heard: Option<bool>,
    /// Last durable entry of the store's log here.
    pub(crate) durable: u64,
    /// Last entry of it known to be committed.
    pub(crate) committed: u64,
}

impl Measured {
    pub(crate) fn of(unit: &Unit, now: Duration) -> Self {
        let (config, status) = (unit.config(), unit.status());
        let lead = status.parts.get(&config.lead);
        let silent = now.saturating_sub(unit.peer_heard_at()).as_millis();
        let has_peer = config.other(unit.me()).is_some();
        Self {
            state: status.state.to_string(),
            epoch: config.epoch.to_string(),
            cause: config.reason.to_string(),
            primary: config.primary.name.to_string(),
            peer_silent_ms: has_peer.then(|| u64::try_from(silent).unwrap_or(u64::MAX)),
            witness_heard: match &config.arbiter {
                Arbiter::Witness { .. } => Some(unit.hears_arbiter()),
                Arbiter::None(_) => None,
            },
            durable: lead.map_or(0, |lead| lead.durable.0),
            committed: lead.map_or(0, |lead| lead.commit.0),
        }
    }
}

/// A time as people and programs read it: `2026-01-31T12:00:00.250Z`.
pub(crate) fn utc(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

/// Year, month and day of a number of days since 1970, in years that begin with March, so that the
/// day which is not always there is the last.
const fn civil(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    // The first of March of the year 0.
    let days = days + 719_468;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1_460 + day / 36_524 - day / (ERA_DAYS - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, is_next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + is_next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00.250Z"),
            (951_782_399, "2000-02-28T23:59:59.250Z"),
            (951_782_400, "2000-02-29T00:00:00.250Z"),
            (1_709_251_199, "2024-02-29T23:59:59.250Z"),
            (1_767_225_599, "2025-12-31T23:59:59.250Z"),
            (4_107_542_400, "2100-03-01T00:00:00.250Z"),
        ] {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(utc(at + Duration::from_millis(250)), shown);
        }
    }
}
