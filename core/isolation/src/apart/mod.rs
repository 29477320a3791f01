//! Instances that run in a process of their own: the calls of [`standpipe_loader`]'s instances as messages. What a plugin may get wrong is checked in its process, by the same code that
//! checks it where a plugin is here.

mod death;
mod listen;
mod process;

use crate::{
    Launcher, Limits,
    words::{self, Blob, Part, Reply, Request},
};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use process::{Answer, Making, Process};
use serde_json::Value;
use standpipe_loader::{
    Begun, CloseReason, Committable, Discovery, Emitted, Ended, Error, HostServices, InstanceContext, NodeInput, PluginError, Polled,
    Recovered, SinkKind, SourceKind, SplitLag, SplitPosition, TransformKind, Written,
};
use std::{sync::Arc, time::Duration};

/// Where instances of a node are made.
#[derive(Debug, Clone)]
pub(crate) struct Apart<'a> {
    pub(crate) launcher: &'a Launcher,
    pub(crate) limits: &'a Limits,
}

fn micros(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)
}

/// What is the same of all four.
macro_rules! instance {
    ($Name:ident) => {
        impl $Name {
            pub(crate) fn open(&mut self) -> Result<(), PluginError> {
                self.process.done(Request::Open)
            }

            pub(crate) fn close(&mut self, reason: CloseReason) -> Result<(), PluginError> {
                self.process.close(words::reason(reason))
            }
        }
    };
}

/// What the host finds wrong.
macro_rules! failure {
    ($($Name:ident),*) => {
        $(impl $Name {
            pub(crate) fn failure(&self, error: Error) -> PluginError {
                self.process.shared.failure(error)
            }
        })*
    };
}

failure!(Reader, Transform, Sink);

/// A reader.
pub(crate) struct Reader {
    process: Process,
    schema: SchemaRef,
}

instance!(Reader);

