//! When leases expire. Only the node that orders writes asks it (`repl T1`); what it finds takes
//! effect as a revocation in the log, never by itself (`repl T3`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kine2_mutation::{Mutation, mutated};

/// Added to each lease when a node starts to order writes, so that a client that renewed at the
/// last moment of its predecessor is not cut short (`repl T2`, `etcd S49`).
pub const ACTIVATION_GRACE: Duration = Duration::from_secs(2);

/// Deadlines of all leases, on the node's monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct LeaseClock {
    deadlines: BTreeMap<i64, Deadline>,
    queue: BTreeSet<(Duration, i64)>,
}

#[derive(Clone, Copy, Debug)]
enum Deadline {
    /// Alive until then, by a grant or renewal at that moment.
    At { until: Duration, since: Duration },
    /// Expired, its revocation is on its way: it cannot be renewed any more (`etcd S46`).
    Expired,
}

impl LeaseClock {
    /// Starts or restarts a lease.
    pub(crate) fn start(&mut self, id: i64, ttl: Duration, now: Duration) {
        self.stop(id);
        let (until, since) = (now.saturating_add(ttl), now);
        self.deadlines.insert(id, Deadline::At { until, since });
        self.queue.insert((until, id));
    }

    /// Renews a lease that is alive; `false` if there is none or it has expired.
    pub(crate) fn renew(&mut self, id: i64, ttl: Duration, now: Duration) -> bool {
        let alive = match self.deadlines.get(&id) {
            Some(Deadline::At { .. }) => true,
            Some(Deadline::Expired) => mutated(Mutation::ExpiredRenewed),
            None => false,
        };
        if alive {
            self.start(id, ttl, now);
        }
        alive
    }

    /// Forgets a lease.
    pub(crate) fn stop(&mut self, id: i64) {
        if let Some(Deadline::At { until, .. }) = self.deadlines.remove(&id) {
            self.queue.remove(&(until, id));
        }
    }

    /// Time left; zero once expired, `None` if there is no such lease.
    pub(crate) fn remaining(&self, id: i64, now: Duration) -> Option<Duration> {
        self.deadlines.get(&id).map(|deadline| match deadline {
            Deadline::At { until, .. } => until.saturating_sub(now),
            Deadline::Expired => Duration::ZERO,
        })
    }

    /// Marks up to `max` leases as expired whose time is over, and answers them.
    pub(crate) fn expire(&mut self, now: Duration, max: usize) -> Vec<i64> {
        let mut expired = Vec::new();
        while expired.len() < max {
            let Some((_, id)) = self.queue.first().copied().filter(|(due, _)| *due <= now) else {
                break;
            };
            self.queue.pop_first();
            self.deadlines.insert(id, Deadline::Expired);
            expired.push(id);
        }
        expired
    }

    /// When the next lease expires.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.queue.first().map(|(deadline, _)| *deadline)
    }

    /// Gives every lease that is alive what it lived through of a standstill or silence of length
    /// `by` that ended at `end` as more time (`repl T3`).
    pub(crate) fn extend_all(&mut self, by: Duration, end: Duration) {
        self.queue.clear();
        for (id, deadline) in &mut self.deadlines {
            if let Deadline::At { until, since } = deadline {
                let lived_through = by.min(end.saturating_sub(*since));
                *until = until.saturating_add(lived_through);
                self.queue.insert((*until, *id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn s49_a_lease_expires_not_before_its_ttl_after_the_last_renewal() {
        let mut clock = LeaseClock::default();
        clock.start(1, secs(5), secs(0));
        assert!(clock.renew(1, secs(5), secs(4)));
        assert_eq!(clock.expire(secs(8), 10), []);
        assert_eq!(clock.remaining(1, secs(8)), Some(secs(1)));
        assert_eq!(clock.expire(secs(9), 10), [1]);
    }

    #[test]
    fn s46_an_expired_lease_is_not_revived() {
        let mut clock = LeaseClock::default();
        clock.start(1, secs(5), secs(0));
        assert_eq!(clock.expire(secs(5), 10), [1]);
        assert!(!clock.renew(1, secs(5), secs(5)));
        assert_eq!(clock.expire(secs(60), 10), [], "it is revoked once");
        clock.extend_all(secs(10), secs(15));
        assert_eq!(clock.remaining(1, secs(5)), Some(Duration::ZERO));
        clock.stop(1);
        assert_eq!(clock.remaining(1, secs(5)), None);
    }

    #[test]
    fn t3_a_stall_extends_every_lease() {
        let mut clock = LeaseClock::default();
        clock.start(1, secs(5), secs(0));
        clock.start(2, secs(7), secs(0));
        clock.extend_all(secs(3), secs(4));
        assert_eq!(clock.next_deadline(), Some(secs(8)));
        assert_eq!(clock.expire(secs(60), 1), [1], "no more than asked for");
    }

    /// A lease granted at the end of a silence got all of it, and ended seconds late.
    #[test]
    fn t3_a_lease_gets_of_a_silence_what_it_lived_through() {
        let mut clock = LeaseClock::default();
        clock.start(1, secs(5), secs(0));
        clock.start(2, secs(5), secs(9));
        clock.extend_all(secs(8), secs(10));
        assert_eq!(clock.remaining(1, secs(10)), Some(secs(3)));
        assert_eq!(clock.remaining(2, secs(10)), Some(secs(5)));
    }
}
