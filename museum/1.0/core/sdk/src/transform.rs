//! What an author of a transform writes.

use crate::{Call, CloseReason, Config, Context, Result, wire};
use arrow_array::RecordBatch;
use arrow_schema::{FieldRef, SchemaRef};
use std::time::Duration;

pub use crate::wire::{Capabilities, ChangeMode, StateKind, TypeClass};

/// What a transform gets.
#[derive(Debug, Clone)]
pub struct TransformInput {
    /// The node's name in the pipeline.
    pub node: String,
    /// One per input.
    pub inputs: Vec<InputStream>,
    /// Whether the node has `key_by`.
    pub keyed: bool,
}

/// One input.
#[derive(Debug, Clone)]
pub struct InputStream {
    /// The node that it comes from.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its change mode.
    pub mode: ChangeMode,
    /// The columns of `key_by`.
    pub key: Vec<String>,
}

impl TransformInput {
    /// The only input.
    ///
    /// # Errors
    /// When there are several, or none.
    pub fn only(&self) -> Result<&InputStream> {
        match self.inputs.as_slice() {
            [input] => Ok(input),
            inputs => Err(crate::Error::config("", format!("takes one input, not {}", inputs.len()))),
        }
    }
}

/// What a transform will do with it.
#[derive(Debug, Clone, Default)]
pub struct TransformDeclaration {
    /// The main output first.
    pub outputs: Vec<OutputDeclaration>,
    /// Keyed state: the position in this list is the state's slot.
    pub states: Vec<StateDeclaration>,
    /// Whether it sets timers.
    pub timers: bool,
    /// Whether it needs `key_by`.
    pub requires_key: bool,
    /// That calls of `process` may end later than they return ([`Call::completion`]), in a node without `key_by`.
    pub asynchronous: Option<Asynchronous>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The change modes of inputs that it takes, besides append and the mode of its main output. `check` refuses a stream of another.
    pub accepts: Vec<ChangeMode>,
    /// Type classes of columns that it takes besides the plain ones. `check` refuses an input with a column of another.
    pub types: Vec<TypeClass>,
    /// Wrong values of the configuration or the input, all at once.
    pub problems: Vec<wire::Problem>,
}

/// What a transform wishes for its calls that end later; the pipeline's `async` is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asynchronous {
    /// Calls of a subtask that may be pending at the same time; `None`: as the host thinks, 16.
    pub capacity: Option<u32>,
    /// How long a call may be pending before the job fails; `None`: as the host thinks, 60 s.
    pub timeout: Option<Duration>,
}

/// An output.
#[derive(Debug, Clone)]
pub struct OutputDeclaration {
    /// `main` for the main one.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its change mode.
    pub mode: ChangeMode,
}

impl OutputDeclaration {
    /// The main output, append.
    #[must_use]
    pub fn main(schema: SchemaRef) -> Self {
        Self { name: "main".to_owned(), schema, mode: ChangeMode::Append }
    }
}

/// A keyed state.
#[derive(Debug, Clone)]
pub struct StateDeclaration {
    /// Unique in the node.
    pub name: String,
    /// Its shape.
    pub kind: StateKind,
    /// The value's type (for a map: a struct of `key` and `value`).
    pub field: FieldRef,
    /// Grows when the meaning changes.
    pub version: u32,
    /// How long a key's value, list or map lives after its last write, by the processing time; whoever looks later finds nothing.
    pub time_to_live: Option<Duration>,
}

/// Which clock a timer follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeDomain {
    /// Due when the watermark passes.
    EventTime,
    /// Due when the clock passes.
    ProcessingTime,
}

/// A timer that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// The ordinal of its key in this call.
    pub ordinal: u32,
    /// The transform's own number for its purpose.
    pub slot: u32,
    /// Microseconds since the epoch.
    pub time: i64,
}

/// A transform: one per subtask, on one thread from `open` to the end. Calls are serial; what it emits and writes in a call takes effect when the call returns `Ok`.
pub trait Transform: Sized + Send + 'static {
    /// The name in pipelines: `transform: NAME`.
    const NAME: &'static str;
    /// The `with:` of a pipeline. Its doc comments become the reference.
    type Config: Config;

    /// What the transform will do with these inputs. No I/O.
    ///
    /// # Errors
    /// When nothing can be said; wrong values go to `problems`. Texts with references to secrets are as written ([`crate::is_reference`], [`Config`]).
    fn declare(config: &Self::Config, input: &TransformInput) -> Result<TransformDeclaration>;

    /// Gets ready.
    ///
    /// # Errors
    /// `Error::external` for what is missing or unreachable.
    fn open(config: Self::Config, input: &TransformInput, context: Context) -> Result<Self>;

    /// Takes a batch of an input ([`Call::input`]), emits what follows from it. What must be waited for goes elsewhere with the call's [`Call::completion`].
    ///
    /// # Errors
    /// Ends the job; nothing of the call has happened.
    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()>;

    /// Timers are due.
    ///
    /// # Errors
    /// As `process`.
    fn on_timer(&mut self, domain: TimeDomain, timers: &[Timer], call: &mut Call<'_>) -> Result<()> {
        let _ = (domain, timers, call);
        Ok(())
    }

    /// The watermark has advanced, microseconds since the epoch. Calls before it may not have ended; what is emitted here goes on behind them.
    ///
    /// # Errors
    /// As `process`.
    fn on_watermark(&mut self, time: i64, call: &mut Call<'_>) -> Result<()> {
        let _ = (time, call);
        Ok(())
    }

    /// The host is about to wait for all calls that have not ended, before the cut of that checkpoint or, without one, before an input's `finish`: what was put off is to be
    /// begun. It need not wait itself.
    ///
    /// # Errors
    /// As `process`.
    fn drain(&mut self, checkpoint: Option<u64>) -> Result<()> {
        let _ = checkpoint;
        Ok(())
    }

    /// What an unkeyed transform must remember. Every call has ended.
    ///
    /// # Errors
    /// Fails the checkpoint.
    fn snapshot(&mut self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Goes on from the snapshots of one or more former subtasks.
    ///
    /// # Errors
    /// Fails the restart.
    fn restore(&mut self, parts: &[&[u8]]) -> Result<()> {
        let _ = parts;
        Ok(())
    }

    /// An input has ended, and so has every call.
    ///
    /// # Errors
    /// As `process`.
    fn finish(&mut self, call: &mut Call<'_>) -> Result<()> {
        let _ = call;
        Ok(())
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
