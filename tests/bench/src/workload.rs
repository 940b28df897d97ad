//! Closed loops of clients, and what they measure.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use crate::client::Connection;
use crate::requests;
use crate::wire::{Field, Fields};

/// Bytes of a value.
const VALUE_BYTES: usize = 1024;
/// Keys of a page.
const PAGE: i64 = 500;
/// Keys of a page in the mixed load.
const SMALL_PAGE: i64 = 50;
/// Most connections a load spreads over.
const CONNECTIONS_MAX: usize = 16;
/// Writers behind the watch load.
const WATCH_WRITERS: usize = 4;
/// Time before anything is counted.
const WARM_UP: Duration = Duration::from_millis(700);

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    Create,
    Update,
    Get,
    List,
    /// 70 % get, 20 % update, 10 % lists of small pages.
    Mixed,
    /// Watchers on everything; an operation is an event delivered to one of them.
    Watch,
    /// Grant, put with the lease, revoke: three operations.
    Lease,
}

/// What a load measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) ops: u64,
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) client_cpu_us_per_op: f64,
}

/// One key as its owner last saw it.
#[derive(Clone, Debug)]
struct Owned {
    key: Vec<u8>,
    revision: i64,
}

struct World {
    connections: Vec<Connection>,
    keys: RefCell<Vec<Owned>>,
    latencies_us: RefCell<Vec<u32>>,
    counting: Cell<bool>,
    stopping: Cell<bool>,
    ops: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    created: Cell<usize>,
    space: String,
}

/// Runs a load for `window` after a warm-up. `at_start` and `at_end` are called around what is
/// counted.
pub(crate) fn run(
    address: &str,
    load: Load,
    clients: usize,
    window: Duration,
    space: &str,
    at_start: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let connections = connect(address, clients.min(CONNECTIONS_MAX)).await?;
        let keys = if load == Load::Create || load == Load::Lease {
            Vec::new()
        } else {
            read_keys(&connections[0]).await?
        };
        let world = Rc::new(World {
            connections,
            keys: RefCell::new(keys),
            latencies_us: RefCell::new(Vec::with_capacity(1 << 20)),
            counting: Cell::new(false),
            stopping: Cell::new(false),
            ops: Cell::new(0),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
            created: Cell::new(0),
            space: space.to_owned(),
        });
        start(&world, load, clients).await?;
        tokio::time::sleep(WARM_UP).await;
        at_start()?;
        let (begun, cpu) = (Instant::now(), crate::process::cpu_micros(std::process::id())?);
        world.counting.set(true);
        tokio::time::sleep(window).await;
        world.counting.set(false);
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = crate::process::cpu_micros(std::process::id())? - cpu;
        world.stopping.set(true);
        if let Some(error) = world.first_error.borrow().as_ref() {
            bail!("{load:?}: {} errors, the first: {error}", world.errors.get());
        }
        Ok(summarise(&world, seconds, cpu))
    })
}

/// Puts `count` keys there.
pub(crate) fn preload(address: &str, count: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let connections = Rc::new(connect(address, CONNECTIONS_MAX).await?);
        let next = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..128)
            .map(|client: usize| {
                let (connections, next) = (Rc::clone(&connections), Rc::clone(&next));
                tokio::task::spawn_local(async move {
                    loop {
                        let number = next.replace(next.get() + 1);
                        if number >= count {
                            return Ok(());
                        }
                        let key = requests::key("bench", number);
                        let request = requests::put_if(&key, 0, &value(number), 0);
                        let connection = &connections[client % connections.len()];
                        connection.call(requests::TXN, &request).await?;
                    }
                })
            })
            .collect();
        for task in tasks {
            let done: anyhow::Result<()> = task.await?;
            done.context("preload")?;
        }
        Ok(())
    })
}

/// One linearizable read; the server answers once it is up.
pub(crate) fn probe(address: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let connection = Connection::open(address).await?;
        connection.call(requests::RANGE, &requests::get(&requests::key("bench", 0))).await?;
        Ok(())
    })
}

async fn connect(address: &str, count: usize) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..count.max(1) {
        connections.push(Connection::open(address).await?);
    }
    Ok(connections)
}

async fn start(world: &Rc<World>, load: Load, clients: usize) -> anyhow::Result<()> {
    let clients = match load {
        Load::Watch => {
            start_watchers(world, clients).await?;
            WATCH_WRITERS
        }
        _ => clients,
    };
    for client in 0..clients {
        let world = Rc::clone(world);
        tokio::task::spawn_local(async move {
            let mut random = client as u64 * 7919 + 1;
            while !world.stopping.get() {
                let begun = Instant::now();
                let result = operate(&world, load, client, clients, &mut random).await;
                world.note(load, begun.elapsed(), result);
            }
        });
    }
    Ok(())
}

impl World {
    fn note(&self, load: Load, took: Duration, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.errors.set(self.errors.get() + 1);
            if !self.stopping.get() {
                self.first_error.borrow_mut().get_or_insert_with(|| format!("{error:#}"));
            }
            return;
        }
        if self.counting.get() && load != Load::Watch {
            self.ops.set(self.ops.get() + 1);
            let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            self.latencies_us.borrow_mut().push(micros);
        }
    }
}

