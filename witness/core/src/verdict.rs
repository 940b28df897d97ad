//! Whether a suspected primary is alive (`repl section 8`, W5, W6).

use std::time::Duration;

use kine2_replication::{Cas, NodeRef};

/// Takeovers held for one register at most; more are refused as if the primary were alive.
pub(crate) const HELD_MAX: usize = 4;

/// What is known about the life of a register's primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing fresh.
    #[default]
    Unknown,
    /// A probe is under way.
    Probing {
        /// Its number.
        nonce: u64,
        /// When silence means not alive.
        until: Duration,
    },
    /// It answered, or did not; good until the time given.
    Alive {
        /// End of validity.
        until: Duration,
    },
    /// It did not answer, said that it is unwell, or has no session.
    NotAlive {
        /// End of validity.
        until: Duration,
    },
}

/// A takeover that waits for the verdict (`repl W6`).
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) caller: NodeRef,
    pub(crate) number: u64,
    pub(crate) cas: Cas,
}

/// Suspicion against the primary of a register in its present epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Suspicion {
    pub(crate) verdict: Verdict,
    pub(crate) held: Vec<Held>,
    /// When the first takeover of this epoch came.
    pub(crate) first_takeover: Option<Duration>,
}

impl Suspicion {
    /// The verdict as of `now`: what is over is unknown.
    pub(crate) fn verdict_at(&self, now: Duration) -> Verdict {
        match self.verdict {
            Verdict::Alive { until } | Verdict::NotAlive { until } if until <= now => {
                Verdict::Unknown
            }
            verdict => verdict,
        }
    }

    /// When the probe under way ends.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.verdict {
            Verdict::Probing { until, .. } => Some(until),
            _ => None,
        }
    }
}
