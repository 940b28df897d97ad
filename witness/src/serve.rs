//! `kine2-witness serve`: wires the parts, and the loop: wait, apply, drain.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use kine2_replication::WitnessLife;
use kine2_trust::{OpenCodes, RefusalCounts, Requirement, member_server, witness_id_of};
use kine2_witness_core::{Options, Register, Witness};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_rustls::TlsAcceptor;

use crate::authorities::Enrolled;
use crate::connection::{Shared, TlsAcceptorDebug};
use crate::disk::Disk;
use crate::limits::INPUTS_MAX;
use crate::listener::{bind_status, listen, tell_status};
use crate::record::{Identity, Record};
use crate::service::{Input, Promise, Service};
use crate::store::{Store, StoreError};

/// The codes that were given out.
pub(crate) const CODES: &str = "enrol-codes";

/// Serves until it is told to stop.
///
/// # Errors
/// If it cannot start, and if the state file cannot be written.
pub(crate) async fn serve(dir: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let (store, identity, records) = Store::open(dir, SystemTime::now())?;
    let (registers, enrolled) = take_apart(records)?;
    let witness = witness_id_of(&identity.certificate);
    let life = WitnessLife(random()?);
    let keys: Vec<_> = registers.iter().map(|one| one.config.key()).collect();
    let mut options = Options::default();
    if registers.is_empty() {
        // What is made from now on cannot come from an old copy of the store (`repl W4`).
        options.probation = Duration::ZERO;
    }
    let core = Witness::new(witness, life, registers, options, Duration::ZERO);
    let enrolled = Arc::new(enrolled);
    let (inputs, arriving) = mpsc::channel(INPUTS_MAX);
    let shared = Arc::new(Shared {
        witness,
        life,
        acceptor: acceptor(&identity, Arc::clone(&enrolled))?,
        codes: OpenCodes::at(dir.join(CODES)),
        counts: RefusalCounts::default(),
        inputs,
    });
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("listen on {address}"))?;
    let status = bind_status(dir).context("open the socket for status")?;
    let disk = Disk::start(store).context("start the disk's thread")?;
    let units = keys.len();
    let listening = listener.local_addr()?;
    tracing::info!(witness = %format!("{:032x}", witness.0), %listening, units, "serving");
    tokio::spawn(listen(listener, Arc::clone(&shared)));
    tokio::spawn(tell_status(status, shared));
    let service = Service::new(core, enrolled, keys);
    Loop {
        service,
        disk,
        promise: None,
        started: Instant::now(),
    }
    .run(arriving)
    .await
    .context("the state file can no longer be written: nothing is answered any more")
}

fn acceptor(identity: &Identity, enrolled: Arc<Enrolled>) -> anyhow::Result<TlsAcceptorDebug> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.to_vec()));
    let chain = vec![identity.certificate.clone()];
    let config = member_server(chain, key, enrolled, Requirement::Optional);
    let config = config.context("use the witness's certificate")?;
    Ok(TlsAcceptorDebug(TlsAcceptor::from(Arc::new(config))))
}

fn take_apart(records: Vec<Record>) -> anyhow::Result<(Vec<Register>, Enrolled)> {
    let enrolled = Enrolled::default();
    let mut registers = Vec::new();
    for record in records {
        match record {
            Record::Identity(_) => {}
            Record::Cluster(cluster, certificate) => enrolled
                .insert(cluster, &certificate)
                .with_context(|| format!("use the authority of cluster {:032x}", cluster.0))?,
            Record::Register(register) => registers.push(*register),
        }
    }
    Ok((registers, enrolled))
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("get random numbers")?;
    Ok(u64::from_le_bytes(bytes))
}

struct Loop {
    service: Service,
    disk: Disk,
    /// What is so once the batch at the disk is durable.
    promise: Option<Promise>,
    started: Instant,
}

enum Happened {
    Input(Option<Input>),
    Disk(Result<(), StoreError>),
    Tick,
    Stop,
}

impl Loop {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            let tick = self.service.core.deadline();
            let due = self.started + tick.unwrap_or_default();
            let happened = tokio::select! {
                input = inputs.recv(), if self.service.has_room() => Happened::Input(input),
                outcome = self.disk.done(), if self.disk.is_busy() => Happened::Disk(outcome),
                () = sleep_until(due.into()), if tick.is_some() => Happened::Tick,
                _ = terminate.recv() => Happened::Stop,
                _ = interrupt.recv() => Happened::Stop,
            };
            let now = self.started.elapsed();
            match happened {
                Happened::Stop | Happened::Input(None) => break,
                Happened::Input(Some(input)) => {
                    self.service.handle(now, input);
                    // What is there already goes into the same batch.
                    while self.service.has_room()
                        && let Ok(input) = inputs.try_recv()
                    {
                        self.service.handle(now, input);
                    }
                }
                Happened::Disk(outcome) => {
                    outcome?;
                    let promise = self.promise.take();
                    let promise = promise.expect("the disk was busy with a batch");
                    self.service.on_durable(now, promise);
                }
                Happened::Tick => self.service.tick(now),
            }
            self.write();
        }
        tracing::info!("stopping");
        Ok(())
    }

    /// Gives the disk what has gathered while it was busy.
    fn write(&mut self) {
        if self.disk.is_busy() {
            return;
        }
        if let Some(batch) = self.service.take_batch() {
            self.promise = Some(batch.promise);
            self.disk.write(batch.records);
        }
    }
}
