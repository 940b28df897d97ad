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
/// Answers below this size are not counted.
pub(crate) const LARGE_ANSWER_BYTES: usize = 64 << 10;
/// Longest wait for others' answers to be written.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of large answers under way.
#[derive(Debug)]
pub(crate) struct AnswerBudget {
    in_flight: AtomicUsize,
    /// One at a time waits for room, so they get in in the order they came.
    turn: Semaphore,
    released: Notify,
}

impl AnswerBudget {
    pub(crate) fn new() -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            turn: Semaphore::new(1),
            released: Notify::new(),
        }
    }

    /// Waits until a large answer may be made.
    ///
    /// # Errors
    /// If others' answers are not read by their clients.
    pub(crate) async fn admit(&self) -> Result<(), RequestError> {
        if self.has_room() && self.turn.available_permits() > 0 {
            return Ok(());
        }
        tokio::time::timeout(ADMISSION_TIMEOUT, self.wait_for_room())
            .await
            .map_err(|_elapsed| RequestError::TooManyRequests)
    }

    async fn wait_for_room(&self) {
        let _turn = self
            .turn
            .acquire()
            .await
            .expect("the semaphore is never closed");
        while !self.has_room() {
            self.released.notified().await;
        }
    }

    /// Whether a large answer may be made at once.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) < IN_FLIGHT_BYTES_MAX
    }

    /// Counts an answer until the share is dropped.
    pub(crate) fn share(self: &Arc<Self>) -> AnswerShare {
        AnswerShare {
            budget: Arc::clone(self),
            bytes: 0,
        }
    }

    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// Bytes of one answer.
#[derive(Debug)]
pub(crate) struct AnswerShare {
    budget: Arc<AnswerBudget>,
    bytes: usize,
}

impl AnswerShare {
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.in_flight.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for AnswerShare {
    fn drop(&mut self) {
        self.budget
            .in_flight
            .fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.released.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_large_answer_waits_for_others_to_be_written_but_not_for_ever() {
        let budget = Arc::new(AnswerBudget::new());
        let mut first = budget.share();
        first.grow(IN_FLIGHT_BYTES_MAX);
        assert!(matches!(
            budget.admit().await,
            Err(RequestError::TooManyRequests)
        ));

        let waiter = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.admit().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(first);
        assert!(waiter.await.unwrap().is_ok());
        assert_eq!(budget.in_flight_bytes(), 0);
    }
}
