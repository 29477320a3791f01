//! Plugins that live in the test: sources, sinks that remember what they got, transforms. Each test has a [`Probe`] by name, through which it sees what happened and lets
//! things go wrong.

mod collect;
mod later;
mod ledger;
mod numbers;
mod texts;
mod transforms;

pub use collect::*;
pub use later::*;
pub use ledger::*;
pub use numbers::*;
pub use texts::*;
pub use transforms::*;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
};
use standpipe_sdk::{CloseReason, Error, Result};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

static PROBES: LazyLock<Mutex<HashMap<String, Arc<Probe>>>> = LazyLock::new(Mutex::default);

/// What a test sees and steers.
#[derive(Default)]
pub struct Probe {
    /// Batches that sinks got, by node and subtask.
    pub written: Mutex<BTreeMap<(String, u32), Vec<RecordBatch>>>,
    /// How instances were closed: node, subtask, reason.
    pub closed: Mutex<Vec<(String, u32, CloseReason)>>,
    /// Positions that were committed upstream.
    pub committed: Mutex<BTreeMap<String, Vec<u8>>>,
    /// How often a source has paused a split.
    pub paused: AtomicU64,
    /// Rows that sources gave.
    pub read: AtomicU64,
    /// Sinks acknowledge nothing while this is set.
    pub stuck: AtomicBool,
    /// Sinks that have finished.
    pub finished: AtomicU64,
    /// What a sink got as its secret.
    pub secret: Mutex<String>,
    /// The function of sinks that fails, in a way that may pass: `write`, `flush`, `finish`.
    pub unreachable: Mutex<String>,
    /// How often it has failed.
    pub attempts: AtomicU64,
    /// Splits that are quiet go on, and transforms that wait.
    pub awake: AtomicBool,
    /// Transforms that wait, or have.
    pub waiting: AtomicU64,
    /// What sinks have committed.
    pub book: Mutex<Book>,
    /// Calls of a transform that wait for the test.
    pub calls: Mutex<Vec<HeldCall>>,
    /// Calls that were pending at the same time in a subtask, at most.
    pub most_pending: AtomicU64,
    /// The checkpoints before which calls were waited for; `None` before an end.
    pub drains: Mutex<Vec<Option<u64>>>,
    /// Rows that a transform has counted in its state, by node.
    pub counted: Mutex<BTreeMap<String, u64>>,
    /// When a plugin failed as it was told to.
    pub failed: Mutex<Option<Instant>>,
}

impl Probe {
    pub fn of(name: &str) -> Arc<Self> {
        Arc::clone(PROBES.lock().unwrap().entry(name.to_owned()).or_default())
    }

    /// A plugin is about to fail.
    pub fn fails(&self) {
        self.failed.lock().unwrap().get_or_insert_with(Instant::now);
    }

    /// A transform waits until the probe is awake, or the test has given up.
    pub(super) fn waits(&self) {
        let begun = Instant::now();
        self.waiting.fetch_add(1, SeqCst);
        while !self.awake.load(SeqCst) && begun.elapsed() < 2 * crate::support::PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Fails a sink's function if it is the one to fail.
    pub(super) fn reach(&self, function: &str) -> Result<()> {
        if *self.unreachable.lock().unwrap() != function {
            return Ok(());
        }
        self.attempts.fetch_add(1, SeqCst);
        Err(Error::external("the index does not answer").retryable())
    }

    /// All rows of a sink, in the order of each subtask.
    pub fn rows(&self, sink: &str) -> Vec<RecordBatch> {
        self.written.lock().unwrap().iter().filter(|((node, _), _)| node == sink).flat_map(|(_, batches)| batches.clone()).collect()
    }

    /// The rows of a sink that are committed.
    pub fn committed_rows(&self, sink: &str) -> Vec<RecordBatch> {
        self.book.lock().unwrap().rows.get(sink).cloned().unwrap_or_default()
    }

    /// The values of an integer column of a sink, sorted.
    pub fn values(&self, sink: &str, column: &str) -> Vec<i64> {
        let batches = self.rows(sink);
        let column = |batch: &RecordBatch| batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec();
        let mut values: Vec<i64> = batches.iter().flat_map(column).collect();
        values.sort_unstable();
        values
    }

    /// The encoded records of a sink, sorted.
    pub fn lines(&self, sink: &str) -> Vec<String> {
        let batches = self.rows(sink);
        let records = batches.iter().flat_map(|batch| batch.column(0).as_binary::<i32>().iter().flatten());
        let mut lines: Vec<String> = records.map(|record| String::from_utf8_lossy(record).into_owned()).collect();
        lines.sort_unstable();
        lines
    }

    pub fn row_count(&self, sink: &str) -> usize {
        self.rows(sink).iter().map(RecordBatch::num_rows).sum()
    }
}
