//! Starts on a directory that holds many keys.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::{JoinSet, LocalSet};

use crate::figures::RestartFigures;
use crate::grpc::Connection;
use crate::keys::Store;
use crate::load::{Client, Work};
use crate::meter::Meter;
use crate::plan::Load;
use crate::process::{Memory, pause};
use crate::servers::{Program, Server};

/// After this, memory is looked at again.
const LATER: Duration = Duration::from_secs(10);
/// Updates before the SIGKILL, which comes in their midst: what a server puts off is then as much
/// as it ever is.
const LOAD_BEFORE_KILL: Duration = Duration::from_secs(3);
const CLIENTS_BEFORE_KILL: usize = 64;

/// Fills a fresh directory, then stops and starts the server: in order, and by SIGKILL under load.
pub(crate) fn measure(
    program: &Program,
    dir: &Path,
    round: usize,
    keys: usize,
    connections: usize,
) -> anyhow::Result<Vec<RestartFigures>> {
    let server = Server::start(program, dir)?;
    let store = preload(&server, keys, connections)?;
    server.stop(Signal::TERM)?;
    let look = |killed| {
        let server = Server::start(program, dir)?;
        let rss_bytes = Memory::of(&server.pids)?.now;
        pause(LATER);
        let figures = RestartFigures {
            round,
            keys,
            server: program.kind,
            killed,
            first_answer_ms: server.started_in.as_secs_f64() * 1e3,
            cpu_ms: server.start_cpu.as_secs_f64() * 1e3,
            rss_bytes,
            rss_later_bytes: Memory::of(&server.pids)?.now,
        };
        anyhow::Ok((server, figures))
    };
    let (server, stopped) = look(false)?;
    kill_under_load(server, store, connections)?;
    let (_server, killed) = look(true)?;
    Ok(vec![stopped, killed])
}

fn kill_under_load(server: Server, store: Store, connections: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let connections = Connection::open_many(server.address(), connections).await?;
        let work = Rc::new(Work {
            meter: Meter::new(),
            store: RefCell::new(store),
            clients: CLIENTS_BEFORE_KILL,
            stopping: Cell::new(false),
        });
        let mut clients = JoinSet::new();
        for (number, connection) in (0..CLIENTS_BEFORE_KILL).zip(connections.iter().cycle()) {
            clients.spawn_local(Client::new(&work, connection, number).run(Load::Update));
        }
        tokio::time::sleep(LOAD_BEFORE_KILL).await;
        server.stop(Signal::KILL)?;
        clients.shutdown().await;
        Ok(())
    })
}

/// Puts the first keys there.
pub(crate) fn preload(server: &Server, keys: usize, connections: usize) -> anyhow::Result<Store> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(
        &runtime,
        Store::preload(server.address(), keys, connections),
    )
}
