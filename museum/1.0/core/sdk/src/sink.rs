//! What an author of a sink writes.

use crate::{CloseReason, Config, Context, Result, wire};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

pub use crate::wire::{Capabilities, ChangeMode, Encoding, TypeClass};

/// What a sink would get: the rows of its input.
#[derive(Debug, Clone)]
pub struct SinkInput {
    /// The node's name in the pipeline.
    pub node: String,
    /// In `declare`: the columns of the rows. In `open` and `write`: those of the batches, which for encoded records are `value` (binary, null: a tombstone) and the
    /// columns asked for.
    pub schema: SchemaRef,
    /// Its change mode.
    pub mode: ChangeMode,
    /// The key columns of an upsert stream.
    pub key: Vec<String>,
    /// The pipeline's `format` in its long form (`{"type": "csv", "delimiter": ";"}`), for a sink that writes files. None: the pipeline has none.
    pub format: Option<serde_json::Value>,
}

/// What a sink will do with it.
#[derive(Debug, Clone, Default)]
pub struct SinkDeclaration {
    /// Whether it takes typed columns, encoded records, or typed columns that it encodes itself.
    pub encoding: Encoding,
    /// For encoded records: the row's columns that it wants beside `value`.
    pub columns: Vec<String>,
    /// The change modes that it takes; empty: append only. `check` refuses a stream of another.
    pub accepts: Vec<ChangeMode>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// With [`Capabilities::idempotent`]: the columns by which it tells rows apart; empty: any may count. Where one of them depends on the clock or on chance, `check`
    /// says that a row may be there twice.
    pub id: Vec<String>,
    /// Subtasks at most.
    pub max_subtasks: Option<u32>,
    /// Type classes of columns that it takes besides the plain ones. `check` refuses an input with a column of another.
    pub types: Vec<TypeClass>,
    /// Wrong values of the configuration, all at once.
    pub problems: Vec<wire::Problem>,
}

/// Whether a batch was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The sink will acknowledge it, by [`crate::Host::ack`], at the latest in `flush`.
    Taken,
    /// No room: the host tries again after [`crate::Host::wake`].
    Busy,
}

/// What a sink knows after a restart of something it prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// It was committed.
    Committed,
    /// It must be committed now.
    Commit,
    /// It is gone, and was not committed: the start ends with an error that says which checkpoint it was.
    Lost,
}

/// What a subtask prepared for a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committable {
    /// The checkpoint.
    pub checkpoint: u64,
    /// The subtask that prepared it.
    pub subtask: u32,
    /// What `prepare` returned.
    pub bytes: Vec<u8>,
}

/// A sink: one per subtask, on a thread of its own, from `open` to the end. Calls are serial; they may block, watching [`crate::Host::cancelled`].
pub trait Sink: Sized + Send + 'static {
    /// The name in pipelines: `connector: NAME`.
    const NAME: &'static str;
    /// The `with:` of a pipeline. Its doc comments become the reference.
    type Config: Config;

    /// What the sink will do with that input. No I/O.
    ///
    /// # Errors
    /// When nothing can be said; wrong values go to `problems`. Texts with references to secrets are as written ([`crate::is_reference`], [`Config`]).
    fn declare(config: &Self::Config, input: &SinkInput) -> Result<SinkDeclaration>;

    /// Connects.
    ///
    /// # Errors
    /// `Error::external` for what is missing or unreachable.
    fn open(config: Self::Config, input: &SinkInput, context: Context) -> Result<Self>;

    /// Takes a batch; `seq` counts from 1 without gaps.
    ///
    /// # Errors
    /// Ends the job.
    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written>;

    /// Returns when all that was written is delivered and acknowledged. `checkpoint` is 0 outside a checkpoint.
    ///
    /// # Errors
    /// Fails the checkpoint.
    fn flush(&mut self, checkpoint: u64) -> Result<()>;

    /// Makes what was written since the last `prepare` ready to be committed.
    ///
    /// # Errors
    /// Fails the checkpoint.
    fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>> {
        self.flush(checkpoint)?;
        Ok(Vec::new())
    }

    /// Commits all that was prepared up to that checkpoint. Idempotent.
    ///
    /// # Errors
    /// Restarts the job; the commit is repeated.
    fn commit(&mut self, up_to: u64, prepared: &[Committable]) -> Result<()> {
        let _ = (up_to, prepared);
        Ok(())
    }

    /// After a restart: what became of these, in order?
    ///
    /// # Errors
    /// Fails the restart.
    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        Ok(vec![Recovered::Committed; prepared.len()])
    }

    /// Gives up what was prepared for checkpoints that the job does not go on from: it was restored from an older one, whose rows come again. Called behind [`Self::recover`],
    /// and not where there is nothing to give up. Some of it, or all, may have been committed, or given up before. Not called for a sink that has its rows kept in the checkpoint
    /// (`needs_log`).
    ///
    /// # Errors
    /// Fails the restart.
    fn abort(&mut self, prepared: &[Committable]) -> Result<()> {
        let _ = prepared;
        Ok(())
    }

    /// All inputs have ended: delivers everything and ends cleanly.
    ///
    /// # Errors
    /// Fails the job.
    fn finish(&mut self) -> Result<()> {
        self.flush(0)
    }

    /// Ends it.
    ///
    /// # Errors
    /// Logged.
    fn close(&mut self, reason: CloseReason) -> Result<()> {
        let _ = reason;
        Ok(())
    }
}
