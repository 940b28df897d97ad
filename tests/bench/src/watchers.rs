//! The watch load: watchers on all keys, and writers that wait until all watchers have what they
//! wrote. So every server delivers as many events for each write, and none can fall behind.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::grpc::{Connection, Stream};
use crate::keys::{self, PREFIX, PREFIX_END, Random, written_revision};
use crate::load::{Work, prepare_update};
use crate::protobuf::Fields;
use crate::requests::{self, Method};

/// Writers, each with one write on its way.
pub(crate) const WRITERS: usize = 16;
/// A write that takes longer to reach all watchers is lost.
const DELIVERY_MAX: Duration = Duration::from_secs(20);

/// The write a writer waits for.
#[derive(Debug)]
struct Outstanding {
    sent: Cell<Instant>,
    /// Watchers that have not had it.
    missing: Cell<usize>,
    delivered: Notify,
}

/// The writers' writes, by their numbers: writer W owns the keys whose number is W modulo
/// [`WRITERS`].
#[derive(Debug)]
pub(crate) struct Deliveries {
    watchers: usize,
    outstanding: Vec<Outstanding>,
}

impl Deliveries {
    pub(crate) fn new(watchers: usize) -> Rc<Self> {
        let outstanding = || Outstanding {
            sent: Cell::new(Instant::now()),
            missing: Cell::new(0),
            delivered: Notify::new(),
        };
        let outstanding = std::iter::repeat_with(outstanding).take(WRITERS).collect();
        Rc::new(Self {
            watchers,
            outstanding,
        })
    }
}

/// Opens a watch on all keys, on a stream of its own, as the API server has one for each resource.
pub(crate) async fn open(connection: &Connection) -> anyhow::Result<Stream> {
    let mut stream = connection
        .stream(Method::Watch, requests::watch(PREFIX, PREFIX_END))
        .await?;
    let created = stream.next().await?;
    ensure!(Fields(&created).int(3) == 1, "the watch was not created");
    Ok(stream)
}

/// Takes events in, until the stream ends or the task is dropped.
pub(crate) async fn watch(mut stream: Stream, work: Rc<Work>, deliveries: Rc<Deliveries>) {
    let mut last_revision = 0;
    loop {
        let taken = match stream.next().await {
            Ok(message) => take(&message, &work, &deliveries, &mut last_revision),
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            work.meter.note_error(&error.context("watch"));
            return;
        }
    }
}

fn take(
    message: &Bytes,
    work: &Work,
    deliveries: &Deliveries,
    last_revision: &mut i64,
) -> anyhow::Result<()> {
    let message = Fields(message);
    ensure!(message.int(4) == 0, "the watch was canceled");
    let now = Instant::now();
    for event in message.all_bytes(11) {
        let kv = Fields(event).message(2);
        let revision = kv.int(3);
        ensure!(
            revision > *last_revision,
            "revision {revision} after {last_revision}"
        );
        *last_revision = revision;
        let number = keys::number_in(kv.bytes(1)).context("an event of a key that is not ours")?;
        let write = &deliveries.outstanding[number % WRITERS];
        ensure!(write.missing.get() > 0, "an event that nobody caused");
        write.missing.set(write.missing.get() - 1);
        work.meter.note(now - write.sent.get());
        if write.missing.get() == 0 {
            write.delivered.notify_one();
        }
    }
    Ok(())
}

/// Writes, and waits for all watchers, until told to stop.
pub(crate) async fn write(
    connection: Connection,
    number: usize,
    work: Rc<Work>,
    deliveries: Rc<Deliveries>,
) {
    let random = RefCell::new(Random::new(number));
    while !work.stopping.get() {
        let once = write_once(&connection, number, &work, &deliveries, &random);
        if let Err(error) = once.await {
            // Whether its events come is not known, so this writer cannot go on.
            work.meter.note_error(&error.context("write"));
            return;
        }
    }
}

async fn write_once(
    connection: &Connection,
    number: usize,
    work: &Work,
    deliveries: &Deliveries,
    random: &RefCell<Random>,
) -> anyhow::Result<()> {
    let (slot, request) = prepare_update(
        &work.store.borrow(),
        number,
        WRITERS,
        &mut random.borrow_mut(),
    );
    let write = &deliveries.outstanding[number];
    write.sent.set(Instant::now());
    write.missing.set(deliveries.watchers);
    let answer = connection.call(Method::Txn, request).await?;
    work.store.borrow_mut().revisions[slot] = written_revision(&answer)?;
    tokio::time::timeout(DELIVERY_MAX, write.delivered.notified())
        .await
        .context("an event did not reach all watchers")
}
