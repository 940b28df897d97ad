//! The parts list: what a serving node is made of, and the order in which it starts and stops.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use kine2_etcd_api::{Identity, Limits, ServeConfig as ApiConfig, Server};
use kine2_mvcc::{StoreOptions, WatchOptions};
use kine2_node::{Node, NodeOptions};
use kine2_peer::{InboundReceiver, PeerNet, PeerOptions};
use kine2_replication::{Config, Loaded, Timers};
use kine2_trust::Trust;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::admin::{self, Admin};
use super::driver::{Driver, activate, drive, settle};
use super::gateway;
use super::identity::random_id;
use super::journal::{self, Journal, Kind};
use super::log_space::LogSpace;
use super::log_thread::LogThread;
use super::member::NodeMember;
use super::membership::{load_joined, trust_dir};
use super::metrics::RuntimeMetrics;
use super::open::{LOG_DIR, OpenOptions, Opened, StateOptions, open};
use super::pair::Pair;
use super::peers::PeerAddresses;
use super::quarantine::tell_if_large;
use super::shared::Shared;
use super::state_thread::StateThread;
use crate::allocator;
use crate::config::ServeConfig;
use crate::notify::notify;

/// Shortest TTL of a lease: one and a half elections of etcd, rounded up (`etcd S45`).
const LEASE_TTL_MIN: Duration = Duration::from_secs(2);
/// Bytes of records the state engine gets at once: sixteen of its blocks.
const SAVE_BYTES: usize = 256 << 10;
/// Time after which it gets fewer.
const SAVE_DELAY: Duration = Duration::from_millis(100);
/// Log entries after which the state is checkpointed.
const CHECKPOINT_ENTRIES: u64 = 20_000;
/// Bytes of records the state engine may lag behind.
const UNSAVED_BYTES_MAX: usize = 64 << 20;
const _: () = assert!(SAVE_BYTES < UNSAVED_BYTES_MAX);
/// How often the age of the certificate is looked at.
const RENEWAL_LOOK: Duration = Duration::from_secs(3600);
/// How long calls under way have to end at a stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT. `ready` is called once clients are answered.
///
/// # Errors
/// If the node cannot start, or a disk fails: then everything it had answered is durable, and
/// nothing more is answered.
pub(crate) fn serve(config: ServeConfig, ready: impl FnOnce()) -> anyhow::Result<()> {
    let started = Instant::now();
    let cluster = Cluster::open(&config)?;
    let state = StateOptions {
        backend: kine2_backend::Options {
            engine: config.state_engine.parse().context("state-engine")?,
            ..kine2_backend::Options::default()
        },
        store: StoreOptions {
            cache_bytes: config.cache_bytes,
            ..StoreOptions::default()
        },
    };
    let opened = open(&OpenOptions {
        name: match &cluster {
            Some(cluster) => cluster.name(),
            None => config.name.clone(),
        },
        joined: cluster.as_ref().and_then(|cluster| cluster.joined.clone()),
        data_dir: config.data_dir.clone(),
        segment_bytes: config.segment_bytes,
        state: state.clone(),
    })?;
    allocator::give_back();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(run(&config, opened, cluster, state, started, ready))
}

