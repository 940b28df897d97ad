//! All figures of a run, as they are kept in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::disk::Latency;
use crate::plan::{Cell, Plan};
use crate::servers::Kind;

/// One run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// When it began, in UTC.
    pub(crate) date: String,
    pub(crate) machine: String,
    pub(crate) versions: BTreeMap<Kind, String>,
    pub(crate) window_seconds: f64,
    /// Rounds that were asked for.
    #[serde(default)]
    pub(crate) rounds: usize,
    pub(crate) connections: usize,
    pub(crate) cells: Vec<Measured>,
    pub(crate) restarts: Vec<RestartFigures>,
}

/// A cell on one server in one round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) round: usize,
    /// Keys that were there before.
    pub(crate) keys: usize,
    pub(crate) server: Kind,
    #[serde(flatten)]
    pub(crate) cell: Cell,
    /// Just before.
    pub(crate) disk: Latency,
    pub(crate) figures: CellFigures,
}

/// What a cell measured. Rates, latencies and shares are of the window, sums of the whole load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CellFigures {
    pub(crate) ops_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Operations from the first to the last; `*_per_op` of the server are per one of these.
    pub(crate) ops: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) server_cpu_us_per_op: f64,
    /// Share of a core.
    pub(crate) server_busy: f64,
    /// Used after the last operation; part of `server_cpu_us_per_op`.
    pub(crate) server_tail_cpu_ms: f64,
    pub(crate) client_cpu_us_per_op: f64,
    /// Share of a core: near 1, the client is the limit.
    pub(crate) client_busy: f64,
    /// What the disk was given, journal and all; by everybody, so keep others from it.
    pub(crate) disk_bytes_per_op: Option<f64>,
    pub(crate) disk_flushes_per_op: Option<f64>,
    /// The kernel's `write_bytes` of the server; see [`crate::disk::Disk::written`].
    pub(crate) process_bytes_per_op: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) rss_peak_bytes: u64,
}

/// A start on a directory that holds keys.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RestartFigures {
    pub(crate) round: usize,
    pub(crate) keys: usize,
    pub(crate) server: Kind,
    /// Ended before by SIGKILL among updates, rather than by SIGTERM.
    pub(crate) killed: bool,
    /// From exec to the first answer of a linearizable Range.
    pub(crate) first_answer_ms: f64,
    /// Processor time until then: what others do on the machine hardly changes it.
    #[serde(default)]
    pub(crate) cpu_ms: f64,
    /// At that answer.
    pub(crate) rss_bytes: u64,
    /// 10 seconds later.
    pub(crate) rss_later_bytes: u64,
}

impl Figures {
    pub(crate) fn new(plan: &Plan, versions: BTreeMap<Kind, String>) -> anyhow::Result<Self> {
        let date = Command::new("date")
            .args(["-u", "+%Y-%m-%d %H:%M UTC"])
            .output()?
            .stdout;
        Ok(Self {
            date: String::from_utf8(date)?.trim().to_owned(),
            machine: machine(),
            versions,
            window_seconds: plan.window.as_secs_f64(),
            rounds: plan.rounds,
            connections: plan.connections,
            cells: Vec::new(),
            restarts: Vec::new(),
        })
    }

    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understand {}", file.display()))
    }

    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }

    pub(crate) fn errors(&self) -> u64 {
        self.cells.iter().map(|cell| cell.figures.errors).sum()
    }
}

fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model
        .and_then(|line| line.split(':').nth(1))
        .unwrap_or(" unknown CPU");
    let cores = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    format!("{cores} cores,{model}, Linux {}", kernel.trim())
}
