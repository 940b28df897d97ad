//! The servers that are compared: how each is started and stopped.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::workload;

/// The core servers run on.
const SERVER_CORE: &str = "0";

/// A server to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Kine2,
    Etcd,
    Kine,
}

impl Kind {
    pub(crate) fn parse(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "kine2" => Self::Kine2,
            "etcd" => Self::Etcd,
            "kine" => Self::Kine,
            other => bail!("there is no server {other}: choose of kine2, etcd, kine"),
        })
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kine2 => "kine2",
            Self::Etcd => "etcd",
            Self::Kine => "kine",
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) kine2: PathBuf,
    pub(crate) bin: PathBuf,
}

/// A running server; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    pub(crate) pid: u32,
    /// From its start to its first answer.
    pub(crate) started_in: Duration,
}

impl Server {
    pub(crate) fn start(kind: Kind, programs: &Programs, dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE]);
        match kind {
            Kind::Kine2 => command
                .arg(&programs.kine2)
                .args(["serve", "--single", "--log-level", "warn", "--listen-client", &url, "--data-dir"])
                .arg(dir),
            Kind::Etcd => {
                command.arg(programs.bin.join("etcd-one")).args(["--listen", &url, "--data-dir"]).arg(dir)
            }
            Kind::Kine => {
                let db = format!("sqlite://{}/state.db?_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate&_synchronous=FULL", dir.display());
                command
                    .arg(programs.bin.join("kine"))
                    .args(["--endpoint", &db, "--metrics-bind-address=0", "--listen-address", &format!("127.0.0.1:{port}")])
            }
        };
        let log = fs::File::create(dir.with_extension("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let begun = Instant::now();
        let child = command.spawn().with_context(|| format!("start {}", kind.name()))?;
        let (pid, address) = (child.id(), format!("127.0.0.1:{port}"));
        let mut server = Self { child, address, pid, started_in: Duration::ZERO };
        while begun.elapsed() < Duration::from_secs(60) {
            if workload::probe(&server.address).is_ok() {
                server.started_in = begun.elapsed();
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended with {status}; see {}", kind.name(), dir.with_extension("log").display());
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        bail!("{} did not answer within a minute", kind.name())
    }

    /// Ends it in order, or at once.
    pub(crate) fn stop(mut self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid.cast_signed()).context("a pid")?;
        kill_process(pid, signal)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
