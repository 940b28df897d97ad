//! The command line: a file a command.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what talks to the terminal"
)]

mod config;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{DEFAULT_FILE, KEYS, Machine, Settings, gather};

/// Exit status of a command that did not do what it was asked.
const FAILED: u8 = 1;

/// Runs what the arguments ask for and says how it ended: 0 done, 1 not done, 2 not understood.
pub(crate) fn run() -> ExitCode {
    let matches = command().get_matches();
    let result = match matches.subcommand() {
        Some(("serve", given)) => serve::run(given),
        Some(("config", given)) => config::run(given),
        _ => {
            println!("kine2 {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kine2: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn command() -> Command {
    let serve = with_settings(Command::new("serve").about("Serve the etcd v3 API from this node"));
    let config = with_settings(
        Command::new("config").about("Show the settings in force and where each came from"),
    );
    Command::new("kine2")
        .about("An etcd v3 store for one server today, and for a pair of servers tomorrow")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(
            "Exit status: 0 done, 1 not done (the reason is on standard error), 2 not understood.",
        )
        .subcommands([
            serve,
            config,
            Command::new("version").about("Show the version"),
        ])
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
