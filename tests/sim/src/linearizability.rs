//! Whether one store could have given all these answers: each request took effect at one moment
//! between its call and its answer, and those without an answer did so later, or never.
//!
//! The search is Wing and Gong's, as in porcupine: try what may come next, go back where nothing
//! may, and remember where one was. etcd's revisions make it short. An answer that names the
//! present revision and changes nothing is taken at once. One that makes the next revision is the
//! only one that can. Where a request without an answer made a revision, what it wrote and was
//! seen somewhere says which; only what nobody ever saw leaves a choice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Ask, Changes, History, Outcome, Reply, Value};
use crate::model::{Done, Model};

/// Choices tried for one history before the search gives up.
pub const CHOICES_MAX: usize = 100_000;

/// One order that explains a history.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// What each revision did.
    pub changes: BTreeMap<i64, Changes>,
    /// The store at the end.
    pub last: Model,
    /// Choices that were tried.
    pub choices: usize,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No order explains it. Tells how far the longest attempt came.
    Impossible(String),
    /// The search took too long.
    Undecided,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible(how_far) => write!(f, "no order explains the history: {how_far}"),
            Self::Undecided => write!(f, "not decided within {CHOICES_MAX} choices"),
        }
    }
}

/// Looks for an order that explains the history.
///
/// # Errors
/// When there is none, or it was not found in time.
pub fn check(history: &History) -> Result<Explanation, Verdict> {
    Search::new(history).run()
}

/// A place in the search.
#[derive(Clone, Debug)]
struct State {
    model: Model,
    done: Vec<bool>,
    /// Of those that were answered: all before it are done.
    first: usize,
    /// Those without an answer that are not done.
    open: Vec<usize>,
    left: usize,
    changes: BTreeMap<i64, Changes>,
}

struct Search<'h> {
    history: &'h History,
    /// Requests that were answered, in the order sent.
    answered: Vec<usize>,
    /// Those that were not, in the order sent.
    open: Vec<usize>,
    /// By request without an answer: the revision it made, if somebody saw that.
    pinned: BTreeMap<usize, i64>,
    /// Revisions whose maker is known.
    claimed: BTreeSet<i64>,
    /// The newest revision anybody saw: all up to it must be explained, and what comes after
    /// explains nothing.
    newest: i64,
    seen: BTreeSet<(Vec<bool>, Model)>,
    choices: usize,
    farthest: Option<(usize, String)>,
}

/// What may come next.
enum Next {
    /// This one, whatever else may.
    Only(usize, Box<(Model, Done)>),
    /// One of these.
    Some(Vec<usize>),
}

impl<'h> Search<'h> {
    fn new(history: &'h History) -> Self {
        let mut order: Vec<usize> = (0..history.operations.len()).collect();
        order.sort_by_key(|at| history.operations[*at].invoked);
        let is_open = |at: &usize| history.operations[*at].outcome == Outcome::Unknown;
        let (open, answered) = order.into_iter().partition(is_open);
        let (makers, newest) = makers(history);
        let mut pinned = BTreeMap::new();
        let mut claimed = BTreeSet::new();
        for (at, operation) in history.operations.iter().enumerate() {
            let made = operation
                .ask
                .values()
                .find_map(|value| makers.get(&value).copied());
            match &operation.outcome {
                Outcome::Unknown => {
                    pinned.extend(made.map(|revision| (at, revision)));
                    claimed.extend(made);
                }
                Outcome::Known(_, reply) => claimed.extend(made_by(&operation.ask, reply)),
            }
        }
        Self {
            history,
            answered,
            open,
            pinned,
            claimed,
            newest,
            seen: BTreeSet::new(),
            choices: 0,
            farthest: None,
        }
    }

