//! The three processes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Nothing here takes longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The first.
    A,
    /// The second.
    B,
}

impl Node {
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
}

/// Two nodes and a witness; killed when it is dropped.
#[derive(Debug)]
pub struct Pair {
    dir: TempDir,
    ports: [u16; 5],
    processes: [Option<Child>; 3],
}

const WITNESS: usize = 2;

impl Pair {
    /// Starts one and waits until both nodes have the same data.
    ///
    /// # Panics
    /// If it does not come to that.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = Self {
            dir,
            ports: free_ports(),
            processes: [None, None, None],
        };
        pair.start_witness();
        pair.init();
        pair.join(Node::B);
        pair
    }

    /// Starts one over what a node that served by itself holds: `fill` gets its endpoint.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn grown(fill: impl FnOnce(&str)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = Self {
            dir,
            ports: free_ports(),
            processes: [None, None, None],
        };
        let mut single = Command::new(program());
        single
            .args(["serve", "--single"])
            .args(pair.settings(Node::A));
        pair.processes[Node::A as usize] = Some(pair.spawn(&mut single, "a"));
        let address = pair.url(Node::A).replace("http://", "");
        let begun = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "{}", pair.log("a"));
            std::thread::sleep(Duration::from_millis(10));
        }
        fill(&pair.url(Node::A));
        pair.signal(Node::A, Signal::TERM);
        pair.wait_for_end(Node::A);
        pair.start_witness();
        pair.init();
        pair.join(Node::B);
        pair
    }

    fn init(&mut self) {
        self.kine2(Node::A, &["init"]);
        self.start_node(Node::A);
        self.wait_for(Node::A, "ALONE");
        let code = self.witness_code();
        self.kine2(Node::A, &["witness", "add", &code]);
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
            .args(["--address", &format!("127.0.0.1:{}", self.ports[4])])
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
        fs::remove_dir_all(self.path(node.name())).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where clients reach a node.
    #[must_use]
    pub fn url(&self, node: Node) -> String {
        format!("http://127.0.0.1:{}", self.ports[node as usize * 2])
    }

    fn settings(&self, node: Node) -> Vec<String> {
        let at = node as usize * 2;
        vec![
            "--config=/dev/null".to_owned(),
            format!("--data-dir={}", self.path(node.name()).display()),
            format!("--name={}", node.name()),
            format!("--listen-client={}", self.url(node)),
            format!("--listen-peer=127.0.0.1:{}", self.ports[at + 1]),
            "--segment-bytes=1MiB".to_owned(),
            "--checkpoint-bytes=1MiB".to_owned(),
        ]
    }

    /// Runs a command for a node: what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn kine2(&self, node: Node, command: &[&str]) -> String {
        let output = self.try_kine2(node, command);
        assert!(output.0, "kine2 {command:?}: {}", output.1);
        output.1
    }

    /// Runs a command for a node: whether it succeeded, and what it printed.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn try_kine2(&self, node: Node, command: &[&str]) -> (bool, String) {
        let output = Command::new(program())
            .args(command)
            .args(self.settings(node))
            .output()
            .unwrap();
        let mut said = String::from_utf8(output.stdout).unwrap();
        said.push_str(&String::from_utf8(output.stderr).unwrap());
        (output.status.success(), said)
    }

    /// Starts a node.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn start_node(&mut self, node: Node) {
        let mut command = Command::new(program());
        command.arg("serve").args(self.settings(node));
        self.processes[node as usize] = Some(self.spawn(&mut command, node.name()));
    }

    /// Starts the witness.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn start_witness(&mut self) {
        let mut command = Command::new(witness_program());
        command
            .args(["serve", "--data-dir"])
            .arg(self.path("witness"))
            .args(["--listen", &format!("127.0.0.1:{}", self.ports[4])]);
        self.processes[WITNESS] = Some(self.spawn(&mut command, "witness"));
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.ports[4])).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the witness does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn spawn(&self, command: &mut Command, name: &str) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// What a node or the witness logged.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Kills a node at once.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self, node: Node) {
        end(&mut self.processes[node as usize]);
    }

    /// Kills the witness at once.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_witness(&mut self) {
        end(&mut self.processes[WITNESS]);
    }

    /// Sends a signal to a node.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, node: Node, signal: Signal) {
        let child = self.processes[node as usize].as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Waits until a node that was asked to has ended.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn wait_for_end(&mut self, node: Node) {
        let mut child = self.processes[node as usize].take().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status}: {}", self.log(node.name()));
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The state of a node, as `kine2 status` says it; empty if it does not answer.
    ///
    /// # Panics
    /// If its answer is not JSON.
    #[must_use]
    pub fn state(&self, node: Node) -> String {
        let status = self.status(node);
        status["state"].as_str().unwrap_or_default().to_owned()
    }

    /// What `kine2 status -o json` says of a node; null if it does not answer.
    ///
    /// # Panics
    /// If its answer is not JSON.
    #[must_use]
    pub fn status(&self, node: Node) -> serde_json::Value {
        let asked = ["status", "-o", "json", "--node", node.name()];
        let (done, said) = self.try_kine2(node, &asked);
        if !done {
            return serde_json::Value::Null;
        }
        let answers: serde_json::Value = serde_json::from_str(&said).unwrap();
        answers[0]["status"].clone()
    }

    /// Waits until a node is in a state that begins so.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn wait_for(&self, node: Node, state: &str) {
        let begun = Instant::now();
        loop {
            let now = self.state(node);
            if now.starts_with(state) {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{} is {now:?} and not {state:?}:\n{}",
                node.name(),
                self.log(node.name())
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until both nodes have the same data and each could take over.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn wait_until_mirrored(&self) {
        let begun = Instant::now();
        let can = |node| self.status(node)["can_fail_over"] == true;
        while !(can(Node::A) && can(Node::B)) {
            assert!(
                begun.elapsed() < PATIENCE,
                "not in sync: {:#} {:#}\n{}\n{}",
                self.status(Node::A),
                self.status(Node::B),
                self.log("a"),
                self.log("b")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a node serves as the primary.
    ///
    /// # Panics
    /// If none comes to that.
    pub fn wait_for_primary(&self) {
        let begun = Instant::now();
        let serves = |node| matches!(&self.state(node)[..], "PRIM" | "ALONE");
        while !(serves(Node::A) || serves(Node::B)) {
            assert!(begun.elapsed() < PATIENCE, "nobody serves");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Which node is the primary.
    ///
    /// # Panics
    /// If none says that it is.
    #[must_use]
    pub fn primary(&self) -> Node {
        let serves = |node: &Node| {
            let state = self.state(*node);
            state == "PRIM" || state == "ALONE"
        };
        let primary = [Node::A, Node::B].into_iter().find(serves);
        primary.expect("one of them is the primary")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for process in &mut self.processes {
            if process.is_some() {
                end(process);
            }
        }
        if std::thread::panicking() {
            for name in ["a", "b", "witness"] {
                eprintln!("--- {name}\n{}", tail(&self.log(name)));
            }
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn end(process: &mut Option<Child>) {
    let mut child = process.take().unwrap();
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// The program: `KINE2_BIN`, or the one built beside the test.
fn program() -> PathBuf {
    built("KINE2_BIN", "kine2")
}

/// The witness: `WITNESS_BIN`, or the one built beside the test.
fn witness_program() -> PathBuf {
    built("WITNESS_BIN", "kine2-witness")
}

fn built(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let dir = test.parent().and_then(Path::parent).unwrap();
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is not built: cargo build --package kine2 --package kine2-witness, or set {variable}",
        path.display()
    );
    path
}

/// Ports that nobody listens on, each given out once in this process.
fn free_ports() -> [u16; 5] {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    std::array::from_fn(|_| {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            if given.insert(port) {
                return port;
            }
        }
    })
}
