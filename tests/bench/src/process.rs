//! What the kernel counts of a process, and where it may run.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Ticks of `/proc/PID/stat` in a second: fixed by the kernel's interface to programs.
const TICKS_PER_SECOND: u64 = 100;

/// Processes that use less than [`QUIET_CPU`] each in this time have done what was asked of them.
const QUIET_STEP: Duration = Duration::from_millis(200);
/// One tick is what idling costs.
const QUIET_CPU: Duration = Duration::from_millis(20);
/// Waited at most for that.
const QUIET_MAX: Duration = Duration::from_secs(5);

/// What processes have used since they began, all their threads together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// In user and in system mode, in steps of 10 ms.
    pub(crate) cpu: Duration,
    /// Bytes of the pages it made dirty, as the kernel counts them.
    pub(crate) written_bytes: u64,
}

impl Usage {
    pub(crate) fn of(pids: &[u32]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let one = Self::of_one(*pid)?;
            sum.cpu += one.cpu;
            sum.written_bytes += one.written_bytes;
        }
        Ok(sum)
    }

    fn of_one(pid: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} is gone"))?;
        // The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let mut fields = after_name.split_whitespace().skip(11);
        let mut ticks = || {
            fields
                .next()
                .context("/proc/PID/stat is short")?
                .parse::<u64>()
                .context("ticks")
        };
        let cpu = Duration::from_millis((ticks()? + ticks()?) * 1_000 / TICKS_PER_SECOND);
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let written = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(Self {
            cpu,
            written_bytes: written.context("/proc/PID/io is short")?.parse()?,
        })
    }

    /// Waits until the processes have nothing more to do, and what they have used then.
    pub(crate) fn when_quiet(pids: &[u32]) -> anyhow::Result<Self> {
        let idling = QUIET_CPU * u32::try_from(pids.len())?;
        let mut usage = Self::of(pids)?;
        for _ in 0..QUIET_MAX.as_millis() / QUIET_STEP.as_millis() {
            pause(QUIET_STEP);
            let now = Self::of(pids)?;
            let quiet = now.since(&usage).cpu < idling;
            usage = now;
            if quiet {
                break;
            }
        }
        Ok(usage)
    }

    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu: self.cpu - earlier.cpu,
            written_bytes: self.written_bytes - earlier.written_bytes,
        }
    }
}

/// Processor time of this thread, which is the only one that does anything.
pub(crate) fn own_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("it is not negative")
}

/// Resident memory of processes together, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    /// Most since [`reset_peak`].
    pub(crate) peak: u64,
}

impl Memory {
    pub(crate) fn of(pids: &[u32]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let one = Self::of_one(*pid)?;
            sum.now += one.now;
            sum.peak += one.peak;
        }
        Ok(sum)
    }

    fn of_one(pid: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} is gone"))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line
                .with_context(|| format!("no {name}"))?
                .trim()
                .trim_end_matches(" kB");
            anyhow::Ok(number.parse::<u64>()? * 1024)
        };
        Ok(Self {
            now: bytes("VmRSS:")?,
            peak: bytes("VmHWM:")?,
        })
    }
}

/// Starts the peak of resident memory anew.
pub(crate) fn reset_peak(pids: &[u32]) -> anyhow::Result<()> {
    for pid in pids {
        fs::write(format!("/proc/{pid}/clear_refs"), "5")
            .context("reset the peak of resident memory")?;
    }
    Ok(())
}

/// Keeps this thread, and what it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)
        .with_context(|| format!("run on core {core}; the benchmark needs cores 0 and 1"))
}

/// Waits; the thread has nothing else to do.
pub(crate) fn pause(duration: Duration) {
    let end = std::time::Instant::now() + duration;
    while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
        std::thread::park_timeout(left);
    }
}
