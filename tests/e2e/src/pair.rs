//! The three processes, started, ended and hindered.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::disk::{Disk, Medium};
use crate::lab::{Lab, Machine};
use crate::net::Net;
use crate::process::{Process, program, witness_program};

/// Nothing here takes longer, on a busy machine either. A peer that was dropped four times lately is
/// added again after 40 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A node that writes meets a disk that fails sooner.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);

/// A node of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The first.
    A,
    /// The second.
    B,
}

impl Node {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Where it runs.
    #[must_use]
    pub const fn machine(self) -> Machine {
        match self {
            Self::A => Machine::A,
            Self::B => Machine::B,
        }
    }
}

/// Two nodes and a witness; killed when it is dropped.
#[derive(Debug)]
pub struct Pair {
    nodes: [Option<Process>; 2],
    witness: Option<Process>,
    disks: [Disk; 2],
    net: Net,
    dir: TempDir,
}

impl Pair {
    /// Starts one on loopback and waits until both nodes have the same data.
    ///
    /// # Panics
    /// If it does not come to that.
    #[must_use]
    pub fn start() -> Self {
        Self::on(Medium::Good)
    }

    /// The same on disks of this kind.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn on(medium: Medium) -> Self {
        let mut pair = Self::new(Net::loopback(), medium);
        pair.form();
        pair
    }

    /// The same with a network namespace for each of the three.
    ///
    /// # Errors
    /// Why there can be no namespaces here.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn in_lab(medium: Medium) -> Result<Self, String> {
        let mut pair = Self::new(Net::Lab(Lab::set_up()?), medium);
        pair.form();
        Ok(pair)
    }

    /// Starts one over what a node that served by itself holds: `fill` gets its endpoint.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn grown(fill: impl FnOnce(&str)) -> Self {
        let mut pair = Self::new(Net::loopback(), Medium::Good);
        let mut single = pair.command(Node::A, &["serve", "--single"]);
        pair.nodes[Node::A as usize] = Some(Process::spawn(&mut single, &pair.log_path("a")));
        let address = pair.net.client(Node::A);
        let begun = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "{}", pair.log("a"));
            thread::sleep(Duration::from_millis(10));
        }
        fill(&pair.url(Node::A));
        pair.signal(Node::A, Signal::TERM);
        pair.wait_for_end(Node::A);
        pair.form();
        pair
    }

    fn new(net: Net, medium: Medium) -> Self {
        let dir = tempfile::Builder::new().prefix("kine2-e2e-").tempdir();
        let dir = dir.unwrap();
        let disks = Node::BOTH.map(|node| Disk::below(&dir.path().join(node.name()), medium));
        Self {
            nodes: [None, None],
            witness: None,
            disks,
            net,
            dir,
        }
    }

    fn form(&mut self) {
        self.start_witness();
        self.kine2(Node::A, &["init"]);
        self.start_node(Node::A);
        self.wait_for(Node::A, "ALONE");
        let code = self.witness_code();
        self.kine2(Node::A, &["witness", "add", &code]);
        self.join(Node::B);
    }

    /// A code that lets a cluster in at the witness.
    ///
    /// # Panics
    /// If it gives none.
    #[must_use]
    pub fn witness_code(&self) -> String {
        let token = Command::new(witness_program())
            .args(["token", "--data-dir"])
            .arg(self.path("witness"))
            .args(["--address", &self.net.witness()])
            .output()
            .unwrap();
        assert!(token.status.success(), "{token:?}");
        let token = String::from_utf8(token.stdout).unwrap();
        token.trim().to_owned()
    }

    /// Joins a node with an empty data directory, by a code of the other one, and waits until it
    /// is in sync.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn join(&mut self, node: Node) {
        let code = self.kine2(node.other(), &["join-token"]);
        self.kine2(node, &["join", code.trim()]);
        self.start_node(node);
        self.wait_until_mirrored();
    }

    /// Ends a node and deletes its data.
    ///
    /// # Panics
    /// If it cannot be deleted.
    pub fn wipe(&mut self, node: Node) {
        self.kill(node);
        self.disk(node).wipe();
    }

    /// Gives a node that does not run the old image of its disk that a fault has made.
    ///
    /// # Panics
    /// If there is none.
    pub fn restore_image(&self, node: Node) {
        self.disk(node).restore_image();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    /// What a node or the witness logged.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_path(name)).unwrap_or_default()
    }

    pub(crate) fn data_dir(&self, node: Node) -> PathBuf {
        self.disk(node).data_dir()
    }

    pub(crate) const fn disk(&self, node: Node) -> &Disk {
        &self.disks[node as usize]
    }

    /// The network between the machines, if there is one of their own.
    #[must_use]
    pub const fn lab(&self) -> Option<&Lab> {
        self.net.lab()
    }

    /// Where clients reach a node.
    #[must_use]
    pub fn url(&self, node: Node) -> String {
        format!("http://{}", self.net.client(node))
    }

    /// The program with a command and a node's settings.
    pub(crate) fn command(&self, node: Node, command: &[&str]) -> Command {
        let mut all = self.net.command(node.machine(), &program());
        all.args(command)
            .arg("--config=/dev/null")
            .arg(format!("--data-dir={}", self.data_dir(node).display()))
            .arg(format!("--name={}", node.name()))
            .arg(format!("--listen-client={}", self.url(node)))
            .arg(format!("--listen-peer={}", self.net.peer(node)))
            .args(["--segment-bytes=1MiB", "--checkpoint-bytes=1MiB"])
            .arg("--log-keep=8MiB");
        all
    }

    /// Starts a node, if it does not run.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn start_node(&mut self, node: Node) {
        if self.runs(node) {
            return;
        }
        let mut command = self.command(node, &["serve"]);
        self.disk(node).prepare(&mut command);
        let process = Process::spawn(&mut command, &self.log_path(node.name()));
        self.nodes[node as usize] = Some(process);
    }

    /// Starts the witness, if it does not run.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn start_witness(&mut self) {
        if self.witness.is_some() {
            return;
        }
        let mut command = self.net.command(Machine::Witness, &witness_program());
        command
            .args(["serve", "--data-dir"])
            .arg(self.path("witness"))
            .args(["--listen", &self.net.witness()]);
        self.witness = Some(Process::spawn(&mut command, &self.log_path("witness")));
        let begun = Instant::now();
        while !witness_answers(&self.path("witness")) {
            assert!(begun.elapsed() < PATIENCE, "the witness does not start");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether a node's process is there.
    pub fn runs(&mut self, node: Node) -> bool {
        let process = self.nodes[node as usize].as_mut();
        process.is_some_and(|process| process.ended().is_none())
    }

    /// Kills a node at once.
    pub fn kill(&mut self, node: Node) {
        self.nodes[node as usize] = None;
    }

    /// Kills both nodes at once.
    pub fn kill_both(&mut self) {
        for node in self.nodes.iter().flatten() {
            node.signal(Signal::KILL);
        }
        self.nodes = [None, None];
    }

    /// Kills the witness at once.
    pub fn kill_witness(&mut self) {
        self.witness = None;
    }

    /// Sends a signal to a node, if it runs.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&mut self, node: Node, signal: Signal) {
        if self.runs(node)
            && let Some(process) = &self.nodes[node as usize]
        {
            process.signal(signal);
        }
    }

    /// Waits until a node that was asked to has ended.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn wait_for_end(&mut self, node: Node) {
        let Some(mut process) = self.nodes[node as usize].take() else {
            return;
        };
        let status = process.wait_for_end(PATIENCE).expect("it does not end");
        // Its disk may have failed besides.
        let is_well = status.success() || self.disk(node).fails() && status.code() == Some(1);
        assert!(is_well, "{status}: {}", self.log(node.name()));
    }

    /// Waits until a node whose disk fails has ended for that reason; one that does not write does
    /// not notice, and is killed.
    ///
    /// # Panics
    /// If it ends otherwise.
    pub fn wait_for_failure(&mut self, node: Node) {
        let Some(mut process) = self.nodes[node as usize].take() else {
            return;
        };
        if let Some(status) = process.wait_for_end(NOTICED_WITHIN) {
            let log = self.log(node.name());
            assert_eq!(status.code(), Some(1), "{status}: {log}");
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if thread::panicking() {
            for name in ["a", "b", "witness"] {
                eprintln!("--- {name}\n{}", tail(&self.log(name)));
            }
            self.dir.disable_cleanup(true);
            eprintln!("--- all of it is in {}", self.dir.path().display());
        }
    }
}

/// Its socket is there before it listens, and gone when it was killed.
fn witness_answers(dir: &Path) -> bool {
    let status = Command::new(witness_program())
        .args(["status", "--data-dir"])
        .arg(dir)
        .output();
    status.unwrap().status.success()
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
