//! A log that was changed behind the program's back.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Case, Depth, ends_with};
use crate::ledger::Ledger;
use crate::rng::Rng;

/// The first page of a segment is its header; records begin behind it.
const DATA_START: usize = 4096;
/// Bytes of the header that mean something.
const HEADER_BYTES: usize = 64;

/// After this the log has marked its end and writes nothing by itself.
const QUIET: Duration = Duration::from_millis(500);

/// A directory that was left by a kill.
struct Left {
    case: Case,
    /// The segment that was written last.
    segment: PathBuf,
    /// Its last batch: one put.
    last_batch: Range<usize>,
    /// What is there without that batch.
    before: Vec<(String, i64)>,
}

/// Writes some, then one more whose bytes in the log are known, and kills.
async fn left_behind(writes: usize, value_bytes: usize) -> anyhow::Result<Left> {
    let mut case = Case::new(value_bytes)?;
    // Nothing but the writes goes to the log, and the state lags behind.
    case.plain = case.plain.with("checkpoint-interval", "10m");
    let (server, client) = case.plain.start().await?;
    case.ledger.write(&client, writes, 8).await?;
    let before: Vec<(String, i64)> = case.ledger.done.clone().into_iter().collect();
    let dir = case.data_dir().join("store/wal");
    // Until the log is quiet: its last mark is not to be taken for a part of the batch.
    tokio::time::sleep(QUIET).await;
    let image = segments(&dir)?;
    case.ledger.write(&client, 1, 1).await?;
    drop(client);
    server.kill().await?;
    for (path, now) in segments(&dir)? {
        let Some((_, then)) = image.iter().find(|(of, _)| *of == path) else {
            continue;
        };
        let differs: Vec<usize> = (0..now.len()).filter(|at| now[*at] != then[*at]).collect();
        if let (Some(first), Some(last)) = (differs.first(), differs.last()) {
            let last_batch = *first..last + 1;
            let segment = path;
            return Ok(Left {
                case,
                segment,
                last_batch,
                before,
            });
        }
    }
    anyhow::bail!("the last write left no trace in {}", dir.display())
}

fn segments(dir: &Path) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "wal") {
            let bytes = fs::read(&path)?;
            found.push((path, bytes));
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a data directory.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Of the last batch only the first bytes came to the disk: it is cut, and all before is there.
pub(super) async fn tail_is_torn_at_every_byte(depth: Depth, _: Rng) -> anyhow::Result<String> {
    let left = left_behind(40, 60).await?;
    let step = if depth == Depth::Short { 24 } else { 1 };
    let bytes = fs::read(&left.segment)?;
    let mut starts = 0;
    for at in left.last_batch.clone().step_by(step) {
        let dir = left.case.base.path().join("torn");
        copy(left.case.data_dir(), &dir)?;
        let mut torn = bytes.clone();
        torn[at..left.last_batch.end].fill(0);
        let name = left.segment.file_name().context("a name")?;
        fs::write(dir.join("store/wal").join(name), torn)?;
        let mut launch = left.case.plain.clone();
        launch.data_dir.clone_from(&dir);
        let (server, client) = launch
            .start()
            .await
            .with_context(|| format!("torn at {at}"))?;
        let mut ledger = Ledger::of_bytes(60);
        ledger.done = left.before.iter().cloned().collect();
        ledger
            .check(&client)
            .await
            .with_context(|| format!("torn at {at} of {:?}", left.last_batch))?;
        let said = server.said();
        ensure!(
            at == left.last_batch.start || said.contains("half-written"),
            "torn at {at}, and it does not say so:\n{said}"
        );
        server.kill().await?;
        fs::remove_dir_all(&dir)?;
        starts += 1;
    }
    Ok(format!(
        "{starts} starts on a last batch of {} bytes",
        left.last_batch.len()
    ))
}

/// A bit that changes in what was once durable is damage: the program says where and changes nothing.
pub(super) async fn bits_of_the_log_flip(depth: Depth, mut rng: Rng) -> anyhow::Result<String> {
    // More than one segment: checkpoints do not come, so none is cut.
    let mut left = left_behind(450, 4_000).await?;
    let dir = left.case.data_dir().join("store/wal");
    let all = segments(&dir)?;
    ensure!(all.len() >= 2, "one segment only");
    let flips = if depth == Depth::Short { 8 } else { 150 };
    for number in 0..flips {
        let among = all.partition_point(|(path, _)| *path <= left.segment);
        let (path, bytes) = &all[usize::try_from(rng.within(0..among as u64))?];
        let used = if *path == left.segment {
            left.last_batch.start
        } else {
            let end = bytes.iter().rposition(|byte| *byte != 0);
            end.context("a segment without records")? + 1
        };
        let range = if rng.percent(15) {
            0..HEADER_BYTES
        } else {
            DATA_START..used
        };
        let at = rng.within(range.start as u64..range.end as u64);
        let at = usize::try_from(at)?;
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << rng.within(0..8);
        fs::write(path, &flipped)?;
        let name = path.file_name().context("a name")?.to_string_lossy();
        let server = left.case.plain.spawn()?;
        ends_with(server, &[&name]).await.with_context(|| {
            format!("flip {number}: a bit at {at} of {name}, used up to {used}")
        })?;
        ensure!(
            fs::read(path)? == flipped,
            "a log that was refused was changed"
        );
        fs::write(path, bytes)?;
    }
    left.case.check_after().await?;
    Ok(format!(
        "{flips} bits in {} segments, each refused",
        all.len()
    ))
}
