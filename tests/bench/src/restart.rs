//! Starts on a directory that holds many keys.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::LocalSet;

use crate::figures::RestartFigures;
use crate::keys::Store;
use crate::process::{Memory, pause};
use crate::servers::{Program, Server};

/// After this, memory is looked at again.
const LATER: Duration = Duration::from_secs(10);

/// Fills a fresh directory, then stops and starts the server, in order and by SIGKILL.
pub(crate) fn measure(
    program: &Program,
    dir: &Path,
    round: usize,
    keys: usize,
    connections: usize,
) -> anyhow::Result<Vec<RestartFigures>> {
    let mut server = Server::start(program, dir)?;
    preload(&server, keys, connections)?;
    let mut restarts = Vec::new();
    for killed in [false, true] {
        server.stop(if killed { Signal::KILL } else { Signal::TERM })?;
        server = Server::start(program, dir)?;
        let rss_bytes = Memory::of(server.pid)?.now;
        pause(LATER);
        restarts.push(RestartFigures {
            round,
            keys,
            server: program.kind,
            killed,
            first_answer_ms: server.started_in.as_secs_f64() * 1e3,
            rss_bytes,
            rss_later_bytes: Memory::of(server.pid)?.now,
        });
    }
    Ok(restarts)
}

/// Puts the first keys there.
pub(crate) fn preload(server: &Server, keys: usize, connections: usize) -> anyhow::Result<Store> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, Store::preload(&server.address, keys, connections))
}