    fn run(mut self) -> Result<Explanation, Verdict> {
        let mut state = State {
            model: self.history.first.clone(),
            done: vec![false; self.history.operations.len()],
            first: 0,
            open: self.open.clone(),
            left: self.answered.len(),
            changes: BTreeMap::new(),
        };
        let mut untried: Vec<(State, Vec<usize>)> = Vec::new();
        loop {
            if state.left == 0 && state.model.revision >= self.newest {
                return Ok(Explanation {
                    changes: state.changes,
                    last: state.model,
                    choices: self.choices,
                });
            }
            match self.next(&mut state) {
                Next::Only(at, done) => self.take(&mut state, at, *done),
                Next::Some(mut candidates) => {
                    if candidates.is_empty() {
                        self.note_dead_end(&state);
                    } else if !self.seen.insert((state.done.clone(), state.model.clone())) {
                        candidates.clear();
                    }
                    candidates.reverse();
                    untried.push((state, candidates));
                    let (next, at) = loop {
                        let Some((from, left)) = untried.last_mut() else {
                            let how_far = self.farthest.map_or_else(String::new, |(_, text)| text);
                            return Err(Verdict::Impossible(how_far));
                        };
                        match left.pop() {
                            Some(at) => break (from.clone(), at),
                            None => untried.pop(),
                        };
                    };
                    self.choices += 1;
                    if self.choices > CHOICES_MAX {
                        return Err(Verdict::Undecided);
                    }
                    state = next;
                    let done = self.outcome(&state.model, at);
                    self.take(&mut state, at, done);
                }
            }
        }
    }

    fn is_open(&self, at: usize) -> bool {
        self.history.operations[at].outcome == Outcome::Unknown
    }

    fn outcome(&self, model: &Model, at: usize) -> (Model, Done) {
        let mut after = model.clone();
        let done = after.apply(&self.history.operations[at].ask);
        (after, done)
    }

    fn take(&self, state: &mut State, at: usize, (model, done): (Model, Done)) {
        state.model = model;
        state.done[at] = true;
        if self.is_open(at) {
            state.open.retain(|open| *open != at);
        } else {
            state.left -= 1;
        }
        if !done.changes.is_empty() {
            state.changes.insert(state.model.revision, done.changes);
        }
        while self
            .answered
            .get(state.first)
            .is_some_and(|at| state.done[*at])
        {
            state.first += 1;
        }
    }

    fn next(&self, state: &mut State) -> Next {
        let mut only = None;
        let mut candidates = Vec::new();
        let mut revocations = Vec::new();
        for at in self.callable(state) {
            let operation = &self.history.operations[at];
            if !self.may_fit(at, &state.model) {
                continue;
            }
            let (after, done) = self.outcome(&state.model, at);
            if !self.agrees_with_watch(&after, &done) {
                continue;
            }
            match &operation.outcome {
                Outcome::Known(_, reply) if *reply == done.reply => {
                    let boxed = Box::new((after, done));
                    if boxed.1.changes.is_empty() {
                        // It belongs to this revision: now or never.
                        return Next::Only(at, boxed);
                    }
                    if matches!(operation.ask, Ask::Revoke(_)) {
                        // Its answer would be the same if another deleted the keys just before.
                        revocations.push(at);
                    } else {
                        only = Some((at, boxed));
                    }
                }
                Outcome::Known(..) => {}
                Outcome::Unknown if after == state.model => {}
                Outcome::Unknown if done.changes.is_empty() => {
                    if self.explains_refusal(state, &operation.ask) {
                        revocations.insert(0, at);
                    }
                }
                Outcome::Unknown => {
                    // Of the same requests one is as good as another: all may come later, too.
                    let is_same =
                        |other: &usize| self.history.operations[*other].ask == operation.ask;
                    if self.may_make(at, after.revision) && !candidates.iter().any(is_same) {
                        candidates.push(at);
                    }
                }
            }
        }
        match only {
            Some((at, done)) if revocations.is_empty() => Next::Only(at, done),
            Some((at, _)) => {
                revocations.push(at);
                Next::Some(revocations)
            }
            None => {
                revocations.extend(candidates);
                Next::Some(revocations)
            }
        }
    }

    /// Those that were called before any that was answered and is not done had its answer, in the
    /// order sent.
    fn callable(&self, state: &State) -> Vec<usize> {
        let invoked = |at: usize| self.history.operations[at].invoked;
        let mut earliest_answer = u64::MAX;
        let mut callable = Vec::new();
        let mut open = state.open.iter().copied().peekable();
        for at in self.answered[state.first..].iter().copied() {
            if state.done[at] {
                continue;
            }
            if invoked(at) > earliest_answer {
                break;
            }
            while let Some(before) = open.next_if(|open| invoked(*open) <= invoked(at)) {
                callable.push(before);
            }
            if let Outcome::Known(answered, _) = &self.history.operations[at].outcome {
                earliest_answer = earliest_answer.min(*answered);
            }
            callable.push(at);
        }
        callable.extend(open.take_while(|at| invoked(*at) <= earliest_answer));
        callable
    }

