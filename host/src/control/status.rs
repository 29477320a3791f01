//! How a job does, as `job list` and `job show` print it: taken from the engine's metrics when somebody asks.

use crate::secrets;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use standpipe_checkpoint::{Kind, Store};
use standpipe_engine::{JobControl, JobState, Metrics, NodeMetrics, PastCheckpoint, Role, Totals, Value};
use std::{
    collections::BTreeMap,
    path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The pipeline's name.
    pub(crate) job: String,
    /// 32 hexadecimal digits; the same when it is started again after a failure.
    pub(crate) id: String,
    /// The process that was started.
    pub(crate) process: u32,
    /// `starting`, `running`, `degraded`, `stopping`, `restarting`.
    pub(crate) state: String,
    /// What a `restarting` job waits for.
    pub(crate) reason: Option<String>,
    /// RFC 3339.
    pub(crate) started: String,
    /// How often it was started again after a failure.
    pub(crate) restarts: u32,
    /// How often the job was started at all, where it takes checkpoints.
    pub(crate) generation: u64,
    /// Since its last start.
    pub(crate) totals: Option<TotalsStatus>,
    pub(crate) nodes: Vec<NodeStatus>,
    pub(crate) checkpoints: Option<CheckpointsStatus>,
    /// What plugins have registered.
    pub(crate) metrics: Vec<MetricStatus>,
}

/// What a job has done since it was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TotalsStatus {
    pub(crate) rows_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) bytes_out: u64,
    pub(crate) late: u64,
    pub(crate) broken: u64,
    pub(crate) rejected: u64,
    pub(crate) lag_records: Option<u64>,
    /// Of the split that is farthest behind.
    pub(crate) lag_seconds: Option<f64>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) node: String,
    pub(crate) role: String,
    pub(crate) rows_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) bytes_out: u64,
    pub(crate) late: u64,
    pub(crate) broken: u64,
    pub(crate) unread: u64,
    pub(crate) in_flight_bytes: i64,
    pub(crate) busy_seconds: f64,
    pub(crate) slow_calls: u64,
    /// RFC 3339.
    pub(crate) watermark: Option<String>,
    /// The split that holds it back.
    pub(crate) held_by: Option<String>,
    pub(crate) idle: bool,
    pub(crate) lag: BTreeMap<String, LagStatus>,
    /// Why it cannot go on for now.
    pub(crate) degraded: Option<String>,
}

/// How far behind a source is in a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LagStatus {
    pub(crate) records: Option<u64>,
    pub(crate) millis: Option<u64>,
}

/// What has become of the checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CheckpointsStatus {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// The newest that is durable.
    pub(crate) last: Option<u64>,
    /// Since when it is.
    pub(crate) age_seconds: Option<f64>,
    pub(crate) took_millis: Option<f64>,
    pub(crate) bytes: Option<u64>,
    /// Why the last one was given up, until another is durable.
    pub(crate) trouble: Option<String>,
    /// The number of the one that this start went on from.
    #[serde(default)]
    pub(crate) restored: Option<u64>,
    /// The last ones since this start, oldest first.
    #[serde(default)]
    pub(crate) history: Vec<PastStatus>,
}

/// A checkpoint that is durable, or was given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PastStatus {
    pub(crate) id: u64,
    pub(crate) savepoint: bool,
    /// Milliseconds since 1970.
    pub(crate) triggered_millis: i64,
    pub(crate) took_millis: f64,
    pub(crate) bytes: u64,
    /// Of files that were written for it.
    pub(crate) written: u64,
    /// Where its manifest is: what `--restore` takes.
    pub(crate) place: Option<String>,
    /// Why it was given up.
    pub(crate) trouble: Option<String>,
}

/// A metric of a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MetricStatus {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Of a distribution its sum.
    pub(crate) value: f64,
    /// Of a distribution.
    pub(crate) count: Option<u64>,
}

/// What does not change while a job runs.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) job: String,
    pub(crate) id: String,
    pub(crate) started: DateTime<Utc>,
    pub(crate) restarts: u32,
    pub(crate) generation: u64,
    /// What it goes on from and where its checkpoints are, if it takes any.
    pub(crate) checkpoints: Option<Taken>,
}

/// Where a job's checkpoints are.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) store: Arc<Store>,
    /// The number of the one that it goes on from.
    pub(crate) restored: Option<u64>,
}

impl Taken {
    /// The root of where a manifest is.
    pub(crate) fn place(&self, id: u64, generation: u64, kind: Kind) -> String {
        let place = self.store.place_of(id, generation, kind);
        let absolute = || path::absolute(&place).ok()?.into_os_string().into_string().ok();
        if place.contains("://") { place } else { absolute().unwrap_or(place) }
    }
}

