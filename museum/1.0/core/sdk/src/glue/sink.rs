//! `sink/1` of an author's [`Sink`].

use super::{answer, answer::Answer, fill, instance::Instance, items, out_of_range, put_bytes};
use crate::{Committable, Context, Error, Recovered, Result, Sink, SinkInput, Written, context::CloseReason, convert, wire};
use arrow_schema::SchemaRef;
use standpipe_abi::{
    self as abi, Batch, Buffer, HostTable, Slice, Status, Validation, ValidationInput,
    sink::{self, SinkTable},
};
use std::{ffi::c_void, marker::PhantomData};

/// The table of `S`.
pub struct SinkGlue<S>(PhantomData<S>);

struct Open<S> {
    sink: S,
    schema: SchemaRef,
}

type OpenInstance<S> = Instance<Open<S>, <S as Sink>::Config>;

impl<S: Sink> SinkGlue<S> {
    /// `sink/1`.
    pub const TABLE: SinkTable = SinkTable {
        size: size_of::<SinkTable>() as u32,
        reserved: 0,
        validate: Self::validate,
        create: Self::create,
        open: Self::open,
        write: Self::write,
        flush: Self::flush,
        prepare: Self::prepare,
        commit: Self::commit,
        recover: Self::recover,
        abort: Self::abort,
        finish: Self::finish,
        close: Self::close,
        destroy: Self::destroy,
    };

    unsafe extern "C" fn validate(config: Slice, input: *const ValidationInput, out: *mut Validation, error: *mut abi::Error) -> Status {
        let declare = |config: &S::Config| {
            // SAFETY: the host keeps the table's contract; so in every function below.
            let declared = S::declare(config, &unsafe { sink_input(input) }?)?;
            let details = wire::ValidationDetails {
                capabilities: declared.capabilities,
                encoding: declared.encoding,
                columns: declared.columns,
                id: declared.id,
                accepts: declared.accepts,
                max_subtasks: declared.max_subtasks,
                types: declared.types,
                problems: declared.problems,
                ..Default::default()
            };
            Ok(Answer { details, ..Default::default() })
        };
        unsafe { answer::validate(config, out, error, declare) }
    }

    unsafe extern "C" fn create(
        config: Slice,
        context: *const abi::Context,
        host: *const HostTable,
        instance: *mut *mut c_void,
        error: *mut abi::Error,
    ) -> Status {
        unsafe { OpenInstance::<S>::create(config, context, host, instance, error) }
    }

    unsafe extern "C" fn open(instance: *mut c_void, input: *const ValidationInput, error: *mut abi::Error) -> Status {
        let open = |config: S::Config, context: Context| {
            let input = unsafe { sink_input(input) }?;
            Ok(Open { sink: S::open(config, &input, context)?, schema: input.schema })
        };
        unsafe { OpenInstance::<S>::open(instance, error, open) }
    }

    unsafe extern "C" fn write(instance: *mut c_void, seq: u64, batch: *mut Batch, error: *mut abi::Error) -> Status {
        let write = |open: &mut Open<S>| {
            let array = unsafe { Batch::take_from(batch) }.map_err(Error::unusable("the host's batch"))?;
            let taken = unsafe { convert::import_batch(array, &open.schema) }?;
            match open.sink.write(seq, &taken)? {
                Written::Taken => Ok(Status::OK),
                Written::Busy => {
                    unsafe { fill(batch, convert::export_batch(taken)) }?;
                    Ok(Status::BUSY)
                }
            }
        };
        unsafe { Self::call("write", instance, error, write) }
    }

    unsafe extern "C" fn flush(instance: *mut c_void, checkpoint: u64, error: *mut abi::Error) -> Status {
        unsafe { Self::call("flush", instance, error, |open| open.sink.flush(checkpoint).map(ok)) }
    }

