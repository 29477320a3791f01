//! What an author of functions writes: scalar functions, which compute a column of columns, and aggregate functions, which fold the rows of many groups at once. Any
//! expression of a pipeline may call them by their name.
//!
//! A call is bound once, when the pipeline is planned: the function sees the types of its arguments and says which it wants, to which the host casts, and what it gives.
//!
//! ```
//! use arrow_array::{ArrayRef, Int64Array, cast::AsArray, types::Int64Type};
//! use arrow_schema::{DataType, FieldRef};
//! use standpipe_sdk::{Result, function::{Bound, ScalarFunction}};
//! use std::sync::Arc;
//!
//! /// Twice the number.
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct DoubleConfig {}
//! struct Double;
//!
//! impl ScalarFunction for Double {
//!     const NAME: &'static str = "double";
//!     type Config = DoubleConfig;
//!     fn bind(_: DoubleConfig, _: &[FieldRef]) -> Result<Bound<Self>> {
//!         Ok(Bound::new(Self, [DataType::Int64], DataType::Int64))
//!     }
//!     fn invoke(&self, arguments: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
//!         let doubled: Int64Array = arguments[0].as_primitive::<Int64Type>().unary(|value| value.wrapping_mul(2));
//!         Ok(Arc::new(doubled))
//!     }
//! }
//!
//! standpipe_sdk::export_plugin! { scalars: [Double] }
//! # fn main() {}
//! ```

use crate::{Config, Error, ErrorCode, Result};
use arrow_array::ArrayRef;
use arrow_schema::{DataType, Field, FieldRef};
use std::sync::Arc;

/// Whether the same arguments give the same result; of an aggregate function, the same rows in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Volatility {
    /// Always: a call with constants alone is computed once, when the pipeline is planned.
    #[default]
    Immutable,
    /// Within one run of the job.
    Stable,
    /// Not even from one call to the next.
    Volatile,
}

/// A function that is bound to the types of its arguments.
#[derive(Debug)]
pub struct Bound<F> {
    /// What is called with batches.
    pub function: F,
    /// The types that it wants its arguments in, as many as there are; the host casts.
    pub arguments: Vec<DataType>,
    /// What it gives; its name does not matter.
    pub result: Field,
    /// See [`Volatility`].
    pub volatility: Volatility,
    /// The columns of an accumulator's state, one at least; of an aggregate function. A checkpoint keeps them by their names.
    pub state: Vec<FieldRef>,
    /// Grows when the meaning of the state changes: that of another version is not taken back.
    pub state_version: u32,
}

/// The value of an argument that is a literal, as JSON; none of any other, or of a type that JSON has not.
///
/// ```
/// # use arrow_schema::{DataType, Field};
/// let metadata = [("standpipe.literal".to_owned(), "7".to_owned())].into();
/// let argument = Field::new("argument", DataType::Int64, false).with_metadata(metadata);
/// assert_eq!(standpipe_sdk::function::literal(&argument), Some(7.into()));
/// ```
#[must_use]
pub fn literal(argument: &Field) -> Option<serde_json::Value> {
    serde_json::from_str(argument.metadata().get(standpipe_abi::function::LITERAL)?).ok()
}

impl<F> Bound<F> {
    /// A function of arguments of these types, which always gives the same result, or null.
    #[must_use]
    pub fn new(function: F, arguments: impl IntoIterator<Item = DataType>, result: DataType) -> Self {
        let result = Field::new("result", result, true);
        Self {
            function,
            arguments: arguments.into_iter().collect(),
            result,
            volatility: Volatility::Immutable,
            state: Vec::new(),
            state_version: 1,
        }
    }

    /// With these columns of state.
    #[must_use]
    pub fn with_state<'a>(mut self, columns: impl IntoIterator<Item = (&'a str, DataType)>) -> Self {
        self.state = columns.into_iter().map(|(name, data_type)| Arc::new(Field::new(name, data_type, true))).collect();
        self
    }

    /// With state of that version.
    #[must_use]
    pub fn with_state_version(mut self, version: u32) -> Self {
        self.state_version = version;
        self
    }

    /// Of that volatility.
    #[must_use]
    pub fn with_volatility(mut self, volatility: Volatility) -> Self {
        self.volatility = volatility;
        self
    }

    /// Never null.
    #[must_use]
    pub fn not_null(mut self) -> Self {
        self.result = self.result.with_nullable(false);
        self
    }
}

/// A scalar function: a row of the result for each row of the arguments. It is pure: it does no I/O and keeps nothing between calls. Calls come from several threads at once.
pub trait ScalarFunction: Sized + Send + Sync + 'static {
    /// The name in expressions: lower-case letters, digits and `_`.
    const NAME: &'static str;
    /// What stands under `with:` of a pipeline's `functions:`.
    type Config: Config;

    /// Checks a call with arguments of these types. No I/O. It may be asked again for the same call, also with the types that it wanted: the same question has the same answer.
    ///
    /// # Errors
    /// When it takes no such arguments, or the configuration is wrong; both are shown where the expression is.
    fn bind(config: Self::Config, arguments: &[FieldRef]) -> Result<Bound<Self>>;

    /// Computes `rows` results of the type that `bind` said, from columns of the types that it wanted.
    ///
    /// # Errors
    /// When a row cannot be computed: the job ends with the message.
    fn invoke(&self, arguments: &[ArrayRef], rows: usize) -> Result<ArrayRef>;
}

/// An aggregate function: rows of many groups are folded into a value for each.
pub trait AggregateFunction: Sized + Send + Sync + 'static {
    /// As that of [`ScalarFunction`].
    const NAME: &'static str;
    /// As that of [`ScalarFunction`].
    type Config: Config;
    /// The state of many groups.
    type Accumulator: Accumulator;

    /// As that of [`ScalarFunction`]; it also says which columns the state has.
    ///
    /// # Errors
    /// As that of [`ScalarFunction`].
    fn bind(config: Self::Config, arguments: &[FieldRef]) -> Result<Bound<Self>>;

    /// An accumulator without groups. There may be several at a time: one for each window that is open.
    ///
    /// # Errors
    /// When there can be none.
    fn accumulator(&self) -> Result<Self::Accumulator>;
}

/// The state of many groups, which are numbers from 0. A group that it was not told of has the value of no rows.
pub trait Accumulator: Send + 'static {
    /// Adds rows: `groups[row]` is the group of a row.
    ///
    /// # Errors
    /// When a row cannot be added: the job ends with the message.
    fn update(&mut self, groups: &[u32], arguments: &[ArrayRef]) -> Result<()>;

    /// Takes rows back that were added.
    ///
    /// # Errors
    /// When it cannot; so it is unless an author says otherwise.
    fn retract(&mut self, groups: &[u32], arguments: &[ArrayRef]) -> Result<()> {
        let _ = (groups, arguments);
        Err(Error::new(ErrorCode::UNSUPPORTED, "takes no rows back"))
    }

    /// Adds states that [`Accumulator::state`] gave, of another accumulator or an earlier run.
    ///
    /// # Errors
    /// When they do not fit.
    fn merge(&mut self, groups: &[u32], states: &[ArrayRef]) -> Result<()>;

    /// The state of some groups, a row for each, in the columns that `bind` said. Nothing is consumed.
    ///
    /// # Errors
    /// When there can be none.
    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>>;

    /// The result of some groups, a row for each. Nothing is consumed.
    ///
    /// # Errors
    /// When there is none.
    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef>;

    /// Forgets groups, whose numbers may come again for others.
    fn forget(&mut self, groups: &[u32]);
}
