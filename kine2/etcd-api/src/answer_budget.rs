//! How many bytes of large answers may wait to be written.
//!
//! Without a bound, a few hundred clients that list at once make the server hold every list at
//! the same time. Small answers are not counted: gets go on whatever lists wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::member::RequestError;

/// Bytes of large answers that may wait; one more is let in as long as this is not reached.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// The same for a connection that has no large answer under way: a client that does not read its
/// own answers is not to keep others from theirs.
const FIRST_BYTES_MAX: usize = 512 << 20;
/// Answers below this size are not counted.
pub(crate) const LARGE_ANSWER_BYTES: usize = 64 << 10;
/// Longest wait for others' answers to be written.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of large answers under way, as one connection sees them.
#[derive(Clone, Debug)]
pub(crate) struct AnswerBudget {
    shared: Arc<Shared>,
    /// Large answers of this connection.
    own: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Shared {
    in_flight: AtomicUsize,
    /// One at a time waits for room, so they get in in the order they came.
    turn: Semaphore,
    released: Notify,
}

impl AnswerBudget {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                in_flight: AtomicUsize::new(0),
                turn: Semaphore::new(1),
                released: Notify::new(),
            }),
            own: Arc::default(),
        }
    }

    /// The same budget, for a connection that has no answer under way.
    pub(crate) fn for_connection(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            own: Arc::default(),
        }
    }

    /// Waits until a large answer may be made, and counts it until the share is dropped.
    ///
    /// # Errors
    /// If others' answers are not read by their clients.
    pub(crate) async fn admit(&self) -> Result<AnswerShare, RequestError> {
        if !self.has_room() || self.shared.turn.available_permits() == 0 && !self.is_first() {
            tokio::time::timeout(ADMISSION_TIMEOUT, self.wait_for_room())
                .await
                .map_err(|_elapsed| RequestError::TooManyRequests)?;
        }
        Ok(self.share())
    }

    async fn wait_for_room(&self) {
        let _turn = self
            .shared
            .turn
            .acquire()
            .await
            .expect("the semaphore is never closed");
        while !self.has_room() {
            self.shared.released.notified().await;
        }
    }

    /// Whether a large answer may be made at once.
    pub(crate) fn has_room(&self) -> bool {
        let in_flight = self.in_flight_bytes();
        in_flight < IN_FLIGHT_BYTES_MAX || self.is_first() && in_flight < FIRST_BYTES_MAX
    }

    /// Whether this connection has no large answer under way.
    fn is_first(&self) -> bool {
        self.own.load(Ordering::Relaxed) == 0
    }

    /// A share that asks nobody.
    pub(crate) fn share(&self) -> AnswerShare {
        self.own.fetch_add(1, Ordering::Relaxed);
        AnswerShare {
            budget: self.clone(),
            bytes: 0,
        }
    }

    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }
}

/// Bytes of one answer.
#[derive(Debug)]
pub(crate) struct AnswerShare {
    budget: AnswerBudget,
    bytes: usize,
}

impl AnswerShare {
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        let in_flight = &self.budget.shared.in_flight;
        in_flight.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What it held so far has been written.
    pub(crate) fn empty(&mut self) {
        let shared = &self.budget.shared;
        let bytes = std::mem::take(&mut self.bytes);
        shared.in_flight.fetch_sub(bytes, Ordering::Relaxed);
        shared.released.notify_one();
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for AnswerShare {
    fn drop(&mut self) {
        self.budget.own.fetch_sub(1, Ordering::Relaxed);
        self.empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_large_answer_waits_for_others_to_be_written_but_not_for_ever() {
        let budget = AnswerBudget::new();
        let mut first = budget.admit().await.unwrap();
        first.grow(IN_FLIGHT_BYTES_MAX);
        assert!(matches!(
            budget.admit().await,
            Err(RequestError::TooManyRequests)
        ));

        let waiter = tokio::spawn({
            let budget = budget.clone();
            async move { budget.admit().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(first);
        assert!(waiter.await.unwrap().is_ok());
        assert_eq!(budget.in_flight_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_connection_may_have_one_while_others_leave_theirs_unread() {
        let budget = AnswerBudget::new();
        let mut unread = budget.admit().await.unwrap();
        unread.grow(IN_FLIGHT_BYTES_MAX);
        let other = budget.for_connection();
        let mut first = other.admit().await.unwrap();
        first.grow(1);
        assert!(other.admit().await.is_err(), "a second one waits");
        drop(first);
        assert!(other.admit().await.is_ok());
        // But there is an end to it.
        unread.grow(FIRST_BYTES_MAX);
        assert!(other.admit().await.is_err());
    }
}
