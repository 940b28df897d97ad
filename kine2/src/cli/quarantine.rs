//! `kine2 quarantine`: what was put away after a forced promotion.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use super::operate;
use crate::config::ServeConfig;
use crate::runtime::admin::{Order, Shelf};
use crate::runtime::quarantine::{Difference, export};

pub(super) fn command() -> Command {
    let id = || {
        let id = Arg::new("id").value_name("ID").required(true);
        id.help("As `kine2 quarantine list` names it")
    };
    let file = Arg::new("file")
        .value_name("FILE")
        .required(true)
        .value_parser(clap::value_parser!(PathBuf))
        .help("A file that is not there yet");
    Command::new("quarantine")
        .about("What this node had that a forced promotion overruled")
        .subcommand_required(true)
        .subcommands([
            super::operating("list", "Show what was put away"),
            super::operating("diff", "Show the keys in which it differs from the store").arg(id()),
            super::with_settings(
                Command::new("export")
                    .about(
                        "Write it to a file, a line of JSON for each write; also without the node",
                    )
                    .args([id(), file]),
            ),
            super::operating("discard", "Delete it for good").arg(id()),
        ])
}

pub(super) fn run(given: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some((name, given)) = given.subcommand() else {
        unreachable!("clap wants one")
    };
    let id = || given.get_one::<String>("id").cloned().unwrap_or_default();
    let order = match name {
        "list" => Order::Quarantined,
        "diff" => Order::QuarantineDiff { id: id() },
        "discard" => Order::QuarantineDiscard { id: id() },
        _ => {
            let config = ServeConfig::check(&super::settings(given)?, &super::machine())?;
            let file = given
                .get_one::<PathBuf>("file")
                .cloned()
                .unwrap_or_default();
            let count = export(&config.data_dir, &id(), &file)?;
            println!("{count} entries are in {}", file.display());
            return Ok(ExitCode::SUCCESS);
        }
    };
    operate::run(given, order)
}

pub(super) fn print(shelf: &Shelf) {
    if shelf.kept.is_empty() {
        println!("{}: nothing is in quarantine", shelf.node);
    }
    for kept in &shelf.kept {
        print!(
            "{}: {}, {}, {} bytes: ",
            shelf.node, kept.id, kept.at, kept.bytes
        );
        match &kept.header {
            Ok(header) => println!(
                "entries {} to {} of part {}, overruled by epoch {}{}",
                header.first,
                header.last,
                header.part,
                header.overruled_by,
                if kept.has_state {
                    ", with the state"
                } else {
                    ""
                }
            ),
            Err(why) => println!("{why}"),
        }
    }
}

pub(super) fn print_difference(found: &Difference) {
    println!(
        "{}: {} entries write {} keys; {} are in the store just so, {} are not",
        found.id,
        found.entries,
        found.keys,
        found.same,
        found.differing.len() + found.more
    );
    for one in &found.differing {
        let show = |value: &Option<serde_json::Value>| match value {
            Some(value) => value.to_string(),
            None => "no such key".to_owned(),
        };
        let perhaps = if one.is_conditional {
            " (in a transaction)"
        } else {
            ""
        };
        println!("  {}", one.key);
        println!("    put away{perhaps}: {}", show(&one.put_away));
        println!("    now: {}", show(&one.now));
    }
    if found.more > 0 {
        println!(
            "  and {} more: `kine2 quarantine export` has all",
            found.more
        );
    }
    for remark in &found.remarks {
        println!("  {remark}");
    }
}
