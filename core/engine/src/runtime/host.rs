//! The host's services for one plugin instance: logs into tracing with the job, node and subtask, metrics into the job's registry, cancellation, secrets, the
//! clock; for a sink also its acknowledgements and rejections, which the sink's operator picks up; for an asynchronous transform that calls have ended; of one in a process of
//! its own that this is gone.

use super::{error::Phase, job::Job};
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use serde_json::Value;
use standpipe_loader::{HostServices, LogLevel, MetricKind, PluginError, Rejected};
use standpipe_pipeline::plan::NodeId;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Processing time as plugins have it, microseconds since the epoch. It may be set back or ahead: how long something takes is measured by an `Instant`.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// What a sink's plugin said of the batches that it was given, on any of its threads. The sink's operator reads it.
#[derive(Default)]
pub(crate) struct Deliveries {
    acknowledged: AtomicU64,
    rejected: Mutex<Vec<(u64, Vec<Rejected>)>>,
}

impl Deliveries {
    /// Every batch up to `seq` is delivered.
    pub(crate) fn acknowledge(&self, seq: u64) {
        self.acknowledged.fetch_max(seq, SeqCst);
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(SeqCst)
    }

    /// Rejections so far. Read after [`Self::acknowledged`], it has all of what was acknowledged.
    pub(crate) fn take_rejected(&self) -> Vec<(u64, Vec<Rejected>)> {
        std::mem::take(&mut *self.rejected.lock())
    }
}

type Wake = Box<dyn Fn() + Send + Sync>;

/// See the module's documentation.
pub(crate) struct InstanceHost {
    job: Arc<Job>,
    node: NodeId,
    /// The kind and its version, `kafka@1.2.3`: the same one may run in two versions.
    plugin: String,
    subtask: u32,
    /// Wakes the instance's thread.
    wake: Wake,
    /// Where a sink's deliveries go, and how to wake its operator.
    sink: Option<(Arc<Deliveries>, Wake)>,
    /// Wakes a transform's thread when a call has ended; one message that waits is enough.
    ended: Option<Sender<()>>,
}

impl InstanceHost {
    pub(crate) fn new(job: Arc<Job>, node: NodeId, subtask: u32, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let plugin = job.node(node).plugin().map(|used| used.plugin.versioned(used.name)).unwrap_or_default();
        Self { job, node, plugin, subtask, wake: Box::new(wake), sink: None, ended: None }
    }

    pub(crate) fn for_sink(mut self, deliveries: Arc<Deliveries>, wake_operator: impl Fn() + Send + Sync + 'static) -> Self {
        self.sink = Some((deliveries, Box::new(wake_operator)));
        self
    }

    pub(crate) fn for_calls(mut self, ended: Sender<()>) -> Self {
        self.ended = Some(ended);
        self
    }
}

impl HostServices for InstanceHost {
    fn log(&self, level: LogLevel, json: &str) {
        let mut fields = match serde_json::from_str(json) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::from_iter([("message".to_owned(), json.into())]),
        };
        let message = fields.remove("message").unwrap_or_default();
        let message = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
        let (job, operator, plugin, subtask) = (&self.job.options.job_id, &self.job.node(self.node).path, &self.plugin, self.subtask);
        let fields = if fields.is_empty() { String::new() } else { Value::Object(fields).to_string() };
        match level {
            LogLevel::Error => tracing::error!(target: "standpipe::plugin", %job, %operator, %plugin, subtask, %fields, "{message}"),
            LogLevel::Warn => tracing::warn!(target: "standpipe::plugin", %job, %operator, %plugin, subtask, %fields, "{message}"),
            LogLevel::Info => tracing::info!(target: "standpipe::plugin", %job, %operator, %plugin, subtask, %fields, "{message}"),
            LogLevel::Debug => tracing::debug!(target: "standpipe::plugin", %job, %operator, %plugin, subtask, %fields, "{message}"),
            LogLevel::Trace => tracing::trace!(target: "standpipe::plugin", %job, %operator, %plugin, subtask, %fields, "{message}"),
        }
    }

    fn register_metric(&self, name: &str, kind: MetricKind, labels: &str) -> u64 {
        let own: BTreeMap<String, Value> = serde_json::from_str(labels).unwrap_or_default();
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut labels: BTreeMap<String, String> = own.into_iter().map(|(name, value)| (name, text(value))).collect();
        labels.insert("node".to_owned(), self.job.node(self.node).path.clone());
        labels.insert("subtask".to_owned(), self.subtask.to_string());
        self.job.metrics.register(name, kind, labels)
    }

    fn update_metric(&self, id: u64, value: f64) {
        self.job.metrics.update(id, value);
    }

    fn cancelled(&self) -> bool {
        self.job.cancelled()
    }

    fn wake(&self) {
        (self.wake)();
    }

    fn lost(&self, error: PluginError) {
        self.job.fail_node(self.node, Phase::Running, error);
    }

    fn completed(&self) {
        if let Some(ended) = &self.ended {
            // Full: the thread will look in any case.
            _ = ended.try_send(());
        }
    }

    fn secret(&self, reference: &str) -> Result<(String, u64), String> {
        (self.job.options.secrets)(reference)
    }

    fn now(&self) -> i64 {
        now()
    }

    fn ack(&self, up_to_seq: u64) {
        if let Some((deliveries, wake)) = &self.sink {
            deliveries.acknowledge(up_to_seq);
            wake();
        }
    }

    fn reject(&self, seq: u64, rejections: Vec<Rejected>) {
        if let Some((deliveries, wake)) = &self.sink {
            deliveries.rejected.lock().push((seq, rejections));
            wake();
        }
    }
}
