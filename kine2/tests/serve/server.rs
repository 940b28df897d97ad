//! A running `kine2 serve --single` and a client of it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::uri::PathAndQuery;
use kine2_proto::WireCodec;
use kine2_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Nothing here takes longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    url: String,
    said: Arc<Mutex<String>>,
}

impl Server {
    /// Starts one on `data_dir`, with small segments and frequent checkpoints. The error is what
    /// it said when it ended instead of serving.
    pub(crate) fn start(data_dir: &Path) -> Result<Self, String> {
        let url = format!("http://127.0.0.1:{}", free_port());
        let mut child = Command::new(env!("CARGO_BIN_EXE_kine2"))
            .args(["serve", "--single", "--config", "/dev/null"])
            .args(["--segment-bytes=1MiB", "--checkpoint-bytes=1MiB"])
            .arg(format!("--data-dir={}", data_dir.display()))
            .arg(format!("--listen-client={url}"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let (ready, is_ready) = channel();
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                heard.lock().unwrap().push_str(&format!("{line}\n"));
                if line.contains("ready to serve") {
                    // Whoever waited may have given up.
                    let _ = ready.send(());
                }
            }
        });
        let mut server = Self { child, url, said };
        match is_ready.recv_timeout(PATIENCE) {
            Ok(()) => Ok(server),
            Err(RecvTimeoutError::Timeout) => panic!("it does not start: {}", server.said()),
            Err(RecvTimeoutError::Disconnected) => {
                let status = server.child.wait().unwrap();
                assert_eq!(status.code(), Some(1), "{status}: {}", server.said());
                Err(server.said())
            }
        }
    }

    /// What it wrote to standard error.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Stops it as an init system does.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.said());
    }

    pub(crate) async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(self.url.clone()).unwrap();
        Client(endpoint.connect().await.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Runs a test's story on a runtime of its own.
pub(crate) fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(story)
}

#[derive(Clone, Debug)]
pub(crate) struct Client(Channel);

impl Client {
    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static(path);
        let answer = grpc.unary(Request::new(request), path, WireCodec::default());
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap();
        Ok(answer?.into_inner())
    }

    pub(crate) async fn put(&self, key: String, value: Vec<u8>) -> Result<i64, Status> {
        let request = PutRequest {
            key: key.into(),
            value: value.into(),
            ..PutRequest::default()
        };
        let answer: PutResponse = self.call("/etcdserverpb.KV/Put", request).await?;
        Ok(answer.header.unwrap().revision)
    }

    /// Everything at a revision (0: the newest), byte by byte, but for the header.
    pub(crate) async fn all(&self, revision: i64) -> Result<Vec<u8>, Status> {
        let request = RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            revision,
            ..RangeRequest::default()
        };
        let mut answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        answer.header = None;
        Ok(answer.encode_to_vec())
    }

    pub(crate) async fn get(&self, key: &'static str) -> Result<(), Status> {
        let request = RangeRequest {
            key: key.into(),
            ..RangeRequest::default()
        };
        let path = "/etcdserverpb.KV/Range";
        self.call::<_, RangeResponse>(path, request).await?;
        Ok(())
    }

    /// How many keys there are.
    pub(crate) async fn keys(&self) -> Result<usize, Status> {
        let request = RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            count_only: true,
            ..RangeRequest::default()
        };
        let answer: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(usize::try_from(answer.count).unwrap())
    }

    pub(crate) async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = CompactionRequest {
            revision,
            physical: true,
        };
        let path = "/etcdserverpb.KV/Compact";
        self.call::<_, CompactionResponse>(path, request).await?;
        Ok(())
    }

    pub(crate) async fn defragment(&self) -> Result<(), Status> {
        let path = "/etcdserverpb.Maintenance/Defragment";
        let request = DefragmentRequest::default();
        self.call::<_, DefragmentResponse>(path, request).await?;
        Ok(())
    }

    pub(crate) async fn status(&self) -> Result<StatusResponse, Status> {
        let path = "/etcdserverpb.Maintenance/Status";
        self.call(path, StatusRequest::default()).await
    }
}
