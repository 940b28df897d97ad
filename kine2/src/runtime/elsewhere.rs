//! What only the primary can do, when that is the other node: passed on to it, once (`repl S1`,
//! S2), and carried out for it.

use std::sync::Arc;
use std::time::Duration;

use kine2_etcd_api::{LeaseInfo, RequestError};
use kine2_mvcc::{Applied, Command, Revision};
use kine2_peer::wire::{ForwardedAnswer, ForwardedRequest, Lease};

use super::member::{NodeMember, REQUEST_TIMEOUT};
use super::pair::Pair;

/// How long the answer to a write waits until the write is seen here, too.
const OWN_WRITE_MAX: Duration = Duration::from_millis(500);

impl NodeMember {
    /// The way to the primary, if that is another node.
    fn primary_elsewhere(&self) -> Option<&Arc<Pair>> {
        let pair = self.pair.as_ref()?;
        let node = self.shared.node.lock();
        let unit = node.unit();
        (unit.config().primary != *unit.me()).then_some(pair)
    }

    /// Has a command carried out by the primary, wherever it is.
    pub(super) async fn propose_anywhere(&self, command: Command) -> Result<Applied, RequestError> {
        let Some(pair) = self.primary_elsewhere() else {
            return self.propose_here(command).await;
        };
        match passed_on(pair, ForwardedRequest::Command(command)).await? {
            ForwardedAnswer::Applied { applied, index } => {
                // Clients of this node find their own writes here, as at an etcd follower; a node
                // that is behind does not make them wait for long.
                self.shared.applied(index, OWN_WRITE_MAX).await;
                Ok(applied)
            }
            other => unreachable!("a command was answered with {other:?}"),
        }
    }

    pub(super) async fn keep_alive_anywhere(
        &self,
        lease: i64,
    ) -> Result<(Revision, i64), RequestError> {
        let Some(pair) = self.primary_elsewhere() else {
            return self.keep_alive_here(lease).await;
        };
        match passed_on(pair, ForwardedRequest::KeepAlive(lease)).await? {
            ForwardedAnswer::KeptAlive {
                revision,
                ttl_seconds,
            } => Ok((revision, ttl_seconds)),
            other => unreachable!("a renewal was answered with {other:?}"),
        }
    }

    /// Only the primary counts the time (`repl T1`).
    pub(super) async fn time_to_live_anywhere(
        &self,
        lease: i64,
        keys: bool,
    ) -> Result<Option<LeaseInfo>, RequestError> {
        let Some(pair) = self.primary_elsewhere() else {
            return Ok(self.time_to_live_here(lease, keys));
        };
        match passed_on(pair, ForwardedRequest::TimeToLive { lease, keys }).await? {
            ForwardedAnswer::Lease(lease) => Ok(lease.map(from_forwarded)),
            other => unreachable!("a lease was asked for, and the answer is {other:?}"),
        }
    }

    /// Carries out what a client of the other node wants of the primary. S2: it is never passed on
    /// again.
    pub(super) async fn carry_out(&self, request: ForwardedRequest) -> ForwardedAnswer {
        if self.primary_elsewhere().is_some() {
            return ForwardedAnswer::NotPrimary;
        }
        let done = match request {
            ForwardedRequest::Command(command) => {
                let applied = self.propose_here(command).await;
                let index = {
                    let mut node = self.shared.node.lock();
                    node.hasten_commit();
                    node.store().applied().index
                };
                self.shared.wake();
                applied.map(|applied| ForwardedAnswer::Applied { applied, index })
            }
            ForwardedRequest::KeepAlive(lease) => {
                let kept = self.keep_alive_here(lease).await;
                kept.map(|(revision, ttl_seconds)| ForwardedAnswer::KeptAlive {
                    revision,
                    ttl_seconds,
                })
            }
            ForwardedRequest::TimeToLive { lease, keys } => {
                let is_active = self.shared.node.lock().is_active();
                match is_active {
                    true => Ok(ForwardedAnswer::Lease(
                        self.time_to_live_here(lease, keys).map(to_forwarded),
                    )),
                    false => Err(RequestError::NoLeader),
                }
            }
        };
        done.unwrap_or_else(|error| match error {
            RequestError::Refused(refusal) => ForwardedAnswer::Refused(refusal),
            RequestError::TooManyRequests => ForwardedAnswer::Busy,
            RequestError::NoLeader => ForwardedAnswer::Unavailable,
            RequestError::Stopped | RequestError::TimedOut | RequestError::State(_) => {
                ForwardedAnswer::Unknown
            }
        })
    }
}

/// Passes a request on to the primary. What was not tried is [`RequestError::NoLeader`].
async fn passed_on(
    pair: &Pair,
    request: ForwardedRequest,
) -> Result<ForwardedAnswer, RequestError> {
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, pair.forward(request)).await;
    match answer.map_err(|_elapsed| RequestError::TimedOut)? {
        ForwardedAnswer::NotPrimary | ForwardedAnswer::Unavailable => Err(RequestError::NoLeader),
        ForwardedAnswer::Unknown => Err(RequestError::TimedOut),
        ForwardedAnswer::Busy => Err(RequestError::TooManyRequests),
        ForwardedAnswer::Refused(refusal) => Err(RequestError::Refused(refusal)),
        answer => Ok(answer),
    }
}

fn to_forwarded(lease: LeaseInfo) -> Lease {
    Lease {
        revision: lease.revision,
        remaining_seconds: lease.remaining_seconds,
        granted_seconds: lease.granted_seconds,
        keys: lease.keys,
    }
}

fn from_forwarded(lease: Lease) -> LeaseInfo {
    LeaseInfo {
        revision: lease.revision,
        remaining_seconds: lease.remaining_seconds,
        granted_seconds: lease.granted_seconds,
        keys: lease.keys,
    }
}
