//! Commands that wait for a place in the log.

use std::collections::VecDeque;

use kine2_mvcc::Command;

/// Most commands that wait; more are refused (`etcd` section 4: 5,000 entries).
pub const QUEUE_COMMANDS_MAX: usize = 5_000;
/// Most bytes of commands that wait. Together with [`QUEUE_COMMANDS_MAX`] it bounds what clients
/// can make the node hold.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Most commands written to the log at once.
pub const BATCH_ENTRIES_MAX: usize = 4_096;
/// Bytes after which a batch takes no further command.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(BATCH_BYTES_MAX < QUEUE_BYTES_MAX);
// The replica takes a whole batch, the last command of which may go beyond the bound.
const _: () = assert!(2 * BATCH_BYTES_MAX < kine2_replication::WINDOW_BYTES_MAX);

/// A command and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Waiting<W> {
    pub(crate) command: Command,
    pub(crate) waiter: Option<W>,
    pub(crate) bytes: usize,
}

/// Waiting commands in the order they came.
#[derive(Debug)]
pub(crate) struct Queue<W> {
    waiting: VecDeque<Waiting<W>>,
    bytes: usize,
}

impl<W> Queue<W> {
    pub(crate) const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a client's command must be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= QUEUE_COMMANDS_MAX || self.bytes >= QUEUE_BYTES_MAX
    }

    pub(crate) fn push(&mut self, command: Command, waiter: Option<W>) {
        let bytes = command.size_bound();
        self.bytes += bytes;
        self.waiting.push_back(Waiting {
            command,
            waiter,
            bytes,
        });
    }

    /// Takes the next command of a batch that has `bytes` already.
    pub(crate) fn pop(&mut self, bytes: usize) -> Option<Waiting<W>> {
        if bytes >= BATCH_BYTES_MAX {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.bytes -= next.bytes;
        Some(next)
    }
}
