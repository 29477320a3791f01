//! `source/1` and `enumerator/1` of an author's [`Source`].

use super::{answer, answer::Answer, fill, instance::Instance, items, put_bytes, text, texts};
use crate::{
    Context, Enumerator, Error, Poll, PollLimits, Result, Source, Split, call::check_columns, context::CloseReason, convert, wire,
};
use arrow_schema::SchemaRef;
use base64::{Engine, engine::general_purpose::STANDARD};
use standpipe_abi::{
    self as abi, Buffer, HostTable, Slice, Status, Validation, ValidationInput,
    source::{EnumeratorTable, NO_WATERMARK, Polled, SourceTable, SplitPosition},
};
use std::{ffi::c_void, marker::PhantomData, time::Duration};

/// The tables of `S`.
pub struct SourceGlue<S>(PhantomData<S>);

/// A reader and what its last `poll` lent to the host.
struct Reader<S> {
    source: S,
    schema: SchemaRef,
    context: Context,
    split: String,
    position: Vec<u8>,
}

struct Finder<E> {
    enumerator: E,
    context: Context,
}

type ReaderInstance<S> = Instance<Reader<S>, <S as Source>::Config>;
type FinderInstance<S> = Instance<Finder<<S as Source>::Enumerator>, <S as Source>::Config>;

impl<S: Source> SourceGlue<S> {
    /// `source/1`.
    pub const READER: SourceTable = SourceTable {
        size: size_of::<SourceTable>() as u32,
        reserved: 0,
        validate: Self::validate,
        create: Self::create,
        open: Self::open,
        assign: Self::assign,
        unassign: Self::unassign,
        poll: Self::poll,
        pause: Self::pause,
        resume: Self::resume,
        checkpoint_committed: Self::checkpoint_committed,
        lag: Self::lag,
        close: Self::close,
        destroy: Self::destroy,
    };

    /// `enumerator/1`.
    pub const ENUMERATOR: EnumeratorTable = EnumeratorTable {
        size: size_of::<EnumeratorTable>() as u32,
        reserved: 0,
        create: Self::enumerator_create,
        open: Self::enumerator_open,
        discover: Self::enumerator_discover,
        snapshot: Self::enumerator_snapshot,
        restore: Self::enumerator_restore,
        close: Self::enumerator_close,
        destroy: Self::enumerator_destroy,
    };

    unsafe extern "C" fn validate(config: Slice, _: *const ValidationInput, out: *mut Validation, error: *mut abi::Error) -> Status {
        let declare = |config: &S::Config| {
            let declared = S::declare(config)?;
            let main = wire::OutputDetails { name: "main".to_owned(), mode: wire::ChangeMode::Append };
            let details = wire::ValidationDetails {
                outputs: vec![main],
                capabilities: declared.capabilities,
                encoding: declared.encoding,
                problems: declared.problems,
                ..Default::default()
            };
            Ok(Answer { details, outputs: vec![declared.schema], states: Vec::new() })
        };
        // SAFETY: the host keeps the table's contract; so in every function below.
        unsafe { answer::validate(config, out, error, declare) }
    }

    unsafe extern "C" fn create(
        config: Slice,
        context: *const abi::Context,
        host: *const HostTable,
        instance: *mut *mut c_void,
        error: *mut abi::Error,
    ) -> Status {
        unsafe { ReaderInstance::<S>::create(config, context, host, instance, error) }
    }

    unsafe extern "C" fn open(instance: *mut c_void, error: *mut abi::Error) -> Status {
        let open = |config: S::Config, context: Context| {
            let schema = S::declare(&config)?.schema;
            let source = S::open(config, context.clone())?;
            Ok(Reader { source, schema, context, split: String::new(), position: Vec::new() })
        };
        unsafe { ReaderInstance::<S>::open(instance, error, open) }
    }

    unsafe extern "C" fn assign(instance: *mut c_void, splits: *const SplitPosition, count: usize, error: *mut abi::Error) -> Status {
        unsafe { Self::call("assign", instance, error, |reader| reader.source.assign(positions(splits, count)?).map(ok)) }
    }