async fn run(
    config: &ServeConfig,
    opened: Opened,
    cluster: Option<Cluster>,
    state_options: StateOptions,
    started: Instant,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    let server = Server::bind(ApiConfig {
        client_urls: config.listen_client.clone(),
        admin_urls: config.listen_admin.clone(),
        tls: config.tls.clone(),
        limits: Limits {
            request_bytes_max: config.request_bytes_max,
            txn_ops_max: config.txn_ops_max,
        },
        drain_timeout: DRAIN_TIMEOUT,
    })?;
    let Opened {
        identity,
        log,
        backend,
        state_dir,
        store,
        loaded,
    } = opened;
    let peers = match &cluster {
        Some(cluster) => Some(cluster.listen(config, &loaded).await?),
        None => None,
    };
    let ended_well = journal::ended_well(&config.data_dir);
    let (now, revision) = (started.elapsed(), store.revision());
    let name = loaded.me.name.to_string();
    let options = NodeOptions {
        member_id: identity.member_id,
        quota_bytes: config.quota_bytes,
        command_bytes_max: log.max_payload_bytes(),
        lease_ttl_min: LEASE_TTL_MIN,
        save_bytes: SAVE_BYTES,
        save_delay: SAVE_DELAY,
        checkpoint_bytes: config.checkpoint_bytes,
        checkpoint_entries: CHECKPOINT_ENTRIES,
        checkpoint_interval: config.checkpoint_interval,
        unsaved_bytes_max: UNSAVED_BYTES_MAX,
        watch: WatchOptions {
            progress_interval: config.progress_interval,
            seed: random_id()?,
            ..WatchOptions::default()
        },
        timers: Timers {
            failback_delay: config.failback_delay,
            ..Timers::default()
        },
        seed: random_id()?,
    };
    let mut node = Node::new(options, loaded, store, now);
    node.set_state_bytes(backend.stats()?);
    let journal = Journal::open(&config.data_dir).context("start the journal's thread")?;
    let shared = Arc::new(Shared::new(
        node,
        config.data_dir.clone(),
        journal,
        config.quarantine_bytes,
        started,
    ));
    shared.note(Kind::Start, journal::words::started(ended_well));
    tell_if_large(&shared, config.quarantine_bytes);
    let metrics = Arc::new(RuntimeMetrics::default());
    let space = LogSpace::new(config.data_dir.join(LOG_DIR), config.log_keep_bytes);
    let log = LogThread::spawn(log, space, Arc::clone(&shared), Arc::clone(&metrics))
        .context("start the log thread")?;
    let state = StateThread::spawn(
        backend,
        state_dir,
        Arc::clone(&shared),
        Arc::clone(&metrics),
    )
    .context("start the state thread")?;
    let mut inbound = None;
    let pair = match (cluster, peers) {
        (Some(cluster), Some((net, receiver))) => {
            inbound = Some(receiver);
            let addresses = PeerAddresses::load(&config.data_dir, &config.peers)?;
            let shared = Arc::clone(&shared);
            let pair = Pair::new(shared, net, cluster.trust, state_options, addresses);
            Some(Arc::new(pair))
        }
        _ => None,
    };
    let member = NodeMember::new(
        Arc::clone(&shared),
        state.handle(),
        pair.clone(),
        Identity {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            name: name.clone(),
            peer_urls: match &pair {
                Some(_) => peer_urls(config),
                None => config.advertise_client.clone(),
            },
            client_urls: config.advertise_client.clone(),
        },
        config.quota_bytes,
        metrics,
    );
    let driver = Driver {
        shared: Arc::clone(&shared),
        log,
        state,
        pair: pair.clone(),
    };
    let mut tasks = JoinSet::new();
    match (&pair, inbound) {
        (Some(pair), Some(inbound)) => {
            tasks.spawn(Arc::clone(pair).take_in(inbound, member.clone()));
            tasks.spawn(admin::serve(Admin::new(Arc::clone(pair), config)));
            tasks.spawn(renew_certificate(Arc::clone(pair)));
        }
        // Nobody else has to be heard first.
        _ => activate(&driver).await?,
    }
    info!(
        name,
        cluster = format_args!("{:x}", identity.cluster_id),
        member = format_args!("{:x}", identity.member_id),
        revision = revision.0,
        took = ?started.elapsed(),
        "ready to serve client requests"
    );
    let mut signals = Signals::new()?;
    notify("READY=1");
    ready();
    let (stopped, stop) = tokio::sync::oneshot::channel::<()>();
    let serving = server.serve(member, async move {
        // A sender that is gone asks for a stop as well.
        let _ = stop.await;
    });
    let outcome = {
        let driving = drive(&driver);
        tokio::pin!(serving, driving);
        let outcome = tokio::select! {
            failed = &mut driving => failed,
            () = &mut serving => Ok(()),
            () = signals.asked_to_stop() => Ok(()),
        };
        notify("STOPPING=1");
        if outcome.is_ok() {
            shared.note(Kind::Stop, "the program was asked to end".to_owned());
        }
        if let (Some(pair), Ok(())) = (&pair, &outcome) {
            tokio::select! {
                () = pair.hand_over() => {}
                failed = &mut driving => warn!(?failed, "the role was not handed over"),
            }
        }
        shared.stop();
        drop(stopped);
        match outcome {
            Ok(()) => {
                info!("stopping");
                // What was submitted before the stop is still written and answered.
                tokio::select! {
                    () = &mut serving => Ok(()),
                    failed = &mut driving => failed,
                }
            }
            Err(failure) => {
                error!("{failure:#}; nothing more is served");
                shared.note(Kind::Failed, journal::words::failed(&failure));
                // Who waits for an answer learns at once that none comes.
                shared.node.lock().abandon();
                serving.await;
                Err(failure)
            }
        }
    };
    let outcome = match outcome {
        Ok(()) => tokio::select! {
            settled = settle(&driver) => settled,
            () = signals.asked_to_stop() => {
                // Do not wait for the threads either: a disk that hangs keeps them for ever.
                bail!("asked again to stop before the state was durable; the log has all of it")
            }
        },
        Err(failure) => Err(failure),
    };
    // What other tasks still hold of the node goes first.
    tasks.shutdown().await;
    driver.log.join();
    driver.state.join();
    shared.journal.close();
    outcome
}

