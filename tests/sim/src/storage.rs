//! The log, the state and the snapshots of nodes in a simulation.

use std::collections::BTreeMap;
use std::sync::Arc;

use kine2_backend::mem::MemBackend;
use kine2_mvcc::Backend;
use kine2_node::{Event, LogRead};
use kine2_replication::{Event as ReplicaEvent, LogIndex, Position};

use crate::due::Due;
use crate::plan::ms;
use crate::process::{EngineDone, Process, open};
use crate::world::World;

/// Entries of one read of the log: few, so that catching up takes many.
const READ_ENTRIES: u64 = 16;

/// S25: what is durable of the state holds of each key one change at most up to this revision.
pub(crate) fn check_freed(state: &MemBackend, revision: i64) {
    let mut changes: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let count = &mut |meta: kine2_mvcc::Meta<'_>| {
        if meta.id.main.0 <= revision {
            *changes.entry(meta.key.to_vec()).or_default() += 1;
        }
    };
    state.image().metas(count).expect("a state in memory");
    let most = changes.into_values().max();
    assert!(
        most <= Some(1),
        "space is not free: of a key there are {most:?} changes up to revision {revision}"
    );
}

impl World {
    pub(crate) fn on_log_read(&mut self, n: usize, life: u64, read: &LogRead) {
        let machine = &mut self.machines[n];
        let (base, last) = (machine.on_disk.base, machine.on_disk.last());
        let prev = machine.on_disk.position(LogIndex(read.from.0 - 1));
        let Some(process) = machine.process_of(life).filter(|p| !p.failed) else {
            return;
        };
        let (prev, entries) = match prev {
            None => (base, Vec::new()),
            Some(prev) => {
                let most = LogIndex(read.from.0 + READ_ENTRIES);
                let end = read.through.next().min(most).min(last.index.next());
                let end = end.max(read.from);
                (prev, process.log.read(read.from, end, read.bytes_max))
            }
        };
        let reader = read.reader;
        self.turn(
            n,
            Some(Event::LogRead {
                reader,
                prev,
                entries,
            }),
        );
    }

    pub(crate) fn on_engine(&mut self, n: usize, life: u64) {
        let machine = &mut self.machines[n];
        if machine.is_slow {
            // It is on the disk that hangs.
            return self.push(ms(50), Due::Engine(n, life));
        }
        let state = Arc::clone(&machine.state);
        let done = machine.process_of(life).and_then(|p| p.run_engine(&state));
        let event = match done {
            None => return,
            Some(EngineDone::Saved(stats)) => Event::Saved(stats),
            Some(EngineDone::Checkpointed(position)) => Event::Checkpointed(position),
        };
        self.turn(n, Some(event));
    }

    pub(crate) fn on_cut(&mut self, n: usize, life: u64, keep: LogIndex) {
        let machine = &mut self.machines[n];
        if machine.life != life {
            return;
        }
        let Some(process) = machine.process.as_mut().filter(|p| !p.failed) else {
            return;
        };
        match process.log.cut_below(keep, &mut machine.on_disk) {
            Ok(None) => {}
            Ok(Some(base)) => {
                self.coverage.mark("L6: a log cut");
                let part = self.part.clone();
                let cut = ReplicaEvent::LogCut { part, base };
                self.turn(n, Some(Event::Replica(cut)));
            }
            Err(error) => self.on_disk_error(n, &error.to_string()),
        }
    }

    pub(crate) fn on_snapshot_made(&mut self, n: usize, life: u64) {
        let machine = &mut self.machines[n];
        let held = machine.state.held().expect("a state in memory");
        let position = machine.on_disk.position(LogIndex(held.applied.index));
        let state = Arc::clone(&machine.state);
        let (Some(process), Some(position)) = (machine.process_of(life), position) else {
            return;
        };
        let mut bytes = Vec::new();
        kine2_backend::export(&*state, &mut bytes).expect("a state in memory");
        process.snapshot = Some((position, Arc::new(bytes)));
        self.coverage.mark("N1: a snapshot made");
        let part = self.part.clone();
        let made = ReplicaEvent::SnapshotMade { part, position };
        self.turn(n, Some(Event::Replica(made)));
    }

    pub(crate) fn send_snapshot(&mut self, n: usize, position: Position) {
        let made = self.process(n).snapshot.clone();
        let Some((_, bytes)) = made.filter(|(made, _)| *made == position) else {
            return;
        };
        let after = self.delay() * 4;
        if !self.network.is_cut(n, 1 - n) && self.machines[1 - n].process.is_some() {
            self.push(after, Due::SnapshotData(1 - n, position, bytes));
        }
    }

    pub(crate) fn on_snapshot_data(&mut self, n: usize, position: Position, bytes: Arc<Vec<u8>>) {
        let after = self.flush_time();
        let machine = &self.machines[n];
        let wanted = |process: &Process| process.receiving == Some(position);
        if machine.process.as_ref().is_some_and(wanted) {
            let life = machine.life;
            self.push(after, Due::SnapshotReceived(n, life, position, bytes));
        }
    }

    pub(crate) fn on_snapshot_received(
        &mut self,
        n: usize,
        life: u64,
        position: Position,
        bytes: &[u8],
    ) {
        let machine = &mut self.machines[n];
        let wanted =
            |process: &&mut Process| process.receiving == Some(position) && !process.failed;
        let Some(process) = machine.process_of(life).filter(wanted) else {
            return;
        };
        process.receiving = None;
        let state = MemBackend::default();
        kine2_backend::import(&state, bytes).expect("what was exported");
        let state = Arc::new(state);
        let store = Box::new(open(&state));
        machine.incoming = Some(state);
        self.turn(n, Some(Event::SnapshotReceived { position, store }));
    }

    pub(crate) fn switch_state(&mut self, n: usize) {
        let machine = &mut self.machines[n];
        let state = machine.incoming.take();
        machine.state = state.expect("a snapshot was received before");
        // What the old engine had to do is void.
        self.process(n).engine.clear();
        self.coverage.mark("N4: a snapshot installed");
    }
}
