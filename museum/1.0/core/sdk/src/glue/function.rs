//! `scalar/1` and `aggregate/1` of an author's [`ScalarFunction`] and [`AggregateFunction`].

use super::{fail, fill, guard, items, out_of_range, panic, put};
use crate::{
    Config, Error, ErrorCode, Result, config, convert,
    function::{Accumulator, AggregateFunction, Bound, ScalarFunction, Volatility},
};
use arrow_array::ArrayRef;
use arrow_schema::{Field, FieldRef, Schema, SchemaRef};
use standpipe_abi::{
    self as abi, ArrowSchema, Batch, Slice, Status,
    function::{AggregateTable, Binding, ScalarTable, VOLATILITY_IMMUTABLE, VOLATILITY_STABLE, VOLATILITY_VOLATILE},
};
use std::{ffi::c_void, marker::PhantomData, sync::Arc};

/// A function that is bound, and the columns that cross for it.
struct Function<F> {
    function: F,
    columns: Arc<Columns>,
}

struct Columns {
    arguments: SchemaRef,
    result: SchemaRef,
    state: SchemaRef,
}

impl Columns {
    /// The columns of a batch of the host's, which is taken.
    ///
    /// # Safety
    /// `batch` must be null or a batch of that schema.
    unsafe fn take(batch: *mut Batch, schema: &SchemaRef) -> Result<(Vec<ArrayRef>, usize)> {
        // SAFETY: passed on to the caller.
        let array = unsafe { Batch::take_from(batch) }.map_err(Error::unusable("the host's batch"))?;
        // SAFETY: as above.
        let batch = unsafe { convert::import_batch(array, schema) }?;
        Ok((batch.columns().to_vec(), batch.num_rows()))
    }

    /// What an author gave, checked against what `bind` said.
    ///
    /// # Safety
    /// `out` must be null or the host's place for a batch.
    unsafe fn give(out: *mut Batch, schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<Status> {
        // SAFETY: passed on to the caller.
        unsafe { fill(out, convert::export_columns(schema, columns, rows)?) }
    }
}

/// `bind`: reads the configuration, asks the author, says which schemas cross.
///
/// # Safety
/// The pointers must be null or what [`abi::function::BindFn`] says.
unsafe fn bind<C: Config, F>(
    configuration: Slice,
    arguments: *const ArrowSchema,
    out: *mut Binding,
    function: *mut *mut c_void,
    error: *mut abi::Error,
    ask: impl FnOnce(C, &[FieldRef]) -> Result<Bound<F>>,
) -> Status {
    let bind = || {
        // SAFETY: by the caller's word; so below.
        let value = config::read(unsafe { configuration.as_bytes() })?;
        let given = unsafe { convert::import_fields(arguments) }?;
        let bound = ask(config::parse(value).map_err(Error::first_problem)?, &given)?;
        if bound.arguments.len() != given.len() {
            let counts = format!("takes {}, not {}", counted(bound.arguments.len()), given.len());
            return Err(Error::config("", counts));
        }
        let wanted = given.iter().zip(&bound.arguments).map(|(field, wanted)| field.as_ref().clone().with_data_type(wanted.clone()));
        // An argument that is cast may be null where it was not.
        let wanted = wanted.map(|field| field.with_nullable(true)).collect::<Vec<Field>>();
        let columns = Columns {
            arguments: Arc::new(Schema::new(wanted)),
            result: Arc::new(Schema::new(vec![bound.result])),
            state: Arc::new(Schema::new(bound.state)),
        };
        let volatility = match bound.volatility {
            Volatility::Immutable => VOLATILITY_IMMUTABLE,
            Volatility::Stable => VOLATILITY_STABLE,
            Volatility::Volatile => VOLATILITY_VOLATILE,
        };
        let said = Binding {
            volatility,
            arguments: convert::export_schema(&columns.arguments)?,
            result: convert::export_schema(&columns.result)?,
            state: convert::export_schema(&columns.state)?,
            state_version: bound.state_version,
            ..Binding::empty()
        };
        unsafe { fill(out, said) }?;
        let this = Box::into_raw(Box::new(Function { function: bound.function, columns: Arc::new(columns) })).cast::<c_void>();
        // On failure nobody else has the box.
        unsafe { put(function, this) }.inspect_err(|_| drop(unsafe { Box::from_raw(this.cast::<Function<F>>()) }))
    };
    guard("bind", error, bind).0
}

fn counted(arguments: usize) -> String {
    match arguments {
        0 => "no arguments".to_owned(),
        1 => "1 argument".to_owned(),
        n => format!("{n} arguments"),
    }
}

/// # Safety
/// `function` must be null or what `bind` of the same function gave.
unsafe fn bound<'a, F>(function: *const c_void) -> Result<&'a Function<F>> {
    // SAFETY: by the caller's word.
    unsafe { function.cast::<Function<F>>().as_ref() }.ok_or_else(|| out_of_range("the host passed no function"))
}

/// # Safety
/// As [`bound`]; it is gone afterwards.
unsafe extern "C" fn unbind<F>(function: *mut c_void) {
    if !function.is_null() {
        // SAFETY: made by `bind`, given up by the host.
        let this = unsafe { Box::from_raw(function.cast::<Function<F>>()) };
        let _ = panic::catch(|| drop(this));
    }
}

/// The table of `F`.
pub struct ScalarGlue<F>(PhantomData<F>);

impl<F: ScalarFunction> ScalarGlue<F> {
    /// `scalar/1`.
    pub const TABLE: ScalarTable =
        ScalarTable { size: size_of::<ScalarTable>() as u32, reserved: 0, bind: Self::bind, invoke: Self::invoke, unbind: unbind::<F> };

