//! The unit itself: one node's half of a failover unit.
//!
//! What survives a crash is the hard state, the logs and the state they lead to; the rules by which
//! they change are in the files named after what they do. Every rule of safety stands where the
//! code that holds it is, by the name the protocol gives it.

use std::collections::BTreeMap;
use std::time::Duration;

use kine2_mutation::{Mutation, mutated};
use kine2_wal::LogIndex;

use crate::arbiter_change::Moving;
use crate::config::{Config, ConfigId, Standing};
use crate::durable::Durable;
use crate::event::{Event, Link};
use crate::floors::lacks;
use crate::forms::Form;
use crate::gateway::Gateway;
use crate::hard_state::{DataState, HardState};
use crate::history::History;
use crate::ids::{NodeRef, PartName, RegisterKey, Replica, RequestId};
use crate::operator::Swap;
use crate::output::{Act, Answer, Notice, Record, Step, Write, WriteId};
use crate::part::{LoadedPart, Part, Sender};
use crate::peer::Peer;
use crate::reads::Reads;
use crate::register::RegisterClient;
use crate::seed::Seed;
use crate::timers::{LONE_TICK, STALL_MIN, TICK, Timers};

/// A node's unit as it was found on the disk.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// This node.
    pub me: NodeRef,
    /// How often it started, this time included.
    pub boot: u64,
    /// The hard state.
    pub hard: HardState,
    /// The parts.
    pub parts: BTreeMap<PartName, LoadedPart>,
    /// Seed of the uids of new configurations.
    pub seed: u64,
}

impl Loaded {
    /// A node whose unit has one part, as its log holds it: what is kept beside the entries, the
    /// terms of the entries, and how far they are known to be committed. `None` without a
    /// hard state: the log is not that of a lead part.
    #[must_use]
    pub fn of_lead(
        me: NodeRef,
        durable: Durable,
        history: History,
        commit: LogIndex,
        seed: u64,
    ) -> Option<Self> {
        let hard = durable.hard?;
        let part = LoadedPart {
            storage: durable.storage,
            data: durable.data,
            history,
            commit,
        };
        let parts = BTreeMap::from([(hard.config.lead.clone(), part)]);
        Some(Self {
            me,
            boot: durable.boot,
            hard,
            parts,
            seed,
        })
    }
}

/// What a node does in its unit besides serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Asking the witness and the peer for the newest configuration (`repl section 10`, Restart).
    Probing {
        /// When the node started.
        since: Duration,
    },
    /// In sync alone, and nobody else was heard: not serving unless the operator promotes it.
    AloneUnheard,
    /// Acting by its configuration.
    Running,
}

/// One node's half of a failover unit. Events come in by [`Unit::handle`], steps come out by
/// [`Unit::take_steps`].
#[derive(Debug)]
pub struct Unit {
    pub(crate) me: NodeRef,
    pub(crate) key: RegisterKey,
    pub(crate) boot: u64,
    pub(crate) timers: Timers,
    pub(crate) now: Duration,
    pub(crate) started: Duration,
    pub(crate) seed: Seed,
    pub(crate) hard: HardState,
    /// The newest write of `hard`.
    hard_write: WriteId,
    last_write: WriteId,
    pub(crate) parts: BTreeMap<PartName, Part>,
    pub(crate) phase: Phase,
    /// The lead part's disk failed: this node's role in the unit is over until it starts again.
    pub(crate) failed: bool,
    pub(crate) peer: Peer,
    pub(crate) reads: Reads,
    pub(crate) register: RegisterClient,
    pub(crate) gateway: Gateway,
    pub(crate) swap: Option<Swap>,
    /// A change of the arbiter that the operator asked for.
    pub(crate) moving: Option<Moving>,
    /// A change of policies or parts that the operator asked for.
    pub(crate) asked_form: Option<Form>,
    /// Since when the disk of the lead part owes a write, and its newest.
    pub(crate) lead_owes: Option<(Duration, WriteId)>,
    /// Proposals that were never ordered, of parts not served any more.
    untried: Vec<RequestId>,
    /// The operator wants this node to stop once the other can go on.
    pub(crate) stopping: bool,
    /// Since when a part could be given back (`repl K7`).
    pub(crate) swap_back_since: Option<Duration>,
    /// Number of the last frame sent.
    pub(crate) frame_number: u64,
    /// Number of the last opening, sent or received.
    pub(crate) opening: u64,
    /// Highest number of the peer's openings in this epoch and run.
    pub(crate) peer_opening: u64,
    /// When Hello was sent last.
    pub(crate) hello_sent: Option<Duration>,
    /// When a commit index must travel by itself.
    pub(crate) commit_due: Option<Duration>,
    /// When the hard state was given to the disk last.
    known_at: Duration,
    deadline: Duration,
    steps: Vec<Step>,
}

