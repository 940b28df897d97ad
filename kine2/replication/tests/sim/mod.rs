//! Two units and a witness on a virtual clock, over a network and disks that misbehave.
//!
//! Frames are lost, repeated, delayed and overtake each other; links are cut one way or both;
//! nodes crash and lose what was not synced, freeze, and restart; the witness does, too. After
//! every event the invariants of the protocol are checked from outside ([`truth`]).

#![allow(dead_code, reason = "each test file uses its part")]

mod ambush;
mod check;
mod clients;
pub mod disk;
mod due;
mod faults;
mod force;
mod gateway;
mod log_reads;
mod plan;
pub mod truth;
mod witness;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use kine2_mutation::{Mutation, mutated};
use kine2_replication::{
    Act, Arbiter, ClusterId, Config, Event, Frame, HardState, Incarnation, Link, Loaded, LogIndex,
    NodeRef, Notice, Origin, PartName, Policies, Position, Record, RegisterKey, RequestId, Step,
    Timers, Unit, WitnessId,
};
use kine2_sim_kit::{Links, Rng, WitnessHost};
use kine2_witness_core::{Event as WitnessEvent, Register};

use ambush::Ambush;
use disk::{Disk, Image};
use due::Due;
pub use gateway::gateway;
pub use plan::Plan;
use truth::Truth;

const CLUSTER: ClusterId = ClusterId(1);

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A client's request.
#[derive(Clone, Debug)]
enum Request {
    Write(PartName, Bytes),
    /// What it must hold, of the history that counts for this origin.
    Read(PartName, LogIndex, Origin),
}

struct Node {
    me: NodeRef,
    disks: BTreeMap<PartName, Disk>,
    /// Nothing while it is down.
    unit: Option<Unit>,
    boot: u64,
    /// Each with the origin of the configuration that it was made in.
    steps: VecDeque<(Origin, Step)>,
    /// What was put away, durably.
    quarantine: BTreeMap<PartName, Vec<Position>>,
    /// Applied, in memory.
    applied: BTreeMap<PartName, LogIndex>,
    /// Snapshots it is receiving.
    receiving: BTreeMap<PartName, Position>,
    frozen_until: Duration,
    /// Disks that failed since the start: nothing becomes durable there.
    failed: BTreeSet<PartName>,
    lead_durable: u64,
    requests: BTreeMap<RequestId, Request>,
    /// An image of its disks to go back to, with the starts it counts; in transcripts only.
    image: Option<(BTreeMap<PartName, Disk>, u64)>,
}

pub struct Sim {
    pub rng: Rng,
    pub now: Duration,
    plan: Plan,
    nodes: Vec<Node>,
    witnesses: Vec<WitnessHost>,
    queue: BTreeMap<(Duration, u64), Due>,
    serial: u64,
    /// 2 is the witness.
    links: Links,
    pub truth: Truth,
    next_request: u64,
    wipes: u128,
    healing: bool,
    trace: bool,
    last_config: Option<Config>,
    /// What an operator would see, in a calm run.
    pub log: Vec<(Duration, String)>,
    /// Unit and parts of each node, as last logged.
    seen: [String; 2],
    backup: BTreeMap<RegisterKey, Register>,
    /// Disks that are slow.
    pub slow: BTreeSet<(usize, PartName)>,
    pub parts: Vec<PartName>,
    /// Forced promotions that the operator may still make.
    forces_left: u64,
    /// The part that was forced last at each node; nothing for the lead.
    forced_part: [Option<PartName>; 2],
    /// By what each node acts, and by what the first node that acted by an origin did before.
    acts_by: [Option<Config>; 2],
    made_from: BTreeMap<Origin, Config>,
    places: force::Places,
    origins: BTreeSet<Origin>,
    /// When the gateway was last asked by each node.
    gateway_saw: [Duration; 2],
    /// When the operator looks again.
    decides_next: Duration,
    /// A disk was lost for good.
    given_up: bool,
    /// What snapshots were made of.
    snapshots: BTreeMap<(PartName, LogIndex, kine2_replication::Term), Vec<Position>>,
    /// What is waited for.
    ambush: Option<Ambush>,
    /// No random faults until then: an ambush goes its way.
    quiet_until: Duration,
    /// A witness that is about to go backwards, and the primary that is cut off.
    rolling: Option<(Ambush, usize)>,
}

pub fn store() -> PartName {
    "store".into()
}

