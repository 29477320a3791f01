//! The host of an instance under test: a real clock, a token for cancellation, and a record of what the instance tells it.

use standpipe_sdk::{LogLevel, MetricKind, Rejection, hosting::HostServices};
use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What a template with references stands for, and the version of what is behind them; or one line that says which reference cannot be resolved.
#[derive(Clone)]
pub(crate) struct Secrets(pub(crate) Arc<Resolve>);

type Resolve = dyn Fn(&str) -> Result<(String, u64), String> + Send + Sync;

impl Default for Secrets {
    fn default() -> Self {
        Self(Arc::new(|reference| Err(format!("{reference:?} cannot be resolved here"))))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

/// See the module's documentation.
pub(crate) struct Watch {
    secrets: Secrets,
    cancelled: AtomicBool,
    metrics: AtomicU64,
    told: Mutex<Told>,
    changed: Condvar,
}

/// What an instance has told.
#[derive(Default)]
struct Told {
    /// The highest sequence number that it was given.
    given: u64,
    /// The highest that it has acknowledged.
    acknowledged: u64,
    /// The first acknowledgement of what it had not been given: the number, and the highest that it had.
    beyond: Option<(u64, u64)>,
    wakes: u64,
}

impl Watch {
    pub(crate) fn new(secrets: &Secrets) -> Arc<Self> {
        Arc::new(Self {
            secrets: secrets.clone(),
            cancelled: AtomicBool::new(false),
            metrics: AtomicU64::new(0),
            told: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks calls that block to return.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, SeqCst);
    }

    /// A sink is about to be given that batch.
    pub(crate) fn give(&self, seq: u64) {
        let mut told = self.told();
        told.given = told.given.max(seq);
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.told().acknowledged
    }

    /// See [`Told::beyond`].
    pub(crate) fn beyond(&self) -> Option<(u64, u64)> {
        self.told().beyond
    }

    pub(crate) fn wakes(&self) -> u64 {
        self.told().wakes
    }

    /// Waits for a wake after the first `before`; false: there was none.
    pub(crate) fn woken(&self, before: u64, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut told = self.told();
        while told.wakes <= before {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            told = self.changed.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl HostServices for Watch {
    fn log(&self, _: LogLevel, _: &str) {}

    fn register_metric(&self, _: &str, _: MetricKind, _: &str) -> u64 {
        self.metrics.fetch_add(1, SeqCst)
    }

    fn update_metric(&self, _: u64, _: f64) {}

    fn cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    fn wake(&self) {
        self.told().wakes += 1;
        self.changed.notify_all();
    }

    fn secret(&self, reference: &str) -> Result<(String, u64), String> {
        (self.secrets.0)(reference)
    }

    fn now(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn ack(&self, up_to_seq: u64) {
        let mut told = self.told();
        if up_to_seq > told.given && told.beyond.is_none() {
            told.beyond = Some((up_to_seq, told.given));
        }
        told.acknowledged = told.acknowledged.max(up_to_seq);
        self.changed.notify_all();
    }

    fn reject(&self, _: u64, _: Vec<Rejection>) {}
}
