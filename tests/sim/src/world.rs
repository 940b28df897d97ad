//! Two machines, witnesses, clients and what is between them, on one clock.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use kine2_replication::{
    ClusterId, Config, Epoch, Event, HardState, Incarnation, LogIndex, NodeRef, Origin, PartName,
    Policies, Reason, RegisterKey, Replica, Standing, State,
};
use kine2_sim_kit::{PartTruth, Rng, WitnessHost, in_force};

use crate::clients::Clients;
use crate::coverage::Coverage;
use crate::due::Due;
use crate::episodes::Images;
use crate::history::LeaseId;
use crate::machine::Machine;
use crate::network::Network;
use crate::plan::{Plan, ms};
use crate::story::Story;
use crate::truth;
use crate::watches::Watches;

/// The cluster.
pub const CLUSTER: ClusterId = ClusterId(1);
/// The clock at the start: not zero, so that nothing takes zero for never.
const START: Duration = Duration::from_secs(100);

/// Events at one moment after which something turns in circles.
const EVENTS_NOW_MAX: u64 = 20_000;

/// The one part of the unit.
#[must_use]
pub fn store() -> PartName {
    "store".into()
}

/// The unit's register.
#[must_use]
pub fn key() -> RegisterKey {
    RegisterKey {
        cluster: CLUSTER,
        unit: "main".into(),
    }
}

/// A simulation.
#[derive(Debug)]
pub struct World {
    /// What goes wrong.
    pub plan: Plan,
    /// Chance.
    pub rng: Rng,
    /// The time.
    pub now: Duration,
    /// The two machines.
    pub machines: [Machine; 2],
    /// Two witnesses; the second is there to be moved to.
    pub witnesses: [WitnessHost; 2],
    /// What is between them.
    pub network: Network,
    /// Who asks.
    pub clients: Clients,
    /// Who watches.
    pub watches: Watches,
    /// What must hold.
    pub truth: PartTruth,
    /// What was reached.
    pub coverage: Coverage,
    /// What happened.
    pub story: Story,
    /// Events taken.
    pub events: u64,
    /// Events since the time moved on.
    events_now: u64,
    pub(crate) queue: BTreeMap<(Duration, u64), Due>,
    pub(crate) serial: u64,
    pub(crate) wipes: u128,
    /// No faults by chance for now: an episode goes its way.
    pub(crate) quiet: bool,
    /// Of machines whose disk went back, where their log ended: what they acknowledged up to there
    /// may be exposed yet. Until they have as much again, and all that was exposed.
    pub(crate) behind: [Option<LogIndex>; 2],
    /// What each witness was told to be final since its start, and under which forced promotion.
    pub(crate) told_final: [Option<(Origin, LogIndex)>; 2],
    /// Some machine was set back to an old image, or may have lost what it acknowledged.
    pub(crate) was_set_back: bool,
    /// What to go back to, and since when it is that old.
    pub(crate) images: Images,
    /// A loss was accepted, and the configuration that says so is on its way.
    pub(crate) forcing: bool,
    /// One was in force.
    pub(crate) was_forced: bool,
    /// The name of the store, made once.
    pub(crate) part: PartName,
    /// Of each node that began to order writes: where its log ended, when that was, and the leases
    /// it had, until it has applied that log.
    pub(crate) activated: [Option<(LogIndex, Duration, Vec<LeaseId>)>; 2],
    in_force: Option<(Epoch, u64)>,
    /// Of each node, its state when it was told last; none while it is down.
    seen: [Option<Option<State>>; 2],
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it reached.
    pub coverage: Coverage,
    /// Time that passed in it.
    pub simulated: Duration,
    /// Events in it.
    pub events: u64,
    /// Requests of clients that were answered.
    pub answered: u64,
    /// A number that is the same whenever the seed is.
    pub trace: u64,
}

