//! Whether leases lived as long as was promised, and no longer than was promised.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::LeaseId;

/// How much longer than its TTL a lease may live once somebody orders writes: the grace of an
/// activation (`repl T2`), and the way of its revocation through log and peer.
pub const OVERTIME_MAX: Duration = Duration::from_millis(3_500);

/// What an activation adds to each lease (`repl T2`).
const GRACE: Duration = kine2_node::ACTIVATION_GRACE;

/// A request that was sent so long ago is over.
const PATIENCE_MAX: Duration = Duration::from_secs(20);

/// The longest time between two ticks of a node of a pair, and some more.
const TICK: Duration = Duration::from_millis(25);

/// What is known of the leases of a run, on the simulation's clock.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    /// What jumps of clocks may have taken off.
    slack: Duration,
}

#[derive(Clone, Debug)]
struct Lease {
    ttl: Duration,
    /// When the client sent the newest grant or renewal that was answered: its TTL counts from
    /// then at the earliest.
    promised_from: Option<Duration>,
    /// When a node began to order writes last that had it: it gets its time from then on, and the
    /// grace.
    activated: Option<Duration>,
    /// When anything that may have renewed it was sent last.
    touched: Duration,
    /// When a renewal was sent last.
    renewed: Option<Duration>,
    /// A client asked for its end.
    revoked: bool,
    ended: bool,
}

impl Leases {
    /// A client asks for a lease.
    pub fn on_grant(&mut self, id: LeaseId, ttl: Duration, now: Duration) {
        let lease = self.leases.entry(id).or_insert(Lease {
            ttl,
            promised_from: None,
            activated: None,
            touched: now,
            renewed: None,
            revoked: false,
            ended: false,
        });
        // It was refused, and is asked for again.
        lease.touched = now;
    }

    /// A client asks that it live on.
    pub fn on_renewal(&mut self, id: LeaseId, now: Duration) {
        let lease = self.lease(id);
        lease.touched = now;
        lease.renewed = Some(now);
    }

    /// A grant or a renewal that was sent then is answered with the whole TTL.
    pub fn on_promise(&mut self, id: LeaseId, sent: Duration) {
        let lease = self.lease(id);
        lease.promised_from = Some(lease.promised_from.map_or(sent, |from| from.max(sent)));
    }

    /// A client asks for its end.
    pub fn on_revoke(&mut self, id: LeaseId) {
        self.lease(id).revoked = true;
    }

    /// The clock of a node jumped while no time passed. It takes that for a standstill, as long as
    /// the jump but for what was left until its next tick.
    pub fn on_jump(&mut self) {
        self.slack += TICK;
    }

    /// What was promised counts no more: the operator accepted the loss of it.
    pub fn forgive(&mut self) {
        for lease in self.leases.values_mut() {
            lease.promised_from = None;
            lease.activated = None;
            lease.ended = false;
        }
    }

    /// A node that has these leases began to order writes then, and all that was ordered before is
    /// applied.
    pub fn on_activation(&mut self, ids: impl Iterator<Item = LeaseId>, then: Duration) {
        for id in ids {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.activated = Some(then);
            }
        }
    }

    /// A renewal is answered: there is no such lease.
    ///
    /// # Errors
    /// When it must be there.
    pub fn on_gone(&self, id: LeaseId, now: Duration) -> Result<(), String> {
        let lease = &self.leases[&id];
        // Its end may be on its way at a primary that is none any more, so an activation since
        // then says nothing.
        let promised = lease.promised_from.map(|from| from + lease.ttl);
        match promised {
            Some(until) if !lease.revoked && !lease.ended && now + self.slack < until => Err(
                format!("lease {id} is gone at {now:?}, it says, promised was {until:?}"),
            ),
            _ => Ok(()),
        }
    }

    /// Its end is final. Answers whether time ended it: nobody asked for it.
    ///
    /// # Errors
    /// When it came too early: nobody asked for it, and its time was not over.
    pub fn on_end(&mut self, id: LeaseId, now: Duration) -> Result<bool, String> {
        let Some(lease) = self.leases.get_mut(&id) else {
            return Err(format!("lease {id}, which nobody asked for, ends"));
        };
        lease.ended = true;
        let until = lease.lives_until(self.slack);
        match until.filter(|until| !lease.revoked && now < *until) {
            Some(until) => Err(format!(
                "lease {id} of {:?} ends at {now:?}, promised was {until:?}",
                lease.ttl
            )),
            None => Ok(!lease.revoked),
        }
    }

    /// Those that should have ended, when writes were ordered without a break since `since`.
    #[must_use]
    pub fn overdue(&self, now: Duration, since: Duration) -> Vec<LeaseId> {
        let is_overdue = |lease: &Lease| {
            let from = lease.touched.max(since);
            // One that was asked for in vain never was.
            lease.promised_from.is_some() && !lease.ended && now > from + lease.ttl + OVERTIME_MAX
        };
        let overdue = self.leases.iter().filter(|(_, lease)| is_overdue(lease));
        overdue.map(|(id, _)| *id).collect()
    }

    /// When the last of them must have ended, if nobody renews any.
    #[must_use]
    pub fn all_end_by(&self, since: Duration) -> Duration {
        let ends = self.leases.values().filter(|lease| !lease.ended);
        ends.map(|lease| lease.touched.max(since) + lease.ttl + OVERTIME_MAX)
            .fold(since, Duration::max)
    }

    fn lease(&mut self, id: LeaseId) -> &mut Lease {
        self.leases.get_mut(&id).expect("it was asked for")
    }
}

impl Lease {
    /// Until when it must not end by itself.
    fn lives_until(&self, slack: Duration) -> Option<Duration> {
        let promised = self.promised_from.map(|from| from + self.ttl);
        // A renewal since then gives the TTL from its answer on, and that may be less.
        let renewed = |from: &Duration| self.renewed.is_some_and(|at| at + PATIENCE_MAX > *from);
        let activated = self.activated.filter(|from| !renewed(from));
        let activated = activated.map(|from| from + self.ttl + GRACE);
        let until = promised.max(activated)?;
        Some(until.saturating_sub(slack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn granted() -> Leases {
        let mut leases = Leases::default();
        leases.on_grant(1, secs(5), secs(10));
        leases.on_promise(1, secs(10));
        leases
    }

    #[test]
    fn an_end_before_its_time_is_found() {
        assert!(granted().on_end(1, secs(14)).is_err());
        assert!(granted().on_end(1, secs(15)).is_ok());
    }

    #[test]
    fn an_end_before_the_time_of_a_renewal_is_found() {
        let mut leases = granted();
        leases.on_renewal(1, secs(14));
        let unanswered = leases.clone();
        leases.on_promise(1, secs(14));
        assert!(leases.on_end(1, secs(18)).is_err());
        assert!(
            unanswered.clone().on_end(1, secs(18)).is_ok(),
            "promised is what was answered"
        );
    }

    #[test]
    fn an_end_that_was_asked_for_may_come_any_time() {
        let mut leases = granted();
        leases.on_revoke(1);
        assert!(leases.on_end(1, secs(11)).is_ok());
    }

    #[test]
    fn an_end_that_does_not_come_is_found() {
        let leases = granted();
        assert_eq!(leases.overdue(secs(18), secs(0)), []);
        assert_eq!(leases.overdue(secs(19), secs(0)), [1]);
        assert_eq!(
            leases.overdue(secs(19), secs(12)),
            [],
            "there was a takeover at 12 s"
        );
    }
}
