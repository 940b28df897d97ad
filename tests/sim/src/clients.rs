//! Clients: each asks one thing at a time, of one node and then of the other, and keeps what it
//! was told. What may have been carried out is never asked again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alarms::{Alarm, Alarms};
use crate::compactions::Compactions;
use crate::due::{Due, Said};
use crate::history::{
    Ask, Changes, Compare, History, Key, LeaseId, Moment, Op, Operation, Outcome, Put, Relation,
    Reply, Target, Txn,
};
use crate::leases::Leases;
use crate::model::Model;
use crate::network::up_to;
use crate::plan::ms;
use crate::process::Caller;
use crate::speech::LEASE_TTL_SECONDS;
use crate::world::World;

/// Keys in use.
const KEYS: u64 = 5;
/// Attempts before a client gives a request up that nobody tried.
const TRIES_MAX: u32 = 40;

/// All clients, and what they saw.
#[derive(Debug, Default)]
pub struct Clients {
    /// Requests that were answered.
    pub answered: u64,
    /// When one was answered last.
    pub last_answer: Duration,
    /// The longest time between two answers.
    pub longest_gap: Duration,
    /// What was promised of leases.
    pub leases: Leases,
    /// What is known of compactions.
    pub compactions: Compactions,
    /// What is known of alarms.
    pub alarms: Alarms,
    /// What each revision did, by the node that applied it first: of what clients saw nothing of,
    /// their answers leave open what it was.
    pub shown: BTreeMap<i64, Changes>,
    /// They ask for nothing more.
    pub stopped: bool,
    clients: Vec<Client>,
    /// The store when the history began that is judged.
    first: Model,
    /// Requests, and whether they count: one that was surely never tried does not.
    operations: Vec<(Operation, bool)>,
    moment: Moment,
    values: u64,
    next_lease: LeaseId,
}

#[derive(Debug)]
struct Client {
    /// The node it asks first.
    node: usize,
    attempt: u64,
    patience: Duration,
    doing: Option<Doing>,
    /// Revisions of keys, as it saw them last.
    known: BTreeMap<Key, i64>,
    /// The newest revision it saw.
    newest: i64,
    leases: Vec<LeaseId>,
}

#[derive(Debug)]
struct Doing {
    /// Which of the operations.
    at: usize,
    tries: u32,
    /// It is sent; else the client pauses before the next attempt.
    is_sent: bool,
    sent: Duration,
}

impl Clients {
    /// What they saw.
    #[must_use]
    pub fn history(&self) -> History {
        let counted = self.operations.iter().filter(|(_, counts)| *counts);
        History {
            first: self.first.clone(),
            operations: counted.map(|(operation, _)| operation.clone()).collect(),
            watched: self.shown.clone(),
            ..History::default()
        }
    }

    /// From now on another history counts, of a store that is like this now.
    pub fn begin_anew(&mut self, first: Model, compacted: i64) {
        self.operations.clear();
        self.shown = BTreeMap::from([(first.revision, Changes::new())]);
        for lease in &first.leases {
            // Time may end it.
            self.moment += 1;
            let expiry = Operation {
                invoked: self.moment,
                ask: Ask::Revoke(*lease),
                outcome: Outcome::Unknown,
            };
            self.operations.push((expiry, true));
        }
        self.leases.forgive();
        self.compactions = Compactions::of(compacted);
        self.alarms = Alarms::unsure(self.alarms.nodes_raise);
        for client in &mut self.clients {
            client.known.clear();
            client.leases.clear();
            client.newest = first.revision;
        }
        self.first = first;
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// Attempts that wait for an answer of this node.
    #[must_use]
    pub fn waiting_at(&self, n: usize) -> Vec<Caller> {
        let waiting = self.clients.iter().enumerate().filter(|(_, client)| {
            let is_sent = client.doing.as_ref().is_some_and(|doing| doing.is_sent);
            is_sent && client.node == n
        });
        let caller = |(client, of): (usize, &Client)| Caller {
            client,
            attempt: of.attempt,
        };
        waiting.map(caller).collect()
    }

    /// From now on a client asks this node first.
    pub fn direct(&mut self, c: usize, n: usize) {
        self.clients[c].node = n;
    }

    /// Whether nobody waits for an answer.
    #[must_use]
    pub fn are_idle(&self) -> bool {
        self.clients.iter().all(|client| client.doing.is_none())
    }

    fn on_answered(&mut self, now: Duration) {
        self.answered += 1;
        let gap = now.saturating_sub(self.last_answer);
        self.longest_gap = self.longest_gap.max(gap);
        self.last_answer = now;
    }

    fn next_moment(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    fn next_value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }
}

impl World {
    /// One more client.
    pub fn add_client(&mut self) {
        let c = self.clients.clients.len();
        let patience = match self.plan.probes {
            true => ms(100),
            false => self.rng.choose(&[ms(100), ms(300), ms(1500)]),
        };
        self.clients.clients.push(Client {
            node: c % 2,
            attempt: 0,
            patience,
            doing: None,
            known: BTreeMap::new(),
            newest: self.clients.first.revision,
            leases: Vec::new(),
        });
        self.push(ms(10), Due::Client(c));
    }

