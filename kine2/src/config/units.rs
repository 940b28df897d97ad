//! Quantities as people write them.

use std::time::Duration;

use anyhow::{Context, bail};

/// `1536KiB`, `2GiB`, `8GB`, or plain bytes.
pub(super) fn parse_bytes(text: &str) -> anyhow::Result<u64> {
    let (number, unit) = split_unit(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => bail!("{other:?} is not a unit of bytes: use KiB, MiB or GiB"),
    };
    let number: u64 = number
        .parse()
        .with_context(|| format!("{text:?} is not a number"))?;
    number
        .checked_mul(factor)
        .with_context(|| format!("{text} is too large"))
}

/// `100ms`, `5s`, `10m`, `1h`.
pub(super) fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    let (number, unit) = split_unit(text);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        other => bail!("{other:?} is not a unit of time: use ms, s, m or h"),
    };
    let number: u64 = number
        .parse()
        .with_context(|| format!("{text:?} is not a number"))?;
    let total = number
        .checked_mul(millis)
        .with_context(|| format!("{text} is too long"))?;
    Ok(Duration::from_millis(total))
}

fn split_unit(text: &str) -> (&str, &str) {
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number, unit.trim())
}
