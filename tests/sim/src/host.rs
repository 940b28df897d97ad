//! Nodes in a simulation: what happens to them, and what they want done.

use std::cmp::Ordering;
use std::time::Duration;

use kine2_mvcc::{Command, Revision};
use kine2_node::{Cut, Done, Event, LogRecord, LogWrite, Output, Rejected, Work};
use kine2_replication::{
    Act, Body, Event as ReplicaEvent, Frame, Link, LogIndex, Notice, Standing, Tell, WitnessWord,
};

use crate::due::{Due, Said};
use crate::history::{Ask, Reply};
use crate::network::{WITNESS, up_to};
use crate::plan::ms;
use crate::process::{Caller, EngineJob, Process, RING_EVENTS_MAX, Stand, Waiter};
use crate::speech;
use crate::storage;
use crate::watching::Told;
use crate::world::World;

impl World {
    /// Gives an event to a node, has it do what is due, and does what it wants done. Nothing
    /// happens if it is down.
    ///
    /// # Panics
    /// When something that must hold does not.
    pub(crate) fn turn(&mut self, n: usize, event: Option<Event<Waiter>>) {
        let part = self.part.clone();
        let machine = &mut self.machines[n];
        let clock = machine.clock(self.now);
        let Some(process) = &mut machine.process else {
            return;
        };
        let before = process.stand(&part);
        let node = &mut process.node;
        for event in event.into_iter().chain([Event::Tick]) {
            node.apply(clock, event).expect("a state that can be read");
        }
        let output = node.take_output(clock).expect("a state that can be read");
        process.wake_at = node.next_wake(clock);
        let after = process.stand(&part);
        self.check_stand(n, before, after);
        if self.forcing {
            self.note_in_force();
        }
        self.expose(n, before.applied, after.applied);
        self.carry_out(n, output);
        self.poll_watches(n);
        self.note_state(n);
    }

    /// P1, P7: what an active node's commit says, whoever hears of it.
    fn check_stand(&mut self, n: usize, before: Stand, after: Stand) {
        let part = &self.part;
        let machine = &self.machines[n];
        let process = machine.process.as_ref().expect("it is up");
        let unit = process.node.unit();
        let config = unit.config();
        if after.is_active {
            assert_eq!(config.primary, machine.me, "P7: active and not the primary");
            assert!(config.has(part, &machine.me), "P7: active and not in sync");
        }
        let mirror = config.standing(part) == Some(Standing::Mirror);
        if after.is_active && after.commit > before.commit {
            self.truth.commits(&machine.me.name, config.id());
            let joint = unit.hard_state().pend_add.is_some();
            self.coverage.mark(match (joint, mirror) {
                (true, _) => "D2: committed while an ADD is in doubt",
                (false, true) => "L2: committed by both",
                (false, false) => "L2: committed alone",
            });
        }
        if after.is_active && !before.is_active {
            let leases = process.node.store().lease_ttls().map(|(id, _)| id);
            let last = LogIndex(process.node.last_index());
            self.activated[n] = Some((last, self.now, leases.collect()));
            if process.node.store().lease_ttls().next().is_some() {
                self.coverage.mark("T2: leases given their whole time");
            }
            self.coverage.mark(match mirror {
                true => "A2: active with the other node",
                false => "A1: alone and active by itself",
            });
        }
        if !after.is_active && after.applied > before.applied {
            self.coverage.mark("L5: applied at the other node");
        }
        if after.is_active && before.is_active && after.epoch > before.epoch {
            self.coverage.mark("A3: active across an epoch");
        }
        if after.run > before.run && before.run > 0 && after.epoch == before.epoch {
            self.coverage.mark("A5: a run raised in the same epoch");
        }
    }

