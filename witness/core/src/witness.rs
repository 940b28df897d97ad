//! The witness itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kine2_mutation::{Mutation, mutated};
use kine2_replication::{
    Ask, Cas, ClusterId, Config, Epoch, Form, Holdings, NodeRef, Refusal, RegisterKey, Report,
    Tell, ToldFloors, WitnessCall, WitnessId, WitnessLife, WitnessWord,
};

use crate::register::{REGISTERS_MAX, Register};
use crate::session::{SESSIONS_MAX, Session};
use crate::verdict::{HELD_MAX, Held, Suspicion, Verdict};

/// Times of a witness; they concern liveness only.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a probe waits for its answer.
    pub probe_wait: Duration,
    /// How long a verdict is good.
    pub verdict_valid: Duration,
    /// Takeovers from a primary that is alive are refused at most this long after the first.
    pub primary_grace_max: Duration,
    /// After the start, every form needs both nodes' sessions for this long (`repl W4`).
    pub probation: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            probe_wait: Duration::from_millis(300),
            verdict_valid: Duration::from_millis(500),
            primary_grace_max: Duration::from_secs(1),
            probation: Duration::from_secs(5),
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A node opened its session.
    Opened {
        /// Its cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeRef,
    },
    /// The session ended, by whatever cause (`repl W5`).
    Closed {
        /// The node's cluster.
        cluster: ClusterId,
        /// The node.
        node: NodeRef,
    },
    /// A node calls.
    Call(WitnessCall),
    /// Time has passed.
    Tick,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Make the register durable; this is write number `write`.
    Store {
        /// Number of the write, one more than that of the one before.
        write: u64,
        /// The key.
        key: RegisterKey,
        /// The content.
        register: Box<Register>,
    },
    /// Send to a node, if it has a session or waits for an answer.
    Send {
        /// To whom.
        to: NodeRef,
        /// What.
        word: WitnessWord,
    },
}

/// A thing to do, in order, not before write number `after` is durable (`repl C2`: the witness
/// makes a change durable before it answers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The write that must be durable; 0 for none.
    pub after: u64,
    /// What is to be done.
    pub act: Act,
}

/// Floors that rose are stored at least this often while their nodes report, with the next change of
/// the register, and when a node's session ends. A crash of the witness forgets what rose since.
const FLOORS_STORED_EVERY: Duration = Duration::from_secs(10);

/// A register and what is only known since the start.
#[derive(Debug)]
struct Unit {
    register: Register,
    suspicion: Suspicion,
    /// Since when floors have risen that are not stored.
    floors_rose: Option<Duration>,
}

/// The decisions of a witness.
#[derive(Debug)]
pub struct Witness {
    id: WitnessId,
    life: WitnessLife,
    options: Options,
    started: Duration,
    units: BTreeMap<RegisterKey, Unit>,
    sessions: BTreeMap<(ClusterId, NodeRef), Session>,
    writes: u64,
    nonce: u64,
    steps: Vec<Step>,
}

impl Witness {
    /// A witness over its stored registers, started now. `id` was made with its empty store
    /// (`repl W1`), `life` is random (`repl W7`).
    #[must_use]
    pub fn new(
        id: WitnessId,
        life: WitnessLife,
        registers: impl IntoIterator<Item = Register>,
        options: Options,
        now: Duration,
    ) -> Self {
        let unit = |register: Register| {
            let key = register.config.key();
            let unit = Unit {
                register,
                suspicion: Suspicion::default(),
                floors_rose: None,
            };
            (key, unit)
        };
        Self {
            id,
            life,
            options,
            started: now,
            units: registers.into_iter().map(unit).collect(),
            sessions: BTreeMap::new(),
            writes: 0,
            nonce: 0,
            steps: Vec::new(),
        }
    }

    /// Which witness this is.
    #[must_use]
    pub fn id(&self) -> WitnessId {
        self.id
    }

    /// Which start of it this is; every session names it.
    #[must_use]
    pub fn life(&self) -> WitnessLife {
        self.life
    }

    /// The register of a unit.
    #[must_use]
    pub fn register(&self, key: &RegisterKey) -> Option<&Register> {
        self.units.get(key).map(|unit| &unit.register)
    }

