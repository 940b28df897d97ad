//! The servers that are compared: how each is built, started, held and stopped.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use crate::clusters::{self, Cluster};
use crate::grpc::Connection;
use crate::keys;
use crate::plan::Load;
use crate::process::{Usage, pin};
use crate::requests::{self, Method};

/// The core servers run on.
pub(crate) const SERVER_CORE: usize = 0;
/// The core this program and its clients run on.
pub(crate) const CLIENT_CORE: usize = 1;
/// Where programs that are built go.
const BIN: &str = "tests/bin";

const START_MAX: Duration = Duration::from_secs(120);
const START_POLL: Duration = Duration::from_millis(2);
/// A first question that is not answered is asked again after this.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// A server to measure, or a cluster of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Kine2,
    Etcd,
    /// With SQLite, flushing at each commit: its own default leaves that to checkpoints, which
    /// would not be what the others do.
    Kine,
    /// This program's [`crate::echo`].
    Echo,
    /// Two nodes and a witness, asked at the primary.
    Pair,
    /// The same, asked at the secondary.
    PairSecond,
    /// Three members, asked at the leader.
    EtcdThree,
    /// The same, asked at a follower.
    EtcdThreeFollower,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Kine2,
        Self::Etcd,
        Self::Kine,
        Self::Echo,
        Self::Pair,
        Self::PairSecond,
        Self::EtcdThree,
        Self::EtcdThreeFollower,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kine2 => "kine2",
            Self::Etcd => "etcd",
            Self::Kine => "kine",
            Self::Echo => "echo",
            Self::Pair => "pair",
            Self::PairSecond => "pair-second",
            Self::EtcdThree => "etcd-three",
            Self::EtcdThreeFollower => "etcd-three-follower",
        }
    }

    /// Where else a cluster is asked than at the member that orders writes.
    pub(crate) const fn elsewhere(self) -> Option<Self> {
        match self {
            Self::Pair => Some(Self::PairSecond),
            Self::EtcdThree => Some(Self::EtcdThreeFollower),
            _ => None,
        }
    }

    /// What it is compared with.
    pub(crate) const fn rival(self) -> Option<Self> {
        match self {
            Self::Kine2 => Some(Self::Etcd),
            Self::Pair => Some(Self::EtcdThree),
            Self::PairSecond => Some(Self::EtcdThreeFollower),
            _ => None,
        }
    }

    /// Whether the server can do it: kine keeps no leases.
    pub(crate) fn serves(self, load: Load) -> bool {
        self != Self::Kine || load != Load::Lease
    }
}

/// A server's program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

impl Program {
    /// Builds what is needed; `kine2` is used instead of this tree's if given.
    pub(crate) fn build(kind: Kind, kine2: Option<&Path>) -> anyhow::Result<Self> {
        let (path, version) = match (kind, kine2) {
            (Kind::Kine2 | Kind::Pair, Some(path)) => (path.to_owned(), kine2_version(path)?),
            (Kind::Kine2 | Kind::Pair, None) => {
                let packages = ["--package", "kine2", "--package", "kine2-witness"];
                run(Command::new("cargo")
                    .args(["build", "--release"])
                    .args(packages))?;
                let target =
                    std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
                let path = Path::new(&target).join("release/kine2");
                let version = kine2_version(&path)?;
                (path, version)
            }
            (Kind::Etcd | Kind::EtcdThree, _) => {
                let path = build_go("tests/conformance/etcd", "etcd-one", Cgo::Off)?;
                let version = module_version(&path, "go.etcd.io/etcd/server/v3")?;
                (path, version)
            }
            (Kind::Kine, _) => {
                let path = build_go("tests/bench/kine", "kine", Cgo::On)?;
                let version = module_version(&path, "github.com/k3s-io/kine")?;
                (path, format!("{version}, SQLite with synchronous=FULL"))
            }
            (Kind::Echo, _) => (
                std::env::current_exe()?,
                "answers, stores nothing".to_owned(),
            ),
            (Kind::PairSecond | Kind::EtcdThreeFollower, _) => {
                bail!("{} is measured with the cluster it is of", kind.name())
            }
        };
        Ok(Self {
            kind,
            path,
            version,
        })
    }

    /// Starts it on `dir`, which exists.
    fn start(&self, dir: &Path) -> anyhow::Result<Cluster> {
        match self.kind {
            Kind::Pair => return clusters::pair(&self.path, dir),
            Kind::EtcdThree => return clusters::three(&self.path, dir),
            _ => {}
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = dir.with_extension("log");
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = self.command(dir, port);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("start {}", self.path.display()))?;
        Ok(Cluster {
            children: vec![child],
            left: Vec::new(),
            addresses: vec![format!("127.0.0.1:{port}")],
        })
    }

    /// The command of a single server that serves `127.0.0.1:port` from `dir`.
    fn command(&self, dir: &Path, port: u16) -> Command {
        let mut command = Command::new(&self.path);
        let (address, dir) = (format!("127.0.0.1:{port}"), dir.display());
        let arguments = match self.kind {
            Kind::Kine2 => format!(
                "serve --single --data-dir {dir} --listen-client http://{address} \
                 --listen-admin unix://{dir}/admin.sock"
            ),
            Kind::Etcd => format!("--data-dir {dir} --listen http://{address}"),
            Kind::Kine => format!(
                "--endpoint sqlite://{dir}/state.db?_journal_mode=WAL&_busy_timeout=30000\
                 &_synchronous=FULL&_txlock=immediate&_stmt_cache_size=20&cache=shared \
                 --listen-address {address} --metrics-bind-address 0"
            ),
            Kind::Echo => format!("--echo {address}"),
            Kind::Pair | Kind::PairSecond | Kind::EtcdThree | Kind::EtcdThreeFollower => {
                unreachable!("not one server")
            }
        };
        command.args(arguments.split_whitespace());
        command
    }
}

