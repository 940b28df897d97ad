//! Tables of a run: medians over rounds, ratios to etcd, and what is aimed at.

use std::collections::BTreeSet;
use std::path::Path;

use crate::aims::{aim, update_p50_aim};
use crate::figures::{CellFigures, Figures, Measured, RestartFigures};
use crate::plan::{Cell, Load};
use crate::servers::Kind;

/// A round counts for rates and latencies only if the disk was in a good mood: etcd's own update
/// with one client took at most this, in its median.
const GOOD_P50_MS: f64 = 1.0;
/// A cell whose client is busier than this may measure the client.
const CLIENT_LIMIT: f64 = 0.9;
/// Clients from which on operations per second are judged.
const JUDGED_CLIENTS: usize = 16;

const UPDATE_WRITTEN_BYTES_AIM: f64 = 3_400.0;
const RESTART_RSS_MB_AIM: f64 = 100.0;
const RESTART_MS_AIM: f64 = 500.0;

/// Prints the tables of a file.
pub(crate) fn print_file(file: &Path) -> anyhow::Result<()> {
    print(&Figures::read(file)?);
    Ok(())
}

/// One line as soon as a cell is measured.
pub(crate) fn print_progress(measured: &Measured) {
    let Measured {
        round,
        keys,
        server,
        cell,
        figures,
        ..
    } = measured;
    eprintln!(
        "round {round} {keys} {cell:12} {:19} {:9.0} op/s  p50 {:8.3} p99 {:8.3} ms  \
         server {:7.1} us/op ({:3.0} %)  client {:6.1} us/op ({:3.0} %)  {:5.1} KB/op  rss {:4.0} MB{}",
        server.name(),
        figures.ops_per_second,
        figures.p50_ms,
        figures.p99_ms,
        figures.server_cpu_us_per_op,
        figures.server_busy * 1e2,
        figures.client_cpu_us_per_op,
        figures.client_busy * 1e2,
        figures.disk_bytes_per_op.unwrap_or(f64::NAN) / 1e3,
        mb(figures.rss_peak_bytes),
        failures(figures),
    );
}

pub(crate) fn print_restart_progress(restart: &RestartFigures) {
    eprintln!(
        "round {} {} keys, start after {}: {:5} {:5.0} ms ({:.0} ms CPU), {:.0} MB, 10 s later {:.0} MB",
        restart.round,
        restart.keys,
        ending(restart.killed),
        restart.server.name(),
        restart.first_answer_ms,
        restart.cpu_ms,
        mb(restart.rss_bytes),
        mb(restart.rss_later_bytes),
    );
}

fn failures(figures: &CellFigures) -> String {
    let first = figures.first_error.as_deref().unwrap_or_default();
    if figures.errors == 0 {
        String::new()
    } else {
        format!("  {} ERRORS: {first}", figures.errors)
    }
}

/// Prints the tables.
pub(crate) fn print(figures: &Figures) {
    print_head(figures);
    for keys in figures
        .cells
        .iter()
        .map(|cell| cell.keys)
        .collect::<BTreeSet<_>>()
    {
        let series = Series::new(figures, keys);
        series.print_rounds();
        series.print_cells();
        for kind in Kind::ALL {
            if let Some(rival) = kind.rival() {
                series.print_ratios(kind, rival);
            }
        }
    }
    print_restarts(figures);
}

fn print_head(figures: &Figures) {
    println!("{}; {}.", figures.date, figures.machine);
    for (kind, version) in &figures.versions {
        println!("- {}: {version}", kind.name());
    }
    println!(
        "- Servers on core 0, clients on core 1, up to {} connections; windows of {} s; medians \
         over {} rounds.",
        figures.connections, figures.window_seconds, figures.rounds
    );
}

/// The cells of one size.
struct Series<'a> {
    keys: usize,
    cells: Vec<&'a Measured>,
    /// Rounds whose rates and latencies count.
    good: BTreeSet<usize>,
}

impl<'a> Series<'a> {
    fn new(figures: &'a Figures, keys: usize) -> Self {
        let cells: Vec<_> = figures
            .cells
            .iter()
            .filter(|cell| cell.keys == keys)
            .collect();
        let mut series = Self {
            keys,
            cells,
            good: BTreeSet::new(),
        };
        series.good = series
            .rounds()
            .into_iter()
            .filter(|round| series.is_good(*round))
            .collect();
        if series.good.is_empty() {
            series.good = series.rounds();
        }
        series
    }

    fn rounds(&self) -> BTreeSet<usize> {
        self.cells.iter().map(|cell| cell.round).collect()
    }

    fn gauge_ms(&self, round: usize) -> Option<f64> {
        let gauges = self.of(Kind::Etcd, Cell::GAUGE);
        gauges
            .iter()
            .find(|gauge| gauge.round == round)
            .map(|gauge| gauge.figures.p50_ms)
    }

    /// Without an etcd there is no telling.
    fn is_good(&self, round: usize) -> bool {
        self.gauge_ms(round)
            .is_none_or(|p50_ms| p50_ms <= GOOD_P50_MS)
    }

