//! What the engine counts of a node, by subtask: once per batch, call or wait, never per row, and without a lock where rows pass.

use super::Role;
use crate::operator::Micros;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A number that only grows, of each subtask of a node.
#[derive(Debug)]
pub struct Counter(Box<[AtomicU64]>);

impl Counter {
    fn of(subtasks: u32) -> Self {
        Self((0..subtasks.max(1)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Adds; once per batch. A subtask that there is not counts nothing.
    pub(crate) fn add(&self, subtask: u32, n: u64) {
        if let Some(cell) = self.0.get(subtask as usize) {
            cell.fetch_add(n, Relaxed);
        }
    }

    /// The sum of all subtasks so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.by_subtask().sum()
    }

    /// What each subtask has counted, in their order.
    pub fn by_subtask(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|cell| cell.load(Relaxed))
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::of(1)
    }
}

/// What the engine counts of a node: in the first process, what the others count too, as it stood some moments ago. Updated per batch.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    /// `transforms.stats`
    pub path: String,
    /// Where it stands.
    pub role: Role,
    /// The kind of the plugin whose code it runs: `kafka`.
    pub plugin: Option<String>,
    /// The version of that plugin.
    pub plugin_version: Option<String>,
    /// How many there are of it.
    pub parallelism: u32,
    /// Rows taken. For a source: read.
    pub rows_in: Counter,
    /// Bytes taken.
    pub bytes_in: Counter,
    /// Rows given, on all outputs. For a sink: delivered, that is acknowledged.
    pub rows_out: Counter,
    /// Bytes given; of a sink: delivered.
    pub bytes_out: Counter,
    /// Rows that were late.
    pub late_rows: Counter,
    /// Records that could not be decoded, and rows that a sink refused.
    pub broken_records: Counter,
    /// Rows of outputs that nothing reads, dropped.
    pub unread_rows: Counter,
    /// A source: bytes on their way to the sinks. A sink: bytes not yet acknowledged.
    pub in_flight_bytes: AtomicI64,
    /// An asynchronous transform: calls that are pending, or whose results wait for those of others.
    pub pending_calls: AtomicI64,
    /// Time spent in calls of the plugin, or of the operator, nanoseconds.
    pub busy_nanos: Counter,
    /// Calls that took longer than the time budget.
    pub slow_calls: Counter,
    /// How often its input stood still for too long without a known cause.
    pub standstills: Counter,
    waits: Mutex<BTreeMap<u32, Waits>>,
    event_time: Mutex<BTreeMap<u32, Position>>,
    drift: Mutex<BTreeMap<u32, Drift>>,
    lag: Mutex<BTreeMap<String, SplitLag>>,
    degraded: Mutex<Option<String>>,
    /// By process, where it is another one.
    degraded_elsewhere: Mutex<BTreeMap<u32, String>>,
}

/// How long a subtask has waited for room.
#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    /// Until the last wait ended.
    ended: Duration,
    /// Since when it waits now.
    since: Option<Instant>,
}

/// Event time of a subtask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its watermark.
    pub time: Micros,
    /// Nothing comes for now; it is not waited for.
    pub idle: bool,
    /// The split that holds the watermark back, if one does.
    pub holder: Option<Arc<str>>,
}

/// How a subtask of an aligned source stands (`max_drift:`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drift {
    /// Splits that are paused.
    pub paused: u64,
    /// By how much event time in its furthest split is ahead of what the group has reached, microseconds; 0 where one of the two is not known.
    pub ahead: Micros,
}

/// How far behind a source is in a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitLag {
    /// Records not read yet.
    pub records: Option<u64>,
    /// Age of the next record, milliseconds.
    pub millis: Option<u64>,
}

impl NodeMetrics {
    /// Of the plugin the kind and the version.
    pub(super) fn new(path: &str, role: Role, plugin: Option<(&str, &str)>, parallelism: u32) -> Self {
        let counter = || Counter::of(parallelism);
        Self {
            path: path.to_owned(),
            role,
            plugin: plugin.map(|(kind, _)| kind.to_owned()),
            plugin_version: plugin.map(|(_, version)| version.to_owned()),
            parallelism,
            rows_in: counter(),
            bytes_in: counter(),
            rows_out: counter(),
            bytes_out: counter(),
            late_rows: counter(),
            broken_records: counter(),
            unread_rows: counter(),
            busy_nanos: counter(),
            slow_calls: counter(),
            standstills: counter(),
            ..Self::default()
        }
    }

    /// The lowest watermark of its subtasks that are not idle, with the split that holds it.
    #[must_use]
    pub fn event_time(&self) -> Option<Position> {
        let positions = self.event_time.lock();
        positions.values().filter(|p| !p.idle).min_by_key(|p| p.time).or_else(|| positions.values().next()).cloned()
    }