    /// Whether it may come next, as far as that can be told without carrying it out.
    fn may_fit(&self, at: usize, model: &Model) -> bool {
        let operation = &self.history.operations[at];
        match (&operation.outcome, &operation.ask) {
            (Outcome::Known(_, reply), _) => {
                let revision = reply.revision();
                revision.is_none_or(|at| at == model.revision || at == model.revision + 1)
            }
            // It may be without effect on keys and yet explain something.
            (Outcome::Unknown, Ask::Revoke(lease)) => model.leases.contains(lease),
            (Outcome::Unknown, _) => self.may_make(at, model.revision + 1),
        }
    }

    /// Whether a request without an answer may have made this revision.
    fn may_make(&self, at: usize, made: i64) -> bool {
        match self.pinned.get(&at) {
            Some(pinned) => made == *pinned,
            None => made <= self.newest && !self.claimed.contains(&made),
        }
    }

    /// Whether the end of a lease without keys, which nobody sees, explains that somebody was
    /// told there is no such lease. Clients use a lease only once they know it is there, so
    /// nothing else that is without effect on keys explains anything.
    fn explains_refusal(&self, state: &State, ask: &Ask) -> bool {
        let Ask::Revoke(lease) = ask else {
            return false;
        };
        self.callable(state).into_iter().any(|at| {
            let operation = &self.history.operations[at];
            let refused = matches!(&operation.outcome, Outcome::Known(_, Reply::LeaseNotFound));
            refused && operation.ask.names_lease(*lease)
        })
    }

    fn agrees_with_watch(&self, after: &Model, done: &Done) -> bool {
        let watched = self.history.watched.get(&after.revision);
        done.changes.is_empty() || watched.is_none_or(|watched| *watched == done.changes)
    }

    fn note_dead_end(&mut self, state: &State) {
        let reached = self.answered.len() - state.left;
        if self
            .farthest
            .as_ref()
            .is_some_and(|(best, _)| *best >= reached)
        {
            return;
        }
        let blocked = self
            .callable(state)
            .into_iter()
            .filter(|at| !self.is_open(*at));
        let blocked: Vec<String> = blocked
            .map(|at| {
                let operation = &self.history.operations[at];
                let would = self.outcome(&state.model, at).1.reply;
                format!("\n  {operation:?}\n    would be answered {would:?}")
            })
            .collect();
        let text = format!(
            "at revision {}, {} answers are left; next could be:{}",
            state.model.revision,
            state.left,
            blocked.concat()
        );
        self.farthest = Some((reached, text));
    }
}

/// The revision that wrote each value that anybody saw, and the newest revision seen.
fn makers(history: &History) -> (BTreeMap<Value, i64>, i64) {
    let mut makers = history.glimpsed.clone();
    let mut newest = makers.values().copied().max().unwrap_or_default();
    newest = newest.max(history.first.revision);
    for operation in &history.operations {
        if let Outcome::Known(_, reply) = &operation.outcome {
            newest = newest.max(reply.revision().unwrap_or_default());
            makers.extend(reply.seen().map(|seen| (seen.value, seen.modified)));
        }
    }
    for (revision, changes) in &history.watched {
        newest = newest.max(*revision);
        let set = changes.values().flatten();
        makers.extend(set.map(|seen| (seen.value, seen.modified)));
    }
    (makers, newest)
}

/// The revision a request made, by its answer.
fn made_by(ask: &Ask, reply: &Reply) -> Option<i64> {
    let changed = match (ask, reply) {
        (Ask::Put(_), Reply::Put(..)) => true,
        (_, Reply::Deleted(_, prev)) => prev.is_some(),
        (Ask::Txn(txn), Reply::Txn(_, succeeded, steps)) => {
            use crate::history::Op;
            let ops = if *succeeded {
                &txn.success
            } else {
                &txn.failure
            };
            ops.iter().zip(steps).any(|(op, step)| match op {
                Op::Get(_) => false,
                Op::Put(_) => true,
                Op::Delete(_) => step.is_some(),
            })
        }
        _ => false,
    };
    reply.revision().filter(|_| changed)
}

#[cfg(test)]
mod tests;
