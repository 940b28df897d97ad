//! What the model remembers: two nodes, their disks, the messages under way, the register, and what the outside has seen.
//!
//! Small numbers stand for everything: nodes are 0 and 1 (A and B), parts 0 ([`LEAD`]) and 1 ([`OTHER`]), sets of either are
//! bits. An epoch counts from 1; ten and above are the generations after the first (11 to 19, 21 to 29).

use std::ops::{Index, IndexMut};

use crate::message::Message;

/// Entries a log holds at most.
pub const LOG_MAX: usize = 4;
/// Both nodes.
pub const NODES: [u8; 2] = [0, 1];
/// Both parts.
pub const PARTS: [u8; 2] = [LEAD, OTHER];
/// The part whose in-sync nodes may become primary.
pub const LEAD: u8 = 0;
/// The second part, a volume set.
pub const OTHER: u8 = 1;
/// The set of both nodes, or of both parts.
pub const BOTH: u8 = 3;
/// No ack yet in this epoch and run.
pub const UNKNOWN: u8 = 255;
/// Forced promotions at most, plus one: origins.
pub const ORIGINS_MAX: usize = 4;

/// The set of one member.
pub fn bit(member: u8) -> u8 {
    1 << member
}

/// The other node, or the other part.
pub fn other(one: u8) -> u8 {
    1 - one
}

/// The generation of an epoch.
pub fn generation(epoch: u8) -> u8 {
    epoch / 10
}

/// The place of an epoch within its generation.
pub fn counter(epoch: u8) -> u8 {
    epoch % 10
}

/// One thing for each node, or one for each part.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Pair<T>(pub [T; 2]);

impl<T> Index<u8> for Pair<T> {
    type Output = T;

    fn index(&self, at: u8) -> &T {
        &self.0[usize::from(at)]
    }
}

impl<T> IndexMut<u8> for Pair<T> {
    fn index_mut(&mut self, at: u8) -> &mut T {
        &mut self.0[usize::from(at)]
    }
}

/// An entry: its term (epoch and run) and what a client wrote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Entry {
    pub epoch: u8,
    pub run: u8,
    /// Names the write; 0 in places that hold no entry.
    pub id: u8,
}

impl Entry {
    /// The term, as the protocol compares it.
    pub fn term(self) -> (u8, u8) {
        (self.epoch, self.run)
    }
}

/// All entries a part ever held on a node: those still in its log and, below, those its state was made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Log {
    len: u8,
    entries: [Entry; LOG_MAX],
}

impl Log {
    /// Index of the last entry; entries count from 1.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no further entry can be modelled.
    pub fn is_full(&self) -> bool {
        usize::from(self.len) >= LOG_MAX
    }

    /// All entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries[..usize::from(self.len)]
    }

    /// The entry at this index, which counts from 1.
    pub fn at(&self, index: u8) -> Entry {
        self.entries[usize::from(index) - 1]
    }

    /// Appends one.
    pub fn push(&mut self, entry: Entry) {
        self.entries[usize::from(self.len)] = entry;
        self.len += 1;
    }

    /// Keeps the first `len` entries.
    pub fn truncate(&mut self, len: u8) {
        for entry in &mut self.entries[usize::from(len)..] {
            *entry = Entry::default();
        }
        self.len = self.len.min(len);
    }

    /// The first `len` entries.
    pub fn first(&self, len: u8) -> Self {
        let mut first = *self;
        first.truncate(len);
        first
    }

    /// Whether `longer` begins with all of this.
    pub fn is_prefix_of(&self, longer: &Self) -> bool {
        longer.entries().starts_with(self.entries())
    }

    /// How many entries both have in common from the start.
    pub fn common(&self, with: &Self) -> u8 {
        let mut same = 0;
        while same < self.len.min(with.len) && self.at(same + 1) == with.at(same + 1) {
            same += 1;
        }
        same
    }

    /// The ids of its entries, as bits.
    pub fn ids(&self) -> u8 {
        self.entries()
            .iter()
            .fold(0, |ids, entry| ids | bit(entry.id))
    }
}

/// The configuration of the unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Config {
    pub epoch: u8,
    pub primary: u8,
    /// For each part, the nodes in sync.
    pub in_sync: Pair<u8>,
    /// The forced promotion all this descends from: 0, or its number.
    pub origin: u8,
}

impl Config {
    /// Whether the node is in sync for the part.
    pub fn has(&self, node: u8, part: u8) -> bool {
        self.in_sync[part] & bit(node) != 0
    }

    /// Whether nobody serves the part: only the node that is not primary holds it.
    pub fn is_away(&self, part: u8) -> bool {
        self.in_sync[part] == bit(other(self.primary))
    }