impl Unit {
    /// The unit of a node that starts now.
    #[must_use]
    pub fn new(loaded: Loaded, timers: Timers, now: Duration) -> Self {
        let parts = loaded.parts.into_iter();
        let mut unit = Self {
            key: loaded.hard.config.key(),
            me: loaded.me,
            boot: loaded.boot,
            timers,
            now,
            started: now,
            seed: Seed::new(loaded.seed),
            hard: loaded.hard,
            hard_write: WriteId(0),
            last_write: WriteId(0),
            parts: parts.map(|(name, part)| (name, Part::new(part))).collect(),
            phase: Phase::Probing { since: now },
            failed: false,
            peer: Peer::new(now),
            reads: Reads::default(),
            register: RegisterClient::new(loaded.boot),
            gateway: Gateway::default(),
            swap: None,
            moving: None,
            asked_form: None,
            lead_owes: None,
            untried: Vec::new(),
            stopping: false,
            swap_back_since: None,
            frame_number: 0,
            opening: 0,
            peer_opening: 0,
            hello_sent: None,
            commit_due: None,
            known_at: now,
            deadline: now + TICK,
            steps: Vec::new(),
        };
        let names: Vec<_> = unit.parts.keys().cloned().collect();
        for part in names {
            unit.recall(&part);
            let through = unit.parts[&part].commit;
            unit.push(Act::Apply { part, through });
        }
        unit.settle();
        unit
    }

    /// What was known to be final when the hard state was written (`repl I4`). A log without it was
    /// set back by itself, on a disk of its own.
    fn recall(&mut self, name: &PartName) {
        let part = &self.parts[name];
        let counts = part.data == DataState::Complete && !self.hard.suspect.contains(name);
        let Some(known) = self.hard.known.get(name).copied().filter(|_| counts) else {
            return;
        };
        if !lacks(part.log.history(), known) {
            self.part(name).known = known.index;
        } else if self.hard.config.has(name, &self.me) {
            self.note_reverted(name);
        }
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Duration, event: Event) {
        if now > self.deadline + STALL_MIN {
            self.peer.trust(now);
        }
        self.now = now;
        match event {
            Event::Propose { request, .. } | Event::Read { request, .. } if self.hard.stopped => {
                self.answer(request, Answer::Unavailable);
            }
            // A stopped node still follows who is connected: it will not be told again.
            Event::Command(_)
            | Event::Written { .. }
            | Event::Link(_)
            | Event::WitnessSession { .. } => self.on_event(event),
            _ if self.hard.stopped => {}
            _ => self.on_event(event),
        }
        self.settle();
        self.deadline = now + if self.is_by_itself() { LONE_TICK } else { TICK };
        if let Some(due) = self.commit_due {
            self.deadline = self.deadline.min(due);
        }
    }

    /// What is to be done, in this order.
    pub fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Somebody at the peer waits for what was committed: the commit index does not wait for the
    /// next frame, but is due now.
    pub fn hasten_commit(&mut self) {
        if self.commit_due.is_some() {
            self.commit_due = Some(self.now);
            self.deadline = self.now;
        }
    }

