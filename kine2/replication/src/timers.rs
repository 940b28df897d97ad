//! The timers (`repl section 8`). They decide when something is tried, never what is safe.

use std::time::Duration;

/// The longest time between two calls of [`Unit::handle`].
///
/// [`Unit::handle`]: crate::Unit::handle
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// The same for a unit of one node without a witness: it waits for nobody.
pub(crate) const LONE_TICK: Duration = Duration::from_secs(60);
/// A call this late means that the node itself stood still: its suspicions start anew.
pub(crate) const STALL_MIN: Duration = Duration::from_millis(200);

/// A node whose disk failed hands over only to a peer that answered as lately as this.
pub(crate) const HAND_OVER_AGE_MAX: Duration = Duration::from_millis(200);

/// Settings of the timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// A frame is sent to the peer at least this often.
    pub heartbeat: Duration,
    /// A report is sent to the witness at least this often.
    pub witness_heartbeat: Duration,
    /// Silence of the primary after which the other node tells the witness.
    pub suspect_hint: Duration,
    /// Silence of an active primary after which the other node takes over.
    pub suspect_primary: Duration,
    /// Age of the newest frame echoed after which the primary goes on without its peer.
    pub suspect_secondary: Duration,
    /// Age of a part's oldest entry not acknowledged after which a slow peer is dropped; zero for
    /// never.
    pub slow_drop_after: Duration,
    /// Shortest pause before a dropped peer is added again.
    pub readd_backoff_min: Duration,
    /// Longest pause.
    pub readd_backoff_max: Duration,
    /// Drops further apart than this do not lengthen the pause.
    pub readd_backoff_memory: Duration,
    /// How long all is well before a part that is away is given back (`repl K7`).
    pub swap_back_delay: Duration,
    /// How long all is well before the primary hands over to the preferred node; zero for never.
    pub failback_delay: Duration,
    /// A write of the lead's log under way for this long makes a primary hand over.
    pub own_disk_max: Duration,
    /// A call to the witness is repeated after this.
    pub cas_timeout: Duration,
    /// A takeover that was refused is repeated after this.
    pub takeover_retry: Duration,
    /// After the start, the witness and the peer are asked first, for at most this long.
    pub boot_probe: Duration,
    /// After the start, a node in sync waits this long for the old primary, unless it was heard to serve.
    pub boot_grace: Duration,
    /// A node in sync alone that hears nobody serves after this, if the policy says so.
    pub alone_boot_wait: Duration,
    /// A handover whose logs are not equal after this is called off.
    pub swap_drain: Duration,
    /// A commit index travels by itself if no frame is due within this.
    pub commit_notice: Duration,
    /// A gateway that does not answer within this is not reached (policy `ping`).
    pub ping_timeout: Duration,
    /// It is asked again after this.
    pub ping_pause: Duration,
    /// How much longer than `suspect_primary` the other node waits before it goes alone, and each
    /// node after its gateway came back.
    pub ping_head_start: Duration,
    /// A stream whose entries are not acknowledged for this long is opened again.
    pub reopen: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        let ms = Duration::from_millis;
        let s = Duration::from_secs;
        Self {
            heartbeat: ms(100),
            witness_heartbeat: s(3),
            suspect_hint: ms(300),
            suspect_primary: ms(700),
            suspect_secondary: ms(500),
            // With what asking the witness takes, a write waits for 2 s at most.
            slow_drop_after: ms(1800),
            readd_backoff_min: s(5),
            readd_backoff_max: s(300),
            readd_backoff_memory: s(600),
            swap_back_delay: s(3),
            failback_delay: Duration::ZERO,
            own_disk_max: s(1),
            cas_timeout: ms(200),
            takeover_retry: ms(100),
            boot_probe: s(2),
            boot_grace: s(3),
            alone_boot_wait: s(5),
            swap_drain: s(2),
            commit_notice: ms(1),
            ping_timeout: ms(400),
            ping_pause: ms(200),
            ping_head_start: s(2),
            reopen: ms(300),
        }
    }
}
