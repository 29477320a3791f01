//! The instance of a plugin's process: how it is made of what the parent says, and its calls.

use crate::{
    batch::{self, Packed, Parcel},
    memory::{Mapped, Pool},
    words::{self, Create, Failure, News, Part, Reply, Request},
};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use standpipe_loader::{
    Begun, CloseReason, Committable, Emitted, Error, ErrorCode, FileKinds, HostServices, InstanceContext, NodeInput, PluginError, Polled,
    SinkInstance, SourceEnumerator, SourceReader, SplitPosition, TransformInstance, Written,
};
use std::{collections::VecDeque, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

/// A reply, and the batches in it.
pub(super) struct Given {
    pub(super) reply: Reply,
    pub(super) parcel: Parcel,
}

impl Default for Given {
    fn default() -> Self {
        Self { reply: Reply::Done, parcel: Parcel::default() }
    }
}

/// See the module's documentation.
pub(super) enum Calls {
    Reader(SourceReader),
    Enumerator(SourceEnumerator),
    Transform { instance: TransformInstance, inputs: Vec<SchemaRef> },
    Sink { instance: SinkInstance, input: SchemaRef },
}

type Called = Result<Reply, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.code, error.retryable, error.message, &error.details)
    }
}

fn done(result: Result<(), PluginError>) -> Called {
    Ok(result.map(|()| Reply::Done)?)
}

fn bytes(result: Result<Vec<u8>, PluginError>) -> Called {
    Ok(Reply::Bytes(result?.into()))
}

fn json(value: &impl serde::Serialize) -> Called {
    serde_json::to_string(value).map(Reply::Json).map_err(|error| Error::from(error).into())
}

impl Calls {
    /// Makes the instance, and says which columns it gives.
    pub(super) fn make(create: &Create, host: Arc<dyn HostServices>) -> Result<(Self, Reply), Failure> {
        let kinds = load(create)?;
        let config = serde_json::from_str(&create.config).map_err(Error::from)?;
        let context = InstanceContext::from(create.context.clone());
        let inputs = create.inputs.iter().map(input).collect::<Result<Vec<_>, Error>>()?;
        let schemas = |schemas: &[SchemaRef]| Reply::Created(schemas.iter().map(|schema| batch::schema_bytes(schema).into()).collect());
        let missing = || Error::new(ErrorCode::OTHER, format!("the file has no {:?}", create.kind));
        let node = &create.node;
        match create.part {
            Part::Reader => {
                let reader = kinds.source(&create.kind).ok_or_else(missing)?.reader(&config, &context, host)?;
                let reply = schemas(std::slice::from_ref(reader.schema()));
                Ok((Self::Reader(reader), reply))
            }
            Part::Enumerator => {
                let enumerator = kinds.source(&create.kind).ok_or_else(missing)?.enumerator(&config, &context, host)?;
                Ok((Self::Enumerator(enumerator), schemas(&[])))
            }
            Part::Transform => {
                let kind = kinds.transform(&create.kind).ok_or_else(missing)?;
                let instance = kind.instance(&config, node, &inputs, false, &context, host)?;
                let outputs: Vec<SchemaRef> = instance.outputs().iter().map(|(_, schema)| Arc::clone(schema)).collect();
                let inputs = inputs.into_iter().map(|input| input.schema).collect();
                Ok((Self::Transform { instance, inputs }, schemas(&outputs)))
            }
            Part::Sink => {
                let [input] = inputs.as_slice() else { return Err(Error::data("a sink has one input").into()) };
                let instance = kinds.sink(&create.kind).ok_or_else(missing)?.instance(&config, node, input, &context, host)?;
                Ok((Self::Sink { instance, input: Arc::clone(&input.schema) }, schemas(&[])))
            }
        }
    }

