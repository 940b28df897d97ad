//! The connections between this node and its peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kine2_proto::kine2::Purpose;
use kine2_replication::{Body, ClusterId, Frame, Link, NodeRef};
use kine2_trust::Trust;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::Stream;
use crate::accept::{Incoming, accept};
use crate::dial::{connect, keep_link};
use crate::framing::{MESSAGE_BYTES_MAX, MessageReader, put};
use crate::greeting::{GreetingError, Me};
use crate::links::Links;
use crate::queue::Queue;
use crate::wire::frame_to_wire;

/// What came in and was not taken yet; a connection is not read further then.
const INBOUND_MAX: usize = 64;

/// Who this node is.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub me: NodeRef,
    /// How often it started.
    pub boot: u64,
    /// What its peer may tell clients: where they reach this node.
    pub client_urls: Vec<String>,
}

/// What comes in.
#[derive(Debug)]
pub enum Inbound {
    /// A frame of the peer.
    Frame(Box<Frame>),
    /// The state of the connections to the peer changed.
    Link(Link),
    /// A connection was made that is not for frames.
    Connection(Box<Incoming>),
}

/// The connections; they are kept by tasks of the runtime it was started on.
#[derive(Debug)]
pub struct PeerNet {
    net: Arc<Net>,
    accepting: tokio::task::JoinHandle<()>,
}

/// What the tasks share.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) me: Me,
    pub(crate) trust: Arc<Trust>,
    dialing: Mutex<Dialing>,
    started: Instant,
    pub(crate) inbound: mpsc::Sender<Inbound>,
    /// Changes of the links go past the bound: they are few, and nobody may wait for them.
    changes: mpsc::UnboundedSender<Link>,
    /// Where clients reach the peer, as it said last.
    peer_urls: Mutex<Vec<String>>,
    pub(crate) stats: Stats,
}

/// Where the peer is looked for.
#[derive(Debug)]
struct Dialing {
    links: Links,
    lines: Vec<Arc<Line>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Rises with every change of the addresses.
    generation: u64,
}

/// One link to the peer.
#[derive(Debug)]
pub(crate) struct Line {
    generation: u64,
    link: usize,
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) queue: Queue,
}

/// What the connections count since the start.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    lost_frames: AtomicU64,
    refused: AtomicU64,
}

impl Stats {
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the connections count, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Links that are up.
    pub links_up: usize,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes of frames received.
    pub received_bytes: u64,
    /// Frames that found no room or no link.
    pub lost_frames: u64,
    /// Connections that were refused: a stranger, a foreign cluster, no common version.
    pub refused: u64,
}

/// What came in, in order.
#[derive(Debug)]
pub struct InboundReceiver {
    inbound: mpsc::Receiver<Inbound>,
    changes: mpsc::UnboundedReceiver<Link>,
}

impl InboundReceiver {
    /// Waits for the next; `None` when the connections are given up. Cancel-safe.
    pub async fn next(&mut self) -> Option<Inbound> {
        tokio::select! {
            biased;
            link = self.changes.recv() => link.map(Inbound::Link),
            inbound = self.inbound.recv() => inbound,
        }
    }
}

impl PeerNet {
    /// Starts to listen. The peer is looked for once [`set_peers`](Self::set_peers) says where.
    #[must_use]
    pub fn start(
        options: PeerOptions,
        trust: Arc<Trust>,
        listener: TcpListener,
    ) -> (Self, InboundReceiver) {
        let (inbound, received) = mpsc::channel(INBOUND_MAX);
        let (changes, changed) = mpsc::unbounded_channel();
        let net = Arc::new(Net {
            me: Me {
                cluster: options.cluster,
                node: options.me,
                boot: options.boot,
                client_urls: options.client_urls,
            },
            trust,
            dialing: Mutex::new(Dialing {
                links: Links::new(0),
                lines: Vec::new(),
                tasks: Vec::new(),
                generation: 0,
            }),
            started: Instant::now(),
            inbound,
            changes,
            peer_urls: Mutex::new(Vec::new()),
            stats: Stats::default(),
        });
        let accepting = tokio::spawn(accept(Arc::clone(&net), listener));
        let receiver = InboundReceiver {
            inbound: received,
            changes: changed,
        };
        (Self { net, accepting }, receiver)
    }