    /// What a node applied is exposed by it.
    fn expose(&mut self, n: usize, before: LogIndex, after: LogIndex) {
        let machine = &mut self.machines[n];
        let process = machine.process.as_mut().expect("it is up");
        let name = &machine.me.name;
        // What a snapshot brought is not in the log.
        let first = before.next().max(machine.on_disk.base.index);
        for index in first.0..=after.0 {
            let index = LogIndex(index);
            let position = machine.on_disk.position(index);
            let position = position.expect("only what is durable is applied");
            if self.truth.expose(name, position) && index > machine.on_disk.base.index {
                let entry = process.log.entry(index);
                let command = Command::decode(&entry.payload).expect("commands are proposed");
                if let Command::LeaseRevoke { id } = command {
                    let ended = self.clients.leases.on_end(id, self.now);
                    if ended.unwrap_or_else(|what| panic!("a lease ends early: {what}")) {
                        self.coverage.mark("T3: a lease expired");
                    }
                }
            }
        }
        process.log.forget_through(after);
        self.note_activated(n, after);
        self.note_shown(n);
    }

    /// T2: a node that began to order writes has applied all that was ordered before: what it has of
    /// leases then gets its time from the beginning on.
    fn note_activated(&mut self, n: usize, applied: LogIndex) {
        let process = self.machines[n].process.as_ref().expect("it is up");
        if !process.node.is_active() {
            self.activated[n] = None;
        }
        if let Some((_, then, had)) = self.activated[n].take_if(|(last, ..)| applied >= *last) {
            let store = process.node.store();
            let left = had.into_iter().filter(|id| store.lease_ttl(*id).is_some());
            self.clients.leases.on_activation(left, then);
        }
    }

    /// What revisions did that nobody applied before.
    fn note_shown(&mut self, n: usize) {
        let shown = &mut self.clients.shown;
        let newest = shown.last_key_value().map_or(0, |(revision, _)| *revision);
        let process = self.machines[n].process.as_ref().expect("it is up");
        if process.node.store().revision().0 <= newest {
            return;
        }
        let events = process.node.store().events_since(Revision(newest + 1));
        let events: Vec<_> = events.map(|event| event.encoded().clone()).collect();
        let told = speech::told(&events);
        // Of more than is kept in memory the first may be a part only.
        let first = told.first().map_or(0, |told| told.revision);
        let is_cut = first > newest + 1 || events.len() >= RING_EVENTS_MAX;
        let whole = |told: &&Told| !is_cut || told.revision > first;
        for told in told.iter().filter(whole) {
            let changes = shown.entry(told.revision).or_default();
            changes.insert(told.key, told.became);
        }
    }

    fn carry_out(&mut self, n: usize, output: Output<Waiter>) {
        for work in output.work {
            match work {
                Work::Write(write) => self.write(n, write),
                Work::ReadLog(read) => {
                    let (life, after) = (self.machines[n].life, self.flush_time());
                    self.push(after, Due::LogRead(n, life, read));
                }
                Work::SwitchState => self.switch_state(n),
                Work::Act(act) => self.act(n, act),
            }
        }
        if output.streams_ended {
            self.end_watches_of(n);
        }
        for (waiter, answer) in output.answers {
            self.answer(n, waiter, answer);
        }
        let batch = output.state.map(EngineJob::Batch);
        let checkpoint = output.checkpoint.then_some(EngineJob::Checkpoint);
        for job in batch.into_iter().chain(checkpoint) {
            self.process(n).engine.push_back(job);
            let (life, after) = (self.machines[n].life, self.flush_time());
            self.push(after, Due::Engine(n, life));
        }
        if let Some(Cut { below: keep, .. }) = output.cut {
            let life = self.machines[n].life;
            self.push(Duration::ZERO, Due::Cut(n, life, keep));
        }
    }

    pub(crate) fn process(&mut self, n: usize) -> &mut Process {
        let process = self.machines[n].process.as_mut();
        process.expect("a node that wants something done is up")
    }