    /// Makes a call.
    pub(super) fn call(
        &mut self,
        request: Request<'_>,
        inline: &[u8],
        files: &mut VecDeque<OwnedFd>,
        mapped: &mut Mapped,
        pool: &mut Pool,
    ) -> Given {
        let mut parcel = Parcel::default();
        let mut unpack = |packed: &Packed, schema: &SchemaRef| batch::unpack(packed, schema, inline, files, mapped).map_err(Error::from);
        let mut pack = |batch: &RecordBatch, schema: &SchemaRef| batch::pack(batch, schema, pool, &mut parcel).map_err(Error::from);
        let called = match self {
            Self::Reader(reader) => read(reader, request, &mut pack),
            Self::Enumerator(enumerator) => enumerate(enumerator, request),
            Self::Transform { instance, inputs } => transform(instance, inputs, request, &mut unpack, &mut pack),
            Self::Sink { instance, input } => write(instance, input, request, &mut unpack),
        };
        Given { reply: called.unwrap_or_else(Reply::Failed), parcel }
    }

    /// The calls that were pending and have ended.
    pub(super) fn ended(&self, pool: &mut Pool) -> Vec<(News, Parcel)> {
        let Self::Transform { instance, .. } = self else { return Vec::new() };
        let ended = instance.ended().into_iter().map(|ended| {
            let mut parcel = Parcel::default();
            let mut pack = |batch: &RecordBatch, schema: &SchemaRef| batch::pack(batch, schema, pool, &mut parcel).map_err(Error::from);
            let result = ended.result.map_err(Failure::from).and_then(|emitted| given(instance, &emitted, &mut pack));
            (News::Ended { token: ended.token, result }, parcel)
        });
        ended.collect()
    }
}

/// The file that the parent has loaded, not another one that has taken its place.
fn load(create: &Create) -> Result<FileKinds, Error> {
    let kinds = FileKinds::load(Path::new(&create.file)).map_err(|error| Error::new(ErrorCode::OTHER, error.to_string()))?;
    if kinds.plugin().hash() == create.hash {
        return Ok(kinds);
    }
    let message = format!("{} has another content than when the job was started: it cannot be loaded in a process of its own", create.file);
    Err(Error::new(ErrorCode::OTHER, message))
}