pub fn files() -> PartName {
    "files".into()
}

pub fn key() -> RegisterKey {
    RegisterKey {
        cluster: CLUSTER,
        unit: "main".into(),
    }
}

pub fn arbiter(id: u128) -> Arbiter {
    Arbiter::Witness {
        id: WitnessId(id),
        address: format!("w{id}"),
    }
}

/// Timers of a simulation: as they are, but for the long pauses; none at all in a hasty one.
fn timers(hasty: bool) -> Timers {
    let pause = |millis| ms(if hasty { 0 } else { millis });
    Timers {
        readd_backoff_min: pause(500),
        readd_backoff_max: pause(2000),
        readd_backoff_memory: ms(5000),
        swap_back_delay: pause(500),
        failback_delay: ms(1000),
        ..Timers::default()
    }
}

impl Sim {
    /// Node a alone in both parts, node b joined and empty.
    pub fn new(plan: Plan) -> Self {
        let parts = vec![store(), files()];
        let me = |n: usize| NodeRef::new(["a", "b"][n], n as u128 + 1);
        let storage = |n: usize, k: usize| Incarnation(100 + 10 * n as u128 + k as u128);
        let first = Config::first(
            key(),
            1,
            me(0),
            store(),
            parts
                .iter()
                .enumerate()
                .map(|(k, p)| (p.clone(), storage(0, k))),
            plan.arbiter.clone(),
            Policies {
                preferred: plan.preferred.clone(),
                ping_auto_discard: plan.auto_discard,
                ..Policies::default()
            },
        )
        .unwrap();
        let nodes = (0..2)
            .map(|n| Node {
                me: me(n),
                disks: parts
                    .iter()
                    .enumerate()
                    .map(|(k, part)| {
                        let hard = (k == 0).then(|| HardState::adopting(first.clone()));
                        (part.clone(), Disk::new(Image::empty(storage(n, k), hard)))
                    })
                    .collect(),
                unit: None,
                boot: 0,
                steps: VecDeque::new(),
                quarantine: BTreeMap::new(),
                applied: BTreeMap::new(),
                receiving: BTreeMap::new(),
                frozen_until: Duration::ZERO,
                failed: BTreeSet::new(),
                lead_durable: 0,
                requests: BTreeMap::new(),
                image: None,
            })
            .collect();
        let at_witness = matches!(plan.arbiter, Arbiter::Witness { .. });
        let mut sim = Self {
            rng: Rng::new(plan.seed),
            now: ms(100_000),
            nodes,
            witnesses: vec![
                WitnessHost::new(1, at_witness.then_some(&first)),
                WitnessHost::new(2, None),
            ],
            queue: BTreeMap::new(),
            serial: 0,
            links: Links::default(),
            truth: Truth::default(),
            next_request: 0,
            wipes: 0,
            healing: false,
            trace: std::env::var_os("TRACE").is_some(),
            last_config: None,
            log: Vec::new(),
            seen: Default::default(),
            backup: BTreeMap::new(),
            slow: BTreeSet::new(),
            parts,
            forces_left: plan.forces,
            forced_part: [None, None],
            acts_by: [None, None],
            made_from: BTreeMap::new(),
            places: [None, None, None, None],
            origins: BTreeSet::new(),
            gateway_saw: [Duration::ZERO; 2],
            decides_next: Duration::ZERO,
            given_up: false,
            snapshots: BTreeMap::new(),
            ambush: None,
            quiet_until: Duration::ZERO,
            rolling: None,
            plan,
        };
        for w in 0..2 {
            sim.start_witness(w);
        }
        for n in 0..2 {
            sim.start(n);
        }
        sim
    }

    /// Faults and clients, then peace; then all parts must be served again (REC1 to REC3).
    pub fn run(&mut self) {
        let end = self.now + self.plan.chaos;
        self.push(ms(10), Due::Client);
        let first = self.plan.fault_every + ms(3000);
        self.push(first, Due::Fault);
        // An ambush goes its way.
        while self.now < end || self.now < self.quiet_until {
            self.step();
        }
        self.heal();
        self.recover();
    }

