//! Commands for a node that runs: `status`, `swap`, `stop`, `start`, `promote`, `join-token`,
//! `witness`.

use std::process::ExitCode;

use clap::ArgMatches;

use super::quarantine;
use crate::config::ServeConfig;
use crate::runtime::admin::{self, Answer, For, NodeStatus, Order, Request};

/// Exit status of a command that was refused because it would not be safe.
const REFUSED: u8 = 3;

/// Has the order carried out where the arguments say, and prints how it ended.
pub(super) fn run(given: &ArgMatches, order: Order) -> anyhow::Result<ExitCode> {
    let config = ServeConfig::check(&super::settings(given)?, &super::machine())?;
    let node = match node(given) {
        // Both nodes at a glance.
        None if order == Order::Status => For::All,
        node => node.unwrap_or(For::This),
    };
    let answers = admin::ask(&config.data_dir, &Request { node, order })?;
    if given.get_one::<String>("output").map(String::as_str) == Some("json") {
        println!("{}", serde_json::to_string_pretty(&answers)?);
    } else {
        answers.iter().for_each(print);
    }
    // The other node may well be off when the status is asked for.
    let decisive = match answers.first() {
        Some(Answer::Status(_)) => answers.iter().take(1),
        _ => answers.iter().take(answers.len()),
    };
    let worst = decisive.map(code).max();
    Ok(ExitCode::from(worst.unwrap_or(super::FAILED)))
}

/// Which node the arguments name.
pub(super) fn node(given: &ArgMatches) -> Option<For> {
    match given.get_one::<String>("node").map(String::as_str)? {
        "all" => Some(For::All),
        name => Some(For::Named(name.to_owned())),
    }
}

/// The exit status that an answer asks for.
pub(super) const fn code(answer: &Answer) -> u8 {
    match answer {
        Answer::Done(_)
        | Answer::Status(_)
        | Answer::Events(_)
        | Answer::Quarantine(_)
        | Answer::Difference(_) => 0,
        Answer::Failed(_) => super::FAILED,
        Answer::Refused(_) => REFUSED,
    }
}

pub(super) fn print(answer: &Answer) {
    match answer {
        Answer::Done(what) => println!("{what}"),
        Answer::Status(status) => print_status(status),
        Answer::Events(told) => told
            .events
            .iter()
            .for_each(|event| println!("{}", event.text)),
        Answer::Quarantine(shelf) => quarantine::print(shelf),
        Answer::Difference(difference) => quarantine::print_difference(difference),
        Answer::Refused(why) => eprintln!("kine2: refused: {why}"),
        Answer::Failed(why) => eprintln!("kine2: {why}"),
    }
}

fn print_status(status: &NodeStatus) {
    println!("{}: {}", status.node, status.state);
    for (name, part) in &status.parts {
        let acknowledged = match part.acknowledged {
            Some(index) => format!(", {index} on the other node"),
            None => String::new(),
        };
        println!(
            "  {name}: {}; entries: {} here{acknowledged}, {} committed",
            part.state, part.durable, part.committed
        );
    }
    println!(
        "  epoch {} ({}), primary {}, revision {}",
        status.epoch, status.reason, status.primary, status.revision
    );
    println!(
        "  links to the other node: {} of {} up",
        status.links_up,
        status.peers.len()
    );
    match (&status.witness, &status.on_peer_loss) {
        (Some(witness), _) => println!("  witness {}: {}", witness.address, witness.state),
        (None, policy) => println!(
            "  witness: none; on the loss of the other node: {}",
            policy.as_deref().unwrap_or("stop")
        ),
    }
    let policies = status.policies.iter();
    let policies: Vec<String> = policies
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    println!("  policies: {}", policies.join(", "));
    if status.quarantine_bytes > 0 {
        let large = match status.quarantine_is_large {
            true => ", more than quarantine-bytes",
            false => "",
        };
        println!(
            "  quarantine: {} bytes{large}: `kine2 quarantine list`",
            status.quarantine_bytes
        );
    }
    let can = if status.can_fail_over { "yes" } else { "no" };
    println!("  can fail over now: {can}: {}", status.because);
}