    unsafe extern "C" fn unassign(
        instance: *mut c_void,
        ids: *const Slice,
        count: usize,
        out: *mut Buffer,
        error: *mut abi::Error,
    ) -> Status {
        let unassign = |reader: &mut Reader<S>| {
            let ids = unsafe { texts(ids, count) }?;
            let positions = reader.source.unassign(&ids)?;
            if positions.len() != ids.len() {
                return Err(super::out_of_range(&format!("unassign gave {} positions for {} splits", positions.len(), ids.len())));
            }
            let given = ids.iter().zip(&positions).map(|(split, position)| wire::GivenBack::new(split, position));
            unsafe { put_bytes(out, serde_json::to_vec(&given.collect::<Vec<_>>())?) }
        };
        unsafe { Self::call("unassign", instance, error, unassign) }
    }

    unsafe extern "C" fn poll(
        instance: *mut c_void,
        max_rows: u32,
        max_bytes: u64,
        deadline: i64,
        out: *mut Polled,
        error: *mut abi::Error,
    ) -> Status {
        let poll = |reader: &mut Reader<S>| {
            let wait = until(&reader.context, deadline);
            let limits = PollLimits { max_rows: max_rows as usize, max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX), wait };
            // SAFETY: as above; `read` takes no more of it than there is.
            let place = unsafe { abi::growing::read(out.cast_const()) }.map_err(Error::unusable("the host's place for the result"))?.batch;
            let mut polled = Polled::empty(place);
            let status = match reader.source.poll(limits)? {
                Poll::Idle => return Ok(Status::IDLE),
                Poll::Batch { split, batch, position, watermark } => {
                    check_columns(&"the source", &reader.schema, &batch)?;
                    (reader.split, reader.position) = (split, position);
                    unsafe { fill(place, convert::export_batch(batch)) }?;
                    polled.position = Slice::new(&reader.position);
                    polled.watermark = watermark.unwrap_or(NO_WATERMARK);
                    Status::OK
                }
                Poll::EndOfSplit(split) => {
                    reader.split = split;
                    Status::END_OF_SPLIT
                }
            };
            polled.split = Slice::new(reader.split.as_bytes());
            unsafe { fill(out, polled) }?;
            Ok(status)
        };
        unsafe { Self::call("poll", instance, error, poll) }
    }

    unsafe extern "C" fn pause(instance: *mut c_void, ids: *const Slice, count: usize, error: *mut abi::Error) -> Status {
        unsafe { Self::call("pause", instance, error, |reader| reader.source.pause(&texts(ids, count)?).map(ok)) }
    }

    unsafe extern "C" fn resume(instance: *mut c_void, ids: *const Slice, count: usize, error: *mut abi::Error) -> Status {
        unsafe { Self::call("resume", instance, error, |reader| reader.source.resume(&texts(ids, count)?).map(ok)) }
    }

    unsafe extern "C" fn checkpoint_committed(
        instance: *mut c_void,
        checkpoint: u64,
        committed: *const SplitPosition,
        count: usize,
        error: *mut abi::Error,
    ) -> Status {
        let committed = |reader: &mut Reader<S>| {
            let committed: Vec<_> =
                unsafe { positions(committed, count) }?.into_iter().map(|split| (split.id, split.position.unwrap_or_default())).collect();
            reader.source.checkpoint_committed(checkpoint, &committed).map(ok)
        };
        unsafe { Self::call("checkpoint_committed", instance, error, committed) }
    }

    unsafe extern "C" fn lag(instance: *mut c_void, out: *mut Buffer, error: *mut abi::Error) -> Status {
        unsafe { Self::call("lag", instance, error, |reader| put_bytes(out, serde_json::to_vec(&reader.source.lag())?)) }
    }

    unsafe extern "C" fn close(instance: *mut c_void, reason: u32, error: *mut abi::Error) -> Status {
        unsafe { ReaderInstance::<S>::close(instance, error, |reader| reader.source.close(CloseReason::from_abi(reason))) }
    }

    unsafe extern "C" fn destroy(instance: *mut c_void) {
        unsafe { ReaderInstance::<S>::destroy(instance) }
    }

    unsafe fn call(
        function: &'static str,
        instance: *mut c_void,
        error: *mut abi::Error,
        call: impl FnOnce(&mut Reader<S>) -> Result<Status>,
    ) -> Status {
        unsafe { ReaderInstance::<S>::call(function, instance, error, call) }
    }

    unsafe extern "C" fn enumerator_create(
        config: Slice,
        context: *const abi::Context,
        host: *const HostTable,
        instance: *mut *mut c_void,
        error: *mut abi::Error,
    ) -> Status {
        unsafe { FinderInstance::<S>::create(config, context, host, instance, error) }
    }

    unsafe extern "C" fn enumerator_open(instance: *mut c_void, error: *mut abi::Error) -> Status {
        let open = |config, context: Context| Ok(Finder { enumerator: S::Enumerator::open(config, context.clone())?, context });
        unsafe { FinderInstance::<S>::open(instance, error, open) }
    }

    unsafe extern "C" fn enumerator_discover(instance: *mut c_void, deadline: i64, out: *mut Buffer, error: *mut abi::Error) -> Status {
        let discover = |finder: &mut Finder<S::Enumerator>| {
            let discovery = finder.enumerator.discover(until(&finder.context, deadline))?;
            unsafe { put_bytes(out, serde_json::to_vec(&discovery)?) }
        };
        unsafe { FinderInstance::<S>::call("discover", instance, error, discover) }
    }

    unsafe extern "C" fn enumerator_snapshot(instance: *mut c_void, out: *mut Buffer, error: *mut abi::Error) -> Status {
        unsafe { FinderInstance::<S>::call("snapshot", instance, error, |finder| put_bytes(out, finder.enumerator.snapshot()?)) }
    }

    unsafe extern "C" fn enumerator_restore(instance: *mut c_void, snapshot: Slice, error: *mut abi::Error) -> Status {
        unsafe { FinderInstance::<S>::call("restore", instance, error, |finder| finder.enumerator.restore(snapshot.as_bytes()).map(ok)) }
    }

    unsafe extern "C" fn enumerator_close(instance: *mut c_void, _: u32, error: *mut abi::Error) -> Status {
        unsafe { FinderInstance::<S>::close(instance, error, |_| Ok(())) }
    }

    unsafe extern "C" fn enumerator_destroy(instance: *mut c_void) {
        unsafe { FinderInstance::<S>::destroy(instance) }
    }
}