    /// The configuration this node acts by.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.hard.config
    }

    /// The run of the epoch.
    #[must_use]
    pub fn run(&self) -> u32 {
        self.hard.run
    }

    /// The durable state, as it is or will be.
    #[must_use]
    pub fn hard_state(&self) -> &HardState {
        &self.hard
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Written { part, through } => self.on_written(&part, through),
            Event::LogRead {
                part,
                prev,
                entries,
            } => self.on_log_read(&part, prev, entries),
            Event::LogCut { part, base } => self.on_log_cut(&part, base),
            Event::Frame(frame) => self.on_frame(*frame),
            Event::Link(link) => self.on_link(link),
            Event::WitnessSession { witness, life } => {
                self.register.on_session(witness, life);
                // A witness that started waits for the reports of both nodes (`repl W4`).
                if !self.hard.stopped {
                    self.report();
                }
            }
            Event::Witness(word) => self.on_witness(*word),
            Event::Propose {
                part,
                payload,
                request,
            } => self.on_propose(&part, payload, request),
            Event::Read { part, request } => self.on_read(part, request),
            Event::SnapshotMade { part, position } => self.on_snapshot_made(&part, position),
            Event::SnapshotReceived { part, position } => {
                self.on_snapshot_received(&part, position);
            }
            Event::Quarantined(what) => self.on_quarantined(&what),
            Event::DiskFailed { part } => self.on_disk_failed(&part),
            Event::PartAdded { part, loaded } => {
                self.parts.entry(part).or_insert_with(|| Part::new(*loaded));
            }
            Event::Pinged { number, answered } => self.on_pinged(number, answered),
            Event::Command(command) => self.on_command(command),
        }
    }

    /// Does what time or the event made due. Each step looks at the state only, so that nothing
    /// depends on which event came last.
    fn settle(&mut self) {
        for request in std::mem::take(&mut self.untried) {
            self.refuse(request);
        }
        if self.hard.stopped {
            return;
        }
        self.end_probing();
        self.drive_activation();
        self.drive_swap();
        self.drive_queues();
        self.drive_commits();
        self.drive_senders();
        self.drive_reads();
        self.drive_register();
        self.drive_discards();
        self.drive_heartbeat();
    }

    fn on_link(&mut self, link: Link) {
        match link {
            Link::Up => self.peer.refused = false,
            Link::Refused => self.peer.refused = true,
            Link::Down => {}
        }
        self.peer.link = link;
        self.register.loss_reported = false;
        for part in self.parts.values_mut() {
            part.sender = Sender::Idle;
            part.receiving = None;
        }
        self.hello_sent = None;
        self.peer.beat_sent = None;
        self.reads.on_link();
    }

    /// Q2: stops serving, also over a restart, until a forced promotion says which counts.
    pub(crate) fn on_twin(&mut self, other: ConfigId) {
        if !self.hard.twin {
            self.hard.twin = true;
            self.push(Act::Notice(Notice::Twin(other)));
            self.deactivate();
            if !self.failed {
                self.write_hard();
            }
        }
    }

    /// This node is the primary of its configuration.
    pub(crate) fn is_primary(&self) -> bool {
        self.hard.config.primary == self.me
    }

    /// K2, K6: this node's configuration names it, with the storage it has, in sync for `part`,
    /// and its data can be used.
    pub(crate) fn holds(&self, name: &PartName) -> bool {
        let Some(part) = self.parts.get(name) else {
            return false;
        };
        let replica = self.hard.config.replica(name, &self.me);
        let is_whole = part.data == DataState::Complete && !self.hard.reverted.contains(name);
        replica.is_some_and(|r| r.storage == part.storage) && is_whole
    }

    /// L2, R2: two nodes must have what is committed and confirm what is read: the part is
    /// mirrored, or an ADD to it is in doubt.
    pub(crate) fn is_joint(&self, part: &PartName) -> bool {
        let pending = self.hard.pend_add.as_ref().is_some_and(|pending| {
            if mutated(Mutation::PendLeadOnly) {
                pending.part == *part && *part == self.hard.config.lead
            } else if mutated(Mutation::PendWrongPart) {
                pending.part != *part
            } else {
                pending.part == *part
            }
        });
        pending || self.hard.config.standing(part) == Some(Standing::Mirror)
    }

    /// The replica whose ADD to `part` is in doubt.
    pub(crate) fn pending_add(&self, part: &PartName) -> Option<&Replica> {
        let pending = self.hard.pend_add.as_ref();
        pending.filter(|p| p.part == *part).map(|p| &p.replica)
    }

    /// Names of the parts of the configuration that this node has.
    pub(crate) fn part_names(&self) -> Vec<PartName> {
        let of_config = |name: &&PartName| self.hard.config.in_sync.contains_key(*name);
        self.parts.keys().filter(of_config).cloned().collect()
    }

    /// The part, which the caller found among [`Self::part_names`].
    pub(crate) fn part(&mut self, name: &PartName) -> &mut Part {
        self.parts.get_mut(name).expect("the caller looked it up")
    }

    /// Not a primary any more, or not yet: clients that wait learn what is known.
    pub(crate) fn deactivate(&mut self) {
        let names: Vec<_> = self.parts.keys().cloned().collect();
        for name in names {
            self.deactivate_part(&name);
        }
        self.swap = None;
        for request in self.reads.take_all() {
            self.answer(request, Answer::Unavailable);
        }
    }

    /// One part is not served any more.
    pub(crate) fn deactivate_part(&mut self, name: &PartName) {
        let part = self.parts.get_mut(name).expect("the caller looked it up");
        let was_active = part.active;
        part.forget();
        part.queue_bytes = 0;
        let waiters = std::mem::take(&mut part.waiters);
        let queue = std::mem::take(&mut part.queue);
        if was_active {
            self.push(Act::Serve {
                part: name.clone(),
                active: false,
            });
        }
        for (_, request) in waiters {
            let answer = Answer::Unknown;
            self.push(Act::Answer { request, answer });
        }
        self.untried
            .extend(queue.into_iter().map(|(_, request)| request));
    }

    /// Makes the hard state durable. Every step from here on waits for it.
    pub(crate) fn write_hard(&mut self) {
        self.note_known();
        self.known_at = self.now;
        let mut hard = self.hard.clone();
        if mutated(Mutation::PendVolatile) {
            hard.pend_add = None;
        }
        if mutated(Mutation::PropVolatile) {
            hard.prop = None;
        }
        let record = Record::Hard(Box::new(hard));
        let lead = self.hard.config.lead.clone();
        let id = self.write(&lead, vec![record]);
        self.hard_write = id;
    }

    /// The hard state beside entries of the lead, so that it keeps what is known to be final without
    /// a flush of its own (`repl I4`). Nothing waits for it.
    pub(crate) fn known_beside(&mut self, name: &PartName) -> Option<Record> {
        let due = self.now >= self.known_at + self.timers.witness_heartbeat;
        if !due || *name != self.hard.config.lead {
            return None;
        }
        self.note_known();
        self.known_at = self.now;
        Some(Record::Hard(Box::new(self.hard.clone())))
    }

    /// The lead's disk is done with all writes up to `through`; what it still owes counts from now.
    pub(crate) fn note_lead_written(&mut self, name: &PartName, through: WriteId) {
        if *name == self.hard.config.lead {
            let owed = self.lead_owes.filter(|(_, newest)| *newest > through);
            self.lead_owes = owed.map(|(_, newest)| (self.now, newest));
        }
    }

    /// Gives records to a part's disk.
    pub(crate) fn write(&mut self, part: &PartName, records: Vec<Record>) -> WriteId {
        self.last_write.0 += 1;
        let id = self.last_write;
        // The lead's disk is the one the hard state goes to, in order; the others wait for it.
        let after = if *part == self.hard.config.lead {
            WriteId(0)
        } else {
            self.hard_write
        };
        if *part == self.hard.config.lead {
            let since = self.lead_owes.map_or(self.now, |(since, _)| since);
            self.lead_owes = Some((since, id));
        }
        let part = part.clone();
        let act = Act::Write(Write { part, id, records });
        self.steps.push(Step { after, act });
        id
    }

    pub(crate) fn push(&mut self, act: Act) {
        let after = if mutated(Mutation::CfgVolatile) {
            WriteId(0)
        } else {
            self.hard_write
        };
        self.steps.push(Step { after, act });
    }

    pub(crate) fn answer(&mut self, request: RequestId, answer: Answer) {
        self.push(Act::Answer { request, answer });
    }
}
