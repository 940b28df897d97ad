//! How fast this disk takes the log: `cargo run --release -p kine2-wal --example append [DIR] [SECONDS]`.
//!
//! For 1, 16 and 64 entries of 1 KiB in a batch: batches and entries per second, the median and the
//! 99th percentile of a batch, and the bytes written for each entry, first into fresh segments and
//! then into recycled ones. Then how long it takes to open that log.
#![expect(clippy::print_stdout, reason = "a report for the person who runs it")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kine2_wal::{FileDisk, LogIndex, Prepared, Term, Wal, WalOptions};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args_os().skip(1);
    let parent = arguments
        .next()
        .map_or_else(|| PathBuf::from("."), PathBuf::from);
    let seconds = match arguments.next() {
        Some(seconds) => seconds.to_string_lossy().parse()?,
        None => 2.0,
    };
    let directory = parent.join(format!("append-{}", std::process::id()));
    let result = measure(&directory, Duration::from_secs_f64(seconds));
    std::fs::remove_dir_all(&directory)?;
    result
}

fn measure(directory: &std::path::Path, time: Duration) -> Result<(), Error> {
    let open = || -> Result<_, Error> {
        Ok(Wal::open(
            FileDisk::open(directory)?,
            WalOptions::with_seed(1),
        )?)
    };
    let (mut wal, _) = open()?;
    println!("entries  segments   batches/s  entries/s  MB/s   p50 µs  p99 µs  written/entry");
    for recycled in [false, true] {
        for entries in [1, 16, 64] {
            let line = batches(&mut wal, entries, time, recycled)?;
            println!(
                "{entries:7}  {}  {line}",
                if recycled { "recycled" } else { "fresh   " }
            );
        }
        // From here on there are files to be used again.
        wal.cut_below(wal.last_index())?;
    }
    let (size, last) = (wal.size_bytes() >> 20, wal.last_index());
    drop(wal);
    let start = Instant::now();
    let (wal, recovery) = open()?;
    println!("open, {size} MiB: {:?}", start.elapsed());
    assert_eq!(recovery.last.index, last);
    let (start, mut next) = (Instant::now(), wal.first_index());
    while next <= last {
        let entries = wal.entries(next..LogIndex(u64::MAX), 1 << 20)?;
        next = entries
            .last()
            .ok_or("the log has a gap")?
            .position
            .index
            .next();
    }
    println!("read all of it: {:?}", start.elapsed());
    Ok(())
}

/// Batches of so many entries for a while.
fn batches(
    wal: &mut Wal<FileDisk>,
    entries: u32,
    time: Duration,
    recycled: bool,
) -> Result<String, Error> {
    let payload = [0x5a; 1024];
    let before = wal.stats();
    let mut latencies = Vec::new();
    let mut busy = Duration::ZERO;
    while busy < time {
        let start = Instant::now();
        for _ in 0..entries {
            wal.append(Term::new(1, 0), &payload)?;
        }
        wal.sync()?;
        let latency = start.elapsed();
        busy += latency;
        latencies.push(latency);
        // As the log thread does when it is idle.
        if latencies.len().is_multiple_of(64) {
            if recycled {
                wal.cut_below(wal.last_index())?;
            }
            while wal.prepare_next()? == Prepared::More {}
        }
    }
    let stats = wal.stats();
    latencies.sort_unstable();
    let seconds = busy.as_secs_f64();
    let appended = stats.entries - before.entries;
    let per_second = |count: usize| count as f64 / seconds;
    let count = usize::try_from(appended)?;
    Ok(format!(
        "{:9.0}  {:9.0}  {:5.1}  {:6}  {:6}  {:7}",
        per_second(latencies.len()),
        per_second(count),
        per_second(count * payload.len()) / 1e6,
        latencies[latencies.len() / 2].as_micros(),
        latencies[latencies.len() * 99 / 100].as_micros(),
        (stats.written_bytes - before.written_bytes) / appended,
    ))
}