    fn act(&mut self, n: usize, act: Act) {
        match act {
            Act::Send(frame) => self.send(n, *frame),
            Act::Call(call) => self.call(n, *call),
            Act::MakeSnapshot { .. } => {
                let (life, after) = (self.machines[n].life, self.flush_time());
                self.push(after, Due::SnapshotMade(n, life));
            }
            Act::SendSnapshot { position, .. } => self.send_snapshot(n, position),
            Act::ReceiveSnapshot { position, .. } => self.process(n).receiving = Some(position),
            Act::Serve { active, .. } => {
                if !active {
                    self.end_watches_of(n);
                }
            }
            Act::Quarantine(what) => {
                let (life, after) = (self.machines[n].life, self.flush_time());
                self.push(after, Due::Quarantined(n, life, Box::new(what)));
            }
            // The gateway stands where the witness would.
            Act::Ping { number } => {
                let life = self.machines[n].life;
                let reached = !self.network.is_cut(n, WITNESS) && !self.network.is_cut(WITNESS, n);
                let after = self.network.delay(&self.plan, &mut self.rng) * 2;
                self.push(after, Due::Pinged(n, life, number, reached));
            }
            Act::Notice(notice) => self.on_notice(n, &notice),
            Act::Write(_) | Act::Apply { .. } | Act::Answer { .. } | Act::ReadLog { .. } => {
                panic!("the node does that itself")
            }
        }
    }

    fn on_notice(&mut self, n: usize, notice: &Notice) {
        let name = self.machines[n].me.name.clone();
        match notice {
            Notice::Adopted(_) => return,
            Notice::SwapOff => self.coverage.mark("notice: a handover called off"),
            Notice::PartFailed(_) => self.coverage.mark("notice: a disk failed"),
            Notice::Diverged(_) => {
                assert!(
                    self.was_forced,
                    "stops as diverged: {name}, without force: {notice:?}"
                );
            }
            Notice::Reverted(_) => {
                assert!(
                    self.was_set_back,
                    "set back, it says: {name}, and never was: {notice:?}"
                );
                self.coverage.mark("I4: a node knows that it was set back");
            }
            Notice::Twin(_) => panic!("twins: {name}, without force: {notice:?}"),
            Notice::Quarantined(_) | Notice::Refused(_) => {}
            Notice::WitnessRegressed => self
                .coverage
                .mark("W2: a node knows that the witness went back"),
        }
        self.tell_story(format!("{name}: {notice:?}"));
    }

    fn write(&mut self, n: usize, write: LogWrite) {
        for record in &write.records {
            match record {
                LogRecord::Truncate(to) => {
                    self.coverage.mark("L4: a tail cut");
                    let applied = self.process(n).applied();
                    let name = &self.machines[n].me.name;
                    self.truth.truncate(name, to.index, applied);
                }
                LogRecord::Entries(entries) => self.truth.log(entries),
                LogRecord::Reset(position, _) => {
                    let applied = self.process(n).applied();
                    assert!(applied <= position.index, "P4: a snapshot takes back");
                }
                LogRecord::Hard(_) => {}
            }
        }
        self.process(n).log.write(write);
        if !self.machines[n].is_slow {
            let after = self.flush_time();
            self.push(after, Due::Flush(n));
        }
    }

    pub(crate) fn flush_time(&mut self) -> Duration {
        let max = self.plan.flush_max;
        if self.plan.is_calm() {
            return max;
        }
        Duration::from_micros(100) + up_to(max, &mut self.rng)
    }

    pub(crate) fn delay(&mut self) -> Duration {
        self.network.delay(&self.plan, &mut self.rng)
    }

