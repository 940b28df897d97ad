//! A witness's host: what is on its disk, and the witness on it while that is up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kine2_replication::{
    Config, Floors, NodeRef, RegisterKey, WitnessId, WitnessLife, WitnessWord,
};
use kine2_witness_core::{Act, Event, Options, Register, Step, Witness};

/// A witness with its store.
#[derive(Debug)]
pub struct WitnessHost {
    /// Its id, made with its empty store.
    pub id: WitnessId,
    /// Registers on its disk.
    pub durable: BTreeMap<RegisterKey, Register>,
    /// Of each of the two nodes, the start of it that has a session.
    pub sessions: [Option<u64>; 2],
    /// Nothing while it is down.
    witness: Option<Witness>,
    /// Number of its starts.
    lives: u64,
    steps: VecDeque<Step>,
    durable_writes: u64,
    under_way: VecDeque<(u64, RegisterKey, Register)>,
}

/// What a witness did.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It writes a register: [`WitnessHost::sync`] is due once.
    Writes,
    /// It says something to a node.
    Says(NodeRef, WitnessWord),
}

impl WitnessHost {
    /// A host that has not started, with the register of this configuration.
    #[must_use]
    pub fn new(id: u128, config: Option<&Config>) -> Self {
        let register = |config: &Config| {
            let register = Register {
                config: config.clone(),
                moved_to: None,
                regressed: false,
                floors: Floors::default(),
            };
            (config.key(), register)
        };
        Self {
            id: WitnessId(id),
            durable: config.map(register).into_iter().collect(),
            sessions: [None; 2],
            witness: None,
            lives: 0,
            steps: VecDeque::new(),
            durable_writes: 0,
            under_way: VecDeque::new(),
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
        self.writing().is_some()
    }

    /// The change of a register that is written next.
    #[must_use]
    pub fn writing(&self) -> Option<&Register> {
        self.under_way.front().map(|(.., register)| register)
    }

    /// Its present start.
    #[must_use]
    pub fn life(&self) -> WitnessLife {
        WitnessLife(self.lives)
    }

    /// When it must be called.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let witness = self.witness.as_ref();
        witness.and_then(Witness::deadline).unwrap_or(Duration::MAX)
    }

    /// Starts it over what is on its disk; nothing if it is up.
    pub fn start(&mut self, options: Options, now: Duration) {
        if self.witness.is_some() {
            return;
        }
        self.steps.clear();
        self.durable_writes = 0;
        self.sessions = [None; 2];
        self.lives += 1;
        let registers: Vec<_> = self.durable.values().cloned().collect();
        self.witness = Some(Witness::new(self.id, self.life(), registers, options, now));
    }

    /// Ends it as a power cut does.
    pub fn crash(&mut self) {
        self.witness = None;
        self.under_way.clear();
        self.steps.clear();
        self.sessions = [None; 2];
    }

    /// Takes in what happened; nothing if it is down.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Outcome> {
        let Some(witness) = &mut self.witness else {
            return Vec::new();
        };
        witness.handle(now, event);
        self.steps.extend(witness.take_steps());
        self.drain()
    }

    /// The first write under way becomes durable.
    pub fn sync(&mut self) -> Vec<Outcome> {
        if let Some((write, key, register)) = self.under_way.pop_front() {
            self.durable_writes = write;
            self.durable.insert(key, register);
        }
        self.drain()
    }

    fn drain(&mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let durable = self.durable_writes;
        while let Some(step) = self.steps.pop_front_if(|step| step.after <= durable) {
            outcomes.push(match step.act {
                Act::Store {
                    write,
                    key,
                    register,
                } => {
                    self.under_way.push_back((write, key, *register));
                    Outcome::Writes
                }
                Act::Send { to, word } => Outcome::Says(to, word),
            });
        }
        outcomes
    }
}
