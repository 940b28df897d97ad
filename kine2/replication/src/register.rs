//! The unit's side of the register: which form is wanted, and how it is asked for (`repl C1` to
//! C3, D1 to D4, section 10).

use std::collections::VecDeque;
use std::time::Duration;

use kine2_mutation::{Mutation, mutated};

use crate::config::{Config, Standing};
use crate::event::Link;
use crate::floors::ToldFloors;
use crate::force::Force;
use crate::forms::Form;
use crate::hard_state::PendingAdd;
use crate::ids::{NodeRef, PartName, WitnessId, WitnessLife};
use crate::limits::WITNESSES_MAX;
use crate::output::{Act, Notice};
use crate::part::Sender;
use crate::policy::{Arbiter, LonePolicy};
use crate::timers::HAND_OVER_AGE_MAX;
use crate::unit::{Phase, Unit};
use crate::witness::{Ask, Cas, Refusal, Report, Tell, WitnessCall, WitnessWord};

/// Calls to the witness, and what came back.
#[derive(Debug, Default)]
pub(crate) struct RegisterClient {
    /// The witness answered since the start.
    pub(crate) heard: bool,
    /// When it answered last.
    heard_at: Duration,
    /// Whether the peer has a session there.
    pub(crate) peer_connected: Option<bool>,
    /// The witness went backwards: it is ignored (`repl W2`).
    pub(crate) regressed: bool,
    /// The newest sessions, each with the witness's start it names.
    sessions: VecDeque<(WitnessId, WitnessLife)>,
    /// The operator's forced promotion, until the witness stored it.
    pub(crate) forcing: Option<Force>,
    /// Number of the last call.
    number: u64,
    /// Number of the last call before the own configuration was adopted.
    adopted_at: u64,
    attempt: Option<Attempt>,
    /// An ADD was refused: it is given up (`repl D3`).
    add_refused: bool,
    not_before: Duration,
    asked: Option<Duration>,
    hinted: Option<Duration>,
    /// The floors told last (`repl I4`).
    pub(crate) floors: Option<ToldFloors>,
    /// The witness was told what is here since the peer was heard last.
    pub(crate) loss_reported: bool,
}

/// A compare-and-swap that is being asked for.
#[derive(Debug)]
struct Attempt {
    cas: Cas,
    since: Duration,
    sent: Option<Duration>,
}

impl RegisterClient {
    /// Of the node's start number `boot`: calls are numbered over all starts.
    pub(crate) fn new(boot: u64) -> Self {
        let number = boot << 32;
        Self {
            number,
            adopted_at: number,
            ..Self::default()
        }
    }

    /// W7: from now on only this start of the witness is heard.
    pub(crate) fn on_session(&mut self, witness: WitnessId, life: WitnessLife) {
        self.sessions.retain(|(id, _)| *id != witness);
        if self.sessions.len() == WITNESSES_MAX {
            self.sessions.pop_front();
        }
        self.sessions.push_back((witness, life));
    }

    /// The word is not of an earlier start than the last session is with: the witness may have
    /// forgotten since what it said then.
    fn is_of_session(&self, word: &WitnessWord) -> bool {
        let mut sessions = self.sessions.iter();
        sessions.all(|(id, life)| *id != word.witness || *life == word.life)
    }

    /// Number of the last call.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// A change has been asked for lately: its outcome may come any moment.
    pub(crate) fn is_asking(&self, now: Duration, patience: Duration) -> bool {
        let attempt = self.attempt.as_ref();
        attempt.is_some_and(|attempt| now < attempt.since + patience)
    }

    pub(crate) fn on_adopted(&mut self) {
        self.adopted_at = self.number;
        self.attempt = None;
        self.add_refused = false;
        self.not_before = Duration::ZERO;
        self.regressed = false;
        self.forcing = None;
    }
}

impl Unit {
    /// The witness of the configuration, unless it is ignored: because an arbiter change is
    /// proposed (X2), or because it went backwards (W2).
    fn witness(&self) -> Option<WitnessId> {
        match &self.hard.config.arbiter {
            Arbiter::Witness { id, .. }
                if (self.hard.prop.is_none() || mutated(Mutation::PropLearnOld))
                    && !self.register.regressed =>
            {
                Some(*id)
            }
            _ => None,
        }
    }