impl World {
    /// Node a alone, node b joined and empty.
    ///
    /// # Panics
    /// When the first configuration is none.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let me = |n: usize| NodeRef::new(["a", "b"][n], n as u128 + 1);
        let storage = |n: usize| Incarnation(100 + n as u128);
        let first = Config::first(
            key(),
            1,
            me(0),
            store(),
            [(store(), storage(0))],
            plan.arbiter.clone(),
            Policies::default(),
        )
        .expect("one node with one part");
        let hard = HardState::adopting(first.clone());
        let mut world = Self {
            rng: Rng::new(plan.seed),
            now: START,
            machines: [0, 1].map(|n| Machine::new(me(n), storage(n), hard.clone())),
            witnesses: [WitnessHost::new(1, Some(&first)), WitnessHost::new(2, None)],
            network: Network::default(),
            clients: Clients::default(),
            watches: Watches::default(),
            truth: PartTruth::default(),
            coverage: Coverage::default(),
            story: Story::default(),
            events: 0,
            events_now: 0,
            queue: BTreeMap::new(),
            serial: 0,
            wipes: 0,
            quiet: false,
            behind: [None; 2],
            told_final: [None; 2],
            was_set_back: false,
            images: Images::default(),
            forcing: false,
            was_forced: false,
            part: store(),
            activated: [None, None],
            in_force: None,
            seen: Default::default(),
            plan,
        };
        world.clients.alarms.nodes_raise = world.plan.quota_bytes > 0;
        world.story.aloud = std::env::var_os("TRACE").is_some();
        for w in 0..2 {
            world.start_witness(w);
        }
        for n in 0..2 {
            // Clocks of machines have nothing to do with each other.
            world.machines[n].skew = Duration::from_secs(1000 * (n as u64 + 1));
            world.start(n);
        }
        for _ in 0..world.plan.clients {
            world.add_client();
        }
        if world.plan.clients > 0 {
            world.add_watches(2);
        }
        world
    }

    /// Both nodes in sync from the start, for a unit in which nobody may add one.
    ///
    /// # Panics
    /// When the configuration is none.
    pub fn set_up_mirror(&mut self) {
        let mut config = self.config().clone();
        let b = &self.machines[1];
        let storage = b.on_disk.own.storage;
        let node = b.me.clone();
        config.members.insert(node.clone());
        let set = config.in_sync.get_mut(&self.part).expect("the one part");
        set.insert(Replica { node, storage });
        config.check_shape().expect("a mirror");
        let hard = HardState::adopting(config);
        for n in 0..2 {
            let old = &self.machines[n];
            let (me, storage) = (old.me.clone(), old.on_disk.own.storage);
            let (skew, life) = (old.skew, old.life);
            self.machines[n] = Machine::new(me, storage, hard.clone());
            self.machines[n].skew = skew;
            self.machines[n].life = life;
            self.start(n);
        }
        self.truth = PartTruth::default();
    }

    /// Runs a seed: faults and clients, then peace, in which all must come back; then what the
    /// clients saw is judged.
    ///
    /// # Errors
    /// What failed, and the story that led there.
    pub fn run(plan: Plan) -> Result<Outcome, String> {
        let mut world = Self::new(plan);
        let played = catch_unwind(AssertUnwindSafe(|| world.play()));
        match played {
            Ok(()) => Ok(world.outcome()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text
                    .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                    .unwrap_or_default();
                Err(format!("{}\n{}\n{}", world.story, world.describe(), text))
            }
        }
    }

    fn play(&mut self) {
        let end = self.now + self.plan.chaos;
        if self.plan.witness_delay > ms(20) {
            self.coverage.mark("witness: far away");
        }
        if !self.plan.fault_every.is_zero() {
            self.push(self.plan.fault_every + ms(2500), Due::Fault);
        }
        for (when, episode) in self.plan.episodes.clone() {
            self.push(when, Due::Episode(episode));
        }
        self.keep_images();
        while self.now < end {
            self.step();
        }
        self.heal();
        self.recover();
        self.judge();
    }

    fn outcome(&self) -> Outcome {
        let mut trace = self.events;
        for (at, line) in self.story.lines() {
            let micros = u64::try_from(at.as_micros()).unwrap_or_default();
            trace = trace.rotate_left(5) ^ micros;
            for byte in line.bytes() {
                trace = trace.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
            }
        }
        Outcome {
            coverage: self.coverage.clone(),
            simulated: self.now - START,
            events: self.events,
            answered: self.clients.answered,
            trace,
        }
    }

    /// Takes the next event; the invariants hold after it.
    ///
    /// # Panics
    /// When one does not.
    pub fn step(&mut self) {
        let at = self.next_at();
        if at > self.now {
            self.now = at;
            self.events_now = 0;
        }
        self.events += 1;
        self.events_now += 1;
        assert!(
            self.events_now < EVENTS_NOW_MAX,
            "time stands still: the nodes do not come to rest"
        );
        if let Some(w) = (0..2).find(|w| self.witnesses[*w].deadline() == at) {
            self.tick_witness(w);
        } else if let Some(n) = (0..2).find(|n| self.machines[*n].deadline() == at) {
            self.turn(n, None);
        } else {
            let next = self.queue.pop_first();
            let ((_, serial), due) = next.expect("the next event is queued");
            match due.machine().map(|n| self.machines[n].frozen_until) {
                // A frozen node takes nothing in; it waits in its sockets, in its order.
                Some(thaw) if thaw > self.now => drop(self.queue.insert((thaw, serial), due)),
                _ => self.happen(due),
            }
        }
        self.check();
    }

    /// When the next event is.
    fn next_at(&self) -> Duration {
        let queued = self.queue.first_key_value();
        let queued = queued.map_or(Duration::MAX, |((at, _), _)| *at);
        let machines = self.machines.iter().map(Machine::deadline);
        let witnesses = self.witnesses.iter().map(WitnessHost::deadline);
        machines.chain(witnesses).fold(queued, Duration::min)
    }

    /// Takes all events up to then.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_at() <= end {
            self.step();
        }
        self.now = end;
    }

    /// Takes events until something is so.
    ///
    /// # Panics
    /// When it is not so in time.
    pub fn run_until(
        &mut self,
        most: Duration,
        what: &str,
        mut done: impl FnMut(&mut Self) -> bool,
    ) {
        let end = self.now + most;
        while !done(self) {
            assert!(self.now < end, "{what}: not within {most:?}");
            self.step();
        }
    }

    pub(crate) fn push(&mut self, after: Duration, due: Due) {
        self.serial += 1;
        self.queue.insert((self.now + after, self.serial), due);
    }

    pub(crate) fn tell_story(&mut self, line: String) {
        self.story.tell(self.now, line);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Frame(n, frame) => self.on_frame(n, frame),
            Due::Link(n, link) => self.on_link(n, link),
            Due::Flush(n) => self.on_flush(n),
            Due::LogRead(n, life, read) => self.on_log_read(n, life, &read),
            Due::Quarantined(n, life, what) => {
                if self.machines[n].life == life && self.machines[n].process.is_some() {
                    self.turn(
                        n,
                        Some(kine2_node::Event::Replica(Event::Quarantined(*what))),
                    );
                }
            }
            Due::Pinged(n, life, number, answered) => {
                if self.machines[n].life == life && self.machines[n].process.is_some() {
                    let event = Event::Pinged { number, answered };
                    self.turn(n, Some(kine2_node::Event::Replica(event)));
                }
            }
            Due::SnapshotMade(n, life) => self.on_snapshot_made(n, life),
            Due::SnapshotData(n, position, bytes) => self.on_snapshot_data(n, position, bytes),
            Due::SnapshotReceived(n, life, position, bytes) => {
                self.on_snapshot_received(n, life, position, &bytes);
            }
            Due::Engine(n, life) => self.on_engine(n, life),
            Due::Cut(n, life, keep) => self.on_cut(n, life, keep),
            Due::Call(w, call) => self.on_call(w, *call),
            Due::Word(n, word) => self.on_word(n, word),
            Due::SessionWanted(n) => self.on_session_wanted(n),
            Due::SessionLost(n, life) => self.on_session_lost(n, life),
            Due::Opened(n, process, witness, life) => {
                self.on_session_opened(n, process, witness, life);
            }
            Due::WitnessFlush(w) => self.on_witness_flush(w),
            Due::Start(n) => self.start(n),
            Due::Restart(n) => {
                self.kill(n);
                self.start(n);
            }
            Due::StartWitness(w) => self.start_witness(w),
            Due::Fast(n) => self.make_fast(n),
            Due::Wiped(n) => self.on_wiped(n),
            Due::Mend(n) => self.on_mend(n),
            Due::NetFast => self.network.slow = Duration::ZERO,
            Due::Client(c) => self.on_client_free(c),
            Due::Request(n, caller, ask) => self.on_request(n, caller, ask),
            Due::Said(caller, said) => self.on_said(caller, said),
            Due::Timeout(caller) => self.on_timeout(caller),
            Due::Retry(caller) => self.on_retry(caller),
            Due::Watch(i) => self.on_watch_due(i),
            Due::Fault => self.on_fault(),
            Due::Episode(episode) => self.on_episode(episode),
            Due::KeepImages => self.keep_images(),
            Due::Rot(n) => self.on_rot(n),
        }
    }

    /// What must hold after every event.
    fn check(&mut self) {
        self.note_in_force();
        for n in 0..2 {
            let on_disk = &self.machines[n].on_disk;
            let has_all =
                |had: &LogIndex| on_disk.last().index >= *had && self.truth.is_held_by(on_disk);
            self.behind[n].take_if(|had| has_all(had));
        }
        let (machines, behind) = (&self.machines, &self.behind);
        truth::check_in_sync(&self.truth, self.config(), |replica| {
            let n = machines.iter().position(|m| m.me == replica.node)?;
            let on_disk = &machines[n].on_disk;
            (on_disk.own.storage == replica.storage && behind[n].is_none()).then_some(on_disk)
        });
    }

    /// Another configuration may be in force now.
    pub(crate) fn note_in_force(&mut self) {
        let config = self.config();
        let id = (config.epoch, config.uid);
        if self.in_force != Some(id) {
            config.check_shape().expect("P8");
            let line = format!("in force: {}", in_words(config));
            let config = config.clone();
            self.in_force = Some(id);
            self.tell_story(line);
            self.mark_config(&config);
            let reason = config.reason;
            if matches!(reason, Reason::Force | Reason::Ping) {
                self.accept_loss();
            }
        }
    }

    /// The newest configuration that is durable: at a witness, or at a node.
    ///
    /// # Panics
    /// Never: the nodes have one.
    #[must_use]
    pub fn config(&self) -> &Config {
        let registers = self.witnesses.iter().flat_map(|host| host.durable.values());
        let at_nodes = self.machines.iter().map(|m| &m.on_disk.hard().config);
        in_force(registers, at_nodes)
    }

    /// Whether both nodes act by the configuration in force, and it names both in sync.
    #[must_use]
    pub fn is_mirrored(&self) -> bool {
        let config = self.config();
        let acts = |m: &Machine| {
            let process = m.process.as_ref();
            process.is_some_and(|process| process.node.unit().config().id() == config.id())
        };
        config.standing(&self.part) == Some(Standing::Mirror) && self.machines.iter().all(acts)
    }

    /// The node that serves, by its own word.
    #[must_use]
    pub fn primary(&self) -> Option<usize> {
        (0..2).find(|n| {
            let process = self.machines[*n].process.as_ref();
            process.is_some_and(|process| process.node.is_active())
        })
    }

    /// Tells the story when a node's state changed.
    pub(crate) fn note_state(&mut self, n: usize) {
        let machine = &self.machines[n];
        let process = machine.process.as_ref();
        let state = process.map(|process| process.node.unit().status().state);
        if self.seen[n] == Some(state) {
            return;
        }
        self.seen[n] = Some(state);
        let word = state.map_or_else(|| "down".to_owned(), |state| state.to_string());
        let line = format!("{} is {word}", machine.me.name);
        self.mark_state(&word);
        self.tell_story(line);
    }

    /// What each node is in.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!(
            "seed {}, at {:.4} s, {:?}",
            self.plan.seed,
            self.now.as_secs_f64(),
            self.network
        );
        for machine in &self.machines {
            match &machine.process {
                Some(process) => {
                    let unit = process.node.unit();
                    let status = unit.status();
                    text += &format!(
                        "\n{}: run {}, {}, {status:?}",
                        machine.me,
                        unit.run(),
                        in_words(unit.config())
                    );
                }
                None => text += &format!("\n{}: down", machine.me),
            }
        }
        text
    }

    fn mark_config(&mut self, config: &Config) {
        let in_doubt = |m: &Machine| m.on_disk.hard().pend_add.is_some();
        let has_session = |node: &NodeRef| {
            let n = self.machines.iter().position(|m| m.me == *node);
            n.is_some_and(|n| self.witnesses.iter().any(|w| w.sessions[n].is_some()))
        };
        let detail = match config.reason {
            Reason::Remove if self.machines.iter().any(in_doubt) => Some("D3: an ADD given up"),
            Reason::Abdicate if self.machines.iter().any(Machine::has_failed) => {
                Some("I1: handed over with a failed disk")
            }
            Reason::Add if self.wipes > 0 => Some("K6: another storage added again"),
            Reason::Takeover => match config.other(&config.primary).is_some_and(has_session) {
                true => Some("W6: taken over from a node with a session"),
                false => Some("W5: taken over from a node without a session"),
            },
            _ => None,
        };
        detail.into_iter().for_each(|mark| self.coverage.mark(mark));
        let mark = match config.reason {
            Reason::Remove => "config: REMOVE",
            Reason::Takeover => "config: TAKEOVER",
            Reason::Add => "config: ADD",
            Reason::Swap => "config: SWAP",
            Reason::Abdicate => "config: ABDICATE",
            Reason::Move => "config: MOVE",
            Reason::Force => "config: FORCE",
            Reason::Ping => "config: PING",
            Reason::Policy => "config: POLICY",
            Reason::Init | Reason::Drop | Reason::Parts => return,
        };
        self.coverage.mark(mark);
    }

    fn mark_state(&mut self, state: &str) {
        let wanted = crate::coverage::WANTED.iter().chain(crate::coverage::RARE);
        let states = wanted.filter_map(|mark| Some((mark, mark.strip_prefix("state: ")?)));
        if let Some((mark, _)) = states.into_iter().find(|(_, known)| *known == state) {
            self.coverage.mark(mark);
        }
    }
}

/// A configuration in words.
#[must_use]
pub fn in_words(config: &Config) -> String {
    let set = &config.in_sync[&config.lead];
    let nodes: Vec<_> = set.iter().map(|replica| replica.node.to_string()).collect();
    format!(
        "{} {}, primary {}, in sync {}",
        config.epoch,
        config.reason,
        config.primary,
        nodes.join(" and ")
    )
}
