//! What a process counts, as it is told to the first one, whose metrics are of the whole job: what counters have grown by since the last time is added there, what
//! belongs to a subtask or a split is set.

use crate::runtime::{
    calls::nanos,
    metrics::{Drift, Metrics, NodeMetrics, Position, Sample, SplitLag, Value},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed, time::Duration};

/// What a process has counted since its start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// In the plan's order.
    nodes: Vec<NodeNumbers>,
    samples: Vec<(String, BTreeMap<String, String>, Told)>,
    /// A call of a plugin takes too long.
    slow: bool,
}

/// A value; fractions by their bits, since JSON has no words for some of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Told {
    Counter(u64),
    Gauge(u64),
    Histogram { count: u64, sum: u64, p50: u64, p99: u64 },
}

impl Told {
    fn of(value: &Value) -> Self {
        match *value {
            Value::Counter(value) => Self::Counter(value.to_bits()),
            Value::Gauge(value) => Self::Gauge(value.to_bits()),
            Value::Histogram { count, sum, p50, p99 } => {
                Self::Histogram { count, sum: sum.to_bits(), p50: p50.to_bits(), p99: p99.to_bits() }
            }
        }
    }

    fn value(&self) -> Value {
        let of = f64::from_bits;
        match *self {
            Self::Counter(bits) => Value::Counter(of(bits)),
            Self::Gauge(bits) => Value::Gauge(of(bits)),
            Self::Histogram { count, sum, p50, p99 } => Value::Histogram { count, sum: of(sum), p50: of(p50), p99: of(p99) },
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct NodeNumbers {
    /// In the order of [`counters`], by subtask.
    counters: Vec<Vec<u64>>,
    in_flight_bytes: i64,
    pending_calls: i64,
    /// By subtask.
    backpressure_nanos: BTreeMap<u32, u64>,
    /// By subtask.
    event_time: BTreeMap<u32, (i64, bool, Option<String>)>,
    /// By subtask.
    drift: BTreeMap<u32, Drift>,
    lag: BTreeMap<String, SplitLag>,
    degraded: Option<String>,
}

/// The counters of a node.
fn counters(node: &NodeMetrics) -> [&crate::Counter; 10] {
    let NodeMetrics { rows_in, bytes_in, rows_out, bytes_out, late_rows, broken_records, unread_rows, busy_nanos, slow_calls, .. } = node;
    [rows_in, bytes_in, rows_out, bytes_out, late_rows, broken_records, unread_rows, busy_nanos, slow_calls, &node.standstills]
}

impl Numbers {
    /// As they stand.
    pub(crate) fn of(metrics: &Metrics, slow: bool) -> Self {
        let time =
            |(subtask, position): (u32, Position)| (subtask, (position.time, position.idle, position.holder.as_deref().map(str::to_owned)));
        let node = |node: &NodeMetrics| NodeNumbers {
            counters: counters(node).iter().map(|counter| counter.by_subtask().collect()).collect(),
            in_flight_bytes: node.in_flight_bytes.load(Relaxed),
            pending_calls: node.pending_calls.load(Relaxed),
            backpressure_nanos: node.backpressure().into_iter().map(|(subtask, waited)| (subtask, nanos(waited))).collect(),
            event_time: node.positions().into_iter().map(time).collect(),
            drift: node.drift(),
            lag: node.lag(),
            degraded: node.degraded(),
        };
        let samples = metrics.snapshot().into_iter().map(|sample| (sample.name, sample.labels, Told::of(&sample.value)));
        Self { nodes: metrics.nodes().iter().map(node).collect(), samples: samples.collect(), slow }
    }

    /// Whether a call of a plugin takes too long there.
    pub(crate) const fn is_slow(&self) -> bool {
        self.slow
    }

    /// Adds them to the first process' metrics; `before` is what that process had said the last time.
    pub(crate) fn add(self, before: &mut Self, process: u32, metrics: &Metrics) {
        before.nodes.resize_with(self.nodes.len(), NodeNumbers::default);
        for ((now, before), node) in self.nodes.iter().zip(&before.nodes).zip(metrics.nodes()) {
            for (i, (counter, now)) in counters(node).iter().zip(&now.counters).enumerate() {
                let before = |subtask: u32| before.counters.get(i).and_then(|before| before.get(subtask as usize)).copied().unwrap_or(0);
                (0..).zip(now).for_each(|(subtask, now)| counter.add(subtask, now.saturating_sub(before(subtask))));
            }
            node.in_flight_bytes.fetch_add(now.in_flight_bytes - before.in_flight_bytes, Relaxed);
            node.pending_calls.fetch_add(now.pending_calls - before.pending_calls, Relaxed);
            for (subtask, (time, idle, holder)) in &now.event_time {
                node.set_event_time(*subtask, *time, *idle, holder.as_deref().map(Into::into));
            }
            now.drift.iter().for_each(|(subtask, drift)| node.set_drift(*subtask, *drift));
            for (subtask, waited) in &now.backpressure_nanos {
                node.set_backpressure(*subtask, Duration::from_nanos(*waited));
            }
            let gone = before.lag.keys().filter(|split| !now.lag.contains_key(*split));
            gone.for_each(|split| node.remove_lag(split));
            now.lag.iter().for_each(|(split, lag)| node.set_lag(split.clone(), *lag));
            node.set_degraded_elsewhere(process, now.degraded.clone());
        }
        let sample = |(name, labels, value): &(String, BTreeMap<String, String>, Told)| Sample {
            name: name.clone(),
            labels: labels.clone(),
            value: value.value(),
        };
        metrics.set_samples_elsewhere(process, self.samples.iter().map(sample).collect());
        *before = self;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_loader::MetricKind;

    #[test]
    fn what_another_process_counts_is_added_once() {
        let (theirs, ours) = (Metrics::of_nodes(2), Metrics::of_nodes(2));
        ours.nodes()[1].rows_in.add(0, 5);
        let gauge = theirs.register("queue", MetricKind::Gauge, BTreeMap::new());
        let mut before = Numbers::default();
        let mut tell = |theirs: &Metrics| {
            let text = serde_json::to_string(&Numbers::of(theirs, false)).unwrap();
            serde_json::from_str::<Numbers>(&text).unwrap().add(&mut before, 1, &ours);
        };
        theirs.nodes()[1].rows_in.add(0, 10);
        theirs.nodes()[1].in_flight_bytes.store(100, Relaxed);
        theirs.nodes()[1].pending_calls.store(3, Relaxed);
        theirs.nodes()[0].set_degraded(Some("no answer".to_owned()));
        theirs.nodes()[0].set_waiting(2, true);
        theirs.nodes()[0].set_waiting(2, false);
        theirs.nodes()[0].set_event_time(3, 77, false, Some("a".into()));
        theirs.nodes()[0].set_drift(3, Drift { paused: 2, ahead: 5 });
        theirs.update(gauge, f64::NAN);
        tell(&theirs);
        let [first, second] = ours.nodes() else { panic!("two nodes") };
        assert_eq!((second.rows_in.get(), second.in_flight_bytes.load(Relaxed)), (15, 100));
        assert_eq!(second.pending_calls.load(Relaxed), 3);
        assert_eq!((first.degraded().as_deref(), first.event_time().map(|position| position.time)), (Some("no answer"), Some(77)));
        assert_eq!(first.drift()[&3], Drift { paused: 2, ahead: 5 });
        assert_eq!(first.backpressure(), theirs.nodes()[0].backpressure());
        assert!(matches!(ours.snapshot()[0].value, Value::Gauge(value) if value.is_nan()), "JSON has no word for it");
        theirs.nodes()[1].rows_in.add(0, 1);
        theirs.nodes()[1].in_flight_bytes.store(40, Relaxed);
        theirs.nodes()[1].pending_calls.store(1, Relaxed);
        theirs.nodes()[0].set_degraded(None);
        theirs.update(gauge, 2.5);
        tell(&theirs);
        assert_eq!((second.rows_in.get(), second.in_flight_bytes.load(Relaxed), first.degraded()), (16, 40, None));
        assert_eq!(second.pending_calls.load(Relaxed), 1);
        assert_eq!(ours.snapshot().into_iter().map(|sample| sample.value).collect::<Vec<_>>(), [Value::Gauge(2.5)]);
    }
}
