//! Functions of a plugin: kinds that bind calls, scalar functions that compute, aggregate functions and their accumulators.

use super::{
    Origin, PluginError, Tables,
    kind::{broken, sensible},
};
use crate::{Error, Result, Volatility, convert, wire};
use arrow_array::ArrayRef;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use serde_json::Value;
use standpipe_abi::{
    self as abi, Batch, Slice, Status,
    function::{AggregateTable, BindFn, Binding, ScalarTable, VOLATILITY_IMMUTABLE, VOLATILITY_STABLE},
};
use std::{ffi::c_void, fmt, sync::Arc};

type UnbindFn = unsafe extern "C" fn(*mut c_void);

/// A kind of function: `T` is what it binds to, [`ScalarFunction`] or [`AggregateFunction`]. Cheap to clone.
pub struct FunctionKind<T: Callable> {
    kind: Arc<Kind<T::Table>>,
}

/// A scalar function.
pub type ScalarKind = FunctionKind<ScalarFunction>;
/// An aggregate function.
pub type AggregateKind = FunctionKind<AggregateFunction>;

struct Kind<T> {
    origin: Arc<Origin>,
    config_schema: Value,
    table: T,
}

/// What the two kinds of functions have in common.
pub trait Callable: sealed::Callable {}
impl<T: sealed::Callable> Callable for T {}

mod sealed {
    use super::{BindFn, Bound, Tables, UnbindFn};

    pub trait Callable: Sized {
        type Table: Copy + Send + Sync;
        /// It has state.
        const FOLDS: bool;
        fn read(tables: &Tables<'_>) -> Result<Self::Table, String>;
        fn functions(table: &Self::Table) -> (BindFn, UnbindFn);
        fn made(bound: Bound, table: Self::Table) -> Self;
    }
}

impl<T: Callable> Clone for FunctionKind<T> {
    fn clone(&self) -> Self {
        Self { kind: Arc::clone(&self.kind) }
    }
}

impl<T: Callable> fmt::Debug for FunctionKind<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FunctionKind({:?} of {})", self.name(), self.kind.origin.plugin)
    }
}

impl<T: Callable> FunctionKind<T> {
    /// The function of this table.
    ///
    /// # Errors
    /// When the table is missing, or a function in it: one line.
    pub fn new(plugin: &str, description: &wire::KindDescription, tables: &Tables<'_>) -> Result<Self, String> {
        let origin = Origin { plugin: plugin.to_owned(), section: "functions", kind: description.name.clone() };
        let (origin, config_schema) = (Arc::new(origin), description.config_schema.clone());
        Ok(Self { kind: Arc::new(Kind { origin, config_schema, table: T::read(tables)? }) })
    }

    /// The name in expressions.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.kind.origin.kind
    }

    /// The JSON Schema of its configuration.
    #[must_use]
    pub fn config_schema(&self) -> &Value {
        &self.kind.config_schema
    }

    /// Which plugin it is of.
    #[must_use]
    pub fn origin(&self) -> &Arc<Origin> {
        &self.kind.origin
    }

    /// Binds a call to the types of its arguments. No I/O.
    ///
    /// # Errors
    /// When the function takes no such arguments, or the configuration is wrong.
    pub fn bind(&self, config: &Value, arguments: &[FieldRef]) -> Result<T, PluginError> {
        let origin = &self.kind.origin;
        let (bind, unbind) = T::functions(&self.kind.table);
        let failure = |error| PluginError::new(origin, "", error);
        let given = Schema::new(arguments.to_vec());
        let exported = convert::export_schema(&given).map_err(failure)?;
        let config = config.to_string();
        let (mut out, mut function, mut error) = (Binding::empty(), std::ptr::null_mut(), abi::Error::empty());
        // SAFETY: the plugin's function, called as its contract says.
        let status = unsafe { bind(Slice::new(config.as_bytes()), &raw const exported, &raw mut out, &raw mut function, &raw mut error) };
        if status != Status::OK {
            return Err(PluginError::read(origin, "", &error));
        }
        // From here on what was bound is freed whatever happens.
        let pointer = Pointer { function, unbind };
        let read = sensible(|| Said::read(&out, &given, T::FOLDS)).map_err(failure)?;
        Ok(T::made(Bound { pointer, said: read, origin: Arc::clone(origin) }, self.kind.table))
    }
}

