//! The figures of one job.

use super::{Families, name};
use crate::status::{CheckpointsStatus, MetricStatus, NodeStatus, Status, SubtaskStatus};

const STATES: [&str; 6] = ["starting", "running", "degraded", "stopping", "restarting", "ended"];

/// Adds what a job's status says.
pub fn job(families: &mut Families, status: &Status) {
    let of_job = [("job_name", status.job.as_str()), ("job_id", status.id.as_str())];
    for state in STATES {
        let is = f64::from(u8::from(status.state == state));
        let labels = [of_job[0], of_job[1], ("state", state)];
        families.gauge("standpipe_job_state", "1 for the state that the job is in, 0 for the others.", &labels, is);
    }
    let restarts = f64::from(status.restarts);
    families.counter("standpipe_job_restarts_total", "How often the job was started again after a failure.", &of_job, restarts);
    if let Some(checkpoints) = &status.checkpoints {
        of_checkpoints(families, &of_job, checkpoints);
    }
    for node in &status.nodes {
        of_node(families, &of_job, node);
    }
    for metric in &status.metrics {
        of_plugin(families, &of_job, status, metric);
    }
}

type Pair<'a> = (&'a str, &'a str);

fn of_checkpoints(families: &mut Families, of_job: &[Pair<'_>; 2], status: &CheckpointsStatus) {
    let mut counter = |name, help, value| families.counter(name, help, of_job, value);
    counter(
        "standpipe_checkpoints_completed_total",
        "Checkpoints that have become durable since the job's last start.",
        status.completed as f64,
    );
    counter("standpipe_checkpoints_failed_total", "Checkpoints that were given up since the job's last start.", status.failed as f64);
    let help = "How long the durable checkpoints have taken, together.";
    counter("standpipe_checkpoints_duration_seconds_total", help, status.took_seconds);
    let mut gauge = |name, help, value: Option<f64>| {
        if let Some(value) = value {
            families.gauge(name, help, of_job, value);
        }
    };
    gauge("standpipe_checkpoint_last_age_seconds", "Since when the newest checkpoint has been durable.", status.age_seconds);
    let took = status.took_millis.map(|took| took / 1000.0);
    gauge("standpipe_checkpoint_last_duration_seconds", "How long the newest durable checkpoint has taken.", took);
    let bytes = status.bytes.map(|bytes| bytes as f64);
    gauge("standpipe_checkpoint_last_size_bytes", "The size of the newest durable checkpoint.", bytes);
}

/// A counter of each subtask: name, meaning, and where it is.
type OfSubtask = (&'static str, &'static str, fn(&SubtaskStatus) -> f64);

const COUNTERS: [OfSubtask; 11] = [
    ("standpipe_operator_rows_in_total", "Rows taken; of a source: read.", |of| of.rows_in as f64),
    ("standpipe_operator_in_bytes_total", "Bytes taken, in memory; of a source: read.", |of| of.bytes_in as f64),
    ("standpipe_operator_rows_out_total", "Rows given; of a sink: acknowledged.", |of| of.rows_out as f64),
    ("standpipe_operator_out_bytes_total", "Bytes given, in memory; of a sink: acknowledged.", |of| of.bytes_out as f64),
    ("standpipe_operator_late_rows_total", "Rows that came after their window.", |of| of.late as f64),
    ("standpipe_operator_broken_records_total", "Records that could not be decoded; of a sink: rows that it refused.", |of| {
        of.broken as f64
    }),
    ("standpipe_operator_unread_rows_total", "Rows of outputs that nothing reads, dropped.", |of| of.unread as f64),
    ("standpipe_operator_busy_seconds_total", "Time in calls of the plugin or the operator.", |of| of.busy_seconds),
    (
        "standpipe_operator_backpressure_seconds_total",
        "Time held back: a source by what the sinks have not acknowledged, a sink by its plugin.",
        |of| of.backpressure_seconds,
    ),
    ("standpipe_operator_slow_calls_total", "Calls that took longer than their budget.", |of| of.slow_calls as f64),
    ("standpipe_operator_standstills_total", "How often the input stood still without a known cause.", |of| of.standstills as f64),
];

fn of_node(families: &mut Families, of_job: &[Pair<'_>; 2], node: &NodeStatus) {
    let (plugin, version) = plugin_of(Some(node));
    let of_node = [of_job[0], of_job[1], ("operator", node.node.as_str()), ("plugin", plugin), ("plugin_version", version)];
    for (subtask, number) in node.subtasks.iter().zip(0_u32..) {
        let number = number.to_string();
        let labels = [of_node[0], of_node[1], of_node[2], of_node[3], of_node[4], ("subtask", number.as_str())];
        for (name, help, value) in COUNTERS {
            families.counter(name, help, &labels, value(subtask));
        }
        if let Some(time) = subtask.watermark_seconds {
            let help = "The watermark; time() less this is how far event time is behind the clock.";
            families.gauge("standpipe_operator_watermark_timestamp_seconds", help, &labels, time);
        }
        let idle = f64::from(u8::from(subtask.idle));
        families.gauge("standpipe_operator_idle", "1 while nothing comes and event time does not wait for it.", &labels, idle);
        if let Some(paused) = subtask.paused_splits {
            let help = "Splits of an aligned source that are paused because they are too far ahead in event time.";
            families.gauge("standpipe_source_paused_splits", help, &labels, paused as f64);
        }
        if let Some(drift) = subtask.drift_seconds {
            let help = "By how much event time in the furthest split of an aligned source is ahead of its group's watermark.";
            families.gauge("standpipe_source_drift_seconds", help, &labels, drift);
        }
    }
    let help = "Of a source: bytes on their way to the sinks. Of a sink: bytes that are not acknowledged.";
    families.gauge("standpipe_operator_in_flight_bytes", help, &of_node, node.in_flight_bytes as f64);
    if node.role == "transform" && node.plugin.is_some() {
        let help = "Of an asynchronous transform: calls that are pending, or whose results wait for those of others.";
        families.gauge("standpipe_operator_pending_calls", help, &of_node, node.pending_calls as f64);
    }
    let degraded = f64::from(u8::from(node.degraded.is_some()));
    families.gauge("standpipe_operator_degraded", "1 while something outside fails and is tried again.", &of_node, degraded);
    for (split, lag) in &node.lag {
        let labels = [of_node[0], of_node[1], of_node[2], of_node[3], of_node[4], ("split", split.as_str())];
        if let Some(records) = lag.records {
            families.gauge("standpipe_source_lag_records", "Records that are not read yet.", &labels, records as f64);
        }
        if let Some(millis) = lag.millis {
            families.gauge("standpipe_source_lag_seconds", "Age of the next record.", &labels, millis as f64 / 1000.0);
        }
    }
}

/// The kind and version of a node's plugin; of a node of the engine's own nothing.
fn plugin_of(node: Option<&NodeStatus>) -> (&str, &str) {
    node.map_or(("", ""), |node| (node.plugin.as_deref().unwrap_or_default(), node.plugin_version.as_deref().unwrap_or_default()))
}

/// What a plugin has registered: `standpipe_plugin_` and its own name; its own labels, too, but for those that are ours.
fn of_plugin(families: &mut Families, of_job: &[Pair<'_>; 2], status: &Status, metric: &MetricStatus) {
    let own = |label: &str| metric.labels.get(label).map(String::as_str);
    let (node, subtask) = (own("node").unwrap_or_default(), own("subtask").unwrap_or_default());
    let of_node = status.nodes.iter().find(|known| known.node == node);
    let (plugin, version) = plugin_of(of_node);
    let mut labels = vec![of_job[0], of_job[1], ("operator", node), ("subtask", subtask), ("plugin", plugin), ("plugin_version", version)];
    let others: Vec<(String, &str)> = metric
        .labels
        .iter()
        .filter(|(label, _)| !["node", "subtask"].contains(&label.as_str()))
        .map(|(label, value)| {
            let label = name(label);
            let taken = ["job_name", "job_id", "operator", "plugin", "plugin_version", "quantile", "le"].contains(&label.as_str());
            (if taken { format!("plugin_{label}") } else { label }, value.as_str())
        })
        .collect();
    labels.extend(others.iter().map(|(label, value)| (label.as_str(), *value)));
    let base = format!("standpipe_plugin_{}", name(&metric.name));
    let help = "A plugin's own metric.";
    match (metric.kind.as_str(), metric.count) {
        (_, Some(count)) => {
            let quantiles: Vec<(f64, f64)> =
                [(0.5, metric.p50), (0.99, metric.p99)].iter().filter_map(|(q, v)| Some((*q, (*v)?))).collect();
            families.summary(&base, help, &labels, (count, metric.value), &quantiles);
        }
        ("counter", _) => {
            let base = if base.ends_with("_total") { base } else { format!("{base}_total") };
            families.counter(&base, help, &labels, metric.value);
        }
        _ => families.gauge(&base, help, &labels, metric.value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn metric(name: &str, kind: &str, labels: &[Pair<'_>], count: Option<u64>) -> MetricStatus {
        let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        MetricStatus { name: name.to_owned(), kind: kind.to_owned(), labels, value: 7.5, count, p50: count.map(|_| 2.0), p99: None }
    }

    #[test]
    fn a_job_is_told_by_subtask_with_its_plugin() {
        let subtask = SubtaskStatus {
            rows_in: 5,
            watermark_seconds: Some(1.5),
            paused_splits: Some(2),
            drift_seconds: Some(30.5),
            ..SubtaskStatus::default()
        };
        let node = NodeStatus {
            node: "sources.in".to_owned(),
            plugin: Some("kafka".to_owned()),
            plugin_version: Some("1.2.3".to_owned()),
            subtasks: vec![SubtaskStatus::default(), subtask],
            ..NodeStatus::default()
        };
        let metrics = vec![
            metric("requests", "counter", &[("node", "sources.in"), ("subtask", "1"), ("plugin", "mine"), ("to-host", "a")], None),
            metric("wait_millis", "histogram", &[("node", "sources.in")], Some(3)),
        ];
        let status = Status {
            job: "j".to_owned(),
            id: "ab".to_owned(),
            state: "running".to_owned(),
            nodes: vec![node],
            metrics,
            ..Status::default()
        };
        let mut families = Families::default();
        job(&mut families, &status);
        let text = families.text();
        let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line}\n---\n{text}");
        has(
            "standpipe_operator_rows_in_total{job_name=\"j\",job_id=\"ab\",operator=\"sources.in\",plugin=\"kafka\",plugin_version=\"1.2.3\",subtask=\"1\"} 5",
        );
        has(
            "standpipe_operator_watermark_timestamp_seconds{job_name=\"j\",job_id=\"ab\",operator=\"sources.in\",plugin=\"kafka\",plugin_version=\"1.2.3\",subtask=\"1\"} 1.5",
        );
        let of_source = "{job_name=\"j\",job_id=\"ab\",operator=\"sources.in\",plugin=\"kafka\",subtask=\"1\"}";
        has(&format!("standpipe_source_paused_splits{of_source} 2"));
        has(&format!("standpipe_source_drift_seconds{of_source} 30.5"));
        assert_eq!(text.matches("standpipe_source_drift_seconds{").count(), 1, "not of a subtask that is not aligned");
        has("standpipe_job_state{job_name=\"j\",job_id=\"ab\",state=\"running\"} 1");
        let own = "operator=\"sources.in\",subtask=\"1\",plugin=\"kafka\",plugin_version=\"1.2.3\",plugin_plugin=\"mine\",to_host=\"a\"";
        has(&format!("standpipe_plugin_requests_total{{job_name=\"j\",job_id=\"ab\",{own}}} 7.5"));
        has(
            "standpipe_plugin_wait_millis{job_name=\"j\",job_id=\"ab\",operator=\"sources.in\",plugin=\"kafka\",plugin_version=\"1.2.3\",quantile=\"0.5\"} 2",
        );
        has(
            "standpipe_plugin_wait_millis_count{job_name=\"j\",job_id=\"ab\",operator=\"sources.in\",plugin=\"kafka\",plugin_version=\"1.2.3\"} 3",
        );
    }
}
