//! The job's numbers: counters, gauges and histograms by name and labels, registered once and then updated without a lock. The engine's own are per node
//! ([`NodeMetrics`]); a plugin's come in through its host services. The host's progress display and `status` read [`Metrics::snapshot`] and [`Metrics::nodes`].

mod checkpoints;
mod node;

pub use checkpoints::{CheckpointTotals, LastCheckpoint, PastCheckpoint};
pub use node::{Counter, Drift, NodeMetrics, Position, SplitLag};

use parking_lot::{Mutex, RwLock};
use standpipe_loader::MetricKind;
use standpipe_pipeline::plan::{Node, Operator, Plan};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A distribution in buckets that double: bucket i counts values in `[2^(i-1), 2^i)` of the unit.
#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU64; 64],
    /// Bits of an `f64`.
    sum: AtomicU64,
}

/// Adds to the bits of an `f64`.
fn add_f64(cell: &AtomicU64, value: f64) {
    // The closure never declines, so there is nothing to handle.
    let _ = cell.fetch_update(Relaxed, Relaxed, |bits| Some((f64::from_bits(bits) + value).to_bits()));
}

/// One registered metric.
#[derive(Debug)]
enum Cell {
    /// Bits of an `f64`: a plugin may add fractions.
    Counter(AtomicU64),
    Gauge(AtomicU64),
    Histogram(Box<Histogram>),
}

/// What a metric stands at.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A sum.
    Counter(f64),
    /// The last value.
    Gauge(f64),
    /// A distribution.
    Histogram {
        /// Values recorded.
        count: u64,
        /// Their sum.
        sum: f64,
        /// The upper bound of the bucket that holds the median.
        p50: f64,
        /// The upper bound of the bucket that holds the 99th percentile.
        p99: f64,
    },
}

/// A metric with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `kafka_requests_total`
    pub name: String,
    /// `node`, `subtask` and the plugin's own, sorted.
    pub labels: BTreeMap<String, String>,
    /// What it stands at.
    pub value: Value,
}

type Labels = BTreeMap<String, String>;

/// All metrics of a job.
#[derive(Debug)]
pub struct Metrics {
    nodes: Vec<NodeMetrics>,
    checkpoints: Mutex<CheckpointTotals>,
    registered: RwLock<Vec<(String, Labels, Cell)>>,
    /// Of other processes.
    elsewhere: Mutex<BTreeMap<u32, Vec<Sample>>>,
}

/// Where a node stands in the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It reads.
    Source,
    /// It computes.
    #[default]
    Transform,
    /// It writes.
    Sink,
}

/// What a job has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
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
    pub lag: Option<u64>,
    /// How long the oldest of them has been waiting, where the sources know.
    pub lag_time: Option<Duration>,
}

impl Metrics {
    pub(crate) fn new(plan: &Plan) -> Self {
        let role = |node: &Node| match node.operator {
            Operator::Source(_) => Role::Source,
            Operator::Sink(_) => Role::Sink,
            _ => Role::Transform,
        };
        let node = |node: &Node| {
            let used = node.plugin();
            let plugin = used.as_ref().map(|used| (used.name, used.plugin.version.as_str()));
            NodeMetrics::new(&node.path, role(node), plugin, node.parallelism)
        };
        let nodes = plan.nodes.iter().map(node).collect();
        Self { nodes, checkpoints: Mutex::default(), registered: RwLock::default(), elsewhere: Mutex::default() }
    }

    /// Of so many nodes of nothing.
    #[cfg(test)]
    pub(crate) fn of_nodes(nodes: usize) -> Self {
        let nodes = (0..nodes).map(|_| NodeMetrics::default()).collect();
        Self { nodes, checkpoints: Mutex::default(), registered: RwLock::default(), elsewhere: Mutex::default() }
    }

