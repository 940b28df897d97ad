//! Snapshots on their way: made here for the peer, or received from it (`repl N1` to N5).

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use kine2_mvcc::{Backend, LogPosition, Store};
use kine2_node::STORE;
use kine2_peer::framing::{MessageReader, put};
use kine2_peer::wire::{position_from_wire, position_to_wire};
use kine2_peer::{PeerNet, Purpose, Stream};
use kine2_proto::kine2::SnapshotHead;
use kine2_replication::{NodeRef, Position};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::{info, warn};

use crate::runtime::open::{StateOptions, snapshot_dir};
use crate::runtime::shared::{Finished, Shared};

/// The snapshot for the peer within the data directory, while it is made and when it is whole.
const DRAFT: &str = "store/outgoing.new";
const OUTGOING: &str = "store/outgoing";
/// Pause before a snapshot that did not get through is sent again.
const RETRY: Duration = Duration::from_millis(500);
/// Bytes that travel at once, and pieces of that size that wait to be imported.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 16;
/// A sender that says nothing for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The snapshots of the store.
#[derive(Clone, Debug)]
pub(super) struct Transfers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    net: Arc<PeerNet>,
    state: StateOptions,
    under_way: Mutex<UnderWay>,
    /// One import at a time: one that was given up may still be clearing its directory.
    importing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// What the outgoing file holds.
    made: Option<Position>,
    sending: Option<tokio::task::JoinHandle<()>>,
    /// What is to be received, and from whom.
    wanted: Option<(NodeRef, Position)>,
    receiving: Option<tokio::task::JoinHandle<()>>,
    received: Option<(Arc<dyn Backend>, PathBuf)>,
}

impl Transfers {
    pub(super) fn new(shared: Arc<Shared>, net: Arc<PeerNet>, state: StateOptions) -> Self {
        Self(Arc::new(Inner {
            shared,
            net,
            state,
            under_way: Mutex::default(),
            importing: Arc::default(),
        }))
    }

    pub(super) fn draft(&self) -> PathBuf {
        self.0.shared.data_dir.join(DRAFT)
    }

    fn outgoing(&self) -> PathBuf {
        self.0.shared.data_dir.join(OUTGOING)
    }

    /// The draft is the state at this position.
    ///
    /// # Errors
    /// If the file is not there.
    pub(super) fn on_made(&self, position: Position) -> anyhow::Result<()> {
        let mut under_way = self.0.under_way.lock();
        if let Some(sending) = under_way.sending.take() {
            sending.abort();
        }
        fs::rename(self.draft(), self.outgoing()).context("keep the snapshot for the peer")?;
        under_way.made = Some(position);
        Ok(())
    }

    /// Sends it until it has got through, or another one is made.
    pub(super) fn send(&self, position: Position) {
        let mut under_way = self.0.under_way.lock();
        if let Some(sending) = under_way.sending.take() {
            sending.abort();
        }
        if under_way.made != Some(position) {
            warn!(index = %position.index, "a snapshot that is not there is to be sent");
            return;
        }
        let transfers = self.clone();
        under_way.sending = Some(tokio::spawn(async move {
            while let Err(error) = transfers.send_once(position).await {
                warn!(
                    error = format!("{error:#}"),
                    "the snapshot did not get to the peer"
                );
                tokio::time::sleep(RETRY).await;
            }
        }));
    }

    async fn send_once(&self, position: Position) -> anyhow::Result<()> {
        let mut file = tokio::fs::File::open(self.outgoing())
            .await
            .context("open the snapshot")?;
        let bytes = file.metadata().await.context("look at the snapshot")?.len();
        let reader = self.0.net.connect(Purpose::Snapshot).await?;
        let (mut stream, _) = reader.into_parts();
        let begun = self.0.shared.now();
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let head = SnapshotHead {
            part: STORE.to_owned(),
            position: Some(position_to_wire(&position)),
        };
        put(&mut piece, &head);
        loop {
            stream.write_all_buf(&mut piece).await?;
            piece.reserve(PIECE_BYTES);
            if file
                .read_buf(&mut piece)
                .await
                .context("read the snapshot")?
                == 0
            {
                break;
            }
        }
        stream.shutdown().await?;
        // The peer closes once it has all of it.
        let mut end = [0; 1];
        let _ = tokio::time::timeout(SILENCE_MAX, stream.read(&mut end)).await;
        let took = self.0.shared.now().saturating_sub(begun);
        info!(index = %position.index, bytes, ?took, "sent a snapshot to the peer");
        Ok(())
    }

