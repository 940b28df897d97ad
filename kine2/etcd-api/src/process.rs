//! What the kernel tells of this process, under the names every Prometheus client gives it.

use std::fs;

use crate::exposition::MetricsText;

/// Writes what can be read; a missing `/proc` leaves the metrics out.
pub(crate) fn write_process_metrics(out: &mut MetricsText) {
    let Some(process) = ProcessStat::read() else {
        return;
    };
    out.seconds_counter(
        "process_cpu_seconds_total",
        "CPU time used.",
        process.cpu_seconds,
    );
    out.gauge(
        "process_resident_memory_bytes",
        "Resident memory.",
        process.resident_bytes,
    );
    out.gauge(
        "process_virtual_memory_bytes",
        "Virtual memory.",
        process.virtual_bytes,
    );
    out.family(
        "process_start_time_seconds",
        "Start, since the epoch.",
        "gauge",
    );
    out.sample(
        "process_start_time_seconds",
        &[],
        process.start_time_seconds,
    );
    if let Ok(fds) = fs::read_dir("/proc/self/fd") {
        let open = i64::try_from(fds.count()).unwrap_or(i64::MAX);
        out.gauge("process_open_fds", "Open file descriptors.", open);
    }
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let max = limits
        .current
        .map_or(-1, |max| i64::try_from(max).unwrap_or(i64::MAX));
    out.gauge(
        "process_max_fds",
        "File descriptors allowed; -1 for any number.",
        max,
    );
}

struct ProcessStat {
    cpu_seconds: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    start_time_seconds: f64,
}

impl ProcessStat {
    #[expect(
        clippy::cast_precision_loss,
        reason = "samples are floating-point numbers"
    )]
    fn read() -> Option<Self> {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page_bytes = i64::try_from(rustix::param::page_size()).ok()?;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may hold anything; numbers follow the last one.
        let (_, numbers) = stat.rsplit_once(')')?;
        let numbers: Vec<&str> = numbers.split_ascii_whitespace().collect();
        // proc(5) counts from 1 and has pid and name before these.
        let field = |number: usize| numbers.get(number - 3)?.parse::<i64>().ok();
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
            start_time_seconds: boot.trim().parse::<f64>().ok()? + field(22)? as f64 / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_running_and_has_memory() {
        let process = ProcessStat::read().unwrap();
        assert!(process.resident_bytes > 0 && process.resident_bytes < process.virtual_bytes);
        assert!(process.start_time_seconds > 1e9);
        let mut out = MetricsText::default();
        write_process_metrics(&mut out);
        assert!(out.into_string().contains("\nprocess_open_fds "));
    }
}
