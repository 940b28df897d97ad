//! Carrying out what an operator orders.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use kine2_proto::kine2::{WitnessEnrol, witness_hello};
use kine2_replication::{
    Arbiter, Command, Epoch, GATEWAYS_MAX, LonePolicy, State, Timers, Unit, WaitReason, WitnessId,
};
use kine2_trust::{Code, CodeKind, joining_client, reachable};

use super::status::{NodeStatus, in_words, is_mirrored};
use super::wire::{Answer, Events, Order};
use super::{Admin, MESSAGE_BYTES_MAX};
use crate::runtime::gateway;
use crate::runtime::journal::{self, Ask, Entry, Kind};
use crate::runtime::pair::greet;
use crate::runtime::quarantine::size;

/// How long a change may take.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// How long a primary may take to serve again after a change, before a command is refused for it.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of events in an answer.
const EVENTS_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// Bytes of an event without its sentence.
const EVENT_BYTES: usize = 512;
/// How long a witness may take to let the cluster in.
const ENROL_TIMEOUT: Duration = Duration::from_secs(10);

impl Admin {
    /// Carries an order out, and keeps in the journal that it was given.
    pub(super) async fn carry_out(&self, order: Order) -> Answer {
        let Some(told) = order.told() else {
            return self.carry_out_untold(order).await;
        };
        let answer = self.carry_out_untold(order).await;
        let how = match &answer {
            // It holds a secret.
            Answer::Done(_) if told == "join-token" => "done".to_owned(),
            Answer::Done(what) => what.clone(),
            Answer::Refused(why) => format!("refused: {why}"),
            Answer::Failed(why) => format!("not done: {why}"),
            Answer::Status(_)
            | Answer::Events(_)
            | Answer::Quarantine(_)
            | Answer::Difference(_) => return answer,
        };
        let text = format!("an operator asked for `{told}`: {how}");
        self.pair.note(Kind::Command, text);
        answer
    }

    async fn carry_out_untold(&self, order: Order) -> Answer {
        match order {
            Order::Status => {
                let quarantine = (size(&self.data_dir), self.quarantine_bytes_max);
                Answer::Status(Box::new(NodeStatus::of(&self.pair, quarantine)))
            }
            Order::Events { after, last } => self.events(Ask { after, last }).await,
            Order::JoinToken { minutes } => match self.join_token(minutes) {
                Ok(code) => Answer::Done(code),
                Err(error) => Answer::failed(format!("{error:#}")),
            },
            Order::Swap { partial } => self.swap(partial).await,
            Order::Stop { force } => self.stop(force).await,
            Order::Start => self.start().await,
            Order::Promote {
                force,
                without_witness,
                part: None,
            } => self.promote(force, without_witness).await,
            Order::Promote {
                without_witness,
                part: Some(part),
                ..
            } => self.promote_part(&part, without_witness).await,
            Order::Rejoin { discard } => self.rejoin(discard).await,
            Order::Quarantined => self.quarantined().await,
            Order::QuarantineDiff { id } => self.quarantine_diff(id).await,
            Order::QuarantineDiscard { id } => self.quarantine_discard(id).await,
            Order::PolicySet { key, value } => self.set_policy(&key, &value).await,
            Order::WitnessAdd { code, old_lost } => match self.enrol(&code).await {
                Ok((id, address)) => {
                    self.pair.add_witness(id, address.clone());
                    self.change_arbiter(Arbiter::Witness { id, address }, old_lost)
                        .await
                }
                Err(error) => Answer::failed(format!("{error:#}")),
            },
            Order::WitnessRemove {
                prefer_primary,
                ping,
                lost,
            } => {
                if let Err(error) = check_gateways(&ping).await {
                    return Answer::Refused(format!("{error:#}"));
                }
                let policy = match prefer_primary {
                    _ if !ping.is_empty() => LonePolicy::Ping(ping),
                    true => LonePolicy::PreferPrimary,
                    false => LonePolicy::Stop,
                };
                self.change_arbiter(Arbiter::None(policy), lost).await
            }
        }
    }

