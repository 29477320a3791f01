//! How a job does, in words that all processes share: `standpipe run` answers with it on its control socket, task managers pass it on to the job manager, `job show`
//! prints it, the REST interface and the metrics endpoints tell it. Fields that are missing have come with a later release than the one that speaks.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The pipeline's name.
    pub job: String,
    /// 32 hexadecimal digits; the same when it is started again after a failure.
    pub id: String,
    /// The process that was started.
    pub process: u32,
    /// `starting`, `running`, `degraded`, `stopping`, `restarting`, `ended`.
    pub state: String,
    /// What a `restarting` job waits for.
    pub reason: Option<String>,
    /// RFC 3339.
    pub started: String,
    /// When this was so, milliseconds since 1970.
    #[serde(default)]
    pub at_millis: u64,
    /// How often it was started again after a failure.
    pub restarts: u32,
    /// How often the job was started at all, where it takes checkpoints.
    pub generation: u64,
    /// Since its last start.
    pub totals: Option<TotalsStatus>,
    /// In the order of the plan.
    pub nodes: Vec<NodeStatus>,
    /// None: it takes no checkpoints.
    pub checkpoints: Option<CheckpointsStatus>,
    /// What plugins have registered.
    pub metrics: Vec<MetricStatus>,
}

/// What a job has done since it was started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TotalsStatus {
    /// Rows that sources read.
    pub rows_in: u64,
    /// Bytes that sources read.
    pub bytes_in: u64,
    /// Rows that sinks delivered.
    pub rows_out: u64,
    /// Bytes that sinks delivered.
    pub bytes_out: u64,
    /// Rows that were late.
    pub late: u64,
    /// Records that could not be decoded.
    pub broken: u64,
    /// Rows that sinks refused.
    pub rejected: u64,
    /// Records that are not read yet, where the sources know.
    pub lag_records: Option<u64>,
    /// Of the split that is farthest behind.
    pub lag_seconds: Option<f64>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `transforms.stats`.
    pub node: String,
    /// `source`, `transform`, `sink`.
    pub role: String,
    /// The kind of its plugin: `kafka`.
    #[serde(default)]
    pub plugin: Option<String>,
    /// The version of that plugin.
    #[serde(default)]
    pub plugin_version: Option<String>,
    /// Subtasks.
    #[serde(default)]
    pub parallelism: u32,
    /// Rows taken; of a source: read.
    pub rows_in: u64,
    /// Bytes taken.
    pub bytes_in: u64,
    /// Rows given; of a sink: acknowledged.
    pub rows_out: u64,
    /// Bytes given; of a sink: acknowledged.
    pub bytes_out: u64,
    /// Rows that came after their window.
    pub late: u64,
    /// Records that could not be decoded; rows that a sink refused.
    pub broken: u64,
    /// Rows of outputs that nothing reads.
    pub unread: u64,
    /// Of a source: on their way to the sinks. Of a sink: not acknowledged.
    pub in_flight_bytes: i64,
    /// Of an asynchronous transform: calls that are pending, or whose results wait for those of others.
    #[serde(default)]
    pub pending_calls: i64,
    /// In calls of the plugin or the operator, all subtasks together.
    pub busy_seconds: f64,
    /// Held back, all subtasks together: a source by what the sinks have not acknowledged, a sink by its plugin.
    #[serde(default)]
    pub backpressure_seconds: f64,
    /// Calls that took longer than their budget.
    pub slow_calls: u64,
    /// How often its input stood still without a known cause.
    #[serde(default)]
    pub standstills: u64,
    /// RFC 3339.
    pub watermark: Option<String>,
    /// The split that holds it back.
    pub held_by: Option<String>,
    /// Nothing comes for now.
    pub idle: bool,
    /// Of an aligned source (`max_drift`): splits that are paused because they are too far ahead, in all subtasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_splits: Option<u64>,
    /// Of an aligned source: by how much the split that is furthest is ahead of the group's watermark, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_seconds: Option<f64>,
    /// By split.
    pub lag: BTreeMap<String, LagStatus>,
    /// Why it cannot go on for now.
    pub degraded: Option<String>,
    /// In their order.
    #[serde(default)]
    pub subtasks: Vec<SubtaskStatus>,
}

/// A subtask of a node; what is not here is not counted by subtask.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in the node's status")]
pub struct SubtaskStatus {
    pub rows_in: u64,
    pub bytes_in: u64,
    pub rows_out: u64,
    pub bytes_out: u64,
    pub late: u64,
    pub broken: u64,
    pub unread: u64,
    pub slow_calls: u64,
    pub standstills: u64,
    pub busy_seconds: f64,
    pub backpressure_seconds: f64,
    /// Seconds since 1970.
    pub watermark_seconds: Option<f64>,
    pub held_by: Option<String>,
    pub idle: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_splits: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_seconds: Option<f64>,
}

/// How far behind a source is in a split.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LagStatus {
    /// Records that are not read yet.
    pub records: Option<u64>,
    /// Age of the next one.
    pub millis: Option<u64>,
}

/// What has become of the checkpoints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CheckpointsStatus {
    /// That are durable.
    pub completed: u64,
    /// That were given up.
    pub failed: u64,
    /// How long those took that are durable, together.
    #[serde(default)]
    pub took_seconds: f64,
    /// The newest that is durable.
    pub last: Option<u64>,
    /// Since when it is.
    pub age_seconds: Option<f64>,
    /// How long it took.
    pub took_millis: Option<f64>,
    /// Its size.
    pub bytes: Option<u64>,
    /// Why the last one was given up, until another is durable.
    pub trouble: Option<String>,
    /// The number of the one that this start went on from.
    #[serde(default)]
    pub restored: Option<u64>,
    /// The last ones since this start, oldest first.
    #[serde(default)]
    pub history: Vec<PastStatus>,
}

/// A checkpoint that is durable, or was given up.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PastStatus {
    /// Its number.
    pub id: u64,
    /// It stays until it is discarded.
    pub savepoint: bool,
    /// Milliseconds since 1970.
    pub triggered_millis: i64,
    /// From then on.
    pub took_millis: f64,
    /// Its size; 0 if it was given up.
    pub bytes: u64,
    /// Of files that were written for it.
    pub written: u64,
    /// Where its manifest is: what `--restore` takes.
    pub place: Option<String>,
    /// Why it was given up.
    pub trouble: Option<String>,
}

/// A metric of a plugin.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MetricStatus {
    /// `documents_ok`
    pub name: String,
    /// `counter`, `gauge`, `histogram`.
    #[serde(default)]
    pub kind: String,
    /// `node`, `subtask` and the plugin's own.
    pub labels: BTreeMap<String, String>,
    /// Of a distribution its sum.
    pub value: f64,
    /// Of a distribution.
    pub count: Option<u64>,
    /// Of a distribution.
    #[serde(default)]
    pub p50: Option<f64>,
    /// Of a distribution.
    #[serde(default)]
    pub p99: Option<f64>,
}

impl Status {
    /// Of a task manager's word; none: it is of another release, or of none of ours.
    #[must_use]
    pub fn of(value: &serde_json::Value) -> Option<Self> {
        Self::deserialize(value).ok()
    }
}