    /// What has become of the checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> CheckpointTotals {
        self.checkpoints.lock().clone()
    }

    pub(crate) fn checkpoint_completed(&self, past: PastCheckpoint) {
        self.checkpoints.lock().completed(past);
    }

    pub(crate) fn checkpoint_failed(&self, reason: &str, past: Option<PastCheckpoint>) {
        self.checkpoints.lock().failed(reason, past);
    }

    /// The job as a whole.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for node in &self.nodes {
            totals.late += node.late_rows.get();
            match node.role {
                Role::Source => {
                    totals.rows_in += node.rows_in.get();
                    totals.bytes_in += node.bytes_in.get();
                    totals.broken += node.broken_records.get();
                    let lag = node.lag().values().filter_map(|split| split.records).reduce(|a, b| a + b);
                    totals.lag = totals.lag.map_or(lag, |total| Some(total + lag.unwrap_or(0)));
                    let oldest = node.lag().values().filter_map(|split| split.millis).max().map(Duration::from_millis);
                    totals.lag_time = totals.lag_time.max(oldest);
                }
                Role::Sink => {
                    totals.rows_out += node.rows_out.get();
                    totals.bytes_out += node.bytes_out.get();
                    totals.rejected += node.broken_records.get();
                }
                Role::Transform => {}
            }
        }
        totals
    }

    /// Whether some node cannot go on for now.
    pub(crate) fn is_degraded(&self) -> bool {
        self.nodes.iter().any(|node| node.degraded().is_some())
    }

    /// Whether some node cannot go on for now, or calls of one are pending.
    pub(crate) fn waits_outside(&self) -> bool {
        self.is_degraded() || self.nodes.iter().any(|node| node.pending_calls.load(Relaxed) > 0)
    }

    /// One per node of the plan, in its order.
    #[must_use]
    pub fn nodes(&self) -> &[NodeMetrics] {
        &self.nodes
    }

    /// The metrics that plugins registered.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Sample> {
        let value = |cell: &Cell| match cell {
            Cell::Counter(bits) => Value::Counter(f64::from_bits(bits.load(Relaxed))),
            Cell::Gauge(bits) => Value::Gauge(f64::from_bits(bits.load(Relaxed))),
            Cell::Histogram(histogram) => histogram.value(),
        };
        let registered = self.registered.read();
        let own = registered.iter().map(|(name, labels, cell)| Sample { name: name.clone(), labels: labels.clone(), value: value(cell) });
        own.chain(self.elsewhere.lock().values().flatten().cloned()).collect()
    }

    pub(crate) fn set_samples_elsewhere(&self, process: u32, samples: Vec<Sample>) {
        self.elsewhere.lock().insert(process, samples);
    }

    /// The id of a metric; the same name, kind and labels give the same one. Ids begin at 1.
    pub(crate) fn register(&self, name: &str, kind: MetricKind, labels: Labels) -> u64 {
        let mut registered = self.registered.write();
        let same = |(n, l, c): &(String, Labels, Cell)| n == name && *l == labels && c.kind() == kind;
        if let Some(found) = registered.iter().position(same) {
            return found as u64 + 1;
        }
        let cell = match kind {
            MetricKind::Counter => Cell::Counter(AtomicU64::new(0)),
            MetricKind::Gauge => Cell::Gauge(AtomicU64::new(0)),
            MetricKind::Histogram => {
                Cell::Histogram(Box::new(Histogram { buckets: [const { AtomicU64::new(0) }; 64], sum: AtomicU64::new(0) }))
            }
        };
        registered.push((name.to_owned(), labels, cell));
        registered.len() as u64
    }

    /// Does what the metric's kind does with a value. An unknown id does nothing.
    pub(crate) fn update(&self, id: u64, value: f64) {
        let registered = self.registered.read();
        let index = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        match index.and_then(|i| registered.get(i)).map(|(_, _, cell)| cell) {
            Some(Cell::Counter(bits)) => add_f64(bits, value),
            Some(Cell::Gauge(bits)) => bits.store(value.to_bits(), Relaxed),
            Some(Cell::Histogram(histogram)) => histogram.record(value),
            None => {}
        }
    }
}

impl Cell {
    const fn kind(&self) -> MetricKind {
        match self {
            Self::Counter(_) => MetricKind::Counter,
            Self::Gauge(_) => MetricKind::Gauge,
            Self::Histogram(_) => MetricKind::Histogram,
        }
    }
}

impl Histogram {
    fn record(&self, value: f64) {
        // A cast from a float saturates: negative and not-a-number become 0.
        let bucket = (u64::BITS - (value as u64).leading_zeros()).min(63) as usize;
        self.buckets[bucket].fetch_add(1, Relaxed);
        add_f64(&self.sum, value);
    }

    fn value(&self) -> Value {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let quantile = |q: f64| {
            let rank = ((count as f64 * q).ceil() as u64).max(1);
            let mut seen = 0;
            let bucket = counts.iter().position(|n| {
                seen += n;
                seen >= rank
            });
            bucket.map_or(0.0, |bucket| 2_f64.powi(bucket as i32))
        };
        Value::Histogram { count, sum: f64::from_bits(self.sum.load(Relaxed)), p50: quantile(0.5), p99: quantile(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Metrics {
        Metrics::of_nodes(0)
    }

    #[test]
    fn the_same_metric_is_registered_once() {
        let metrics = empty();
        let labels = |host: &str| Labels::from([("host".to_owned(), host.to_owned())]);
        let a = metrics.register("requests", MetricKind::Counter, labels("a"));
        let b = metrics.register("requests", MetricKind::Counter, labels("b"));
        assert_eq!(metrics.register("requests", MetricKind::Counter, labels("a")), a);
        assert_ne!(a, b);
        metrics.update(a, 1.5);
        metrics.update(a, 2.0);
        metrics.update(99, 7.0);
        let values: Vec<_> = metrics.snapshot().into_iter().map(|s| s.value).collect();
        assert_eq!(values, [Value::Counter(3.5), Value::Counter(0.0)]);
    }

    #[test]
    fn the_lag_of_a_job_is_all_records_and_the_age_of_the_oldest() {
        let source = |lags: &[(Option<u64>, Option<u64>)]| {
            let node = NodeMetrics::new("sources.a", Role::Source, None, 1);
            for (split, (records, millis)) in lags.iter().enumerate() {
                node.set_lag(split.to_string(), SplitLag { records: *records, millis: *millis });
            }
            node
        };
        let totals = |nodes| Metrics { nodes, ..empty() }.totals();
        let unknown = totals(vec![source(&[(None, None)])]);
        assert_eq!((unknown.lag, unknown.lag_time), (None, None));
        let known = totals(vec![source(&[(Some(3), Some(1_500)), (Some(0), Some(0))]), source(&[(Some(4), None), (None, None)])]);
        assert_eq!((known.lag, known.lag_time), (Some(7), Some(Duration::from_millis(1_500))));
    }

    #[test]
    fn a_histogram_knows_its_quantiles() {
        let metrics = empty();
        let id = metrics.register("millis", MetricKind::Histogram, Labels::new());
        (0..100).for_each(|i| metrics.update(id, if i < 98 { 3.0 } else { 1000.0 }));
        let Value::Histogram { count, sum, p50, p99 } = metrics.snapshot().remove(0).value else { panic!("a histogram") };
        assert_eq!((count, p50, p99), (100, 4.0, 1024.0));
        assert!((sum - (98.0 * 3.0 + 2000.0)).abs() < 1e-9);
    }
}
