//! The witness and its store.

use std::time::Duration;

use kine2_replication::{Event, WitnessCall, WitnessId, WitnessLife};
use kine2_sim_kit::{Outcome, WitnessHost};
use kine2_witness_core::{Event as WitnessEvent, Options};

use super::{CLUSTER, Due, Sim, ms};

impl Sim {
    pub fn start_witness(&mut self, w: usize) {
        if self.witnesses[w].is_up() {
            return;
        }
        let options = Options {
            // It must be long enough for both nodes to be heard.
            probation: ms(if self.plan.rolls { 5000 } else { 1000 }),
            ..Options::default()
        };
        self.witnesses[w].start(options, self.now);
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
        self.witnesses[w].crash();
    }

    pub(super) fn on_call(&mut self, w: usize, call: WitnessCall) {
        self.tell_witness(w, WitnessEvent::Call(call));
    }

    /// A node that stood still may see the end of a session before its beginning.
    pub(super) fn on_opened(&mut self, n: usize, witness: WitnessId, life: WitnessLife) {
        let lives = |host: &WitnessHost| host.id == witness && host.life() == life;
        if self.witnesses.iter().any(lives) {
            self.tell(n, Event::WitnessSession { witness, life });
        }
    }

    pub(super) fn on_session(&mut self, n: usize, open: bool) {
        for w in 0..2 {
            let up = self.nodes[n].unit.is_some();
            let cut = self.is_cut(n, 2) || self.is_cut(2, n);
            let host = &mut self.witnesses[w];
            let is_open = host.sessions[n].is_some();
            if !host.is_up() || is_open == open || open && (!up || cut) {
                continue;
            }
            host.sessions[n] = open.then_some(self.nodes[n].boot);
            if open {
                let (id, life) = (host.id, host.life());
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
            self.witnesses[w].sessions[n] = None;
            let (cluster, node) = (CLUSTER, self.nodes[n].me.clone());
            self.tell_witness(w, WitnessEvent::Closed { cluster, node });
        }
    }

    pub(super) fn tell_witness(&mut self, w: usize, event: WitnessEvent) {
        let now = self.now;
        let host = &mut self.witnesses[w];
        if host.is_up() && self.trace && !matches!(event, WitnessEvent::Tick) {
            println!("{now:?} w{w} <- {event:?}");
        }
        let outcomes = host.handle(now, event);
        self.carry_out_of_witness(w, outcomes);
    }

    fn carry_out_of_witness(&mut self, w: usize, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Writes => {
                    let after = self.delay();
                    self.push(after, Due::WitnessSynced(w));
                }
                Outcome::Says(to, word) => {
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
        let outcomes = self.witnesses[w].sync();
        self.carry_out_of_witness(w, outcomes);
    }
}
