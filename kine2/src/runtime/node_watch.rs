//! A client's watch stream at the node.

use std::sync::Arc;

use kine2_etcd_api::{RequestError, WatchStream};
use kine2_mvcc::{WatchMessage, WatchRequest};

use super::shared::{OpenStream, Shared};

/// Bytes of events a stream takes at once.
const WATCH_POLL_BYTES: usize = 1 << 20;

/// One client's watch stream at the node.
#[derive(Debug)]
pub(super) struct NodeWatch {
    shared: Arc<Shared>,
    stream: OpenStream,
}

impl NodeWatch {
    pub(super) fn open(shared: Arc<Shared>) -> Self {
        Self {
            stream: shared.open_stream(),
            shared,
        }
    }

    /// The state it was opened on is gone, or no primary is there.
    fn has_ended(&self) -> bool {
        self.shared.streams_ended() != self.stream.ended
    }
}

impl WatchStream for NodeWatch {
    fn create(&mut self, request: WatchRequest) {
        if self.has_ended() {
            return;
        }
        let now = self.shared.now();
        self.shared.node.lock().watch(now, self.stream.id, request);
        self.stream.ready.notify_one();
        // A progress interval may have come nearer.
        self.shared.wake();
    }

    fn cancel(&mut self, id: i64) {
        if self.has_ended() {
            return;
        }
        self.shared.node.lock().cancel_watch(self.stream.id, id);
        self.stream.ready.notify_one();
    }

    fn request_progress(&mut self) {
        if self.has_ended() {
            return;
        }
        self.shared.node.lock().request_progress(self.stream.id);
        self.stream.ready.notify_one();
    }

    async fn next(&mut self) -> Result<Vec<WatchMessage>, RequestError> {
        loop {
            if self.shared.is_stopped() {
                return Err(RequestError::Stopped);
            }
            if self.has_ended() {
                return Err(RequestError::NoLeader);
            }
            let polled = self
                .shared
                .node
                .lock()
                .poll_stream(self.stream.id, WATCH_POLL_BYTES)
                .map_err(|error| self.shared.read_error(error))?;
            if !polled.messages.is_empty() {
                if polled.more {
                    self.stream.ready.notify_one();
                }
                return Ok(polled.messages);
            }
            if polled.more {
                // History without a match: let others in before the next slice.
                tokio::task::yield_now().await;
            } else {
                self.stream.ready.notified().await;
            }
        }
    }
}

impl Drop for NodeWatch {
    fn drop(&mut self) {
        self.shared.close_stream(&self.stream);
    }
}
