//! What an operator is to the engine: one subtask's logic, deterministic, without threads, clocks or timely, so that a test can drive it alone.
//!
//! The dataflow (`dataflow/`) drives it on an engine worker, or, for plugins, on their task thread. Order of calls: `restore` at most once first; then batches and
//! watermarks as they come; `snapshot` between two calls, any number of times. Watermarks given to an operator are already the minimum over the upstream subtasks
//! that are not idle; they never go back. The watermark [`END`] is the last of an input.

use arrow::array::RecordBatch;
use standpipe_loader::CloseReason;
use standpipe_state::{Cut, KeyGroupRange, LazyTables};
use std::sync::Arc;

/// Event time in microseconds since the epoch.
pub type Micros = i64;
/// Before any watermark.
pub const NO_WATERMARK: Micros = i64::MIN;
/// The watermark of an input that has ended.
pub const END: Micros = i64::MAX;

/// What an operator gives during a call; the dataflow sends it on in this order.
#[derive(Debug, Default)]
pub struct Emitter {
    batches: Vec<(u32, RecordBatch)>,
}

impl Emitter {
    /// Gives a batch to an output; an empty batch is dropped.
    pub fn emit(&mut self, output: u32, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.batches.push((output, batch));
        }
    }

    /// What was given since the last call.
    pub fn drain(&mut self) -> std::vec::Drain<'_, (u32, RecordBatch)> {
        self.batches.drain(..)
    }
}

/// State of one operator subtask at a cut: named tables that other tools can read, each with a `key_group` column (uint16) where the state is keyed. A table may have
/// changes alone, if the cut allows it: then it says since when ([`standpipe_state::snapshot::since`]), also where there are none.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// By name, unique in the operator: `panes`, `keys`, `timers`, `state.run`.
    pub tables: Vec<(String, RecordBatch)>,
    /// Of a snapshot that was taken: tables that are still to be read, by whoever writes them.
    pub rest: Option<LazyTables>,
    /// Of a snapshot to restore from: tables that are read one by one, after the others.
    pub stored: Option<Arc<dyn StoredTables>>,
}

impl From<Vec<(String, RecordBatch)>> for Snapshot {
    fn from(tables: Vec<(String, RecordBatch)>) -> Self {
        Self { tables, rest: None, stored: None }
    }
}

/// Tables of a checkpoint that are not read at once, because they may be larger than memory.
pub trait StoredTables: std::fmt::Debug + Send + Sync {
    /// Gives those that may have rows of these key groups, in their order.
    ///
    /// # Errors
    /// When one cannot be read, or as `take`, in words.
    fn read(&self, owned: KeyGroupRange, take: &mut dyn FnMut(&str, RecordBatch) -> Result<(), String>) -> Result<(), String>;
}

/// Why an operator cannot go on; ends the job with this cause.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// A plugin's failure.
    #[error(transparent)]
    Plugin(#[from] standpipe_loader::PluginError),
    /// An expression or aggregate failed on the data.
    #[error("{node}: {source}")]
    Expression {
        /// `transforms.shaped`
        node: String,
        /// What DataFusion said.
        source: datafusion_common::DataFusionError,
    },
    /// Arrow refused what should have been right.
    #[error("{node}: {source}")]
    Arrow {
        /// `transforms.shaped`
        node: String,
        /// What Arrow said.
        source: arrow::error::ArrowError,
    },
    /// A record, row or snapshot that cannot be used.
    #[error("{node}: {message}")]
    Data {
        /// `sources.readings`
        node: String,
        /// One line.
        message: String,
    },
}

/// One subtask of an operator, on the thread that made it. See the module's documentation for the order of calls.
pub trait Operator {
    /// Takes a batch of an input.
    ///
    /// # Errors
    /// Ends the job.
    fn on_batch(&mut self, input: u32, batch: RecordBatch, out: &mut Emitter) -> Result<(), OperatorError>;

    /// The watermark of an input is now `watermark`. The dataflow passes it on downstream after what the call emitted.
    ///
    /// # Errors
    /// Ends the job.
    fn on_watermark(&mut self, input: u32, watermark: Micros, out: &mut Emitter) -> Result<(), OperatorError>;

    /// The processing time is now `now`; called for operators that asked by [`Operator::next_wakeup`].
    ///
    /// # Errors
    /// Ends the job.
    fn on_processing_time(&mut self, now: Micros, out: &mut Emitter) -> Result<(), OperatorError> {
        let _ = (now, out);
        Ok(())
    }

    /// How far behind the watermark given to it what it still emits may be: the dataflow passes its watermark on less this, `END` as it is.
    fn watermark_delay(&self) -> Micros {
        0
    }

    /// Nothing follows: lets go of what is outside. What it must still emit it has emitted at [`END`].
    fn close(&mut self, reason: CloseReason) {
        let _ = reason;
    }

    /// When the operator wants `on_processing_time` next; `None`: never.
    fn next_wakeup(&self) -> Option<Micros> {
        None
    }

    /// The state at this point, without consuming it: all of it, or what has changed since a checkpoint on which the cut may build.
    ///
    /// # Errors
    /// Fails the checkpoint.
    fn snapshot(&mut self, cut: Cut) -> Result<Snapshot, OperatorError>;

    /// Goes on from the snapshots of former subtasks (any number: parallelism may have changed); keeps the key groups in `owned`. A table may come several times: whole
    /// first, then its changes.
    ///
    /// # Errors
    /// When a snapshot does not fit.
    fn restore(&mut self, parts: &[Snapshot], owned: KeyGroupRange) -> Result<(), OperatorError>;
}