    pub(crate) fn on_client_free(&mut self, c: usize) {
        if self.clients.stopped || self.clients.clients[c].doing.is_some() {
            return;
        }
        let ask = self.draw_ask(c);
        self.ask(c, ask);
    }

    /// A client asks for something.
    pub fn ask(&mut self, c: usize, ask: Ask) {
        let invoked = self.clients.next_moment();
        if let Ask::Grant(id) = ask {
            // Time may end it from now on.
            let expiry = Operation {
                invoked,
                ask: Ask::Revoke(id),
                outcome: Outcome::Unknown,
            };
            self.clients.operations.push((expiry, true));
        }
        let at = self.clients.operations.len();
        let operation = Operation {
            invoked,
            ask,
            outcome: Outcome::Unknown,
        };
        match operation.ask {
            Ask::Compact { revision, .. } => self.clients.compactions.on_asked(revision),
            Ask::Alarm { alarm, raise } => self.clients.alarms.on_asked(invoked, alarm, raise),
            _ => {}
        }
        let counts = operation.ask.is_ordered();
        self.clients.operations.push((operation, counts));
        self.clients.clients[c].doing = Some(Doing {
            at,
            tries: 0,
            is_sent: false,
            sent: self.now,
        });
        self.attempt(c);
    }

    fn attempt(&mut self, c: usize) {
        let after = self.delay();
        let client = &mut self.clients.clients[c];
        client.attempt += 1;
        let caller = Caller {
            client: c,
            attempt: client.attempt,
        };
        let doing = client.doing.as_mut().expect("it asks for something");
        doing.tries += 1;
        doing.is_sent = true;
        doing.sent = self.now;
        let (node, patience) = (client.node, client.patience);
        let ask = self.clients.operations[doing.at].0.ask.clone();
        let (leases, now) = (&mut self.clients.leases, self.now);
        match ask {
            Ask::Grant(id) => leases.on_grant(id, ttl(), now),
            Ask::Renew(id) => leases.on_renewal(id, now),
            Ask::Revoke(id) => leases.on_revoke(id),
            _ => {}
        }
        self.push(patience, Due::Timeout(caller));
        // Now and then a request or its answer gets lost between the two.
        if !self.network.loses(&self.plan, &mut self.rng) || self.rng.percent(70) {
            self.push(after, Due::Request(node, caller, ask));
        }
    }

    /// The request that this attempt is of, if it is still waited for.
    fn doing(&mut self, caller: Caller) -> Option<&mut Client> {
        let client = &mut self.clients.clients[caller.client];
        (client.attempt == caller.attempt && client.doing.is_some()).then_some(client)
    }

