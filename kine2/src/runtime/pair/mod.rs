//! The way to the peer and the witness: what a node of a pair has that a single node has not.

mod forward;
mod forwarding;
mod joining;
mod transfer;
mod witnesses;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use kine2_mvcc::Backend;
use kine2_node::Node;
use kine2_peer::framing::MessageReader;
use kine2_peer::wire::{ForwardedAnswer, ForwardedRequest};
use kine2_peer::{
    GreetingError, Inbound, InboundReceiver, Incoming, PeerNet, PeerStats, Purpose, Stream,
};
use kine2_replication::{
    Command, Event as ReplicaEvent, Frame, NodeRef, Position, State, Timers, WitnessCall, WitnessId,
};
use kine2_trust::Trust;
use parking_lot::{Mutex, MutexGuard};
use tracing::{info, warn};

use super::admin::Admin;
use super::gateway::{any_answers, gateways};
use super::journal::Kind;
use super::member::NodeMember;
use super::open::StateOptions;
use super::peers::PeerAddresses;
use super::shared::{Finished, Shared, Waiter};
use forward::Forwarder;
use transfer::Transfers;
use witnesses::Witnesses;
pub(super) use witnesses::greet;

/// The connections of a node of a pair, and what travels on them.
#[derive(Debug)]
pub(super) struct Pair {
    shared: Arc<Shared>,
    net: Arc<PeerNet>,
    trust: Arc<Trust>,
    witnesses: Witnesses,
    transfers: Transfers,
    forwarder: Forwarder,
    addresses: Mutex<PeerAddresses>,
    admin: OnceLock<Arc<Admin>>,
}

/// How long a handover at a stop may take.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);

impl Pair {
    pub(super) fn new(
        shared: Arc<Shared>,
        net: PeerNet,
        trust: Arc<Trust>,
        state: StateOptions,
        addresses: PeerAddresses,
    ) -> Self {
        let net = Arc::new(net);
        net.set_peers(addresses.list());
        Self {
            witnesses: Witnesses::new(Arc::clone(&shared), Arc::clone(&trust)),
            transfers: Transfers::new(Arc::clone(&shared), Arc::clone(&net), state),
            forwarder: Forwarder::new(Arc::clone(&net)),
            addresses: Mutex::new(addresses),
            admin: OnceLock::new(),
            shared,
            net,
            trust,
        }
    }

    /// Takes in what the peer sends and the connections it makes, until the program ends.
    pub(super) async fn take_in(self: Arc<Self>, mut inbound: InboundReceiver, member: NodeMember) {
        while let Some(came) = inbound.next().await {
            match came {
                Inbound::Frame(frame) => self.came(ReplicaEvent::Frame(frame)),
                Inbound::Link(link) => self.came(ReplicaEvent::Link(link)),
                Inbound::Connection(incoming) => self.on_connection(*incoming, &member),
            }
        }
    }

    fn came(&self, event: ReplicaEvent) {
        self.shared.finish(Finished::Came(event));
    }

    fn on_connection(self: &Arc<Self>, incoming: Incoming, member: &NodeMember) {
        match incoming {
            Incoming::Joiner(reader) => {
                let pair = Arc::clone(self);
                tokio::spawn(async move { pair.let_in(reader).await });
            }
            Incoming::Member {
                purpose: Purpose::Snapshot,
                from,
                reader,
            } => self.transfers.on_connection(from, reader),
            Incoming::Member {
                purpose: Purpose::Forward,
                reader,
                ..
            } => {
                tokio::spawn(forwarding::serve(reader, member.clone()));
            }
            Incoming::Member {
                purpose: Purpose::Admin,
                reader,
                ..
            } => {
                if let Some(admin) = self.admin.get() {
                    tokio::spawn(Arc::clone(admin).serve_peer(reader));
                }
            }
            Incoming::Member { purpose, from, .. } => {
                warn!(?purpose, ?from, "a connection for what is not served here");
            }
        }
    }

    pub(super) fn send(&self, frame: &Frame) {
        self.net.send(frame);
    }

    pub(super) fn call(&self, call: WitnessCall) {
        self.witnesses.call(call);
    }

