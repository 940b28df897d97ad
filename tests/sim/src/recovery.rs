//! After the faults: all comes back in time (REC1 to REC3), and what the clients saw is judged.

use std::sync::Arc;

use kine2_mvcc::{AlarmKind, HashJob, Revision, Store, StoreHash};
use kine2_replication::{Arbiter, Command, Link};

use crate::alarms::Alarm;
use crate::due::Due;
use crate::history::{Ask, LeaseId};
use crate::linearizability::{self, Verdict};
use crate::plan::ms;
use crate::process::{Process, open};
use crate::world::World;

impl World {
    /// No more faults: all is up, whole and connected.
    pub(crate) fn heal(&mut self) {
        self.tell_story("the faults end".to_owned());
        self.queue
            .retain(|_, due| !matches!(due, Due::Fault | Due::Episode(_) | Due::KeepImages));
        self.end_faults(&[0, 1]);
    }

    /// What is broken is mended, and these machines are up.
    pub(crate) fn end_faults(&mut self, up: &[usize]) {
        self.network.healed = true;
        self.open_links();
        self.queue.retain(|_, due| {
            !matches!(
                due,
                Due::Start(_)
                    | Due::Restart(_)
                    | Due::StartWitness(_)
                    | Due::Fast(_)
                    | Due::Mend(_)
                    | Due::Wiped(_)
                    | Due::Rot(_)
                    | Due::NetFast
            )
        });
        for w in 0..2 {
            self.start_witness(w);
        }
        // What waits for a frozen machine comes when it thaws.
        let thaw = self.machines.iter().map(|m| m.frozen_until).max();
        self.run_for(thaw.unwrap_or_default().saturating_sub(self.now));
        for n in up.iter().copied() {
            self.make_fast(n);
            self.on_mend(n);
            self.start(n);
            self.command(n, Command::Start);
            if self.machines[1 - n].process.is_some() {
                self.push(ms(1), Due::Link(n, Link::Up));
            }
        }
    }

    /// All is up and connected: the store is mirrored and served in time.
    pub(crate) fn must_mirror(&mut self, what: &str, most: std::time::Duration) {
        self.run_until(most, what, |world| {
            world.is_mirrored() && world.primary().is_some()
        });
    }

    /// REC1: both nodes and the witness: the store is served and mirrored again. Then REC2 or
    /// REC3, by chance.
    pub(crate) fn recover(&mut self) {
        self.must_mirror("REC1: mirrored and served", ms(60_000));
        self.must_answer("REC1: a client is answered", ms(10_000));
        // What was asked for before is over.
        self.run_for(ms(2000));
        self.must_mirror("REC1: it stays so", ms(20_000));
        self.coverage.mark("REC1: both nodes and the witness");
        if !matches!(self.config().arbiter, Arbiter::Witness { .. }) {
            return;
        }
        if self.rng.percent(40) {
            self.coverage.mark("REC2: both nodes, no witness");
            for w in 0..2 {
                self.crash_witness(w);
            }
            for n in 0..2 {
                self.cut_power(n);
            }
            for n in 0..2 {
                self.start(n);
            }
            self.run_until(ms(10_000), "REC2: both nodes serve", |world| {
                world.primary().is_some()
            });
        } else {
            self.coverage.mark("REC3: one node and the witness");
            let n = self.rng.pick(2);
            if self.rng.percent(50) {
                self.kill(n);
            } else {
                self.cut_power(n);
            }
            self.run_until(ms(10_000), "REC3: one node goes on", |world| {
                world.primary() == Some(1 - n)
            });
        }
        self.must_answer("a client is answered", ms(10_000));
    }

    /// A client is answered soon.
    fn must_answer(&mut self, what: &str, most: std::time::Duration) {
        let before = self.clients.answered;
        self.run_until(most, what, |world| world.clients.answered > before);
    }

    /// Judges what the clients saw.
    pub(crate) fn judge(&mut self) {
        self.stop_clients();
        if self.clients.alarms.nodes_raise || self.plan.alarms {
            self.clear_alarms();
        }
        if self.rng.percent(25) {
            self.outlive_leases();
        }
        // One last read of all, so that the end is known.
        self.ask_until_answered(Ask::Get(None));
        self.run_until(ms(2000), "all that is up has applied as much", |world| {
            world.has_applied_equally()
        });
        self.compare_states();
        self.judge_history();
        for n in 0..2 {
            self.settle(n);
        }
    }