/// What a function said of itself.
struct Said {
    arguments: SchemaRef,
    result: SchemaRef,
    state: SchemaRef,
    state_version: u32,
    volatility: Volatility,
}

impl Said {
    fn read(out: &Binding, given: &Schema, folds: bool) -> Result<Self> {
        // SAFETY: the plugin keeps the rules of the Arrow C data interface.
        let fields = |schema: &abi::ArrowSchema| unsafe { convert::import_fields(schema) };
        let (result, state) = (Arc::new(Schema::new(fields(&out.result)?)), nullable(&fields(&out.state)?));
        if folds && state.fields().is_empty() {
            return Err(broken("binds without columns of state: no checkpoint could keep it"));
        }
        if result.fields().len() != 1 {
            return Err(broken(&format!("binds to {} results", result.fields().len())));
        }
        let arguments = match out.arguments.is_released() {
            true => nullable(given.fields()),
            false => nullable(&fields(&out.arguments)?),
        };
        if arguments.fields().len() != given.fields().len() {
            return Err(broken(&format!("wants {} arguments of {}", arguments.fields().len(), given.fields().len())));
        }
        let volatility = match out.volatility {
            VOLATILITY_IMMUTABLE => Volatility::Immutable,
            VOLATILITY_STABLE => Volatility::Stable,
            // One that is not known is the one that promises least.
            _ => Volatility::Volatile,
        };
        Ok(Self { arguments, result, state, state_version: out.state_version.max(1), volatility })
    }
}

/// Arguments and state may be null, whatever is said of them.
fn nullable(fields: &[FieldRef]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}

struct Pointer {
    function: *mut c_void,
    unbind: UnbindFn,
}

impl Drop for Pointer {
    fn drop(&mut self) {
        // SAFETY: what `bind` gave, freed once; accumulators keep it alive.
        unsafe { (self.unbind)(self.function) }
    }
}

// SAFETY: by contract what is bound may be used on any thread.
unsafe impl Send for Pointer {}
// SAFETY: and on several at once.
unsafe impl Sync for Pointer {}

/// A function that is bound.
pub struct Bound {
    pointer: Pointer,
    said: Said,
    origin: Arc<Origin>,
}

impl Bound {
    fn read<T>(&self, error: &abi::Error, status: Status, read: impl FnOnce() -> Result<T>) -> Result<T, PluginError> {
        match status {
            Status::OK => sensible(read).map_err(|error| self.failure(error)),
            Status(status) if status < 0 => Err(PluginError::read(&self.origin, "", error)),
            Status(status) => Err(self.failure(broken(&format!("answers with the status {status}, which means nothing here")))),
        }
    }

    fn failure(&self, error: Error) -> PluginError {
        PluginError::new(&self.origin, "", error)
    }

    fn arguments(&self, columns: &[ArrayRef], rows: usize) -> Result<Batch, PluginError> {
        convert::export_columns(&self.said.arguments, columns.to_vec(), rows).map_err(|error| self.failure(error))
    }

    /// A batch that the plugin gave.
    fn given(mut batch: Batch, schema: &SchemaRef, rows: usize) -> Result<Vec<ArrayRef>> {
        // SAFETY: the plugin keeps the rules of the Arrow C data interface.
        let columns = unsafe { convert::import_batch(batch.take(), schema) }?;
        match columns.num_rows() == rows {
            true => Ok(columns.columns().to_vec()),
            false => Err(broken(&format!("gives {} rows where {rows} are wanted", columns.num_rows()))),
        }
    }

    fn one(batch: Batch, schema: &SchemaRef, rows: usize) -> Result<ArrayRef> {
        Self::given(batch, schema, rows)?.pop().ok_or_else(|| broken("gives no column"))
    }
}

