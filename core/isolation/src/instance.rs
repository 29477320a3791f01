//! What the engine calls: an instance that is here, or one in a process of its own. The calls are those of [`standpipe_loader`]'s instances, and mean the same.

use crate::{
    Launcher, Limits,
    apart::{self, Apart},
};
use arrow_array::RecordBatch;
use arrow_schema::FieldRef;
use serde_json::Value;
use standpipe_loader::{
    Begun, CloseReason, Committable, Discovery, Emitted, Ended, Error, HostServices, InstanceContext, KeyedCall, NodeInput, PluginError,
    Polled, Recovered, SinkInstance, SinkKind, SourceEnumerator, SourceKind, SourceReader, SplitLag, SplitPosition, TimeDomain, Timer,
    TransformInstance, TransformKind, Written, wire::StateDetails,
};
use std::{sync::Arc, time::Duration};

/// An instance to be made, whatever its kind is.
pub struct Maker<'a> {
    /// Where it is to be: here, or in a process that is started so and may use so much.
    pub apart: Option<(&'a Launcher, &'a Limits)>,
    /// Its configuration.
    pub config: &'a Value,
    /// Its place in the job.
    pub context: &'a InstanceContext,
    /// What it may ask of its host.
    pub host: Arc<dyn HostServices>,
}

impl Maker<'_> {
    /// A reader, not open yet.
    ///
    /// # Errors
    /// When the configuration is wrong, a secret cannot be resolved, or no process can be started.
    pub fn reader(self, kind: &SourceKind) -> Result<Reader, PluginError> {
        let Self { apart, config, context, host } = self;
        Ok(Reader(match apart {
            None => Place::Here(kind.reader(config, context, host)?),
            Some(apart) => Place::Apart(apart::Reader::start(&place(apart), kind, config, context, host)?),
        }))
    }

    /// An enumerator, not open yet.
    ///
    /// # Errors
    /// As [`Self::reader`].
    pub fn enumerator(self, kind: &SourceKind) -> Result<Enumerator, PluginError> {
        let Self { apart, config, context, host } = self;
        Ok(Enumerator(match apart {
            None => Place::Here(kind.enumerator(config, context, host)?),
            Some(apart) => Place::Apart(apart::Enumerator::start(&place(apart), kind, config, context, host)?),
        }))
    }

    /// A transform, not open yet. One with keys is always here.
    ///
    /// # Errors
    /// As [`Self::reader`].
    pub fn transform(self, kind: &TransformKind, node: &str, inputs: &[NodeInput], keyed: bool) -> Result<Transform, PluginError> {
        let Self { apart, config, context, host } = self;
        Ok(Transform(match apart.filter(|_| !keyed) {
            None => Place::Here(kind.instance(config, node, inputs, keyed, context, host)?),
            Some(apart) => Place::Apart(apart::Transform::start(&place(apart), kind, config, node, inputs, context, host)?),
        }))
    }

    /// A sink, not open yet.
    ///
    /// # Errors
    /// As [`Self::reader`].
    pub fn sink(self, kind: &SinkKind, node: &str, input: &NodeInput) -> Result<Sink, PluginError> {
        let Self { apart, config, context, host } = self;
        Ok(Sink(match apart {
            None => Place::Here(kind.instance(config, node, input, context, host)?),
            Some(apart) => Place::Apart(apart::Sink::start(&place(apart), kind, config, node, input, context, host)?),
        }))
    }
}

fn place<'a>((launcher, limits): (&'a Launcher, &'a Limits)) -> Apart<'a> {
    Apart { launcher, limits }
}

/// An instance where it is.
enum Place<Here, There> {
    Here(Here),
    Apart(There),
}

/// A reader: one per subtask, on the thread that made it.
pub struct Reader(Place<SourceReader, apart::Reader>);

/// An enumerator: one per job, on the thread that made it.
pub struct Enumerator(Place<SourceEnumerator, apart::Enumerator>);

/// A transform: one per subtask, on the thread that made it.
pub struct Transform(Place<TransformInstance, apart::Transform>);

/// A sink: one per subtask, on the thread that made it.
pub struct Sink(Place<SinkInstance, apart::Sink>);