/// Watchers over all keys, four to a stream as little as to make streams: each its own stream, as
/// the API server has one for each resource.
async fn start_watchers(world: &Rc<World>, count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        let connection = &world.connections[number % world.connections.len()];
        let (mut sender, mut messages) = connection.stream(requests::WATCH).await?;
        sender.send(&requests::watch())?;
        let created = messages.next().await?;
        ensure!(Fields::int_of(&created, 3) == 1, "the watch was not created");
        let world = Rc::clone(world);
        tokio::task::spawn_local(async move {
            let _open = sender;
            while let Ok(message) = messages.next().await {
                let events = Fields(&message).filter(|(field, _)| *field == 11).count();
                if world.counting.get() {
                    world.ops.set(world.ops.get() + events as u64);
                }
            }
        });
    }
    Ok(())
}

async fn operate(
    world: &World,
    load: Load,
    client: usize,
    clients: usize,
    random: &mut u64,
) -> anyhow::Result<()> {
    let connection = &world.connections[client % world.connections.len()];
    match load {
        Load::Create => {
            let number = world.created.replace(world.created.get() + 1);
            let key = requests::key(&world.space, number);
            let answer =
                connection.call(requests::TXN, &requests::put_if(&key, 0, &value(number), 0)).await?;
            ensure!(Fields::int_of(&answer, 2) == 1, "a create found its key there");
            Ok(())
        }
        Load::Update | Load::Watch => update(world, connection, client, clients, random).await,
        Load::Get => get(world, connection, random).await,
        Load::List => list(world, connection, PAGE, random).await,
        Load::Mixed => match next(random) % 10 {
            0..7 => get(world, connection, random).await,
            7..9 => update(world, connection, client, clients, random).await,
            _ => list(world, connection, SMALL_PAGE, random).await,
        },
        Load::Lease => {
            let granted = connection.call(requests::LEASE_GRANT, &requests::lease_grant(60)).await?;
            let lease = Fields::int_of(&granted, 2);
            let number = world.created.replace(world.created.get() + 1);
            let key = requests::key("leased", number);
            connection.call(requests::TXN, &requests::put_if(&key, 0, &value(number), lease)).await?;
            connection.call(requests::LEASE_REVOKE, &requests::lease_revoke(lease)).await?;
            Ok(())
        }
    }
}

/// A client updates keys of its own, so that no compare fails.
async fn update(
    world: &World,
    connection: &Connection,
    client: usize,
    clients: usize,
    random: &mut u64,
) -> anyhow::Result<()> {
    let owned = world.keys.borrow().len() / clients;
    ensure!(owned > 0, "fewer keys than clients");
    let slot = usize::try_from(next(random) % owned as u64)? * clients + client;
    let (key, revision) = {
        let keys = world.keys.borrow();
        (keys[slot].key.clone(), keys[slot].revision)
    };
    let value = value(usize::try_from(*random % 1_000_000)?);
    let answer =
        connection.call(requests::TXN, &requests::put_if(&key, revision, &value, 0)).await?;
    ensure!(Fields::int_of(&answer, 2) == 1, "an update found another revision");
    let header = Fields::bytes_of(&answer, 1);
    world.keys.borrow_mut()[slot].revision = Fields::int_of(header, 3);
    Ok(())
}

async fn get(world: &World, connection: &Connection, random: &mut u64) -> anyhow::Result<()> {
    let request = {
        let keys = world.keys.borrow();
        let slot = usize::try_from(next(random) % keys.len() as u64)?;
        requests::get(&keys[slot].key)
    };
    let answer = connection.call(requests::RANGE, &request).await?;
    ensure!(Fields::int_of(&answer, 4) == 1, "a key is missing");
    Ok(())
}

/// A page from anywhere in the list.
async fn list(
    world: &World,
    connection: &Connection,
    limit: i64,
    random: &mut u64,
) -> anyhow::Result<()> {
    let request = {
        let keys = world.keys.borrow();
        let page = usize::try_from(limit)?;
        let slot = usize::try_from(next(random))? % keys.len().saturating_sub(page).max(1);
        requests::list(&keys[slot].key, limit, 0)
    };
    let answer = connection.call(requests::RANGE, &request).await?;
    ensure!(Fields::int_of(&answer, 4) > 0, "an empty page");
    Ok(())
}

async fn read_keys(connection: &Connection) -> anyhow::Result<Vec<Owned>> {
    let mut keys: Vec<Owned> = Vec::new();
    loop {
        let after = keys.last().map_or(&[][..], |owned| &owned.key[..]);
        let answer = connection.call(requests::RANGE, &requests::list(after, PAGE, 0)).await?;
        let before = keys.len();
        for (field, value) in Fields(&answer) {
            if let (2, Field::Bytes(kv)) = (field, value) {
                let key = Fields::bytes_of(kv, 1).to_vec();
                keys.push(Owned { key, revision: Fields::int_of(kv, 3) });
            }
        }
        if keys.len() == before {
            return Ok(keys);
        }
    }
}

fn summarise(world: &World, seconds: f64, cpu_micros: u64) -> Measured {
    let mut latencies = world.latencies_us.borrow_mut();
    latencies.sort_unstable();
    let at = |share: f64| {
        let slot = ((latencies.len().max(1) - 1) as f64 * share) as usize;
        latencies.get(slot).map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
    };
    let ops = world.ops.get();
    Measured {
        ops,
        errors: world.errors.get(),
        seconds,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        client_cpu_us_per_op: cpu_micros as f64 / ops.max(1) as f64,
    }
}

fn value(number: usize) -> Vec<u8> {
    let mut random = number as u64 + 1;
    let mut value = Vec::with_capacity(VALUE_BYTES);
    while value.len() < VALUE_BYTES {
        value.extend_from_slice(&next(&mut random).to_le_bytes());
    }
    value
}

/// xorshift64 (Marsaglia 2003).
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}
