//! A server that answers each request at once and keeps nothing: what the load generator can do
//! when no store is in its way. Figures of a real server mean the server if they stay well below.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Context;
use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::keys::{self, VALUE_BYTES};
use crate::load::{LEASE_SECONDS, PAGE};
use crate::protobuf::{FRAME_HEADER_BYTES, Fields, Writer};
use crate::requests::Method;

/// Headers, tags and lengths of an answer, for each of its keys.
const OVERHEAD_BYTES: usize = 256;

#[derive(Debug)]
struct Echo {
    revision: Cell<i64>,
    page: Bytes,
    watchers: RefCell<Vec<SendStream<Bytes>>>,
}

/// Serves until it is killed.
pub(crate) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let echo = Rc::new(Echo {
        revision: Cell::new(1),
        page: range_answer(PAGE),
        watchers: RefCell::default(),
    });
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(address).await.context("listen")?;
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let echo = Rc::clone(&echo);
            // A client that leaves ends its connection, and nothing else.
            tokio::task::spawn_local(async move { drop(echo.serve_connection(socket).await) });
        }
    })
}

impl Echo {
    async fn serve_connection(self: Rc<Self>, socket: TcpStream) -> anyhow::Result<()> {
        let mut connection = h2::server::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake::<_, Bytes>(socket)
            .await?;
        while let Some(request) = connection.accept().await {
            let (request, respond) = request?;
            let echo = Rc::clone(&self);
            tokio::task::spawn_local(async move { drop(echo.answer(request, respond).await) });
        }
        Ok(())
    }

    async fn answer(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> anyhow::Result<()> {
        let path = request.uri().path();
        let method = Method::ALL.into_iter().find(|method| method.path() == path);
        let method = method.with_context(|| format!("{path} is not answered"))?;
        let mut body = request.into_body();
        let message = receive(&mut body)
            .await?
            .context("a call without a message")?;
        let head = Response::builder()
            .header("content-type", HeaderValue::from_static("application/grpc"))
            .body(())?;
        let mut send = respond.send_response(head, false)?;
        match method {
            Method::Watch => {
                send.send_data(number(3, 1), false)?;
                self.watchers.borrow_mut().push(send);
                // The stream is open as long as the client holds it.
                while receive(&mut body).await?.is_some() {}
                return Ok(());
            }
            Method::LeaseKeepAlive => {
                send.send_data(number(3, LEASE_SECONDS), false)?;
                while receive(&mut body).await?.is_some() {
                    send.send_data(number(3, LEASE_SECONDS), false)?;
                }
            }
            Method::Range => send.send_data(self.range(&message), false)?,
            Method::Txn => send.send_data(self.txn(&message), false)?,
            Method::LeaseGrant => send.send_data(number(2, 7), false)?,
            Method::LeaseRevoke | Method::Status => send.send_data(number(1, 0), false)?,
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Ok(send.send_trailers(trailers)?)
    }

    fn range(&self, request: &Bytes) -> Bytes {
        match usize::try_from(Fields(request).int(3)) {
            Ok(PAGE) => self.page.clone(),
            limit => range_answer(limit.unwrap_or(1)),
        }
    }

    /// Says yes, and sends the event to whoever watches.
    fn txn(&self, request: &Bytes) -> Bytes {
        let revision = self.revision.get() + 1;
        self.revision.set(revision);
        let mut watchers = self.watchers.borrow_mut();
        if !watchers.is_empty() {
            let key = Fields(request).message(1).bytes(3);
            let mut event = Writer::new(OVERHEAD_BYTES + 2 * (VALUE_BYTES + key.len()));
            event.nested(11, |event| {
                event.nested(3, |previous| put_kv(previous, key, revision));
                event.nested(2, |kv| put_kv(kv, key, revision));
            });
            let event = event.frame();
            watchers.retain_mut(|watcher| watcher.send_data(event.clone(), false).is_ok());
        }
        let mut answer = Writer::new(OVERHEAD_BYTES);
        answer.int(2, 1);
        answer.nested(1, |header| header.int(3, revision));
        answer.frame()
    }
}

/// `count` keys, and that there are no more.
fn range_answer(count: usize) -> Bytes {
    let key = keys::key(0);
    let mut answer = Writer::new((count + 1) * (OVERHEAD_BYTES + key.len() + VALUE_BYTES));
    answer.int(4, i64::try_from(count).expect("a page"));
    for _ in 0..count {
        answer.nested(2, |kv| put_kv(kv, &key, 2));
    }
    answer.nested(1, |header| header.int(3, 2));
    answer.frame()
}

fn put_kv(kv: &mut Writer, key: &[u8], revision: i64) {
    kv.bytes(5, &[b'v'; VALUE_BYTES]);
    kv.int(4, 1);
    kv.int(3, revision);
    kv.int(2, revision);
    kv.bytes(1, key);
}

/// A message with one number in it.
fn number(field: u8, value: i64) -> Bytes {
    let mut answer = Writer::new(OVERHEAD_BYTES);
    answer.int(field, value);
    answer.frame()
}

/// The next message, or none at the end. Clients have one on its way at a time.
async fn receive(body: &mut RecvStream) -> anyhow::Result<Option<Bytes>> {
    let mut held = BytesMut::new();
    while let Some(data) = body.data().await {
        let mut data = data?;
        body.flow_control().release_capacity(data.len())?;
        let whole = |frame: &[u8]| {
            let len = frame.get(1..FRAME_HEADER_BYTES)?.first_chunk::<4>()?;
            let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
            (frame.len() == FRAME_HEADER_BYTES + len).then_some(())
        };
        if held.is_empty() && whole(&data).is_some() {
            data.advance(FRAME_HEADER_BYTES);
            return Ok(Some(data));
        }
        held.extend_from_slice(&data);
        if whole(&held).is_some() {
            held.advance(FRAME_HEADER_BYTES);
            return Ok(Some(held.freeze()));
        }
    }
    Ok(None)
}
