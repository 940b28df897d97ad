//! Commands on their way to being committed: waiting for a place in the log, proposed to the
//! replica, and in the log but not applied yet.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use kine2_mutation::{Mutation, mutated};
use kine2_mvcc::{Command, LogPosition};
use kine2_replication::{Entry, LogIndex, Position, RequestId};

use crate::event::NodeError;
use crate::output::store_position;
use crate::queue::{BATCH_ENTRIES_MAX, Queue, Waiting};

/// A command the replica was given and has not ordered yet.
#[derive(Debug)]
struct Proposed<W> {
    payload: Bytes,
    command: Command,
    waiter: Option<W>,
}

/// A command in the log that is not applied yet.
#[derive(Debug)]
pub(crate) struct Logged<W> {
    pub(crate) position: LogPosition,
    pub(crate) command: Command,
    pub(crate) waiter: Option<W>,
    /// It was proposed here, by the node itself if nobody waits.
    pub(crate) is_own: bool,
    request: RequestId,
}

/// The commands, each in one of the three places.
#[derive(Debug)]
pub(crate) struct Proposals<W> {
    pub(crate) queue: Queue<W>,
    /// `None`: the replica refused it.
    proposed: VecDeque<Option<Proposed<W>>>,
    /// Request of the first of `proposed`; they are numbered in order.
    first_request: RequestId,
    /// Without a gap; those before its first are on disk only.
    logged: VecDeque<Logged<W>>,
    /// Entries read from the disk to be applied next, without a gap. They need not reach the first
    /// of `logged`: a read ends after so many bytes.
    read: VecDeque<Logged<W>>,
}

impl<W> Proposals<W> {
    pub(crate) const fn new() -> Self {
        Self {
            queue: Queue::new(),
            proposed: VecDeque::new(),
            first_request: RequestId(1),
            logged: VecDeque::new(),
            read: VecDeque::new(),
        }
    }

    /// Takes up to `entries` commands from the queue, gives `propose` their byte forms, and keeps
    /// them until they are ordered. All of them are encoded into one buffer.
    pub(crate) fn propose(&mut self, entries: usize, mut propose: impl FnMut(Bytes, RequestId)) {
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        while taken.len() < BATCH_ENTRIES_MAX.min(entries) {
            let Some(Waiting {
                command, waiter, ..
            }) = self.queue.pop(buffer.len())
            else {
                break;
            };
            command.encode(&mut buffer);
            taken.push((command, waiter, buffer.len()));
        }
        if mutated(Mutation::AnswersSwapped)
            && let [(_, one, _), (_, other, _), ..] = &mut taken[..]
        {
            std::mem::swap(one, other);
        }
        let buffer = buffer.freeze();
        let mut start = 0;
        for (command, waiter, end) in taken {
            let payload = buffer.slice(start..end);
            start = end;
            let request = RequestId(self.first_request.0 + self.proposed.len() as u64);
            propose(payload.clone(), request);
            self.proposed.push_back(Some(Proposed {
                payload,
                command,
                waiter,
            }));
        }
    }

    /// Entries go to the log: they are the first that were proposed, or come from the primary.
    pub(crate) fn on_entries(&mut self, entries: &[Entry]) -> Result<(), NodeError> {
        for entry in entries {
            let logged = match self.take_proposed(&entry.payload) {
                Some((request, proposed)) => Logged {
                    position: store_position(entry.position),
                    command: proposed.command,
                    waiter: proposed.waiter,
                    is_own: true,
                    request,
                },
                None => decode(entry)?,
            };
            if !mutated(Mutation::CutCommandsStay)
                && !mutated(Mutation::ResetKeepsCommands)
                && self
                    .logged
                    .back()
                    .is_some_and(|last| last.position.index + 1 != logged.position.index)
            {
                // What is committed already is read from the disk where it is needed.
                self.logged.clear();
            }
            self.logged.push_back(logged);
        }
        Ok(())
    }

    /// The first proposal, if this is its payload: the very bytes, not equal ones.
    fn take_proposed(&mut self, payload: &Bytes) -> Option<(RequestId, Proposed<W>)> {
        let proposed = self.proposed.front_mut()?.take_if(|proposed| {
            proposed.payload.as_ptr() == payload.as_ptr() && proposed.payload.len() == payload.len()
        })?;
        let request = self.first_request;
        self.pass_taken();
        Some((request, proposed))
    }

    fn pass_taken(&mut self) {
        while self
            .proposed
            .pop_front_if(|first| first.is_none())
            .is_some()
        {
            self.first_request.0 += 1;
        }
    }

    /// Entries that were read from the log, to be applied before those in memory.
    pub(crate) fn on_read(&mut self, entries: &[Entry]) -> Result<(), NodeError> {
        self.read = entries.iter().map(decode).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The log was cut to end here.
    pub(crate) fn on_truncated(&mut self, last: Position) {
        if mutated(Mutation::CutCommandsStay) {
            return;
        }
        let is_gone = |logged: &mut Logged<W>| logged.position.index > last.index.0;
        while self.logged.pop_back_if(is_gone).is_some() {}
        while self.read.pop_back_if(is_gone).is_some() {}
    }

    /// The log begins anew.
    pub(crate) fn on_reset(&mut self) {
        self.logged.clear();
        self.read.clear();
    }

    /// Index of the first entry in memory.
    pub(crate) fn first_logged(&self) -> Option<LogIndex> {
        self.logged
            .front()
            .map(|logged| LogIndex(logged.position.index))
    }

    /// The entry with this index, if it is in memory and none before it is.
    pub(crate) fn pop_logged(&mut self, index: u64) -> Option<Logged<W>> {
        let is_it = |logged: &mut Logged<W>| logged.position.index == index;
        let read = self.read.pop_front_if(is_it);
        read.or_else(|| self.logged.pop_front_if(is_it))
    }

    /// A proposal was not ordered: who waited for it.
    pub(crate) fn refuse(&mut self, request: RequestId) -> Option<W> {
        let at = request.0.checked_sub(self.first_request.0)?;
        let proposed = self.proposed.get_mut(usize::try_from(at).ok()?)?.take();
        self.pass_taken();
        proposed?.waiter
    }

    /// A command that was ordered may be committed or not: who waited for it.
    pub(crate) fn abandon(&mut self, request: RequestId) -> Option<W> {
        let mut logged = self.logged.iter_mut();
        match logged.find(|logged| logged.request == request) {
            Some(logged) => logged.waiter.take(),
            // Its write waits for a disk that does not get on.
            None => self.refuse(request),
        }
    }

    /// Nothing is ordered here any more: all who wait for a place in the log.
    pub(crate) fn take_queue(&mut self) -> Vec<W> {
        let mut waiters = Vec::new();
        let mut kept = Vec::new();
        while let Some(waiting) = self.queue.pop(0) {
            if mutated(Mutation::RefusedStays) {
                kept.push(waiting.command);
            }
            waiters.extend(waiting.waiter);
        }
        for command in kept {
            self.queue.push(command, None);
        }
        waiters
    }

    pub(crate) fn logged(&self) -> usize {
        self.logged.len()
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.proposed.is_empty() && self.logged.is_empty()
    }
}

fn decode<W>(entry: &Entry) -> Result<Logged<W>, NodeError> {
    let command = Command::decode(&entry.payload).map_err(|source| NodeError::Command {
        index: entry.position.index.0,
        source,
    })?;
    Ok(Logged {
        position: store_position(entry.position),
        command,
        waiter: None,
        is_own: false,
        request: RequestId(0),
    })
}
