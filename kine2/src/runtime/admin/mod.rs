//! Commands of the operator: over a socket in the data directory, and for the other node over the
//! connection between the nodes. A message is its length (u32, little endian) and JSON.

mod commands;
mod policy;
mod quarantine;
mod status;
mod wire;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::BytesMut;
use kine2_peer::framing::{MessageReader, put_bytes};
use kine2_peer::{Purpose, Stream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

use super::pair::Pair;
use crate::config::ServeConfig;

pub(crate) use policy::POLICIES;
pub(crate) use status::NodeStatus;
pub(crate) use wire::{Answer, Events, For, Order, Request, Shelf};

/// Bytes of a request or an answer.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How long the other node may take to answer.
const PEER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a node may take, the other one included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket of a data directory.
pub(crate) fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

/// What carries out the operator's commands.
#[derive(Debug)]
pub(super) struct Admin {
    pair: Arc<Pair>,
    /// Where the other node finds this one, if the configuration says it.
    advertised: Vec<String>,
    listens: SocketAddr,
    socket: PathBuf,
    data_dir: PathBuf,
    quarantine_bytes_max: u64,
}

impl Admin {
    pub(super) fn new(pair: Arc<Pair>, config: &ServeConfig) -> Arc<Self> {
        Arc::new(Self {
            pair,
            advertised: config.advertise_peer.clone(),
            listens: config.listen_peer,
            socket: socket_path(&config.data_dir),
            data_dir: config.data_dir.clone(),
            quarantine_bytes_max: config.quarantine_bytes,
        })
    }

    /// Carries a request out, here, there or on both.
    async fn answer(&self, request: Request) -> Vec<Answer> {
        let mut answers = Vec::new();
        let (here, there) = match &request.node {
            For::This => (true, false),
            For::All => (true, true),
            For::Named(name) => {
                let (me, peer) = self.names();
                if *name != me && peer.as_ref().is_some_and(|peer| peer != name) {
                    let peer = peer.unwrap_or_default();
                    let why = format!("there is no node {name}: the nodes are {me} and {peer}");
                    return vec![Answer::failed(why)];
                }
                (*name == me, *name != me)
            }
        };
        if here {
            answers.push(self.carry_out(request.order.clone()).await);
        }
        if there {
            answers.push(self.ask_peer(request.order).await);
        }
        answers
    }

    /// This node, and the other one if the configuration has it.
    fn names(&self) -> (String, Option<String>) {
        let node = self.pair.node();
        let unit = node.unit();
        let peer = unit.config().other(unit.me());
        let peer = peer.map(|peer| peer.name.to_string());
        (unit.me().name.to_string(), peer)
    }

    async fn ask_peer(&self, order: Order) -> Answer {
        let asked = tokio::time::timeout(PEER_TIMEOUT, self.try_peer(order)).await;
        match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::failed(format!("the other node: {error:#}")),
            Err(_elapsed) => Answer::failed(format!(
                "the other node did not answer within {PEER_TIMEOUT:?}"
            )),
        }
    }

    async fn try_peer(&self, order: Order) -> anyhow::Result<Answer> {
        let mut reader = self.pair.connect(Purpose::Admin).await?;
        let request = Request {
            node: For::This,
            order,
        };
        write(reader.stream_mut(), &request).await?;
        let answers: Vec<Answer> = read(&mut reader)
            .await?
            .context("it closed the connection")?;
        let answer = answers.into_iter().next();
        answer.context("it gave no answer")
    }

    /// Answers requests on a connection, one after the other.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut reader: MessageReader<S>,
    ) -> anyhow::Result<()> {
        while let Some(request) = read::<Request>(&mut reader).await? {
            let answers = self.answer(request).await;
            write(reader.stream_mut(), &answers).await?;
        }
        Ok(())
    }

    /// Answers requests of the other node.
    pub(super) async fn serve_peer(self: Arc<Self>, reader: MessageReader<Stream>) {
        let served = self.serve(reader.with_bytes_max(MESSAGE_BYTES_MAX)).await;
        if let Err(error) = served {
            debug!(
                error = format!("{error:#}"),
                "a connection for commands ended"
            );
        }
    }
}

/// Serves commands on the socket of the data directory, until the program ends.
pub(super) async fn serve(admin: Arc<Admin>) {
    let listener = match listen(&admin.socket) {
        Ok(listener) => listener,
        Err(error) => {
            return warn!(
                error = format!("{error:#}"),
                "no commands can be given to this node"
            );
        }
    };
    admin.pair.set_admin(Arc::clone(&admin));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a command could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let reader = MessageReader::new(stream, MESSAGE_BYTES_MAX);
            if let Err(error) = admin.serve(reader).await {
                debug!(
                    error = format!("{error:#}"),
                    "a connection for commands ended"
                );
            }
        });
    }
}

fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    // One that a killed process left; the data directory is ours alone.
    let _ = fs::remove_file(path);
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("keep {} from others", path.display()))?;
    Ok(listener)
}

/// Asks the node of a data directory.
///
/// # Errors
/// If none runs there, or it does not answer.
pub(crate) fn ask(data_dir: &Path, request: &Request) -> anyhow::Result<Vec<Answer>> {
    let path = socket_path(data_dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let asking = async {
        let stream = UnixStream::connect(&path).await.with_context(|| {
            format!(
                "no node answers at {}: is `kine2 serve` running?",
                path.display()
            )
        })?;
        let mut reader = MessageReader::new(stream, MESSAGE_BYTES_MAX);
        write(reader.stream_mut(), request).await?;
        let answers = read(&mut reader).await?;
        answers.context("the node closed the connection")
    };
    runtime.block_on(async {
        let answers = tokio::time::timeout(ANSWER_TIMEOUT, asking).await;
        answers.with_context(|| format!("the node did not answer within {ANSWER_TIMEOUT:?}"))?
    })
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl serde::Serialize,
) -> anyhow::Result<()> {
    let mut out = BytesMut::new();
    put_bytes(&mut out, &serde_json::to_vec(message)?);
    stream.write_all_buf(&mut out).await?;
    Ok(stream.flush().await?)
}

async fn read<M: serde::de::DeserializeOwned>(
    reader: &mut MessageReader<impl AsyncRead + Unpin>,
) -> anyhow::Result<Option<M>> {
    Ok(match reader.next_bytes().await? {
        Some(bytes) => Some(serde_json::from_slice(&bytes)?),
        None => None,
    })
}
