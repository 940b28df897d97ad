//! The program under test: found or built, started on a data directory, killed or asked to stop.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::client::Client;

/// No start takes longer, however slow the machine.
const START_MAX: Duration = Duration::from_secs(60);
const START_POLL: Duration = Duration::from_millis(2);
/// No stop takes longer.
const STOP_MAX: Duration = Duration::from_secs(30);

/// The path of the program: `KINE2_BIN`, or this workspace's, which is built when needed.
///
/// # Errors
/// If it cannot be built.
pub fn program() -> anyhow::Result<&'static Path> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = PATH.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    match path {
        Ok(path) => Ok(path),
        Err(error) => bail!("{error}"),
    }
}

fn find() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("KINE2_BIN") {
        return Path::new(&path)
            .canonicalize()
            .with_context(|| format!("KINE2_BIN is {}", Path::new(&path).display()));
    }
    // target/<profile>/kine2-crash, or target/<profile>/deps/<test>.
    let own = std::env::current_exe()?;
    let profile_dir = own
        .ancestors()
        .find(|dir| dir.ends_with("debug") || dir.ends_with("release"))
        .context("this program does not lie in target/debug or target/release: set KINE2_BIN")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "kine2"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    let status = build
        .status()
        .context("run cargo to build kine2, or set KINE2_BIN")?;
    ensure!(status.success(), "{build:?} ended with {status}");
    Ok(profile_dir.join("kine2"))
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Settings besides the directory and the addresses.
    pub arguments: Vec<String>,
    /// Additions to the environment.
    pub environment: Vec<(String, String)>,
    /// Where its standard error goes, one start after the other.
    pub log_path: PathBuf,
}

impl Launch {
    /// On `base/data`, with a log beside it.
    #[must_use]
    pub fn below(base: &Path) -> Self {
        Self {
            data_dir: base.join("data"),
            arguments: Vec::new(),
            environment: Vec::new(),
            log_path: base.join("server.log"),
        }
    }

    /// With a setting, in place of what it had.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let flag = format!("--{name}=");
        self.arguments.retain(|given| !given.starts_with(&flag));
        self.arguments.push(flag + value);
        self
    }

    /// With an addition to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Starts the program; it may not serve yet, or never.
    ///
    /// # Errors
    /// If it cannot be started at all.
    pub fn spawn(&self) -> anyhow::Result<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log_path)
            .with_context(|| format!("open {}", self.log_path.display()))?;
        let log_from = log.metadata()?.len();
        let address = format!("127.0.0.1:{port}");
        let socket = self.log_path.with_extension("sock");
        let mut command = tokio::process::Command::new(program()?);
        command
            .args(["serve", "--single", "--data-dir"])
            .arg(&self.data_dir)
            .arg(format!("--listen-client=http://{address}"))
            .arg(format!("--listen-admin=unix://{}", socket.display()))
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let child = command.spawn().context("start kine2")?;
        Ok(Server {
            child,
            address,
            log_path: self.log_path.clone(),
            log_from,
        })
    }

    /// Starts the program and waits until it answers.
    ///
    /// # Errors
    /// If it ends, or does not answer in time; says what it wrote.
    pub async fn start(&self) -> anyhow::Result<(Server, Client)> {
        let mut server = self.spawn()?;
        let client = server.ready().await?;
        Ok((server, client))
    }
}

/// A running server; dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: String,
    log_path: PathBuf,
    log_from: u64,
}

impl Server {
    /// Waits until it answers.
    ///
    /// # Errors
    /// If it ends before, or takes too long.
    pub async fn ready(&mut self) -> anyhow::Result<Client> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("kine2 does not start, {status}:\n{}", self.said());
            }
            if let Ok(client) = Client::connect(&self.address).await
                && client.revision().await.is_ok()
            {
                return Ok(client);
            }
            ensure!(
                begun.elapsed() < START_MAX,
                "kine2 does not answer after {START_MAX:?}:\n{}",
                self.said()
            );
            tokio::time::sleep(START_POLL).await;
        }
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What this start has written to standard error.
    #[must_use]
    pub fn said(&self) -> String {
        let bytes = fs::read(&self.log_path).unwrap_or_default();
        let from = usize::try_from(self.log_from).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it has ended already.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().context("kine2 has ended")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// kill -9.
    ///
    /// # Errors
    /// If it had ended by itself, which a server under test never does.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("kine2 ended by itself, {status}:\n{}", self.said());
        }
        self.child.kill().await?;
        Ok(())
    }

    /// kill -9, which something else may have done already.
    ///
    /// # Errors
    /// If it had ended by itself.
    pub async fn kill_or_killed(mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) if status.signal() == Some(9) => Ok(()),
            _ => self.kill().await,
        }
    }

    /// Waits until it has ended.
    pub async fn gone(&mut self) {
        drop(self.child.wait().await);
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// If it does not end well.
    pub async fn stop(self) -> anyhow::Result<String> {
        self.signal(Signal::TERM)?;
        let (status, said) = self.ended().await?;
        ensure!(
            status.success(),
            "kine2 ended with {status} after SIGTERM:\n{said}"
        );
        Ok(said)
    }

    /// Waits for its end; gives the status and what it said.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn ended(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let Ok(status) = tokio::time::timeout(STOP_MAX, self.child.wait()).await else {
            bail!("kine2 still runs after {STOP_MAX:?}:\n{}", self.said());
        };
        Ok((status?, self.said()))
    }
}

/// The last lines of a text, for reports.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    for line in all.iter().skip(all.len().saturating_sub(lines)) {
        let _ = writeln!(out, "  | {line}");
    }
    out
}
