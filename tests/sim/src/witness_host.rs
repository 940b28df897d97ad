//! Witnesses in a simulation, each with its store.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kine2_node::Event;
use kine2_replication::{
    Ask, Config, Event as ReplicaEvent, Refusal, RegisterKey, Tell, WitnessCall, WitnessId,
    WitnessLife,
};
use kine2_witness_core::{Act, Event as WitnessEvent, Options, Register, Step, Witness};

use crate::due::Due;
use crate::network::WITNESS;
use crate::plan::ms;
use crate::world::{CLUSTER, World, key};

/// A witness's host.
#[derive(Debug)]
pub struct WitnessHost {
    /// Its id, made with its empty store.
    pub id: WitnessId,
    /// Registers on its disk.
    pub durable: BTreeMap<RegisterKey, Register>,
    /// Nothing while it is down.
    witness: Option<Witness>,
    /// Number of its starts.
    lives: u64,
    steps: VecDeque<Step>,
    durable_writes: u64,
    under_way: VecDeque<(u64, RegisterKey, Register)>,
    /// Of each node, the process that has a session.
    sessions: [Option<u64>; 2],
}

impl WitnessHost {
    /// A host that has not started, with the register of this configuration.
    #[must_use]
    pub fn new(id: u128, config: Option<&Config>) -> Self {
        let register = config.map(|config| Register {
            config: config.clone(),
            moved_to: None,
            regressed: false,
        });
        Self {
            id: WitnessId(id),
            durable: register.into_iter().map(|r| (key(), r)).collect(),
            witness: None,
            lives: 0,
            steps: VecDeque::new(),
            durable_writes: 0,
            under_way: VecDeque::new(),
            sessions: [None; 2],
        }
    }

    /// Whether it is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.witness.is_some()
    }

    /// Whether a change of a register is on its way to the disk.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// When it must be called.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let witness = self.witness.as_ref();
        witness.and_then(Witness::deadline).unwrap_or(Duration::MAX)
    }
}

impl World {
    /// Starts a witness.
    pub fn start_witness(&mut self, w: usize) {
        let now = self.now;
        let short = self.plan.fault_every > Duration::ZERO;
        let host = &mut self.witnesses[w];
        if host.witness.is_some() {
            return;
        }
        host.steps.clear();
        host.durable_writes = 0;
        host.sessions = [None; 2];
        host.lives += 1;
        let mut options = Options::default();
        if short {
            options.probation = ms(1000);
        }
        let life = WitnessLife(host.lives);
        let registers: Vec<_> = host.durable.values().cloned().collect();
        host.witness = Some(Witness::new(host.id, life, registers, options, now));
        for n in 0..2 {
            let after = self.delay();
            self.push(after, Due::SessionWanted(n));
        }
    }

    /// Ends a witness as a power cut does.
    pub fn crash_witness(&mut self, w: usize) {
        self.coverage.mark("witness: crashed");
        let host = &mut self.witnesses[w];
        host.witness = None;
        host.under_way.clear();
        host.steps.clear();
        let line = format!("witness {} goes down", w + 1);
        self.tell_story(line);
    }

    pub(crate) fn tick_witness(&mut self, w: usize) {
        self.tell_witness(w, WitnessEvent::Tick);
    }

    pub(crate) fn call(&mut self, n: usize, call: WitnessCall) {
        if let Ask::ProbeAck { .. } = call.ask {
            self.coverage.mark("witness: a probe answered");
        }
        let w = usize::from(call.witness != self.witnesses[0].id);
        if self.network.is_cut(n, WITNESS) {
            return;
        }
        if self.network.loses(&self.plan, &mut self.rng) {
            return self.coverage.mark("a lost call to the witness repeated");
        }
        let after = self.network.witness_delay(&self.plan, &mut self.rng);
        self.push(after, Due::Call(w, Box::new(call)));
    }

    pub(crate) fn on_call(&mut self, w: usize, call: WitnessCall) {
        self.tell_witness(w, WitnessEvent::Call(call));
    }