/// What makes a data directory one of a cluster.
#[derive(Debug)]
struct Cluster {
    trust: Arc<Trust>,
    /// What a node that joined begins with.
    joined: Option<Config>,
}

impl Cluster {
    /// That of the data directory, unless it is to be served by itself.
    ///
    /// # Errors
    /// If the data directory is of no cluster and `single` was not said, or the other way round.
    fn open(config: &ServeConfig) -> anyhow::Result<Option<Self>> {
        let dir = trust_dir(&config.data_dir);
        match (config.single, dir.exists()) {
            (true, false) => return Ok(None),
            (false, true) => {}
            (true, true) => bail!(
                "{} belongs to a cluster: leave --single out",
                config.data_dir.display()
            ),
            (false, false) => bail!(
                "{} belongs to no cluster: `kine2 init` makes one, `kine2 join CODE` joins one, and \
                 `kine2 serve --single` serves one node by itself",
                config.data_dir.display()
            ),
        }
        let trust = Trust::open(&dir, SystemTime::now())?;
        Ok(Some(Self {
            trust: Arc::new(trust),
            joined: load_joined(&config.data_dir)?,
        }))
    }

    fn name(&self) -> String {
        self.trust.owner().node.name.to_string()
    }

    /// Listens for the peer.
    async fn listen(
        &self,
        config: &ServeConfig,
        loaded: &Loaded,
    ) -> anyhow::Result<(PeerNet, InboundReceiver)> {
        let owner = self.trust.owner();
        ensure!(
            owner.node == loaded.me && owner.cluster == loaded.hard.config.cluster,
            "the certificate is that of {owner}, the log that of {:?} of cluster {:x}",
            loaded.me,
            loaded.hard.config.cluster.0
        );
        gateway::check_permitted(gateway::gateways(&loaded.hard.config.arbiter))?;
        let listener = TcpListener::bind(config.listen_peer)
            .await
            .with_context(|| format!("listen-peer {}", config.listen_peer))?;
        let options = PeerOptions {
            cluster: owner.cluster,
            me: owner.node.clone(),
            boot: loaded.boot,
            client_urls: config.advertise_client.clone(),
        };
        Ok(PeerNet::start(options, Arc::clone(&self.trust), listener))
    }
}

/// Where the other node finds this one, as clients are told.
fn peer_urls(config: &ServeConfig) -> Vec<String> {
    let url = |address: &String| format!("https://{address}");
    match config.advertise_peer.is_empty() {
        true => vec![format!("https://{}", config.listen_peer)],
        false => config.advertise_peer.iter().map(url).collect(),
    }
}

/// Looks every hour whether the own certificate is to be renewed.
async fn renew_certificate(pair: Arc<Pair>) {
    loop {
        match pair.trust().renew(SystemTime::now()) {
            Ok(true) => info!("the certificate was renewed"),
            Ok(false) => {}
            Err(error) => error!(%error, "the certificate cannot be renewed"),
        }
        tokio::time::sleep(RENEWAL_LOOK).await;
    }
}

/// The signals that ask for a stop. They are caught from the moment the node says it is ready.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("wait for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("wait for SIGINT")?,
        })
    }

    async fn asked_to_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