/// Calls that both have.
macro_rules! calls {
    ($Name:ident: $($(#[$doc:meta])* $call:ident($($argument:ident: $Type:ty),*) -> $Result:ty;)*) => {
        impl $Name {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// As the plugin says, and when its process is gone.
                pub fn $call(&mut self, $($argument: $Type),*) -> Result<$Result, PluginError> {
                    match &mut self.0 {
                        Place::Here(instance) => instance.$call($($argument),*),
                        Place::Apart(instance) => instance.$call($($argument),*),
                    }
                }
            )*
        }
    };
}

calls! { Reader:
    /// Connects.
    open() -> ();
    /// Adds splits.
    assign(splits: &[SplitPosition]) -> ();
    /// Gives splits back: their positions, in order.
    unassign(splits: &[String]) -> Vec<Vec<u8>>;
    /// Reads at most `rows` rows and about `bytes` bytes of one split, waiting for at most `wait`.
    poll(rows: u32, bytes: u64, wait: Duration) -> Polled;
    /// Reads no more of these splits until `resume`.
    pause(splits: &[String]) -> ();
    /// Ends a pause.
    resume(splits: &[String]) -> ();
    /// The checkpoint is durable with these positions.
    checkpoint_committed(checkpoint: u64, positions: &[(String, Vec<u8>)]) -> ();
    /// Ends it.
    close(reason: CloseReason) -> ();
}

impl Reader {
    /// What is wrong with what the plugin has said or done.
    #[must_use]
    pub fn error(&self, error: Error) -> PluginError {
        match &self.0 {
            Place::Here(reader) => reader.error(error),
            Place::Apart(reader) => reader.failure(error),
        }
    }

    /// How far behind it is; empty if the plugin does not know.
    pub fn lag(&mut self) -> Vec<SplitLag> {
        match &mut self.0 {
            Place::Here(reader) => reader.lag(),
            Place::Apart(reader) => reader.lag(),
        }
    }
}

calls! { Enumerator:
    /// Connects.
    open() -> ();
    /// What has changed since the last call, waiting for at most `wait`.
    discover(wait: Duration) -> Discovery;
    /// What to remember across a restart.
    snapshot() -> Vec<u8>;
    /// Goes on from a snapshot.
    restore(snapshot: &[u8]) -> ();
    /// Ends it.
    close(reason: CloseReason) -> ();
}

calls! { Transform:
    /// Gets ready.
    open() -> ();
    /// The watermark of an input has advanced.
    on_watermark(input: u32, micros: i64) -> Vec<Emitted>;
    /// All pending calls are about to be waited for.
    drain(checkpoint: Option<u64>) -> ();
    /// What an unkeyed transform must remember.
    snapshot() -> Vec<u8>;
    /// Goes on from the snapshots of one or more former subtasks.
    restore(parts: &[&[u8]]) -> ();
    /// An input has ended.
    finish(input: u32) -> Vec<Emitted>;
    /// Ends it.
    close(reason: CloseReason) -> ();
}

impl Transform {
    /// The keyed state that it declared, by slot.
    #[must_use]
    pub fn states(&self) -> &[(StateDetails, FieldRef)] {
        match &self.0 {
            Place::Here(transform) => transform.states(),
            Place::Apart(_) => &[],
        }
    }

    /// Gives a batch of an input; the call ends before this returns.
    ///
    /// # Errors
    /// As the plugin says, and when its process is gone.
    pub fn process(&mut self, input: u32, batch: &RecordBatch, keys: Option<KeyedCall<'_>>) -> Result<Vec<Emitted>, PluginError> {
        match (&mut self.0, keys) {
            (Place::Here(transform), keys) => transform.process(input, batch, keys),
            (Place::Apart(transform), None) => transform.process(input, batch),
            (Place::Apart(transform), Some(_)) => Err(has_no_keys(transform)),
        }
    }

    /// Gives a batch of an input, without keys; the call may end later if the transform has declared so.
    ///
    /// # Errors
    /// As [`Self::process`].
    pub fn begin(&mut self, input: u32, batch: &RecordBatch) -> Result<Begun, PluginError> {
        match &mut self.0 {
            Place::Here(transform) => transform.begin(input, batch),
            Place::Apart(transform) => transform.begin(input, batch, true),
        }
    }

    /// The calls that have ended since the last time, in the order in which they began.
    #[must_use]
    pub fn ended(&self) -> Vec<Ended> {
        match &self.0 {
            Place::Here(transform) => transform.ended(),
            Place::Apart(transform) => transform.ended(),
        }
    }

    /// A failure of the transform that the host has found.
    #[must_use]
    pub fn failure(&self, error: Error) -> PluginError {
        match &self.0 {
            Place::Here(transform) => transform.failure(error),
            Place::Apart(transform) => transform.failure(error),
        }
    }

    /// Timers are due.
    ///
    /// # Errors
    /// As the plugin says.
    pub fn on_timer(&mut self, domain: TimeDomain, timers: &[Timer], keys: KeyedCall<'_>) -> Result<Vec<Emitted>, PluginError> {
        match &mut self.0 {
            Place::Here(transform) => transform.on_timer(domain, timers, keys),
            Place::Apart(transform) => Err(has_no_keys(transform)),
        }
    }
}

/// The planner lets no such node have a process.
fn has_no_keys(transform: &apart::Transform) -> PluginError {
    transform.failure(Error::unsupported("a transform with keys cannot run in a process of its own"))
}

calls! { Sink:
    /// Connects.
    open() -> ();
    /// Gives a batch; sequence numbers count from 1 without gaps. [`Written::Busy`]: again, after a wake.
    write(seq: u64, batch: &RecordBatch) -> Written;
    /// Returns when all that was written is delivered and acknowledged; `checkpoint` is 0 outside a checkpoint.
    flush(checkpoint: u64) -> ();
    /// Makes what was written since the last `prepare` ready to be committed.
    prepare(checkpoint: u64) -> Vec<u8>;
    /// Commits all that was prepared up to that checkpoint.
    commit(up_to: u64, prepared: &[Committable]) -> ();
    /// What became of these, in order?
    recover(prepared: &[Committable]) -> Vec<Recovered>;
    /// Gives up what was prepared for checkpoints that the job does not go on from.
    abort(prepared: &[Committable]) -> ();
    /// All inputs have ended: delivers everything and ends cleanly.
    finish() -> ();
    /// Ends it.
    close(reason: CloseReason) -> ();
}

impl Sink {
    /// What the host says against this instance.
    #[must_use]
    pub fn failure(&self, error: Error) -> PluginError {
        match &self.0 {
            Place::Here(sink) => sink.failure(error),
            Place::Apart(sink) => sink.failure(error),
        }
    }
}