    /// What comes from this sender is taken in from now on.
    pub(super) fn receive(&self, sender: NodeRef, position: Position) {
        let mut under_way = self.0.under_way.lock();
        if let Some(receiving) = under_way.receiving.take() {
            receiving.abort();
        }
        under_way.wanted = Some((sender, position));
    }

    pub(super) fn take_received(&self) -> Option<(Arc<dyn Backend>, PathBuf)> {
        self.0.under_way.lock().received.take()
    }

    /// The peer made a connection to send a snapshot.
    pub(super) fn on_connection(&self, from: NodeRef, reader: MessageReader<Stream>) {
        let transfers = self.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = transfers.take_in(from, reader).await {
                warn!(error = format!("{error:#}"), "a snapshot was not taken in");
            }
        });
        if let Some(before) = self.0.under_way.lock().receiving.replace(task) {
            before.abort();
        }
    }

    async fn take_in(
        &self,
        from: NodeRef,
        mut reader: MessageReader<Stream>,
    ) -> anyhow::Result<()> {
        let head: Option<SnapshotHead> = reader.next().await?;
        let head = head.context("the connection ended before it said which snapshot")?;
        let position = position_from_wire(head.position.as_ref())?;
        let wanted = self.0.under_way.lock().wanted.clone();
        if wanted != Some((from, position)) {
            bail!("entry {} was not asked for", position.index);
        }
        info!(index = %position.index, "receives a snapshot from the peer");
        let (mut stream, rest) = reader.into_parts();
        let (pieces, source) = sync_channel(PIECES_MAX);
        let dir = snapshot_dir(&self.0.shared.data_dir, &position);
        let state = self.0.state.clone();
        let into = dir.clone();
        let alone = Arc::clone(&self.0.importing).lock_owned().await;
        let importing = tokio::task::spawn_blocking(move || {
            let imported = import(&into, &state, source);
            drop(alone);
            imported
        });
        let fed = feed(&mut stream, rest.freeze(), &pieces).await;
        drop(pieces);
        let (backend, store) = importing.await.context("import the snapshot")??;
        fed?;
        let LogPosition { epoch, run, index } = store.applied();
        ensure!(
            (epoch, run, index) == (position.term.epoch, position.term.run, position.index.0),
            "the snapshot of entry {} holds the state at entry {index}",
            position.index
        );
        let mut under_way = self.0.under_way.lock();
        under_way.wanted = None;
        under_way.received = Some((backend, dir));
        drop(under_way);
        let received = Finished::SnapshotReceived(position, Box::new(store));
        self.0.shared.finish(received);
        Ok(())
    }
}

/// Hands over what comes, until the stream's end.
async fn feed(stream: &mut Stream, first: Bytes, pieces: &SyncSender<Bytes>) -> anyhow::Result<()> {
    let mut next = first;
    loop {
        // The import keeps up or the sender waits.
        while let Err(error) = pieces.try_send(next.clone()) {
            if matches!(error, std::sync::mpsc::TrySendError::Disconnected(_)) {
                // It ended, well or not.
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let read = tokio::time::timeout(SILENCE_MAX, stream.read_buf(&mut piece)).await;
        match read.context("the sender fell silent")? {
            Ok(0) => return Ok(()),
            Ok(_) => next = piece.freeze(),
            Err(error) => return Err(error).context("receive a snapshot"),
        }
    }
}

/// Makes a state of what comes, durable, in a directory of its own.
fn import(
    dir: &Path,
    options: &StateOptions,
    source: Receiver<Bytes>,
) -> anyhow::Result<(Arc<dyn Backend>, Store)> {
    kine2_backend::destroy(dir).with_context(|| format!("clear {}", dir.display()))?;
    let backend = kine2_backend::open(dir, &options.backend)?;
    let pieces = Pieces {
        source,
        piece: Bytes::new(),
    };
    let imported = kine2_backend::import(&*backend, pieces);
    if let Err(error) = imported {
        drop(backend);
        let _ = kine2_backend::destroy(dir);
        return Err(error).context("import a snapshot");
    }
    // N4: the log is switched to it only once its name is durable, too.
    let parent = dir
        .parent()
        .context("a state is within the data directory")?;
    let synced = fs::File::open(parent).and_then(|parent| parent.sync_all());
    synced.with_context(|| format!("make the name of {} durable", dir.display()))?;
    let store = Store::open(Arc::clone(&backend), options.store)?;
    Ok((backend, store))
}

/// Pieces of a stream, to read.
struct Pieces {
    source: Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.source.recv() {
                Ok(piece) => self.piece = piece,
                Err(_) => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}