    /// Clients ask for nothing more, and wait for nothing.
    pub(crate) fn stop_clients(&mut self) {
        self.clients.stopped = true;
        self.run_until(ms(5000), "clients come to rest", |world| {
            world.clients.are_idle()
        });
    }

    /// No alarm keeps leases from ending.
    fn clear_alarms(&mut self) {
        for alarm in [Alarm::NoSpace, Alarm::Corrupt] {
            let raise = false;
            self.ask_until_answered(Ask::Alarm { alarm, raise });
        }
    }

    /// What clients and watches were told can be explained.
    pub(crate) fn judge_history(&mut self) {
        let mut history = self.clients.history();
        self.watches.add_to(&mut history);
        let explained = match linearizability::check(&history) {
            Ok(explained) => explained,
            Err(Verdict::Undecided) => return self.coverage.mark("history: not decided"),
            Err(verdict) => panic!("{verdict}"),
        };
        for watch in self.watches.all() {
            let checked = watch.check(&explained.changes);
            checked.unwrap_or_else(|what| panic!("a watch and the history: {what}"));
        }
        let past = self
            .clients
            .compactions
            .check(&history.first.keys, &explained.changes);
        past.unwrap_or_else(|what| panic!("a read of the past: {what}"));
    }

    /// Nobody renews a lease any more: all of them end in time.
    fn outlive_leases(&mut self) {
        let since = self.now;
        let end = self.clients.leases.all_end_by(since) + ms(1);
        self.run_for(end - since);
        let overdue = self.clients.leases.overdue(self.now, since);
        let (machines, now) = (&self.machines, self.now);
        let left = |id: &LeaseId| {
            let id = *id;
            machines.iter().map(move |machine| {
                let process = machine.process.as_ref();
                process.map(|p| p.node.time_to_live(machine.clock(now), id))
            })
        };
        let left: Vec<_> = overdue.iter().flat_map(left).collect();
        assert!(
            overdue.is_empty(),
            "a lease does not end: {overdue:?} should have; the nodes have them for {left:?}"
        );
    }

    /// A client asks until it is answered.
    fn ask_until_answered(&mut self, ask: Ask) {
        for _ in 0..20 {
            let before = self.clients.answered;
            self.ask(0, ask.clone());
            self.run_until(ms(20_000), "the last requests end", |world| {
                world.clients.are_idle()
            });
            if self.clients.answered > before {
                return;
            }
        }
        panic!("{ask:?} was never answered");
    }

    fn has_applied_equally(&self) -> bool {
        let processes = self.machines.iter().filter_map(|m| m.process.as_ref());
        let mut applied = processes.map(Process::applied);
        let first = applied.next();
        applied.all(|other| Some(other) == first)
    }

    /// Nodes that are up have the same state.
    fn compare_states(&self) {
        let processes = self.machines.iter().filter_map(|m| m.process.as_ref());
        let states: Vec<_> = processes
            .map(|process| (process.applied(), look(process.node.store())))
            .collect();
        if let [(one, a), (other, b)] = &states[..] {
            assert_eq!(one, other, "both have applied all");
            assert_eq!(a, b, "both have the same state");
        }
    }

    /// A node that is about to stop frees the space of compactions and saves all it has: what is
    /// durable is what it knows.
    fn settle(&mut self, n: usize) {
        if self.machines[n].process.is_none() {
            return;
        }
        self.run_until(ms(5_000), "compactions are done", |world| {
            !world.process(n).node.store().compacting()
        });
        self.process(n).node.settle();
        self.turn(n, None);
        self.run_until(ms(5_000), "all is saved before a stop", |world| {
            world.process(n).node.is_settled()
        });
        let saved = open(&Arc::new(self.machines[n].state.image()));
        let known = look(self.process(n).node.store());
        assert_eq!(look(&saved), known, "what is saved is what is known");
    }
}

/// What two equal states have in common: their hash, leases, and alarms.
type Look = (StoreHash, Vec<(LeaseId, i64)>, [bool; 2]);

fn look(store: &Store) -> Look {
    let mut job = HashJob::start(store, Revision(0)).expect("the present");
    let hash = loop {
        let step = job.step(store).expect("a state in memory");
        if let Some(hash) = step {
            break hash;
        }
    };
    let alarms = [AlarmKind::NoSpace, AlarmKind::Corrupt].map(|kind| store.has_alarm(kind));
    (hash, store.lease_ttls().collect(), alarms)
}
