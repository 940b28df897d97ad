//! The witness and its store.

use std::time::Duration;

use kine2_replication::{WitnessCall, WitnessLife};
use kine2_witness_core::{Act as WitnessAct, Event as WitnessEvent, Options, Witness};

use super::{CLUSTER, Due, Sim, ms};

impl Sim {
    pub fn start_witness(&mut self, w: usize) {
        let now = self.now;
        let host = &mut self.witnesses[w];
        if host.witness.is_some() {
            return;
        }
        host.steps.clear();
        host.durable_writes = 0;
        host.sessions = [false; 2];
        let options = Options {
            // It must be long enough for both nodes to be heard.
            probation: ms(if self.plan.rolls { 5000 } else { 1000 }),
            ..Options::default()
        };
        host.lives += 1;
        let life = WitnessLife(host.lives);
        let registers: Vec<_> = host.durable.values().cloned().collect();
        host.witness = Some(Witness::new(host.id, life, registers, options, now));
        for n in 0..2 {
            let after = self.delay();
            self.push(after, Due::Session(n, true));
        }
    }

    /// A backup of the witness's store, which nobody should make.
    pub fn keep_witness(&mut self) {
        self.backup = self.witnesses[0].durable.clone();
    }

    pub fn restore_witness(&mut self) {
        self.crash_witness(0);
        self.witnesses[0].durable = self.backup.clone();
        self.start_witness(0);
    }

    pub fn crash_witness(&mut self, w: usize) {
        let host = &mut self.witnesses[w];
        host.witness = None;
        host.under_way.clear();
        host.steps.clear();
        host.sessions = [false; 2];
    }

    pub(super) fn on_call(&mut self, w: usize, call: WitnessCall) {
        self.tell_witness(w, WitnessEvent::Call(call));
    }

    pub(super) fn on_session(&mut self, n: usize, open: bool) {
        for w in 0..2 {
            let up = self.nodes[n].unit.is_some();
            let cut = self.is_cut(n, 2) || self.is_cut(2, n);
            let host = &mut self.witnesses[w];
            if host.witness.is_none() || host.sessions[n] == open || open && (!up || cut) {
                continue;
            }
            host.sessions[n] = open;
            if open {
                let (id, life) = (host.id, WitnessLife(host.lives));
                self.push(Duration::ZERO, Due::Opened(n, id, life));
            }
            let (cluster, node) = (CLUSTER, self.nodes[n].me.clone());
            let event = if open {
                WitnessEvent::Opened { cluster, node }
            } else {
                WitnessEvent::Closed { cluster, node }
            };
            self.tell_witness(w, event);
        }
    }

    /// The node as it was is gone.
    pub(super) fn end_session(&mut self, n: usize) {
        for w in 0..2 {
            self.witnesses[w].sessions[n] = false;
            let (cluster, node) = (CLUSTER, self.nodes[n].me.clone());
            self.tell_witness(w, WitnessEvent::Closed { cluster, node });
        }
    }

    pub(super) fn tell_witness(&mut self, w: usize, event: WitnessEvent) {
        let now = self.now;
        let host = &mut self.witnesses[w];
        let Some(witness) = &mut host.witness else {
            return;
        };
        if self.trace && !matches!(event, WitnessEvent::Tick) {
            println!("{now:?} w{w} <- {event:?}");
        }
        witness.handle(now, event);
        let steps = witness.take_steps();
        host.steps.extend(steps);
        self.drain_witness(w);
    }

    pub(super) fn drain_witness(&mut self, w: usize) {
        loop {
            let host = &mut self.witnesses[w];
            let durable = host.durable_writes;
            let Some(step) = host.steps.pop_front_if(|step| step.after <= durable) else {
                return;
            };
            match step.act {
                WitnessAct::Store {
                    write,
                    key,
                    register,
                } => {
                    host.under_way.push_back((write, key, *register));
                    let after = self.delay();
                    self.push(after, Due::WitnessSynced(w));
                }
                WitnessAct::Send { to, word } => {
                    let n = usize::from(to.name.as_str() == "b");
                    if self.nodes[n].me == to && !self.is_cut(2, n) && !self.lost() {
                        let after = self.call_delay();
                        self.push(after, Due::Word(n, Box::new(word.clone())));
                        if !self.healing && self.rng.percent(self.plan.repeats) {
                            let later = self.delay() * 5;
                            self.push(later, Due::Word(n, Box::new(word)));
                        }
                    }
                }
            }
        }
    }

    pub(super) fn on_witness_synced(&mut self, w: usize) {
        let host = &mut self.witnesses[w];
        if let Some((write, key, register)) = host.under_way.pop_front() {
            host.durable_writes = write;
            host.durable.insert(key, register);
        }
        self.drain_witness(w);
    }
}