macro_rules! bound {
    ($Name:ident) => {
        impl $Name {
            /// The types that it wants its arguments in.
            pub fn arguments(&self) -> impl Iterator<Item = &DataType> {
                self.bound.said.arguments.fields().iter().map(|field| field.data_type())
            }

            /// What it gives.
            #[must_use]
            pub fn result(&self) -> &Field {
                self.bound.said.result.field(0)
            }

            /// Whether the same arguments give the same result.
            #[must_use]
            pub fn volatility(&self) -> Volatility {
                self.bound.said.volatility
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($Name), "({:?} of {})"), self.bound.origin.kind, self.bound.origin.plugin)
            }
        }
    };
}

/// A scalar function that is bound. It may be called on several threads at once.
pub struct ScalarFunction {
    bound: Bound,
    table: ScalarTable,
}

bound!(ScalarFunction);

impl sealed::Callable for ScalarFunction {
    type Table = ScalarTable;
    const FOLDS: bool = false;

    fn read(tables: &Tables<'_>) -> Result<ScalarTable, String> {
        tables.read("scalar/1")
    }

    fn functions(table: &ScalarTable) -> (BindFn, UnbindFn) {
        (table.bind, table.unbind)
    }

    fn made(bound: Bound, table: ScalarTable) -> Self {
        Self { bound, table }
    }
}

impl ScalarFunction {
    /// Computes so many results of columns of the types that it wants.
    ///
    /// # Errors
    /// As the function says.
    pub fn invoke(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef, PluginError> {
        let bound = &self.bound;
        let mut arguments = bound.arguments(arguments, rows)?;
        let (mut result, mut error) = (Batch::empty(), abi::Error::empty());
        // SAFETY: the plugin's function, called as its contract says.
        let status = unsafe { (self.table.invoke)(bound.pointer.function, &raw mut arguments, rows, &raw mut result, &raw mut error) };
        bound.read(&error, status, || Bound::one(result, &bound.said.result, rows))
    }
}

/// An aggregate function that is bound. Cheap to clone.
#[derive(Clone)]
pub struct AggregateFunction {
    bound: Arc<Bound>,
    table: AggregateTable,
}

bound!(AggregateFunction);

impl sealed::Callable for AggregateFunction {
    type Table = AggregateTable;
    const FOLDS: bool = true;

    fn read(tables: &Tables<'_>) -> Result<AggregateTable, String> {
        tables.read("aggregate/1")
    }

    fn functions(table: &AggregateTable) -> (BindFn, UnbindFn) {
        (table.bind, table.unbind)
    }

    fn made(bound: Bound, table: AggregateTable) -> Self {
        Self { bound: Arc::new(bound), table }
    }
}

impl AggregateFunction {
    /// The columns of an accumulator's state.
    #[must_use]
    pub fn state(&self) -> &SchemaRef {
        &self.bound.said.state
    }

    /// What the columns of its state are called in a checkpoint: with their version, unless it is the first.
    #[must_use]
    pub fn state_names(&self) -> Vec<String> {
        let name = |field: &FieldRef| match self.bound.said.state_version {
            1 => field.name().clone(),
            version => format!("{}.v{version}", field.name()),
        };
        self.bound.said.state.fields().iter().map(name).collect()
    }

    /// An accumulator without groups.
    ///
    /// # Errors
    /// As the function says.
    pub fn groups(&self) -> Result<AggregateGroups, PluginError> {
        let (mut accumulator, mut error) = (std::ptr::null_mut(), abi::Error::empty());
        // SAFETY: the plugin's function, called as its contract says.
        let status = unsafe { (self.table.create)(self.bound.pointer.function, &raw mut accumulator, &raw mut error) };
        self.bound.read(&error, status, || Ok(()))?;
        Ok(AggregateGroups { accumulator, function: self.clone() })
    }
}

/// What an aggregate function knows of its groups. Groups are numbers from 0.
pub struct AggregateGroups {
    accumulator: *mut c_void,
    function: AggregateFunction,
}

// SAFETY: by contract an accumulator's calls may come from different threads, one after another. It is not `Sync`: there is a pointer in it.
unsafe impl Send for AggregateGroups {}

type FoldFn = unsafe extern "C" fn(*mut c_void, *mut Batch, *const u32, usize, *mut abi::Error) -> Status;
type LookFn = unsafe extern "C" fn(*mut c_void, *const u32, usize, *mut Batch, *mut abi::Error) -> Status;

impl AggregateGroups {
    /// Adds rows: `groups` says of which group each is.
    ///
    /// # Errors
    /// As the function says.
    pub fn update(&mut self, groups: &[u32], arguments: &[ArrayRef]) -> Result<(), PluginError> {
        let batch = self.function.bound.arguments(arguments, groups.len())?;
        self.fold(self.function.table.update, batch, groups)
    }

