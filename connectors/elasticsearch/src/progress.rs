//! How far delivery is: what is buffered (shared with the host's thread, for `Busy`), which batches are done (acknowledged in order), and the counts, for which
//! `documents_in = ok + dead_lettered + dropped + in_flight` always holds. `sender` reports, `sink` waits.

use crate::{config::OnReject, pressure::Pressure, response::Fault};
use serde_json::{Map, Value};
use standpipe_sdk::{Counter, Error, ErrorCode, Gauge, Host, Rejection, Result};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// How often a wait looks whether the host has cancelled it.
const CANCEL_POLL: Duration = Duration::from_millis(20);
/// How long a flush waits while the server takes nothing: then it fails in a way that may pass, so that the host shows why, and calls it again.
const TROUBLE_PATIENCE: Duration = Duration::from_secs(1);

/// What the sink's two threads share.
pub(crate) struct Shared {
    pub(crate) host: Host,
    buffered: AtomicUsize,
    limit: usize,
    /// Whether the host was told `Busy` and waits to be woken.
    is_waited_for: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    acknowledged: u64,
    /// A request has been answered, whatever the answer was, or could not be sent.
    has_answer: bool,
    failure: Option<Error>,
    /// Why the server takes nothing for now.
    trouble: Option<Error>,
}

