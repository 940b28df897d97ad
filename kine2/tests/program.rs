//! The program as a service manager and a monitor see it.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Nothing in these tests takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kine2"))
}

/// A running `kine2 serve`; dropping it kills it.
struct Running {
    child: Child,
    address: String,
    log: Vec<String>,
    lines: Receiver<String>,
    data_dir: TempDir,
}

impl Running {
    fn start() -> Self {
        Self::with(program(), &[])
    }

    fn with(mut command: Command, flags: &[&str]) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let mut child = command
            .args(["serve", "--single", "--listen-client", "http://127.0.0.1:0"])
            .arg("--data-dir")
            .arg(data_dir.path().join("data"))
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut running = Self {
            child,
            address: String::new(),
            log: Vec::new(),
            lines,
            data_dir,
        };
        while running.address.is_empty() {
            let line = running.lines.recv_timeout(PATIENCE).unwrap();
            if let Some((before, address)) = line.split_once("http://")
                && before.contains("listening")
            {
                let is_part = |c: &char| c.is_ascii_digit() || matches!(c, '.' | ':');
                running.address = address.chars().take_while(is_part).collect();
            }
            running.log.push(line);
        }
        running
    }

    /// Asks it to stop; answers how it ended and all it has logged.
    fn stop(mut self) -> (ExitStatus, Vec<String>) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        self.log.extend(self.lines.iter());
        (status, std::mem::take(&mut self.log))
    }

    fn get(&self, path: &str) -> String {
        ask(&TcpStream::connect(&self.address).unwrap(), path)
    }
}

fn ask(mut connection: &TcpStream, path: &str) -> String {
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: kine2\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn belongs_to_its_owner_alone(path: &Path) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let mode = metadata.permissions().mode() & 0o777;
    assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            belongs_to_its_owner_alone(&entry.unwrap().path());
        }
    }
}

#[test]
fn what_it_keeps_is_its_owners_and_what_it_logs_is_plain() {
    let server = Running::start();
    belongs_to_its_owner_alone(&server.data_dir.path().join("data"));
    let (status, log) = server.stop();
    assert!(status.success(), "{status}");
    assert!(
        log.iter().any(|line| line.contains("etcdctl")),
        "{log:?} says what to type next"
    );
    for line in log {
        assert!(!line.contains('\x1b'), "{line:?}");
    }
}

#[test]
fn a_log_in_json_is_nothing_but_json() {
    let server = Running::with(program(), &["--log-format", "json"]);
    let (status, log) = server.stop();
    assert!(status.success(), "{status}");
    for line in log {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line:?}");
    }
}

#[test]
fn at_debug_the_frames_of_connections_are_not_told() {
    let server = Running::with(program(), &["--log-level", "debug"]);
    assert!(server.get("/health").contains("\"true\""));
    let mut connection = TcpStream::connect(&server.address).unwrap();
    // HTTP/2 with prior knowledge: the preface and an empty SETTINGS frame.
    connection
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    connection.read_exact(&mut [0; 9]).unwrap();
    let (status, log) = server.stop();
    assert!(status.success(), "{status}");
    assert!(!log.iter().any(|line| line.contains("frame=")), "{log:?}");
}

#[test]
fn a_stop_that_comes_with_readiness_is_an_orderly_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let told = UnixDatagram::bind(&path).unwrap();
    told.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = program()
        .args(["serve", "--single", "--listen-client", "http://127.0.0.1:0"])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let hear = |wanted: &str| {
        let mut state = [0; 64];
        let count = told.recv(&mut state).unwrap();
        assert_eq!(std::str::from_utf8(&state[..count]).unwrap(), wanted);
    };
    hear("READY=1");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    hear("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn files_that_run_out_cost_connections_and_not_the_log() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 300; exec \"$0\" \"$@\""]);
    shell.arg(env!("CARGO_BIN_EXE_kine2"));
    let server = Running::with(shell, &[]);
    let connect = |_| TcpStream::connect(&server.address).unwrap();
    let connections: Vec<TcpStream> = (0..400).map(connect).collect();
    // One that was accepted is served while the others wait.
    assert!(ask(&connections[0], "/health").contains("\"true\""));
    drop(connections);
    assert!(server.get("/health").contains("\"true\""));
    let (status, log) = server.stop();
    assert!(status.success(), "{status}");
    let failed = log.iter().find(|line| line.contains("cannot accept"));
    assert_eq!(failed, None);
}

#[test]
fn metrics_have_the_names_of_etcd() {
    let server = Running::start();
    let metrics = server.get("/metrics");
    for name in [
        "etcd_server_has_leader",
        "etcd_server_is_leader",
        "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_server_proposals_pending",
        "etcd_server_proposals_failed_total",
        "etcd_server_quota_backend_bytes",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_debugging_mvcc_keys_total",
        "etcd_debugging_mvcc_watcher_total",
        "etcd_debugging_mvcc_slow_watcher_total",
        "etcd_debugging_server_lease_expired_total",
        "etcd_mvcc_put_total",
        "etcd_mvcc_delete_total",
        "etcd_mvcc_txn_total",
        "etcd_mvcc_range_total",
        "etcd_disk_wal_fsync_duration_seconds_bucket",
        "etcd_disk_backend_commit_duration_seconds_bucket",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
    ] {
        let is_sample = |line: &str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        };
        assert!(metrics.lines().any(is_sample), "{name} is missing");
    }
    assert!(metrics.contains("# TYPE grpc_server_started_total counter"));
    assert!(metrics.contains("# TYPE grpc_server_handled_total counter"));
}