    unsafe extern "C" fn bind(
        config: Slice,
        arguments: *const ArrowSchema,
        out: *mut Binding,
        function: *mut *mut c_void,
        error: *mut abi::Error,
    ) -> Status {
        // SAFETY: the host keeps the table's contract; so in every function below.
        unsafe { bind(config, arguments, out, function, error, F::bind) }
    }

    unsafe extern "C" fn invoke(
        function: *const c_void,
        arguments: *mut Batch,
        rows: usize,
        result: *mut Batch,
        error: *mut abi::Error,
    ) -> Status {
        let invoke = || {
            let Function { function, columns } = unsafe { bound::<F>(function) }?;
            let (arguments, _) = unsafe { Columns::take(arguments, &columns.arguments) }?;
            let computed = function.invoke(&arguments, rows)?;
            unsafe { Columns::give(result, &columns.result, vec![computed], rows) }
        };
        guard("invoke", error, invoke).0
    }
}

/// An author's accumulator.
struct Groups<A> {
    life: Life<A>,
    columns: Arc<Columns>,
}

enum Life<A> {
    Alive(A),
    Poisoned(String),
}

/// The table of `F`.
pub struct AggregateGlue<F>(PhantomData<F>);

impl<F: AggregateFunction> AggregateGlue<F> {
    /// `aggregate/1`.
    pub const TABLE: AggregateTable = AggregateTable {
        size: size_of::<AggregateTable>() as u32,
        reserved: 0,
        bind: Self::bind,
        unbind: unbind::<F>,
        create: Self::create,
        update: Self::update,
        retract: Self::retract,
        merge: Self::merge,
        state: Self::state,
        evaluate: Self::evaluate,
        forget: Self::forget,
        destroy: Self::destroy,
    };

    unsafe extern "C" fn bind(
        config: Slice,
        arguments: *const ArrowSchema,
        out: *mut Binding,
        function: *mut *mut c_void,
        error: *mut abi::Error,
    ) -> Status {
        // SAFETY: the host keeps the table's contract; so in every function below.
        unsafe { bind(config, arguments, out, function, error, F::bind) }
    }

    unsafe extern "C" fn create(function: *const c_void, accumulator: *mut *mut c_void, error: *mut abi::Error) -> Status {
        let create = || {
            let Function { function, columns } = unsafe { bound::<F>(function) }?;
            let groups = Groups { life: Life::Alive(function.accumulator()?), columns: Arc::clone(columns) };
            let this = Box::into_raw(Box::new(groups)).cast::<c_void>();
            unsafe { put(accumulator, this) }.inspect_err(|_| drop(unsafe { Box::from_raw(this.cast::<Groups<F::Accumulator>>()) }))
        };
        guard("create", error, create).0
    }

    unsafe extern "C" fn update(this: *mut c_void, rows: *mut Batch, groups: *const u32, count: usize, error: *mut abi::Error) -> Status {
        let update = |accumulator: &mut F::Accumulator, columns: &Columns| {
            let (groups, arguments) = unsafe { told(rows, &columns.arguments, groups, count) }?;
            accumulator.update(groups, &arguments).map(|()| Status::OK)
        };
        unsafe { Self::enter("update", this, error, update) }
    }