    /// Looks for the peer at these addresses, `host:port` for every link, the best first; and no
    /// longer elsewhere.
    pub fn set_peers(&self, addresses: &[String]) {
        let mut dialing = self.net.dialing.lock();
        if dialing.lines.iter().map(|line| &line.address).eq(addresses) {
            return;
        }
        dialing.give_up();
        dialing.generation += 1;
        let was_up = dialing.links.up().next().is_some();
        dialing.links = Links::new(addresses.len());
        if was_up {
            let _ = self.net.changes.send(Link::Down);
        }
        for (link, address) in addresses.iter().enumerate() {
            let line = Arc::new(Line {
                generation: dialing.generation,
                link,
                address: address.clone(),
                queue: Queue::default(),
            });
            dialing.lines.push(Arc::clone(&line));
            let task = keep_link(Arc::clone(&self.net), line);
            dialing.tasks.push(tokio::spawn(task));
        }
    }

    /// Sends a frame: a sign of life on every link, all else on the best. It may get lost.
    pub fn send(&self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        put(&mut bytes, &frame_to_wire(frame));
        let is_urgent = is_urgent(&frame.body);
        let dialing = self.net.dialing.lock();
        let mut sent = false;
        if matches!(frame.body, Body::Heartbeat(_)) {
            let bytes = bytes.freeze();
            for link in dialing.links.up() {
                sent |= dialing.lines[link].queue.push(bytes.clone(), is_urgent);
            }
        } else if let Some(link) = dialing.links.best(self.net.started.elapsed()) {
            sent = dialing.lines[link].queue.push(bytes.freeze(), is_urgent);
        }
        drop(dialing);
        if !sent {
            self.net.stats.lost_frames.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes a connection of its own to the peer, on the best link.
    ///
    /// # Errors
    /// If no link is up or the peer refuses.
    pub async fn connect(&self, purpose: Purpose) -> Result<MessageReader<Stream>, GreetingError> {
        let address = {
            let dialing = self.net.dialing.lock();
            let best = dialing.links.best(self.net.started.elapsed());
            let link = best.ok_or(GreetingError::NoLink)?;
            dialing.lines[link].address.clone()
        };
        let reader = connect(&self.net, &address, purpose).await?;
        Ok(reader.with_bytes_max(MESSAGE_BYTES_MAX))
    }

    /// Where clients reach the peer, as it said last.
    #[must_use]
    pub fn peer_client_urls(&self) -> Vec<String> {
        self.net.peer_urls.lock().clone()
    }

    /// What the connections count.
    #[must_use]
    pub fn stats(&self) -> PeerStats {
        let stats = &self.net.stats;
        PeerStats {
            links_up: self.net.dialing.lock().links.up().count(),
            sent_bytes: stats.sent_bytes.load(Ordering::Relaxed),
            received_bytes: stats.received_bytes.load(Ordering::Relaxed),
            lost_frames: stats.lost_frames.load(Ordering::Relaxed),
            refused: stats.refused.load(Ordering::Relaxed),
        }
    }
}

impl Drop for PeerNet {
    fn drop(&mut self) {
        self.accepting.abort();
        self.net.dialing.lock().give_up();
    }
}

impl Dialing {
    fn give_up(&mut self) {
        self.lines.clear();
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

/// Short frames that somebody waits for.
const fn is_urgent(body: &Body) -> bool {
    matches!(
        body,
        Body::Heartbeat(_)
            | Body::ReadConfirm
            | Body::ReadConfirmAck
            | Body::ReadIndex { .. }
            | Body::ReadIndexAck { .. }
            | Body::Ack { .. }
    )
}

impl Net {
    fn change(&self, line: &Line, change: impl FnOnce(&mut Links, Duration)) {
        let mut dialing = self.dialing.lock();
        if dialing.generation != line.generation {
            return;
        }
        change(&mut dialing.links, self.started.elapsed());
        while let Some(link) = dialing.links.take_change() {
            // Whoever takes in is gone only when the program ends.
            let _ = self.changes.send(link);
        }
    }

    pub(crate) fn on_up(&self, line: &Line) {
        self.change(line, |links, now| links.on_up(now, line.link));
    }

    pub(crate) fn on_answer(&self, line: &Line) {
        self.change(line, |links, now| links.on_answer(now, line.link));
    }

    pub(crate) fn on_down(&self, line: &Line) {
        self.change(line, |links, _| links.on_down(line.link));
    }

    pub(crate) fn on_failed(&self, line: &Line, refused: bool) {
        self.change(line, |links, _| links.on_failed(line.link, refused));
    }

    pub(crate) async fn hand_over(&self, incoming: Incoming) {
        // Whoever takes in is gone only when the program ends.
        let _ = self
            .inbound
            .send(Inbound::Connection(Box::new(incoming)))
            .await;
    }

    pub(crate) fn on_client_urls(&self, urls: Vec<String>) {
        *self.peer_urls.lock() = urls;
    }
}
