//! The node's half of its failover unit, and the steps it wants carried out.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use kine2_mutation::{Mutation, mutated};
use kine2_replication::{
    Act, Answer, Body, DataState, Durable, Event, HardState, Incarnation, Loaded, PartName, Record,
    Step, Timers, Unit, Write, WriteId,
};

use crate::output::{LogRecord, LogWrite};

/// Name of the part that holds the store: the lead of its unit.
pub const STORE: &str = "store";

/// The unit, its steps in order, and what of the node's own record is on disk.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) unit: Unit,
    pub(crate) part: PartName,
    steps: VecDeque<Step>,
    /// The lead's writes up to this one are durable.
    durable: WriteId,
    /// The lead's disk failed: no other write will become durable.
    is_failed: bool,
    boot: u64,
    storage: Incarnation,
    data: DataState,
    hard: HardState,
}

impl Replica {
    /// # Panics
    /// If what was loaded has no store.
    pub(crate) fn new(loaded: Loaded, timers: Timers, now: Duration) -> Self {
        let part = PartName::from(STORE);
        let store = loaded.parts.get(&part).expect("the unit has a store");
        Self {
            steps: VecDeque::new(),
            durable: WriteId(0),
            is_failed: false,
            boot: loaded.boot,
            storage: store.storage,
            data: store.data,
            hard: loaded.hard.clone(),
            unit: Unit::new(loaded, timers, now),
            part,
        }
    }

    pub(crate) fn handle(&mut self, now: Duration, event: Event) {
        if let Event::Written { part, through } = &event
            && *part == self.unit.config().lead
        {
            self.durable = self.durable.max(*through);
        }
        if let Event::DiskFailed { part } = &event {
            self.is_failed |= *part == self.unit.config().lead;
        }
        self.unit.handle(now, event);
    }

    /// The next step, if all it waits for is durable. On a disk that failed some waits have no end;
    /// clients are told all the same that they get nothing here.
    pub(crate) fn next_step(&mut self) -> Option<Act> {
        self.steps.extend(self.unit.take_steps());
        let durable = self.durable;
        let is_due =
            |step: &mut Step| step.after <= durable || mutated(Mutation::StepsBeforeDurable);
        if let Some(step) = self.steps.pop_front_if(is_due) {
            return Some(step.act);
        }
        if !self.is_failed {
            return None;
        }
        let at = self
            .steps
            .iter()
            .position(|step| tells_clients(&step.act))?;
        self.steps.remove(at).map(|step| refused(step.act))
    }

    /// A step could not be finished; it comes again, before all others.
    pub(crate) fn put_back(&mut self, act: Act) {
        let after = WriteId(0);
        self.steps.push_front(Step { after, act });
    }

    /// Takes out what only says that this node lives: what it tells the witness, and heartbeats.
    /// It need not wait until what is committed is applied.
    pub(crate) fn take_signs_of_life(&mut self) -> Vec<Act> {
        self.steps.extend(self.unit.take_steps());
        let durable = self.durable;
        let is_sign = |step: &Step| {
            let says = match &step.act {
                Act::Send(frame) => matches!(frame.body, Body::Heartbeat(_)),
                Act::Call(_) => true,
                _ => false,
            };
            says && step.after <= durable
        };
        let steps = std::mem::take(&mut self.steps);
        let (signs, others): (Vec<_>, Vec<_>) = steps.into_iter().partition(is_sign);
        self.steps = others.into();
        signs.into_iter().map(|step| step.act).collect()
    }

    /// Whether no step waits for a write.
    pub(crate) fn is_idle(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether a write that switches to a snapshot is among the steps.
    pub(crate) fn is_switching(&mut self) -> bool {
        self.steps.extend(self.unit.take_steps());
        let resets = |record: &Record| matches!(record, Record::Reset(_));
        self.steps.iter().any(|step| match &step.act {
            Act::Write(write) => write.part == self.part && write.records.iter().any(resets),
            _ => false,
        })
    }

    /// The write with its records as the log keeps them. The node's own record is written whole
    /// each time, whatever of it has changed.
    pub(crate) fn encode(&mut self, write: Write) -> LogWrite {
        let Write { part, id, records } = write;
        let mut out: Vec<LogRecord> = Vec::with_capacity(records.len());
        for record in records {
            match record {
                Record::Hard(_) if mutated(Mutation::OwnRecordLost) => {}
                Record::Hard(hard) => {
                    self.hard = *hard;
                    self.push_own(&mut out);
                }
                Record::Data(data) => {
                    self.data = data;
                    self.push_own(&mut out);
                }
                Record::Storage(storage) => {
                    self.storage = storage;
                    self.push_own(&mut out);
                }
                Record::Truncate(position) => out.push(LogRecord::Truncate(position)),
                Record::Entries(entries) => out.push(LogRecord::Entries(entries)),
                Record::Reset(position) => {
                    out.push(LogRecord::Reset(position, self.own_record()));
                }
            }
        }
        LogWrite {
            part,
            id,
            records: out,
        }
    }

    /// The own record once more. Behind a reset it is one step with it: what is kept beside the log
    /// is of the new state.
    fn push_own(&self, out: &mut Vec<LogRecord>) {
        let own = self.own_record();
        match out.last_mut() {
            Some(LogRecord::Reset(_, beside) | LogRecord::Hard(beside)) => *beside = own,
            _ => out.push(LogRecord::Hard(own)),
        }
    }

    fn own_record(&self) -> Bytes {
        let durable = Durable {
            boot: self.boot,
            storage: self.storage,
            data: self.data,
            hard: Some(self.hard.clone()),
        };
        durable.encode()
    }
}

/// The act is only for clients.
const fn tells_clients(act: &Act) -> bool {
    matches!(act, Act::Answer { .. } | Act::Serve { active: false, .. })
}

/// What clients get instead of an answer that never becomes durable.
fn refused(act: Act) -> Act {
    match act {
        Act::Answer { request, answer } => Act::Answer {
            request,
            answer: match answer {
                Answer::Committed(_) => Answer::Unknown,
                Answer::ReadAt(_) if !mutated(Mutation::FailedDiskReads) => Answer::Unavailable,
                other => other,
            },
        },
        other => other,
    }
}