    /// Takes the next event.
    pub fn step(&mut self) {
        let at = self.next_at();
        self.now = self.now.max(at);
        if let Some(w) = (0..2).find(|w| self.witness_due(*w) == at) {
            self.tell_witness(w, WitnessEvent::Tick);
        } else if let Some(n) = (0..2).find(|n| self.node_due(*n) == at) {
            self.tell(n, Event::Tick);
        } else {
            let (_, due) = self.queue.pop_first().unwrap();
            self.happen(due);
        }
        self.check();
    }

    /// When the next event is.
    fn next_at(&self) -> Duration {
        let queued = self
            .queue
            .keys()
            .next()
            .map_or(Duration::MAX, |(at, _)| *at);
        let hosts = (0..2).map(|n| self.node_due(n).min(self.witness_due(n)));
        hosts.fold(queued, Duration::min)
    }

    fn node_due(&self, n: usize) -> Duration {
        let node = &self.nodes[n];
        let due = node
            .unit
            .as_ref()
            .map(|unit| unit.deadline().max(node.frozen_until));
        due.unwrap_or(Duration::MAX)
    }

    fn witness_due(&self, w: usize) -> Duration {
        self.witnesses[w].deadline()
    }

    /// Takes all events up to then.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_at() <= end {
            self.step();
        }
        self.now = end;
    }

    fn push(&mut self, after: Duration, due: Due) {
        self.serial += 1;
        self.queue.insert((self.now + after, self.serial), due);
    }

    fn delay(&mut self) -> Duration {
        if self.plan.calm {
            return ms(1);
        }
        // Mostly short, sometimes long.
        let max = if self.healing || self.rng.percent(90) {
            self.plan.delay_max / 20
        } else {
            self.plan.delay_max
        };
        let micros = u64::try_from(max.as_micros()).unwrap();
        Duration::from_micros(50 + self.rng.below(micros + 1))
    }

    fn call_delay(&mut self) -> Duration {
        if self.plan.calm {
            return self.plan.witness;
        }
        self.delay()
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links.is_cut(from, to)
    }

    fn happen(&mut self, due: Due) {
        // A frozen node takes nothing in; it waits in its sockets.
        if let Some(n) = due.node()
            && self.nodes[n].frozen_until > self.now
        {
            let wait = self.nodes[n].frozen_until - self.now;
            return self.push(wait, due);
        }
        match due {
            Due::Frame(n, frame) => {
                if !self.is_cut(1 - n, n) {
                    self.tell(n, Event::Frame(frame));
                }
            }
            Due::Link(n, link) => {
                // The end of old streams is not told after new ones are up.
                if link == Link::Up || self.nodes[1 - n].unit.is_none() {
                    self.tell(n, Event::Link(link));
                }
            }
            Due::Synced(n, part) => self.on_synced(n, &part),
            Due::LogRead(n, boot, part, from, through, bytes_max) => {
                self.on_log_read(n, boot, part, from, through, bytes_max);
            }
            Due::SnapshotMade(n, boot, part) => {
                let node = &self.nodes[n];
                if node.boot == boot && node.unit.is_some() {
                    let live = &node.disks[&part].live;
                    let applied = match mutated(Mutation::SnapshotUncommitted) {
                        true => live.last().index,
                        false => node.applied[&part],
                    };
                    if let Some(position) = live.position(applied) {
                        let name = (part.clone(), position.index, position.term);
                        self.snapshots.insert(name, live.first(position.index));
                        self.tell(n, Event::SnapshotMade { part, position });
                    }
                }
            }
            Due::SnapshotData(n, part, position) => {
                let node = &self.nodes[n];
                if node.unit.is_some() && node.receiving.get(&part) == Some(&position) {
                    let (boot, after) = (node.boot, self.delay());
                    self.push(after, Due::SnapshotReceived(n, boot, part, position));
                }
            }
            Due::SnapshotReceived(n, boot, part, position) => {
                let node = &mut self.nodes[n];
                if node.boot == boot && node.receiving.get(&part) == Some(&position) {
                    node.receiving.remove(&part);
                    self.tell(n, Event::SnapshotReceived { part, position });
                }
            }
            Due::Quarantined(n, boot, what) => {
                if self.nodes[n].boot == boot && self.nodes[n].unit.is_some() {
                    self.on_put_away(n, &what);
                    self.tell(n, Event::Quarantined(*what));
                }
            }
            Due::Pinged(n, boot, number, answered) => {
                if self.nodes[n].boot == boot {
                    self.tell(n, Event::Pinged { number, answered });
                }
            }
            Due::Call(w, call) => self.on_call(w, *call),
            Due::Word(n, word) => {
                if !self.is_cut(2, n) {
                    self.tell(n, Event::Witness(word));
                }
            }
            Due::Opened(n, witness, life) => self.on_opened(n, witness, life),
            Due::Session(n, open) => self.on_session(n, open),
            Due::WitnessSynced(w) => self.on_witness_synced(w),
            Due::Restart(n) => self.start(n),
            Due::Replace(n) => {
                self.crash(n);
                self.start(n);
            }
            Due::RestartWitness(w) => self.start_witness(w),
            Due::Client => self.client(),
            Due::LateRead(n, part) => self.read(n, part),
            Due::Fast(n, part) => self.make_fast(n, part),
            Due::Fault => self.fault(),
            Due::CutOff(n) => self.cut_off(n),
            Due::AmbushOver => self.end_ambush(),
            Due::CrashApart(n) => self.crash_apart(n),
            Due::Meet => self.meet(),
            Due::Healed => self.end_quiet(),
        }
    }

    // Nodes.

    /// An image is made of the node's disks.
    pub fn keep_node(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.image = Some((node.disks.clone(), node.boot));
    }

    /// The node is down, and its disks are as they were when the image was made.
    pub fn set_back(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        assert!(node.unit.is_none(), "it is down");
        (node.disks, node.boot) = node.image.clone().expect("an image was made");
        for disk in node.disks.values_mut() {
            disk.crash(0);
        }
    }

    pub fn start(&mut self, n: usize) {
        if self.nodes[n].unit.is_some() {
            return;
        }
        let seed = self.rng.draw();
        let node = &mut self.nodes[n];
        node.boot += 1;
        node.lead_durable = 0;
        node.failed.clear();
        node.steps.clear();
        node.receiving.clear();
        node.applied = node
            .disks
            .iter()
            .map(|(part, disk)| (part.clone(), disk.durable.base.index))
            .collect();
        let loaded = Loaded {
            me: node.me.clone(),
            boot: node.boot,
            hard: node.disks[&store()].durable.hard.clone().unwrap(),
            parts: node
                .disks
                .iter()
                .map(|(part, disk)| (part.clone(), disk.durable.loaded()))
                .collect(),
            seed,
        };
        if self.trace {
            println!(
                "{:?} start {} {:?}",
                self.now, node.me, loaded.hard.config.epoch
            );
        }
        // What was adopted and not durable is gone.
        self.acts_by[n] = Some(loaded.hard.config.clone());
        node.unit = Some(Unit::new(loaded, timers(self.plan.hasty), self.now));
        self.drain(n);
        if self.nodes[1 - n].unit.is_some() {
            for m in 0..2 {
                let after = self.delay();
                self.push(after, Due::Link(m, Link::Up));
            }
        }
        let after = self.delay();
        self.push(after, Due::Session(n, true));
    }

    pub fn crash(&mut self, n: usize) {
        let killed = self.rng.percent(50);
        self.crash_as(n, killed);
    }

    /// Killed processes close their sockets; lost hosts are silent.
    pub fn crash_as(&mut self, n: usize, killed: bool) {
        if self.nodes[n].unit.take().is_none() {
            return;
        }
        self.truth.counts.crashes += 1;
        if self.trace {
            println!("{:?} crash {}", self.now, self.nodes[n].me);
        }
        let parts = self.parts.clone();
        for part in &parts {
            let under_way = self.nodes[n].disks[part].under_way() as u64;
            let kept = match self.plan.calm {
                true => 0,
                false => usize::try_from(self.rng.below(under_way + 1)).unwrap(),
            };
            self.nodes[n].disks.get_mut(part).unwrap().crash(kept);
        }
        let node = &mut self.nodes[n];
        node.steps.clear();
        node.requests.clear();
        node.receiving.clear();
        node.frozen_until = Duration::ZERO;
        if killed {
            let after = self.delay();
            self.push(after, Due::Link(1 - n, Link::Down));
            self.push(after + ms(5), Due::Link(1 - n, Link::Refused));
            self.push(after, Due::Session(n, false));
        } else {
            self.push(ms(9000), Due::Session(n, false));
        }
    }

    fn tell(&mut self, n: usize, event: Event) {
        let node = &mut self.nodes[n];
        let Some(unit) = &mut node.unit else { return };
        if let Event::Link(link) = event
            && link == Link::Up
        {
            node.receiving.clear();
        }
        if self.trace && !matches!(event, Event::Tick | Event::Written { .. }) {
            println!("{:?} {} <- {event:?}", self.now, node.me);
        }
        let before = commits(unit);
        unit.handle(self.now, event);
        // P1, P7: what an active part's commit says, whoever hears of it.
        let status = unit.status();
        let config = unit.config().clone();
        let acts_by = self.acts_by[n].replace(config.clone());
        self.check_gone_alone(n, acts_by.as_ref(), &config);
        let node = &self.nodes[n];
        if let Some(before) = acts_by.filter(|before| before.origin != config.origin) {
            self.made_from.entry(config.origin).or_insert(before);
        }
        for (part, now) in &status.parts {
            if now.active {
                assert_eq!(config.primary, node.me, "P7: active and not the primary");
                assert!(config.has(part, &node.me), "P7: active and not in sync");
                if now.commit > before.get(part).copied().unwrap_or_default() {
                    self.truth.commits(&node.me.name, part, config.id());
                    if status.joint.as_ref() == Some(part) {
                        self.truth.counts.joint_commits += 1;
                    }
                }
            }
        }
        self.drain(n);
    }

    /// Does the steps that wait for nothing any more.
    fn drain(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if let Some(unit) = &mut node.unit {
            let origin = unit.origin();
            let steps = unit.take_steps().into_iter();
            node.steps.extend(steps.map(|step| (origin, step)));
        }
        while let Some((_, step)) = self.nodes[n].steps.front() {
            if step.after.0 > self.nodes[n].lead_durable {
                return;
            }
            let (origin, step) = self.nodes[n].steps.pop_front().unwrap();
            self.act(n, origin, step.act);
        }
    }

    fn act(&mut self, n: usize, origin: Origin, act: Act) {
        match act {
            Act::Write(write) => {
                let part = write.part.clone();
                for record in &write.records {
                    match record {
                        Record::Truncate(to) => {
                            let node = &self.nodes[n];
                            let applied = node.applied[&part];
                            self.truth.truncate(&node.me.name, &part, to.index, applied);
                        }
                        Record::Entries(entries) => {
                            self.truth.log(&part, entries);
                        }
                        // What was shown here counts no more.
                        Record::Storage(_) => {
                            self.truth.counts.rejoins += 1;
                            self.nodes[n].applied.insert(part.clone(), LogIndex(0));
                        }
                        Record::Reset(position) => {
                            self.truth.counts.snapshots += 1;
                            let applied = self.nodes[n].applied.get_mut(&part).unwrap();
                            assert!(*applied <= position.index, "P4: a snapshot takes back");
                            *applied = position.index;
                        }
                        _ => {}
                    }
                }
                self.nodes[n].disks.get_mut(&part).unwrap().write(write);
                let slow = self.slow.contains(&(n, part.clone()));
                let after = if slow { ms(60_000) } else { self.delay() };
                self.push(after, Due::Synced(n, part));
            }
            Act::Send(frame) => self.send(n, *frame),
            Act::Call(call) => {
                let w = usize::from(call.witness != self.witnesses[0].id);
                if !self.is_cut(n, 2) && !self.lost() {
                    let after = self.call_delay();
                    self.push(after, Due::Call(w, call));
                }
            }
            Act::Apply { part, through } => self.apply(n, origin, &part, through),
            Act::Answer { request, answer } => self.on_answer(n, origin, request, answer),
            Act::ReadLog {
                part,
                from,
                through,
                bytes_max,
            } => {
                let (boot, after) = (self.nodes[n].boot, self.delay());
                self.push(after, Due::LogRead(n, boot, part, from, through, bytes_max));
            }
            Act::MakeSnapshot { part } => {
                let (boot, after) = (self.nodes[n].boot, self.delay());
                self.push(after, Due::SnapshotMade(n, boot, part));
            }
            Act::SendSnapshot { part, position } => {
                let after = self.delay() * 2;
                if !self.is_cut(n, 1 - n) && self.nodes[1 - n].unit.is_some() {
                    self.push(after, Due::SnapshotData(1 - n, part, position));
                }
            }
            Act::ReceiveSnapshot { part, position, .. } => {
                let name = (part.clone(), position.index, position.term);
                if let Some(made_of) = self.snapshots.get(&name) {
                    let disk = self.nodes[n].disks.get_mut(&part).unwrap();
                    disk.receive(made_of);
                }
                self.nodes[n].receiving.insert(part, position);
            }
            Act::Serve { .. } => {}
            Act::Quarantine(what) => self.put_away(n, what),
            Act::Ping { number } => self.ping(n, number),
            Act::Notice(notice) => {
                if self.trace {
                    println!("{:?} {} notice {notice:?}", self.now, self.nodes[n].me);
                }
                if self.plan.calm {
                    if matches!(notice, Notice::Adopted(_)) {
                        return;
                    }
                    self.note(format!("{}: {notice:?}", self.nodes[n].me));
                    return;
                }
                assert!(
                    !(self.pings() && matches!(notice, Notice::Twin(_))),
                    "both went alone in one generation"
                );
                assert!(
                    !self.origins.is_empty()
                        || !matches!(notice, Notice::Diverged(_) | Notice::Twin(_)),
                    "{notice:?} without force at {}",
                    self.nodes[n].me
                );
                assert!(
                    !matches!(notice, Notice::Reverted(_)),
                    "{notice:?} at {}, and no disk forgets",
                    self.nodes[n].me
                );
            }
        }
    }

    fn lost(&mut self) -> bool {
        !self.healing && self.rng.percent(self.plan.loss)
    }

    fn send(&mut self, n: usize, frame: Frame) {
        let to = 1 - n;
        if self.is_cut(n, to) || self.lost() {
            return;
        }
        if self.trace {
            println!("{:?} {} -> {:?}", self.now, self.nodes[n].me, frame.body);
        }
        let after = self.delay();
        if !self.healing && self.rng.percent(self.plan.repeats) {
            let later = self.delay() * 3;
            self.push(later, Due::Frame(to, Box::new(frame.clone())));
        }
        self.push(after, Due::Frame(to, Box::new(frame)));
    }

    fn apply(&mut self, n: usize, origin: Origin, part: &PartName, through: LogIndex) {
        let node = &mut self.nodes[n];
        let unit = node.unit.as_ref().expect("it acts");
        // What a restart finds of a side that was overruled is shown to nobody.
        let overruled = unit.hard_state().suspect.contains(part) && unit.origin() == origin;
        let applied = node.applied.get_mut(part).unwrap();
        while *applied < through {
            *applied = applied.next();
            let live = &node.disks[part].live;
            let position = live
                .position(*applied)
                .expect("only what is there is applied");
            if !overruled {
                let name = &node.me.name;
                self.truth.expose(name, part, position, origin, live);
            }
        }
    }

    fn on_synced(&mut self, n: usize, part: &PartName) {
        let node = &mut self.nodes[n];
        if node.failed.contains(part) {
            return;
        }
        let disk = node.disks.get_mut(part).unwrap();
        let overwritten = disk.durable.overwritten;
        // One flush covers what waits.
        let count = match self.plan.calm {
            true => usize::MAX,
            false => 1 + self.rng.pick(4),
        };
        let Some(through) = disk.sync(count) else {
            return;
        };
        let overwrites = disk.durable.overwritten > overwritten;
        if *part == store() {
            node.lead_durable = through.0;
        }
        let part = part.clone();
        if overwrites && !self.origins.is_empty() {
            self.check_kept();
        }
        self.tell(n, Event::Written { part, through });
        self.checkpoint(n);
    }

    /// Now and then the state is checkpointed, and the log before it given up.
    fn checkpoint(&mut self, n: usize) {
        if !self.plan.calm && self.rng.percent(95) {
            return;
        }
        for part in self.parts.clone() {
            let node = &mut self.nodes[n];
            let disk = node.disks.get_mut(&part).unwrap();
            let Some(unit) = &node.unit else { return };
            if !disk.is_idle() {
                continue;
            }
            let applied = node.applied[&part];
            let keep = unit.keep_from(&part).unwrap();
            let cut = applied.0.min(keep.0 - 1);
            let base = disk
                .durable
                .position(LogIndex(cut))
                .filter(|base| self.plan.cuts && base.index > disk.durable.base.index);
            disk.checkpoint(applied, base);
            if let Some(base) = base {
                self.tell(n, Event::LogCut { part, base });
            }
        }
    }
}

fn commits(unit: &Unit) -> BTreeMap<PartName, LogIndex> {
    let parts = unit.status().parts.into_iter();
    parts.map(|(part, status)| (part, status.commit)).collect()
}
