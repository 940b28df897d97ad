//! Rounds of load and sudden ends on a data directory, each checked.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;

use crate::cut::cut;
use crate::load::Shape;
use crate::rng::Rng;
use crate::server::{Launch, tail};
use crate::shim::Shim;
use crate::undo::Undo;
use crate::witness::Witness;

/// Rounds on one data directory; then a new one is begun.
const ROUNDS_PER_DIRECTORY: u64 = 25;
/// A start that is killed before it serves: at most so many in a row.
const CUT_STARTS_MAX: u64 = 3;

/// What ends a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// kill -9.
    Kill,
    /// The same, and most of the time a power cut after it.
    Power,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What ends the server.
    pub end: End,
    /// Sudden ends, in all.
    pub rounds: u64,
    /// Of all random choices; times are the machine's.
    pub seed: u64,
    /// Load before an end, in milliseconds.
    pub load_ms: u64,
    /// Rules of the shim, to prove that the harness sees a bug.
    pub mutation: Option<String>,
    /// Where to keep a directory that was found bad, with the undo log.
    pub keep: Option<PathBuf>,
    /// Say what happens.
    pub verbose: bool,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Sudden ends.
    pub rounds: u64,
    /// Those followed by a power cut.
    pub cuts: u64,
    /// Starts that were killed before they served.
    pub cut_starts: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes of which nobody knew whether they were made.
    pub unknown: u64,
    /// What was wrong, with the round's seed.
    pub bad: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds ({} power cuts, {} starts cut short), {} writes acknowledged, {} in doubt: \
             {} bad, {:.1?}",
            self.rounds,
            self.cuts,
            self.cut_starts,
            self.acknowledged,
            self.unknown,
            self.bad.len(),
            self.took
        )?;
        for bad in &self.bad {
            write!(f, "\nbad: {bad}")?;
        }
        Ok(())
    }
}

impl Plan {
    /// Runs all rounds.
    ///
    /// # Errors
    /// If they cannot be run at all; what is bad is in the outcome.
    pub async fn run(&self) -> anyhow::Result<Outcome> {
        let begun = Instant::now();
        let mut outcome = Outcome::default();
        let mut directory = 0;
        while outcome.rounds < self.rounds {
            let rounds = (self.rounds - outcome.rounds).min(ROUNDS_PER_DIRECTORY);
            let mut run = Run::begin(self, directory)?;
            let result = run.rounds(rounds, &mut outcome).await;
            let (acknowledged, unknown, _) = run.witness.figures();
            outcome.acknowledged += acknowledged;
            outcome.unknown += unknown;
            if let Err(error) = result {
                outcome.bad.push(format!(
                    "seed {} directory {directory} round {}: {error:#}\n{}",
                    self.seed,
                    run.round,
                    tail(&run.last_words(), 12)
                ));
                run.keep()?;
                if self.mutation.is_some() {
                    break;
                }
            }
            directory += 1;
        }
        outcome.took = begun.elapsed();
        Ok(outcome)
    }
}

/// The rounds of one data directory.
struct Run<'p> {
    plan: &'p Plan,
    base: TempDir,
    shim: Shim,
    launch: Launch,
    shape: Shape,
    rng: Rng,
    witness: Witness,
    round: u64,
}

impl<'p> Run<'p> {
    fn begin(plan: &'p Plan, directory: u64) -> anyhow::Result<Self> {
        let mut rng = Rng::new(plan.seed ^ directory.wrapping_mul(0x9e37_79b9));
        let base = tempfile::Builder::new().prefix("kine2-crash-").tempdir()?;
        let shim = Shim::below(base.path())?;
        let mut launch = Launch::below(base.path()).with("watch-progress-notify-interval", "100ms");
        launch.data_dir = shim.root.join("data");
        // Small ones bring checkpoints, changes of segment and cuts into each round.
        if rng.percent(80) {
            launch = launch
                .with("segment-bytes", "1MiB")
                .with("checkpoint-bytes", "1MiB")
                .with("checkpoint-interval", "1s");
        } else {
            launch = launch.with("segment-bytes", "4MiB");
        }
        if rng.percent(30) {
            launch = launch.with("cache-bytes", "256KiB");
        }
        launch = match (plan.end, &plan.mutation) {
            (End::Kill, _) => launch,
            (End::Power, None) => shim.record(launch)?,
            (End::Power, Some(rules)) => {
                let launch = shim.record(launch)?;
                launch.env("CRASH_FAULTS", rules)
            }
        };
        let shape = Shape {
            clients: rng.within(4..25),
            value_bytes_max: [2_000, 20_000, 60_000][usize::try_from(rng.within(0..3))?],
            compacts: true,
        };
        Ok(Self {
            plan,
            base,
            shim,
            launch,
            shape,
            rng,
            witness: Witness::default(),
            round: 0,
        })
    }

