//! Whether alarms stop writes while they are raised, and only then.

use crate::history::Moment;

/// An alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// No room.
    NoSpace,
    /// Not to be trusted.
    Corrupt,
}

/// What is known of both alarms.
#[derive(Clone, Debug, Default)]
pub struct Alarms {
    no_space: State,
    corrupt: State,
    /// A node may raise NOSPACE by itself: there is a quota, or a disk was full.
    pub nodes_raise: bool,
}

/// What is sure of one alarm.
#[derive(Clone, Debug, Default)]
struct State {
    /// Since a client was told so, and nobody asked for the other since.
    raised_since: Option<Moment>,
    /// Somebody asked for it, and no client was told since that it is cleared.
    maybe_raised: bool,
    /// When a client was told so last.
    cleared_since: Moment,
    raises: Requests,
    clears: Requests,
}

/// Requests of one kind.
#[derive(Clone, Debug, Default)]
struct Requests {
    /// Those that may still be carried out. One without an answer stays one.
    open: usize,
    /// When one was asked for or answered last.
    last: Moment,
}

impl Requests {
    /// None can have been carried out since then.
    fn are_over(&self, since: Moment) -> bool {
        self.open == 0 && self.last < since
    }
}

impl Alarms {
    /// Nothing is sure of either.
    #[must_use]
    pub fn unsure(nodes_raise: bool) -> Self {
        let state = State {
            maybe_raised: true,
            ..State::default()
        };
        Self {
            no_space: state.clone(),
            corrupt: state,
            nodes_raise,
        }
    }

    /// A client asks to raise it, or to clear it.
    pub fn on_asked(&mut self, now: Moment, alarm: Alarm, raise: bool) {
        let state = self.state(alarm);
        if raise {
            state.maybe_raised = true;
        } else {
            state.raised_since = None;
        }
        let requests = state.requests(raise);
        requests.open += 1;
        requests.last = now;
    }

    /// It is done.
    pub fn on_done(&mut self, invoked: Moment, now: Moment, alarm: Alarm, raise: bool) {
        let state = self.state(alarm);
        if raise && state.clears.are_over(invoked) {
            state.raised_since.get_or_insert(now);
        }
        if !raise && state.raises.are_over(invoked) {
            state.maybe_raised = false;
            state.cleared_since = now;
        }
        let requests = state.requests(raise);
        requests.open -= 1;
        requests.last = now;
    }

    /// A write is refused by an alarm.
    ///
    /// # Errors
    /// When it cannot be raised.
    pub fn on_refused(&mut self, invoked: Moment, alarm: Alarm) -> Result<(), String> {
        let by_nodes = alarm == Alarm::NoSpace && self.nodes_raise;
        let state = self.state(alarm);
        if by_nodes || state.maybe_raised || invoked < state.cleared_since {
            return Ok(());
        }
        Err(format!(
            "refused by {alarm:?}, which nobody raised: {state:?}"
        ))
    }

    /// A write that an alarm forbids was carried out.
    ///
    /// # Errors
    /// When it was surely raised.
    pub fn on_written(&self, invoked: Moment) -> Result<(), String> {
        let raised = [&self.no_space, &self.corrupt].into_iter();
        let mut since = raised.filter_map(|state| state.raised_since);
        match since.find(|since| *since < invoked) {
            Some(_) => Err(format!("written in spite of an alarm: {self:?}")),
            None => Ok(()),
        }
    }

    fn state(&mut self, alarm: Alarm) -> &mut State {
        match alarm {
            Alarm::NoSpace => &mut self.no_space,
            Alarm::Corrupt => &mut self.corrupt,
        }
    }
}

impl State {
    fn requests(&mut self, raise: bool) -> &mut Requests {
        match raise {
            true => &mut self.raises,
            false => &mut self.clears,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_needs_somebody_who_raised_the_alarm() {
        let mut alarms = Alarms::default();
        assert!(alarms.on_refused(1, Alarm::Corrupt).is_err());
        alarms.on_asked(2, Alarm::Corrupt, true);
        assert!(alarms.on_refused(1, Alarm::Corrupt).is_ok());
        alarms.on_done(2, 3, Alarm::Corrupt, true);
        alarms.on_asked(4, Alarm::Corrupt, false);
        alarms.on_done(4, 6, Alarm::Corrupt, false);
        assert!(alarms.on_refused(5, Alarm::Corrupt).is_ok(), "sent before");
        assert!(alarms.on_refused(7, Alarm::Corrupt).is_err());
        assert!(alarms.on_refused(7, Alarm::NoSpace).is_err());
        alarms.nodes_raise = true;
        assert!(alarms.on_refused(7, Alarm::NoSpace).is_ok());
    }

    #[test]
    fn a_write_in_spite_of_an_alarm_is_found() {
        let mut alarms = Alarms::default();
        alarms.on_asked(1, Alarm::NoSpace, true);
        assert!(alarms.on_written(2).is_ok(), "nobody was told yet");
        alarms.on_done(1, 3, Alarm::NoSpace, true);
        assert!(alarms.on_written(4).is_err());
        assert!(alarms.on_written(2).is_ok(), "sent before");
        alarms.on_asked(5, Alarm::NoSpace, false);
        assert!(alarms.on_written(6).is_ok(), "it may be cleared");
    }

    #[test]
    fn what_was_never_answered_may_come_at_any_time() {
        let mut alarms = Alarms::default();
        alarms.on_asked(1, Alarm::Corrupt, true);
        alarms.on_asked(2, Alarm::Corrupt, false);
        alarms.on_done(2, 3, Alarm::Corrupt, false);
        assert!(alarms.on_refused(4, Alarm::Corrupt).is_ok());
    }

    #[test]
    fn of_two_at_once_nobody_knows_the_order() {
        let mut alarms = Alarms::default();
        alarms.on_asked(1, Alarm::NoSpace, false);
        alarms.on_asked(2, Alarm::NoSpace, true);
        alarms.on_done(2, 3, Alarm::NoSpace, true);
        assert!(alarms.on_written(4).is_ok());
        alarms.on_done(1, 5, Alarm::NoSpace, false);
        assert!(alarms.on_refused(6, Alarm::NoSpace).is_ok());
    }
}
