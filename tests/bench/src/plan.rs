//! What is to be measured: the command line and the cells.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};

use crate::servers::Kind;

/// Closed loops of clients that are measured.
const CLIENTS: [usize; 4] = [1, 16, 64, 256];
/// Watchers that are measured.
const WATCHERS: [usize; 2] = [100, 1_000];
/// What `--quick` measures.
const QUICK: [&str; 6] = [
    "update-1",
    "update-64",
    "get-64",
    "list-16",
    "mixed-64",
    "watch-100",
];
/// What `--only verdict` measures: what the aims are about.
const VERDICT: [&str; 19] = [
    "update-1",
    "update-16",
    "update-64",
    "update-256",
    "create-16",
    "create-64",
    "create-256",
    "get-16",
    "get-64",
    "get-256",
    "list-16",
    "list-64",
    "list-256",
    "mixed-16",
    "mixed-64",
    "mixed-256",
    "watch-100",
    "watch-1000",
    RESTART,
];
const RESTART: &str = "restart";
const QUICK_WINDOW: Duration = Duration::from_secs(2);

/// Compares servers of the etcd API in turn, on the same disk: servers on core 0, clients on
/// core 1.
#[derive(Debug, Parser)]
#[command(name = "tests/bench/run", version)]
pub(crate) struct Options {
    /// Rounds; each starts every server on a fresh directory.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Seconds of each load that count.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Loads (create, update, get, list, mixed, watch, lease), cells such as update-64, restart,
    /// and verdict for those that kine2's aims are about; all if none.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Servers: kine2, etcd, kine; echo, which answers without doing anything: the ceiling of the
    /// load generator; clusters: pair (of kine2, with its witness) and etcd-three, each asked at the
    /// member that orders writes and at another one.
    #[arg(long, default_value = "kine2,etcd,kine", value_delimiter = ',')]
    pub(crate) servers: Vec<Kind>,
    /// Keys of 1 KB that are there before; several sizes are measured one after the other.
    #[arg(long, default_value = "10000", value_delimiter = ',')]
    pub(crate) keys: Vec<usize>,
    /// Keys that are there for the restarts.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) restart_keys: usize,
    /// Connections the clients spread over, if there are as many clients.
    #[arg(long, default_value_t = 16)]
    pub(crate) connections: usize,
    /// One round of a few cells with short windows: two minutes, not a verdict.
    #[arg(long)]
    pub(crate) quick: bool,
    /// A kine2 program, instead of building this tree's.
    #[arg(long)]
    pub(crate) kine2: Option<PathBuf>,
    /// Where the servers keep their data while they are measured.
    #[arg(long, default_value = "target/bench")]
    pub(crate) dir: PathBuf,
    /// File for all figures; figures.json in that directory if none.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Prints the tables of such a file, in Markdown, and measures nothing.
    #[arg(long)]
    pub(crate) report: Option<PathBuf>,
    /// Measures how messages go between nodes instead: with their length on a stream, as they do,
    /// beside a stream of tonic.
    #[arg(long)]
    pub(crate) transport: bool,
    /// Measures instead how a node of a pair comes back that missed so many MB of values: with how
    /// many keys, MB missed, seconds until it is in sync, milliseconds of 800 updates a second
    /// (median and 99th percentile) before and meanwhile, and the ratio of the last.
    #[arg(long)]
    pub(crate) missed: Option<usize>,
    /// Serves the echo.
    #[arg(long, hide = true)]
    pub(crate) echo: Option<SocketAddr>,
}

impl Options {
    /// What these options ask for.
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        let only: Vec<&str> = if self.quick && self.only.is_empty() {
            QUICK.to_vec()
        } else {
            let named = self.only.iter().flat_map(|name| match &name[..] {
                "verdict" => VERDICT.to_vec(),
                name => vec![name],
            });
            named.collect()
        };
        let mut all: Vec<Cell> = Cell::all().collect();
        let mut restart = only.is_empty();
        if !only.is_empty() {
            for name in &only {
                let known = all.iter().any(|cell| cell.is_named(name));
                restart |= *name == RESTART;
                ensure!(
                    known || *name == RESTART,
                    "there is no load {name}: choose of verdict, restart, {}",
                    all.iter()
                        .map(Cell::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                );
            }
            all.retain(|cell| only.iter().any(|name| cell.is_named(name)));
        }
        ensure!(self.connections > 0, "--connections is at least 1");
        ensure!(self.seconds > 0.0, "--seconds is more than 0");
        let few = self.keys.iter().find(|keys| **keys < 1_000);
        ensure!(
            few.is_none(),
            "--keys is at least 1000: clients own keys, lists take pages"
        );
        Ok(Plan {
            rounds: if self.quick { 1 } else { self.rounds },
            window: if self.quick {
                QUICK_WINDOW
            } else {
                Duration::from_secs_f64(self.seconds)
            },
            cells: all,
            restart,
            connections: self.connections,
        })
    }
}

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) window: Duration,
    pub(crate) cells: Vec<Cell>,
    pub(crate) restart: bool,
    pub(crate) connections: usize,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// One key; an operation is a Range.
    Get,
    /// All keys in pages of 500; an operation is a page.
    List,
    /// 70 % gets, 20 % updates, 10 % lists of one page of 50.
    Mixed,
    /// Put if the revision is the known one; an operation is a Txn.
    Update,
    /// Watchers on all keys, 16 writers; an operation is an event that reached one watcher.
    Watch,
    /// Grant, create with the lease, keep alive, revoke; each is an operation.
    Lease,
    /// Put if the key is not there; an operation is a Txn.
    Create,
}

impl Load {
    /// Reads first, then what adds revisions, then what adds keys.
    pub(crate) const ALL: [Self; 7] = [
        Self::Get,
        Self::List,
        Self::Mixed,
        Self::Update,
        Self::Watch,
        Self::Lease,
        Self::Create,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Mixed => "mixed",
            Self::Update => "update",
            Self::Watch => "watch",
            Self::Lease => "lease",
            Self::Create => "create",
        }
    }
}

/// A load with a number of clients, or of watchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) load: Load,
    pub(crate) clients: usize,
}

impl Cell {
    /// etcd's figure for it tells whether the disk had a good minute.
    pub(crate) const GAUGE: Self = Self {
        load: Load::Update,
        clients: 1,
    };

    fn all() -> impl Iterator<Item = Self> {
        Load::ALL.into_iter().flat_map(|load| {
            let clients = if load == Load::Watch {
                &WATCHERS[..]
            } else {
                &CLIENTS[..]
            };
            clients.iter().map(move |clients| Self {
                load,
                clients: *clients,
            })
        })
    }

    fn is_named(&self, name: &str) -> bool {
        name == self.load.name() || name == self.to_string()
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("{}-{}", self.load.name(), self.clients))
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let asked = Self::ALL.into_iter().filter_map(Self::elsewhere);
        let asked: Vec<Self> = asked.collect();
        match Self::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) if !asked.contains(&kind) => Ok(kind),
            _ => bail!(
                "there is no server {name}: choose of kine2, etcd, kine, echo, pair, etcd-three"
            ),
        }
    }
}