    unsafe extern "C" fn prepare(instance: *mut c_void, checkpoint: u64, out: *mut Buffer, error: *mut abi::Error) -> Status {
        unsafe { Self::call("prepare", instance, error, |open| put_bytes(out, open.sink.prepare(checkpoint)?)) }
    }

    unsafe extern "C" fn commit(
        instance: *mut c_void,
        up_to: u64,
        prepared: *const sink::Committable,
        count: usize,
        error: *mut abi::Error,
    ) -> Status {
        unsafe { Self::call("commit", instance, error, |open| open.sink.commit(up_to, &committables(prepared, count)?).map(ok)) }
    }

    unsafe extern "C" fn recover(
        instance: *mut c_void,
        prepared: *const sink::Committable,
        count: usize,
        decisions: *mut u32,
        error: *mut abi::Error,
    ) -> Status {
        let recover = |open: &mut Open<S>| {
            let answers = open.sink.recover(&unsafe { committables(prepared, count) }?)?;
            if answers.len() != count || (decisions.is_null() && count > 0) {
                return Err(out_of_range(&format!("recover gave {} answers to {count} questions", answers.len())));
            }
            for (index, answer) in answers.into_iter().enumerate() {
                let answer = match answer {
                    Recovered::Committed => sink::RECOVER_COMMITTED,
                    Recovered::Commit => sink::RECOVER_COMMIT,
                    Recovered::Lost => sink::RECOVER_LOST,
                };
                unsafe { decisions.add(index).write(answer) };
            }
            Ok(Status::OK)
        };
        unsafe { Self::call("recover", instance, error, recover) }
    }

    unsafe extern "C" fn abort(instance: *mut c_void, prepared: *const sink::Committable, count: usize, error: *mut abi::Error) -> Status {
        unsafe { Self::call("abort", instance, error, |open| open.sink.abort(&committables(prepared, count)?).map(ok)) }
    }

    unsafe extern "C" fn finish(instance: *mut c_void, error: *mut abi::Error) -> Status {
        unsafe { Self::call("finish", instance, error, |open| open.sink.finish().map(ok)) }
    }

    unsafe extern "C" fn close(instance: *mut c_void, reason: u32, error: *mut abi::Error) -> Status {
        unsafe { OpenInstance::<S>::close(instance, error, |open| open.sink.close(CloseReason::from_abi(reason))) }
    }

    unsafe extern "C" fn destroy(instance: *mut c_void) {
        unsafe { OpenInstance::<S>::destroy(instance) }
    }

    unsafe fn call(
        function: &'static str,
        instance: *mut c_void,
        error: *mut abi::Error,
        call: impl FnOnce(&mut Open<S>) -> Result<Status>,
    ) -> Status {
        unsafe { OpenInstance::<S>::call(function, instance, error, call) }
    }
}

const fn ok(_: ()) -> Status {
    Status::OK
}

/// The input as an author sees it.
///
/// # Safety
/// As [`answer::inputs`].
unsafe fn sink_input(input: *const ValidationInput) -> Result<SinkInput> {
    // SAFETY: passed on to the caller.
    let (details, schemas) = unsafe { answer::inputs(input) }?;
    let node = details.node;
    match details.inputs.into_iter().zip(schemas).next() {
        Some((input, schema)) => Ok(SinkInput { node, schema, mode: input.mode, key: input.key, format: input.format }),
        None => Err(out_of_range("the host passed no input")),
    }
}

/// What was prepared, as the host passed it.
///
/// # Safety
/// As [`items`]; the slices must be alive.
unsafe fn committables(prepared: *const sink::Committable, count: usize) -> Result<Vec<Committable>> {
    // SAFETY: passed on to the caller.
    let prepared = unsafe { items(prepared, count) }?;
    let committable = |prepared: &sink::Committable| {
        // SAFETY: as above.
        let bytes = unsafe { prepared.bytes.as_bytes() }.to_vec();
        Committable { checkpoint: prepared.checkpoint, subtask: prepared.subtask, bytes }
    };
    Ok(prepared.iter().map(committable).collect())
}
