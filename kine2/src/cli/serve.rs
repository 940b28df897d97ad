//! `kine2 serve`.

use std::io::IsTerminal;

use anyhow::ensure;
use clap::ArgMatches;

use crate::config::ServeConfig;
use crate::{log, process, runtime};

pub(super) fn run(given: &ArgMatches) -> anyhow::Result<()> {
    let config = ServeConfig::check(&super::settings(given)?, &super::machine())?;
    ensure!(
        config.single,
        "only a node without a peer can be served so far: say so with --single"
    );
    log::init(&config.log)?;
    process::prepare();
    let told = next_steps(&config);
    runtime::serve(config, || {
        // A log file or the journal has no use for it.
        if std::io::stderr().is_terminal() {
            eprintln!("{told}");
        }
    })
}

/// What to type next.
fn next_steps(config: &ServeConfig) -> String {
    let urls: Vec<String> = config
        .listen_client
        .iter()
        .map(ToString::to_string)
        .collect();
    let endpoint = config.advertise_client.first().map_or("", String::as_str);
    format!(
        "kine2 serves {} from {}\n\
         Try it from another terminal:\n  \
         etcdctl --endpoints={endpoint} put greeting hello\n  \
         etcdctl --endpoints={endpoint} get greeting\n  \
         etcdctl --endpoints={endpoint} watch --prefix ''\n\
         Ctrl-C stops it.",
        urls.join(" and "),
        config.data_dir.display(),
    )
}
