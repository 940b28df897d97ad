//! `kine2 config`: the settings in force.

use clap::ArgMatches;

use crate::config::{KEYS, ServeConfig};

pub(super) fn run(given: &ArgMatches) -> anyhow::Result<()> {
    let settings = super::settings(given)?;
    for key in KEYS {
        let setting = &settings[key.name];
        let values = if setting.values.is_empty() {
            "(depends on the machine)".to_owned()
        } else {
            setting.values.join(",")
        };
        println!("{}: {values}  # {}", key.name, setting.source);
    }
    ServeConfig::check(&settings, &super::machine())?;
    Ok(())
}
