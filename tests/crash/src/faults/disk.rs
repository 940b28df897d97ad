//! Calls that fail or come back short.

use anyhow::ensure;

use super::{Case, Depth, ends_with};
use crate::rng::Rng;

/// More writes than it takes to meet any fault here.
pub(super) const WRITES_MAX: usize = 4_000;

/// An error of fsync in the log is final (`fsyncgate`): nothing is answered as done after it.
pub(super) async fn flush_of_the_log_fails(depth: Depth, rng: Rng) -> anyhow::Result<String> {
    repeat(depth, rng, "sync,log", 60, "eio", &["wal", "nput/output"]).await
}

/// The same in the state: it may be lost, what it was made of is in the log.
pub(super) async fn flush_of_the_state_fails(depth: Depth, rng: Rng) -> anyhow::Result<String> {
    repeat(
        depth,
        rng,
        "sync,state",
        6,
        "eio",
        &["state", "nput/output"],
    )
    .await
}

pub(super) async fn write_of_the_log_fails(depth: Depth, rng: Rng) -> anyhow::Result<String> {
    repeat(depth, rng, "write,log", 60, "eio", &["wal", "nput/output"]).await
}

pub(super) async fn write_of_the_state_fails(depth: Depth, rng: Rng) -> anyhow::Result<String> {
    repeat(
        depth,
        rng,
        "write,state",
        60,
        "eio",
        &["state", "nput/output"],
    )
    .await
}

/// A rename, creation or deletion of a segment.
pub(super) async fn name_of_the_log_fails(depth: Depth, rng: Rng) -> anyhow::Result<String> {
    repeat(depth, rng, "name,log", 4, "eio", &["wal", "nput/output"]).await
}

/// A segment that is not in use yet cannot be made: the disk is not to be trusted with more.
pub(super) async fn supply_of_the_log_fails(depth: Depth, mut rng: Rng) -> anyhow::Result<String> {
    let mut last = String::new();
    for (call, most) in [("write,spare", 256), ("sync,spare", 3), ("name,spare", 2)] {
        let rng = rng.fork();
        last = repeat(depth, rng, call, most, "eio", &["wal", "nput/output"]).await?;
    }
    Ok(last)
}

/// The n-th such call fails, for several n: the server must end and say why, a power cut must take
/// nothing that it had acknowledged, and the next start must be right.
pub(super) async fn repeat(
    depth: Depth,
    mut rng: Rng,
    call: &str,
    most: u64,
    what: &str,
    words: &[&str],
) -> anyhow::Result<String> {
    let rounds = if depth == Depth::Short { 2 } else { 10 };
    let mut last = String::new();
    let mut acknowledged = 0;
    for _ in 0..rounds {
        let rules = format!("{call},{},1,{what}", rng.within(1..most));
        let mut case = Case::new(8_000)?;
        let (server, client) = case.start_failing(&rules).await?;
        case.ledger.write(&client, 10, 4).await?;
        case.shim.arm()?;
        let written = case.ledger.write(&client, WRITES_MAX, 8).await;
        ensure!(case.shim.has_hit(), "{rules} met no call");
        ensure!(written.is_err(), "{rules}: every write was acknowledged");
        last = ends_with(server, words).await?;
        acknowledged += case.ledger.done.len();
        case.cut_all()?;
        case.check_after().await?;
    }
    Ok(format!(
        "{rounds} times, {acknowledged} writes kept; {last}"
    ))
}

/// A disk may take a part of what it is given.
pub(super) async fn writes_come_back_short(depth: Depth, _: Rng) -> anyhow::Result<String> {
    let mut case = Case::new(4_000)?;
    let count = if depth == Depth::Short { 300 } else { 2_000 };
    let (server, client) = case.start_failing("write,any,1,0,short").await?;
    case.shim.arm()?;
    case.ledger.write(&client, count, 8).await?;
    case.ledger.check(&client).await?;
    ensure!(case.shim.has_hit(), "no write came back short");
    drop(client);
    server.kill().await?;
    case.cut_all()?;
    case.check_after().await?;
    Ok(format!("{count} writes kept"))
}