    pub(crate) fn on_witness(&mut self, word: WitnessWord) {
        let late = !self.register.is_of_session(&word) && !mutated(Mutation::LateReply);
        if word.key != self.key || late {
            return;
        }
        self.on_new_witness(&word);
        // W1: only the witness of the configuration is heard.
        if self.witness() != Some(word.witness) {
            return;
        }
        self.register.heard = true;
        self.register.heard_at = self.now;
        // Before its content: by that this node may begin to serve.
        if let Some(floors) = word.floors {
            self.register.floors = Some(*floors);
            self.check_floors();
        }
        match word.tell {
            Tell::Register(config) | Tell::Moved(config) => self.learn(*config, word.answers),
            Tell::Refused(refusal) => self.on_refused(&refusal),
            Tell::Probe { nonce } => {
                self.peer.suspects_us = Some(self.now);
                let healthy = self.is_healthy();
                self.call(word.witness, Ask::ProbeAck { nonce, healthy });
            }
            Tell::Peer { connected } => self.register.peer_connected = Some(connected),
        }
    }

    /// C3: the content counts. An old one proves nothing, unless it was asked for after the own
    /// configuration was adopted: then the witness went backwards (W2).
    fn learn(&mut self, config: Config, answers: Option<u64>) {
        let own = &self.hard.config;
        if config.id().is_twin_of(&own.id()) {
            let id = config.id();
            return self.on_twin(id);
        }
        let older = config.epoch < own.epoch && mutated(Mutation::AdoptOlder);
        if config.epoch > own.epoch || older {
            return self.adopt(config);
        }
        if config.id() == own.id() && mutated(Mutation::PendClearByRead) {
            self.hard.pend_add = None;
            return self.write_hard();
        }
        if config.epoch < own.epoch && answers.is_some_and(|n| n > self.register.adopted_at) {
            self.register.regressed = true;
            self.push(Act::Notice(Notice::WitnessRegressed));
        }
    }