    pub(crate) fn on_flush(&mut self, n: usize) {
        let count = match self.plan.is_calm() {
            true => usize::MAX,
            false => 1 + self.rng.pick(4),
        };
        let machine = &mut self.machines[n];
        let Some(process) = machine.process.as_mut().filter(|p| !p.failed) else {
            return;
        };
        if machine.is_slow || process.log.under_way() == 0 {
            return;
        }
        match process.log.flush(count, &mut machine.on_disk) {
            Ok(flushed) => {
                if let Some(through) = flushed.through {
                    let part = self.part.clone();
                    let written = ReplicaEvent::Written { part, through };
                    self.turn(n, Some(Event::Replica(written)));
                }
                self.use_quiet_time(n);
            }
            Err(error) => self.on_disk_error(n, &error.to_string()),
        }
    }

    fn use_quiet_time(&mut self, n: usize) {
        let process = self.process(n);
        if process.log.under_way() > 0 {
            return;
        }
        match process.log.use_quiet_time() {
            Ok(is_full) => {
                process.node.set_log_full(is_full);
                if is_full {
                    self.coverage.mark("disk: no room for the next segment");
                }
            }
            Err(error) => self.on_disk_error(n, &error.to_string()),
        }
    }

    pub(crate) fn on_disk_error(&mut self, n: usize, error: &str) {
        self.process(n).failed = true;
        let line = format!("{}: its disk fails: {error}", self.machines[n].me.name);
        self.tell_story(line);
        let part = self.part.clone();
        self.turn(n, Some(Event::Replica(ReplicaEvent::DiskFailed { part })));
    }

    /// Disk writes of a machine are done again at their pace.
    pub fn make_fast(&mut self, n: usize) {
        let machine = &mut self.machines[n];
        machine.is_slow = false;
        let process = machine.process.as_ref();
        for _ in 0..process.map_or(0, |process| process.log.under_way()) {
            self.push(ms(1), Due::Flush(n));
        }
    }

    fn send(&mut self, n: usize, frame: Frame) {
        let to = 1 - n;
        let mark = match &frame.body {
            Body::Propose { .. } => Some("X1: an arbiter proposed"),
            Body::Nack { .. } => Some("L4: a stream opened again after a refusal"),
            Body::Tail { .. } => Some("A2: the tail of the other node fetched"),
            Body::Ack { .. } => Some("L3: acknowledged"),
            Body::Append { entries, .. } => {
                let durable = self.machines[n].on_disk.last().index;
                let last = entries.last().map(|entry| entry.position.index);
                (last > Some(durable)).then_some("L1: sent before it was durable")
            }
            _ => None,
        };
        mark.into_iter().for_each(|mark| self.coverage.mark(mark));
        if self.network.is_cut(n, to) {
            return;
        }
        if self.network.loses(&self.plan, &mut self.rng) {
            return self.coverage.mark("frame: lost");
        }
        let after = self.delay();
        if self.network.repeats(&self.plan, &mut self.rng) {
            self.coverage.mark("frame: repeated");
            let later = self.delay() * 3;
            self.push(later, Due::Frame(to, Box::new(frame.clone())));
        }
        self.push(after, Due::Frame(to, Box::new(frame)));
    }

    pub(crate) fn on_frame(&mut self, n: usize, frame: Box<Frame>) {
        if self.network.is_cut(1 - n, n) {
            return;
        }
        if let Body::ConfigNotice(config) = &frame.body
            && let Some(process) = &self.machines[n].process
            && config.epoch > process.node.unit().config().epoch
        {
            self.coverage.mark("C5: a configuration told by the peer");
        }
        self.turn(n, Some(Event::Replica(ReplicaEvent::Frame(frame))));
    }

    pub(crate) fn on_link(&mut self, n: usize, link: Link) {
        // The end of old streams is not told after new ones are up.
        if link != Link::Up && self.machines[1 - n].process.is_some() {
            return;
        }
        if let Some(process) = &mut self.machines[n].process
            && process.receiving.take().is_some()
        {
            self.coverage.mark("N5: an install given up half way");
        }
        self.turn(n, Some(Event::Replica(ReplicaEvent::Link(link))));
    }

