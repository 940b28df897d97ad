//! Carrying out the replica's steps, in its order.

use std::time::Duration;

use kine2_mutation::{Mutation, mutated};
use kine2_mvcc::{Store, WatchHub};
use kine2_replication::{Act, Entry, Event as ReplicaEvent, LogIndex, Position, Record, Write};

use crate::event::NodeError;
use crate::node::{Incoming, Node, new_saving};
use crate::output::{LogRead, LogReader, Work, store_position};

/// Bytes of log read at once to be applied.
const APPLY_READ_BYTES: usize = 512 << 10;
/// Bytes of records the backend may lack when more of the log is read to be applied: a log of any
/// length is applied in a bounded space.
const APPLY_UNSAVED_BYTES_MAX: usize = 4 << 20;

impl<W> Node<W> {
    /// Does what the replica wants done, in its order, as far as it is durable.
    pub(crate) fn carry_out(&mut self, now: Duration) -> Result<(), NodeError> {
        while let Some(act) = self.replica.next_step() {
            match act {
                Act::Write(write) => {
                    self.on_write(write)?;
                    self.break_order_of_write(now)?;
                }
                Act::Apply { part, through } => {
                    if !self.apply_through(now, through)? {
                        // Who takes long to apply a log is alive all the same.
                        let signs = self.replica.take_signs_of_life();
                        let signs = signs.into_iter().map(Work::Act);
                        if !mutated(Mutation::SignsOfLifeWait) {
                            self.output.work.extend(signs);
                        }
                        self.replica.put_back(Act::Apply { part, through });
                        return Ok(());
                    }
                }
                Act::Answer { request, answer } => self.on_answer(now, request, answer),
                Act::ReadLog {
                    part,
                    from,
                    through,
                    bytes_max,
                } => self.output.work.push(Work::ReadLog(LogRead {
                    part,
                    reader: LogReader::Replica,
                    from,
                    through,
                    bytes_max,
                })),
                Act::Serve { active, .. } => {
                    self.on_serve(now, active);
                    self.output.work.push(Work::Act(act));
                }
                other => self.output.work.push(Work::Act(other)),
            }
        }
        Ok(())
    }

    fn on_write(&mut self, write: Write) -> Result<(), NodeError> {
        for record in &write.records {
            match record {
                Record::Entries(entries) => self.proposals.on_entries(entries)?,
                Record::Truncate(last) => self.proposals.on_truncated(*last),
                Record::Reset(_) => {
                    if !mutated(Mutation::ResetKeepsCommands) {
                        self.proposals.on_reset();
                    }
                    if let Some(incoming) = &mut self.incoming {
                        incoming.write = Some(write.id);
                    }
                }
                Record::Hard(_) | Record::Data(_) | Record::Storage(_) => {}
            }
        }
        let write = self.replica.encode(write);
        self.output.work.push(Work::Write(write));
        Ok(())
    }

    /// For tests: what must wait until a write is durable, or committed, is done at once.
    fn break_order_of_write(&mut self, now: Duration) -> Result<(), NodeError> {
        let is_switching = |incoming: &Incoming| incoming.write.is_some();
        if mutated(Mutation::SwitchBeforeDurable)
            && self.incoming.as_ref().is_some_and(is_switching)
        {
            self.switch_state(now);
        }
        if mutated(Mutation::AppliedBeforeCommit) {
            let last = self.replica.unit.last_index(&self.replica.part);
            self.apply_through(now, last)?;
        }
        Ok(())
    }

    /// Applies what is committed; `false` if some of it has to be read from the log first.
    fn apply_through(&mut self, now: Duration, through: LogIndex) -> Result<bool, NodeError> {
        loop {
            let applied = self.store.applied().index;
            if applied >= through.0 {
                self.store.set_caching(true);
                return Ok(true);
            }
            let Some(entry) = self.proposals.pop_logged(applied + 1) else {
                self.read_log(LogIndex(applied + 1), through);
                return Ok(false);
            };
            self.on_committed(now, entry)?;
        }
    }

    /// Entries that this node does not hold in memory: they were in its log when it started.
    fn read_log(&mut self, from: LogIndex, through: LogIndex) {
        if self.reading_log || self.store.unsaved_bytes() > APPLY_UNSAVED_BYTES_MAX {
            return;
        }
        self.reading_log = true;
        // Nobody reads what only passes by.
        self.store.set_caching(false);
        let held = self.proposals.first_logged();
        let through = held.map_or(through, |held| through.min(LogIndex(held.0 - 1)));
        self.output.work.push(Work::ReadLog(LogRead {
            part: self.part(),
            reader: LogReader::State,
            from,
            through,
            bytes_max: APPLY_READ_BYTES,
        }));
    }

    pub(crate) fn on_log_read(
        &mut self,
        now: Duration,
        reader: LogReader,
        prev: Position,
        entries: Vec<Entry>,
    ) -> Result<(), NodeError> {
        match reader {
            LogReader::Replica => {
                let part = self.part();
                let event = ReplicaEvent::LogRead {
                    part,
                    prev,
                    entries,
                };
                self.replica.handle(now, event);
            }
            LogReader::State => {
                self.reading_log = false;
                // What was read before a snapshot took the log's place is not needed any more.
                if store_position(prev).index == self.store.applied().index {
                    self.proposals.on_read(&entries)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn on_snapshot_received(
        &mut self,
        now: Duration,
        position: Position,
        store: Box<Store>,
    ) {
        assert_eq!(
            store.applied(),
            store_position(position),
            "the snapshot is the state at its position"
        );
        let part = self.part();
        self.incoming = Some(Incoming { store, write: None });
        let event = ReplicaEvent::SnapshotReceived { part, position };
        self.replica.handle(now, event);
        if !self.replica.is_switching() {
            // It is not wanted any more.
            self.incoming = None;
        }
    }

    /// N4: the log has been switched to the snapshot durably.
    pub(crate) fn switch_state(&mut self, now: Duration) {
        let incoming = self.incoming.take().expect("the caller looked");
        self.store = *incoming.store;
        if !mutated(Mutation::SwitchKeepsWatches) {
            self.watches = WatchHub::new(self.options.watch);
            self.output.streams_ended = true;
        }
        let settles = self.saving.is_settling();
        if !mutated(Mutation::SwitchKeepsSaving) {
            self.saving = new_saving(&self.options, now);
        }
        if settles {
            self.saving.settle();
        }
        if !mutated(Mutation::SwitchKeepsBatch) {
            self.output.state = None;
        }
        self.output.work.push(Work::SwitchState);
    }
}