    /// A process opens its sessions, if it can reach the witnesses.
    pub(crate) fn on_session_wanted(&mut self, n: usize) {
        let machine = &self.machines[n];
        let life = machine.life;
        let cut = self.network.is_cut(n, WITNESS) || self.network.is_cut(WITNESS, n);
        if machine.process.is_none() || cut {
            return;
        }
        for w in 0..2 {
            let host = &mut self.witnesses[w];
            if host.witness.is_none() || host.sessions[n] == Some(life) {
                continue;
            }
            self.end_session(w, n);
            let host = &mut self.witnesses[w];
            host.sessions[n] = Some(life);
            let (id, witness_life) = (host.id, WitnessLife(host.lives));
            let (cluster, node) = (CLUSTER, self.machines[n].me.clone());
            self.push(
                self.plan.witness_delay,
                Due::Opened(n, life, id, witness_life),
            );
            self.tell_witness(w, WitnessEvent::Opened { cluster, node });
        }
    }

    /// The witnesses notice that a process's sessions ended, or have been silent for too long;
    /// not so if the process is there and was heard again.
    pub(crate) fn on_session_lost(&mut self, n: usize, life: u64) {
        let machine = &self.machines[n];
        let cut = self.network.is_cut(n, WITNESS) || self.network.is_cut(WITNESS, n);
        if machine.life == life && machine.process.is_some() && !cut {
            return;
        }
        for w in 0..2 {
            if self.witnesses[w].sessions[n].is_some_and(|session| session <= life) {
                self.end_session(w, n);
            }
        }
    }

    fn end_session(&mut self, w: usize, n: usize) {
        if self.witnesses[w].sessions[n].take().is_some() {
            let (cluster, node) = (CLUSTER, self.machines[n].me.clone());
            self.tell_witness(w, WitnessEvent::Closed { cluster, node });
        }
    }

    pub(crate) fn on_session_opened(
        &mut self,
        n: usize,
        process: u64,
        witness: WitnessId,
        life: WitnessLife,
    ) {
        if self.machines[n].life != process {
            return;
        }
        let opened = ReplicaEvent::WitnessSession { witness, life };
        self.turn(n, Some(Event::Replica(opened)));
    }

    /// The node as it was is gone for good.
    pub(crate) fn end_sessions(&mut self, n: usize) {
        for w in 0..2 {
            self.end_session(w, n);
        }
    }

    fn tell_witness(&mut self, w: usize, event: WitnessEvent) {
        let host = &mut self.witnesses[w];
        let Some(witness) = &mut host.witness else {
            return;
        };
        witness.handle(self.now, event);
        let steps = witness.take_steps();
        host.steps.extend(steps);
        self.drain_witness(w);
    }

    fn drain_witness(&mut self, w: usize) {
        loop {
            let host = &mut self.witnesses[w];
            let durable = host.durable_writes;
            let Some(step) = host.steps.pop_front_if(|step| step.after <= durable) else {
                return;
            };
            match step.act {
                Act::Store {
                    write,
                    key,
                    register,
                } => {
                    host.under_way.push_back((write, key, *register));
                    let after = ms(1) + self.plan.flush_max / 4;
                    self.push(after, Due::WitnessFlush(w));
                }
                Act::Send { to, word } => {
                    match &word.tell {
                        Tell::Refused(Refusal::Probation) => {
                            self.coverage.mark("W4: refused on probation");
                        }
                        Tell::Refused(Refusal::PrimaryAlive) => {
                            let mark = "W6: a takeover refused, the primary is alive";
                            self.coverage.mark(mark);
                        }
                        _ => {}
                    }
                    let n = usize::from(to.name.as_str() == "b");
                    let lost = self.network.is_cut(WITNESS, n)
                        || self.network.loses(&self.plan, &mut self.rng);
                    if self.machines[n].me != to || lost {
                        continue;
                    }
                    let after = self.network.witness_delay(&self.plan, &mut self.rng);
                    if self.network.repeats(&self.plan, &mut self.rng) {
                        let later = after + self.delay() * 5;
                        self.push(later, Due::Word(n, Box::new(word.clone())));
                    }
                    self.push(after, Due::Word(n, Box::new(word)));
                }
            }
        }
    }

    pub(crate) fn on_witness_flush(&mut self, w: usize) {
        let host = &mut self.witnesses[w];
        if let Some((write, key, register)) = host.under_way.pop_front() {
            host.durable_writes = write;
            host.durable.insert(key, register);
        }
        self.drain_witness(w);
    }
}
