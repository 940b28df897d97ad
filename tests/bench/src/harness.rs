//! Rounds: every server in turn, every load on each.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::Options;
use crate::process;
use crate::report;
use crate::servers::{Kind, Programs, Server};
use crate::workload::{self, Load, Measured};

/// The core the clients run on; the servers have the other.
const CLIENT_CORE: usize = 1;

/// Everything of one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) machine: String,
    pub(crate) keys: usize,
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
    pub(crate) cells: Vec<CellResult>,
    pub(crate) restarts: Vec<Restart>,
    pub(crate) disk: Vec<DiskProbe>,
}

/// One load on one server in one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CellResult {
    pub(crate) round: usize,
    pub(crate) server: Kind,
    pub(crate) load: Load,
    pub(crate) clients: usize,
    pub(crate) measured: Measured,
    pub(crate) server_cpu_us_per_op: f64,
    pub(crate) written_bytes_per_op: f64,
    pub(crate) rss_kib: u64,
    pub(crate) peak_rss_kib: u64,
}

/// A start on a store that is full.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Restart {
    pub(crate) round: usize,
    pub(crate) server: Kind,
    pub(crate) killed: bool,
    pub(crate) keys: usize,
    pub(crate) first_answer_ms: f64,
    pub(crate) rss_kib: u64,
}

/// The disk by itself: 4 KiB written and synced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DiskProbe {
    pub(crate) round: usize,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Every load with its clients.
fn cells() -> Vec<(Load, usize)> {
    let mut cells = Vec::new();
    for load in [Load::Update, Load::Create, Load::Get, Load::List, Load::Mixed] {
        cells.extend([1, 16, 64, 256].map(|clients| (load, clients)));
    }
    cells.extend([(Load::Watch, 100), (Load::Watch, 1000), (Load::Lease, 16)]);
    cells
}

pub(crate) fn name(load: Load, clients: usize) -> String {
    format!("{load:?}-{clients}").to_lowercase()
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    pin()?;
    let kinds: Vec<Kind> =
        options.servers.iter().map(|name| Kind::parse(name)).collect::<Result<_, _>>()?;
    let programs = Programs { kine2: options.kine2.clone(), bin: options.bin.clone() };
    let wanted = |(load, clients): &(Load, usize)| {
        let name = name(*load, *clients);
        options.only.is_empty()
            || options.only.iter().any(|only| *only == name || name.starts_with(&format!("{only}-")))
    };
    let cells: Vec<_> = cells().into_iter().filter(wanted).collect();
    let mut run = Run {
        machine: report::machine(),
        keys: options.keys,
        seconds: options.seconds,
        rounds: options.rounds,
        ..Run::default()
    };
    fs::create_dir_all(&options.dir)?;
    for round in 0..options.rounds {
        run.disk.push(probe_disk(round, &options.dir)?);
        for turn in 0..kinds.len() {
            let kind = kinds[(round + turn) % kinds.len()];
            measure(options, round, kind, &programs, &cells, &mut run)
                .with_context(|| format!("round {round}, {}", kind.name()))?;
        }
        if let Some(out) = &options.out {
            fs::write(out, serde_json::to_vec_pretty(&run)?)?;
        }
    }
    report::print(&run);
    Ok(())
}

fn measure(
    options: &Options,
    round: usize,
    kind: Kind,
    programs: &Programs,
    cells: &[(Load, usize)],
    run: &mut Run,
) -> anyhow::Result<()> {
    let dir = options.dir.join(kind.name());
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let server = Server::start(kind, programs, &dir)?;
    workload::preload(&server.address, options.keys)?;
    for (load, clients) in cells {
        let result = cell(options, round, kind, &server, *load, *clients)?;
        eprintln!(
            "round {round} {:6} {:12} {:9.0} op/s {:8.1} us/op p50 {:7.2} ms",
            kind.name(),
            name(*load, *clients),
            result.measured.ops as f64 / result.measured.seconds,
            result.server_cpu_us_per_op,
            result.measured.p50_ms
        );
        run.cells.push(result);
    }
    if !options.restart {
        return server.stop(Signal::TERM);
    }
    let mut server = server;
    for killed in [false, true] {
        server.stop(if killed { Signal::KILL } else { Signal::TERM })?;
        server = Server::start(kind, programs, &dir)?;
        std::thread::park_timeout(Duration::from_secs(2));
        let (rss_kib, _) = process::memory_kib(server.pid)?;
        let first_answer_ms = server.started_in.as_secs_f64() * 1_000.0;
        eprintln!("round {round} {:6} start after {} {first_answer_ms:.0} ms, {rss_kib} KiB", kind.name(), if killed { "kill -9" } else { "SIGTERM" });
        let keys = options.keys;
        run.restarts.push(Restart { round, server: kind, killed, keys, first_answer_ms, rss_kib });
    }
    server.stop(Signal::TERM)
}

fn cell(
    options: &Options,
    round: usize,
    kind: Kind,
    server: &Server,
    load: Load,
    clients: usize,
) -> anyhow::Result<CellResult> {
    let pid = server.pid;
    let mut before = (0, 0);
    process::reset_peak(pid);
    let space = format!("new-{clients}");
    let window = Duration::from_secs_f64(options.seconds);
    let measured = workload::run(&server.address, load, clients, window, &space, || {
        before = (process::cpu_micros(pid)?, process::written_bytes(pid)?);
        Ok(())
    })?;
    let cpu = process::cpu_micros(pid)? - before.0;
    let written = process::written_bytes(pid)? - before.1;
    let (rss_kib, peak_rss_kib) = process::memory_kib(pid)?;
    let ops = measured.ops.max(1) as f64;
    Ok(CellResult {
        round,
        server: kind,
        load,
        clients,
        server_cpu_us_per_op: cpu as f64 / ops,
        written_bytes_per_op: written as f64 / ops,
        measured,
        rss_kib,
        peak_rss_kib,
    })
}

fn probe_disk(round: usize, dir: &Path) -> anyhow::Result<DiskProbe> {
    let path = dir.join("probe");
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    let mut micros = Vec::new();
    for turn in 0..200u64 {
        file.seek(SeekFrom::Start(turn % 256 * 4096))?;
        let begun = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(path)?;
    micros.sort_by(f64::total_cmp);
    Ok(DiskProbe { round, p50_us: micros[100], p99_us: micros[198] })
}

fn pin() -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(CLIENT_CORE);
    sched_setaffinity(None, &cores).context("pin the clients to core 1")
}
