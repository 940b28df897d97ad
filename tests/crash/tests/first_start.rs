//! The first starts of a data directory, ended right before each of their calls in turn, and then
//! the power. What a start has made and not flushed is there for the next one, and not durable: the
//! next one has to flush it before it builds on it.

use kine2_crash::block_on;
use kine2_crash::cut::{Mode, cut_as};
use kine2_crash::ledger::Ledger;
use kine2_crash::rng::Rng;
use kine2_crash::server::Launch;
use kine2_crash::shim::Shim;
use kine2_crash::undo::Undo;

/// A new directory's data were lost by a power cut in its first minutes: its own name, and those of
/// directories that a killed start had made, were never flushed.
async fn check(rules: &str, directory_is_there: bool) -> anyhow::Result<()> {
    let base = tempfile::tempdir()?;
    let shim = Shim::below(base.path())?;
    if directory_is_there {
        std::fs::create_dir(shim.root.join("data"))?;
    }
    let plain = Launch::below(base.path())
        .with("segment-bytes", "1MiB")
        .with("checkpoint-bytes", "1MiB");
    let recorded = shim.record(plain)?;
    let ending = recorded.clone().env("CRASH_FAULTS", rules);
    let mut server = ending.spawn()?;
    // It is killed before its call, or serves because it makes fewer of that kind.
    drop(server.ready().await);
    server.kill_or_killed().await?;

    let mut ledger = Ledger::of_bytes(20_000);
    let (server, client) = recorded.start().await?;
    // Enough for checkpoints that cut the log: then nothing but the state has the first writes.
    ledger.write(&client, 250, 8).await?;
    server.kill().await?;
    let undo = Undo::read(&shim.undo)?;
    cut_as(Mode::All, &shim.root, &shim.graves, &undo, &mut Rng::new(1))?;
    shim.forget()?;
    let (server, client) = recorded.start().await?;
    ledger.check(&client).await?;
    server.kill().await
}

#[test]
fn nothing_is_built_on_names_that_a_killed_start_left_unflushed() {
    // Of the calls of a first start, those before which something is there that is not durable.
    let mut failures = String::new();
    for call in ["sync,any", "name,any"] {
        for first in [1, 2, 3, 5, 8, 9, 10, 11, 12, 13] {
            let rules = format!("{call},{first},1,kill");
            if let Err(error) = block_on(check(&rules, first > 1)).unwrap() {
                failures += &format!("\n{rules}: {error:#}");
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// A start that was killed twice while it opened the state took the state for damaged, and refused
/// it for good once the log was cut (`power --seed 22`).
async fn check_killed_opens() -> anyhow::Result<()> {
    let base = tempfile::tempdir()?;
    let shim = Shim::below(base.path())?;
    let mut plain = Launch::below(base.path())
        .with("segment-bytes", "1MiB")
        .with("checkpoint-bytes", "1MiB");
    plain.data_dir = shim.root.join("data");
    let mut ledger = Ledger::of_bytes(20_000);
    let (server, client) = plain.start().await?;
    ledger.write(&client, 250, 8).await?;
    server.stop().await?;
    // The first write is the mark that an open begins, the second comes when it is done.
    let killed = shim.fail(plain.clone(), "write,state,2,1,kill")?;
    shim.arm()?;
    for _ in 0..4 {
        let mut server = killed.spawn()?;
        drop(server.ready().await);
        server.kill_or_killed().await?;
        anyhow::ensure!(shim.has_hit(), "the start was not killed");
    }
    let (server, client) = plain.start().await?;
    ledger.check(&client).await?;
    server.kill().await
}

#[test]
fn starts_that_are_killed_while_they_open_the_state_do_not_lose_it() {
    block_on(check_killed_opens()).unwrap().unwrap();
}
