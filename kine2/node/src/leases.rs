//! Leases of a node: their clock, and the revocations under way (`repl T1` to `T4`).

use std::collections::BTreeMap;
use std::time::Duration;

use kine2_mutation::{Mutation, mutated};
use kine2_mvcc::Store;

use crate::lease_clock::{ACTIVATION_GRACE, LeaseClock};

/// Leases whose expiry is under way at the same time.
const EXPIRING_MAX: usize = 500;
/// Silence of the peer, while it has a say, after which it is taken off all leases (`repl T3`).
const SILENCE_MAX: Duration = Duration::from_millis(300);

/// What only the active primary knows of leases; a node that is not has none of it.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    clock: LeaseClock,
    /// This node is the active primary: it counts time (`repl T1`).
    is_counting: bool,
    /// Revocations of expired leases that are under way.
    expiring: usize,
    /// Leases that clients are revoking, and how many times: bounded by the queue and one batch.
    revoking: BTreeMap<i64, usize>,
    /// Until then nobody else had become primary.
    confirmed: Duration,
    /// A confirmation for the expiry of leases is under way.
    pub(crate) is_confirming: bool,
    pub(crate) expired_total: u64,
}

impl Leases {
    /// T2: each lease gets its full time, and some more, from the activation on.
    pub(crate) fn activate(&mut self, store: &Store, now: Duration) {
        let expired_total = self.expired_total;
        *self = Self {
            is_counting: true,
            confirmed: now,
            expired_total,
            ..Self::default()
        };
        if mutated(Mutation::LeasesNotActivated) {
            return;
        }
        for (id, ttl_seconds) in store.lease_ttls() {
            self.start_graced(id, ttl_seconds, now);
        }
    }

    /// T1: only the active primary counts.
    pub(crate) fn deactivate(&mut self) {
        if mutated(Mutation::LeaseCountsOn) {
            return;
        }
        *self = Self {
            expired_total: self.expired_total,
            ..Self::default()
        };
    }

    /// Whether this node counts the time of leases.
    pub(crate) const fn is_counting(&self) -> bool {
        self.is_counting
    }

    /// A lease was granted in the present term.
    pub(crate) fn start(&mut self, id: i64, ttl_seconds: i64, now: Duration) {
        if self.is_counting {
            self.clock.start(id, seconds(ttl_seconds), now);
        }
    }

    /// A lease was granted before this node became primary, and is applied only now (`repl T2`).
    pub(crate) fn start_graced(&mut self, id: i64, ttl_seconds: i64, now: Duration) {
        if self.is_counting {
            let ttl = match seconds(ttl_seconds) {
                _ if mutated(Mutation::LeaseNoFreshTime) => Duration::ZERO,
                ttl if mutated(Mutation::LeaseNoGrace) => ttl,
                ttl => ttl.saturating_add(ACTIVATION_GRACE),
            };
            self.clock.start(id, ttl, now);
        }
    }

    pub(crate) fn stop(&mut self, id: i64) {
        self.clock.stop(id);
    }

    /// T4: the new time counts from `now`, when the renewal is answered. Answers whether the lease
    /// is alive.
    pub(crate) fn renew(&mut self, id: i64, ttl_seconds: i64, now: Duration) -> bool {
        self.clock.renew(id, seconds(ttl_seconds), now)
    }

    pub(crate) fn remaining(&self, id: i64, now: Duration) -> Option<Duration> {
        self.clock.remaining(id, now)
    }

    /// A client's revocation is on its way.
    pub(crate) fn on_revoking(&mut self, id: i64) {
        *self.revoking.entry(id).or_default() += 1;
    }

    /// A revocation is over. `is_refused`: the store does not revoke any now.
    pub(crate) fn on_revoked(&mut self, id: i64, by_client: bool, is_refused: bool, now: Duration) {
        if by_client {
            if let Some(count) = self.revoking.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.revoking.remove(&id);
                }
            }
        } else {
            self.expiring = self.expiring.saturating_sub(1);
        }
        let is_refused = is_refused && !mutated(Mutation::RefusedExpiryForgotten);
        if is_refused && self.clock.remaining(id, now) == Some(Duration::ZERO) {
            // It is there still, and its time is over.
            self.clock.start(id, Duration::ZERO, now);
        }
    }

    /// T3: the leases whose time was over at `confirmed`, when this node was surely the primary.
    pub(crate) fn expire(&mut self, confirmed: Duration) -> Vec<i64> {
        let mut expired = self.clock.expire(confirmed, EXPIRING_MAX - self.expiring);
        // A revocation is on its way, and a grant of the same id may stand behind it: a second
        // revocation would end that lease instead of this one.
        expired
            .retain(|id| !self.revoking.contains_key(id) || mutated(Mutation::ExpiredWhileRevoked));
        self.expiring += expired.len();
        self.expired_total += expired.len() as u64;
        expired
    }

    /// When a lease expires that there is room for among those under way.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        let has_room = self.expiring < EXPIRING_MAX;
        has_room.then(|| self.clock.next_deadline()).flatten()
    }

    /// T3: renewals may have been waiting for us all that time.
    pub(crate) fn on_stall(&mut self, stall: Duration, now: Duration) {
        self.clock.extend_all(stall, now);
        // It is no silence of the peer besides.
        self.confirmed = self.confirmed.saturating_add(stall);
    }

    /// T3: until `confirmed` nobody else had become primary. After a silence, in which renewals
    /// could not be answered, all leases get it as more time; where nobody else has a say there is
    /// none.
    pub(crate) fn on_confirmed(&mut self, confirmed: Duration, is_local: bool) {
        let Some(silence) = confirmed.checked_sub(self.confirmed) else {
            return;
        };
        self.confirmed = confirmed;
        if silence > SILENCE_MAX && !is_local && !mutated(Mutation::SilenceIgnored) {
            self.clock.extend_all(silence, confirmed);
        }
    }
}

/// A TTL as time; a TTL is never negative once granted.
fn seconds(ttl_seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or_default())
}