    /// Whether both are made by forced promotions that did not know of each other.
    pub fn is_twin_of(&self, with: &Self) -> bool {
        let same_epoch = self.epoch == with.epoch && self != with;
        let same_generation =
            generation(self.epoch) == generation(with.epoch) && self.origin != with.origin;
        same_epoch || same_generation
    }

    /// Where the committers of this configuration are counted.
    pub fn slot(&self) -> u8 {
        if self.origin == 0 {
            self.epoch
        } else {
            8 * self.origin + counter(self.epoch)
        }
    }
}

/// A read under way: its number, what it must contain at least, and of which part.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Read {
    pub number: u8,
    pub floor: u8,
    pub part: u8,
}

/// What an install in place belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Install {
    pub sender: u8,
    pub index: u8,
    pub term: (u8, u8),
}

/// A node. The first block is durable, the second is lost by a restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Node {
    pub config: Config,
    pub run: u8,
    pub log: Pair<Log>,
    /// Index up to which the log is fsynced.
    pub durable: Pair<u8>,
    /// Parts whose ADD may have been sent and is not resolved.
    pub pend_add: u8,
    /// Commit index; a restart keeps it, or with `Settings::forget_commit` loses it.
    pub commit: Pair<u8>,
    /// Epoch of a proposed configuration under another arbiter, or 0.
    pub proposed: u8,
    /// Entries up to here are in the state only; the log was cut.
    pub base: Pair<u8>,
    /// Parts with half-installed data.
    pub inconsistent: u8,
    /// Parts whose data are in truth half installed, whatever the mark says.
    pub garbage: u8,
    /// What the half-installed data belong to.
    pub install: Option<Install>,
    /// Parts of which nothing may be dropped without quarantine: a forced promotion happened elsewhere.
    pub suspect: u8,
    /// Parts that wait for the operator: what was committed here is not in the primary's history.
    pub diverged: u8,
    /// Ids in quarantine.
    pub quarantine: Pair<u8>,
    /// Stopped: another configuration of this generation is as good as the own one.
    pub twin: bool,

    /// Parts the node may order and commit as primary.
    pub active: u8,
    /// The peer's acked index in this epoch and run, or [`UNKNOWN`].
    pub matched: Pair<u8>,
    pub barrier: Pair<u8>,
    /// What the new witness holds for a change of the arbiter that this node began.
    pub made: Option<Config>,
    pub read: Option<Read>,
    pub read_index: Option<Read>,
}

impl Node {
    /// Whether the node orders and commits the part.
    pub fn is_active(&self, part: u8) -> bool {
        self.active & bit(part) != 0
    }

    /// Whether an ADD of the part is in doubt.
    pub fn has_pend_add(&self, part: u8) -> bool {
        self.pend_add & bit(part) != 0
    }

    /// Whether the part is marked half installed (I3).
    pub fn is_inconsistent(&self, part: u8) -> bool {
        self.inconsistent & bit(part) != 0
    }

    /// What of the part survives a restart and may be used.
    pub fn on_disk(&self, part: u8) -> Log {
        if self.garbage & bit(part) != 0 {
            Log::default()
        } else {
            self.log[part].first(self.durable[part])
        }
    }

    /// Loses what a restart or a new configuration loses.
    pub fn forget_volatile(&mut self) {
        self.active = 0;
        self.matched = Pair([UNKNOWN; 2]);
        self.barrier = Pair::default();
        self.made = None;
        self.read = None;
        self.read_index = None;
    }
}

/// Who committed in which configuration: two bits a slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Committers(u64);

impl Committers {
    /// Who, if anybody.
    pub fn get(&self, slot: u8) -> Option<u8> {
        match (self.0 >> (2 * slot)) & 3 {
            0 => None,
            1 => Some(0),
            _ => Some(1),
        }
    }

    /// Notes one; false if it was another before.
    pub fn note(&mut self, slot: u8, node: u8) -> bool {
        let before = self.get(slot);
        self.0 |= u64::from(bit(node)) << (2 * slot);
        before.is_none_or(|before| before == node)
    }
}

/// How the witness stands after a restart from an old copy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Phase {
    #[default]
    Normal,
    /// Started a short while ago.
    Probation,
    /// A node knew more than the register; it takes no CAS any more.
    Regressed,
}

/// What the witness knows besides its register.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Witness {
    pub phase: Phase,
    /// Nodes with a session since its last start.
    pub sessions: u8,
    /// Configurations it forgot; replies that name them may still be under way.
    pub lost: Vec<Config>,
}

/// What the adversary and the clients may still do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Budget {
    pub writes: Pair<u8>,
    pub crashes: u8,
    pub reads: u8,
    /// SWAP, ABDICATE and DROP that nothing calls for.
    pub voluntary: u8,
    pub cuts: u8,
    pub snapshots: u8,
    pub forces: u8,
    pub rollbacks: u8,
    pub inits: u8,
}

