//! A gRPC client right on h2.

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request};
use tokio::net::TcpStream;

use crate::protobuf::FRAME_HEADER_BYTES;
use crate::requests::Method;

/// Bytes a stream may have on its way here: more than a page of 500 keys, so none waits for us.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for a connection: what a Go client grows to.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A connection; cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    /// A request for each [`Method`], in its order, to be cloned.
    templates: [Request<()>; Method::ALL.len()],
}

impl Connection {
    /// Connects to `host:port`.
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address)
            .await
            .with_context(|| format!("call {address}"))?;
        socket.set_nodelay(true)?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(socket)
            .await?;
        // The calls see it when the connection ends.
        tokio::task::spawn_local(async move { drop(connection.await) });
        let templates = Method::ALL.map(|method| template(address, method));
        Ok(Self { sender, templates })
    }

    /// Opens as many connections.
    pub(crate) async fn open_many(address: &str, count: usize) -> anyhow::Result<Vec<Self>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Self::open(address).await?);
        }
        Ok(connections)
    }

    /// A call with one answer: sends a frame, returns the message.
    pub(crate) async fn call(&self, method: Method, frame: Bytes) -> anyhow::Result<Bytes> {
        let (mut send, response) = self.start(method).await?;
        send.send_data(frame, true)?;
        let response = response.await?;
        check_status(response.headers(), false)?;
        let mut messages = Messages::new(response.into_body());
        let message = messages.next().await?;
        ensure!(
            messages.next().await?.is_none(),
            "{} answered twice",
            method.path()
        );
        let trailers = messages.body.trailers().await?.unwrap_or_default();
        check_status(&trailers, true)?;
        message.with_context(|| format!("{} answered nothing", method.path()))
    }

    /// A call whose both directions stay open; sends the first frame.
    pub(crate) async fn stream(&self, method: Method, first: Bytes) -> anyhow::Result<Stream> {
        let (mut send, response) = self.start(method).await?;
        send.send_data(first, false)?;
        let response = response.await?;
        check_status(response.headers(), false)?;
        Ok(Stream {
            send,
            messages: Messages::new(response.into_body()),
        })
    }

    async fn start(&self, method: Method) -> anyhow::Result<(SendStream<Bytes>, ResponseFuture)> {
        let request = self.templates[method as usize].clone();
        let mut sender = self.sender.clone().ready().await?;
        let (response, send) = sender.send_request(request, false)?;
        Ok((send, response))
    }
}

fn template(address: &str, method: Method) -> Request<()> {
    let builder = Request::builder()
        .method("POST")
        .uri(format!("http://{address}{}", method.path()))
        .header("content-type", HeaderValue::from_static("application/grpc"))
        .header("user-agent", HeaderValue::from_static("grpc-go/1.80.0"))
        .header("te", HeaderValue::from_static("trailers"));
    let builder = match method {
        Method::Watch => builder.header("hasleader", HeaderValue::from_static("true")),
        Method::Range
        | Method::Txn
        | Method::LeaseGrant
        | Method::LeaseKeepAlive
        | Method::LeaseRevoke
        | Method::Status => builder,
    };
    builder.body(()).expect("address and path make a URI")
}

/// An error that comes with the headers has no trailers, so the status is `required` only there.
fn check_status(headers: &HeaderMap, required: bool) -> anyhow::Result<()> {
    match headers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        None if !required => Ok(()),
        status => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let message = headers
                .get("grpc-message")
                .map(|value| text(value.as_bytes()));
            bail!(
                "status {}: {}",
                status.map_or_else(String::new, text),
                message.unwrap_or_default()
            )
        }
    }
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Stream {
    send: SendStream<Bytes>,
    messages: Messages,
}

impl Stream {
    pub(crate) fn send(&mut self, frame: Bytes) -> anyhow::Result<()> {
        Ok(self.send.send_data(frame, false)?)
    }

    /// The next message; the end of the stream is an error.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Bytes> {
        if let Some(message) = self.messages.next().await? {
            return Ok(message);
        }
        let trailers = self.messages.body.trailers().await?.unwrap_or_default();
        check_status(&trailers, true)?;
        bail!("the stream ended")
    }
}

/// Frames of HTTP/2 made into messages; what comes in one piece is not copied.
#[derive(Debug)]
struct Messages {
    body: RecvStream,
    /// Received and not yet handed out, while it is one piece.
    piece: Bytes,
    /// The same, when a message came in several; the piece is empty then.
    joined: BytesMut,
}

impl Messages {
    fn new(body: RecvStream) -> Self {
        Self {
            body,
            piece: Bytes::new(),
            joined: BytesMut::new(),
        }
    }

    /// The next message, or none at the end.
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let Some(data) = self.body.data().await else {
                ensure!(
                    self.piece.is_empty() && self.joined.is_empty(),
                    "a message is cut off"
                );
                return Ok(None);
            };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            self.push(data)?;
        }
    }

    fn take(&mut self) -> anyhow::Result<Option<Bytes>> {
        let held = if self.joined.is_empty() {
            &self.piece[..]
        } else {
            &self.joined[..]
        };
        let Some(len) = frame_bytes(held)? else {
            return Ok(None);
        };
        if held.len() < len {
            return Ok(None);
        }
        let mut frame = if self.joined.is_empty() {
            self.piece.split_to(len)
        } else {
            let frame = self.joined.split_to(len).freeze();
            self.piece = self.joined.split().freeze();
            frame
        };
        frame.advance(FRAME_HEADER_BYTES);
        Ok(Some(frame))
    }

    fn push(&mut self, data: Bytes) -> anyhow::Result<()> {
        if self.piece.is_empty() && self.joined.is_empty() {
            self.piece = data;
            return Ok(());
        }
        if self.joined.is_empty() {
            let len = frame_bytes(&self.piece)?.unwrap_or_default();
            self.joined.reserve(len.max(self.piece.len() + data.len()));
            self.joined.extend_from_slice(&self.piece);
            self.piece = Bytes::new();
        }
        self.joined.extend_from_slice(&data);
        Ok(())
    }
}

/// Bytes of the frame that begins here, its header included; none before the header is whole.
fn frame_bytes(held: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some((&[flag, a, b, c, d], _)) = held.split_first_chunk() else {
        return Ok(None);
    };
    ensure!(flag == 0, "a compressed message that was not asked for");
    Ok(Some(
        FRAME_HEADER_BYTES + usize::try_from(u32::from_be_bytes([a, b, c, d]))?,
    ))
}
