//! Medians over rounds and ratios to etcd, as a table.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::harness::{CellResult, Run, name};
use crate::servers::Kind;
use crate::workload::Load;

/// A round counts for operations per second only if the disk was in a good mood: etcd's own
/// update with one client took at most this.
const GOOD_P50_MS: f64 = 1.0;

pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    format!("{cores} cores{model}, Linux {}", kernel.trim())
}

pub(crate) fn print_file(file: &Path) -> anyhow::Result<()> {
    let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    print(&serde_json::from_slice(&text)?);
    Ok(())
}

/// What is aimed at: server CPU and operations per second, as ratios to etcd.
fn target(load: Load, clients: usize) -> (f64, f64) {
    let ops = if clients >= 16 { 1.0 } else { 0.0 };
    match load {
        Load::Update => (0.45, 1.6 * ops),
        Load::Create => (0.42, 1.6 * ops),
        Load::Get => (0.35, 1.8 * ops),
        Load::List => (0.32, 2.0 * ops),
        Load::Mixed => (0.38, 1.8 * ops),
        Load::Watch => (0.35, 1.8),
        Load::Lease => (0.0, 0.0),
    }
}

pub(crate) fn print(run: &Run) {
    println!("{}; {} keys of 1 KB, windows of {} s, {} rounds", run.machine, run.keys, run.seconds, run.rounds);
    for probe in &run.disk {
        println!("disk in round {}: 4 KiB and fdatasync p50 {:.0} us, p99 {:.0} us", probe.round, probe.p50_us, probe.p99_us);
    }
    println!("\n| load | server | op/s | p50 ms | p99 ms | server us/op | KB written/op | RSS MB | client us/op | CPU : etcd (aim) | op/s : etcd (aim) |");
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut by_cell: BTreeMap<(Load, usize), BTreeMap<Kind, Vec<&CellResult>>> = BTreeMap::new();
    for cell in &run.cells {
        let kinds = by_cell.entry((cell.load, cell.clients)).or_default();
        kinds.entry(cell.server).or_default().push(cell);
    }
    let good = |round: usize| {
        let update = run.cells.iter().find(|cell| {
            cell.round == round && cell.server == Kind::Etcd && cell.load == Load::Update && cell.clients == 1
        });
        update.is_none_or(|cell| cell.measured.p50_ms <= GOOD_P50_MS)
    };
    for ((load, clients), kinds) in &by_cell {
        let etcd = kinds.get(&Kind::Etcd);
        let cpu = |cells: &[&CellResult]| median(cells.iter().map(|cell| cell.server_cpu_us_per_op));
        let rate = |cells: &[&CellResult]| {
            let fair = cells.iter().filter(|cell| good(cell.round));
            median(fair.map(|cell| cell.measured.ops as f64 / cell.measured.seconds))
        };
        for (kind, cells) in kinds {
            let of = |pick: fn(&CellResult) -> f64| median(cells.iter().map(|cell| pick(cell)));
            let (cpu_aim, rate_aim) = target(*load, *clients);
            let compared = etcd.filter(|_| *kind != Kind::Etcd).map(|etcd| {
                format!(
                    "{:.2} ({cpu_aim:.2}) | {:.2} ({rate_aim:.1})",
                    cpu(cells) / cpu(etcd),
                    rate(cells) / rate(etcd)
                )
            });
            println!(
                "| {} | {} | {:.0} | {:.2} | {:.2} | {:.1} | {:.2} | {:.0} | {:.1} | {} |",
                name(*load, *clients),
                kind.name(),
                rate(cells),
                of(|cell| cell.measured.p50_ms),
                of(|cell| cell.measured.p99_ms),
                cpu(cells),
                of(|cell| cell.written_bytes_per_op / 1_000.0),
                of(|cell| cell.rss_kib as f64 / 1_024.0),
                of(|cell| cell.measured.client_cpu_us_per_op),
                compared.unwrap_or_else(|| "| ".to_owned()),
            );
        }
    }
    print_restarts(run);
}

fn print_restarts(run: &Run) {
    if run.restarts.is_empty() {
        return;
    }
    println!("\n| start after | server | first answer ms | RSS MB |\n|---|---|---|---|");
    for killed in [false, true] {
        for kind in [Kind::Kine2, Kind::Etcd, Kind::Kine] {
            let of: Vec<_> = run
                .restarts
                .iter()
                .filter(|restart| restart.killed == killed && restart.server == kind)
                .collect();
            if of.is_empty() {
                continue;
            }
            println!(
                "| {} | {} | {:.0} | {:.0} |",
                if killed { "kill -9" } else { "SIGTERM" },
                kind.name(),
                median(of.iter().map(|restart| restart.first_answer_ms)),
                median(of.iter().map(|restart| restart.rss_kib as f64 / 1_024.0)),
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}
