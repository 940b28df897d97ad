//! What a command must pass before it may be ordered, and what is decided for it.

use kine2_mutation::{Mutation, mutated};
use kine2_mvcc::{AlarmKind, Command, LeaseGrant, Refusal};

use crate::node::Node;

impl<W> Node<W> {
    /// Refuses what the log cannot take and what the quota forbids, and fills in what the primary decides (`repl section 3`:
    /// whatever is not deterministic is decided before the log).
    pub(crate) fn admit(&mut self, command: Command) -> Result<Command, Refusal> {
        if command.size_bound() > self.options.command_bytes_max {
            return Err(Refusal::TooLarge);
        }
        let cost = command.space_cost();
        if cost > 0 && !self.store.has_alarm(AlarmKind::NoSpace) {
            let quota = self.options.quota_bytes;
            let quota = if mutated(Mutation::QuotaIgnored) {
                0
            } else {
                quota
            };
            let is_reached = quota > 0 && self.state_bytes().file_bytes + cost >= quota;
            if is_reached || self.log_is_full {
                if !mutated(Mutation::NoSpaceNotRaised) {
                    self.raise(AlarmKind::NoSpace);
                }
                return Err(Refusal::NoSpace);
            }
        }
        Ok(match command {
            Command::LeaseGrant(grant) => {
                let ttl_min = i64::try_from(self.options.lease_ttl_min.as_secs())
                    .expect("a TTL that was configured");
                let id = if grant.id == 0 {
                    self.fresh_lease_id()
                } else {
                    grant.id
                };
                let ttl_seconds = grant.ttl_seconds.max(ttl_min);
                Command::LeaseGrant(LeaseGrant { id, ttl_seconds })
            }
            other => other,
        })
    }

    fn fresh_lease_id(&mut self) -> i64 {
        loop {
            let id = (splitmix64(&mut self.random) >> 1).cast_signed();
            if id != 0 && self.store.lease_ttl(id).is_none() {
                return id;
            }
        }
    }
}

/// A small generator: lease ids need to be spread, not secret (Steele, Lea, Flood 2014).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
