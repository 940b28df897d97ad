//! A node that was away comes back: how long until it is in sync, and what clients notice.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::{JoinSet, LocalSet};

use crate::clusters;
use crate::grpc::Connection;
use crate::keys::{Random, Store, VALUE_BYTES};
use crate::load::{Client, Work, prepare_update};
use crate::meter::Meter;
use crate::plan::Load;
use crate::process::pin;
use crate::requests::Method;
use crate::servers::{CLIENT_CORE, SERVER_CORE};

/// Clients that write what the node misses.
const WRITERS: usize = 64;
/// Clients that write meanwhile, each at its pace.
const FOREGROUND: usize = 16;
const PACE: Duration = Duration::from_millis(20);
/// How long the foreground is measured before.
const BEFORE: Duration = Duration::from_secs(10);
const IN_SYNC_MAX: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(200);

/// Measures once and prints a line of a table.
pub(crate) fn run(kine2: &Path, dir: &Path, keys: usize, missed_mb: usize) -> anyhow::Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)?;
    let dir = dir.canonicalize()?;
    let kine2 = kine2.canonicalize()?;
    pin(SERVER_CORE)?;
    let cluster = clusters::pair(&kine2, &dir);
    pin(CLIENT_CORE)?;
    let cluster = cluster?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let measured =
        LocalSet::new().block_on(&runtime, measure(&kine2, &dir, &cluster, keys, missed_mb));
    down(&dir)?;
    println!("{}", measured?);
    Ok(())
}

async fn measure(
    kine2: &Path,
    dir: &Path,
    cluster: &clusters::Cluster,
    keys: usize,
    missed_mb: usize,
) -> anyhow::Result<String> {
    let primary = &cluster.addresses[0];
    let store = Store::preload(primary, keys, FOREGROUND).await?;
    let secondary = i32::try_from(cluster.left[1])?;
    let secondary = Pid::from_raw(secondary).context("a pid is not 0")?;
    kill_process(secondary, Signal::KILL)?;
    let (store, missed) = miss(primary, store, missed_mb).await?;
    let (store, before) = foreground(primary, store, async {
        tokio::time::sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    let begun = Instant::now();
    // The script waits until the node serves, and this program goes on meanwhile.
    let mut starting = Command::new("scripts/pair");
    starting
        .args(["restart".as_ref(), dir.as_os_str(), "b".as_ref()])
        .env("KINE2_BIN", kine2)
        .env("WITNESS_BIN", kine2.with_file_name("kine2-witness"))
        .stdout(std::process::Stdio::null());
    pin(SERVER_CORE)?;
    let started = starting.spawn();
    pin(CLIENT_CORE)?;
    let mut started = started.context("run scripts/pair")?;
    let in_sync = async {
        while !is_mirrored(kine2, dir)? {
            ensure!(begun.elapsed() < IN_SYNC_MAX, "b does not get in sync");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    };
    let (_, during) = foreground(primary, store, in_sync).await?;
    let took = begun.elapsed();
    ensure!(started.wait()?.success(), "scripts/pair restart failed");
    Ok(format!(
        "| {keys} | {missed} | {:.1} | {:.2} {:.2} | {:.2} {:.2} | {:.1} |",
        took.as_secs_f64(),
        before.0,
        before.1,
        during.0,
        during.1,
        during.1 / before.1
    ))
}

/// Writes what the node that is away misses, in MB.
async fn miss(address: &str, store: Store, mb: usize) -> anyhow::Result<(Store, usize)> {
    let updates = (mb << 20) / VALUE_BYTES;
    let connections = Connection::open_many(address, FOREGROUND).await?;
    let work = work(store, WRITERS);
    let mut clients = JoinSet::new();
    for (number, connection) in (0..WRITERS).zip(connections.iter().cycle()) {
        clients.spawn_local(Client::new(&work, connection, number).run(Load::Update));
    }
    while work.meter.ops() < updates as u64 {
        tokio::time::sleep(LOOK).await;
        ensure!(work.meter.errors() == 0, "{:?}", work.meter.first_error());
    }
    work.stopping.set(true);
    while clients.join_next().await.is_some() {}
    let missed = (usize::try_from(work.meter.ops())? * VALUE_BYTES) >> 20;
    let work = Rc::into_inner(work).context("a client is still there")?;
    Ok((work.store.into_inner(), missed))
}

/// Updates at a pace until `until` is over: their median and their 99th percentile in
/// milliseconds.
async fn foreground(
    address: &str,
    store: Store,
    until: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<(Store, (f64, f64))> {
    let connections = Connection::open_many(address, FOREGROUND).await?;
    let work = work(store, FOREGROUND);
    let mut clients = JoinSet::new();
    for (number, connection) in connections.into_iter().enumerate() {
        clients.spawn_local(pace(connection, number, Rc::clone(&work)));
    }
    let counted = work.meter.count_while(until).await?;
    work.stopping.set(true);
    while let Some(done) = clients.join_next().await {
        done??;
    }
    let figures = (counted.percentile_ms(50), counted.percentile_ms(99));
    let work = Rc::into_inner(work).context("a client is still there")?;
    Ok((work.store.into_inner(), figures))
}

async fn pace(connection: Connection, number: usize, work: Rc<Work>) -> anyhow::Result<()> {
    let mut random = Random::new(number);
    let mut ticks = tokio::time::interval(PACE);
    while !work.stopping.get() {
        ticks.tick().await;
        let (slot, request) =
            prepare_update(&work.store.borrow(), number, work.clients, &mut random);
        let begun = Instant::now();
        let answer = connection.call(Method::Txn, request).await?;
        work.meter.note(begun.elapsed());
        work.store.borrow_mut().revisions[slot] = crate::keys::written_revision(&answer)?;
    }
    Ok(())
}

fn work(store: Store, clients: usize) -> Rc<Work> {
    Rc::new(Work {
        meter: Meter::new(),
        store: RefCell::new(store),
        clients,
        stopping: Cell::new(false),
    })
}

fn is_mirrored(kine2: &Path, dir: &Path) -> anyhow::Result<bool> {
    let status = Command::new(kine2)
        .args(["status", "--data-dir"])
        .arg(dir.join("a"))
        .output()?;
    let text = String::from_utf8_lossy(&status.stdout);
    Ok(text.contains("can fail over now: yes"))
}

fn down(dir: &Path) -> anyhow::Result<()> {
    let status = Command::new("scripts/pair").arg("down").arg(dir).status()?;
    ensure!(status.success(), "scripts/pair down failed");
    Ok(())
}
