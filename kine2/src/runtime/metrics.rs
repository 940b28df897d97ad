//! What is measured: by the disk threads, and by the node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kine2_etcd_api::MetricsText;
use kine2_node::Node;

use super::pair::Pair;
use super::shared::Waiter;

/// Upper bounds of a histogram's buckets in seconds: doubling from a millisecond, as etcd's do,
/// with three below for disks of today.
const BOUNDS: [f64; 17] = [
    0.000_125, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256,
    0.512, 1.024, 2.048, 4.096, 8.192,
];

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicU64);

impl Gauge {
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by bucket.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn write(&self, out: &mut MetricsText, name: &str, help: &str) {
        let counts = self
            .counts
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed));
        let sum = Duration::from_micros(self.sum_micros.load(Ordering::Relaxed));
        out.histogram(name, help, &BOUNDS, &counts, sum.as_secs_f64());
    }
}

/// What the disk threads measure.
#[derive(Debug, Default)]
pub(super) struct RuntimeMetrics {
    /// Writing and flushing a log batch.
    pub(super) log_sync: Histogram,
    /// Applying a batch to the state engine.
    pub(super) state_apply: Histogram,
    /// Checkpoints of the state engine.
    pub(super) checkpoint: Histogram,
    /// Bytes of the log's segments.
    pub(super) log_bytes: Gauge,
}

impl RuntimeMetrics {
    /// Writes them under etcd's names where etcd has one.
    pub(super) fn write(&self, out: &mut MetricsText) {
        let log_sync = "Writing and flushing a batch of the log.";
        self.log_sync
            .write(out, "etcd_disk_wal_fsync_duration_seconds", log_sync);
        let apply = "Applying a batch to the state engine.";
        self.state_apply
            .write(out, "etcd_disk_backend_commit_duration_seconds", apply);
        let checkpoint = "Making the state durable.";
        self.checkpoint
            .write(out, "kine2_checkpoint_duration_seconds", checkpoint);
        out.gauge(
            "kine2_log_size_bytes",
            "Segments of the log.",
            to_i64(self.log_bytes.get()),
        );
    }
}

/// Writes what the node counts.
pub(super) fn write_node(out: &mut MetricsText, node: &Node<Waiter>) {
    let (stats, store, watch) = (node.stats(), node.store_stats(), node.watches().stats());
    let compacted = node.store().compacted().0.max(0);
    let size = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    for (name, help, value) in [
        (
            "etcd_server_proposals_pending",
            "Commands that wait for the log or are being written.",
            size(stats.queued + stats.logging),
        ),
        (
            "etcd_server_proposals_applied_total",
            "Index of the last entry applied.",
            to_i64(node.store().applied().index),
        ),
        (
            "etcd_server_proposals_committed_total",
            "Index of the last entry that is durable.",
            to_i64(node.store().applied().index),
        ),
        ("etcd_debugging_mvcc_keys_total", "Keys.", size(store.keys)),
        (
            "etcd_debugging_mvcc_compact_revision",
            "Compacted revision.",
            compacted,
        ),
        (
            "etcd_debugging_mvcc_watcher_total",
            "Watchers.",
            size(watch.watchers),
        ),
        (
            "etcd_debugging_mvcc_watch_stream_total",
            "Watch streams.",
            size(watch.streams),
        ),
        (
            "etcd_debugging_mvcc_slow_watcher_total",
            "Watchers that read history.",
            size(watch.lagging),
        ),
        (
            "etcd_debugging_mvcc_pending_events_total",
            "Responses that wait to be sent.",
            size(watch.queued),
        ),
        (
            "etcd_debugging_server_lease_total",
            "Leases.",
            size(store.leases),
        ),
        (
            "kine2_indexed_keys",
            "Keys in the index, deleted ones with history among them.",
            size(store.indexed_keys),
        ),
        (
            "kine2_record_cache_bytes",
            "Records kept in memory for reading.",
            size(store.cache_bytes),
        ),
        (
            "kine2_recent_changes",
            "Recent changes kept in memory.",
            size(store.ring_events),
        ),
        (
            "kine2_recent_changes_bytes",
            "Their bytes.",
            size(store.ring_bytes),
        ),
        (
            "kine2_unsaved_bytes",
            "Records that the state engine does not have yet.",
            size(store.unsaved_bytes),
        ),
    ] {
        out.gauge(name, help, value);
    }
    for (name, help, value) in [
        (
            "etcd_debugging_mvcc_events_total",
            "Events handed to watchers.",
            watch.events_total,
        ),
        (
            "etcd_debugging_server_lease_expired_total",
            "Leases that expired.",
            stats.leases_expired_total,
        ),
        (
            "etcd_mvcc_range_total",
            "Reads of keys and ranges; a slice of a long one counts by itself.",
            store.done.ranges,
        ),
        (
            "etcd_mvcc_put_total",
            "Puts, those in transactions among them.",
            store.done.puts,
        ),
        (
            "etcd_mvcc_delete_total",
            "Deletes of keys and ranges, those in transactions among them.",
            store.done.deletes,
        ),
        (
            "etcd_mvcc_txn_total",
            "Transactions of more than one operation.",
            store.done.txns,
        ),
        (
            // A member of one is its leader from the start.
            "etcd_server_leader_changes_seen_total",
            "Leaders seen.",
            1,
        ),
        (
            "etcd_server_proposals_failed_total",
            "Commands refused before the log.",
            stats.refused_total,
        ),
        (
            "kine2_commands_committed_total",
            "Commands committed since the start.",
            stats.committed_total,
        ),
    ] {
        out.counter(name, help, value);
    }
}

fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What the connections to the peer count.
pub(super) fn write_pair(out: &mut MetricsText, pair: &Pair) {
    let stats = pair.stats();
    out.gauge(
        "kine2_peer_links_up",
        "Links to the peer that are up.",
        i64::try_from(stats.links_up).unwrap_or(i64::MAX),
    );
    for (name, help, value) in [
        (
            "etcd_network_peer_sent_bytes_total",
            "Bytes sent to the peer.",
            stats.sent_bytes,
        ),
        (
            "etcd_network_peer_received_bytes_total",
            "Bytes of frames received from the peer.",
            stats.received_bytes,
        ),
        (
            "kine2_peer_lost_frames_total",
            "Frames for the peer that found no room or no link.",
            stats.lost_frames,
        ),
    ] {
        out.counter(name, help, value);
    }
}