    pub(crate) fn on_word(&mut self, n: usize, word: Box<WitnessWord>) {
        if !self.network.is_cut(WITNESS, n) {
            self.mark_told(n, &word);
            self.turn(n, Some(Event::Replica(ReplicaEvent::Witness(word))));
        }
    }

    /// C3: what a register says to a node.
    fn mark_told(&mut self, n: usize, word: &WitnessWord) {
        let (Tell::Register(told) | Tell::Moved(told)) = &word.tell else {
            return;
        };
        if let Some(process) = &self.machines[n].process {
            match told.epoch.cmp(&process.node.unit().config().epoch) {
                Ordering::Greater => self.coverage.mark("C3: told by the witness"),
                Ordering::Less => self.coverage.mark("C3: an old register proves nothing"),
                Ordering::Equal => {}
            }
        }
    }

    // Clients.

    pub(crate) fn on_request(&mut self, n: usize, caller: Caller, ask: Ask) {
        let machine = &mut self.machines[n];
        let clock = machine.clock(self.now);
        let Some(process) = &mut machine.process else {
            // Refused at once: nobody listens.
            let after = self.delay();
            return self.push(after, Due::Said(caller, Said::NotTried));
        };
        let floor = self.truth.exposed();
        let waiter = Waiter {
            caller,
            ask: ask.clone(),
            floor,
        };
        let event = match (&ask, speech::command(&ask)) {
            (_, Some(command)) => Event::Submit { command, waiter },
            (Ask::Renew(id), _) if process.node.reads_locally() => {
                let ttl = process.node.keep_alive(clock, *id);
                let said = Said::Reply(Reply::Renewed(ttl));
                let after = self.delay();
                return self.push(after, Due::Said(caller, said));
            }
            (Ask::Renew(id), _) => Event::KeepAlive { id: *id, waiter },
            (Ask::Get(_) | Ask::GetAt(..), _) if process.node.reads_locally() => {
                self.coverage.mark("R1: read locally");
                return self.answer(n, waiter, Ok(Done::Readable));
            }
            _ => Event::Read { waiter },
        };
        self.turn(n, Some(event));
    }

    fn answer(&mut self, n: usize, waiter: Waiter, answer: Result<Done, Rejected>) {
        let Waiter { caller, ask, floor } = waiter;
        let machine = &mut self.machines[n];
        let process = machine.process.as_mut().expect("it answers");
        let said = match answer {
            Ok(Done::Applied(applied)) => {
                if let Ask::Compact {
                    revision,
                    physical: true,
                } = ask
                {
                    storage::check_freed(&machine.state, revision);
                }
                Said::Reply(speech::reply(&ask, applied.revision.0, &applied.answer))
            }
            Ok(Done::Readable) => {
                self.truth.read(floor, process.applied());
                let config = process.node.unit().config();
                let mirror = config.standing(&self.part) == Some(Standing::Mirror);
                match (config.primary == machine.me, mirror) {
                    (false, _) => self.coverage.mark("R3: read at the other node"),
                    (true, true) => self.coverage.mark("R2: read after a confirmation"),
                    (true, false) => {}
                }
                Said::Reply(match ask {
                    Ask::Get(key) => process.read(key),
                    Ask::GetAt(key, revision) => process.read_at(key, revision),
                    other => panic!("{other:?} is no read"),
                })
            }
            Ok(Done::KeptAlive(ttl)) => Said::Reply(Reply::Renewed(ttl)),
            Err(Rejected::Refused(refusal)) => Said::Reply(speech::refusal(&ask, refusal)),
            Err(Rejected::NotPrimary(..)) => {
                self.coverage.mark("K2: asked where it is not served");
                Said::NotTried
            }
            Err(Rejected::Unavailable | Rejected::Busy) => Said::NotTried,
            Err(Rejected::Unknown) => Said::Unknown,
        };
        let after = self.delay();
        self.push(after, Due::Said(caller, said));
    }
}