    pub(crate) fn on_said(&mut self, caller: Caller, said: Said) {
        let Some(client) = self.doing(caller) else {
            return;
        };
        let doing = client.doing.as_ref().expect("found above");
        let (at, tries) = (doing.at, doing.tries);
        match said {
            Said::Reply(reply) => {
                let moment = self.clients.next_moment();
                let judged = self.judge_reply(at, moment, &reply);
                judged.unwrap_or_else(|what| panic!("{what}"));
                if let Reply::Refused(_) = reply {
                    self.clients.operations[at].1 = false;
                } else {
                    self.coverage.mark("client: answered");
                    self.clients.on_answered(self.now);
                }
                self.learn(caller.client, at, &reply);
                self.clients.operations[at].0.outcome = Outcome::Known(moment, reply);
                self.free(caller.client);
            }
            Said::NotTried if tries < TRIES_MAX => {
                self.coverage.mark("client: sent to the other node");
                let client = &mut self.clients.clients[caller.client];
                client.node = 1 - client.node;
                // Nobody answers this attempt any more.
                client.attempt += 1;
                client.doing.as_mut().expect("found above").is_sent = false;
                let pause = Caller {
                    client: caller.client,
                    attempt: client.attempt,
                };
                self.push(ms(2), Due::Retry(pause));
            }
            Said::NotTried => {
                self.clients.operations[at].1 = false;
                self.free(caller.client);
            }
            Said::Unknown => self.on_unknown(caller.client, at),
        }
    }

    pub(crate) fn on_timeout(&mut self, caller: Caller) {
        let Some(client) = self.doing(caller) else {
            return;
        };
        let at = client.doing.as_ref().expect("found above").at;
        self.on_unknown(caller.client, at);
    }

    pub(crate) fn on_retry(&mut self, caller: Caller) {
        if self.doing(caller).is_some() {
            self.attempt(caller.client);
        }
    }

    fn on_unknown(&mut self, c: usize, at: usize) {
        self.coverage.mark("client: not known");
        // A read without an answer says nothing.
        let (operation, counts) = &mut self.clients.operations[at];
        *counts = operation.ask.is_write() && operation.ask.is_ordered();
        let client = &mut self.clients.clients[c];
        client.node = 1 - client.node;
        self.free(c);
    }

    fn free(&mut self, c: usize) {
        self.clients.clients[c].doing = None;
        let after = Duration::from_micros(500) + up_to(self.plan.pause_max, &mut self.rng);
        self.push(after, Due::Client(c));
    }

    /// Judges what order says nothing about.
    fn judge_reply(&mut self, at: usize, now: Moment, reply: &Reply) -> Result<(), String> {
        let Clients {
            operations,
            compactions,
            alarms,
            ..
        } = &mut self.clients;
        let Operation { invoked, ask, .. } = &operations[at].0;
        let (invoked, coverage) = (*invoked, &mut self.coverage);
        match (ask, reply) {
            (_, Reply::Refused(alarm)) => {
                coverage.mark(match alarm {
                    Alarm::NoSpace => "client: refused by NOSPACE",
                    Alarm::Corrupt => "client: refused by CORRUPT",
                });
                alarms.on_refused(invoked, *alarm)
            }
            (Ask::Put(_), Reply::Put(..)) => alarms.on_written(invoked),
            (Ask::Alarm { alarm, raise }, Reply::AlarmSet) => {
                coverage.mark("client: alarm set");
                alarms.on_done(invoked, now, *alarm, *raise);
                Ok(())
            }
            (Ask::Compact { revision, physical }, Reply::Compacted) => {
                coverage.mark(match physical {
                    true => "client: compacted, space freed",
                    false => "client: compacted",
                });
                compactions.on_done(invoked, now, *revision)
            }
            (Ask::Compact { revision, .. }, Reply::Gone) => compactions.on_refused(*revision),
            (Ask::GetAt(key, revision), Reply::Records(_, records)) => {
                coverage.mark("client: the past read");
                compactions.on_read(invoked, *key, *revision, records.clone())
            }
            (Ask::GetAt(_, revision), Reply::Gone) => {
                coverage.mark("client: the past is gone");
                compactions.on_refused(revision + 1)
            }
            (_, Reply::Future) => Err(format!("{ask:?}: a revision that was seen is yet to come")),
            _ => Ok(()),
        }
    }

