//! `kine2 events`: why roles changed, and what else an operator should know.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Serialize;

use super::operate;
use crate::config::ServeConfig;
use crate::runtime::admin::{self, Answer, Events, For, Order, Request};
use crate::runtime::journal::{Ask, Entry, read};

/// How often it is looked for more.
const LOOK: Duration = Duration::from_millis(500);
/// How many events are shown unless it is said.
const LAST: &str = "30";

pub(super) fn command() -> Command {
    let last = Arg::new("last")
        .short('n')
        .long("last")
        .value_name("N")
        .default_value(LAST)
        .value_parser(clap::value_parser!(u32).range(1..))
        .help("How many, the last ones");
    let follow = Arg::new("follow")
        .short('f')
        .long("follow")
        .action(ArgAction::SetTrue)
        .help("Go on and show what comes");
    super::operating(
        "events",
        "Show why roles changed, and what else happened; with -o json a line of JSON each",
    )
    .args([last, follow])
}

pub(super) fn run(given: &ArgMatches) -> anyhow::Result<ExitCode> {
    let config = ServeConfig::check(&super::settings(given)?, &super::machine())?;
    let node = operate::node(given).unwrap_or(For::This);
    let is_json = given.get_one::<String>("output").map(String::as_str) == Some("json");
    let last = given.get_one::<u32>("last").copied().unwrap_or(1) as usize;
    let mut shown = BTreeMap::new();
    let mut worst = show(&config, &node, last, is_json, &mut shown)?;
    if given.get_flag("follow") {
        loop {
            wait();
            worst = show(&config, &node, usize::MAX, is_json, &mut shown)?.max(worst);
        }
    }
    Ok(ExitCode::from(worst))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command has no clock to be given"
)]
fn wait() {
    std::thread::sleep(LOOK);
}

/// Shows what came since `shown`, by node the number of its last event.
fn show(
    config: &ServeConfig,
    node: &For,
    last: usize,
    is_json: bool,
    shown: &mut BTreeMap<String, u64>,
) -> anyhow::Result<u8> {
    let after = match shown.len() {
        // They count apart.
        1 => shown.values().copied().next().unwrap_or_default(),
        _ => 0,
    };
    let mut told = Vec::new();
    let mut worst = 0;
    for answer in ask(config, node, after, last)? {
        match answer {
            Answer::Events(Events { node, events }) => {
                let seen = shown.entry(node.clone()).or_default();
                let new = events.into_iter().filter(|event| event.number > *seen);
                let new: Vec<Entry> = new.collect();
                *seen = new.last().map_or(*seen, |event| event.number);
                told.extend(new.into_iter().map(|event| Told {
                    node: node.clone(),
                    event,
                }));
            }
            other => {
                operate::print(&other);
                worst = worst.max(operate::code(&other));
            }
        }
    }
    told.sort_by(|one, two| one.event.at.cmp(&two.event.at));
    let mut out = std::io::stdout().lock();
    for told in told {
        match is_json {
            true => writeln!(out, "{}", serde_json::to_string(&told)?)?,
            false => told.print(&mut out)?,
        }
    }
    out.flush()?;
    Ok(worst)
}

/// Asks the node; one that does not run has its journal all the same.
fn ask(config: &ServeConfig, node: &For, after: u64, last: usize) -> anyhow::Result<Vec<Answer>> {
    let order = Order::Events { after, last };
    let node = node.clone();
    let is_this = node == For::This;
    match admin::ask(&config.data_dir, &Request { node, order }) {
        Err(error) if is_this => match of_directory(&config.data_dir, Ask { after, last })? {
            events if events.is_empty() && after == 0 => Err(error),
            events => Ok(vec![Answer::Events(Events {
                node: config.name.clone(),
                events,
            })]),
        },
        answers => answers,
    }
}

fn of_directory(data_dir: &Path, ask: Ask) -> anyhow::Result<Vec<Entry>> {
    Ok(read(data_dir, ask)?)
}

/// An event and whose it is.
#[derive(Debug, Serialize)]
struct Told {
    node: String,
    #[serde(flatten)]
    event: Entry,
}

impl Told {
    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Self { node, event } = self;
        write!(out, "{} {node} {}: {}", event.at, event.kind, event.text)?;
        if let Some(measured) = &event.measured {
            write!(out, " [{}, epoch {}", measured.state, measured.epoch)?;
            if let Some(silent) = measured.peer_silent_ms {
                write!(out, ", other node heard {silent} ms ago")?;
            }
            match measured.witness_heard {
                Some(true) => write!(out, ", witness heard")?,
                Some(false) => write!(out, ", witness not heard")?,
                None => {}
            }
            write!(out, "]")?;
        }
        writeln!(out)
    }
}