    fn print_rounds(&self) {
        println!("\n### {} keys\n", self.keys);
        println!(
            "| round | disk p50 µs | disk p99 µs, worst | etcd update, 1 client, p50 ms | rates count |"
        );
        println!("|---|---|---|---|---|");
        for round in self.rounds() {
            let disks: Vec<_> = self
                .cells
                .iter()
                .filter(|cell| cell.round == round)
                .map(|cell| &cell.disk)
                .collect();
            println!(
                "| {round} | {:.0} | {:.0} | {} | {} |",
                median(disks.iter().map(|disk| disk.p50_us)),
                disks.iter().map(|disk| disk.p99_us).fold(0.0, f64::max),
                self.gauge_ms(round)
                    .map_or_else(|| "–".to_owned(), |p50_ms| format!("{p50_ms:.2}")),
                match (self.is_good(round), self.good.contains(&round)) {
                    (true, _) => "yes",
                    (false, false) => "no",
                    (false, true) => "no round is good: yes",
                },
            );
        }
    }

    fn print_cells(&self) {
        println!(
            "\n| load | server | ops/s | min–max | p50 ms | p99 ms | errors | server CPU ms per 10k ops \
             | of the rival's | server busy | KB written per op | by the server | flushes per op | RSS MB | peak | client µs per op | client busy |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        for cell in self
            .cells
            .iter()
            .map(|cell| cell.cell)
            .collect::<BTreeSet<_>>()
        {
            for kind in Kind::ALL {
                self.print_cell(cell, kind);
            }
        }
    }

    fn print_cell(&self, cell: Cell, kind: Kind) {
        let all = self.of(kind, cell);
        let turns = self
            .cells
            .iter()
            .filter(|turn| turn.server == kind && turn.cell == cell);
        let errors: u64 = turns.map(|turn| turn.figures.errors).sum();
        if all.is_empty() && errors == 0 {
            return;
        }
        let of = |pick: fn(&CellFigures) -> f64| median(all.iter().map(|cell| pick(&cell.figures)));
        let rates = || {
            self.good_of(kind, cell)
                .map(|figures| figures.ops_per_second)
        };
        let client_busy = of(|figures| figures.client_busy);
        let rival = kind.rival().unwrap_or(Kind::Etcd);
        println!(
            "| {cell} | {} | {} | {}–{} | {} | {} | {} | {} | {} | {:.0} % | {} | {} | {} | {:.0} | {:.0} | {:.1} | {:.0} %{} |",
            kind.name(),
            digits(median(rates())),
            digits(rates().fold(f64::INFINITY, f64::min)),
            digits(rates().fold(0.0, f64::max)),
            digits(self.rate(kind, cell, |figures| figures.p50_ms)),
            digits(self.rate(kind, cell, |figures| figures.p99_ms)),
            errors,
            digits(of(|figures| figures.server_cpu_us_per_op) * 10.0),
            ratio(self.cpu(kind, cell) / self.cpu(rival, cell)),
            of(|figures| figures.server_busy) * 1e2,
            ratio(of(|figures| figures.disk_bytes_per_op.unwrap_or(f64::NAN)) / 1e3),
            ratio(of(|figures| figures.process_bytes_per_op) / 1e3),
            ratio(of(|figures| figures
                .disk_flushes_per_op
                .unwrap_or(f64::NAN))),
            of(|figures| mb(figures.rss_bytes)),
            of(|figures| mb(figures.rss_peak_bytes)),
            of(|figures| figures.client_cpu_us_per_op),
            client_busy * 1e2,
            if client_busy > CLIENT_LIMIT {
                " (limit)"
            } else {
                ""
            },
        );
    }

    /// `kind` against its aims.
    fn print_ratios(&self, kind: Kind, rival: Kind) {
        if self.cells.iter().all(|cell| cell.server != kind) {
            return;
        }
        println!(
            "\n{} against what it aims at, as ratios to {}:\n",
            kind.name(),
            rival.name()
        );
        println!("| load | CPU per op | aim ≤ | | stretch ≤ | | ops/s | aim ≥ | |");
        println!("|---|---|---|---|---|---|---|---|---|");
        for cell in self
            .cells
            .iter()
            .map(|cell| cell.cell)
            .collect::<BTreeSet<_>>()
        {
            let Some(aim) = aim(kind, cell.load) else {
                continue;
            };
            let cpu = self.cpu(kind, cell) / self.cpu(rival, cell);
            let rate = |kind| self.rate(kind, cell, |figures| figures.ops_per_second);
            let rate = rate(kind) / rate(rival);
            let judged = cell.clients >= JUDGED_CLIENTS;
            println!(
                "| {cell} | {} | {:.2} | {} | {:.2} | {} | {} | {} | {} |",
                ratio(cpu),
                aim.cpu,
                verdict(cpu <= aim.cpu, cpu),
                aim.cpu_stretch,
                if cpu <= aim.cpu_stretch {
                    "reached"
                } else {
                    "–"
                },
                ratio(rate),
                if judged {
                    format!("{:.1}", aim.rate)
                } else {
                    "–".to_owned()
                },
                if judged {
                    verdict(rate >= aim.rate, rate)
                } else {
                    ""
                },
            );
        }
        let p50 = |kind| self.rate(kind, Cell::GAUGE, |figures| figures.p50_ms);
        let p50 = p50(kind) / p50(rival);
        if let Some(aim) = update_p50_aim(kind) {
            println!(
                "\n- Update with 1 client, p50: {} of the rival's, aim ≤ {aim}: {}.",
                ratio(p50),
                verdict(p50 <= aim, p50)
            );
        }
        if kind == Kind::Kine2 {
            self.print_written();
        }
    }

    fn print_written(&self) {
        let update = Cell {
            load: Load::Update,
            clients: 64,
        };
        let written = self.of(Kind::Kine2, update).into_iter();
        let written = median(written.filter_map(|cell| cell.figures.disk_bytes_per_op));
        let by_server = self.of(Kind::Kine2, update).into_iter();
        let by_server = median(by_server.map(|cell| cell.figures.process_bytes_per_op));
        println!(
            "- Written per update with 64 clients: {} KB, aim ≤ {}: {} ({} KB by the server; the rest is the file system's \
             and whoever else uses the disk).",
            ratio(written / 1e3),
            UPDATE_WRITTEN_BYTES_AIM / 1e3,
            verdict(written <= UPDATE_WRITTEN_BYTES_AIM, written),
            ratio(by_server / 1e3)
        );
    }

    /// Of all rounds: the disk does not change it much.
    fn cpu(&self, kind: Kind, cell: Cell) -> f64 {
        median(
            self.of(kind, cell)
                .iter()
                .map(|cell| cell.figures.server_cpu_us_per_op),
        )
    }

    /// Of the good rounds.
    fn rate(&self, kind: Kind, cell: Cell, pick: fn(&CellFigures) -> f64) -> f64 {
        median(self.good_of(kind, cell).map(pick))
    }

    fn good_of(&self, kind: Kind, cell: Cell) -> impl Iterator<Item = &'a CellFigures> {
        let good = self
            .of(kind, cell)
            .into_iter()
            .filter(|cell| self.good.contains(&cell.round));
        good.map(|cell| &cell.figures)
    }