fn input((schema, details): &(words::Blob<'static>, String)) -> Result<NodeInput, Error> {
    Ok(NodeInput { schema: batch::schema(&schema.0)?, details: serde_json::from_str(details)? })
}

type Pack<'a> = &'a mut dyn FnMut(&RecordBatch, &SchemaRef) -> Result<Packed, Error>;
type Unpack<'a> = &'a mut dyn FnMut(&Packed, &SchemaRef) -> Result<RecordBatch, Error>;

fn misplaced(request: &Request<'_>) -> Failure {
    Error::unsupported(format!("{} is no call of this kind", request.name())).into()
}

fn read(reader: &mut SourceReader, request: Request<'_>, pack: Pack<'_>) -> Called {
    match request {
        Request::Open => done(reader.open()),
        Request::Close(reason) => done(reader.close(CloseReason::from_abi(reason))),
        Request::Assign(splits) => {
            let splits: Vec<SplitPosition> = splits.into_iter().map(split).collect();
            done(reader.assign(&splits))
        }
        Request::Unassign(splits) => Ok(Reply::Positions(reader.unassign(&splits)?.into_iter().map(Into::into).collect())),
        Request::Pause(splits) => done(reader.pause(&splits)),
        Request::Resume(splits) => done(reader.resume(&splits)),
        Request::Poll { rows, bytes, micros } => match reader.poll(rows, bytes, Duration::from_micros(micros))? {
            Polled::Idle => Ok(Reply::Idle),
            Polled::EndOfSplit(split) => Ok(Reply::EndOfSplit(split)),
            Polled::Batch { split, batch, position, watermark } => {
                Ok(Reply::Rows { split, batch: pack(&batch, reader.schema())?, position: position.into(), watermark })
            }
        },
        Request::Committed { checkpoint, positions } => {
            let positions: Vec<(String, Vec<u8>)> =
                positions.into_iter().map(|(split, position)| (split.into_owned(), position.0.into_owned())).collect();
            done(reader.checkpoint_committed(checkpoint, &positions))
        }
        Request::Lag => json(&reader.lag()),
        other => Err(misplaced(&other)),
    }
}

fn split((split, details, position): words::Split<'_>) -> SplitPosition {
    let position = position.map(|position| position.0.into_owned());
    SplitPosition { split: split.into_owned(), details: details.into_owned(), position }
}

fn enumerate(enumerator: &mut SourceEnumerator, request: Request<'_>) -> Called {
    match request {
        Request::Open => done(enumerator.open()),
        Request::Close(reason) => done(enumerator.close(CloseReason::from_abi(reason))),
        Request::Discover { micros } => json(&enumerator.discover(Duration::from_micros(micros))?),
        Request::Snapshot => bytes(enumerator.snapshot()),
        Request::Restore(parts) => done(parts.first().map_or(Ok(()), |snapshot| enumerator.restore(&snapshot.0))),
        other => Err(misplaced(&other)),
    }
}

fn transform(instance: &mut TransformInstance, inputs: &[SchemaRef], request: Request<'_>, unpack: Unpack<'_>, pack: Pack<'_>) -> Called {
    let emitted = match request {
        Request::Open => return done(instance.open()),
        Request::Close(reason) => return done(instance.close(CloseReason::from_abi(reason))),
        Request::Process { input, batch, later } => {
            let schema = inputs.get(input as usize);
            let schema = schema.ok_or_else(|| Error::new(ErrorCode::OUT_OF_RANGE, format!("there is no input {input}")))?;
            let batch = unpack(&batch, schema)?;
            match if later { instance.begin(input, &batch)? } else { Begun::Done(instance.process(input, &batch, None)?) } {
                Begun::Done(emitted) => emitted,
                Begun::Pending(token) => return Ok(Reply::Pending(token)),
            }
        }
        Request::Watermark { input, micros } => instance.on_watermark(input, micros)?,
        Request::Finish(input) => instance.finish(input)?,
        Request::Drain(checkpoint) => return done(instance.drain(checkpoint)),
        Request::Snapshot => return bytes(instance.snapshot()),
        Request::Restore(parts) => {
            let parts: Vec<&[u8]> = parts.iter().map(|part| part.0.as_ref()).collect();
            return done(instance.restore(&parts));
        }
        other => return Err(misplaced(&other)),
    };
    given(instance, &emitted, pack).map(Reply::Given)
}

fn given(instance: &TransformInstance, emitted: &[Emitted], pack: Pack<'_>) -> Result<Vec<(u32, Packed)>, Failure> {
    let mut packed = Vec::with_capacity(emitted.len());
    for Emitted { output, batch } in emitted {
        let schema = instance.outputs().get(*output as usize).map(|(_, schema)| schema);
        let schema = schema.ok_or_else(|| Error::new(ErrorCode::OUT_OF_RANGE, format!("there is no output {output}")))?;
        packed.push((*output, pack(batch, schema)?));
    }
    Ok(packed)
}

fn write(instance: &mut SinkInstance, input: &SchemaRef, request: Request<'_>, unpack: Unpack<'_>) -> Called {
    let owned = |prepared: Vec<words::Prepared<'_>>| -> Vec<Committable> {
        let one = |(checkpoint, subtask, bytes): words::Prepared<'_>| Committable { checkpoint, subtask, bytes: bytes.0.into_owned() };
        prepared.into_iter().map(one).collect()
    };
    match request {
        Request::Open => done(instance.open()),
        Request::Close(reason) => done(instance.close(CloseReason::from_abi(reason))),
        Request::Write { seq, batch } => Ok(Reply::Taken(instance.write(seq, &unpack(&batch, input)?)? == Written::Taken)),
        Request::Flush(checkpoint) => done(instance.flush(checkpoint)),
        Request::Prepare(checkpoint) => bytes(instance.prepare(checkpoint)),
        Request::Commit { up_to, prepared } => done(instance.commit(up_to, &owned(prepared))),
        Request::Recover(prepared) => {
            let recovered = instance.recover(&owned(prepared))?;
            Ok(Reply::Recovered(recovered.into_iter().map(words::decision).collect()))
        }
        Request::Abort(prepared) => done(instance.abort(&owned(prepared))),
        Request::Finish(_) => done(instance.finish()),
        other => Err(misplaced(&other)),
    }
}
