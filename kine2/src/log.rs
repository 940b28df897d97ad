//! The log on standard error.

use std::borrow::Cow;
use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::LogConfig;

/// Starts logging.
///
/// # Errors
/// If the filter does not parse.
pub(crate) fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(spelled_out(&config.filter)).with_context(|| {
        format!(
            "log-level takes a level or a filter, not {:?}",
            config.filter
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(wants_colour())
        .with_writer(std::io::stderr);
    if config.json {
        builder.json().init();
    } else {
        builder.with_target(false).init();
    }
    Ok(())
}

/// A level alone speaks of this program: the frames of HTTP/2 are told only to who asks for them.
fn spelled_out(filter: &str) -> Cow<'_, str> {
    match filter.parse::<LevelFilter>() {
        Ok(level) => format!("{},kine2={level}", level.min(LevelFilter::INFO)).into(),
        Err(_a_filter) => filter.into(),
    }
}

/// Colours are for people at a terminal who did not ask for none (<https://no-color.org>).
fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_leaves_the_libraries_at_info() {
        assert_eq!(spelled_out("debug"), "info,kine2=debug");
        assert_eq!(spelled_out("warn"), "warn,kine2=warn");
        assert_eq!(spelled_out("kine2_wal=debug"), "kine2_wal=debug");
        assert_eq!(spelled_out("info,h2=trace"), "info,h2=trace");
    }
}
