//! A machine: what stays when a node's process ends.

use std::sync::Arc;
use std::time::Duration;

use kine2_backend::mem::MemBackend;
use kine2_mvcc::Backend;
use kine2_replication::{DataState, Durable, HardState, Incarnation, NodeRef, Position};
use kine2_wal::fake::FakeDisk;

use crate::log::{Log, OnDisk};
use crate::process::Process;

/// A machine with its disk, and the process on it while that is up.
#[derive(Debug)]
pub struct Machine {
    /// The node's name and incarnation.
    pub me: NodeRef,
    /// The disk the log is on.
    pub disk: FakeDisk,
    /// The state's engine.
    pub state: Arc<MemBackend>,
    /// A snapshot that is durable beside the state.
    pub incoming: Option<Arc<MemBackend>>,
    /// What is durable of the log, known beside it.
    pub on_disk: OnDisk,
    /// Number of its last process.
    pub life: u64,
    /// What its clock has more than the simulation's.
    pub skew: Duration,
    /// It does nothing until then.
    pub frozen_until: Duration,
    /// Its disk does nothing for now.
    pub is_slow: bool,
    /// Bits turned over on its disk.
    pub is_rotten: bool,
    /// The process.
    pub process: Option<Process>,
}

impl Machine {
    /// A machine with an empty store and this hard state.
    ///
    /// # Panics
    /// When a disk in memory fails.
    #[must_use]
    pub fn new(me: NodeRef, storage: Incarnation, hard: HardState) -> Self {
        let disk = FakeDisk::new();
        let own = Durable {
            boot: 0,
            storage,
            data: DataState::Complete,
            hard: Some(hard),
        };
        let (mut log, _) = Log::open(&disk, 1).expect("an empty disk");
        log.keep(&own).expect("an empty disk");
        Self {
            me,
            disk,
            state: Arc::default(),
            incoming: None,
            on_disk: OnDisk {
                own,
                base: Position::START,
                entries: Vec::new(),
            },
            life: 0,
            skew: Duration::ZERO,
            frozen_until: Duration::ZERO,
            is_slow: false,
            is_rotten: false,
            process: None,
        }
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self, now: Duration) -> Duration {
        now + self.skew
    }

    /// When its node must be called, on the simulation's clock.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let Some(process) = &self.process else {
            return Duration::MAX;
        };
        let deadline = process.wake_at.saturating_sub(self.skew);
        deadline.max(self.frozen_until)
    }

    /// The process, if it is this one still.
    pub fn process_of(&mut self, life: u64) -> Option<&mut Process> {
        self.process.as_mut().filter(|_| self.life == life)
    }

    /// Whether its process lives with a disk that failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.failed)
    }

    /// The state that the log goes with: the one a snapshot brought if the log begins after it.
    ///
    /// # Panics
    /// When there is none: the log was cut beyond what is kept.
    pub fn settle_state(&mut self) {
        let base = self.on_disk.base.index.0;
        let reaches = |state: &MemBackend| {
            let held = state.held().expect("a state in memory");
            held.applied.index >= base
        };
        if !reaches(&self.state) {
            let incoming = self.incoming.take().filter(|state| reaches(state));
            self.state = incoming.expect("the log begins where a durable state ends");
        }
        self.incoming = None;
    }
}
