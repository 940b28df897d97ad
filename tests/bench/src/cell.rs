//! One cell: a load on one server, from a quiet server to a quiet server.

use std::cell::{self, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::{JoinSet, LocalSet};

use crate::disk::{Disk, Written};
use crate::figures::CellFigures;
use crate::grpc::Connection;
use crate::keys::Store;
use crate::load::{Client, Work};
use crate::meter::{Counted, Meter};
use crate::plan::{Cell, Load};
use crate::process::{Memory, Usage, reset_peak};
use crate::watchers::{self, Deliveries};

/// Load before the window.
const WARM_UP: Duration = Duration::from_secs(1);
/// For what is on its way when the load ends.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// A server and what is known of its content.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) address: &'a str,
    /// Of all its processes.
    pub(crate) pids: &'a [u32],
    pub(crate) store: Store,
}

/// Runs a cell and hands the store back. Processor time and bytes written are of everything the
/// load caused, from its first operation until the server is quiet again, so that work put off
/// counts as well; rates and latencies are of the window.
pub(crate) fn measure(
    target: Target<'_>,
    disk: &Disk,
    cell: Cell,
    connections: usize,
    window: Duration,
) -> anyhow::Result<(CellFigures, Store)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let Target {
        address,
        pids,
        store,
    } = target;
    reset_peak(pids)?;
    let disk_before = disk.written()?;
    let (work, before, counted) = LocalSet::new().block_on(&runtime, async {
        let connections = Connection::open_many(address, cell.clients.min(connections)).await?;
        let work = Rc::new(Work {
            meter: Meter::new(),
            store: RefCell::new(store),
            clients: cell.clients,
            stopping: cell::Cell::new(false),
        });
        let (before, counted) = run(&work, cell, &connections, window, pids).await?;
        anyhow::Ok((work, before, counted))
    })?;
    let load_ended = Usage::of(pids)?;
    let quiet = Usage::when_quiet(pids)?;
    let used = quiet.since(&before);
    let memory = Memory::of(pids)?;
    let written = disk
        .written()?
        .zip(disk_before)
        .map(|(after, before)| after.since(&before));
    // The clients' tasks went with the set that ran them.
    let work = Rc::into_inner(work).context("a client is still there")?;
    let tail = quiet.since(&load_ended).cpu;
    let figures = figures(&work.meter, &counted, &used, tail, written, memory);
    Ok((figures, work.store.into_inner()))
}

async fn run(
    work: &Rc<Work>,
    cell: Cell,
    connections: &[Connection],
    window: Duration,
    pids: &[u32],
) -> anyhow::Result<(Usage, Counted)> {
    let connection = |number: usize| &connections[number % connections.len()];
    let (mut clients, mut watching) = (JoinSet::new(), JoinSet::new());
    let before;
    if cell.load == Load::Watch {
        let deliveries = Deliveries::new(cell.clients);
        for number in 0..cell.clients {
            let stream = watchers::open(connection(number)).await?;
            watching.spawn_local(watchers::watch(
                stream,
                Rc::clone(work),
                Rc::clone(&deliveries),
            ));
        }
        before = Usage::of(pids)?;
        for number in 0..watchers::WRITERS {
            let (work, deliveries) = (Rc::clone(work), Rc::clone(&deliveries));
            let connection = connection(number).clone();
            clients.spawn_local(watchers::write(connection, number, work, deliveries));
        }
    } else {
        before = Usage::of(pids)?;
        for number in 0..cell.clients {
            clients.spawn_local(Client::new(work, connection(number), number).run(cell.load));
        }
    }
    tokio::time::sleep(WARM_UP).await;
    let counted = work.meter.count(window, pids).await?;
    work.stopping.set(true);
    let drained = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        bail!("operations took more than {DRAIN_MAX:?}");
    }
    watching.shutdown().await;
    Ok((before, counted))
}

fn figures(
    meter: &Meter,
    counted: &Counted,
    used: &Usage,
    tail: Duration,
    written: Option<Written>,
    memory: Memory,
) -> CellFigures {
    let seconds = counted.took.as_secs_f64();
    let counted_ops = counted.latencies_us.len() as f64;
    let all_ops = (meter.ops() as f64).max(1.0);
    CellFigures {
        ops_per_second: counted_ops / seconds,
        p50_ms: counted.percentile_ms(50),
        p99_ms: counted.percentile_ms(99),
        ops: meter.ops(),
        errors: meter.errors(),
        first_error: meter.first_error(),
        server_cpu_us_per_op: used.cpu.as_secs_f64() * 1e6 / all_ops,
        server_busy: counted.server_cpu.as_secs_f64() / seconds,
        server_tail_cpu_ms: tail.as_secs_f64() * 1e3,
        client_cpu_us_per_op: counted.client_cpu.as_secs_f64() * 1e6 / counted_ops.max(1.0),
        client_busy: counted.client_cpu.as_secs_f64() / seconds,
        disk_bytes_per_op: written.map(|written| written.bytes as f64 / all_ops),
        disk_flushes_per_op: written.map(|written| written.flushes as f64 / all_ops),
        process_bytes_per_op: used.written_bytes as f64 / all_ops,
        rss_bytes: memory.now,
        rss_peak_bytes: memory.peak,
    }
}
