//! Disks and processes that take their time.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use futures_util::future::join_all;
use kine2_proto::etcdserverpb::WatchCreateRequest;
use rustix::process::Signal;

use super::{Case, Depth};
use crate::client::{Client, get, soon};
use crate::rng::Rng;

/// Nine of ten reads take less, on a busy machine too: the disk is in a slow flush most of the time,
/// and one that waited for it would take some 200 ms.
const READ_MAX: Duration = Duration::from_millis(50);
/// An event comes so soon after the answer to its write.
const EVENT_MAX: Duration = Duration::from_millis(100);

/// Each flush of the log takes 50 to 500 ms: writes wait for it, together; nobody else does.
pub(super) async fn log_is_slow(depth: Depth, _: Rng) -> anyhow::Result<String> {
    let rounds = if depth == Depth::Short { 4 } else { 40 };
    slow("sync,log,1,0,delay,500", rounds, false).await
}

/// Each flush of the state takes as long: not even writes wait.
pub(super) async fn state_is_slow(depth: Depth, _: Rng) -> anyhow::Result<String> {
    let rounds = if depth == Depth::Short { 10 } else { 60 };
    slow("sync,state,1,0,delay,500", rounds, true).await
}

async fn slow(rules: &str, rounds: usize, writes_are_fast: bool) -> anyhow::Result<String> {
    let mut case = Case::new(8_000)?;
    let (server, client) = case.start_failing(rules).await?;
    case.ledger.write(&client, 20, 4).await?;
    let request = WatchCreateRequest {
        key: Bytes::from_static(b"/f/"),
        range_end: Bytes::from_static(b"/f0"),
        ..WatchCreateRequest::default()
    };
    let mut watch = client.watch(request).await?;
    soon("create a watch", watch.next()).await?;
    case.shim.arm()?;
    let reader = Client::connect(server.address()).await?;
    let reading = tokio::task::spawn_local(async move {
        let mut took = Vec::new();
        loop {
            let begun = Instant::now();
            if reader.range(get(b"/f/00000001")).await.is_err() {
                return took;
            }
            took.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let (mut writes, mut events) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        case.ledger.write(&client, 32, 32).await?;
        writes.push(begun.elapsed());
        let answered = Instant::now();
        let mut left = 32;
        while left > 0 {
            left -= soon("an event", watch.next()).await?.events.len();
        }
        events.push(answered.elapsed());
    }
    ensure!(case.shim.has_hit(), "no flush was slow");
    case.ledger.check(&client).await?;
    server.kill().await?;
    let mut reads = reading.await?;
    case.cut_all()?;
    case.check_after().await?;

    reads.sort_unstable();
    writes.sort_unstable();
    events.sort_unstable();
    let (p90, p99) = (reads[reads.len() * 9 / 10], reads[reads.len() * 99 / 100]);
    let (write, event) = (writes[writes.len() / 2], events[events.len() / 2]);
    ensure!(p90 < READ_MAX, "9 of 10 reads took up to {p90:?}");
    ensure!(event < EVENT_MAX, "half of the events came after {event:?}");
    // 32 writes at once wait for one flush, for two when they come in the middle of one.
    ensure!(
        write < Duration::from_millis(1_300),
        "half of the batches took {write:?}"
    );
    if writes_are_fast {
        ensure!(
            write < Duration::from_millis(120),
            "half of the batches took {write:?} though only the state is slow"
        );
    }
    Ok(format!(
        "{} reads, p90 {p90:.1?}, p99 {p99:.1?}; 32 writes at once {write:.0?}, events {event:.1?} later",
        reads.len()
    ))
}

/// A process that stood still longer than a lease lives gives it that time back: its client may
/// have tried to renew it all along (`repl T3`).
pub(super) async fn process_is_frozen(depth: Depth, _: Rng) -> anyhow::Result<String> {
    let rounds = if depth == Depth::Short { 1 } else { 5 };
    for _ in 0..rounds {
        freeze().await?;
    }
    Ok(format!(
        "{rounds} times: leases live on after a stop of twice their time"
    ))
}

async fn freeze() -> anyhow::Result<()> {
    const TTL: i64 = 2;
    let mut case = Case::new(100)?;
    let (server, client) = case.plain.start().await?;
    case.ledger.write(&client, 10, 4).await?;
    for id in 1..=5 {
        soon("grant", client.grant(id, TTL)).await?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.signal(Signal::STOP)?;
    // What is asked meanwhile is answered at the thaw.
    let waiting = join_all((1..=3).map(|id| client.keep_alive(id)));
    let thaw = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        server.signal(Signal::CONT)
    };
    let (renewed, thawed) = tokio::join!(waiting, thaw);
    thawed?;
    for ttl in renewed {
        ensure!(ttl? == TTL, "a renewal sent during the stop was refused");
    }
    for id in 4..=5 {
        let left = soon("ask for a lease", client.time_to_live(id)).await?;
        ensure!(left.ttl >= 0, "lease {id} is gone right after the thaw");
        let ttl = client.keep_alive(id).await?;
        ensure!(ttl == TTL, "lease {id} could not be renewed after the thaw");
    }
    // They have not become immortal either.
    let begun = Instant::now();
    loop {
        let left = soon("list the leases", client.leases()).await?;
        if left.leases.is_empty() {
            break;
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(8),
            "{} leases still live",
            left.leases.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(
        begun.elapsed() > Duration::from_millis(1_500),
        "they expired {:?} after they were renewed",
        begun.elapsed()
    );
    case.ledger.check(&client).await?;
    server.stop().await.map(drop)
}