    /// Asks the gateways of the arbiter in force; the core asks for one answer at a time.
    pub(super) fn ask_gateways(&self, number: u64) {
        let gateways = gateways(&self.node().unit().config().arbiter).to_vec();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let answered = any_answers(&gateways, Timers::default().ping_timeout).await;
            shared.finish(Finished::Came(ReplicaEvent::Pinged { number, answered }));
        });
    }

    /// Keeps sessions with the witnesses the unit has to do with.
    pub(super) fn follow_arbiters(&self) {
        self.witnesses.follow();
    }

    /// Passes a client's request on to the primary, once (`repl S2`).
    pub(super) async fn forward(&self, request: ForwardedRequest) -> ForwardedAnswer {
        self.forwarder.ask(request).await
    }

    /// Where a snapshot is written before it is known which it is.
    pub(super) fn draft(&self) -> PathBuf {
        self.transfers.draft()
    }

    pub(super) fn on_snapshot_made(&self, position: Position) -> anyhow::Result<()> {
        self.transfers.on_made(position)
    }

    pub(super) fn send_snapshot(&self, position: Position) {
        self.transfers.send(position);
    }

    pub(super) fn receive_snapshot(&self, sender: NodeRef, position: Position) {
        self.transfers.receive(sender, position);
    }

    /// The state that came as a snapshot, and its directory.
    pub(super) fn take_received(&self) -> anyhow::Result<(Arc<dyn Backend>, PathBuf)> {
        let received = self.transfers.take_received();
        received.context("the snapshot that is switched to was received")
    }

    /// Where the peer is.
    pub(super) fn peer_urls(&self) -> Vec<String> {
        let addresses = self.addresses.lock();
        let urls = addresses.list().iter();
        urls.map(|address| format!("https://{address}")).collect()
    }

    /// Where clients reach the peer.
    pub(super) fn peer_client_urls(&self) -> Vec<String> {
        self.net.peer_client_urls()
    }

    pub(super) fn stats(&self) -> PeerStats {
        self.net.stats()
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The node, to look at.
    pub(super) fn node(&self) -> MutexGuard<'_, Node<Waiter>> {
        self.shared.node.lock()
    }

    /// Keeps an event in the journal.
    pub(super) fn note(&self, kind: Kind, text: String) {
        self.shared.note(kind, text);
    }

    /// Gives the unit a command of the operator.
    pub(super) fn command(&self, command: Command) {
        self.came(ReplicaEvent::Command(command));
    }

    /// A witness that is to become the arbiter.
    pub(super) fn add_witness(&self, id: WitnessId, address: String) {
        self.witnesses.add_candidate(id, address);
    }

    /// Why there is no session with this witness; empty if there is one.
    pub(super) fn witness_trouble(&self, id: WitnessId) -> Option<String> {
        self.witnesses.trouble(id)
    }

    /// Makes a connection of its own to the peer.
    pub(super) async fn connect(
        &self,
        purpose: Purpose,
    ) -> Result<MessageReader<Stream>, GreetingError> {
        self.net.connect(purpose).await
    }

    /// Where the peer is looked for.
    pub(super) fn peer_addresses(&self) -> Vec<String> {
        self.addresses.lock().list().to_vec()
    }

    /// Who carries out commands that come from the peer.
    pub(super) fn set_admin(&self, admin: Arc<Admin>) {
        // It is set once, when it begins to serve.
        let _ = self.admin.set(admin);
    }

    /// Hands the role over before this node ends, if the peer can take it.
    pub(super) async fn hand_over(&self) {
        let is_primary = |pair: &Self| {
            let node = pair.node();
            node.unit().config().primary == *node.unit().me()
        };
        let can = {
            let node = self.node();
            node.unit().state() == State::Prim && node.unit().hears_arbiter()
        };
        if !can {
            return;
        }
        info!("hands the role over before it stops");
        self.command(Command::Swap { partial: true });
        let begun = tokio::time::Instant::now();
        while is_primary(self) && begun.elapsed() < HAND_OVER_MAX {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // The peer hears of it by the next frames.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
