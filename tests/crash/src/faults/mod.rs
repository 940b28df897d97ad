//! Disks and circumstances that fail, one scenario a function.

pub mod circumstances;
pub mod damage;
pub mod disk;
pub mod pace;
pub mod space;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::client::Client;
use crate::cut::{Mode, cut_as};
use crate::ledger::Ledger;
use crate::rng::Rng;
use crate::server::{Launch, Server};
use crate::shim::Shim;
use crate::undo::Undo;

/// How thorough a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Seconds in all.
    Short,
    /// Minutes in all.
    Full,
}

/// What a scenario gives back: what was seen, in a few words.
pub type Seen = Pin<Box<dyn Future<Output = anyhow::Result<String>>>>;

/// A scenario: its name, and what runs it.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// As on the command line.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(Depth, Rng) -> Seen,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! scenarios {
    ($($name:literal => $run:path,)*) => {
        /// All scenarios.
        pub const ALL: &[Scenario] = &[$(Scenario {
            name: $name,
            run: |depth, rng| Box::pin($run(depth, rng)),
        }),*];
    };
}

scenarios! {
    "fsync-log" => disk::flush_of_the_log_fails,
    "fsync-state" => disk::flush_of_the_state_fails,
    "write-log" => disk::write_of_the_log_fails,
    "write-state" => disk::write_of_the_state_fails,
    "name-log" => disk::name_of_the_log_fails,
    "spare-log" => disk::supply_of_the_log_fails,
    "short-writes" => disk::writes_come_back_short,
    "enospc-log" => space::log_runs_out_of_space,
    "enospc-spare" => space::next_segment_has_no_room,
    "enospc-state" => space::state_runs_out_of_space,
    "enospc-real" => space::file_system_is_full,
    "read-only" => space::file_system_is_read_only,
    "slow-log" => pace::log_is_slow,
    "slow-state" => pace::state_is_slow,
    "frozen" => pace::process_is_frozen,
    "torn-tail" => damage::tail_is_torn_at_every_byte,
    "bit-flips" => damage::bits_of_the_log_flip,
    "in-use" => circumstances::directory_is_used_twice,
    "sigterm" => circumstances::stopped_under_load,
}

/// The scenario of a name.
#[must_use]
pub fn find(name: &str) -> Option<Scenario> {
    ALL.iter().find(|scenario| scenario.name == name).copied()
}

/// A data directory with the shim at hand.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) base: TempDir,
    pub(crate) shim: Shim,
    /// Without the shim.
    pub(crate) plain: Launch,
    pub(crate) ledger: Ledger,
}

impl Case {
    /// With small segments and frequent checkpoints.
    pub(crate) fn new(value_bytes: usize) -> anyhow::Result<Self> {
        let base = tempfile::Builder::new().prefix("kine2-fault-").tempdir()?;
        let shim = Shim::below(base.path())?;
        let mut plain = Launch::below(base.path())
            .with("segment-bytes", "1MiB")
            .with("checkpoint-bytes", "1MiB")
            .with("checkpoint-interval", "1s");
        plain.data_dir = shim.root.join("data");
        Ok(Self {
            base,
            shim,
            plain,
            ledger: Ledger::of_bytes(value_bytes),
        })
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.plain.data_dir
    }

    /// Starts with rules of the shim and an undo log.
    pub(crate) async fn start_failing(&self, rules: &str) -> anyhow::Result<(Server, Client)> {
        let launch = self.shim.record(self.plain.clone())?;
        self.shim.fail(launch, rules)?.start().await
    }

    /// Cuts the power so that all goes that was not durable.
    pub(crate) fn cut_all(&self) -> anyhow::Result<()> {
        let undo = Undo::read(&self.shim.undo)?;
        let mut rng = Rng::new(1);
        cut_as(
            Mode::All,
            &self.shim.root,
            &self.shim.graves,
            &undo,
            &mut rng,
        )?;
        self.shim.forget()
    }

    /// Starts as it should be, compares all with the ledger, goes on writing, and stops in order.
    pub(crate) async fn check_after(&mut self) -> anyhow::Result<()> {
        let (server, client) = self.plain.start().await.context("start after the fault")?;
        self.ledger.check(&client).await?;
        let written = self.ledger.write(&client, 20, 4).await;
        written.context("write after the fault")?;
        self.ledger.check(&client).await?;
        drop(client);
        server.stop().await.map(drop)
    }
}

/// A server that met a fault has to end by itself, with an error that has these words.
pub(crate) async fn ends_with(server: Server, words: &[&str]) -> anyhow::Result<String> {
    let begun = Instant::now();
    let (status, said) = server.ended().await?;
    ensure!(
        status.code() == Some(1),
        "it ended with {status}, expected exit status 1:\n{said}"
    );
    let last = said.lines().last().unwrap_or_default().to_owned();
    for word in words {
        ensure!(
            last.contains(word),
            "its last words do not say {word:?}: {last}"
        );
    }
    let waited = begun.elapsed();
    ensure!(
        waited < Duration::from_secs(10),
        "it ended only after {waited:?}"
    );
    Ok(last)
}
