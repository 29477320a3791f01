//! What an author of a source writes: an [`Enumerator`] that finds splits, and a [`Source`] that reads them.

use crate::{Config, Context, Result, wire};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use std::time::Duration;

pub use crate::wire::{Capabilities, Discovery, Encoding, SplitDescription, SplitLag};

/// What a source will give with its configuration.
#[derive(Debug, Clone)]
pub struct SourceDeclaration {
    /// Whether batches hold typed columns or encoded records.
    pub encoding: Encoding,
    /// The columns of a batch. For encoded records: `value` (binary, view or string) first, then what else comes with a record.
    pub schema: SchemaRef,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Wrong values of the configuration, all at once.
    pub problems: Vec<wire::Problem>,
}

/// A split to read, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The id that the enumerator gave.
    pub id: String,
    /// The enumerator's details.
    pub details: String,
    /// The position after the last row taken; `None`: the beginning as the configuration says.
    pub position: Option<Vec<u8>>,
}

/// How much a `poll` may return and how long it may wait.
#[derive(Debug, Clone, Copy)]
pub struct PollLimits {
    /// Rows at most.
    pub max_rows: usize,
    /// Bytes, about.
    pub max_bytes: usize,
    /// How long to wait for data.
    pub wait: Duration,
}

/// What a `poll` found.
#[derive(Debug)]
pub enum Poll {
    /// Rows of one split.
    Batch {
        /// The split.
        split: String,
        /// Its rows. None: the split has been read up to where it ends now and has nothing more at present. Until it has rows again it holds up no watermark.
        batch: RecordBatch,
        /// The position after them; text is best, checkpoints show it.
        position: Vec<u8>,
        /// A lower bound for the event times of what follows in the split, microseconds since the epoch.
        watermark: Option<i64>,
    },
    /// Nothing now, in any of the splits: an empty [`Poll::Batch`] of each of them at once.
    Idle,
    /// That split has been read to its end for good.
    EndOfSplit(String),
}

/// A source's reader: one per subtask, on a thread of its own, from `open` to the end. Calls are serial.
pub trait Source: Sized + Send + 'static {
    /// The name in pipelines: `connector: NAME`.
    const NAME: &'static str;
    /// The `with:` of a pipeline. Its doc comments become the reference.
    type Config: Config;
    /// Finds the splits; [`SingleSplit`] for a source that has one.
    type Enumerator: Enumerator<Config = Self::Config>;

    /// What the source will give. No I/O.
    ///
    /// # Errors
    /// When nothing can be said; wrong values go to `problems`. Texts with references to secrets are as written ([`crate::is_reference`], [`Config`]).
    fn declare(config: &Self::Config) -> Result<SourceDeclaration>;

    /// Connects.
    ///
    /// # Errors
    /// `Error::external` for what is missing or unreachable.
    fn open(config: Self::Config, context: Context) -> Result<Self>;

    /// Adds splits.
    ///
    /// # Errors
    /// When a split cannot be read from its position.
    fn assign(&mut self, splits: Vec<Split>) -> Result<()>;

    /// Gives splits back, each with the position after the last row given, in the order asked.
    ///
    /// # Errors
    /// When the source cannot.
    fn unassign(&mut self, splits: &[String]) -> Result<Vec<Vec<u8>>> {
        let _ = splits;
        Err(crate::Error::unsupported("this source cannot give splits back"))
    }

    /// Reads some rows of one split, the splits in turns.
    ///
    /// A split that has nothing now must not hold up the event time of the others. A source that knows says so: once per split by a batch without rows when it has read it up to
    /// where it ends now (with the position it has reached), or by [`Poll::Idle`] for all splits that it was assigned.
    ///
    /// # Errors
    /// Ends the job, unless it is retryable.
    fn poll(&mut self, limits: PollLimits) -> Result<Poll>;

    /// Reads no more of these splits until `resume`: they are too far ahead of others in event time (`max_drift`), maybe before anything was read of them. The others are read on,
    /// and those that wait for their turn get it: none may wait for a split that is paused. What is said of all splits, as by [`Poll::Idle`], is said of those that are
    /// not paused. While all of them are, `poll` is not called. A split that is given back is no longer paused.
    ///
    /// # Errors
    /// When the source cannot. [`crate::Error::unsupported`], as by default: then a subtask can be held back that has one split, and a job whose subtask has several ends with this error
    /// once one of them is too far ahead.
    fn pause(&mut self, splits: &[String]) -> Result<()> {
        let _ = splits;
        Err(crate::Error::unsupported("this source cannot pause splits"))
    }

    /// Ends a pause: these splits are read on from where they were left.
    ///
    /// # Errors
    /// When the source cannot.
    fn resume(&mut self, splits: &[String]) -> Result<()> {
        let _ = splits;
        Err(crate::Error::unsupported("this source cannot pause splits"))
    }

    /// The checkpoint is durable with these positions: they may be committed upstream. A failure is logged, not fatal.
    ///
    /// # Errors
    /// When upstream refused.
    fn checkpoint_committed(&mut self, checkpoint: u64, positions: &[(String, Vec<u8>)]) -> Result<()> {
        let _ = (checkpoint, positions);
        Ok(())
    }

    /// How far behind it is, per split.
    fn lag(&self) -> Vec<SplitLag> {
        Vec::new()
    }

    /// Ends it.
    ///
    /// # Errors
    /// Logged.
    fn close(&mut self, reason: crate::CloseReason) -> Result<()> {
        let _ = reason;
        Ok(())
    }
}

/// Finds the splits of a source: one per job, on a thread of its own.
pub trait Enumerator: Sized + Send + 'static {
    /// The source's configuration.
    type Config: Config;

    /// Connects.
    ///
    /// # Errors
    /// `Error::external` for what is missing or unreachable: a topic, a directory.
    fn open(config: Self::Config, context: Context) -> Result<Self>;

    /// What has changed since the last call, waiting for at most `wait`. The first answer should hold all splits that there are: of one that is told later (a
    /// partition that was added, a file that came) the job has not waited with its watermark, so that rows older than what has been read may be late.
    ///
    /// # Errors
    /// Ends the job, unless it is retryable.
    fn discover(&mut self, wait: Duration) -> Result<Discovery>;

    /// What to remember across a restart.
    ///
    /// # Errors
    /// Fails the checkpoint.
    fn snapshot(&mut self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Goes on from a snapshot, before the first `discover`.
    ///
    /// # Errors
    /// When it cannot read it.
    fn restore(&mut self, snapshot: &[u8]) -> Result<()> {
        let _ = snapshot;
        Ok(())
    }
}

/// The enumerator of a source with one split, whose id is `0`.
pub struct SingleSplit<C>(std::marker::PhantomData<fn(C)>);

impl<C: Config> Enumerator for SingleSplit<C> {
    type Config = C;

    fn open(_: C, _: Context) -> Result<Self> {
        Ok(Self(std::marker::PhantomData))
    }

    fn discover(&mut self, _: Duration) -> Result<Discovery> {
        let only = SplitDescription { split: "0".to_owned(), details: String::new() };
        Ok(Discovery { added: vec![only], removed: Vec::new(), exhausted: true })
    }
}
