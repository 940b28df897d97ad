//! `kine2 init` and `kine2 join`: becoming a member of a cluster.

use clap::ArgMatches;

use crate::config::ServeConfig;
use crate::runtime::membership;

pub(super) fn init(given: &ArgMatches) -> anyhow::Result<()> {
    let config = ServeConfig::check(&super::settings(given)?, &super::machine())?;
    let me = membership::init(&config)?;
    println!(
        "{} is the first node of a new cluster, in {}\n\
         Next: kine2 serve, then kine2 join-token for the second node and kine2 witness add CODE for \
         a witness.",
        me.name,
        config.data_dir.display()
    );
    Ok(())
}

pub(super) fn join(given: &ArgMatches) -> anyhow::Result<()> {
    let config = ServeConfig::check(&super::settings(given)?, &super::machine())?;
    let code = given.get_one::<String>("code").map_or("", String::as_str);
    let me = membership::join(&config, code)?;
    println!(
        "{} is let in, in {}\n\
         Next: kine2 serve. It takes over all that the cluster has by itself; kine2 status shows how \
         far it is.",
        me.name,
        config.data_dir.display()
    );
    Ok(())
}