    unsafe extern "C" fn retract(this: *mut c_void, rows: *mut Batch, groups: *const u32, count: usize, error: *mut abi::Error) -> Status {
        let retract = |accumulator: &mut F::Accumulator, columns: &Columns| {
            let (groups, arguments) = unsafe { told(rows, &columns.arguments, groups, count) }?;
            accumulator.retract(groups, &arguments).map(|()| Status::OK)
        };
        unsafe { Self::enter("retract", this, error, retract) }
    }

    unsafe extern "C" fn merge(this: *mut c_void, states: *mut Batch, groups: *const u32, count: usize, error: *mut abi::Error) -> Status {
        let merge = |accumulator: &mut F::Accumulator, columns: &Columns| {
            let (groups, states) = unsafe { told(states, &columns.state, groups, count) }?;
            accumulator.merge(groups, &states).map(|()| Status::OK)
        };
        unsafe { Self::enter("merge", this, error, merge) }
    }

    unsafe extern "C" fn state(this: *mut c_void, groups: *const u32, count: usize, out: *mut Batch, error: *mut abi::Error) -> Status {
        let state = |accumulator: &mut F::Accumulator, columns: &Columns| {
            let state = accumulator.state(unsafe { items(groups, count) }?)?;
            unsafe { Columns::give(out, &columns.state, state, count) }
        };
        unsafe { Self::enter("state", this, error, state) }
    }

    unsafe extern "C" fn evaluate(this: *mut c_void, groups: *const u32, count: usize, out: *mut Batch, error: *mut abi::Error) -> Status {
        let evaluate = |accumulator: &mut F::Accumulator, columns: &Columns| {
            let result = accumulator.evaluate(unsafe { items(groups, count) }?)?;
            unsafe { Columns::give(out, &columns.result, vec![result], count) }
        };
        unsafe { Self::enter("evaluate", this, error, evaluate) }
    }

    unsafe extern "C" fn forget(this: *mut c_void, groups: *const u32, count: usize, error: *mut abi::Error) -> Status {
        let forget = |accumulator: &mut F::Accumulator, _: &Columns| {
            accumulator.forget(unsafe { items(groups, count) }?);
            Ok(Status::OK)
        };
        unsafe { Self::enter("forget", this, error, forget) }
    }

    unsafe extern "C" fn destroy(this: *mut c_void) {
        if !this.is_null() {
            // SAFETY: made by `create`, given up by the host. What has panicked is leaked already.
            let this = unsafe { Box::from_raw(this.cast::<Groups<F::Accumulator>>()) };
            let _ = panic::catch(|| drop(this));
        }
    }

    /// Runs a call on the accumulator; a panic poisons it.
    ///
    /// # Safety
    /// `this` must be null or what `create` gave, used by this call alone.
    unsafe fn enter(
        function: &'static str,
        this: *mut c_void,
        error: *mut abi::Error,
        call: impl FnOnce(&mut F::Accumulator, &Columns) -> Result<Status>,
    ) -> Status {
        // SAFETY: by the caller's word.
        let Some(Groups { life, columns }) = (unsafe { this.cast::<Groups<F::Accumulator>>().as_mut() }) else {
            return fail(error, out_of_range("the host passed no accumulator"));
        };
        let accumulator = match life {
            Life::Alive(accumulator) => accumulator,
            Life::Poisoned(story) => {
                return fail(error, Error::new(ErrorCode::PANIC, format!("is poisoned, it {story}")).with("poisoned", true));
            }
        };
        let (status, panicked) = guard(function, error, || call(accumulator, columns));
        if let Some(report) = panicked {
            let story = format!("panicked in {function} before: {}", report.text());
            std::mem::forget(std::mem::replace(life, Life::Poisoned(story)));
        }
        status
    }
}

/// Rows and the group of each.
///
/// # Safety
/// The pointers must be null or what the table says.
unsafe fn told<'a>(batch: *mut Batch, schema: &SchemaRef, groups: *const u32, count: usize) -> Result<(&'a [u32], Vec<ArrayRef>)> {
    // SAFETY: passed on to the caller.
    let (columns, rows) = unsafe { Columns::take(batch, schema) }?;
    match rows == count {
        // SAFETY: as above.
        true => Ok((unsafe { items(groups, count) }?, columns)),
        false => Err(out_of_range(&format!("the host passed {rows} rows and {count} groups"))),
    }
}
