//! The parts list: what a serving node is made of, and the order in which it starts and stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kine2_etcd_api::{Identity, Limits, ServeConfig as ApiConfig, Server};
use kine2_mvcc::{StoreOptions, WatchOptions};
use kine2_node::{Node, NodeOptions};
use kine2_replication::Timers;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use super::driver::{activate, drive, settle};
use super::identity::random_id;
use super::log_space::LogSpace;
use super::log_thread::LogThread;
use super::member::SingleMember;
use super::metrics::RuntimeMetrics;
use super::open::{LOG_DIR, OpenOptions, Opened, open};
use super::shared::Shared;
use super::state_thread::StateThread;
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
/// How long calls under way have to end at a stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT. `ready` is called once clients are answered.
///
/// # Errors
/// If the node cannot start, or a disk fails: then everything it had answered is durable, and
/// nothing more is answered.
pub(crate) fn serve(config: ServeConfig, ready: impl FnOnce()) -> anyhow::Result<()> {
    let started = Instant::now();
    let opened = open(&OpenOptions {
        name: config.name.clone(),
        data_dir: config.data_dir.clone(),
        segment_bytes: config.segment_bytes,
        backend: kine2_backend::Options {
            engine: config.state_engine.parse().context("state-engine")?,
            ..kine2_backend::Options::default()
        },
        store: StoreOptions {
            cache_bytes: config.cache_bytes,
            ..StoreOptions::default()
        },
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(run(&config, opened, started, ready))
}

async fn run(
    config: &ServeConfig,
    opened: Opened,
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
        store,
        loaded,
    } = opened;
    let (now, revision) = (started.elapsed(), store.revision());
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
        timers: Timers::default(),
        seed: random_id()?,
    };
    let mut node = Node::new(options, loaded, store, now);
    node.set_state_bytes(backend.stats()?);
    let shared = Arc::new(Shared::new(node, config.data_dir.clone(), started));
    let metrics = Arc::new(RuntimeMetrics::default());
    let space = LogSpace::new(config.data_dir.join(LOG_DIR));
    let log = LogThread::spawn(log, space, Arc::clone(&shared), Arc::clone(&metrics))
        .context("start the log thread")?;
    let state = StateThread::spawn(backend, Arc::clone(&shared), Arc::clone(&metrics))
        .context("start the state thread")?;
    activate(&shared, &log, &state).await?;
    let member = SingleMember::new(
        Arc::clone(&shared),
        state.handle(),
        Identity {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            name: config.name.clone(),
            peer_urls: config.advertise_client.clone(),
            client_urls: config.advertise_client.clone(),
        },
        config.quota_bytes,
        metrics,
    );
    info!(
        name = config.name,
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
        let driving = drive(&shared, &log, &state);
        tokio::pin!(serving, driving);
        let outcome = tokio::select! {
            failed = &mut driving => failed,
            () = &mut serving => Ok(()),
            () = signals.asked_to_stop() => Ok(()),
        };
        notify("STOPPING=1");
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
                // Who waits for an answer learns at once that none comes.
                shared.node.lock().abandon();
                serving.await;
                Err(failure)
            }
        }
    };
    let outcome = match outcome {
        Ok(()) => tokio::select! {
            settled = settle(&shared, &log, &state) => settled,
            () = signals.asked_to_stop() => {
                // Do not wait for the threads either: a disk that hangs keeps them for ever.
                bail!("asked again to stop before the state was durable; the log has all of it")
            }
        },
        Err(failure) => Err(failure),
    };
    log.join();
    state.join();
    outcome
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
