//! The version of each row, where the documents have external ones: a whole number of a column, or the microseconds of a time. Of two writes of a document the one with
//! the higher version stands, whichever comes last. Called by `plan` and `bulk`.

use crate::document;
use arrow_array::{Array, ArrowPrimitiveType, cast::AsArray, types::*};
use arrow_schema::DataType;

/// The version of a row, or why it has none.
pub(crate) type Versions<'a> = Box<dyn Fn(usize) -> Result<u64, &'static str> + 'a>;

/// Whether a column can be a version; else why not.
pub(crate) fn check(data_type: &DataType) -> Result<(), String> {
    versions(&arrow_array::new_empty_array(data_type)).map(drop)
}

/// The versions of a batch's rows.
pub(crate) fn versions(array: &dyn Array) -> Result<Versions<'_>, String> {
    Ok(match array.data_type() {
        DataType::Int8 => whole::<Int8Type>(array),
        DataType::Int16 => whole::<Int16Type>(array),
        DataType::Int32 => whole::<Int32Type>(array),
        DataType::Int64 => whole::<Int64Type>(array),
        DataType::UInt8 => whole::<UInt8Type>(array),
        DataType::UInt16 => whole::<UInt16Type>(array),
        DataType::UInt32 => whole::<UInt32Type>(array),
        DataType::UInt64 => whole::<UInt64Type>(array),
        other => match document::instants(array) {
            Some(instants) => Box::new(move |row| {
                let (seconds, nanos) = instants(row);
                let micros = i128::from(seconds) * 1_000_000 + i128::from(nanos / 1_000);
                checked(array.is_valid(row).then_some(micros))
            }),
            None => return Err(format!("values of type {other} are no versions; a whole number or a time is one")),
        },
    })
}

fn whole<T: ArrowPrimitiveType<Native: Into<i128>>>(array: &dyn Array) -> Versions<'_> {
    let array = array.as_primitive::<T>();
    Box::new(|row| checked(array.is_valid(row).then(|| array.value(row).into())))
}

/// Versions are those of a long that is not negative.
fn checked(value: Option<i128>) -> Result<u64, &'static str> {
    let value = value.ok_or("the version is null")?;
    i64::try_from(value).ok().and_then(|value| u64::try_from(value).ok()).ok_or("a version is from 0 to 9223372036854775807")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int64Array, TimestampMillisecondArray, UInt64Array};

    #[test]
    fn numbers_and_times_are_versions() {
        let of = |array: &dyn Array| (0..array.len()).map(|row| versions(array).unwrap()(row)).collect::<Vec<_>>();
        let outside = Err("a version is from 0 to 9223372036854775807");
        assert_eq!(of(&Int64Array::from(vec![Some(0), Some(-1), None, Some(7)])), [Ok(0), outside, Err("the version is null"), Ok(7)]);
        assert_eq!(of(&UInt64Array::from(vec![u64::MAX, 1 << 62])), [outside, Ok(1 << 62)]);
        assert_eq!(of(&TimestampMillisecondArray::from(vec![Some(5), None, Some(-5)])), [Ok(5_000), Err("the version is null"), outside]);
        assert!(check(&DataType::Float64).is_err() && check(&DataType::Utf8).is_err() && check(&DataType::Date32).is_ok());
    }
}