impl Shared {
    pub(crate) fn new(host: Host, limit: usize) -> Arc<Self> {
        let (buffered, is_waited_for) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { host, buffered, limit, is_waited_for, state: Mutex::default(), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for a batch; if not, the host will be woken.
    pub(crate) fn has_room(&self) -> bool {
        let has_room = || self.buffered.load(SeqCst) < self.limit;
        if has_room() {
            return true;
        }
        self.is_waited_for.store(true, SeqCst);
        // Room may have come before the flag was up.
        has_room() && self.is_waited_for.swap(false, SeqCst)
    }

    /// Counts bytes in until the permit is dropped.
    pub(crate) fn take_room(self: &Arc<Self>, bytes: usize) -> Permit {
        self.buffered.fetch_add(bytes, SeqCst);
        Permit { shared: Arc::clone(self), bytes }
    }

    /// The failure that ends the job, if there is one.
    pub(crate) fn check(&self) -> Result<()> {
        self.state().failure.clone().map_or(Ok(()), Err)
    }

    /// The job cannot go on. The first failure stays.
    pub(crate) fn fail(&self, error: Error) {
        self.state().failure.get_or_insert(error);
        self.changed.notify_all();
        self.host.wake();
    }

    /// A request was answered, or could not be sent.
    pub(crate) fn answered(&self) {
        if !std::mem::replace(&mut self.state().has_answer, true) {
            self.changed.notify_all();
        }
    }

    /// Why the server takes nothing for now; an error that may pass.
    pub(crate) fn trouble(&self) -> Option<Error> {
        self.state().trouble.clone()
    }

    /// Waits until everything up to `seq` is acknowledged.
    ///
    /// # Errors
    /// The failure, or the trouble if it is there for longer.
    pub(crate) fn wait(&self, seq: u64) -> Result<()> {
        while !self.wait_until(TROUBLE_PATIENCE, |state| state.acknowledged >= seq)? {
            if let Some(trouble) = self.trouble() {
                return Err(trouble);
            }
        }
        Ok(())
    }

    /// Waits for the first answer, or until everything up to `seq` is acknowledged without one, `patience` at most.
    pub(crate) fn wait_for_answer(&self, seq: u64, patience: Duration) -> Result<()> {
        self.wait_until(patience, |state| state.has_answer || state.acknowledged >= seq).map(drop)
    }

    /// Whether it was reached in time.
    fn wait_until(&self, patience: Duration, is_reached: impl Fn(&State) -> bool) -> Result<bool> {
        let start = Instant::now();
        let mut state = self.state();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            let is_reached = is_reached(&state);
            if is_reached || start.elapsed() >= patience {
                return Ok(is_reached);
            }
            if self.host.cancelled() {
                return Err(Error::cancelled());
            }
            state = self.changed.wait_timeout(state, CANCEL_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Room in the buffer.
pub(crate) struct Permit {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let left = self.shared.buffered.fetch_sub(self.bytes, SeqCst) - self.bytes;
        // Not at the first free byte: a batch should fit.
        if left <= self.shared.limit / 4 * 3 && self.shared.is_waited_for.swap(false, SeqCst) {
            self.shared.host.wake();
        }
    }
}

/// Follows the batches and counts.
pub(crate) struct Progress {
    shared: Arc<Shared>,
    on_reject: OnReject,
    /// The sequence number of the first batch that is not done.
    first: u64,
    /// Rows that are not done, by batch.
    remaining: VecDeque<usize>,
    in_flight: u64,
    metrics: Metrics,
}

struct Metrics {
    taken: Counter,
    ok: Counter,
    dead_lettered: Counter,
    dropped: Counter,
    in_flight: Gauge,
    retried: Counter,
    fallbacks: Counter,
    requests: Counter,
    bytes: Counter,
    requests_allowed: Gauge,
    documents_allowed: Gauge,
    degraded: Gauge,
}

impl Progress {
    pub(crate) fn new(shared: Arc<Shared>, on_reject: OnReject) -> Self {
        let counter = |name: &str| shared.host.counter(name, &[]);
        let metrics = Metrics {
            taken: counter("documents_in"),
            ok: counter("documents_ok"),
            dead_lettered: counter("documents_dead_lettered"),
            dropped: counter("documents_dropped"),
            in_flight: shared.host.gauge("documents_in_flight", &[]),
            retried: counter("documents_retried"),
            fallbacks: counter("index_fallbacks"),
            requests: counter("bulk_requests"),
            bytes: counter("bulk_bytes"),
            requests_allowed: shared.host.gauge("bulk_requests_allowed", &[]),
            documents_allowed: shared.host.gauge("bulk_documents_allowed", &[]),
            degraded: shared.host.gauge("degraded", &[]),
        };
        Self { shared, on_reject, first: 1, remaining: VecDeque::new(), in_flight: 0, metrics }
    }

    /// A batch has come; sequence numbers have no gaps.
    pub(crate) fn begin(&mut self, seq: u64, rows: usize, fallbacks: u64) {
        let next = self.first + self.remaining.len() as u64;
        if seq != next {
            let message = format!("the host wrote batch {seq} where {next} was due");
            return self.shared.fail(Error::new(ErrorCode::OUT_OF_RANGE, message));
        }
        self.remaining.push_back(rows);
        self.in_flight += rows as u64;
        self.metrics.taken.add(rows as u64);
        self.metrics.fallbacks.add(fallbacks);
    }

    /// Rows of a batch are delivered.
    pub(crate) fn ok(&mut self, seq: u64, rows: usize) {
        self.done(seq, rows);
        self.metrics.ok.add(rows as u64);
    }

    /// Rows of a batch are refused for good.
    pub(crate) fn rejected(&mut self, seq: u64, rejections: &[Rejection]) {
        let rows = rejections.len();
        let Some(first) = rejections.first() else { return };
        match self.on_reject {
            OnReject::Fail => {
                let details: Map<String, Value> = serde_json::from_str(&first.details).unwrap_or_default();
                let index =
                    details.get("index").and_then(Value::as_str).map(|index| format!(" for the index {index:?}")).unwrap_or_default();
                let message = format!("a row{index} was refused for good ({}); on_reject: dead-letter or drop would go on", first.reason);
                self.shared.fail(Error { details, ..Error::data(message) });
            }
            OnReject::DeadLetter => match self.shared.host.reject(seq, rejections) {
                Ok(()) => {
                    self.done(seq, rows);
                    self.metrics.dead_lettered.add(rows as u64);
                }
                Err(error) => self.shared.fail(error),
            },
            OnReject::Drop => {
                self.done(seq, rows);
                self.metrics.dropped.add(rows as u64);
            }
        }
    }

    /// A request is sent.
    pub(crate) fn sent(&self, bytes: usize) {
        self.metrics.requests.add(1);
        self.metrics.bytes.add(bytes as u64);
    }

    /// How many requests at the same time, and documents in each, the server gets for now.
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    pub(crate) fn allowed(&self, pressure: &Pressure) {
        self.metrics.requests_allowed.set(pressure.requests() as f64);
        self.metrics.documents_allowed.set(pressure.docs() as f64);
    }

    /// Items will be sent again.
    pub(crate) fn retried(&self, items: usize) {
        self.metrics.retried.add(items as u64);
    }

    /// The server takes nothing for now, or takes documents again (`None`).
    pub(crate) fn set_trouble(&self, trouble: Option<Error>) {
        let is_degraded = trouble.is_some();
        self.shared.state().trouble = trouble;
        self.metrics.degraded.set(f64::from(u8::from(is_degraded)));
    }

    fn done(&mut self, seq: u64, rows: usize) {
        let place = seq.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(remaining) = place.and_then(|place| self.remaining.get_mut(place)) {
            *remaining -= rows;
            self.in_flight -= rows as u64;
        }
    }

    /// Acknowledges what is done, in order.
    #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub(crate) fn settle(&mut self) {
        let done = self.remaining.iter().take_while(|rows| **rows == 0).count();
        self.metrics.in_flight.set(self.in_flight as f64);
        if done == 0 || self.has_failed() {
            return;
        }
        self.remaining.drain(..done);
        self.first += done as u64;
        let acknowledged = self.first - 1;
        self.shared.host.ack(acknowledged);
        self.shared.state().acknowledged = acknowledged;
        self.shared.changed.notify_all();
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.shared.state().failure.is_some()
    }
}

/// Why nothing is taken for now.
pub(crate) fn trouble(url: &str, fault: &Fault) -> Error {
    let error = Error::external(format!("{url} does not take documents ({fault})"));
    error.with("status", fault.status).with("type", fault.kind.as_str()).retryable()
}

/// The end: what answers there does not let us write, or is something else.
pub(crate) fn refusal(url: &str, fault: &Fault) -> Error {
    let what = if fault.is_denied() { "does not let us write" } else { "does not understand _bulk, so it is no Elasticsearch" };
    Error::external(format!("{url} {what} ({fault})")).with("status", fault.status).with("type", fault.kind.as_str())
}