impl wire::GivenBack {
    fn new(split: &str, position: &[u8]) -> Self {
        Self { split: split.to_owned(), position: STANDARD.encode(position) }
    }

    /// The position's bytes.
    ///
    /// # Errors
    /// When it is no base64.
    pub fn position(&self) -> Result<Vec<u8>> {
        Ok(STANDARD.decode(&self.position)?)
    }
}

const fn ok(_: ()) -> Status {
    Status::OK
}

/// The time left until a deadline by the host's clock.
fn until(context: &Context, deadline: i64) -> Duration {
    let left = deadline.saturating_sub(context.host.now());
    Duration::from_micros(u64::try_from(left).unwrap_or_default())
}

/// Splits that the host passed.
///
/// # Safety
/// As [`items`]; the slices must be alive.
unsafe fn positions(splits: *const SplitPosition, count: usize) -> Result<Vec<Split>> {
    let position = |split: &SplitPosition| {
        // SAFETY: by the caller's word.
        let (id, details, bytes) = unsafe { (text(split.split)?, text(split.details)?, split.position.as_bytes()) };
        Ok(Split { id, details, position: (!bytes.is_empty()).then(|| bytes.to_vec()) })
    };
    // SAFETY: passed on to the caller.
    unsafe { items(splits, count) }?.iter().map(position).collect()
}
