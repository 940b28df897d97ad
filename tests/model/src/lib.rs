//! The replication protocol of a failover unit as an explicit-state model: two parts, two nodes, a witness, and an adversary
//! who delays, loses and reorders every message, restarts nodes at any step, and hides anybody from anybody.
//!
//! All states within bounds are visited, or as many as asked for. `docs/model.md` says what is modelled, what was run and what
//! was found. Rules are named as in the protocol's specification (C4, L2, N6).
//!
//! The parts of the model: [`state`] what there is, [`message`] what is sent, [`action`] what can happen; `step` what a step
//! does, with the rules in `primary`, `peer`, `forms`, `snapshot`, `force` and `witness`; `properties` what must hold,
//! `recovery` what must become possible again; [`mutation`] the rules that can be broken; [`run`] runs and their reports.

pub mod action;
mod force;
mod forms;
pub mod message;
pub mod mutation;
mod peer;
mod primary;
mod properties;
mod prune;
mod recovery;
pub mod run;
pub mod settings;
mod snapshot;
pub mod state;
mod step;
mod witness;

use stateright::{Model, Property};

use crate::action::Action;
use crate::settings::Settings;
use crate::state::{BOTH, Budget, Config, Node, ORIGINS_MAX, PARTS, Pair, State, UNKNOWN, bit};

impl Model for Settings {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let kinds = [[BOTH, BOTH], [1, 1], [BOTH, 1], [1, 2]];
        let wanted = (0..4).filter(|kind| self.starts & bit(*kind) != 0);
        wanted
            .map(|kind| self.start(Pair(kinds[usize::from(kind)])))
            .collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.possible(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        if !self.act(&mut state, action) {
            return None;
        }
        self.prune(&mut state);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.all_properties()
    }
}

impl Settings {
    /// A is primary and active in what it holds, B is there.
    fn start(&self, in_sync: Pair<u8>) -> State {
        let config = Config {
            epoch: 1,
            primary: 0,
            in_sync,
            origin: 0,
        };
        let b = Node {
            config,
            run: 1,
            matched: Pair([UNKNOWN; 2]),
            ..Node::default()
        };
        let mut a = b;
        for part in PARTS {
            if config.has(0, part) {
                a.active |= bit(part);
            }
            if in_sync[part] == BOTH {
                a.matched[part] = 0;
            }
        }
        State {
            nodes: Pair([a, b]),
            register: vec![config],
            register_moved: Vec::new(),
            moved_by_init: false,
            cas: Vec::new(),
            adds: Pair::default(),
            network: Vec::new(),
            budget: Budget {
                writes: self.writes,
                crashes: self.crashes,
                reads: self.reads,
                voluntary: self.voluntary,
                cuts: self.cuts,
                snapshots: self.snapshots,
                forces: self.forces,
                rollbacks: self.rollbacks(),
                inits: self.inits,
            },
            witness: state::Witness::default(),
            history: Pair::default(),
            forks: Vec::new(),
            line: Pair([[0; ORIGINS_MAX]; 2]),
            forced: 0,
            acked: Pair::default(),
            committers: Pair::default(),
            bad: 0,
            seen: 0,
        }
    }
}
