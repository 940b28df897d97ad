//! What people and their machines do.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use kine2_proto::etcdserverpb::WatchCreateRequest;
use rustix::process::Signal;
use tonic::Code;

use super::{Case, Depth, ends_with};
use crate::client::soon;
use crate::rng::Rng;

/// A second kine2 on the same directory says so and ends; the first does not notice.
pub(super) async fn directory_is_used_twice(_: Depth, _: Rng) -> anyhow::Result<String> {
    let mut case = Case::new(100)?;
    let (server, client) = case.plain.start().await?;
    case.ledger.write(&client, 20, 4).await?;
    let mut second = case.plain.clone();
    second.log_path = case.base.path().join("second.log");
    let last = ends_with(second.spawn()?, &["in use by another kine2", "data"]).await?;
    case.ledger.write(&client, 20, 4).await?;
    case.ledger.check(&client).await?;
    drop(client);
    server.kill().await?;
    case.check_after().await?;
    Ok(last)
}

/// SIGTERM under load: streams end with Unavailable, what was answered is there, and the next start
/// has no log to apply.
pub(super) async fn stopped_under_load(depth: Depth, mut rng: Rng) -> anyhow::Result<String> {
    let rounds = if depth == Depth::Short { 2 } else { 20 };
    let mut case = Case::new(4_000)?;
    let mut longest = Duration::ZERO;
    for _ in 0..rounds {
        let (server, client) = case.plain.start().await?;
        case.ledger.check(&client).await?;
        let said = server.said();
        ensure!(
            !said.contains("applied the log"),
            "an orderly stop left something to apply:\n{said}"
        );
        let request = WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..WatchCreateRequest::default()
        };
        let mut watch = client.watch(request).await?;
        soon("create a watch", watch.next()).await?;
        let watching = tokio::task::spawn_local(async move {
            loop {
                if let Err(status) = watch.next().await {
                    return status;
                }
            }
        });
        let after = rng.millis(50..400);
        let writing = case.ledger.write(&client, 1_000_000, 16);
        let stopping = async {
            tokio::time::sleep(after).await;
            server.signal(Signal::TERM)
        };
        let (written, signalled) = tokio::join!(writing, stopping);
        signalled?;
        let begun = Instant::now();
        let status = written.err().map(|status| status.code());
        ensure!(
            status == Some(Code::Unavailable),
            "a write during the stop was answered with {status:?}"
        );
        let ended = soon("the end of the watch", async {
            anyhow::Ok(watching.await?)
        });
        let ended = ended.await?;
        ensure!(
            ended.code() == Code::Unavailable,
            "the watch ended with {ended:?}"
        );
        drop(client);
        let (status, said) = server.ended().await?;
        ensure!(status.success(), "it ended with {status}:\n{said}");
        longest = longest.max(begun.elapsed());
    }
    case.check_after().await?;
    Ok(format!(
        "{rounds} stops, {} writes kept, the longest took {longest:.1?}",
        case.ledger.done.len()
    ))
}
