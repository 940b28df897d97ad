//! `kine2 serve`.

use clap::ArgMatches;

use crate::config::ServeConfig;
use crate::{log, process, runtime};

pub(super) fn run(given: &ArgMatches) -> anyhow::Result<()> {
    let config = ServeConfig::check(&super::settings(given)?, &super::machine())?;
    log::init(&config.log)?;
    process::prepare();
    let told = next_steps(&config);
    let is_for_people = !config.log.json && std::env::var_os("NOTIFY_SOCKET").is_none();
    runtime::serve(config, || {
        // A log in JSON, or a service manager's journal, has no use for it.
        if is_for_people {
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
