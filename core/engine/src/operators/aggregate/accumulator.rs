//! The accumulators of aggregates without a window: a value per key id, read without being consumed, written and restored as Arrow columns.
//!
//! Types are those of the plan: what an argument has otherwise is cast. Nulls are not counted, but `first_value` and `last_value` take them. A sum that does not
//! fit its type is an error: a wrong total would be worse (`operators::window::sum` has the same sums in windows). Float sums are added in the order of each key's rows.

use super::{
    fold::{Average, BytesFold, Count, Largest, NumberFold, Smallest, Sum},
    position::{First, Last},
};
use arrow::{
    array::{Array, ArrayRef, downcast_primitive},
    compute::cast,
    datatypes::{
        DataType, Decimal128Type, Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
        DurationSecondType, Float64Type, Int64Type, TimeUnit, UInt64Type,
    },
    error::ArrowError,
};
use standpipe_loader::PluginError;
use standpipe_pipeline::plan::RunningFunction;

/// Why an aggregate cannot go on.
#[derive(Debug, thiserror::Error)]
pub(in crate::operators) enum AccumulatorError {
    /// Too large.
    #[error("the sum is beyond what {0} can hold")]
    Overflow(DataType),
    /// Not for values of this type.
    #[error("{function:?} is not supported for values of type {data_type}")]
    Unsupported {
        /// The function.
        function: RunningFunction,
        /// The values.
        data_type: DataType,
    },
    /// Of a plugin's function.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// Of an Arrow kernel.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

pub(in crate::operators) type Result<T> = std::result::Result<T, AccumulatorError>;

/// A value per key. `groups` is how many keys there are now: ids are below it.
pub(in crate::operators) trait Accumulator: Send {
    /// Takes rows: `ids[i]` is the key of row `i`; a column per argument.
    fn update(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<()>;
    /// Takes rows and gives the value right after each.
    fn update_each(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<ArrayRef>;
    /// The values of some keys.
    fn read(&self, ids: &[u32]) -> Result<ArrayRef>;
    /// What must be kept of some keys, in columns of [`Self::state_types`].
    fn state(&self, ids: &[u32]) -> Result<Vec<ArrayRef>>;
    /// The types of the state columns.
    fn state_types(&self) -> Vec<DataType>;
    /// What they are called in a checkpoint.
    fn state_names(&self) -> Vec<String> {
        (0..self.state_types().len()).map(|at| at.to_string()).collect()
    }
    /// Takes state back, for keys that have none.
    fn restore(&mut self, ids: &[u32], groups: usize, state: &[ArrayRef]) -> Result<()>;
    /// Forgets everything.
    fn clear(&mut self) -> Result<()>;
}

/// An accumulator whose values, and so its arguments, are of one type.
pub(in crate::operators) fn new(function: RunningFunction, data_type: &DataType, has_argument: bool) -> Result<Box<dyn Accumulator>> {
    let unsupported = || AccumulatorError::Unsupported { function, data_type: data_type.clone() };
    if !has_argument && function != RunningFunction::Count {
        return Err(unsupported());
    }
    let whole = data_type.clone();
    Ok(match function {
        RunningFunction::Count => Box::new(Count::default()),
        RunningFunction::Avg => Box::new(Average::default()),
        RunningFunction::Sum => match data_type {
            DataType::Int64 => Box::new(NumberFold::<Int64Type, Sum>::new(whole)),
            DataType::UInt64 => Box::new(NumberFold::<UInt64Type, Sum>::new(whole)),
            DataType::Float64 => Box::new(NumberFold::<Float64Type, Sum>::new(whole)),
            DataType::Decimal128(..) => Box::new(NumberFold::<Decimal128Type, Sum>::new(whole)),
            DataType::Decimal256(..) => Box::new(NumberFold::<Decimal256Type, Sum>::new(whole)),
            DataType::Duration(TimeUnit::Second) => Box::new(NumberFold::<DurationSecondType, Sum>::new(whole)),
            DataType::Duration(TimeUnit::Millisecond) => Box::new(NumberFold::<DurationMillisecondType, Sum>::new(whole)),
            DataType::Duration(TimeUnit::Microsecond) => Box::new(NumberFold::<DurationMicrosecondType, Sum>::new(whole)),
            DataType::Duration(TimeUnit::Nanosecond) => Box::new(NumberFold::<DurationNanosecondType, Sum>::new(whole)),
            _ => return Err(unsupported()),
        },
        RunningFunction::Min => extreme::<Smallest>(function, whole)?,
        RunningFunction::Max => extreme::<Largest>(function, whole)?,
        RunningFunction::First => Box::new(First::new(data_type)?),
        RunningFunction::Last => Box::new(Last::new(data_type)?),
    })
}

fn extreme<O: super::fold::Order>(function: RunningFunction, data_type: DataType) -> Result<Box<dyn Accumulator>> {
    macro_rules! primitive {
        ($type:ty) => {
            Box::new(NumberFold::<$type, O>::new(data_type)) as Box<dyn Accumulator>
        };
    }
    Ok(match &data_type {
        DataType::Boolean => Box::new(Cast { inner: extreme::<O>(function, DataType::UInt8)?, as_type: DataType::UInt8, data_type }),
        DataType::Dictionary(_, values) => {
            let as_type = values.as_ref().clone();
            Box::new(Cast { inner: extreme::<O>(function, as_type.clone())?, as_type, data_type })
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            Box::new(BytesFold::<O>::new(data_type))
        }
        of => {
            downcast_primitive! {
                of => (primitive),
                other => return Err(AccumulatorError::Unsupported { function, data_type: other.clone() })
            }
        }
    })
}

/// Values of the type that an accumulator was made for.
pub(super) fn typed(values: &[ArrayRef], data_type: &DataType) -> Result<ArrayRef> {
    match values.first() {
        Some(values) if values.data_type() == data_type => Ok(values.clone()),
        Some(values) => Ok(cast(values, data_type)?),
        None => Err(ArrowError::InvalidArgumentError("an argument is missing".to_owned()).into()),
    }
}

/// An accumulator that works on another type than its values have.
struct Cast {
    inner: Box<dyn Accumulator>,
    as_type: DataType,
    data_type: DataType,
}

impl Accumulator for Cast {
    fn update(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<()> {
        self.inner.update(ids, groups, &[typed(values, &self.as_type)?])
    }

    fn update_each(&mut self, ids: &[u32], groups: usize, values: &[ArrayRef]) -> Result<ArrayRef> {
        let running = self.inner.update_each(ids, groups, &[typed(values, &self.as_type)?])?;
        Ok(cast(&running, &self.data_type)?)
    }

    fn read(&self, ids: &[u32]) -> Result<ArrayRef> {
        Ok(cast(&self.inner.read(ids)?, &self.data_type)?)
    }

    fn state(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        self.inner.state(ids)
    }

    fn state_types(&self) -> Vec<DataType> {
        self.inner.state_types()
    }

    fn restore(&mut self, ids: &[u32], groups: usize, state: &[ArrayRef]) -> Result<()> {
        self.inner.restore(ids, groups, state)
    }

    fn clear(&mut self) -> Result<()> {
        self.inner.clear()
    }
}
