//! Encoded keys back into Arrow columns, a column at a time: the inverse of [`crate::key`]'s encoding.

use crate::key::{KeyError, KeyValue, read_length};
use arrow::array::{ArrayRef, BinaryArray, BooleanArray, NullArray, PrimitiveArray, downcast_primitive};
use arrow::compute::cast;
use arrow_schema::DataType;
use std::sync::Arc;

/// One array per type; each column takes its values off the front of every key.
pub(super) fn columns(types: &[DataType], mut rest: Vec<&[u8]>) -> Result<Vec<ArrayRef>, KeyError> {
    types.iter().map(|data_type| column(data_type, &mut rest)).collect()
}

fn column(data_type: &DataType, rest: &mut [&[u8]]) -> Result<ArrayRef, KeyError> {
    macro_rules! primitive {
        ($type:ty) => {{
            let values = fixed_values(rest)?.into_iter().map(|value| value.map(KeyValue::from_key));
            Arc::new(values.collect::<PrimitiveArray<$type>>().with_data_type(data_type.clone())) as ArrayRef
        }};
    }
    Ok(match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            bytes_column(data_type, rest)?
        }
        DataType::FixedSizeBinary(_) => bytes_column(data_type, rest)?,
        DataType::Boolean => {
            let values = fixed_values::<[u8; 1]>(rest)?;
            Arc::new(values.into_iter().map(|value| value.map(|byte| byte[0] != 0)).collect::<BooleanArray>())
        }
        DataType::Null => {
            fixed_values::<[u8; 0]>(rest)?;
            Arc::new(NullArray::new(rest.len()))
        }
        DataType::Dictionary(_, values) => cast(column(values, rest)?.as_ref(), data_type)?,
        data_type => {
            downcast_primitive! {
                data_type => (primitive),
                other => return Err(KeyError::Type(other.clone()))
            }
        }
    })
}

fn bytes_column(data_type: &DataType, rest: &mut [&[u8]]) -> Result<ArrayRef, KeyError> {
    let mut values = Vec::with_capacity(rest.len());
    for key in rest {
        let (length, tail) = read_length(key)?;
        let Some(length) = length else {
            *key = tail;
            values.push(None);
            continue;
        };
        let (value, tail) = tail.split_at_checked(length).ok_or(KeyError::Corrupt)?;
        *key = tail;
        values.push(Some(value));
    }
    let binary: ArrayRef = Arc::new(BinaryArray::from_iter(values));
    Ok(cast(&binary, data_type)?)
}

fn fixed_values<B: for<'a> TryFrom<&'a [u8]>>(rest: &mut [&[u8]]) -> Result<Vec<Option<B>>, KeyError> {
    let mut values = Vec::with_capacity(rest.len());
    for key in rest {
        let (tag, tail) = key.split_first().ok_or(KeyError::Corrupt)?;
        if *tag == 0 {
            *key = tail;
            values.push(None);
            continue;
        }
        let (value, tail) = tail.split_at_checked(size_of::<B>()).ok_or(KeyError::Corrupt)?;
        *key = tail;
        values.push(Some(B::try_from(value).map_err(|_| KeyError::Corrupt)?));
    }
    Ok(values)
}
