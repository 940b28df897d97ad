//! What the nodes of a pair say of themselves, and waiting until they say something.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::pair::{Node, PATIENCE, Pair};

/// A node that stands still does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What `kine2 status -o json` says of the node of a data directory; nothing if it does not answer.
pub(crate) fn ask(data_dir: &Path) -> Option<Value> {
    let mut stream = UnixStream::connect(data_dir.join("admin.sock")).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    let request = json!({"node": "this", "order": "status"}).to_string();
    let mut message = u32::try_from(request.len()).ok()?.to_le_bytes().to_vec();
    message.extend(request.as_bytes());
    stream.write_all(&message).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut answers = vec![0; usize::try_from(u32::from_le_bytes(length)).ok()?];
    stream.read_exact(&mut answers).ok()?;
    let mut answers: Value = serde_json::from_slice(&answers).expect("the answer is JSON");
    Some(answers[0]["status"].take())
}

/// Whether a node in this state orders writes.
#[must_use]
pub fn is_primary(state: &str) -> bool {
    state == "PRIM" || state == "ALONE"
}

impl Pair {
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
        let output = self.command(node, command).output().unwrap();
        let mut said = String::from_utf8(output.stdout).unwrap();
        said.push_str(&String::from_utf8(output.stderr).unwrap());
        (output.status.success(), said)
    }

    /// The state of a node, as `kine2 status` says it; empty if it does not answer.
    #[must_use]
    pub fn state(&self, node: Node) -> String {
        let status = self.status(node);
        status["state"].as_str().unwrap_or_default().to_owned()
    }

    /// What `kine2 status -o json` says of a node; null if it does not answer.
    #[must_use]
    pub fn status(&self, node: Node) -> Value {
        ask(&self.data_dir(node)).unwrap_or_default()
    }

    /// Waits until a node is in a state that begins so.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn wait_for(&self, node: Node, state: &str) {
        self.wait_until(&format!("{} is {state}", node.name()), |pair| {
            pair.state(node).starts_with(state)
        });
    }

    /// A node is in this state all the time.
    ///
    /// # Panics
    /// If it changes.
    pub fn stays(&self, node: Node, state: &str, length: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < length {
            assert_eq!(self.state(node), state);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until both nodes have the same data and each could take over.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn wait_until_mirrored(&self) {
        self.wait_until("they are in sync", Self::is_mirrored);
    }

    /// Waits until a node serves as the primary; which.
    ///
    /// # Panics
    /// If none comes to that.
    pub fn wait_for_primary(&self) -> Node {
        self.wait_until("one of them is the primary", |pair| {
            pair.find_primary().is_some()
        });
        self.primary()
    }

    /// Which node is the primary.
    ///
    /// # Panics
    /// If none says that it is.
    #[must_use]
    pub fn primary(&self) -> Node {
        self.find_primary().expect("one of them is the primary")
    }

    /// Whether both nodes have the same data and each could take over.
    #[must_use]
    pub fn is_mirrored(&self) -> bool {
        Node::BOTH.map(|node| self.status(node)["can_fail_over"] == true) == [true; 2]
    }

    /// Which node says that it is the primary.
    #[must_use]
    pub fn find_primary(&self) -> Option<Node> {
        Node::BOTH
            .into_iter()
            .find(|node| is_primary(&self.state(*node)))
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(
                begun.elapsed() < PATIENCE,
                "not so after {PATIENCE:?}: {what}\n{:#}\n{:#}",
                self.status(Node::A),
                self.status(Node::B)
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}
