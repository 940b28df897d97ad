//! A random user of a log, and the model that knows what the log may hold after a crash.

use std::io::ErrorKind;

use bytes::Bytes;
use kine2_wal::fake::{FakeDisk, Operation};
use kine2_wal::{Chain, LogIndex, Origin, Position, Term, Wal, WalError};

use super::{all_entries, open, payload};

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Where the log began before anything was cut.
    start: Position,
    entries: Vec<(Position, Vec<u8>)>,
    hard_state: Option<Bytes>,
}

impl State {
    fn last(&self) -> Position {
        self.entries
            .last()
            .map_or(self.start, |(position, _)| *position)
    }

    fn position(&self, index: LogIndex) -> Option<Position> {
        if index == self.start.index {
            return Some(self.start);
        }
        let at = self
            .entries
            .binary_search_by_key(&index, |(position, _)| position.index);
        at.ok().map(|at| self.entries[at].0)
    }
}

/// All that may be found when the log is opened after a crash: what was durable at the last sync, and
/// what each record since made of it.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    states: Vec<State>,
    /// Entries before this one may be gone.
    cut: LogIndex,
}

impl Model {
    pub(crate) fn new() -> Self {
        let start = State {
            start: Position::START,
            entries: Vec::new(),
            hard_state: None,
        };
        Self {
            states: vec![start],
            cut: LogIndex(1),
        }
    }

    fn newest(&self) -> &State {
        self.states.last().expect("there is always a state")
    }

    fn stage(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.newest().clone();
        change(&mut state);
        self.states.push(state);
    }

    fn synced(&mut self) {
        self.states.drain(..self.states.len() - 1);
    }

    /// The log must say what one of the states says; from now on it is that one.
    pub(crate) fn check(&mut self, wal: &Wal<FakeDisk>) {
        let (base, entries) = (wal.base(), all_entries(wal));
        let found = self.states.iter().rposition(|state| {
            base.index <= LogIndex(self.cut.0 - 1).max(state.start.index)
                && state.position(base.index) == Some(base)
                && state.hard_state.as_ref() == wal.hard_state()
                && state.last() == wal.last()
                && state
                    .entries
                    .iter()
                    .filter(|(position, _)| position.index > base.index)
                    .map(|(position, payload)| (*position, &payload[..]))
                    .eq(entries
                        .iter()
                        .map(|entry| (entry.position, &entry.payload[..])))
        });
        let Some(found) = found else {
            let allowed: Vec<_> = self
                .states
                .iter()
                .map(|state| (state.start.index, state.last(), state.hard_state.clone()))
                .collect();
            panic!(
                "the log has base {base:?}, last {:?}, hard state {:?}; cut {}; allowed: {allowed:?}",
                wal.last(),
                wal.hard_state(),
                self.cut,
            );
        };
        self.states = vec![self.states.swap_remove(found)];
    }
}

/// Uses a log at random, and keeps the model.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) wal: Wal<FakeDisk>,
    pub(crate) model: Model,
    pub(crate) dice: Dice,
    counter: u64,
}

impl Driver {
    /// A new log on an empty disk; fails when the power is cut meanwhile.
    pub(crate) fn begin(disk: &FakeDisk, seed: u64) -> Result<Self, WalError> {
        let (wal, _) = super::try_open(disk)?;
        Ok(Self {
            wal,
            model: Model::new(),
            dice: Dice(seed),
            counter: 0,
        })
    }

    /// Goes on after a crash: the log must hold what it may hold.
    pub(crate) fn reopen(disk: &FakeDisk, mut model: Model, seed: u64) -> Self {
        let (wal, _) = open(disk);
        model.check(&wal);
        Self {
            wal,
            model,
            dice: Dice(seed),
            counter: seed << 20,
        }
    }

    pub(crate) fn steps(&mut self, count: u64) -> Result<(), WalError> {
        (0..count).try_for_each(|_| self.step())
    }

    pub(crate) fn step(&mut self) -> Result<(), WalError> {
        self.counter += 1;
        match self.dice.below(100) {
            0..40 => self.append(),
            40..70 => self.sync(),
            70..77 => self.set_hard_state(),
            77..82 => self.truncate(),
            82..92 => self.cut(),
            92..95 => self.wal.mark().map(|()| self.model.synced()),
            95..99 => self.wal.prepare_next().map(|_| self.model.synced()),
            _ => self.reset(),
        }
    }