    /// Turns that failed as a whole have no figures and are left out.
    fn of(&self, kind: Kind, cell: Cell) -> Vec<&'a Measured> {
        let of = self.cells.iter().filter(|measured| {
            measured.server == kind && measured.cell == cell && measured.figures.ops > 0
        });
        of.copied().collect()
    }
}

fn print_restarts(figures: &Figures) {
    if figures.restarts.is_empty() {
        return;
    }
    println!("\n### Start\n");
    println!(
        "| keys | after | server | first answer ms | CPU ms until then | RSS MB | 10 s later |"
    );
    println!("|---|---|---|---|---|---|---|");
    let kinds: BTreeSet<_> = figures
        .restarts
        .iter()
        .map(|restart| (restart.keys, restart.killed, restart.server))
        .collect();
    for (keys, killed, server) in kinds {
        let of = |pick: fn(&RestartFigures) -> f64| {
            let same = figures.restarts.iter().filter(|restart| {
                (restart.keys, restart.killed, restart.server) == (keys, killed, server)
            });
            median(same.map(pick))
        };
        let first_answer_ms = of(|restart| restart.first_answer_ms);
        let rss_mb = of(|restart| mb(restart.rss_bytes));
        let later_mb = of(|restart| mb(restart.rss_later_bytes));
        let aim = |reached| {
            if server == Kind::Kine2 {
                verdict(reached, 0.0)
            } else {
                ""
            }
        };
        println!(
            "| {keys} | {} | {} | {first_answer_ms:.0} {} | {:.0} | {rss_mb:.0} | {later_mb:.0} {} |",
            ending(killed),
            server.name(),
            aim(first_answer_ms <= RESTART_MS_AIM),
            of(|restart| restart.cpu_ms),
            aim(rss_mb.max(later_mb) <= RESTART_RSS_MB_AIM),
        );
    }
    println!(
        "\nkine2 aims at a first answer in {RESTART_MS_AIM} ms and at {RESTART_RSS_MB_AIM} MB."
    );
}

const fn ending(killed: bool) -> &'static str {
    if killed {
        "SIGKILL among updates"
    } else {
        "SIGTERM"
    }
}

/// `figure` is not a number if it was not measured.
const fn verdict(reached: bool, figure: f64) -> &'static str {
    match (figure.is_nan(), reached) {
        (true, _) => "not measured",
        (false, true) => "reached",
        (false, false) => "**missed**",
    }
}

/// Two decimals.
fn ratio(value: f64) -> String {
    if value.is_nan() {
        "–".to_owned()
    } else {
        format!("{value:.2}")
    }
}

/// As many digits as mean something.
fn digits(value: f64) -> String {
    match value {
        10.0.. => format!("{value:.0}"),
        1.0.. => format!("{value:.1}"),
        0.0.. => format!("{value:.2}"),
        _ => "–".to_owned(),
    }
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Of the values that are there.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
