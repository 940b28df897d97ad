//! What the kernel counts of a process.

use std::fs;

use anyhow::Context;

/// Ticks of the kernel's accounting in a second.
const TICKS: u64 = 100;

/// User and system time of all threads in microseconds. Taken from the scheduler's nanoseconds,
/// thread by thread, because the ticks are too coarse for short windows.
pub(crate) fn cpu_micros(pid: u32) -> anyhow::Result<u64> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let Ok(text) = fs::read_to_string(path) else { continue };
        nanos += text.split(' ').next().unwrap_or_default().parse::<u64>().unwrap_or_default();
    }
    if nanos > 0 {
        return Ok(nanos / 1_000);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit(')').next().context("a process has a name")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks * (1_000_000 / TICKS))
}

/// Bytes the process caused to be written to disks.
pub(crate) fn written_bytes(pid: u32) -> anyhow::Result<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("no write_bytes")?.trim().parse()?)
}

/// Resident memory now and at most since [`reset_peak`], in KiB.
pub(crate) fn memory_kib(pid: u32) -> anyhow::Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    let now = field("VmRSS:").context("no VmRSS")?;
    Ok((now, field("VmHWM:").unwrap_or(now)))
}

/// Starts the peak anew.
pub(crate) fn reset_peak(pid: u32) {
    // Older kernels and locked-down ones refuse: the peak is then that of the whole run.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}
