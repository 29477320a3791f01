//! `transform/1` of an author's [`Transform`].

use super::{answer, answer::Answer, instance::Instance, items, out_of_range, put_bytes};
use crate::{
    Call, Context, Error, Keys, Result, TimeDomain, Timer, Transform, TransformInput,
    call::Later,
    context::CloseReason,
    convert,
    transform::{Asynchronous, InputStream, OutputDeclaration, StateDeclaration},
    wire,
};
use arrow_schema::{Schema, SchemaRef};
use standpipe_abi::{
    self as abi, Batch, Buffer, HostTable, Slice, Status, Validation, ValidationInput,
    state::KeyContext,
    transform::{DueTimers, TransformTable},
};
use std::{ffi::c_void, marker::PhantomData, sync::Arc, time::Duration};

/// The table of `T`.
pub struct TransformGlue<T>(PhantomData<T>);

/// A transform and what it declared: batches cross by these schemas.
struct Open<T> {
    transform: T,
    context: Context,
    inputs: Vec<Input>,
    outputs: Arc<[OutputDeclaration]>,
    states: Vec<StateDeclaration>,
    keyed: bool,
}

struct Input {
    schema: SchemaRef,
    keys: SchemaRef,
    watermark: Option<i64>,
}

type OpenInstance<T> = Instance<Open<T>, <T as Transform>::Config>;

impl<T: Transform> TransformGlue<T> {
    /// `transform/1`.
    pub const TABLE: TransformTable = TransformTable {
        size: size_of::<TransformTable>() as u32,
        reserved: 0,
        validate: Self::validate,
        create: Self::create,
        open: Self::open,
        process: Self::process,
        on_timer: Self::on_timer,
        on_watermark: Self::on_watermark,
        drain: Self::drain,
        snapshot: Self::snapshot,
        restore: Self::restore,
        finish: Self::finish,
        close: Self::close,
        destroy: Self::destroy,
    };

    unsafe extern "C" fn validate(config: Slice, input: *const ValidationInput, out: *mut Validation, error: *mut abi::Error) -> Status {
        let declare = |config: &T::Config| {
            // SAFETY: the host keeps the table's contract; so in every function below.
            let declared = T::declare(config, &unsafe { transform_input(input) }?)?;
            let (outputs, schemas) = declared
                .outputs
                .into_iter()
                .map(|output| (wire::OutputDetails { name: output.name, mode: output.mode }, output.schema))
                .unzip();
            let (states, fields) = declared.states.into_iter().map(|state| (details(&state), state.field)).unzip();
            let details = wire::ValidationDetails {
                outputs,
                states,
                capabilities: declared.capabilities,
                accepts: declared.accepts,
                types: declared.types,
                requires_key: declared.requires_key,
                timers: declared.timers,
                asynchronous: declared.asynchronous.map(async_details),
                problems: declared.problems,
                ..Default::default()
            };
            Ok(Answer { details, outputs: schemas, states: fields })
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
        unsafe { OpenInstance::<T>::create(config, context, host, instance, error) }
    }

    unsafe extern "C" fn open(instance: *mut c_void, input: *const ValidationInput, error: *mut abi::Error) -> Status {
        let open = |config: T::Config, context: Context| {
            let input = unsafe { transform_input(input) }?;
            let declared = T::declare(&config, &input)?;
            let inputs = input.inputs.iter().map(Input::of).collect::<Result<_>>()?;
            let transform = T::open(config, &input, context.clone())?;
            Ok(Open { transform, context, inputs, outputs: declared.outputs.into(), states: declared.states, keyed: input.keyed })
        };
        unsafe { OpenInstance::<T>::open(instance, error, open) }
    }

    unsafe extern "C" fn process(
        instance: *mut c_void,
        input: u32,
        batch: *mut Batch,
        keys: *const KeyContext,
        token: u64,
        error: *mut abi::Error,
    ) -> Status {
        // Taken before anything can fail: the batch is moved in any case.
        let array = unsafe { Batch::take_from(batch) };
        let process = |open: &mut Open<T>| {
            let array = array.map_err(Error::unusable("the host's batch"))?;
            let batch = unsafe { convert::import_batch(array, &open.input(input)?.schema) }?;
            let later = match token {
                0 if open.keyed => Later::Keyed,
                0 => Later::Undeclared,
                token => Later::May(token),
            };
            let (transform, mut call) = open.call(input, keys)?;
            call.later = later;
            transform.process(batch, &mut call)?;
            Ok(if matches!(call.later, Later::Will) { Status::PENDING } else { Status::OK })
        };
        unsafe { OpenInstance::<T>::call("process", instance, error, process) }
    }

    unsafe extern "C" fn on_timer(
        instance: *mut c_void,
        timers: *const DueTimers,
        keys: *const KeyContext,
        error: *mut abi::Error,
    ) -> Status {
        let on_timer = |open: &mut Open<T>| {
            let due = unsafe { abi::growing::read(timers) }.map_err(Error::unusable("the host's list of timers"))?;
            let domain = TimeDomain::from_abi(due.domain).ok_or_else(|| out_of_range("the host passed timers of an unknown domain"))?;
            let (slots, times) = unsafe { (items(due.slots, due.count)?, items(due.times, due.count)?) };
            let (transform, mut call) = open.call(0, keys)?;
            let ordinals = call.keyed()?.key_of_row();
            if ordinals.len() != due.count {
                return Err(out_of_range("the host passed more or fewer timers than ordinals"));
            }
            let timers: Vec<_> =
                ordinals.iter().zip(slots).zip(times).map(|((&ordinal, &slot), &time)| Timer { ordinal, slot, time }).collect();
            transform.on_timer(domain, &timers, &mut call)?;
            Ok(Status::OK)
        };
        unsafe { OpenInstance::<T>::call("on_timer", instance, error, on_timer) }
    }

    unsafe extern "C" fn on_watermark(instance: *mut c_void, input: u32, time: i64, error: *mut abi::Error) -> Status {
        let on_watermark = |open: &mut Open<T>| {
            open.input(input)?.watermark = Some(time);
            let (transform, mut call) = open.call(input, std::ptr::null())?;
            transform.on_watermark(time, &mut call)?;
            Ok(Status::OK)
        };
        unsafe { OpenInstance::<T>::call("on_watermark", instance, error, on_watermark) }
    }

    unsafe extern "C" fn drain(instance: *mut c_void, checkpoint: u64, error: *mut abi::Error) -> Status {
        let drain = |open: &mut Open<T>| open.transform.drain((checkpoint != 0).then_some(checkpoint)).map(|()| Status::OK);
        unsafe { OpenInstance::<T>::call("drain", instance, error, drain) }
    }

    unsafe extern "C" fn snapshot(instance: *mut c_void, out: *mut Buffer, error: *mut abi::Error) -> Status {
        unsafe { OpenInstance::<T>::call("snapshot", instance, error, |open| put_bytes(out, open.transform.snapshot()?)) }
    }

    unsafe extern "C" fn restore(instance: *mut c_void, parts: *const Slice, count: usize, error: *mut abi::Error) -> Status {
        let restore = |open: &mut Open<T>| {
            let parts: Vec<&[u8]> = unsafe { items(parts, count)?.iter().map(|part| part.as_bytes()).collect() };
            open.transform.restore(&parts)?;
            Ok(Status::OK)
        };
        unsafe { OpenInstance::<T>::call("restore", instance, error, restore) }
    }

    unsafe extern "C" fn finish(instance: *mut c_void, input: u32, error: *mut abi::Error) -> Status {
        let finish = |open: &mut Open<T>| {
            let (transform, mut call) = open.call(input, std::ptr::null())?;
            transform.finish(&mut call)?;
            Ok(Status::OK)
        };
        unsafe { OpenInstance::<T>::call("finish", instance, error, finish) }
    }

    unsafe extern "C" fn close(instance: *mut c_void, reason: u32, error: *mut abi::Error) -> Status {
        unsafe { OpenInstance::<T>::close(instance, error, |open| open.transform.close(CloseReason::from_abi(reason))) }
    }

    unsafe extern "C" fn destroy(instance: *mut c_void) {
        unsafe { OpenInstance::<T>::destroy(instance) }
    }
}

impl<T> Open<T> {
    fn input(&mut self, input: u32) -> Result<&mut Input> {
        self.inputs.get_mut(input as usize).ok_or_else(|| out_of_range(&format!("the host named input {input}, which there is not")))
    }

