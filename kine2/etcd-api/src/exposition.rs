//! Metrics as text for Prometheus, version 0.0.4 of its exposition format.
//!
//! Counters live where they are counted, as atomics; this writes them down when they are asked
//! for, so counting costs nothing else.

use std::fmt::Write;

/// Content type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text under construction.
#[derive(Debug, Default)]
pub struct MetricsText(String);

/// Label names and values of a sample.
type Labels<'a> = &'a [(&'a str, &'a str)];

impl MetricsText {
    /// A number that only rises.
    #[expect(
        clippy::cast_precision_loss,
        reason = "samples are floating-point numbers"
    )]
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, help, "counter");
        self.sample(name, &[], value as f64);
    }

    /// A time in seconds that only rises.
    pub fn seconds_counter(&mut self, name: &str, help: &str, seconds: f64) {
        self.family(name, help, "counter");
        self.sample(name, &[], seconds);
    }

    /// A number that rises and falls.
    #[expect(
        clippy::cast_precision_loss,
        reason = "samples are floating-point numbers"
    )]
    pub fn gauge(&mut self, name: &str, help: &str, value: i64) {
        self.family(name, help, "gauge");
        self.sample(name, &[], value as f64);
    }

    /// Counts by upper bound in seconds, not cumulated; the last count is of what lies above
    /// all bounds.
    ///
    /// # Panics
    /// If there is not one count more than bounds.
    #[expect(
        clippy::cast_precision_loss,
        reason = "samples are floating-point numbers"
    )]
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[f64],
        counts: &[u64],
        sum_seconds: f64,
    ) {
        assert_eq!(
            counts.len(),
            bounds.len() + 1,
            "a count for each bound and one above all"
        );
        self.family(name, help, "histogram");
        let bucket = format!("{name}_bucket");
        let mut total = 0;
        for (bound, count) in bounds.iter().zip(counts) {
            total += count;
            self.sample(&bucket, &[("le", &bound.to_string())], total as f64);
        }
        total += counts.last().expect("one more than bounds");
        self.sample(&bucket, &[("le", "+Inf")], total as f64);
        self.sample(&format!("{name}_sum"), &[], sum_seconds);
        self.sample(&format!("{name}_count"), &[], total as f64);
    }

    /// Begins a metric whose samples follow.
    pub fn family(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample of a metric that was begun.
    pub fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_reads_as_prometheus_wants_it() {
        let mut text = MetricsText::default();
        text.counter("etcd_mvcc_put_total", "Puts.", 3);
        text.histogram("sync_seconds", "Syncs.", &[0.001, 0.5], &[2, 0, 1], 1.25);
        text.family("handled_total", "Calls.", "counter");
        text.sample("handled_total", &[("code", "a\"b"), ("method", "Put")], 7.0);
        assert_eq!(
            text.into_string(),
            "# HELP etcd_mvcc_put_total Puts.\n\
             # TYPE etcd_mvcc_put_total counter\n\
             etcd_mvcc_put_total 3\n\
             # HELP sync_seconds Syncs.\n\
             # TYPE sync_seconds histogram\n\
             sync_seconds_bucket{le=\"0.001\"} 2\n\
             sync_seconds_bucket{le=\"0.5\"} 2\n\
             sync_seconds_bucket{le=\"+Inf\"} 3\n\
             sync_seconds_sum 1.25\n\
             sync_seconds_count 3\n\
             # HELP handled_total Calls.\n\
             # TYPE handled_total counter\n\
             handled_total{code=\"a\\\"b\",method=\"Put\"} 7\n"
        );
    }
}