    /// True if the unit's register was found to be older than what a node knows (`repl W3`).
    #[must_use]
    pub fn is_regressed(&self, key: &RegisterKey) -> bool {
        self.units
            .get(key)
            .is_some_and(|unit| unit.register.regressed)
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.units
            .values()
            .filter_map(|unit| unit.suspicion.deadline())
            .min()
    }

    /// What is to be done, in this order.
    pub fn take_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Duration, event: Event) {
        match event {
            Event::Opened { cluster, node } => self.on_opened(cluster, node),
            Event::Closed { cluster, node } => self.on_closed(now, cluster, node),
            Event::Call(call) => self.on_call(now, call),
            Event::Tick => {}
        }
        self.end_probes(now);
    }

    fn on_opened(&mut self, cluster: ClusterId, node: NodeRef) {
        self.make_room();
        self.sessions
            .insert((cluster, node.clone()), Session::default());
        for key in self.keys_of(cluster, &node) {
            self.tell_register(&key, &node, None);
            self.tell_peer(&key, &node);
        }
    }

    /// Anybody may open sessions; those of nodes that no register names are forgotten first, as
    /// nothing depends on them.
    fn make_room(&mut self) {
        if self.sessions.len() < SESSIONS_MAX {
            return;
        }
        let named = |(cluster, node): &(ClusterId, NodeRef)| {
            let mut registers = self.units.iter().filter(|(key, _)| key.cluster == *cluster);
            registers.any(|(_, unit)| unit.register.newest().members.contains(node))
        };
        let stranger = self.sessions.keys().find(|key| !named(key)).cloned();
        let stranger = stranger.expect("each register names two nodes at most");
        self.sessions.remove(&stranger);
    }

    fn on_closed(&mut self, now: Duration, cluster: ClusterId, node: NodeRef) {
        self.sessions.remove(&(cluster, node.clone()));
        for key in self.keys_of(cluster, &node) {
            self.tell_peer(&key, &node);
            if self.units[&key].floors_rose.is_some() {
                self.write(&key);
            }
            if self.units[&key].register.config.primary == node {
                self.decide(now, &key, false);
            }
        }
    }

    fn on_call(&mut self, now: Duration, call: WitnessCall) {
        let WitnessCall {
            key,
            witness,
            caller,
            number,
            ask,
        } = call;
        if witness != self.id {
            self.refuse(key, caller, number, Refusal::OtherWitness);
            return;
        }
        match ask {
            Ask::Init(config) => {
                let make =
                    |stored: &Register, witness| stored.initialised(*config.clone(), witness);
                self.on_replace(key, caller, number, &config, make);
            }
            Ask::Force(force) => {
                let make = |stored: &Register, witness| stored.forced(*force.clone(), witness);
                self.on_replace(key, caller, number, &force.config, make);
            }
            _ if !self.units.contains_key(&key) => {
                self.refuse(key, caller, number, Refusal::UnknownRegister);
            }
            Ask::Get => self.tell_register(&key, &caller, Some(number)),
            Ask::Cas(cas) => self.on_cas(now, &key, caller, number, *cas),
            Ask::Report(report) => self.on_report(now, &key, caller, report),
            Ask::Suspect(epoch) => self.on_suspect(now, &key, &caller, epoch),
            Ask::ProbeAck { nonce, healthy } => {
                self.on_probe_ack(now, &key, &caller, nonce, healthy);
            }
        }
    }

    /// Init and Force: a new register, or a higher generation of one (`repl section 6`).
    fn on_replace(
        &mut self,
        key: RegisterKey,
        caller: NodeRef,
        number: u64,
        config: &Config,
        replace: impl FnOnce(&Register, WitnessId) -> Result<Register, Refusal>,
    ) {
        let made = if config.key() != key {
            Err(Refusal::Record("the record is of another unit".into()))
        } else if let Some(unit) = self.units.get(&key) {
            replace(&unit.register, self.id)
        } else if self.units.len() == REGISTERS_MAX {
            Err(Refusal::RegistersMax)
        } else {
            Register::new(config.clone(), self.id)
        };
        match made {
            Err(refusal) => self.refuse(key, caller, number, refusal),
            Ok(register) => self.store(&key, register, &caller, number),
        }
    }

    fn on_cas(&mut self, now: Duration, key: &RegisterKey, caller: NodeRef, number: u64, cas: Cas) {
        let unit = &self.units[key];
        if unit.register.is_done(&cas) {
            return self.tell_register(key, &caller, Some(number));
        }
        if unit.register.regressed {
            return self.refuse(key.clone(), caller, number, Refusal::Regressed);
        }
        match unit.register.swapped(&cas, &caller) {
            Err(refusal) => self.refuse(key.clone(), caller, number, refusal),
            Ok(None) => self.tell_register(key, &caller, Some(number)),
            Ok(Some(_))
                if self.in_probation(now, key)
                    && (cas.form == Form::Takeover
                        || !mutated(Mutation::ProbationTakeoverOnly)) =>
            {
                self.refuse(key.clone(), caller, number, Refusal::Probation);
            }
            Ok(Some(register)) if self.loses_what_was_final(key, &caller, &cas, &register) => {
                // Programs that know no floors are not told of what they do not understand.
                match cas.held {
                    Some(_) => self.refuse(key.clone(), caller, number, Refusal::Reverted),
                    None => self.tell_register(key, &caller, Some(number)),
                }
            }
            Ok(Some(register)) if cas.form != Form::Takeover => {
                self.store(key, register, &caller, number);
            }
            Ok(Some(register)) => {
                if self.may_take_over(now, key, &caller, number, &cas) {
                    self.store(key, register, &caller, number);
                }
            }
        }
    }

    /// Whether a TAKEOVER may go on now; otherwise it was refused or is held (`repl W6`).
    fn may_take_over(
        &mut self,
        now: Duration,
        key: &RegisterKey,
        caller: &NodeRef,
        number: u64,
        cas: &Cas,
    ) -> bool {
        let connected = self.primary_connected(key);
        let grace = self.options.primary_grace_max;
        let suspicion = self.suspicion(key);
        let first = *suspicion.first_takeover.get_or_insert(now);
        let verdict = suspicion.verdict_at(now);
        if !connected || now > first + grace || matches!(verdict, Verdict::NotAlive { .. }) {
            return true;
        }
        if matches!(verdict, Verdict::Alive { .. }) || suspicion.held.len() >= HELD_MAX {
            self.refuse(key.clone(), caller.clone(), number, Refusal::PrimaryAlive);
            return false;
        }
        suspicion.held.retain(|held| held.caller != *caller);
        suspicion.held.push(Held {
            caller: caller.clone(),
            number,
            cas: cas.clone(),
        });
        self.probe(now, key);
        false
    }

    fn on_report(&mut self, now: Duration, key: &RegisterKey, caller: NodeRef, report: Report) {
        let unit = self.units.get_mut(key).expect("the caller looked it up");
        let higher = report.epoch > unit.register.newest().epoch;
        if higher && !unit.register.regressed && !mutated(Mutation::NoSessionCheck) {
            unit.register.regressed = true;
            self.write(key);
        }
        let mut lacking = BTreeSet::new();
        if let Some(held) = &report.held {
            let Register { config, floors, .. } = &self.units[key].register;
            let parts = config.in_sync.keys();
            let below = parts.filter(|part| floors.lacks(&caller, held, part));
            lacking.extend(below.cloned());
            self.raise_floors(now, key, &caller, held);
        }
        if let Some(session) = self.sessions.get_mut(&(key.cluster, caller)) {
            session.reports.insert(key.unit.clone(), report);
            session.lacking.insert(key.unit.clone(), lacking);
        }
    }

    /// I4: what nodes say is final.
    fn raise_floors(
        &mut self,
        now: Duration,
        key: &RegisterKey,
        caller: &NodeRef,
        held: &Holdings,
    ) {
        let unit = self.units.get_mut(key).expect("of a known key");
        let Register { config, floors, .. } = &mut unit.register;
        if !mutated(Mutation::NoFloorAtWitness) && floors.raise(config, caller, held) {
            let since = *unit.floors_rose.get_or_insert(now);
            if now >= since + FLOORS_STORED_EVERY {
                self.write(key);
            }
        }
    }

    /// I4: who would be left as the only one with a part has not all of it that was final.
    fn loses_what_was_final(
        &self,
        key: &RegisterKey,
        caller: &NodeRef,
        cas: &Cas,
        next: &Register,
    ) -> bool {
        let register = &self.units[key].register;
        register.is_lost_by(next, |node, part| {
            if node == caller
                && let Some(held) = &cas.held
            {
                return register.floors.lacks(node, held, part);
            }
            // What has become final since its report it may have got meanwhile.
            let session = self.sessions.get(&(key.cluster, node.clone()));
            let lacking = session.and_then(|session| session.lacking.get(&key.unit));
            lacking.is_some_and(|lacking| lacking.contains(part))
        })
    }

    fn on_suspect(&mut self, now: Duration, key: &RegisterKey, caller: &NodeRef, epoch: Epoch) {
        let config = &self.units[key].register.config;
        let current = config.epoch == epoch;
        if current && config.primary != *caller && config.in_lead(caller) {
            self.probe(now, key);
        }
    }

    fn on_probe_ack(
        &mut self,
        now: Duration,
        key: &RegisterKey,
        caller: &NodeRef,
        nonce: u64,
        healthy: bool,
    ) {
        if self.units[key].register.config.primary != *caller {
            return;
        }
        let verdict = self.suspicion(key).verdict;
        if matches!(verdict, Verdict::Probing { nonce: own, .. } if own == nonce) {
            self.decide(now, key, healthy);
        }
    }

    /// Asks the primary whether it is well, unless that is known or being asked.
    fn probe(&mut self, now: Duration, key: &RegisterKey) {
        if self.suspicion(key).verdict_at(now) != Verdict::Unknown {
            return;
        }
        if !self.primary_connected(key) {
            return self.decide(now, key, false);
        }
        self.nonce += 1;
        let nonce = self.nonce;
        let until = now + self.options.probe_wait;
        self.suspicion(key).verdict = Verdict::Probing { nonce, until };
        let primary = self.units[key].register.config.primary.clone();
        self.tell(key.clone(), primary, None, Tell::Probe { nonce });
    }

    /// Probes that waited long enough have their verdict.
    fn end_probes(&mut self, now: Duration) {
        let over: Vec<_> = self
            .units
            .iter()
            .filter(|(_, unit)| unit.suspicion.deadline().is_some_and(|until| until <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            self.decide(now, &key, false);
        }
    }

    /// The verdict is known: takeovers that were held go on, by the same rules.
    fn decide(&mut self, now: Duration, key: &RegisterKey, alive: bool) {
        let until = now + self.options.verdict_valid;
        let suspicion = self.suspicion(key);
        suspicion.verdict = if alive {
            Verdict::Alive { until }
        } else {
            Verdict::NotAlive { until }
        };
        for held in std::mem::take(&mut suspicion.held) {
            self.on_cas(now, key, held.caller, held.number, held.cas);
        }
    }

    /// Stores the register durably, then answers, tells both nodes, and answers what was held:
    /// that is of the epoch before.
    fn store(&mut self, key: &RegisterKey, register: Register, caller: &NodeRef, number: u64) {
        let config = register.newest().clone();
        let unit = Unit {
            register,
            suspicion: Suspicion::default(),
            floors_rose: None,
        };
        let old = self.units.insert(key.clone(), unit);
        self.write(key);
        self.tell_register(key, caller, Some(number));
        for member in &config.members {
            if member != caller && self.has_session(key, member) {
                self.tell_register(key, member, None);
            }
        }
        for held in old.into_iter().flat_map(|unit| unit.suspicion.held) {
            self.tell_register(key, &held.caller, Some(held.number));
        }
    }

    /// Makes the register durable as it is now.
    fn write(&mut self, key: &RegisterKey) {
        self.writes += 1;
        let unit = self.units.get_mut(key).expect("of a known key");
        unit.floors_rose = None;
        self.push(Act::Store {
            write: self.writes,
            key: key.clone(),
            register: Box::new(self.units[key].register.clone()),
        });
    }

    fn suspicion(&mut self, key: &RegisterKey) -> &mut Suspicion {
        &mut self.units.get_mut(key).expect("of a known key").suspicion
    }

    fn has_session(&self, key: &RegisterKey, node: &NodeRef) -> bool {
        self.sessions.contains_key(&(key.cluster, node.clone()))
    }

    fn primary_connected(&self, key: &RegisterKey) -> bool {
        self.has_session(key, &self.units[key].register.config.primary)
    }

    /// W4: after a start the store may be an old copy, and a node that is not heard yet may know
    /// more than it. No form is accepted meanwhile, not only TAKEOVER: a REMOVE by a primary that
    /// was deposed after the copy was made would leave two nodes alone.
    fn in_probation(&self, now: Duration, key: &RegisterKey) -> bool {
        let started = now < self.started + self.options.probation;
        started && !self.hears_both(key) && !mutated(Mutation::NoProbation)
    }

    /// Both nodes' sessions are up and have reported an epoch not above the register (`repl W4`).
    fn hears_both(&self, key: &RegisterKey) -> bool {
        let config = &self.units[key].register.config;
        config.members.iter().all(|member| {
            self.sessions
                .get(&(key.cluster, member.clone()))
                .and_then(|session| session.reports.get(&key.unit))
                .is_some_and(|report| report.epoch <= config.epoch)
        })
    }

    fn keys_of(&self, cluster: ClusterId, node: &NodeRef) -> Vec<RegisterKey> {
        let of_node = |key: &RegisterKey, unit: &Unit| {
            key.cluster == cluster && unit.register.newest().members.contains(node)
        };
        self.units
            .iter()
            .filter(|(key, unit)| of_node(key, unit))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Tells `node`'s peer whether `node` is connected, and `node` the same of its peer.
    fn tell_peer(&mut self, key: &RegisterKey, node: &NodeRef) {
        let Some(peer) = self.units[key].register.newest().other(node).cloned() else {
            return;
        };
        let (here, there) = (self.has_session(key, node), self.has_session(key, &peer));
        if there {
            let tell = Tell::Peer { connected: here };
            self.tell(key.clone(), peer, None, tell);
        }
        if here {
            let tell = Tell::Peer { connected: there };
            self.tell(key.clone(), node.clone(), None, tell);
        }
    }

    fn tell_register(&mut self, key: &RegisterKey, to: &NodeRef, answers: Option<u64>) {
        let register = &self.units[key].register;
        let tell = match &register.moved_to {
            Some(config) => Tell::Moved(Box::new(config.clone())),
            None => Tell::Register(Box::new(register.config.clone())),
        };
        self.tell(key.clone(), to.clone(), answers, tell);
    }

    fn refuse(&mut self, key: RegisterKey, to: NodeRef, number: u64, refusal: Refusal) {
        self.tell(key, to, Some(number), Tell::Refused(refusal));
    }

    fn tell(&mut self, key: RegisterKey, to: NodeRef, answers: Option<u64>, tell: Tell) {
        let word = WitnessWord {
            floors: self.floors_with(&key, &tell),
            key,
            witness: self.id,
            life: self.life,
            answers,
            tell,
        };
        self.push(Act::Send { to, word });
    }

    /// The floors go with the content, so that nobody acts by a register without them.
    fn floors_with(&self, key: &RegisterKey, tell: &Tell) -> Option<Box<ToldFloors>> {
        let with = match tell {
            Tell::Register(_) | Tell::Refused(Refusal::Reverted) => true,
            Tell::Moved(_) | Tell::Refused(_) | Tell::Probe { .. } | Tell::Peer { .. } => false,
        };
        let Register { config, floors, .. } = &self.units.get(key)?.register;
        (with && !mutated(Mutation::NoFloorAtWitness)).then(|| {
            Box::new(ToldFloors {
                config: config.id(),
                floors: floors.clone(),
            })
        })
    }

    fn push(&mut self, act: Act) {
        let after = match act {
            Act::Store { .. } => 0,
            Act::Send { .. } if mutated(Mutation::AnswerBeforeStored) => 0,
            Act::Send { .. } => self.writes,
        };
        self.steps.push(Step { after, act });
    }
}

#[cfg(test)]
mod tests;