    fn append(&mut self) -> Result<(), WalError> {
        let last = self.model.newest().last();
        let term = match self.dice.below(2) {
            0 => last.term,
            _ => Term {
                epoch: last.term.epoch + 1,
                run: 0,
                origin: Origin(u32::try_from(self.dice.below(2)).expect("0 or 1")),
            },
        };
        let bytes = match self.dice.below(5) {
            0 | 1 => self.dice.below(20_000),
            _ => self.dice.below(600),
        };
        let payload = payload(self.counter, bytes);
        let position = last.extend(term, &payload);
        self.model
            .stage(|state| state.entries.push((position, payload.clone())));
        let given = self.wal.append(term, &payload)?;
        assert_eq!(given, position);
        if self.counter.is_multiple_of(16) {
            self.read_all()?;
        }
        Ok(())
    }

    /// What counts as durable can be read, as long as the power is on.
    fn read_all(&self) -> Result<(), WalError> {
        let mut next = self.wal.first_index();
        while next <= self.wal.durable_index() {
            match self.wal.entries(next..LogIndex(u64::MAX), 10_000) {
                Ok(more) => next = LogIndex(next.0 + more.len() as u64),
                Err(off @ WalError::Io { .. }) => return Err(off),
                Err(error) => panic!("{error}"),
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), WalError> {
        self.wal.sync()?;
        self.model.synced();
        Ok(())
    }

    fn set_hard_state(&mut self) -> Result<(), WalError> {
        let bound = if self.dice.below(8) == 0 { 9000 } else { 100 };
        let bytes = self.dice.below(bound);
        let hard_state = Bytes::from(payload(self.counter, bytes));
        self.model
            .stage(|state| state.hard_state = Some(hard_state.clone()));
        self.wal.set_hard_state(hard_state)
    }

    fn truncate(&mut self) -> Result<(), WalError> {
        let (base, last) = (self.wal.base().index.0, self.wal.last_index().0);
        let to = LogIndex(last - self.dice.below((last - base).min(20) + 1));
        self.model
            .stage(|state| state.entries.retain(|(position, _)| position.index <= to));
        self.wal.truncate_after(to)
    }

    fn cut(&mut self) -> Result<(), WalError> {
        let (base, last) = (self.wal.base().index.0, self.wal.last_index().0);
        let index = LogIndex(base + 1 + self.dice.below(last - base + 1));
        self.model.cut = self.model.cut.max(index);
        self.wal.cut_below(index)?;
        self.model.synced();
        Ok(())
    }

    fn reset(&mut self) -> Result<(), WalError> {
        let last = self.model.newest().last();
        let base = Position {
            index: LogIndex(last.index.0 + self.dice.below(100)),
            term: Term::new(last.term.epoch + 1, 3),
            chain: Chain(self.counter),
        };
        let hard_state = (self.dice.below(2) == 0).then(|| Bytes::from(payload(self.counter, 9)));
        self.model.stage(|state| {
            state.start = base;
            state.entries.clear();
            state.hard_state = hard_state.clone().or_else(|| state.hard_state.take());
        });
        self.wal.reset_to(base, hard_state)?;
        self.model.synced();
        Ok(())
    }
}

/// Uses a log until the power is cut; gives what may be found then.
pub(crate) fn run_until_cut(disk: &FakeDisk, seed: u64, steps: u64) -> Model {
    let Ok(mut driver) = Driver::begin(disk, seed) else {
        return Model::new();
    };
    let _ = driver.steps(steps);
    driver.model
}

/// A log whose power is cut again and again, also while it recovers.
pub(crate) fn power_cuts(seed: u64) {
    let mut dice = Dice(seed ^ 0xa6a1);
    let disk = FakeDisk::new();
    disk.cut_power_after(dice.below(200));
    let mut model = run_until_cut(&disk, seed, 1000);
    for round in 0..8 {
        disk.crash(seed << 8 | round);
        // Some cuts hit the recovery itself.
        disk.cut_power_after(dice.below(60));
        drop(super::try_open(&disk));
        disk.crash(seed << 8 | round | 0x80);
        let mut driver = Driver::reopen(&disk, model, seed << 8 | round);
        disk.cut_power_after(dice.below(150));
        let _ = driver.steps(1000);
        model = driver.model;
    }
}

/// A flush fails; the log is opened again by another process, which still sees what was written,
/// and then the power is cut.
pub(crate) fn failed_flush(seed: u64) {
    let mut dice = Dice(seed);
    let disk = FakeDisk::new();
    let Ok(mut driver) = Driver::begin(&disk, seed) else {
        return;
    };
    disk.fail_nth(Operation::Sync, 1 + dice.below(40), ErrorKind::Other);
    if driver.steps(400).is_ok() {
        return;
    }
    let mut driver = Driver::reopen(&disk, driver.model, seed);
    driver.model.check(&driver.wal);
    driver.steps(seed % 60).expect("the disk works again");
    driver.sync().expect("the disk works again");
    disk.crash(seed);
    Driver::reopen(&disk, driver.model, seed);
}
