//! The command line.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what talks to the terminal"
)]

use std::io::{IsTerminal, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use kine2_trust::{ADDRESSES_MAX, Code, CodeKind, Fingerprint, OpenCodes, reachable};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::limits::CODE_LIFE;
use crate::listener::status_socket;
use crate::serve::{CODES, serve};
use crate::status::Status;
use crate::store;

/// Exit status of a command that did not do what it was asked.
const FAILED: u8 = 1;

/// Lets exactly one of two kine2 nodes go on when they lose each other. Holds no user data.
#[derive(Debug, Parser)]
#[command(name = "kine2-witness", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: 0 done, 1 not done (the reason is on standard error), 2 not understood."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve as a witness.
    Serve(Serve),
    /// Print a one-time code that enrols a cluster: give it to `kine2 witness add`.
    Token(Token),
    /// Show clusters, units and sessions.
    Status(StatusArgs),
}

#[derive(Debug, Args)]
struct Dir {
    /// Where the witness keeps its state.
    #[arg(
        long,
        value_name = "DIR",
        env = "KINE2_WITNESS_DATA_DIR",
        default_value = "/var/lib/kine2-witness"
    )]
    data_dir: PathBuf,
}

#[derive(Debug, Args)]
struct Listen {
    /// Where nodes connect.
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "KINE2_WITNESS_LISTEN",
        default_value = "0.0.0.0:2390"
    )]
    listen: SocketAddr,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    listen: Listen,
    /// What is logged: a level, or levels by module.
    #[arg(
        long,
        value_name = "FILTER",
        env = "KINE2_WITNESS_LOG",
        default_value = "info"
    )]
    log: String,
}

#[derive(Debug, Args)]
struct Token {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    listen: Listen,
    /// Where nodes reach the witness; by default the address this machine sends from, with the port
    /// of --listen.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "KINE2_WITNESS_ADDRESS",
        value_delimiter = ','
    )]
    address: Vec<String>,
    /// How many minutes the code is good.
    #[arg(long, value_name = "N", default_value_t = CODE_LIFE.as_secs() / 60, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    dir: Dir,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs what the arguments ask for and says how it ended.
pub(crate) fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(given) => run_serve(&given),
        Command::Token(given) => print_token(&given),
        Command::Status(given) => print_status(&given),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kine2-witness: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run_serve(given: &Serve) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&given.log).context("--log")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    abort_on_panic();
    allow_connections();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(&given.dir.data_dir, given.listen.listen))
}

/// A broken invariant is not served from, in whichever task it shows.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// As many open files as the machine lets us have: each session is one.
fn allow_connections() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(%error, "the number of open files stays as it is");
    }
}

fn print_token(given: &Token) -> anyhow::Result<()> {
    let dir = &given.dir.data_dir;
    let identity = store::identity(dir)?;
    let addresses = match given.address.is_empty() {
        false => given.address.clone(),
        true => vec![
            reachable(given.listen.listen)
                .context("this machine's address is not known: say it with --address")?
                .to_string(),
        ],
    };
    check_addresses(&addresses)?;
    let now = SystemTime::now();
    let life = Duration::from_secs(60 * given.minutes);
    let fingerprint = Fingerprint::of(&identity.certificate);
    let code = Code::new(CodeKind::Enrol, addresses, fingerprint, life, now)?;
    OpenCodes::at(dir.join(CODES)).add(&code, now)?;
    println!("{code}");
    if std::io::stdout().is_terminal() {
        let (where_to, minutes) = (code.addresses.join(", "), given.minutes);
        eprintln!("It leads to {where_to} and lets one cluster in within {minutes} minutes.");
        eprintln!("On a node of the cluster: kine2 witness add CODE");
    }
    Ok(())
}

fn check_addresses(addresses: &[String]) -> anyhow::Result<()> {
    let count = addresses.len();
    ensure!(
        count <= ADDRESSES_MAX,
        "--address: {count} are given; up to {ADDRESSES_MAX} are accepted"
    );
    for address in addresses {
        let port = address
            .rsplit_once(':')
            .map(|(host, port)| (host.is_empty(), port.parse()));
        let whole = matches!(port, Some((false, Ok(1..=u16::MAX)))) && address.len() <= 255;
        ensure!(whole, "--address {address:?}: HOST:PORT is accepted");
    }
    Ok(())
}

fn print_status(given: &StatusArgs) -> anyhow::Result<()> {
    let text = ask_status(&given.dir.data_dir)?;
    match given.output {
        Output::Json => print!("{text}"),
        Output::Text => {
            let status: Status = serde_json::from_str(&text).context("read the answer")?;
            print!("{}", status.text());
        }
    }
    Ok(())
}

fn ask_status(dir: &Path) -> anyhow::Result<String> {
    let path = status_socket(dir);
    let mut stream = UnixStream::connect(&path)
        .with_context(|| format!("no witness serves from {}", dir.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .context("read the answer")?;
    if text.is_empty() {
        bail!("the witness stopped while it was asked");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses_are_hosts_with_ports() {
        let check = |address: &str| check_addresses(&[address.to_owned()]);
        for good in ["10.0.0.1:2390", "[fd00::1]:1", "witness.example:65535"] {
            check(good).unwrap();
        }
        for bad in ["", "10.0.0.1", ":2390", "host:0", "host:65536", "host:"] {
            check(bad).unwrap_err();
        }
    }
}