    /// Takes rows back.
    ///
    /// # Errors
    /// As the function says.
    pub fn retract(&mut self, groups: &[u32], arguments: &[ArrayRef]) -> Result<(), PluginError> {
        let batch = self.function.bound.arguments(arguments, groups.len())?;
        self.fold(self.function.table.retract, batch, groups)
    }

    /// Adds states that [`AggregateGroups::state`] gave.
    ///
    /// # Errors
    /// As the function says.
    pub fn merge(&mut self, groups: &[u32], states: &[ArrayRef]) -> Result<(), PluginError> {
        let bound = &self.function.bound;
        let batch = convert::export_columns(&bound.said.state, states.to_vec(), groups.len()).map_err(|error| bound.failure(error))?;
        self.fold(self.function.table.merge, batch, groups)
    }

    /// The states of some groups.
    ///
    /// # Errors
    /// As the function says.
    pub fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>, PluginError> {
        self.look(self.function.table.state, groups, |batch| Bound::given(batch, &self.function.bound.said.state, groups.len()))
    }

    /// The results of some groups.
    ///
    /// # Errors
    /// As the function says.
    pub fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef, PluginError> {
        self.look(self.function.table.evaluate, groups, |batch| Bound::one(batch, &self.function.bound.said.result, groups.len()))
    }

    /// Forgets groups.
    ///
    /// # Errors
    /// As the function says.
    pub fn forget(&mut self, groups: &[u32]) -> Result<(), PluginError> {
        let mut error = abi::Error::empty();
        // SAFETY: the plugin's function, called as its contract says.
        let status = unsafe { (self.function.table.forget)(self.accumulator, groups.as_ptr(), groups.len(), &raw mut error) };
        self.function.bound.read(&error, status, || Ok(()))
    }

    /// The function that it is of.
    #[must_use]
    pub const fn function(&self) -> &AggregateFunction {
        &self.function
    }

    fn fold(&mut self, function: FoldFn, mut batch: Batch, groups: &[u32]) -> Result<(), PluginError> {
        let mut error = abi::Error::empty();
        // SAFETY: the plugin's function, called as its contract says.
        let status = unsafe { function(self.accumulator, &raw mut batch, groups.as_ptr(), groups.len(), &raw mut error) };
        self.function.bound.read(&error, status, || Ok(()))
    }

    /// Not consuming, so `&self`: it is on one thread, for this is not `Sync`, and the plugin has returned before anything else is called.
    fn look<T>(&self, function: LookFn, groups: &[u32], read: impl FnOnce(Batch) -> Result<T>) -> Result<T, PluginError> {
        let (mut out, mut error) = (Batch::empty(), abi::Error::empty());
        // SAFETY: the plugin's function, called as its contract says.
        let status = unsafe { function(self.accumulator, groups.as_ptr(), groups.len(), &raw mut out, &raw mut error) };
        self.function.bound.read(&error, status, || read(out))
    }
}

impl Drop for AggregateGroups {
    fn drop(&mut self) {
        // SAFETY: made by `create`, destroyed once, before the function that it is of.
        unsafe { (self.function.table.destroy)(self.accumulator) }
    }
}

impl fmt::Debug for AggregateGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AggregateGroups of {:?}", self.function)
    }
}