impl Reader {
    pub(crate) fn start(
        place: &Apart<'_>,
        kind: &SourceKind,
        config: &Value,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<Self, PluginError> {
        let (process, schemas) = source(place, kind, Part::Reader, config, context, host)?;
        let Some(schema) = schemas.into_iter().next() else { return Err(process.nonsense("create")) };
        Ok(Self { process, schema })
    }

    pub(crate) fn assign(&mut self, splits: &[SplitPosition]) -> Result<(), PluginError> {
        self.process.done(Request::Assign(splits.iter().map(words::split).collect()))
    }

    pub(crate) fn unassign(&mut self, splits: &[String]) -> Result<Vec<Vec<u8>>, PluginError> {
        match self.process.call(Request::Unassign(splits.into()))?.reply {
            Reply::Positions(positions) => Ok(positions.into_iter().map(|position| position.0.into_owned()).collect()),
            _ => Err(self.process.nonsense("unassign")),
        }
    }

    pub(crate) fn poll(&mut self, rows: u32, bytes: u64, wait: Duration) -> Result<Polled, PluginError> {
        let mut answer = self.process.call(Request::Poll { rows, bytes, micros: micros(wait) })?;
        match std::mem::replace(&mut answer.reply, Reply::Idle) {
            Reply::Idle => Ok(Polled::Idle),
            Reply::EndOfSplit(split) => Ok(Polled::EndOfSplit(split)),
            Reply::Rows { split, batch, position, watermark } => {
                let batch = self.process.batch(&batch, &self.schema, &mut answer)?;
                Ok(Polled::Batch { split, batch, position: position.0.into_owned(), watermark })
            }
            _ => Err(self.process.nonsense("poll")),
        }
    }

    pub(crate) fn pause(&mut self, splits: &[String]) -> Result<(), PluginError> {
        self.process.done(Request::Pause(splits.into()))
    }

    pub(crate) fn resume(&mut self, splits: &[String]) -> Result<(), PluginError> {
        self.process.done(Request::Resume(splits.into()))
    }

    pub(crate) fn checkpoint_committed(&mut self, checkpoint: u64, positions: &[(String, Vec<u8>)]) -> Result<(), PluginError> {
        let positions = positions.iter().map(|(split, position)| (split.as_str().into(), Blob::from(position.as_slice()))).collect();
        self.process.done(Request::Committed { checkpoint, positions })
    }

    pub(crate) fn lag(&mut self) -> Vec<SplitLag> {
        // A process that is gone is told of by the call that needs it, and by the thread that listens.
        self.process.json(Request::Lag).unwrap_or_default()
    }
}

/// An enumerator.
pub(crate) struct Enumerator {
    process: Process,
}

instance!(Enumerator);

impl Enumerator {
    pub(crate) fn start(
        place: &Apart<'_>,
        kind: &SourceKind,
        config: &Value,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<Self, PluginError> {
        source(place, kind, Part::Enumerator, config, context, host).map(|(process, _)| Self { process })
    }

    pub(crate) fn discover(&mut self, wait: Duration) -> Result<Discovery, PluginError> {
        self.process.json(Request::Discover { micros: micros(wait) })
    }

    pub(crate) fn snapshot(&mut self) -> Result<Vec<u8>, PluginError> {
        self.process.bytes(Request::Snapshot)
    }

    pub(crate) fn restore(&mut self, snapshot: &[u8]) -> Result<(), PluginError> {
        self.process.done(Request::Restore(vec![snapshot.into()]))
    }
}

fn source(
    place: &Apart<'_>,
    kind: &SourceKind,
    part: Part,
    config: &Value,
    context: &InstanceContext,
    host: Arc<dyn HostServices>,
) -> Result<(Process, Vec<SchemaRef>), PluginError> {
    let Apart { launcher, limits } = *place;
    let (origin, plugin) = (kind.origin(), kind.plugin().as_ref());
    let making = Making { launcher, limits, origin, plugin, part, node: &context.node, config, context, inputs: &[] };
    Process::start(&making, host)
}

/// A transform without keys.
pub(crate) struct Transform {
    process: Process,
    inputs: Vec<SchemaRef>,
    outputs: Vec<SchemaRef>,
}

instance!(Transform);

impl Transform {
    pub(crate) fn start(
        place: &Apart<'_>,
        kind: &TransformKind,
        config: &Value,
        node: &str,
        inputs: &[NodeInput],
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<Self, PluginError> {
        let Apart { launcher, limits } = *place;
        let (origin, plugin) = (kind.origin(), kind.plugin().as_ref());
        let making = Making { launcher, limits, origin, plugin, part: Part::Transform, node, config, context, inputs };
        let (process, outputs) = Process::start(&making, host)?;
        process.shared.heard().outputs.clone_from(&outputs);
        Ok(Self { process, inputs: inputs.iter().map(|input| Arc::clone(&input.schema)).collect(), outputs })
    }

    pub(crate) fn begin(&mut self, input: u32, batch: &RecordBatch, later: bool) -> Result<Begun, PluginError> {
        let Some(schema) = self.inputs.get(input as usize) else {
            return Err(self.failure(Error::new(standpipe_loader::ErrorCode::OUT_OF_RANGE, format!("there is no input {input}"))));
        };
        let answer = self.process.give(batch, schema, |batch| Request::Process { input, batch, later })?;
        match answer.reply {
            Reply::Pending(token) => Ok(Begun::Pending(token)),
            _ => self.given("process", answer).map(Begun::Done),
        }
    }

    pub(crate) fn process(&mut self, input: u32, batch: &RecordBatch) -> Result<Vec<Emitted>, PluginError> {
        match self.begin(input, batch, false)? {
            Begun::Done(emitted) => Ok(emitted),
            Begun::Pending(_) => Err(self.process.nonsense("process")),
        }
    }

    /// The calls that have ended since the last time, in the order in which they began.
    pub(crate) fn ended(&self) -> Vec<Ended> {
        let mut ended = std::mem::take(&mut self.process.shared.heard().ended);
        ended.sort_by_key(|ended| ended.token);
        ended
    }

    pub(crate) fn on_watermark(&mut self, input: u32, micros: i64) -> Result<Vec<Emitted>, PluginError> {
        let answer = self.process.call(Request::Watermark { input, micros })?;
        self.given("on_watermark", answer)
    }

    pub(crate) fn drain(&mut self, checkpoint: Option<u64>) -> Result<(), PluginError> {
        self.process.done(Request::Drain(checkpoint))
    }

    pub(crate) fn snapshot(&mut self) -> Result<Vec<u8>, PluginError> {
        self.process.bytes(Request::Snapshot)
    }

    pub(crate) fn restore(&mut self, parts: &[&[u8]]) -> Result<(), PluginError> {
        self.process.done(Request::Restore(parts.iter().map(|part| Blob::from(*part)).collect()))
    }

    pub(crate) fn finish(&mut self, input: u32) -> Result<Vec<Emitted>, PluginError> {
        let answer = self.process.call(Request::Finish(input))?;
        self.given("finish", answer)
    }

    fn given(&self, call: &str, mut answer: Answer) -> Result<Vec<Emitted>, PluginError> {
        let Reply::Given(given) = std::mem::replace(&mut answer.reply, Reply::Done) else { return Err(self.process.nonsense(call)) };
        let mut emitted = Vec::with_capacity(given.len());
        for (output, packed) in given {
            let schema = self.outputs.get(output as usize).ok_or_else(|| self.process.nonsense(call))?;
            emitted.push(Emitted { output, batch: self.process.batch(&packed, schema, &mut answer)? });
        }
        Ok(emitted)
    }
}

/// A sink.
pub(crate) struct Sink {
    process: Process,
    schema: SchemaRef,
}

instance!(Sink);

impl Sink {
    pub(crate) fn start(
        place: &Apart<'_>,
        kind: &SinkKind,
        config: &Value,
        node: &str,
        input: &NodeInput,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<Self, PluginError> {
        let Apart { launcher, limits } = *place;
        let (origin, plugin, inputs) = (kind.origin(), kind.plugin().as_ref(), std::slice::from_ref(input));
        let making = Making { launcher, limits, origin, plugin, part: Part::Sink, node, config, context, inputs };
        let (process, _) = Process::start(&making, host)?;
        Ok(Self { process, schema: Arc::clone(&input.schema) })
    }

    pub(crate) fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written, PluginError> {
        match self.process.give(batch, &self.schema, |batch| Request::Write { seq, batch })?.reply {
            Reply::Taken(true) => Ok(Written::Taken),
            Reply::Taken(false) => Ok(Written::Busy),
            _ => Err(self.process.nonsense("write")),
        }
    }

    pub(crate) fn flush(&mut self, checkpoint: u64) -> Result<(), PluginError> {
        self.process.done(Request::Flush(checkpoint))
    }

    pub(crate) fn prepare(&mut self, checkpoint: u64) -> Result<Vec<u8>, PluginError> {
        self.process.bytes(Request::Prepare(checkpoint))
    }

    pub(crate) fn commit(&mut self, up_to: u64, prepared: &[Committable]) -> Result<(), PluginError> {
        self.process.done(Request::Commit { up_to, prepared: words::prepared(prepared) })
    }

    pub(crate) fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>, PluginError> {
        let answer = self.process.call(Request::Recover(words::prepared(prepared)))?;
        let Reply::Recovered(decisions) = answer.reply else { return Err(self.process.nonsense("recover")) };
        if decisions.len() != prepared.len() {
            return Err(self.process.nonsense("recover"));
        }
        let recovered = |decision: u8| words::recovered(decision).ok_or_else(|| self.process.nonsense("recover"));
        decisions.into_iter().map(recovered).collect()
    }

    pub(crate) fn abort(&mut self, prepared: &[Committable]) -> Result<(), PluginError> {
        self.process.done(Request::Abort(words::prepared(prepared)))
    }

    pub(crate) fn finish(&mut self) -> Result<(), PluginError> {
        self.process.done(Request::Finish(0))
    }
}
