//! Witnesses in a simulation.

use kine2_node::Event;
use kine2_replication::{
    Ask, Event as ReplicaEvent, LogIndex, Refusal, Report, Tell, WitnessCall, WitnessId,
    WitnessLife,
};
use kine2_sim_kit::Outcome;
use kine2_witness_core::{Event as WitnessEvent, Options};

use crate::due::Due;
use crate::network::WITNESS;
use crate::plan::ms;
use crate::world::{CLUSTER, World};

impl World {
    /// Starts a witness.
    pub fn start_witness(&mut self, w: usize) {
        if self.witnesses[w].is_up() {
            return;
        }
        let mut options = Options::default();
        // In a story there is time, and nothing else goes wrong.
        if !self.plan.fault_every.is_zero() && !self.quiet {
            options.probation = ms(1000);
        }
        self.witnesses[w].start(options, self.now);
        for n in 0..2 {
            let after = self.delay();
            self.push(after, Due::SessionWanted(n));
        }
    }

    /// Ends a witness as a power cut does.
    pub fn crash_witness(&mut self, w: usize) {
        self.coverage.mark("witness: crashed");
        self.told_final[w] = None;
        self.witnesses[w].crash();
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
        if let Ask::Cas(cas) = &call.ask
            && let Some(register) = self.witnesses[w].durable.get(&call.key)
            && register.config.id() != cas.expected
            && register.config != cas.new
        {
            self.coverage.mark("C2: a change that came too late");
        }
        self.note_told(w, &call);
        self.tell_witness(w, WitnessEvent::Call(call));
    }

    /// What a witness that is up was told to be final, by who acts by its register.
    fn note_told(&mut self, w: usize, call: &WitnessCall) {
        let Ask::Report(Report {
            held: Some(held), ..
        }) = &call.ask
        else {
            return;
        };
        let register = self.witnesses[w].durable.get(&call.key);
        let current = register.is_some_and(|register| register.config.id() == held.config);
        if let Some(store) = held.parts.get(&self.part)
            && self.witnesses[w].is_up()
            && current
        {
            let same = self.told_final[w].filter(|(origin, _)| *origin == held.config.origin);
            let floor = same.map_or(LogIndex(0), |(_, floor)| floor);
            let floor = floor.max(store.commit.index);
            self.told_final[w] = Some((held.config.origin, floor));
        }
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
            if !host.is_up() || host.sessions[n] == Some(life) {
                continue;
            }
            self.end_session(w, n);
            let host = &mut self.witnesses[w];
            host.sessions[n] = Some(life);
            let (id, witness_life) = (host.id, host.life());
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
        let outcomes = self.witnesses[w].handle(self.now, event);
        self.carry_out_of_witness(w, outcomes);
    }

    fn carry_out_of_witness(&mut self, w: usize, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Writes => {
                    let after = ms(1) + self.plan.flush_max / 4;
                    self.push(after, Due::WitnessFlush(w));
                }
                Outcome::Says(to, word) => {
                    self.mark_word(&word.tell);
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

    fn mark_word(&mut self, tell: &Tell) {
        let mark = match tell {
            Tell::Refused(Refusal::Probation) => "W4: refused on probation",
            Tell::Refused(Refusal::PrimaryAlive) => "W6: a takeover refused, the primary is alive",
            _ => return,
        };
        self.coverage.mark(mark);
    }

    pub(crate) fn on_witness_flush(&mut self, w: usize) {
        let outcomes = self.witnesses[w].sync();
        self.carry_out_of_witness(w, outcomes);
    }
}
