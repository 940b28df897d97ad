//! Disks that are full or cannot be written.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kine2_proto::etcdserverpb::AlarmRequest;
use rustix::mount::MountFlags;
use tonic::Status;

use super::disk::{WRITES_MAX, repeat};
use super::{Case, Depth, ends_with};
use crate::client::Client;
use crate::rng::Rng;
use crate::small_disk::SmallDisk;

const FULL: &str = "No space left";
const NO_SPACE: &str = "database space exceeded";
/// More than the time after which a full disk is looked at again.
const LOOKED_AT_AGAIN: Duration = Duration::from_secs(20);
/// etcd's number for it.
const DEACTIVATE: i32 = 2;

pub(super) async fn log_runs_out_of_space(depth: Depth, rng: Rng) -> anyhow::Result<String> {
    repeat(depth, rng, "write,log", 60, "enospc", &["wal", FULL]).await
}

/// The log's next segment finds no room: what needs space is refused, all else goes on, and once
/// there is room again the operator only has to disarm the alarm.
pub(super) async fn next_segment_has_no_room(depth: Depth, mut rng: Rng) -> anyhow::Result<String> {
    let rounds = if depth == Depth::Short { 2 } else { 10 };
    let mut acknowledged = 0;
    for _ in 0..rounds {
        // Segments of 1 MiB are zeroed in 256 pages.
        let rules = format!("write,spare,{},1,enospc", rng.within(1..256));
        let mut case = Case::new(8_000)?;
        let (server, client) = case.start_failing(&rules).await?;
        case.ledger.write(&client, 10, 4).await?;
        case.shim.arm()?;
        let written = case.ledger.write(&client, WRITES_MAX, 8).await;
        ensure!(case.shim.has_hit(), "{rules} met no call");
        let Err(refused) = written else {
            anyhow::bail!("{rules}: every write was acknowledged");
        };
        ensure!(refused.message().ends_with(NO_SPACE), "{rules}: {refused}");
        case.ledger.check(&client).await?;
        // The disk is looked at again every few seconds.
        let begun = Instant::now();
        loop {
            disarm(&client).await?;
            match case.ledger.write(&client, 400, 8).await {
                Ok(()) => break,
                Err(status) => ensure!(
                    begun.elapsed() < LOOKED_AT_AGAIN && status.message().ends_with(NO_SPACE),
                    "{rules}: write after the alarm: {status}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        acknowledged += case.ledger.done.len();
        server.kill().await?;
        case.cut_all()?;
        case.check_after().await?;
    }
    Ok(format!("{rounds} times, {acknowledged} writes kept"))
}

pub(super) async fn state_runs_out_of_space(depth: Depth, rng: Rng) -> anyhow::Result<String> {
    repeat(depth, rng, "write,state", 60, "enospc", &["state", FULL]).await
}

/// Disarms all alarms, as an operator does once there is space.
async fn disarm(client: &Client) -> anyhow::Result<()> {
    let raised = client.alarm(AlarmRequest::default()).await?;
    for alarm in raised.alarms {
        let request = AlarmRequest {
            action: DEACTIVATE,
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        client.alarm(request).await?;
    }
    Ok(())
}

const NO_MOUNTS: &str = "passed over: mounting needs root; the shim's scenarios cover it";

/// A real file system is filled, first by writes, then so far that a start has no room either.
pub(super) async fn file_system_is_full(depth: Depth, _: Rng) -> anyhow::Result<String> {
    let sizes: &[u64] = if depth == Depth::Short {
        &[9]
    } else {
        &[5, 6, 7, 8, 9, 11, 13, 16, 20]
    };
    let mut acknowledged = 0;
    let mut last = String::new();
    for mib in sizes {
        let mut case = Case::new(8_000)?;
        let root = case.shim.root.clone();
        let Some(tmpfs) = SmallDisk::mount(&root, &format!("size={mib}m"))? else {
            return Ok(NO_MOUNTS.to_owned());
        };
        let (server, client) = case.plain.start().await?;
        let written = case.ledger.write(&client, 10_000, 8).await;
        ensure!(written.is_err(), "{mib} MiB held 80 MB");
        last = if written.is_err_and(|status| status.message().ends_with(NO_SPACE)) {
            // It goes on without what needs space.
            case.ledger.check(&client).await?;
            server.kill().await?;
            format!("refused: {NO_SPACE}")
        } else {
            drop(client);
            ends_with(server, &[FULL]).await?
        };
        acknowledged += case.ledger.done.len();
        // Without room it may start or not, but it must not harm what is there.
        if let Ok((server, client)) = case.plain.start().await {
            match case.ledger.check(&client).await {
                Ok(()) => server.kill().await?,
                // It met the full disk after it had begun to serve.
                Err(error) if error.downcast_ref::<Status>().is_some() => {
                    ends_with(server, &[FULL]).await.map(drop)?;
                }
                Err(error) => return Err(error),
            }
        }
        tmpfs.remount(MountFlags::empty(), &format!("size={}m", mib + 40))?;
        let (server, client) = case.plain.start().await?;
        disarm(&client).await?;
        drop(client);
        server.stop().await?;
        case.check_after()
            .await
            .with_context(|| format!("{mib} MiB"))?;
    }
    Ok(format!(
        "{} sizes, {acknowledged} writes kept; {last}",
        sizes.len()
    ))
}

/// Nothing can be written: the start says which file.
pub(super) async fn file_system_is_read_only(_: Depth, _: Rng) -> anyhow::Result<String> {
    let mut case = Case::new(100)?;
    let root = case.shim.root.clone();
    let tmpfs = SmallDisk::mount(&root, "size=64m")?;
    let (server, client) = case.plain.start().await?;
    case.ledger.write(&client, 50, 4).await?;
    drop(client);
    server.stop().await?;
    let last = if let Some(tmpfs) = &tmpfs {
        tmpfs.remount(MountFlags::RDONLY, "")?;
        let server = case.plain.spawn()?;
        let last = ends_with(server, &["data", "Read-only"]).await?;
        tmpfs.remount(MountFlags::empty(), "")?;
        last
    } else {
        let rules = "open,any,1,0,erofs;name,any,1,0,erofs";
        let launch = case.shim.fail(case.plain.clone(), rules)?;
        case.shim.arm()?;
        ends_with(launch.spawn()?, &["data", "Read-only"]).await?
    };
    case.check_after().await?;
    Ok(last)
}
