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

use crate::grpc::Connection;
use crate::keys;
use crate::plan::Load;
use crate::process::{Usage, pin};
use crate::requests::{self, Method};

/// The core servers run on.
const SERVER_CORE: usize = 0;
/// The core this program and its clients run on.
pub(crate) const CLIENT_CORE: usize = 1;
/// Where programs that are built go.
const BIN: &str = "tests/bin";

const START_MAX: Duration = Duration::from_secs(120);
const START_POLL: Duration = Duration::from_millis(2);
/// A first question that is not answered is asked again after this.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// A server to measure.
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
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Kine2, Self::Etcd, Self::Kine, Self::Echo];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kine2 => "kine2",
            Self::Etcd => "etcd",
            Self::Kine => "kine",
            Self::Echo => "echo",
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
    path: PathBuf,
    pub(crate) version: String,
}

impl Program {
    /// Builds what is needed; `kine2` is used instead of this tree's if given.
    pub(crate) fn build(kind: Kind, kine2: Option<&Path>) -> anyhow::Result<Self> {
        let (path, version) = match (kind, kine2) {
            (Kind::Kine2, Some(path)) => (path.to_owned(), kine2_version(path)?),
            (Kind::Kine2, None) => {
                run(Command::new("cargo").args(["build", "--release", "--package", "kine2"]))?;
                let target =
                    std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
                let path = Path::new(&target).join("release/kine2");
                let version = kine2_version(&path)?;
                (path, version)
            }
            (Kind::Etcd, _) => {
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
        };
        Ok(Self {
            kind,
            path,
            version,
        })
    }

    /// The command that serves `127.0.0.1:port` from `dir`.
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
        };
        command.args(arguments.split_whitespace());
        command
    }
}

/// A running server; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    pub(crate) pid: u32,
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
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log_path = dir.with_extension("log");
        let log = File::options().create(true).append(true).open(&log_path)?;
        let mut command = program.command(&dir, port);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // A child runs where its parent does.
        pin(SERVER_CORE)?;
        let begun = Instant::now();
        let child = command.spawn();
        pin(CLIENT_CORE)?;
        let child = child.with_context(|| format!("start {}", program.path.display()))?;
        let (address, pid) = (format!("127.0.0.1:{port}"), child.id());
        let mut server = Self {
            child,
            address,
            pid,
            started_in: Duration::ZERO,
            start_cpu: Duration::ZERO,
        };
        server.wait_until_it_answers().with_context(|| {
            format!("start {}, see {}", program.kind.name(), log_path.display())
        })?;
        server.started_in = begun.elapsed();
        server.start_cpu = Usage::of(pid)?.cpu;
        Ok(server)
    }

    fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let begun = Instant::now();
        while begun.elapsed() < START_MAX {
            let asked = async { tokio::time::timeout(ANSWER_MAX, ask(&self.address)).await };
            if let Ok(Ok(())) = LocalSet::new().block_on(&runtime, asked) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            crate::process::pause(START_POLL);
        }
        bail!("it did not answer within {START_MAX:?}")
    }

    /// Keeps it from running, so that another is measured undisturbed.
    pub(crate) fn hold(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it run on.
    pub(crate) fn release(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Ends it, in order or at once.
    pub(crate) fn stop(mut self, signal: Signal) -> anyhow::Result<()> {
        self.signal(signal)?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid)?).context("a pid is not 0")?;
        kill_process(pid, signal).with_context(|| format!("signal process {pid:?}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
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