impl Identity {
    /// Of a job whose process is not there for now.
    pub(crate) fn restarting(&self, reason: &str) -> Status {
        Status {
            job: self.job.clone(),
            id: self.id.clone(),
            process: std::process::id(),
            state: "restarting".to_owned(),
            reason: Some(reason.to_owned()),
            started: time(self.started),
            restarts: self.restarts,
            generation: self.generation,
            totals: None,
            nodes: Vec::new(),
            checkpoints: None,
            metrics: Vec::new(),
        }
    }

    /// Of a job that runs in this process.
    pub(crate) fn status(&self, control: &JobControl, metrics: &Metrics) -> Status {
        let state = match control.state() {
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Degraded => "degraded",
            JobState::Stopping => "stopping",
        };
        Status {
            state: state.to_owned(),
            reason: None,
            totals: Some(totals(metrics.totals())),
            nodes: metrics.nodes().iter().map(node).collect(),
            checkpoints: self.checkpoints.as_ref().map(|taken| checkpoints(taken, self.generation, metrics)),
            metrics: metrics.snapshot().into_iter().map(|sample| metric(sample.name, sample.labels, &sample.value)).collect(),
            ..self.restarting("")
        }
    }
}

/// Without the values of secrets.
fn shown(text: String) -> String {
    secrets::hidden(&text).into_owned()
}

/// To the millisecond, so that texts sort as times do.
pub(crate) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn totals(totals: Totals) -> TotalsStatus {
    let Totals { rows_in, bytes_in, rows_out, bytes_out, late, broken, rejected, lag, lag_time } = totals;
    TotalsStatus {
        rows_in,
        bytes_in,
        rows_out,
        bytes_out,
        late,
        broken,
        rejected,
        lag_records: lag,
        lag_seconds: lag_time.map(|age| age.as_secs_f64()),
    }
}

fn node(node: &NodeMetrics) -> NodeStatus {
    let position = node.event_time();
    let role = match node.role {
        Role::Source => "source",
        Role::Transform => "transform",
        Role::Sink => "sink",
    };
    let lag = |lag: standpipe_engine::SplitLag| LagStatus { records: lag.records, millis: lag.millis };
    NodeStatus {
        node: node.path.clone(),
        role: role.to_owned(),
        rows_in: node.rows_in.get(),
        bytes_in: node.bytes_in.get(),
        rows_out: node.rows_out.get(),
        bytes_out: node.bytes_out.get(),
        late: node.late_rows.get(),
        broken: node.broken_records.get(),
        unread: node.unread_rows.get(),
        in_flight_bytes: node.in_flight_bytes.load(Relaxed),
        busy_seconds: Duration::from_nanos(node.busy_nanos.get()).as_secs_f64(),
        slow_calls: node.slow_calls.get(),
        watermark: position.as_ref().and_then(|position| DateTime::from_timestamp_micros(position.time)).map(time),
        held_by: position.as_ref().and_then(|position| position.holder.as_deref()).map(str::to_owned),
        idle: position.is_some_and(|position| position.idle),
        lag: node.lag().into_iter().map(|(split, of_split)| (split, lag(of_split))).collect(),
        degraded: node.degraded().map(shown),
    }
}

fn checkpoints(taken: &Taken, generation: u64, metrics: &Metrics) -> CheckpointsStatus {
    let totals = metrics.checkpoints();
    let past = |past: PastCheckpoint| {
        let kind = if past.is_savepoint { Kind::Savepoint } else { Kind::Checkpoint };
        PastStatus {
            id: past.id,
            savepoint: past.is_savepoint,
            triggered_millis: past.triggered_micros / 1000,
            took_millis: past.took.as_secs_f64() * 1000.0,
            bytes: past.bytes,
            written: past.written,
            place: past.trouble.is_none().then(|| taken.place(past.id, generation, kind)),
            trouble: past.trouble.map(shown),
        }
    };
    CheckpointsStatus {
        completed: totals.completed,
        failed: totals.failed,
        last: totals.last.map(|last| last.id),
        age_seconds: totals.last.map(|last| last.at.elapsed().as_secs_f64()),
        took_millis: totals.last.map(|last| last.took.as_secs_f64() * 1000.0),
        bytes: totals.last.map(|last| last.bytes),
        trouble: totals.trouble.map(shown),
        restored: taken.restored,
        history: totals.history.into_iter().map(past).collect(),
    }
}

fn metric(name: String, labels: BTreeMap<String, String>, value: &Value) -> MetricStatus {
    let (value, count) = match value {
        Value::Counter(value) | Value::Gauge(value) => (*value, None),
        Value::Histogram { count, sum, .. } => (*sum, Some(*count)),
    };
    MetricStatus { name, labels, value, count }
}