/// Rules found broken, as bits of [`State::bad`].
pub mod bad {
    pub const EXPOSED: u8 = 1;
    pub const READ: u8 = 2;
    pub const TWO_COMMITTERS: u8 = 4;
    pub const TRUNCATED: u8 = 8;
    pub const SERVED: u8 = 16;
    pub const STOPPED: u8 = 32;
    pub const FORCED: u8 = 64;
}

/// Situations reached, as bits of [`State::seen`].
pub mod seen {
    pub const TRUNCATE: u32 = 1;
    pub const READ_AT_SECOND: u32 = 1 << 1;
    pub const JOINT: u32 = 1 << 2;
    pub const SWAPPED_COMMIT: u32 = 1 << 3;
    pub const PULL: u32 = 1 << 4;
    pub const MIRROR_READ: u32 = 1 << 5;
    pub const JOINT_OTHER: u32 = 1 << 6;
    pub const DEPOSED: u32 = 1 << 7;
    pub const BACK: u32 = 1 << 8;
    pub const READ_OUT_OF_SYNC: u32 = 1 << 9;
    pub const CUT: u32 = 1 << 10;
    pub const INSTALL: u32 = 1 << 11;
    pub const INSTALL_IN_PLACE: u32 = 1 << 12;
    pub const INSTALL_RESUMED: u32 = 1 << 13;
    pub const ADD_AFTER_INSTALL: u32 = 1 << 14;
    pub const FORCE_LOST: u32 = 1 << 15;
    pub const QUARANTINE: u32 = 1 << 16;
    pub const REJOIN: u32 = 1 << 17;
    pub const TWIN: u32 = 1 << 18;
    pub const REGRESSED: u32 = 1 << 19;
    pub const PROBATION_PASSED: u32 = 1 << 20;
    pub const FORCE_PART: u32 = 1 << 21;
    pub const INIT_REPLACED: u32 = 1 << 22;
    pub const MOVED_IN_DOUBT: u32 = 1 << 23;
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub nodes: Pair<Node>,
    /// What the register held, oldest first; the last is its content.
    pub register: Vec<Config>,
    /// The same for the arbiter the unit moved to.
    pub register_moved: Vec<Config>,
    /// Its content was made by Init, not by a form.
    pub moved_by_init: bool,
    /// CAS under way, where sending and processing are apart.
    pub cas: Vec<Config>,
    /// ADD under way, for each node: expected epoch (0 for none) and part.
    pub adds: Pair<(u8, u8)>,
    pub network: Vec<Message>,
    pub budget: Budget,
    pub witness: Witness,
    /// For each part, the history the outside has seen.
    pub history: Pair<Log>,
    /// Further histories, each begun by a forced promotion.
    pub forks: Vec<Log>,
    /// For each part and origin: its history; 0 is `history`, others `forks[n - 1]`.
    pub line: Pair<[u8; ORIGINS_MAX]>,
    /// Forced promotions so far.
    pub forced: u8,
    /// Ids the outside has ever seen, for each part.
    pub acked: Pair<u8>,
    pub committers: Pair<Committers>,
    pub bad: u8,
    pub seen: u32,
}

impl State {
    /// The newest configuration of the unit.
    pub fn top(&self) -> Config {
        let newest = self.nodes.0.iter().map(|node| node.config);
        let newest = newest
            .max_by_key(|config| config.epoch)
            .expect("there are two nodes");
        let top = self.top_for(newest.epoch);
        let register_is_behind = newest.origin != 0 || !self.witness.lost.is_empty();
        if newest.epoch > top.epoch && register_is_behind {
            newest
        } else {
            top
        }
    }

    /// Content of the register that is good for a configuration of this epoch.
    pub fn top_for(&self, epoch: u8) -> Config {
        let moved = self.register_moved.last().filter(|_| epoch > 10);
        let held = moved.or_else(|| self.register.last());
        *held.expect("the register is never empty")
    }

    /// A CAS took place.
    pub fn push_register(&mut self, config: Config) {
        if config.epoch > 10 && !self.register_moved.is_empty() {
            self.register_moved.push(config);
            self.moved_by_init = false;
        } else {
            self.register.push(config);
        }
    }

    /// Puts a message on the way; the same twice is one.
    pub fn send(&mut self, message: Message) {
        if let Err(at) = self.network.binary_search(&message) {
            self.network.insert(at, message);
        }
    }

    /// The history of the part for who descends from this origin.
    pub fn history_of(&self, part: u8, origin: u8) -> &Log {
        match self.line[part][usize::from(origin)] {
            0 => &self.history[part],
            line => &self.forks[usize::from(line) - 1],
        }
    }

    /// The same, to append to.
    pub fn history_of_mut(&mut self, part: u8, origin: u8) -> &mut Log {
        match self.line[part][usize::from(origin)] {
            0 => &mut self.history[part],
            line => &mut self.forks[usize::from(line) - 1],
        }
    }
}
