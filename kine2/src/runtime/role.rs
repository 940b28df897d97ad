//! What changes at the node, told to the operator: in the log, in the journal, and to those who wait
//! for a primary.

use std::collections::BTreeSet;
use std::time::Duration;

use kine2_mvcc::{Alarm, AlarmKind};
use kine2_replication::{Arbiter, ConfigId, Notice, State};
use tracing::{error, info, warn};

use super::driver::Driver;
use super::journal::{Kind, words};
use super::quarantine::tell_if_large;
use super::shared::Shared;

/// How long watches are kept while no primary is heard: longer than a takeover takes.
const WATCHES_KEPT: Duration = Duration::from_secs(3);
/// How long somebody is heard, or not, before it is worth an event.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// The same after the start, for who was not heard yet.
const FIRST_HEARD_WITHIN: Duration = Duration::from_secs(5);

/// What the node was when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Role {
    state: Option<State>,
    config: Option<ConfigId>,
    /// Since when no primary serves here or is heard.
    without_primary: Option<Duration>,
    peer: Hearing,
    witness: Hearing,
}

impl Role {
    /// Tells others of what changed.
    pub(super) fn follow(&mut self, driver: &Driver) {
        let Some(pair) = &driver.pair else {
            return;
        };
        let shared = &*driver.shared;
        let now = shared.now();
        let (state, config, has_peer, witness) = {
            let node = shared.node.lock();
            let unit = node.unit();
            let has_peer = unit.config().other(unit.me()).is_some();
            let witness = match &unit.config().arbiter {
                Arbiter::Witness { .. } => Some(unit.hears_arbiter()),
                Arbiter::None(_) => None,
            };
            (unit.state(), unit.config().id(), has_peer, witness)
        };
        if self.config != Some(config) {
            self.config = Some(config);
            pair.follow_arbiters();
            shared.role_changed();
        }
        if self.state != Some(state) {
            self.state = Some(state);
            info!(%state, epoch = %config.epoch, "the unit's state here");
            shared.note(Kind::State, words::state(state));
            shared.role_changed();
        }
        let peer = has_peer.then(|| pair.stats().links_up > 0);
        match self.peer.changed(peer, now) {
            Some(true) => shared.note(Kind::PeerFound, words::PEER_FOUND.to_owned()),
            Some(false) => shared.note(Kind::PeerLost, words::PEER_LOST.to_owned()),
            None => {}
        }
        match self.witness.changed(witness, now) {
            Some(true) => shared.note(Kind::WitnessFound, words::WITNESS_FOUND.to_owned()),
            Some(false) => shared.note(Kind::WitnessLost, words::WITNESS_LOST.to_owned()),
            None => {}
        }
        // S3: whoever watches goes where a primary is.
        let has_primary = matches!(state, State::Prim | State::Second | State::Alone);
        if has_primary {
            self.without_primary = None;
        } else if now >= *self.without_primary.get_or_insert(now) + WATCHES_KEPT {
            self.without_primary = Some(Duration::MAX - WATCHES_KEPT);
            shared.end_streams();
        }
    }
}

/// Whether somebody is heard, so that one who comes and goes does not fill the journal.
#[derive(Debug, Default)]
struct Hearing {
    /// As it was told; nothing before the first time.
    told: Option<bool>,
    /// As it is, and since when.
    seen: Option<(bool, Duration)>,
}

impl Hearing {
    /// What is to be told: somebody is heard now, or not any more. `heard` is nothing if there is
    /// nobody to be heard.
    fn changed(&mut self, heard: Option<bool>, now: Duration) -> Option<bool> {
        let Some(heard) = heard else {
            *self = Self::default();
            return None;
        };
        if self.seen.is_none_or(|(seen, _)| seen != heard) {
            self.seen = Some((heard, now));
        }
        let (_, since) = self.seen?;
        let after = match self.told {
            None if !heard => FIRST_HEARD_WITHIN,
            _ => SETTLED_AFTER,
        };
        let is_news = self.told != Some(heard) && now >= since + after;
        is_news.then(|| {
            self.told = Some(heard);
            heard
        })
    }
}

/// Tells the operator what changed since `told`.
pub(super) fn tell_alarms(told: &mut BTreeSet<Alarm>, shared: &Shared) {
    let alarms = {
        let node = shared.node.lock();
        let alarms = node.store().alarms();
        if *told == *alarms {
            return;
        }
        alarms.clone()
    };
    for Alarm { kind, .. } in alarms.difference(told) {
        let text = match kind {
            AlarmKind::NoSpace => {
                warn!("{}", words::NO_SPACE);
                words::NO_SPACE
            }
            AlarmKind::Corrupt => {
                error!("{}", words::CORRUPT);
                words::CORRUPT
            }
        };
        shared.note(Kind::Alarm, text.to_owned());
    }
    for Alarm { kind, .. } in told.difference(&alarms) {
        info!(?kind, "alarm disarmed");
        let kind = match kind {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        };
        shared.note(Kind::AlarmOver, format!("the alarm {kind} was disarmed"));
    }
    *told = alarms;
}

/// Tells the operator whether this node serves.
pub(super) fn tell_serving(shared: &Shared, active: bool) {
    if active {
        info!("serves the store as its primary");
        shared.note(Kind::Serves, words::SERVES.to_owned());
    } else {
        warn!("does not serve the store any more");
        shared.note(Kind::ServesNoMore, words::SERVES_NO_MORE.to_owned());
    }
}

/// Tells the operator what the unit has to say.
pub(super) fn tell(shared: &Shared, notice: Notice) {
    let (kind, text) = match &notice {
        Notice::Adopted(config) => {
            shared.set_term(config.epoch.0);
            let node = shared.node.lock();
            let config = node.unit().config();
            info!(
                epoch = %config.epoch,
                primary = %config.primary,
                in_sync = ?config.in_sync,
                why = %config.reason,
                "another configuration is in force"
            );
            (Kind::Configuration, words::configuration(config))
        }
        notice => words::notice(notice),
    };
    if !matches!(notice, Notice::Adopted(_)) {
        warn!("{text}");
    }
    shared.note(kind, text);
    if matches!(notice, Notice::Quarantined(_)) {
        tell_if_large(shared, shared.quarantine_bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_and_goes_at_once_is_no_news() {
        let at = Duration::from_millis;
        let mut hearing = Hearing::default();
        assert_eq!(hearing.changed(Some(false), at(0)), None);
        assert_eq!(hearing.changed(Some(true), at(500)), None);
        assert_eq!(hearing.changed(Some(true), at(1_500)), Some(true));
        assert_eq!(hearing.changed(Some(false), at(2_000)), None);
        assert_eq!(hearing.changed(Some(true), at(2_900)), None);
        assert_eq!(hearing.changed(Some(false), at(3_500)), None);
        assert_eq!(hearing.changed(Some(false), at(4_500)), Some(false));
        assert_eq!(hearing.changed(Some(false), at(9_500)), None);
        // Nobody is there to be heard any more.
        assert_eq!(hearing.changed(None, at(9_600)), None);
        assert_eq!(hearing.changed(Some(false), at(9_700)), None);
        assert_eq!(hearing.changed(Some(false), at(14_699)), None);
        assert_eq!(hearing.changed(Some(false), at(14_700)), Some(false));
    }
}
