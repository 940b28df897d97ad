//! gRPC over h2, without anything in between.

use anyhow::{Context, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Request};
use tokio::net::TcpStream;

/// Window of a stream and of a connection: no answer waits for the client.
const WINDOW: u32 = 64 << 20;

/// A connection; cloning shares it.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    authority: String,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await.with_context(|| format!("call {address}"))?;
        socket.set_nodelay(true)?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(1 << 20)
            .handshake(socket)
            .await?;
        tokio::spawn(async move {
            // The calls see it when the connection ends.
            let _ = connection.await;
        });
        Ok(Self { sender, authority: address.to_owned() })
    }

    /// One call with one answer.
    pub(crate) async fn call(&self, path: &'static str, message: &[u8]) -> anyhow::Result<Bytes> {
        let (mut send, response) = self.start(path).await?;
        send.send_data(frame(message), true)?;
        let response = response.await?;
        let mut body = response.into_body();
        let mut answer = Answer::default();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            answer.push(data);
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        check_status(trailers.get("grpc-status"), trailers.get("grpc-message"))?;
        let answer = answer.take();
        ensure!(answer.len() >= 5, "{path} answered nothing");
        Ok(answer.slice(5..))
    }

    /// A call whose both directions stay open.
    pub(crate) async fn stream(&self, path: &'static str) -> anyhow::Result<(Sender, Messages)> {
        let (send, response) = self.start(path).await?;
        Ok((Sender(send), Messages { response: Some(response), body: None, buffer: BytesMut::new() }))
    }

    async fn start(
        &self,
        path: &'static str,
    ) -> anyhow::Result<(SendStream<Bytes>, h2::client::ResponseFuture)> {
        let request = Request::builder()
            .method("POST")
            .uri(format!("http://{}{path}", self.authority))
            .header("content-type", HeaderValue::from_static("application/grpc"))
            .header("te", HeaderValue::from_static("trailers"))
            .body(())?;
        let mut sender = self.sender.clone().ready().await?;
        let (response, send) = sender.send_request(request, false)?;
        Ok((send, response))
    }
}

/// Bytes of an answer; most come in one piece and are not copied.
#[derive(Default)]
struct Answer {
    first: Bytes,
    rest: BytesMut,
}

impl Answer {
    fn push(&mut self, data: Bytes) {
        if self.first.is_empty() {
            self.first = data;
        } else {
            self.rest.put(data);
        }
    }

    fn take(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut whole = BytesMut::with_capacity(self.first.len() + self.rest.len());
        whole.put(self.first);
        whole.put(self.rest);
        whole.freeze()
    }
}

/// The sending half of a stream.
pub(crate) struct Sender(SendStream<Bytes>);

impl Sender {
    pub(crate) fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.0.send_data(frame(message), false)?;
        Ok(())
    }
}

/// The receiving half.
pub(crate) struct Messages {
    response: Option<h2::client::ResponseFuture>,
    body: Option<RecvStream>,
    buffer: BytesMut,
}

impl Messages {
    pub(crate) async fn next(&mut self) -> anyhow::Result<Bytes> {
        if let Some(response) = self.response.take() {
            self.body = Some(response.await?.into_body());
        }
        let body = self.body.as_mut().context("the stream has ended")?;
        loop {
            if self.buffer.len() >= 5 {
                let len = u32::from_be_bytes([self.buffer[1], self.buffer[2], self.buffer[3], self.buffer[4]]);
                let whole = 5 + usize::try_from(len)?;
                if self.buffer.len() >= whole {
                    return Ok(self.buffer.split_to(whole).freeze().slice(5..));
                }
            }
            let Some(data) = body.data().await else { bail!("the stream ended") };
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            self.buffer.put(data);
        }
    }
}

fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("requests are small"));
    framed.put_slice(message);
    framed.freeze()
}

fn check_status(status: Option<&HeaderValue>, text: Option<&HeaderValue>) -> anyhow::Result<()> {
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        other => bail!("grpc-status {other:?}: {text:?}"),
    }
}
