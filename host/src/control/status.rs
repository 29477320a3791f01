//! How a job does, as `job list` and `job show` print it: taken from the engine's metrics when somebody asks.

use crate::secrets;
use chrono::{DateTime, SecondsFormat, Utc};
use standpipe_checkpoint::{Kind, Store};
use standpipe_engine::{Counter, JobControl, JobState, Metrics, NodeMetrics, PastCheckpoint, Role, Totals, Value};
use std::{
    collections::BTreeMap,
    path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(crate) use standpipe_cluster::status::{
    CheckpointsStatus, LagStatus, MetricStatus, NodeStatus, PastStatus, Status, SubtaskStatus, TotalsStatus,
};

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
            at_millis: millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            restarts: self.restarts,
            generation: self.generation,
            totals: None,
            nodes: Vec::new(),
            checkpoints: None,
            metrics: Vec::new(),
        }
    }

    /// Of a job that has ended in this process, however it did.
    pub(crate) fn ended(&self, metrics: &Metrics) -> Status {
        Status { state: "ended".to_owned(), ..self.of(metrics) }
    }

    /// Of a job that runs in this process.
    pub(crate) fn status(&self, control: &JobControl, metrics: &Metrics) -> Status {
        let state = match control.state() {
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Degraded => "degraded",
            JobState::Stopping => "stopping",
        };
        Status { state: state.to_owned(), ..self.of(metrics) }
    }

    fn of(&self, metrics: &Metrics) -> Status {
        Status {
            reason: None,
            totals: Some(totals(metrics.totals())),
            nodes: metrics.nodes().iter().map(node).collect(),
            checkpoints: self.checkpoints.as_ref().map(|taken| checkpoints(taken, self.generation, metrics)),
            metrics: metrics.snapshot().into_iter().filter_map(|sample| metric(sample.name, sample.labels, &sample.value)).collect(),
            ..self.restarting("")
        }
    }
}

/// Without the values of secrets.
fn shown(text: String) -> String {
    secrets::hidden(&text).into_owned()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
    let (position, drift) = (node.event_time(), node.drift());
    let role = match node.role {
        Role::Source => "source",
        Role::Transform => "transform",
        Role::Sink => "sink",
    };
    let lag = |lag: standpipe_engine::SplitLag| LagStatus { records: lag.records, millis: lag.millis };
    NodeStatus {
        node: node.path.clone(),
        role: role.to_owned(),
        plugin: node.plugin.clone(),
        plugin_version: node.plugin_version.clone(),
        parallelism: node.parallelism,
        rows_in: node.rows_in.get(),
        bytes_in: node.bytes_in.get(),
        rows_out: node.rows_out.get(),
        bytes_out: node.bytes_out.get(),
        late: node.late_rows.get(),
        broken: node.broken_records.get(),
        unread: node.unread_rows.get(),
        in_flight_bytes: node.in_flight_bytes.load(Relaxed),
        pending_calls: node.pending_calls.load(Relaxed),
        busy_seconds: Duration::from_nanos(node.busy_nanos.get()).as_secs_f64(),
        backpressure_seconds: node.backpressure().values().map(Duration::as_secs_f64).sum(),
        slow_calls: node.slow_calls.get(),
        standstills: node.standstills.get(),
        watermark: position.as_ref().and_then(|position| DateTime::from_timestamp_micros(position.time)).map(time),
        held_by: position.as_ref().and_then(|position| position.holder.as_deref()).map(str::to_owned),
        idle: position.is_some_and(|position| position.idle),
        paused_splits: drift.values().map(|drift| drift.paused).reduce(|a, b| a + b),
        drift_seconds: drift.values().map(|drift| drift.ahead).max().map(seconds),
        lag: node.lag().into_iter().map(|(split, of_split)| (split, lag(of_split))).collect(),
        degraded: node.degraded().map(shown),
        subtasks: subtasks(node),
    }
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

fn subtasks(node: &NodeMetrics) -> Vec<SubtaskStatus> {
    let mut all: Vec<SubtaskStatus> = (0..node.parallelism).map(|_| SubtaskStatus::default()).collect();
    let mut set = |counter: &Counter, set: fn(&mut SubtaskStatus, u64)| {
        all.iter_mut().zip(counter.by_subtask()).for_each(|(subtask, value)| set(subtask, value));
    };
    set(&node.rows_in, |subtask, value| subtask.rows_in = value);
    set(&node.bytes_in, |subtask, value| subtask.bytes_in = value);
    set(&node.rows_out, |subtask, value| subtask.rows_out = value);
    set(&node.bytes_out, |subtask, value| subtask.bytes_out = value);
    set(&node.late_rows, |subtask, value| subtask.late = value);
    set(&node.broken_records, |subtask, value| subtask.broken = value);
    set(&node.unread_rows, |subtask, value| subtask.unread = value);
    set(&node.slow_calls, |subtask, value| subtask.slow_calls = value);
    set(&node.standstills, |subtask, value| subtask.standstills = value);
    set(&node.busy_nanos, |subtask, value| subtask.busy_seconds = Duration::from_nanos(value).as_secs_f64());
    for (subtask, waited) in node.backpressure() {
        if let Some(subtask) = all.get_mut(subtask as usize) {
            subtask.backpressure_seconds = waited.as_secs_f64();
        }
    }
    for (subtask, position) in node.positions() {
        if let Some(subtask) = all.get_mut(subtask as usize) {
            // Before the first row, and when all has been read, it is no time of day.
            let is_a_time = DateTime::from_timestamp_micros(position.time).is_some();
            subtask.watermark_seconds = is_a_time.then(|| position.time as f64 / 1e6);
            (subtask.held_by, subtask.idle) = (position.holder.as_deref().map(str::to_owned), position.idle);
        }
    }
    for (subtask, drift) in node.drift() {
        if let Some(subtask) = all.get_mut(subtask as usize) {
            (subtask.paused_splits, subtask.drift_seconds) = (Some(drift.paused), Some(seconds(drift.ahead)));
        }
    }
    all
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
        took_seconds: totals.took.as_secs_f64(),
        last: totals.last.map(|last| last.id),
        age_seconds: totals.last.map(|last| last.at.elapsed().as_secs_f64()),
        took_millis: totals.last.map(|last| last.took.as_secs_f64() * 1000.0),
        bytes: totals.last.map(|last| last.bytes),
        trouble: totals.trouble.map(shown),
        restored: taken.restored,
        history: totals.history.into_iter().map(past).collect(),
    }
}

/// None: it stands at no number, for which JSON has no word.
fn metric(name: String, labels: BTreeMap<String, String>, value: &Value) -> Option<MetricStatus> {
    let (kind, value, count, quantiles) = match value {
        Value::Counter(value) => ("counter", *value, None, None),
        Value::Gauge(value) => ("gauge", *value, None, None),
        Value::Histogram { count, sum, p50, p99 } => ("histogram", *sum, Some(*count), Some((*p50, *p99))),
    };
    let (p50, p99) = quantiles.unzip();
    value.is_finite().then(|| MetricStatus { name, kind: kind.to_owned(), labels, value, count, p50, p99 })
}