    /// The event time of each subtask that has one.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<u32, Position> {
        self.event_time.lock().clone()
    }

    pub(crate) fn set_event_time(&self, subtask: u32, time: Micros, idle: bool, holder: Option<Arc<str>>) {
        self.event_time.lock().insert(subtask, Position { time, idle, holder });
    }

    /// How long each subtask has been held back: a source by its byte budget, which is what the sinks have not acknowledged; a sink by its plugin, which is busy. A wait that has
    /// not ended counts. Subtasks that were never held back are not there.
    #[must_use]
    pub fn backpressure(&self) -> BTreeMap<u32, Duration> {
        let so_far = |waits: &Waits| waits.ended + waits.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.waits.lock().iter().map(|(subtask, waits)| (*subtask, so_far(waits))).collect()
    }

    /// A subtask begins or ends to be held back. Not per row, nor per batch while all is well.
    pub(crate) fn set_waiting(&self, subtask: u32, waits: bool) {
        let mut all = self.waits.lock();
        let of_it = all.entry(subtask).or_default();
        match (of_it.since, waits) {
            (None, true) => of_it.since = Some(Instant::now()),
            (Some(since), false) => (of_it.ended, of_it.since) = (of_it.ended + since.elapsed(), None),
            _ => {}
        }
    }

    /// Of a subtask of another process.
    pub(crate) fn set_backpressure(&self, subtask: u32, ended: Duration) {
        self.waits.lock().insert(subtask, Waits { ended, since: None });
    }

    /// How the subtasks of an aligned source stand.
    #[must_use]
    pub fn drift(&self) -> BTreeMap<u32, Drift> {
        self.drift.lock().clone()
    }

    pub(crate) fn set_drift(&self, subtask: u32, drift: Drift) {
        self.drift.lock().insert(subtask, drift);
    }

    /// How far behind it is, by split.
    #[must_use]
    pub fn lag(&self) -> BTreeMap<String, SplitLag> {
        self.lag.lock().clone()
    }

    pub(crate) fn set_lag(&self, split: String, lag: SplitLag) {
        self.lag.lock().insert(split, lag);
    }

    /// That split is not read any more.
    pub(crate) fn remove_lag(&self, split: &str) {
        self.lag.lock().remove(split);
    }

    /// Why it cannot go on for now, if it retries something.
    #[must_use]
    pub fn degraded(&self) -> Option<String> {
        let own = self.degraded.lock().clone();
        own.or_else(|| self.degraded_elsewhere.lock().values().next().cloned())
    }

    pub(crate) fn set_degraded_elsewhere(&self, process: u32, cause: Option<String>) {
        let mut elsewhere = self.degraded_elsewhere.lock();
        match cause {
            Some(cause) => _ = elsewhere.insert(process, cause),
            None => _ = elsewhere.remove(&process),
        }
    }

    pub(crate) fn set_degraded(&self, cause: Option<String>) {
        *self.degraded.lock() = cause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_of_a_node_is_its_slowest_subtask_that_is_not_idle() {
        let node = NodeMetrics::default();
        assert_eq!(node.event_time(), None);
        node.set_event_time(0, 50, false, Some("a".into()));
        node.set_event_time(1, 20, false, Some("b".into()));
        node.set_event_time(2, 1, true, None);
        assert_eq!(node.event_time(), Some(Position { time: 20, idle: false, holder: Some("b".into()) }));
    }

    #[test]
    fn each_subtask_counts_for_itself_and_one_that_there_is_not_counts_nothing() {
        let node = NodeMetrics::new("sources.a", Role::Source, Some(("kafka", "1.2.3")), 3);
        node.rows_in.add(0, 5);
        node.rows_in.add(2, 7);
        node.rows_in.add(3, 100);
        assert_eq!((node.rows_in.get(), node.rows_in.by_subtask().collect::<Vec<_>>()), (12, vec![5, 0, 7]));
    }

    #[test]
    fn a_wait_counts_while_it_lasts_and_once() {
        let node = NodeMetrics::new("sources.a", Role::Source, None, 2);
        assert!(node.backpressure().is_empty());
        node.set_waiting(1, true);
        let while_it_waits = || node.backpressure()[&1];
        let first = while_it_waits();
        std::thread::sleep(Duration::from_millis(2));
        // Told again, it has not begun anew.
        node.set_waiting(1, true);
        assert!(while_it_waits() >= first + Duration::from_millis(2));
        node.set_waiting(1, false);
        let (ended, again) = (while_it_waits(), while_it_waits());
        assert_eq!(ended, again);
        node.set_waiting(1, false);
        assert_eq!((while_it_waits(), node.backpressure().len()), (ended, 1));
    }
}
