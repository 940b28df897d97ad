//! The command line: a file a command.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what talks to the terminal"
)]

mod cluster;
mod config;
mod events;
mod operate;
mod quarantine;
mod serve;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{DEFAULT_FILE, KEYS, Machine, Settings, gather};
use crate::runtime::admin::{Order, POLICIES};

/// Exit status of a command that did not do what it was asked.
const FAILED: u8 = 1;

/// Runs what the arguments ask for and says how it ended: 0 done, 1 not done, 2 not understood, 3
/// refused because it would not be safe.
pub(crate) fn run() -> ExitCode {
    let matches = command().get_matches();
    let done = |result: anyhow::Result<()>| result.map(|()| ExitCode::SUCCESS);
    let result = match matches.subcommand() {
        Some(("serve", given)) => done(serve::run(given)),
        Some(("config", given)) => done(config::run(given)),
        Some(("init", given)) => done(cluster::init(given)),
        Some(("join", given)) => done(cluster::join(given)),
        Some(("version", _)) | None => {
            println!("kine2 {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Some(("events", given)) => events::run(given),
        Some(("quarantine", given)) => quarantine::run(given),
        Some((name, given)) => match order(name, given) {
            Some((given, order)) => operate::run(given, order),
            None => unreachable!("clap knows the commands"),
        },
    };
    result.unwrap_or_else(|error| {
        eprintln!("kine2: {error:#}");
        ExitCode::from(FAILED)
    })
}

/// What a command orders a running node to do, and its arguments.
fn order<'a>(name: &str, given: &'a ArgMatches) -> Option<(&'a ArgMatches, Order)> {
    let order = match name {
        "status" => Order::Status,
        "join-token" => Order::JoinToken {
            minutes: given.get_one("minutes").copied().unwrap_or_default(),
        },
        "swap" => Order::Swap {
            partial: given.get_flag("partial"),
        },
        "stop" => Order::Stop {
            force: given.get_flag("force"),
        },
        "start" => Order::Start,
        "promote" => Order::Promote {
            force: given.get_flag("force"),
            without_witness: given.get_flag("without-witness"),
            part: given.get_one::<String>("part").cloned(),
        },
        "rejoin" => Order::Rejoin {
            discard: given.get_flag("discard"),
        },
        "policy" => {
            let (_, given) = given.subcommand()?;
            let text = |name| given.get_one::<String>(name).cloned().unwrap_or_default();
            let (key, value) = (text("key"), text("value"));
            return Some((given, Order::PolicySet { key, value }));
        }
        "witness" => return witness_order(given),
        _ => return None,
    };
    Some((given, order))
}

fn witness_order(given: &ArgMatches) -> Option<(&ArgMatches, Order)> {
    match given.subcommand()? {
        (name @ ("add" | "replace"), given) => Some((
            given,
            Order::WitnessAdd {
                code: given.get_one::<String>("code").cloned().unwrap_or_default(),
                old_lost: name == "replace" && given.get_flag("lost"),
            },
        )),
        ("remove", given) => Some((
            given,
            Order::WitnessRemove {
                prefer_primary: given.get_flag("prefer-primary"),
                ping: given
                    .get_many::<IpAddr>("ping")
                    .map_or_else(Vec::new, |all| all.copied().collect()),
                lost: given.get_flag("lost"),
            },
        )),
        _ => None,
    }
}

fn command() -> Command {
    let serve = with_settings(Command::new("serve").about("Serve the etcd v3 API from this node"));
    let config = with_settings(
        Command::new("config").about("Show the settings in force and where each came from"),
    );
    let init = with_settings(
        Command::new("init").about("Make this node the first of a cluster; its data stays"),
    );
    let code = || Arg::new("code").value_name("CODE").required(true);
    let join = with_settings(
        Command::new("join")
            .about("Join the cluster whose `kine2 join-token` printed this code")
            .arg(code()),
    );
    Command::new("kine2")
        .about("An etcd v3 store for one server, or mirrored on a pair of servers")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(
            "Exit status: 0 done, 1 not done (the reason is on standard error), 2 not understood, \
             3 refused because it would not be safe.",
        )
        .subcommands([serve, config, init, join])
        .subcommands(for_a_running_node())
        .subcommand(Command::new("version").about("Show the version"))
}

fn for_a_running_node() -> Vec<Command> {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    let lost = || switch("lost", "The witness in force cannot be asked any more");
    let code = || {
        let code = Arg::new("code").value_name("CODE").required(true);
        code.help("What `kine2-witness token` printed")
    };
    let minutes = Arg::new("minutes")
        .long("minutes")
        .value_name("MINUTES")
        .default_value("60")
        .value_parser(clap::value_parser!(u64).range(1..=60 * 24 * 7))
        .help("How long the code is good");
    let ping = Arg::new("ping")
        .long("ping")
        .value_name("ADDRESS")
        .num_args(1..)
        .value_parser(clap::value_parser!(IpAddr))
        .help(
            "Either node goes on if one of these addresses answers it, such as the gateway's; \
             unsafe if the nodes can lose each other and both reach it",
        );
    let witness = Command::new("witness")
        .about("Change who decides when the nodes lose each other")
        .subcommand_required(true)
        .subcommands([
            operating("add", "Have a witness decide").arg(code()),
            operating("replace", "Have another witness decide")
                .arg(code())
                .arg(lost()),
            operating("remove", "Have no witness any more").args([
                switch("prefer-primary", "The primary goes on without its peer")
                    .conflicts_with("ping"),
                ping,
                lost(),
            ]),
        ]);
    vec![
        operating(
            "status",
            "Show both nodes, and whether one can fail over now",
        ),
        events::command(),
        operating(
            "join-token",
            "Print a one-time code for a node that is to join",
        )
        .arg(minutes),
        operating("swap", "Hand the primary's role over to the other node")
            .arg(switch("partial", "Also if parts are not served then")),
        operating(
            "stop",
            "Stop this node's part in the cluster, also over restarts",
        )
        .arg(switch("force", "Also if nobody can go on")),
        operating("start", "Take a stopped node in again"),
        operating("promote", "Make this node the primary").args([
            switch(
                "force",
                "Although the other node may have acknowledged more, which is lost then; that node \
                 must be off",
            ),
            switch(
                "without-witness",
                "Do not ask the witness; there is none then",
            )
            .requires("force"),
            Arg::new("part")
                .long("part")
                .value_name("NAME")
                .requires("force")
                .help("Only in this part, which only the other node has all of"),
        ]),
        operating(
            "rejoin",
            "Give up what this node has that a forced promotion overruled; it is put away first",
        )
        .arg(switch("discard", "And delete what was put away")),
        quarantine::command(),
        Command::new("policy")
            .about("Change what both nodes keep to")
            .subcommand_required(true)
            .subcommand(
                operating("set", "Set a policy, online, on both nodes").args([
                    Arg::new("key")
                        .value_name("KEY")
                        .required(true)
                        .help(POLICIES),
                    Arg::new("value").value_name("VALUE").required(true),
                ]),
            ),
        witness,
    ]
}

/// A command for a node that runs.
fn operating(name: &'static str, about: &'static str) -> Command {
    let node = Arg::new("node")
        .long("node")
        .value_name("NAME|all")
        .help("Which node is to do it [default: this one]");
    let output = Arg::new("output")
        .short('o')
        .long("output")
        .value_parser(["text", "json"])
        .default_value("text")
        .help("Form of the answer");
    with_settings(Command::new(name).about(about).args([node, output]))
}

/// A flag for every key of the table.
fn with_settings(command: Command) -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(format!(
            "File to read, with FILE.d/*.yaml after it [default: {DEFAULT_FILE}]"
        ));
    let flags = KEYS.iter().map(|key| {
        let shown = if key.default.is_empty() {
            key.help.to_owned()
        } else {
            format!("{} [default: {}]", key.help, key.default)
        };
        let flag = Arg::new(key.name)
            .long(key.name)
            .help(shown)
            .value_name("VALUE");
        match key.accepts {
            "true or false" => flag
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            _ if key.is_list => flag.action(ArgAction::Append),
            _ => flag,
        }
    });
    command.arg(file).args(flags).after_help(
        "Every setting is also a key of the file and an environment variable: \
         --data-dir, data-dir, KINE2_DATA_DIR.",
    )
}

/// The settings of all sources.
fn settings(given: &ArgMatches) -> anyhow::Result<Settings> {
    let flags = KEYS.iter().filter_map(|key| {
        let values = given.get_many::<String>(key.name)?;
        Some((key.name, values.cloned().collect()))
    });
    let file = given.get_one::<PathBuf>("config").map(PathBuf::as_path);
    gather(file, |name| std::env::var_os(name), flags.collect())
}

fn machine() -> Machine {
    let host_name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    Machine {
        is_root: rustix::process::geteuid().is_root(),
        host_name: if host_name.is_empty() {
            "kine2".to_owned()
        } else {
            host_name
        },
        memory_bytes: rustix::system::sysinfo().totalram,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_a_flag_and_switches_need_no_value() {
        command().debug_assert();
        let matches = command().get_matches_from([
            "kine2",
            "serve",
            "--single",
            "--listen-client",
            "http://a:1",
            "--listen-client=http://b:2,http://c:3",
        ]);
        let given = matches.subcommand_matches("serve").unwrap();
        let settings = settings(given).unwrap();
        assert_eq!(settings["single"].values, ["true"]);
        assert_eq!(
            settings["listen-client"].values,
            ["http://a:1", "http://b:2", "http://c:3"]
        );
    }
}
