//! Messages that wait to be written to one connection.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use kine2_replication::WINDOW_BYTES_MAX;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that may wait: the log's window and what goes beside it. The rest is lost, as a frame may
/// be.
const WAITING_BYTES_MAX: usize = WINDOW_BYTES_MAX + (16 << 20);
/// Bytes that are written at once.
const WRITE_BYTES: usize = 256 << 10;

/// The messages: short ones that somebody waits for go before the rest.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    urgent: VecDeque<Bytes>,
    rest: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    /// Adds a message; `false` if there is no room and it is lost.
    pub(crate) fn push(&self, message: Bytes, is_urgent: bool) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.bytes + message.len() > WAITING_BYTES_MAX {
            return false;
        }
        waiting.bytes += message.len();
        match is_urgent {
            true => waiting.urgent.push_back(message),
            false => waiting.rest.push_back(message),
        }
        drop(waiting);
        self.filled.notify_one();
        true
    }

    /// Drops what waits: a new connection begins without it.
    pub(crate) fn clear(&self) {
        *self.waiting.lock() = Waiting::default();
    }

    /// Waits for messages and takes as many as are written at once. Cancel-safe.
    pub(crate) async fn take(&self) -> BytesMut {
        loop {
            let taken = self.take_ready();
            if !taken.is_empty() {
                return taken;
            }
            self.filled.notified().await;
        }
    }

    fn take_ready(&self) -> BytesMut {
        let mut waiting = self.waiting.lock();
        let mut taken = BytesMut::new();
        while taken.len() < WRITE_BYTES {
            let urgent = waiting.urgent.pop_front();
            let Some(message) = urgent.or_else(|| waiting.rest.pop_front()) else {
                break;
            };
            waiting.bytes -= message.len();
            if taken.is_empty() && (waiting.bytes == 0 || message.len() >= WRITE_BYTES) {
                // Most often there is one: it goes without a copy if nobody else holds it.
                match message.try_into_mut() {
                    Ok(message) => taken = message,
                    Err(message) => taken.extend_from_slice(&message),
                }
            } else {
                taken.extend_from_slice(&message);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgent_messages_go_first_and_what_does_not_fit_is_lost() {
        let queue = Queue::default();
        assert!(queue.push(Bytes::from_static(b"rest"), false));
        assert!(queue.push(Bytes::from_static(b"urgent "), true));
        assert_eq!(&queue.take_ready()[..], b"urgent rest");
        assert!(queue.take_ready().is_empty());
        let long = Bytes::from(vec![0; WAITING_BYTES_MAX]);
        assert!(queue.push(long.clone(), false));
        assert!(!queue.push(Bytes::from_static(b"x"), true));
        assert_eq!(queue.take_ready(), long);
        assert!(queue.push(Bytes::from_static(b"x"), true));
        queue.clear();
        assert!(queue.take_ready().is_empty());
    }
}