    fn on_refused(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::PrimaryAlive | Refusal::Probation => {
                self.register.not_before = self.now + self.timers.takeover_retry;
                if let Some(attempt) = &mut self.register.attempt {
                    attempt.sent = None;
                }
            }
            Refusal::Form(_) | Refusal::NotTheForm | Refusal::Record(_) => {
                self.register.add_refused = true;
            }
            Refusal::UnknownRegister
            | Refusal::OtherWitness
            | Refusal::Regressed
            | Refusal::Generation
            | Refusal::RegistersMax
            | Refusal::Reverted => {}
        }
    }

    pub(crate) fn call(&mut self, witness: WitnessId, ask: Ask) {
        self.register.number += 1;
        self.push(Act::Call(Box::new(WitnessCall {
            key: self.key.clone(),
            witness,
            caller: self.me.clone(),
            number: self.register.number,
            ask,
        })));
    }

    /// The register can be changed: it is here, or its witness answered lately. Writes are held back
    /// for a handover only then.
    #[must_use]
    pub fn hears_arbiter(&self) -> bool {
        let silence = self.timers.witness_heartbeat + 2 * self.timers.cas_timeout;
        match &self.hard.config.arbiter {
            Arbiter::None(_) => true,
            Arbiter::Witness { .. } => {
                self.register.heard && self.now <= self.register.heard_at + silence
            }
        }
    }

    /// The lead is active here and nothing is wrong with it.
    fn is_healthy(&self) -> bool {
        let lead = self.parts.get(&self.hard.config.lead);
        let served = self.is_primary() && !self.stopping && lead.is_some_and(|part| part.active);
        served && !self.is_stalled()
    }

    /// The own disk of the lead part stands still.
    fn is_stalled(&self) -> bool {
        let max = self.timers.own_disk_max;
        self.lead_owes
            .is_some_and(|(since, _)| self.now > since + max)
    }

    /// The peer's disk does not stand still: it has all of the lead part that was ordered here.
    fn peer_keeps_up(&self) -> bool {
        let lead = self.parts.get(&self.hard.config.lead);
        lead.is_some_and(|part| part.active && part.matched == Some(part.log.end()))
    }

    pub(crate) fn report(&mut self) {
        if let Some(witness) = self.witness() {
            let report = Report {
                epoch: self.hard.config.epoch,
                healthy: self.is_healthy(),
                held: Some(self.held()),
            };
            self.call(witness, Ask::Report(report));
        }
    }

    /// Asks for what is wanted, again until its outcome is known; the outcome is a configuration.
    pub(crate) fn drive_register(&mut self) {
        self.drive_arbiter_change();
        if self.hard.twin && self.register.forcing.is_none() {
            return;
        }
        if let Some(witness) = self.witness() {
            self.look(witness);
            self.hint(witness);
            self.report_loss();
        }
        self.drop_asked_form();
        let wanted = self.wanted_form();
        if !wanted.as_ref().is_some_and(|form| self.asks_gateway(form)) {
            self.gateway.forget();
        }
        let Some(form) = wanted else {
            self.register.attempt = None;
            return;
        };
        match self.witness() {
            Some(witness) => self.ask_for(witness, form),
            None => self.change_here(&form),
        }
    }

    /// Looks at the register: often while starting, now and then later.
    fn look(&mut self, witness: WitnessId) {
        let starting = !self.register.heard && matches!(self.phase, Phase::Probing { .. });
        let pause = if starting || self.register.forcing.is_some() {
            self.timers.cas_timeout
        } else {
            self.timers.witness_heartbeat
        };
        if self.register.asked.is_none_or(|at| self.now >= at + pause) {
            self.register.asked = Some(self.now);
            if let Some(force) = self.register.forcing.clone() {
                self.call(witness, Ask::Force(Box::new(force)));
            }
            self.call(witness, Ask::Get);
            self.report();
        }
    }

    fn hint(&mut self, witness: WitnessId) {
        let again = self.timers.suspect_hint;
        let due = self.register.hinted.is_none_or(|at| self.now >= at + again);
        if due && self.should_hint() {
            self.register.hinted = Some(self.now);
            self.call(witness, Ask::Suspect(self.hard.config.epoch));
        }
    }

    /// I4: the witness gets to know what was final with a peer that is not heard any more, as soon
    /// as that is noticed: should this node be lost, too, the peer is measured by it.
    fn report_loss(&mut self) {
        let silence = match self.is_primary() {
            true => self.now.saturating_sub(self.peer.answered),
            false => self.now.saturating_sub(self.peer.heard_active),
        };
        let lost = self.peer.link != Link::Up || silence > self.timers.suspect_hint;
        if self.hard.config.members.len() > 1 && lost != self.register.loss_reported {
            self.register.loss_reported = lost;
            self.report();
        }
    }

    fn ask_for(&mut self, witness: WitnessId, form: Form) {
        let expected = self.hard.config.id();
        let attempt = &self.register.attempt;
        let same = |attempt: &Attempt| attempt.cas.form == form && attempt.cas.expected == expected;
        if !attempt.as_ref().is_some_and(same) {
            let uid = self.uid_for(&form);
            let Ok(new) = form.make(&self.hard.config, &self.me, uid) else {
                return;
            };
            if let Form::Add { part, replica } = &form {
                // D2: durably, then send: every step from here on waits for this write.
                self.hard.pend_add = Some(PendingAdd {
                    part: part.clone(),
                    replica: replica.clone(),
                });
                self.write_hard();
            }
            let cas = Cas {
                form,
                expected,
                new,
                held: None,
            };
            if cas.form == Form::Remove && mutated(Mutation::NoCas) {
                return self.adopt(cas.new);
            }
            self.register.attempt = Some(Attempt {
                cas,
                since: self.now,
                sent: None,
            });
        }
        let (now, timeout) = (self.now, self.timers.cas_timeout);
        let not_before = self.register.not_before;
        let held = self.held();
        let attempt = self.register.attempt.as_mut().expect("it was made above");
        let due = attempt.sent.is_none_or(|at| now >= at + timeout);
        if due && now >= not_before {
            attempt.sent = Some(now);
            attempt.cas.held = Some(held);
            let cas = Box::new(attempt.cas.clone());
            self.call(witness, Ask::Cas(cas));
        }
    }

    /// Without a witness the register is at the primary: it makes the configuration durable and
    /// acts by it (`repl section 11`). No ADD is ever in doubt, as the change is one local write.
    fn change_here(&mut self, form: &Form) {
        if self.asks_gateway(form) && !self.failed {
            return self.go_alone_if_answered();
        }
        let allowed = match &self.hard.config.arbiter {
            Arbiter::Witness { .. } => false,
            Arbiter::None(LonePolicy::PreferPrimary | LonePolicy::Ping(_)) => true,
            // On the loss of a peer nobody goes on by itself.
            Arbiter::None(LonePolicy::Stop) => {
                self.peer_leaves() || !matches!(form, Form::Remove | Form::Drop(_))
            }
        };
        // With a failed disk no configuration can be made durable: after a restart this node would
        // make another one of the same epoch.
        if !allowed || self.failed || !self.is_primary() || self.hard.prop.is_some() {
            return;
        }
        let uid = self.seed.next();
        if let Ok(new) = form.make(&self.hard.config, &self.me, uid) {
            self.adopt(new);
        }
    }

    /// A change that the operator asked for is over once it is made, or cannot be made.
    fn drop_asked_form(&mut self) {
        let config = &self.hard.config;
        let over = match &self.asked_form {
            None => return,
            Some(Form::Policy(policies)) => config.policies == *policies,
            Some(form) => form.make(config, &self.me, 0).is_err(),
        };
        if over || !self.is_primary() {
            self.asked_form = None;
        }
    }

    /// The operator asks for a change; it is refused at once if it cannot be made as things are.
    pub(crate) fn ask_form(&mut self, form: Form) {
        match form.make(&self.hard.config, &self.me, 0) {
            Ok(_) => self.asked_form = Some(form),
            Err(error) => self.push(Act::Notice(Notice::Refused(error))),
        }
    }

    /// The form that the state calls for.
    fn wanted_form(&self) -> Option<Form> {
        // X2: no form while an arbiter change is proposed.
        if self.phase != Phase::Running || self.hard.twin || self.hard.prop.is_some() {
            return None;
        }
        if self.is_primary() {
            self.wanted_as_primary()
        } else {
            self.wanted_as_secondary()
        }
    }

    /// Takeover (`repl section 10`): suspected primary, self in sync for the lead, data whole.
    fn wanted_as_secondary(&self) -> Option<Form> {
        let config = &self.hard.config;
        let may_follow = !matches!(
            config.arbiter,
            Arbiter::None(LonePolicy::Stop | LonePolicy::PreferPrimary)
        );
        let diverged = self
            .parts
            .get(&config.lead)
            .is_some_and(|part| part.diverged);
        let holds = self.holds(&config.lead) || mutated(Mutation::StaleTakeover);
        let whole = holds && !diverged && !self.failed;
        let may = may_follow && whole && !self.stopping;
        (may && self.suspects_peer()).then_some(Form::Takeover)
    }

    fn wanted_as_primary(&self) -> Option<Form> {
        let config = &self.hard.config;
        let mirror = |name: &PartName| config.standing(name) == Some(Standing::Mirror);
        let any_mirror = config.in_sync.keys().any(mirror);
        let pend = self.hard.pend_add.as_ref();
        // I1: the data of a part is not what the configuration says this node has. Going on
        // without the peer would give up the only good copy.
        if let Some(lost) = self.lost_part() {
            let lead = *lost == config.lead;
            let to = lead || self.peer_has_all();
            let may = to && mirror(&config.lead) && !self.peer_is_gone();
            return may.then_some(Form::Abdicate);
        }
        // A stalled disk need not be a failed one; but who has a peer whose disk works hands over. It
        // must be the witness that says so: nothing becomes durable here.
        if self.is_stalled()
            && self.witness().is_some()
            && self.peer_keeps_up()
            && mirror(&config.lead)
            && self.peer_has_all()
            && !self.peer_is_gone()
        {
            return Some(Form::Abdicate);
        }
        if (any_mirror || pend.is_some()) && self.suspects_peer() {
            return Some(Form::Remove);
        }
        let names = self.part_names();
        let out =
            |name: &&PartName| mirror(name) && (self.parts[*name].peer_lost || self.is_slow(name));
        if let Some(name) = names.iter().find(out) {
            return Some(self.without_peer(name));
        }
        if let Some(PendingAdd { part: name, .. }) = pend {
            // D3: until the outcome is known, the same again; after a restart, or when refused,
            // the bump at the same expected epoch.
            let attempt = self.register.attempt.as_ref().map(|a| &a.cas.form);
            let same = attempt.filter(|form| matches!(form, Form::Add { .. }));
            return match same {
                Some(form) if !self.register.add_refused => Some(form.clone()),
                _ => Some(self.without_peer(name)),
            };
        }
        if let Some(form) = self.moving_form() {
            return Some(form);
        }
        if let Some(form) = &self.asked_form {
            return Some(form.clone());
        }
        if self.swap.is_some() && self.is_drained() {
            return Some(Form::Swap);
        }
        names.iter().find_map(|name| self.addition(name))
    }

    /// REMOVE for the lead, DROP for another part.
    fn without_peer(&self, name: &PartName) -> Form {
        if *name == self.hard.config.lead {
            Form::Remove
        } else {
            Form::Drop(name.clone())
        }
    }

    /// A part that the configuration says this node has, and that it has not: the lead first.
    fn lost_part(&self) -> Option<&PartName> {
        let config = &self.hard.config;
        let lost = |name: &&PartName| config.has(name, &self.me) && !self.holds(name);
        let lead = Some(&config.lead).filter(lost);
        lead.or_else(|| config.in_sync.keys().find(lost))
    }

    /// The peer is in sync for every part that this node is in sync for.
    fn peer_has_all(&self) -> bool {
        let config = &self.hard.config;
        let mut mine = config
            .in_sync
            .keys()
            .filter(|name| config.has(name, &self.me));
        config
            .other(&self.me)
            .is_some_and(|peer| mine.all(|name| config.has(name, peer)))
    }

    fn peer_is_gone(&self) -> bool {
        let age = self.now.saturating_sub(self.peer.answered);
        self.peer.refused || self.peer.link != Link::Up || age > HAND_OVER_AGE_MAX
    }

    /// D1: the part is alone and active here, the peer's stream is up and has all that is
    /// committed, in this epoch and run; nothing else is in doubt; K4: the lead first.
    fn addition(&self, name: &PartName) -> Option<Form> {
        let config = &self.hard.config;
        let part = &self.parts[name];
        let replica = part.peer.as_ref()?;
        let counted = match mutated(Mutation::SharedMatch) {
            true => &self.parts[&config.lead],
            false => part,
        };
        let level = counted
            .matched
            .is_some_and(|matched| matched >= counted.commit)
            || mutated(Mutation::AddNotCaughtUp);
        let ready = config.standing(name) == Some(Standing::Alone)
            && part.active
            && level
            && self.peer.link == Link::Up
            && matches!(part.sender, Sender::Sending(_))
            && !self.stopping
            && self.swap.is_none()
            && part.backoff.is_over(self.now)
            && !self.suspects_peer();
        let same = self.peer.node.as_ref() == Some(&replica.node);
        let lead_first = *name == config.lead
            || config.in_lead(&replica.node)
            || mutated(Mutation::AddPartFirst);
        (ready && same && lead_first).then(|| Form::Add {
            part: name.clone(),
            replica: replica.clone(),
        })
    }

    /// The peer of the configuration.
    pub(crate) fn config_peer(&self) -> Option<&NodeRef> {
        self.hard.config.other(&self.me)
    }
}
