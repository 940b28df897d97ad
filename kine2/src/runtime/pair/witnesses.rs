//! Sessions with the witnesses that the unit has to do with: the one in force, and one that is to
//! take its place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::BytesMut;
use kine2_peer::framing::{MessageReader, put};
use kine2_peer::wire::{call_to_wire, word_from_wire};
use kine2_proto::kine2::{
    Nothing, WitnessDown, WitnessHello, WitnessUp, WitnessWelcome, witness_down, witness_hello,
    witness_up,
};
use kine2_replication::{Arbiter, Event as ReplicaEvent, WitnessCall, WitnessId, WitnessLife};
use kine2_trust::{Trust, nobody};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::{debug, info, trace, warn};

use crate::runtime::shared::{Finished, Shared};

/// Version of the protocol that is spoken.
const VERSION: u32 = 1;
/// Calls that wait for a session; the core says again what is lost.
const CALLS_MAX: usize = 256;
/// Bytes of the longest word.
const WORD_BYTES_MAX: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pauses between attempts, doubling.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A quiet session says that it is there (`repl section 8`, witness_hb).
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// A witness that says nothing for so long is lost: three signs of life are missing.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The same while a call waits for its answer: a middlebox may have forgotten the connection.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How often the session looks at its times.
const TICK: Duration = Duration::from_millis(250);
/// How long a witness that is no arbiter yet is kept in touch with.
const CANDIDATE_KEPT: Duration = Duration::from_secs(120);

/// The sessions.
#[derive(Debug)]
pub(super) struct Witnesses {
    shared: Arc<Shared>,
    trust: Arc<Trust>,
    sessions: Mutex<BTreeMap<WitnessId, Session>>,
    /// Witnesses that are to become the arbiter, where they are, and until when they are kept.
    candidates: Mutex<BTreeMap<WitnessId, (String, Duration)>>,
}

#[derive(Debug)]
struct Session {
    address: String,
    calls: mpsc::Sender<WitnessCall>,
    task: tokio::task::JoinHandle<()>,
    /// Why it is not up; empty if it is.
    trouble: Arc<Mutex<String>>,
}

impl Witnesses {
    pub(super) fn new(shared: Arc<Shared>, trust: Arc<Trust>) -> Self {
        Self {
            shared,
            trust,
            sessions: Mutex::default(),
            candidates: Mutex::default(),
        }
    }

    /// A witness that is to become the arbiter.
    pub(super) fn add_candidate(&self, id: WitnessId, address: String) {
        let until = self.shared.now() + CANDIDATE_KEPT;
        self.candidates.lock().insert(id, (address, until));
        self.follow();
    }

    /// Opens and ends sessions as the configuration in force wants.
    pub(super) fn follow(&self) {
        let now = self.shared.now();
        let mut wanted = BTreeMap::new();
        let mut candidates = self.candidates.lock();
        candidates.retain(|_, (_, until)| *until > now);
        for (id, (address, _)) in candidates.iter() {
            wanted.insert(*id, address.clone());
        }
        drop(candidates);
        {
            let node = self.shared.node.lock();
            let hard = node.unit().hard_state();
            for config in hard.prop.iter().chain([&hard.config]) {
                if let Arbiter::Witness { id, address } = &config.arbiter {
                    wanted.insert(*id, address.clone());
                }
            }
        }
        let mut sessions = self.sessions.lock();
        sessions.retain(|id, session| {
            let is_wanted = wanted.get(id) == Some(&session.address);
            if !is_wanted {
                session.task.abort();
            }
            is_wanted
        });
        for (id, address) in wanted {
            sessions.entry(id).or_insert_with(|| self.open(id, address));
        }
    }

    fn open(&self, id: WitnessId, address: String) -> Session {
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let trouble = Arc::new(Mutex::new("it was not reached yet".to_owned()));
        let line = Line {
            id,
            address: address.clone(),
            shared: Arc::clone(&self.shared),
            trust: Arc::clone(&self.trust),
            trouble: Arc::clone(&trouble),
        };
        Session {
            address,
            calls,
            task: tokio::spawn(line.keep(queue)),
            trouble,
        }
    }

    /// Calls the witness that the call names.
    pub(super) fn call(&self, call: WitnessCall) {
        let sessions = self.sessions.lock();
        let Some(session) = sessions.get(&call.witness) else {
            drop(sessions);
            return self.follow();
        };
        // What finds no room is lost; the core says it again.
        let _ = session.calls.try_send(call);
    }

    /// Why there is no session with this witness; empty if there is one.
    pub(super) fn trouble(&self, id: WitnessId) -> Option<String> {
        let sessions = self.sessions.lock();
        sessions
            .get(&id)
            .map(|session| session.trouble.lock().clone())
    }
}

impl Drop for Witnesses {
    fn drop(&mut self) {
        for session in self.sessions.lock().values() {
            session.task.abort();
        }
    }
}

/// One session and how to make it again.
#[derive(Debug)]
struct Line {
    id: WitnessId,
    address: String,
    shared: Arc<Shared>,
    trust: Arc<Trust>,
    /// Why it is not up; empty if it is.
    trouble: Arc<Mutex<String>>,
}

