//! What a node knows about the link to its peer.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::Link;
use crate::ids::NodeRef;
use crate::limits::SENT_TIMES_MAX;

/// The peer and the streams to it.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Who it is, by its last frame in this configuration.
    pub(crate) node: Option<NodeRef>,
    pub(crate) link: Link,
    /// Its streams ended and nobody listens there (`repl section 8`, fast_suspect).
    pub(crate) refused: bool,
    /// A frame of it was taken in since the start.
    pub(crate) heard: bool,
    /// A frame of an active primary came since the start, in this epoch and run.
    pub(crate) heard_serving: bool,
    /// When the last frame of an active primary came.
    pub(crate) heard_active: Duration,
    /// When the newest frame was sent that the peer echoed.
    pub(crate) echoed_sent: Duration,
    /// The same, but that no new trust makes it later: it is known to have lived then.
    pub(crate) answered: Duration,
    /// The highest number the peer echoed in this epoch and run (`repl R2`).
    pub(crate) echoed: u64,
    /// The highest number of the peer's frames taken in, of this epoch and run.
    pub(crate) echo: u64,
    /// Numbers and times of the frames sent that were not echoed.
    sent: VecDeque<(u64, Duration)>,
    /// When the last heartbeat was sent on the link as it is.
    pub(crate) beat_sent: Option<Duration>,
    /// When it last said that it leaves; it says so again until it is out.
    pub(crate) left: Option<Duration>,
    /// When the witness last probed, which means that the peer suspects this node.
    pub(crate) suspects_us: Option<Duration>,
}

impl Peer {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            node: None,
            link: Link::Down,
            refused: false,
            heard: false,
            heard_serving: false,
            heard_active: now,
            echoed_sent: now,
            answered: Duration::ZERO,
            echoed: 0,
            echo: 0,
            sent: VecDeque::new(),
            beat_sent: None,
            left: None,
            suspects_us: None,
        }
    }

    /// The epoch or run changed: nothing of the old one counts.
    pub(crate) fn forget(&mut self) {
        self.node = None;
        self.heard_serving = false;
        self.echoed = 0;
        self.echo = 0;
        self.left = None;
        self.suspects_us = None;
        self.sent.clear();
    }

    /// Suspicion starts anew.
    pub(crate) fn trust(&mut self, now: Duration) {
        self.heard_active = now;
        self.echoed_sent = now;
        self.suspects_us = None;
    }

    pub(crate) fn on_sent(&mut self, number: u64, now: Duration) {
        if self.sent.len() == SENT_TIMES_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((number, now));
    }

    pub(crate) fn on_echo(&mut self, echo: u64) {
        self.echoed = self.echoed.max(echo);
        while let Some((_, at)) = self.sent.pop_front_if(|(number, _)| *number <= echo) {
            self.echoed_sent = self.echoed_sent.max(at);
            self.answered = self.answered.max(at);
        }
    }
}
