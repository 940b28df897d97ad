//! A kine2 of its own for each test: on a free loopback port, with data that go with it.

#![expect(clippy::disallowed_methods, reason = "it waits for another process")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, Error};
use tempfile::TempDir;
use tonic::Code;

const START_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// No answer takes longer.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A running server; dropping it ends it.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    pub(crate) dir: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(TempDir::new().expect("a directory"), "http", &[])
    }

    /// Starts it with its data in `dir`, listening on TCP by `scheme`.
    pub(crate) fn start_with(dir: TempDir, scheme: &str, flags: &[String]) -> Self {
        let program = std::env::var("KINE2").expect("KINE2 is the path of the server's program");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let log = fs::File::create(dir.path().join("log")).expect("a log file");
        let child = Command::new(program)
            .args(["serve", "--single", "--data-dir"])
            .arg(dir.path().join("data"))
            .arg(format!("--listen-client={scheme}://127.0.0.1:{port}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log twice"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let mut server = Self { child, port, dir };
        server.wait_until_it_listens();
        server
    }

    fn wait_until_it_listens(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().expect("its state");
            assert!(
                ended.is_none() && begun.elapsed() < START_MAX,
                "the server does not listen; it says: {}",
                fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Ends it at once, as a power cut would, and starts it again on its data and port.
    pub(crate) fn kill_and_start(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ended");
        let program = std::env::var("KINE2").expect("it was there before");
        self.child = Command::new(program)
            .args(["serve", "--single", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .arg(format!("--listen-client=http://127.0.0.1:{}", self.port))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts again");
        self.wait_until_it_listens();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect([self.url()], None).await.expect("a client")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Fails if the answer is not this error.
pub(crate) fn check_error<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, text: &str) {
    match result {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!((status.code(), status.message()), (code, text));
        }
        other => panic!("not a status: {other:?}"),
    }
}

pub(crate) async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(ANSWER_MAX, answer)
        .await
        .expect("an answer in time")
}

/// Writes what `rcgen` made to a file.
pub(crate) fn write(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, content).expect("the file is written");
    path.to_str().expect("a plain path").to_owned()
}