    /// The newest of what was asked for, as much as a message holds.
    async fn events(&self, ask: Ask) -> Answer {
        let data_dir = self.data_dir.clone();
        let reading = tokio::task::spawn_blocking(move || journal::read(&data_dir, ask));
        let mut events = match reading.await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => return Answer::failed(format!("read the journal: {error}")),
            Err(error) => return Answer::failed(format!("read the journal: {error}")),
        };
        let mut room = EVENTS_BYTES_MAX;
        let fits = |event: &&Entry| {
            // The rest of an event is small.
            let bytes = 2 * event.text.len() + EVENT_BYTES;
            room = room.saturating_sub(bytes);
            room > 0
        };
        let count = events.iter().rev().take_while(fits).count();
        let events = events.split_off(events.len() - count);
        let node = self.look(|unit| unit.me().name.to_string());
        Answer::Events(Events { node, events })
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Unit) -> T) -> T {
        look(self.pair.node().unit())
    }

    /// Gives the unit a command and waits until `is_done`; `false` if it does not come to that.
    pub(super) async fn command(&self, command: Command, is_done: impl Fn(&Unit) -> bool) -> bool {
        self.pair.command(command);
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < CHANGE_MAX {
            tokio::time::sleep(LOOK).await;
            if self.look(&is_done) {
                return true;
            }
        }
        false
    }

    /// Waits while this node gets ready to serve, as it does for a moment after each change: a
    /// command that follows on another is not refused for that. Answers its state, and why it cannot
    /// change what both nodes keep to, if it cannot.
    pub(super) async fn settled(&self) -> (State, Option<Answer>) {
        let begun = tokio::time::Instant::now();
        loop {
            let (state, primary, is_primary) = self.look(|unit| {
                let primary = &unit.config().primary;
                (unit.state(), primary.name.to_string(), primary == unit.me())
            });
            let gets_ready = state == State::Wait(WaitReason::Resolving);
            if gets_ready && begun.elapsed() < SETTLE_MAX {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let why = match state {
                State::Prim | State::Alone => return (state, None),
                _ if is_primary => format!("this node is the primary, but does not serve: {state}"),
                _ => format!("only the primary can change that: `--node {primary}`"),
            };
            return (state, Some(Answer::Refused(why)));
        }
    }

    fn join_token(&self, minutes: u64) -> anyhow::Result<String> {
        let now = SystemTime::now();
        let trust = self.pair.trust();
        let addresses = match self.advertised.is_empty() {
            false => self.advertised.clone(),
            true => {
                let own = reachable(self.listens);
                let own = own.context("this machine's address is not known: set advertise-peer")?;
                vec![own.to_string()]
            }
        };
        let code = Code::new(
            CodeKind::Join,
            addresses,
            trust.fingerprint(),
            Duration::from_secs(minutes.saturating_mul(60)),
            now,
        )?;
        trust.codes().add(&code, now)?;
        Ok(code.to_string())
    }

    async fn swap(&self, partial: bool) -> Answer {
        let (state, _) = self.settled().await;
        let (mirrored, hears, primary) = self.look(|unit| {
            let primary = unit.config().primary.name.to_string();
            (is_mirrored(unit), unit.hears_arbiter(), primary)
        });
        match state {
            State::Prim if !hears => {
                return Answer::Refused(
                    "the witness does not answer, and nobody else can tell that the role has gone \
                     over: try again when `kine2 status` shows it"
                        .to_owned(),
                );
            }
            State::Prim => {}
            State::Second => {
                return Answer::Refused(format!(
                    "this node is not the primary: `kine2 swap --node {primary}`"
                ));
            }
            _ if !mirrored => {
                return Answer::Refused(
                    "the other node does not have all data: wait until it is in sync".to_owned(),
                );
            }
            state => return Answer::Refused(format!("this node is {state}: nothing to hand over")),
        }
        let begun = tokio::time::Instant::now();
        let handed_over = |unit: &Unit| unit.config().primary != *unit.me();
        if self.command(Command::Swap { partial }, handed_over).await {
            let to = self.look(|unit| unit.config().primary.name.to_string());
            Answer::Done(format!(
                "{to} is the primary now, after {:?}",
                begun.elapsed()
            ))
        } else {
            Answer::failed("the handover was called off: see the log of this node".to_owned())
        }
    }

    async fn stop(&self, force: bool) -> Answer {
        let (alone, state) = self.look(|unit| (!is_mirrored(unit), unit.state()));
        if state == State::Stop {
            return Answer::Done("it is stopped already".to_owned());
        }
        if alone && !force && matches!(state, State::Prim | State::Alone) {
            return Answer::Refused(
                "no other node has all data, so nobody could go on: `--force` stops all the same"
                    .to_owned(),
            );
        }
        let stopped = |unit: &Unit| unit.state() == State::Stop;
        match self.command(Command::Stop { force }, stopped).await {
            true => Answer::Done("stopped; `kine2 start` takes it in again".to_owned()),
            false => Answer::failed(
                "the other node did not take over: see the log of this node".to_owned(),
            ),
        }
    }

    async fn start(&self) -> Answer {
        let started = |unit: &Unit| unit.state() != State::Stop;
        match self.command(Command::Start, started).await {
            true => Answer::Done("started".to_owned()),
            false => Answer::failed("it did not start: see the log of this node".to_owned()),
        }
    }

    async fn promote(&self, force: bool, without_witness: bool) -> Answer {
        let (state, is_primary, epoch) = self.look(|unit| {
            let config = unit.config();
            (unit.state(), config.primary == *unit.me(), config.epoch)
        });
        if matches!(state, State::Prim | State::Alone) {
            return Answer::Done("this node serves already".to_owned());
        }
        if !force && !is_primary {
            return Answer::Refused(
                "this node is not the primary by the newest configuration it knows: what the other \
                 node acknowledged later would be lost. Start that node, or, if it is off for good, \
                 `kine2 promote --force`"
                    .to_owned(),
            );
        }
        let command = match force {
            true => Command::PromoteForce { without_witness },
            false => Command::Promote,
        };
        let serves = move |unit: &Unit| {
            let serves = matches!(unit.state(), State::Prim | State::Alone);
            serves && (!force || raised(unit.config().epoch, epoch))
        };
        match self.command(command, serves).await {
            true => Answer::Done("this node is the primary now, and serves".to_owned()),
            false => Answer::failed(
                "it does not serve: `kine2 status` says what it waits for".to_owned(),
            ),
        }
    }

    pub(super) async fn change_arbiter(&self, arbiter: Arbiter, old_lost: bool) -> Answer {
        if let (_, Some(refused)) = self.settled().await {
            return refused;
        }
        let wanted = arbiter.clone();
        let command = Command::ChangeArbiter { arbiter, old_lost };
        // It serves by it, too, before the next command comes.
        let done = move |unit: &Unit| {
            let serves = matches!(unit.state(), State::Prim | State::Alone);
            serves && unit.config().arbiter == wanted
        };
        match self.command(command, done).await {
            true => Answer::Done(match self.look(|unit| unit.config().arbiter.clone()) {
                Arbiter::Witness { address, .. } => format!("the witness at {address} decides now"),
                Arbiter::None(LonePolicy::Stop) => {
                    "there is no witness now: if a node is lost, the other waits for `kine2 promote`"
                        .to_owned()
                }
                Arbiter::None(LonePolicy::PreferPrimary) => {
                    "there is no witness now: the primary goes on without its peer".to_owned()
                }
                Arbiter::None(LonePolicy::Ping(gateways)) => format!(
                    "there is no witness now: either node goes on if {} answers it. unsafe-policy: \
                     where both reach it and not each other, both go on, and what one of them did \
                     goes to quarantine",
                    in_words(&gateways)
                ),
            }),
            false => Answer::failed(
                "it did not come into force yet; it is tried on, and `kine2 status` shows it"
                    .to_owned(),
            ),
        }
    }

    /// Has the witness that the code names let this cluster in.
    async fn enrol(&self, code: &str) -> anyhow::Result<(WitnessId, String)> {
        let code = Code::read(code.trim(), CodeKind::Enrol, SystemTime::now())?;
        let mut last = anyhow::anyhow!("the code names no address");
        for address in &code.addresses {
            let enrolling = self.enrol_at(address, &code);
            match tokio::time::timeout(ENROL_TIMEOUT, enrolling).await {
                Ok(Ok(id)) => return Ok((id, address.clone())),
                Ok(Err(error)) => last = error.context(format!("enrol at {address}")),
                Err(_elapsed) => last = anyhow::anyhow!("{address} does not answer"),
            }
        }
        Err(last)
    }

    async fn enrol_at(&self, address: &str, code: &Code) -> anyhow::Result<WitnessId> {
        let trust = self.pair.trust();
        let enrol = WitnessEnrol {
            secret: code.secret.0.to_vec().into(),
            cluster: trust.owner().cluster.0.to_be_bytes().to_vec().into(),
            authority_certificate: trust.authority_certificate().to_vec().into(),
        };
        let purpose = witness_hello::Purpose::Enrol(enrol);
        let (_, welcome) = greet(joining_client(code)?, address, purpose).await?;
        let id: [u8; 16] = welcome.witness[..].try_into().context("the witness's id")?;
        Ok(WitnessId(u128::from_be_bytes(id)))
    }
}

/// They are as many as can be asked, this process may ask them, and one of them answers now.
pub(super) async fn check_gateways(gateways: &[IpAddr]) -> anyhow::Result<()> {
    ensure!(
        gateways.len() <= GATEWAYS_MAX,
        "{} addresses to ping; at most {GATEWAYS_MAX} are accepted",
        gateways.len()
    );
    gateway::check_permitted(gateways)?;
    let within = Timers::default().ping_timeout;
    ensure!(
        gateways.is_empty() || gateway::any_answers(gateways, within).await,
        "{} does not answer within {within:?}: name an address that answers a ping",
        in_words(gateways)
    );
    Ok(())
}

/// A forced promotion makes a higher generation.
pub(super) fn raised(now: Epoch, before: Epoch) -> bool {
    now.generation() > before.generation()
}
