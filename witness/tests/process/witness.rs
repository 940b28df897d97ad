//! The process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use kine2_trust::{Code, CodeKind};
use serde_json::Value;

const START_MAX: Duration = Duration::from_secs(20);

pub(crate) fn program() -> Command {
    let given = std::env::var_os("KINE2_WITNESS_PROGRAM");
    Command::new(given.unwrap_or_else(|| env!("CARGO_BIN_EXE_kine2-witness").into()))
}

/// A witness that serves; it is killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    log: Receiver<String>,
}

impl Process {
    pub(crate) fn start(dir: &Path) -> Self {
        let mut command = program();
        command.arg("serve");
        Self::started_by(command, dir)
    }

    /// Starts what the command is, which ends in the arguments of `serve`.
    pub(crate) fn started_by(mut command: Command, dir: &Path) -> Self {
        command.arg("--data-dir").arg(dir);
        command.args(["--listen", "127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (send, log) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("witness: {line}");
                let _ = send.send(line);
            }
        });
        let address = loop {
            let line = log
                .recv_timeout(START_MAX)
                .expect("it says where it listens");
            if let Some((_, rest)) = line.split_once("listening=") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        Self {
            child,
            address,
            log,
        }
    }

    /// Waits for a line of its log.
    pub(crate) fn logs(&self, what: &str) -> String {
        loop {
            let line = self.log.recv_timeout(START_MAX);
            let line = line.unwrap_or_else(|_| panic!("it never logged {what:?}"));
            if line.contains(what) {
                return line;
            }
        }
    }

    /// As a power cut of the process alone: it gets no word in.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        for _ in 0..500 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            pause(20);
        }
        panic!("it goes on");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "it waits for a process")]
pub(crate) fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

pub(crate) fn run(arguments: &[&str], dir: &Path) -> Output {
    let mut command = program();
    let command = command.args(arguments).arg("--data-dir").arg(dir);
    command.output().unwrap()
}

/// A code of the witness in this directory that leads to `address`.
pub(crate) fn token(dir: &Path, address: SocketAddr) -> Code {
    let made = run(&["token", "--address", &address.to_string()], dir);
    assert!(made.status.success(), "{made:?}");
    let text = String::from_utf8(made.stdout).unwrap();
    let code = Code::read(&text, CodeKind::Enrol, SystemTime::now()).unwrap();
    assert_eq!(code.addresses, [address.to_string()]);
    code
}

pub(crate) fn status(dir: &Path) -> Value {
    let made = run(&["status", "-o", "json"], dir);
    assert!(made.status.success(), "{made:?}");
    serde_json::from_slice(&made.stdout).unwrap()
}