    /// The transform, and the call that it gets.
    fn call(&mut self, input: u32, keys: *const KeyContext) -> Result<(&mut T, Call<'_>)> {
        let schema = self.input(input)?.keys.clone();
        // SAFETY: null or the host's key context of this call.
        let keys = unsafe { Keys::from_abi(keys, &schema) }?;
        let watermark = self.inputs.iter().map(|input| input.watermark).min().flatten();
        let (outputs, states, host) = (&self.outputs, &self.states, &self.context.host);
        Ok((&mut self.transform, Call { input: input as usize, watermark, host, outputs, states, keys, later: Later::NotHere }))
    }
}

impl Input {
    fn of(stream: &InputStream) -> Result<Self> {
        let keys = stream.key.iter().map(|name| stream.schema.field_with_name(name).cloned()).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { schema: stream.schema.clone(), keys: Arc::new(Schema::new(keys)), watermark: None })
    }
}

fn details(state: &StateDeclaration) -> wire::StateDetails {
    let time_to_live_ms = state.time_to_live.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    wire::StateDetails { name: state.name.clone(), kind: state.kind, version: state.version, time_to_live_ms }
}

fn async_details(wishes: Asynchronous) -> wire::AsyncDetails {
    let millis = |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    wire::AsyncDetails { capacity: wishes.capacity, timeout_ms: wishes.timeout.map(millis) }
}

/// The inputs as an author sees them.
///
/// # Safety
/// As [`answer::inputs`].
unsafe fn transform_input(input: *const ValidationInput) -> Result<TransformInput> {
    // SAFETY: passed on to the caller.
    let (details, schemas) = unsafe { answer::inputs(input) }?;
    let inputs = details
        .inputs
        .into_iter()
        .zip(schemas)
        .map(|(input, schema)| InputStream { name: input.name, schema, mode: input.mode, key: input.key })
        .collect();
    Ok(TransformInput { node: details.node, inputs, keyed: details.keyed })
}
