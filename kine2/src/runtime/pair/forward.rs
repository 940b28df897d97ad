//! Clients' requests on their way to the primary (`repl S1`, S2), and its answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use kine2_peer::framing::{MessageReader, put};
use kine2_peer::wire::{ForwardedAnswer, ForwardedRequest, answer_from_wire, request_to_wire};
use kine2_peer::{PeerNet, Purpose, Stream};
use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::debug;

/// Requests under way at most.
const REQUESTS_MAX: usize = 4096;
/// Bytes of requests that are written at once.
const WRITE_BYTES: usize = 256 << 10;

/// One connection to the peer for all requests; made when there is one.
#[derive(Debug)]
pub(super) struct Forwarder {
    net: Arc<PeerNet>,
    line: Mutex<Option<mpsc::Sender<Asked>>>,
    /// Requests that may still be passed on, written or not.
    room: Semaphore,
}

/// A request, and who waits.
#[derive(Debug)]
struct Asked {
    request: ForwardedRequest,
    waiter: oneshot::Sender<ForwardedAnswer>,
}

impl Forwarder {
    pub(super) fn new(net: Arc<PeerNet>) -> Self {
        Self {
            net,
            line: Mutex::new(None),
            room: Semaphore::new(REQUESTS_MAX),
        }
    }

    /// Passes a request on, once.
    pub(super) async fn ask(&self, request: ForwardedRequest) -> ForwardedAnswer {
        let Ok(_room) = self.room.try_acquire() else {
            return ForwardedAnswer::Busy;
        };
        let (waiter, answer) = oneshot::channel();
        let asked = Asked { request, waiter };
        let sent = self.line().try_send(asked);
        match sent {
            Ok(()) => answer.await.unwrap_or(ForwardedAnswer::Unknown),
            Err(mpsc::error::TrySendError::Full(_)) => ForwardedAnswer::Busy,
            Err(mpsc::error::TrySendError::Closed(_)) => ForwardedAnswer::Unavailable,
        }
    }

    /// The connection, made anew if it ended.
    fn line(&self) -> mpsc::Sender<Asked> {
        let mut line = self.line.lock();
        if let Some(line) = line.as_ref().filter(|line| !line.is_closed()) {
            return line.clone();
        }
        let (asked, queue) = mpsc::channel(REQUESTS_MAX);
        *line = Some(asked.clone());
        tokio::spawn(run(Arc::clone(&self.net), queue));
        asked
    }
}

async fn run(net: Arc<PeerNet>, mut queue: mpsc::Receiver<Asked>) {
    let ended = match net.connect(Purpose::Forward).await {
        Ok(reader) => serve(reader, &mut queue).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = ended {
        debug!(
            error = format!("{error:#}"),
            "the connection for requests ended"
        );
    }
    // What was not written yet was not tried.
    queue.close();
    while let Ok(asked) = queue.try_recv() {
        let _ = asked.waiter.send(ForwardedAnswer::Unavailable);
    }
}

/// Those who wait for the peer's answer. Dropped, they learn that the outcome is unknown.
type Waiters = Mutex<BTreeMap<u64, oneshot::Sender<ForwardedAnswer>>>;

async fn serve(
    reader: MessageReader<Stream>,
    queue: &mut mpsc::Receiver<Asked>,
) -> anyhow::Result<()> {
    let (stream, _) = reader.into_parts();
    let (read, write) = tokio::io::split(stream);
    let reader = MessageReader::new(read, kine2_peer::framing::MESSAGE_BYTES_MAX);
    let waiters = Waiters::default();
    tokio::select! {
        ended = ask(write, queue, &waiters) => ended,
        ended = take_answers(reader, &waiters) => ended,
    }
}

async fn ask(
    mut write: WriteHalf<Stream>,
    queue: &mut mpsc::Receiver<Asked>,
    waiters: &Waiters,
) -> anyhow::Result<()> {
    let mut number = 0;
    let mut out = BytesMut::new();
    while let Some(asked) = queue.recv().await {
        let mut next = Some(asked);
        while let Some(asked) = next {
            number += 1;
            put(&mut out, &request_to_wire(number, &asked.request));
            waiters.lock().insert(number, asked.waiter);
            next = match out.len() < WRITE_BYTES {
                true => queue.try_recv().ok(),
                false => None,
            };
        }
        write.write_all_buf(&mut out).await?;
        write.flush().await?;
    }
    Ok(())
}

async fn take_answers(
    mut reader: MessageReader<ReadHalf<Stream>>,
    waiters: &Waiters,
) -> anyhow::Result<()> {
    while let Some(wire) = reader.next().await? {
        let (number, answer) = answer_from_wire(wire)?;
        if let Some(waiter) = waiters.lock().remove(&number) {
            // A client that has gone away does not want its answer.
            let _ = waiter.send(answer);
        }
    }
    Ok(())
}
