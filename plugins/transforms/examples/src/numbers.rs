//! Columns of numbers in the few types in which the transforms compute.

use arrow_array::{
    Array, ArrayRef, Float64Array, Int64Array,
    cast::AsArray,
    types::{Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_schema::DataType;
use standpipe_sdk::{Error, Result};

/// Whether [`as_float64`] takes it.
pub(crate) fn is_number(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64) || data_type.is_integer()
}

/// Numbers as float64: whole ones beyond 2^53 are rounded.
///
/// # Errors
/// When the column has no numbers.
pub(crate) fn as_float64(column: &ArrayRef) -> Result<Float64Array> {
    macro_rules! from {
        ($type:ty) => {
            column.as_primitive::<$type>().unary(|value| value as f64)
        };
    }
    Ok(match column.data_type() {
        DataType::Int8 => from!(Int8Type),
        DataType::Int16 => from!(Int16Type),
        DataType::Int32 => from!(Int32Type),
        DataType::Int64 => from!(Int64Type),
        DataType::UInt8 => from!(UInt8Type),
        DataType::UInt16 => from!(UInt16Type),
        DataType::UInt32 => from!(UInt32Type),
        DataType::UInt64 => from!(UInt64Type),
        DataType::Float32 => from!(Float32Type),
        DataType::Float64 => column.as_primitive::<Float64Type>().clone(),
        other => return Err(Error::data(format!("a column of type {other} holds no numbers"))),
    })
}

/// Whole numbers that int64 holds, whatever they are.
///
/// # Errors
/// When the column has others.
pub(crate) fn as_int64(column: &ArrayRef) -> Result<Int64Array> {
    macro_rules! from {
        ($type:ty) => {
            column.as_primitive::<$type>().unary(i64::from)
        };
    }
    Ok(match column.data_type() {
        DataType::Int8 => from!(Int8Type),
        DataType::Int16 => from!(Int16Type),
        DataType::Int32 => from!(Int32Type),
        DataType::UInt8 => from!(UInt8Type),
        DataType::UInt16 => from!(UInt16Type),
        DataType::UInt32 => from!(UInt32Type),
        DataType::Int64 => column.as_primitive::<Int64Type>().clone(),
        other => return Err(Error::data(format!("a column of type {other} holds no whole numbers of at most 64 bits"))),
    })
}
