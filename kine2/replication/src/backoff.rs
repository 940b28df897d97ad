//! The pause before a peer that was dropped is added again (`repl section 8`, readd_backoff).

use std::time::Duration;

use crate::timers::Timers;

/// The pause of one part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    /// The last drop, and the pause after it.
    last: Option<(Duration, Duration)>,
}

impl Backoff {
    /// The peer was dropped.
    pub(crate) fn on_drop(&mut self, now: Duration, timers: &Timers) {
        let pause = match self.last {
            Some((at, pause)) if now < at + timers.readd_backoff_memory => {
                (pause * 2).min(timers.readd_backoff_max)
            }
            _ => timers.readd_backoff_min,
        };
        self.last = Some((now, pause));
    }

    /// True if the pause is over.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        self.last.is_none_or(|(at, pause)| now >= at + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_that_follow_each_other_lengthen_the_pause_up_to_its_bound() {
        let timers = Timers::default();
        let mut backoff = Backoff::default();
        let mut now = Duration::from_secs(1);
        assert!(backoff.is_over(now));
        for pause in [5, 10, 20, 40, 80, 160, 300, 300] {
            backoff.on_drop(now, &timers);
            assert!(!backoff.is_over(now + Duration::from_secs(pause - 1)));
            assert!(backoff.is_over(now + Duration::from_secs(pause)));
            now += Duration::from_secs(pause);
        }
        now += timers.readd_backoff_memory;
        backoff.on_drop(now, &timers);
        assert!(backoff.is_over(now + Duration::from_secs(5)));
    }
}
