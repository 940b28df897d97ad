//! The clients of the loads: each does one thing after the other until it is told to stop.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use anyhow::ensure;
use bytes::Bytes;

use crate::grpc::{Connection, Stream};
use crate::keys::{self, PREFIX, PREFIX_END, Random, Store, written_revision};
use crate::meter::Meter;
use crate::plan::Load;
use crate::protobuf::Fields;
use crate::requests::{self, Method};

/// Keys of a page of a list: what the API server asks for.
pub(crate) const PAGE: usize = 500;
/// Keys of a page in the mixed load.
const SMALL_PAGE: usize = 50;
/// Longer than any run.
pub(crate) const LEASE_SECONDS: i64 = 600;
/// A client that only meets errors stops.
const ERRORS_MAX: u64 = 100;

/// What the clients of one load share.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) meter: Meter,
    pub(crate) store: RefCell<Store>,
    pub(crate) clients: usize,
    pub(crate) stopping: Cell<bool>,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    work: Rc<Work>,
    connection: Connection,
    number: usize,
    random: Random,
    /// The page a list goes on with.
    page: Page,
    /// The open stream of keep-alives.
    keep_alive: Option<Stream>,
}

/// Where a walk through the list is.
#[derive(Debug)]
struct Page {
    /// The first key's number.
    slot: usize,
    /// That of the walk's first page; 0 before it.
    revision: i64,
}

impl Client {
    pub(crate) fn new(work: &Rc<Work>, connection: &Connection, number: usize) -> Self {
        // Walks begin all over the list, or all clients would ask for the same page at once.
        let keys = work.store.borrow().revisions.len();
        let slot = keys.saturating_sub(PAGE) * number / work.clients;
        Self {
            work: Rc::clone(work),
            connection: connection.clone(),
            number,
            random: Random::new(number),
            page: Page { slot, revision: 0 },
            keep_alive: None,
        }
    }

    /// Works until told to stop.
    pub(crate) async fn run(mut self, load: Load) {
        while !self.work.stopping.get() {
            if let Err(error) = self.operate(load).await {
                self.work.meter.note_error(&error);
                if self.work.meter.errors() >= ERRORS_MAX {
                    return;
                }
            }
        }
    }

    async fn operate(&mut self, load: Load) -> anyhow::Result<()> {
        match load {
            Load::Get => self.get().await,
            Load::List => self.list().await,
            Load::Mixed => match self.random.below(10) {
                0..7 => self.get().await,
                7..9 => self.update().await,
                _ => self.small_list().await,
            },
            Load::Update => self.update().await,
            Load::Lease => self.lease().await,
            Load::Create => self.create(0).await,
            Load::Watch => unreachable!("watchers have writers of their own"),
        }
    }

    async fn get(&mut self) -> anyhow::Result<()> {
        let keys = self.work.store.borrow().revisions.len();
        let key = keys::key(self.random.below(keys));
        let answer = self.call(Method::Range, requests::get(&key)).await?;
        ensure!(Fields(&answer).int(4) == 1, "a key is missing");
        Ok(())
    }

    /// The next page of a walk through all keys, at the revision of its first page.
    async fn list(&mut self) -> anyhow::Result<()> {
        let keys = self.work.store.borrow().revisions.len();
        let start = match self.page {
            Page { slot: 0, .. } => PREFIX.to_vec(),
            Page { slot, .. } => after(slot - 1),
        };
        let request = requests::list(&start, PREFIX_END, limit(PAGE), self.page.revision);
        let answer = self.call(Method::Range, request).await?;
        let answer = Fields(&answer);
        let found = answer.all_bytes(2).count();
        ensure!(
            found == PAGE.min(keys - self.page.slot),
            "a page of {found} keys"
        );
        let more = answer.int(3) == 1;
        self.page = if more {
            let revision = answer.message(1).int(3);
            Page {
                slot: self.page.slot + found,
                revision,
            }
        } else {
            Page {
                slot: 0,
                revision: 0,
            }
        };
        Ok(())
    }

    /// One page from anywhere.
    async fn small_list(&mut self) -> anyhow::Result<()> {
        let keys = self.work.store.borrow().revisions.len();
        let start = after(self.random.below(keys - SMALL_PAGE));
        let request = requests::list(&start, PREFIX_END, limit(SMALL_PAGE), 0);
        let answer = self.call(Method::Range, request).await?;
        let found = Fields(&answer).all_bytes(2).count();
        // The last page may be one short: it begins after its key.
        ensure!(found + 1 >= SMALL_PAGE, "a page of {found} keys");
        Ok(())
    }

    async fn update(&mut self) -> anyhow::Result<()> {
        let work = Rc::clone(&self.work);
        let (slot, request) = prepare_update(
            &work.store.borrow(),
            self.number,
            work.clients,
            &mut self.random,
        );
        let answer = self.call(Method::Txn, request).await?;
        self.work.store.borrow_mut().revisions[slot] = written_revision(&answer)?;
        Ok(())
    }

    async fn create(&mut self, lease: i64) -> anyhow::Result<()> {
        let request = {
            let mut store = self.work.store.borrow_mut();
            let key = store.next_new_key();
            requests::create(&key, store.values.any(&mut self.random), lease)
        };
        let answer = self.call(Method::Txn, request).await?;
        written_revision(&answer)?;
        Ok(())
    }

    /// A lease's life.
    async fn lease(&mut self) -> anyhow::Result<()> {
        let answer = self
            .call(Method::LeaseGrant, requests::lease_grant(LEASE_SECONDS))
            .await?;
        let lease = Fields(&answer).int(2);
        ensure!(lease != 0, "a lease without an id");
        self.create(lease).await?;
        self.keep_alive(lease).await?;
        self.call(Method::LeaseRevoke, requests::lease_revoke(lease))
            .await?;
        Ok(())
    }

    async fn keep_alive(&mut self, lease: i64) -> anyhow::Result<()> {
        let begun = Instant::now();
        let request = requests::lease_keep_alive(lease);
        let stream = match &mut self.keep_alive {
            Some(stream) => {
                stream.send(request)?;
                stream
            }
            none => none.insert(
                self.connection
                    .stream(Method::LeaseKeepAlive, request)
                    .await?,
            ),
        };
        let answer = stream.next().await?;
        ensure!(
            Fields(&answer).int(3) == LEASE_SECONDS,
            "a lease was not kept alive"
        );
        self.work.meter.note(begun.elapsed());
        Ok(())
    }

    async fn call(&self, method: Method, request: Bytes) -> anyhow::Result<Bytes> {
        let begun = Instant::now();
        let answer = self.connection.call(method, request).await?;
        self.work.meter.note(begun.elapsed());
        Ok(answer)
    }
}

/// An update of a key that only client `number` of `clients` writes, so that no compare fails;
/// with the number of the key.
pub(crate) fn prepare_update(
    store: &Store,
    number: usize,
    clients: usize,
    random: &mut Random,
) -> (usize, Bytes) {
    let slot = random.below(store.revisions.len() / clients) * clients + number;
    let value = store.values.any(random);
    (
        slot,
        requests::update(&keys::key(slot), store.revisions[slot], value),
    )
}

/// The start of a page after the key with this number, as the API server makes it (etcd A3).
fn after(number: usize) -> Vec<u8> {
    let mut start = keys::key(number);
    start.push(0);
    start
}

fn limit(page: usize) -> i64 {
    i64::try_from(page).expect("a small page")
}