/// A running server, or cluster; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    cluster: Cluster,
    /// Of all its processes.
    pub(crate) pids: Vec<u32>,
    /// From exec to the first answer of a linearizable Range.
    pub(crate) started_in: Duration,
    /// Processor time it had used then.
    pub(crate) start_cpu: Duration,
}

impl Server {
    /// Starts a server on `dir` and waits until it answers. What it says goes to a file beside.
    pub(crate) fn start(program: &Program, dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let plain = dir
            .to_str()
            .is_some_and(|path| !path.contains([' ', '?', '&']));
        ensure!(
            plain,
            "{} has to be a path without spaces, ? and &",
            dir.display()
        );
        // A child runs where its parent does.
        pin(SERVER_CORE)?;
        let begun = Instant::now();
        let cluster = program.start(&dir);
        pin(CLIENT_CORE)?;
        let cluster = cluster?;
        let children = cluster.children.iter().map(Child::id);
        let mut server = Self {
            kind: program.kind,
            pids: children.chain(cluster.left.iter().copied()).collect(),
            cluster,
            started_in: Duration::ZERO,
            start_cpu: Duration::ZERO,
        };
        server
            .wait_until_it_answers()
            .with_context(|| format!("start {}, see {}", program.kind.name(), dir.display()))?;
        server.started_in = begun.elapsed();
        server.start_cpu = Usage::of(&server.pids)?.cpu;
        Ok(server)
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let begun = Instant::now();
        while begun.elapsed() < START_MAX {
            let asked =
                async { tokio::time::timeout(ANSWER_MAX, ask_all(&self.cluster.addresses)).await };
            if let Ok(Ok(())) = LocalSet::new().block_on(&runtime, asked) {
                return Ok(());
            }
            for child in &mut self.cluster.children {
                if let Some(status) = child.try_wait()? {
                    bail!("it ended with {status}");
                }
            }
            crate::process::pause(START_POLL);
        }
        bail!("it did not answer within {START_MAX:?}")
    }

    /// Where clients find a member that is not chosen for anything.
    pub(crate) fn address(&self) -> &str {
        &self.cluster.addresses[0]
    }

    /// Where clients find it, as what `kind` says: who orders writes may have changed.
    pub(crate) fn address_of(&self, kind: Kind) -> anyhow::Result<String> {
        if self.kind.elsewhere().is_none() {
            return Ok(self.address().to_owned());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (first, other) =
            LocalSet::new().block_on(&runtime, clusters::places(&self.cluster.addresses))?;
        Ok(if kind == self.kind { first } else { other }.to_owned())
    }

    /// Keeps it from running, so that another is measured undisturbed. A cluster runs on: its
    /// members would take each other for dead.
    pub(crate) fn hold(&self) -> anyhow::Result<()> {
        match self.kind.elsewhere() {
            Some(_) => Ok(()),
            None => self.signal(Signal::STOP),
        }
    }

    /// Lets it run on.
    pub(crate) fn release(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Ends it, in order or at once.
    pub(crate) fn stop(mut self, signal: Signal) -> anyhow::Result<()> {
        self.signal(signal)?;
        for child in &mut self.cluster.children {
            child.wait()?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        for pid in &self.pids {
            let pid = Pid::from_raw(i32::try_from(*pid)?).context("a pid is not 0")?;
            kill_process(pid, signal).with_context(|| format!("signal process {pid:?}"))?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // They may have ended already.
        for child in &mut self.cluster.children {
            drop(child.kill());
            drop(child.wait());
        }
        for pid in &self.cluster.left {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                let _ended = kill_process(pid, Signal::KILL);
            }
        }
    }
}

async fn ask_all(addresses: &[String]) -> anyhow::Result<()> {
    for address in addresses {
        ask(address).await?;
    }
    Ok(())
}

async fn ask(address: &str) -> anyhow::Result<()> {
    let connection = Connection::open(address).await?;
    connection
        .call(Method::Range, requests::get(&keys::key(0)))
        .await?;
    Ok(())
}

/// Whether a Go program contains C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cgo {
    /// As etcd is released.
    Off,
    /// For SQLite, as in K3s; kine's driver without C is slower.
    On,
}

fn build_go(source: &str, name: &str, cgo: Cgo) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(BIN)?;
    let path = Path::new(BIN).canonicalize()?.join(name);
    let mut command = Command::new("go");
    command
        .args(["build", "-C", source, "-trimpath", "-o"])
        .arg(&path)
        .arg(".");
    let cgo = if cgo == Cgo::On { "1" } else { "0" };
    run(command.env("CGO_ENABLED", cgo).env("GOFLAGS", "-mod=mod"))?;
    Ok(path)
}

fn kine2_version(path: &Path) -> anyhow::Result<String> {
    let version = output(Command::new(path).arg("--version"))?;
    let commit = output(Command::new("git").args(["describe", "--always", "--dirty"]))?;
    Ok(format!(
        "{} ({})",
        version.trim().trim_start_matches("kine2 "),
        commit.trim()
    ))
}

/// The version of a module in a Go program.
fn module_version(path: &Path, module: &str) -> anyhow::Result<String> {
    let modules = output(Command::new("go").args(["version", "-m"]).arg(path))?;
    let mut words = modules
        .split_whitespace()
        .skip_while(|word| *word != module);
    Ok(words
        .nth(1)
        .with_context(|| format!("{} without {module}", path.display()))?
        .to_owned())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| missing(command))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| missing(command))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn missing(command: &Command) -> String {
    format!(
        "run {}; the benchmark needs Rust, Go and a C compiler",
        command.get_program().display()
    )
}
