//! A host that records.

use crate::{LogLevel, MetricKind, Rejection, hosting::HostServices};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Records what an instance tells its host.
#[derive(Default)]
pub struct TestHost {
    now: AtomicI64,
    cancelled: AtomicBool,
    acknowledged: AtomicU64,
    recorded: Mutex<Recorded>,
    changed: Condvar,
}

#[derive(Default)]
struct Recorded {
    logs: Vec<(LogLevel, Value)>,
    metrics: Vec<Metric>,
    secrets: BTreeMap<String, String>,
    rejections: Vec<(u64, Rejection)>,
    wakes: u64,
}

struct Metric {
    name: String,
    labels: String,
    kind: MetricKind,
    value: f64,
}

impl TestHost {
    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the clock, microseconds since the epoch.
    pub fn set_now(&self, micros: i64) {
        self.now.store(micros, SeqCst);
    }

    /// Asks calls that block to return.
    pub fn cancel(&self) {
        self.cancelled.store(true, SeqCst);
    }

    /// What a reference stands for: `set_secret("env:PASSWORD", "hunter2")` is for `${env:PASSWORD}`.
    pub fn set_secret(&self, reference: &str, value: &str) {
        self.recorded().secrets.insert(reference.to_owned(), value.to_owned());
    }

    /// Log lines so far: JSON objects with `message` and fields.
    #[must_use]
    pub fn logs(&self) -> Vec<(LogLevel, Value)> {
        self.recorded().logs.clone()
    }

    /// The messages of log lines so far.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        let message = |line: &Value| line.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.recorded().logs.iter().map(|(_, line)| message(line)).collect()
    }

    /// The value of a counter or gauge, the last value of a histogram, summed over all labels; `None` if it was never registered.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let recorded = self.recorded();
        let mut named = recorded.metrics.iter().filter(|metric| metric.name == name).map(|metric| metric.value).peekable();
        named.peek()?;
        Some(named.sum())
    }

    /// The highest sequence number that was acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(SeqCst)
    }

    /// Rejections so far, each with the sequence number of its batch.
    #[must_use]
    pub fn rejections(&self) -> Vec<(u64, Rejection)> {
        self.recorded().rejections.clone()
    }

    /// How often the instance has called `wake`.
    #[must_use]
    pub fn wakes(&self) -> u64 {
        self.recorded().wakes
    }

    /// Waits until something holds of what is recorded; looks again whenever something is recorded. False after `timeout`.
    pub fn wait_until(&self, timeout: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + timeout;
        while !holds(self) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.wait_for_change(left.min(Duration::from_millis(10)));
        }
        true
    }

    /// Waits until something is told, or for so long.
    pub(super) fn wait_for_change(&self, timeout: Duration) {
        let _ = self.changed.wait_timeout(self.recorded(), timeout);
    }
}

impl HostServices for TestHost {
    fn log(&self, level: LogLevel, json: &str) {
        self.recorded().logs.push((level, serde_json::from_str(json).unwrap_or_else(|_| json.into())));
        self.changed.notify_all();
    }

    fn register_metric(&self, name: &str, kind: MetricKind, labels: &str) -> u64 {
        let mut recorded = self.recorded();
        let known = recorded.metrics.iter().position(|metric| (metric.name.as_str(), metric.labels.as_str()) == (name, labels));
        let id = known.unwrap_or(recorded.metrics.len());
        if known.is_none() {
            recorded.metrics.push(Metric { name: name.to_owned(), labels: labels.to_owned(), kind, value: 0.0 });
        }
        id as u64
    }

    fn update_metric(&self, id: u64, value: f64) {
        if let Some(metric) = self.recorded().metrics.get_mut(id as usize) {
            metric.value = if metric.kind == MetricKind::Counter { metric.value + value } else { value };
        }
        self.changed.notify_all();
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    fn wake(&self) {
        self.recorded().wakes += 1;
        self.changed.notify_all();
    }

    fn completed(&self) {
        // Under the lock, so that nobody who has just looked misses it.
        let _recorded = self.recorded();
        self.changed.notify_all();
    }

    fn secret(&self, reference: &str) -> Result<(String, u64), String> {
        let recorded = self.recorded();
        let mut text = String::new();
        let mut rest = reference;
        while let Some(at) = rest.find("${") {
            if let Some(before) = rest[..at].strip_suffix('$') {
                text.push_str(before);
                text.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            text.push_str(&rest[..at]);
            let (name, after) = rest[at + 2..].split_once('}').ok_or_else(|| format!("{reference:?} has no closing brace"))?;
            text.push_str(recorded.secrets.get(name).ok_or_else(|| format!("{name} is not set"))?);
            rest = after;
        }
        text.push_str(rest);
        Ok((text, 1))
    }

    fn now(&self) -> i64 {
        self.now.load(SeqCst)
    }

    fn ack(&self, up_to_seq: u64) {
        self.acknowledged.fetch_max(up_to_seq, SeqCst);
        self.changed.notify_all();
    }

    fn reject(&self, seq: u64, rejections: Vec<Rejection>) {
        self.recorded().rejections.extend(rejections.into_iter().map(|rejection| (seq, rejection)));
        self.changed.notify_all();
    }
}
