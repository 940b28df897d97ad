//! After the faults: all comes back in time (REC1 to REC3), and what the clients saw is judged.

use kine2_mvcc::{HashJob, Revision, StoreHash};
use kine2_replication::{Arbiter, Command, Link};

use crate::due::Due;
use crate::history::{Ask, LeaseId, Outcome};
use crate::linearizability;
use crate::plan::ms;
use crate::process::Process;
use crate::world::World;

impl World {
    /// No more faults: all is up, whole and connected.
    pub(crate) fn heal(&mut self) {
        self.tell_story("the faults end".to_owned());
        self.network.healed = true;
        self.open_links();
        self.queue.retain(|_, due| {
            !matches!(
                due,
                Due::Fault
                    | Due::Start(_)
                    | Due::Restart(_)
                    | Due::StartWitness(_)
                    | Due::Fast(_)
                    | Due::Mend(_)
                    | Due::Wiped(_)
                    | Due::NetFast
            )
        });
        for w in 0..2 {
            self.start_witness(w);
        }
        // What waits for a frozen machine comes when it thaws.
        let thaw = self.machines.iter().map(|m| m.frozen_until).max();
        self.run_for(thaw.unwrap_or_default().saturating_sub(self.now));
        for n in 0..2 {
            self.make_fast(n);
            self.on_mend(n);
            self.start(n);
            self.command(n, Command::Start);
            self.push(ms(1), Due::Link(n, Link::Up));
        }
    }

    /// REC1: both nodes and the witness: the store is served and mirrored again. Then REC2 or
    /// REC3, by chance.
    pub(crate) fn recover(&mut self) {
        self.run_until(ms(60_000), "REC1: mirrored and served", |world| {
            world.is_mirrored() && world.primary().is_some()
        });
        self.must_answer("REC1: a client is answered", ms(10_000));
        // What was asked for before is over.
        self.run_for(ms(2000));
        let still = "REC1: it stays so";
        self.run_until(ms(20_000), still, |world| {
            world.is_mirrored() && world.primary().is_some()
        });
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
        self.clients.stopped = true;
        self.run_until(ms(5000), "clients come to rest", |world| {
            world.clients.are_idle()
        });
        if self.rng.percent(25) {
            self.outlive_leases();
        }
        self.read_all();
        self.run_until(ms(2000), "all that is up has applied as much", |world| {
            world.has_applied_equally()
        });
        self.compare_states();
        let mut history = self.clients.history();
        self.watches.add_to(&mut history);
        let explained = linearizability::check(&history);
        let explained = explained.unwrap_or_else(|verdict| panic!("{verdict}"));
        for watch in self.watches.all() {
            let checked = watch.check(&explained.changes);
            checked.unwrap_or_else(|what| panic!("watch: {what}"));
        }
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
            "leases {overdue:?} should have ended; the nodes have them for {left:?}"
        );
    }

    /// One last read of all, so that the end is known.
    fn read_all(&mut self) {
        let c = 0;
        for _ in 0..20 {
            if self.last_was_answered() {
                return;
            }
            self.ask(c, Ask::Get(None));
            self.run_until(ms(20_000), "the last read ends", |world| {
                world.clients.are_idle()
            });
        }
        panic!("the last read was never answered");
    }

    fn last_was_answered(&self) -> bool {
        let history = self.clients.history();
        let last = history.operations.last();
        last.is_some_and(|last| {
            last.ask == Ask::Get(None) && matches!(last.outcome, Outcome::Known(..))
        })
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
        let hashes: Vec<_> = processes
            .map(|process| {
                let store = process.node.store();
                let mut job = HashJob::start(store, Revision(0)).expect("the present");
                let hash: StoreHash = loop {
                    let step = job.step(store).expect("a state in memory");
                    if let Some(hash) = step {
                        break hash;
                    }
                };
                (process.applied(), hash)
            })
            .collect();
        if let [(one, a), (other, b)] = &hashes[..] {
            assert_eq!(one, other, "both have applied all");
            assert_eq!(a, b, "both have the same state");
        }
    }
}