    async fn rounds(&mut self, rounds: u64, outcome: &mut Outcome) -> anyhow::Result<()> {
        for _ in 0..rounds {
            self.round += 1;
            outcome.rounds += 1;
            let begun = Instant::now();
            self.one_round().await?;
            let cut = self.end(outcome).await?;
            if self.plan.verbose {
                let (acknowledged, unknown, revision) = self.witness.figures();
                self.say(&format!(
                    "round {} in {:.0?}: {acknowledged} acknowledged, {unknown} in doubt, \
                     revision {revision} {cut}",
                    outcome.rounds,
                    begun.elapsed()
                ));
            }
        }
        // The last end is checked too, and then an orderly one.
        let (server, client) = self.start().await?;
        self.witness.check(&client, &mut self.rng).await?;
        drop(client);
        server.stop().await?;
        self.witness.pause();
        let (server, client) = self.start().await?;
        self.witness.check(&client, &mut self.rng).await?;
        self.witness.pause();
        server.kill().await
    }

    /// Starts, checks, loads and kills: at a random time, or right before a random call.
    async fn one_round(&mut self) -> anyhow::Result<()> {
        let mut launch = self.launch.clone();
        let mut most = self.plan.load_ms.max(2);
        if self.plan.end == End::Power && self.plan.mutation.is_none() && self.rng.percent(60) {
            let rule = self.rule();
            launch = self.shim.fail(launch, &rule)?;
            most *= 3;
        }
        let (mut server, client) = launch.start().await.context("start again")?;
        self.witness.check(&client, &mut self.rng).await?;
        let load = self.witness.load(&client, self.shape, &mut self.rng);
        self.shim.arm()?;
        let _ = tokio::time::timeout(self.rng.millis(1..most), server.gone()).await;
        let killed = server.kill_or_killed().await;
        load.finish().await;
        self.witness.pause();
        killed
    }

    /// The call before which the program is killed: the interesting moments are short.
    fn rule(&mut self) -> String {
        let (what, most) = match self.rng.within(0..10) {
            0..3 => ("write,state", 600),
            3..5 => ("sync,state", 8),
            5 => ("name,state", 4),
            6 | 7 => ("name,log", 8),
            8 => ("write,log", 200),
            _ => ("sync,log", 200),
        };
        format!("{what},{},1,kill", self.rng.within(1..most))
    }

    async fn start(&self) -> anyhow::Result<(crate::server::Server, crate::client::Client)> {
        self.launch.start().await.context("start again")
    }

    /// What may follow a kill: a power cut, and starts that are killed before they serve.
    async fn end(&mut self, outcome: &mut Outcome) -> anyhow::Result<String> {
        let mut said = self.cut_power(outcome)?;
        for _ in 0..CUT_STARTS_MAX {
            if !self.rng.percent(25) {
                break;
            }
            self.cut_start().await.context("kill a start")?;
            outcome.cut_starts += 1;
            said += &self.cut_power(outcome)?;
        }
        Ok(said)
    }

    /// A start that is killed at some moment, or right before some call.
    async fn cut_start(&mut self) -> anyhow::Result<()> {
        let mut wait = self.rng.within(1..60);
        let mut launch = self.launch.clone();
        if self.plan.end == End::Power && self.plan.mutation.is_none() && self.rng.percent(60) {
            let what = ["sync", "name", "write"][usize::try_from(self.rng.within(0..3))?];
            let rule = format!("{what},any,{},1,kill", self.rng.within(1..25));
            launch = launch.env("CRASH_FAULTS", rule);
            wait += 100;
        }
        let server = launch.spawn()?;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        server.kill_or_killed().await
    }

    fn cut_power(&mut self, outcome: &mut Outcome) -> anyhow::Result<String> {
        if self.plan.end == End::Kill {
            return Ok(String::new());
        }
        let undo = match Undo::read(&self.shim.undo) {
            // A start can be killed before it has loaded anything.
            Err(_) if !self.shim.undo.try_exists()? && outcome.cut_starts > 0 => {
                return Ok(String::new());
            }
            other => other?,
        };
        // At times only the process ends, and the power goes in a later round: what an earlier
        // process has left unsynced can still be lost then.
        if self.rng.percent(20) {
            return Ok(" killed only".to_owned());
        }
        let (root, graves) = (&self.shim.root, &self.shim.graves);
        let cut = cut(root, graves, &undo, &mut self.rng).context("cut the power")?;
        self.shim.forget()?;
        outcome.cuts += 1;
        Ok(format!("; {cut}"))
    }

    fn last_words(&self) -> String {
        fs::read_to_string(&self.launch.log_path).unwrap_or_default()
    }

    /// Copies the directory to where the plan wants it.
    fn keep(self) -> anyhow::Result<()> {
        let Some(keep) = &self.plan.keep else {
            return Ok(());
        };
        fs::create_dir_all(keep)?;
        let kept = self.base.keep();
        let place = keep.join(kept.file_name().unwrap_or_default());
        if fs::rename(&kept, &place).is_err() {
            self.plan.say(&format!("kept as {}", kept.display()));
        } else {
            self.plan.say(&format!("kept as {}", place.display()));
        }
        Ok(())
    }

    fn say(&self, text: &str) {
        self.plan.say(text);
    }
}

impl Plan {
    #[expect(clippy::print_stderr, reason = "asked for by the one who runs it")]
    #[expect(clippy::unused_self, reason = "it is the plan that speaks")]
    fn say(&self, text: &str) {
        eprintln!("{text}");
    }
}

/// Where failed directories go unless said otherwise.
#[must_use]
pub fn keep_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/crash-kept")
}
