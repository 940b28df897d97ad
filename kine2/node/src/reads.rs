//! Requests that wait for a confirmation that this node has what is newest.

use std::collections::BTreeMap;
use std::time::Duration;

use kine2_replication::RequestId;

/// Numbers of reads are above those of proposals.
const FIRST: u64 = 1 << 63;

/// What a confirmation is for.
#[derive(Debug)]
pub(crate) enum Read<W> {
    /// A client's read.
    Client(W),
    /// A client's renewal of a lease (`repl T4`).
    KeepAlive { id: i64, waiter: W },
    /// The expiry of the leases that were due then (`repl T3`).
    Expiry { asked: Duration },
}

/// Those that wait. Their number is bounded by the replica, which refuses more.
#[derive(Debug)]
pub(crate) struct Reads<W> {
    waiting: BTreeMap<RequestId, Read<W>>,
    next: u64,
}

impl<W> Default for Reads<W> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: FIRST,
        }
    }
}

impl<W> Reads<W> {
    pub(crate) fn add(&mut self, read: Read<W>) -> RequestId {
        let request = RequestId(self.next);
        self.next += 1;
        self.waiting.insert(request, read);
        request
    }

    pub(crate) fn take(&mut self, request: RequestId) -> Option<Read<W>> {
        if request.0 < FIRST {
            return None;
        }
        self.waiting.remove(&request)
    }
}