    fn learn(&mut self, c: usize, at: usize, reply: &Reply) {
        let client = &mut self.clients.clients[c];
        client.newest = client.newest.max(reply.revision().unwrap_or_default());
        let sent = client.doing.as_ref().map_or(self.now, |doing| doing.sent);
        match (&self.clients.operations[at].0.ask, reply) {
            (Ask::Get(_), Reply::Records(_, records)) => {
                let seen = records.iter().map(|(key, seen)| (*key, seen.modified));
                client.known.extend(seen);
            }
            (Ask::Put(put), Reply::Put(revision, _)) => {
                client.known.insert(put.key, *revision);
            }
            (Ask::Grant(id), Reply::Granted) => {
                client.leases.push(*id);
                self.clients.leases.on_promise(*id, sent);
            }
            (Ask::Renew(id), Reply::Renewed(ttl_seconds)) => {
                if *ttl_seconds > 0 {
                    assert_eq!(*ttl_seconds, LEASE_TTL_SECONDS, "renewed for its TTL");
                    self.clients.leases.on_promise(*id, sent);
                    self.coverage.mark("T4: a lease renewed");
                } else {
                    let gone = self.clients.leases.on_gone(*id, self.now);
                    gone.unwrap_or_else(|what| panic!("a lease ends early: {what}"));
                    client.leases.retain(|known| known != id);
                }
            }
            _ => {}
        }
    }

    fn draw_ask(&mut self, c: usize) -> Ask {
        let key = Key::try_from(self.rng.below(KEYS)).expect("few keys");
        let value = self.clients.next_value();
        if self.plan.probes {
            let (key, lease) = (0, 0);
            return Ask::Put(Put { key, value, lease });
        }
        if let Some(ask) = self.draw_unordered(c, key) {
            return ask;
        }
        let client = &self.clients.clients[c];
        let lease = match client.leases.last() {
            Some(id) if self.rng.percent(30) => *id,
            _ => 0,
        };
        let put = Put { key, value, lease };
        match self.rng.below(100) {
            0..25 => Ask::Get(Some(key)),
            25..32 => Ask::Get(None),
            32..62 => Ask::Put(put),
            62..69 => Ask::Delete(key),
            69..76 => match client.leases.last() {
                Some(id) => Ask::Renew(*id),
                None => Ask::Get(None),
            },
            76..94 => Ask::Txn(self.draw_txn(c, put)),
            94..98 => {
                self.clients.next_lease += 1;
                Ask::Grant(self.clients.next_lease)
            }
            _ => match client.leases.first().copied() {
                Some(id) => {
                    self.clients.clients[c].leases.remove(0);
                    Ask::Revoke(id)
                }
                None => Ask::Get(None),
            },
        }
    }

    /// What is judged apart: of the past, and of alarms.
    fn draw_unordered(&mut self, c: usize, key: Key) -> Option<Ask> {
        let back = i64::try_from(self.rng.below(40)).expect("few");
        let oldest = self.clients.first.revision;
        let revision = self.clients.clients[c].newest - back;
        if self.plan.compacts && revision > oldest && self.rng.percent(6) {
            let one = self.rng.percent(50).then_some(key);
            return Some(match self.rng.below(3) {
                0 => Ask::Compact {
                    revision,
                    physical: self.rng.percent(30),
                },
                _ => Ask::GetAt(one, revision),
            });
        }
        let wants_alarm = self.plan.alarms || self.clients.alarms.nodes_raise;
        if wants_alarm && self.rng.percent(5) {
            return Some(Ask::Alarm {
                alarm: self.rng.choose(&[Alarm::NoSpace, Alarm::Corrupt]),
                raise: self.plan.alarms && self.rng.percent(25),
            });
        }
        None
    }

    /// As Kubernetes does: only if nobody changed it since.
    fn draw_txn(&mut self, c: usize, put: Put) -> Txn {
        let known = self.clients.clients[c].known.get(&put.key).copied();
        let other = (put.key + 1) % Key::try_from(KEYS).expect("few keys");
        let (target, relation, than) = match self.rng.below(10) {
            0 => (Target::Create, Relation::Equal, 0),
            1 => (Target::Version, Relation::Greater, 2),
            2 => (Target::Create, Relation::NotEqual, 0),
            3 => (Target::Mod, Relation::Less, known.unwrap_or_default() + 3),
            _ => (Target::Mod, Relation::Equal, known.unwrap_or_default()),
        };
        let success = match self.rng.below(4) {
            0 => vec![Op::Delete(put.key)],
            1 => vec![Op::Put(put), Op::Delete(other), Op::Get(put.key)],
            _ => vec![Op::Put(put)],
        };
        Txn {
            compare: Compare {
                key: put.key,
                target,
                relation,
                than,
            },
            success,
            failure: vec![Op::Get(put.key)],
        }
    }
}

fn ttl() -> Duration {
    Duration::from_secs(LEASE_TTL_SECONDS.unsigned_abs())
}