impl Line {
    async fn keep(self, mut queue: mpsc::Receiver<WitnessCall>) {
        let mut pause = PAUSE_MIN;
        loop {
            // What was to be said in the session before is said again.
            while queue.try_recv().is_ok() {}
            let error = match timeout(CONNECT_TIMEOUT, self.connect()).await {
                Ok(Ok((stream, life))) => {
                    pause = PAUSE_MIN;
                    info!(address = self.address, "a session with the witness is open");
                    self.trouble.lock().clear();
                    self.came(ReplicaEvent::WitnessSession {
                        witness: self.id,
                        life,
                    });
                    let ended = self.serve(stream, &mut queue).await;
                    ended
                        .err()
                        .unwrap_or_else(|| anyhow::anyhow!("it was closed"))
                }
                Ok(Err(error)) => error,
                Err(_elapsed) => anyhow::anyhow!("no answer in {CONNECT_TIMEOUT:?}"),
            };
            let text = format!("{error:#}");
            let known = *self.trouble.lock() == text;
            if known {
                debug!(
                    address = self.address,
                    error = text,
                    "no session with the witness"
                );
            } else {
                warn!(
                    address = self.address,
                    error = text,
                    "no session with the witness"
                );
            }
            *self.trouble.lock() = text;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn came(&self, event: ReplicaEvent) {
        self.shared.finish(Finished::Came(event));
    }

    async fn connect(&self) -> anyhow::Result<(MessageReader<TlsStream<TcpStream>>, WitnessLife)> {
        let purpose = witness_hello::Purpose::Session(Nothing {});
        let config = self.trust.witness_client_config(self.id)?;
        let (reader, welcome) = greet(config, &self.address, purpose).await?;
        Ok((reader, WitnessLife(welcome.life)))
    }

    async fn serve(
        &self,
        reader: MessageReader<TlsStream<TcpStream>>,
        queue: &mut mpsc::Receiver<WitnessCall>,
    ) -> anyhow::Result<()> {
        let (stream, rest) = reader.into_parts();
        let (read, mut write) = tokio::io::split(stream);
        let mut reader = MessageReader::with_rest(read, rest, WORD_BYTES_MAX);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut said) = (Instant::now(), Instant::now());
        let mut unanswered: Option<Instant> = None;
        let mut number = 0;
        loop {
            let mut out = BytesMut::new();
            tokio::select! {
                down = reader.next::<WitnessDown>() => {
                    let Some(down) = down? else {
                        bail!("the witness closed it");
                    };
                    heard = Instant::now();
                    unanswered = None;
                    match down.message.context("a message of the witness is empty")? {
                        witness_down::Message::Word(word) => {
                            let word = Box::new(word_from_wire(word)?);
                            trace!(answers = word.answers, tell = ?word.tell, "the witness says");
                            self.came(ReplicaEvent::Witness(word));
                        }
                        witness_down::Message::KeepAlive(_) => {}
                        witness_down::Message::Bye(why) => bail!("the witness ends it: {why}"),
                    }
                }
                call = queue.recv() => {
                    let call = call.context("the sessions are given up")?;
                    trace!(number = call.number, ask = ?call.ask, "asks the witness");
                    put_up(&mut out, witness_up::Message::Call(call_to_wire(&call)));
                    while let Ok(call) = queue.try_recv() {
                        put_up(&mut out, witness_up::Message::Call(call_to_wire(&call)));
                    }
                    if call.ask.is_answered() {
                        unanswered.get_or_insert_with(Instant::now);
                    }
                }
                _ = ticks.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        bail!("the witness has said nothing for {SILENCE_MAX:?}");
                    }
                    if unanswered.is_some_and(|since| since.elapsed() > ANSWER_MAX) {
                        bail!("the witness does not answer");
                    }
                    if said.elapsed() >= KEEP_ALIVE {
                        number += 1;
                        put_up(&mut out, witness_up::Message::KeepAlive(number));
                    }
                }
            }
            if !out.is_empty() {
                said = Instant::now();
                write.write_all_buf(&mut out).await?;
                write.flush().await?;
            }
        }
    }
}

fn put_up(out: &mut BytesMut, message: witness_up::Message) {
    let message = Some(message);
    put(out, &WitnessUp { message });
}

/// Connects to a witness, which `config` knows by its certificate, and says what for.
///
/// # Errors
/// If it is not reached, is another one, or refuses.
pub(in crate::runtime) async fn greet(
    config: ClientConfig,
    address: &str,
    purpose: witness_hello::Purpose,
) -> anyhow::Result<(MessageReader<TlsStream<TcpStream>>, WitnessWelcome)> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(nobody(), stream).await?;
    let mut out = BytesMut::new();
    let hello = WitnessHello {
        version: VERSION,
        version_min: VERSION,
        purpose: Some(purpose),
    };
    put(&mut out, &hello);
    stream.write_all_buf(&mut out).await?;
    stream.flush().await?;
    let mut reader = MessageReader::new(stream, WORD_BYTES_MAX);
    let welcome: Option<WitnessWelcome> = reader.next().await?;
    let welcome = welcome.context("the witness closed the connection at once")?;
    if !welcome.refused.is_empty() {
        bail!("the witness refuses: {}", welcome.refused);
    }
    Ok((reader, welcome))
}
