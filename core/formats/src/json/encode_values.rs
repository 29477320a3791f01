//! The values of one column, written as JSON: numbers exactly, floats as the shortest text that reads back the same (`12.0`, not `12`; `null`
//! if not finite), decimals with all digits of their scale, binary as base64, timestamps as the field's metadata says.
//!
//! Called by `encode` once per batch to look at the column's type, then once per value.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, GenericListArray, MapArray, PrimitiveArray, StringArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, TimeUnit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::encode::{prefixes, write_string, write_string_of};
use crate::block::Fixed;
use crate::{TEXT_ISO, TEXT_KEY, temporal};

/// Writes the value of a row, which is not null.
trait Values {
    fn write(&self, row: usize, out: &mut Vec<u8>);
}

/// A column to be written.
pub(crate) struct Cell<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Box<dyn Values + 'a>,
}

impl<'a> Cell<'a> {
    /// The array has the field's type, which is one that `encode::plain_type` gives.
    pub(super) fn new(field: &Field, array: &'a ArrayRef) -> Self {
        Self { nulls: array.nulls().filter(|nulls| nulls.null_count() > 0), values: values(field, array) }
    }

    /// Writes the value of a row.
    #[inline]
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            out.extend_from_slice(b"null");
        } else {
            self.values.write(row, out);
        }
    }
}

fn values<'a>(field: &Field, array: &'a ArrayRef) -> Box<dyn Values + 'a> {
    match array.data_type() {
        DataType::Boolean => Box::new(array.as_boolean()),
        DataType::Int8 => integers::<Int8Type>(array),
        DataType::Int16 => integers::<Int16Type>(array),
        DataType::Int32 => integers::<Int32Type>(array),
        DataType::Int64 => integers::<Int64Type>(array),
        DataType::UInt8 => integers::<UInt8Type>(array),
        DataType::UInt16 => integers::<UInt16Type>(array),
        DataType::UInt32 => integers::<UInt32Type>(array),
        DataType::UInt64 => integers::<UInt64Type>(array),
        DataType::Float32 => Box::new(Floats(array.as_primitive::<Float32Type>())),
        DataType::Float64 => Box::new(Floats(array.as_primitive::<Float64Type>())),
        DataType::Decimal128(_, scale) => Box::new(Decimals(array.as_primitive::<Decimal128Type>(), *scale)),
        DataType::Decimal256(_, scale) => Box::new(Decimals(array.as_primitive::<Decimal256Type>(), *scale)),
        DataType::Utf8 => Box::new(array.as_string::<i32>()),
        DataType::Binary => Box::new(array.as_binary::<i32>()),
        DataType::Date32 => Box::new(Dates(array.as_primitive())),
        DataType::Time64(TimeUnit::Microsecond) => Box::new(Times(array.as_primitive::<Time64MicrosecondType>(), 1_000_000)),
        DataType::Time64(_) => Box::new(Times(array.as_primitive::<Time64NanosecondType>(), 1_000_000_000)),
        DataType::Timestamp(TimeUnit::Second, _) => timestamps::<TimestampSecondType>(field, array, 1),
        DataType::Timestamp(TimeUnit::Millisecond, _) => timestamps::<TimestampMillisecondType>(field, array, 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => timestamps::<TimestampMicrosecondType>(field, array, 1_000_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => timestamps::<TimestampNanosecondType>(field, array, 1_000_000_000),
        DataType::List(item) => Box::new(List { item: Cell::new(item, array.as_list::<i32>().values()), array: array.as_list() }),
        DataType::Struct(fields) => {
            let cells = fields.iter().zip(array.as_struct().columns()).map(|(field, column)| Cell::new(field, column));
            Box::new(Struct(prefixes(fields).into_iter().zip(cells).collect()))
        }
        DataType::Map(..) => {
            let map = array.as_map();
            Box::new(Map { keys: map.keys().as_string(), values: Cell::new(map.entries_fields().1, map.values()), array: map })
        }
        // The null type, the last that `plain_type` gives: all its values are null.
        _ => Box::new(Nulls),
    }
}

struct Nulls;

impl Values for Nulls {
    fn write(&self, _row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"null");
    }
}

impl Values for &BooleanArray {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.value(row) { b"true" } else { b"false" });
    }
}

impl Values for &StringArray {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        let offsets = self.value_offsets();
        write_string_of(self.value_data(), offsets[row] as usize, offsets[row + 1] as usize, out);
    }
}

impl Values for &BinaryArray {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        let bytes = self.value(row);
        out.push(b'"');
        let start = out.len();
        // Four characters per three bytes begun: room for exactly what is written.
        out.resize(start + bytes.len().div_ceil(3) * 4, 0);
        let written = BASE64.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
        out.truncate(start + written);
        out.push(b'"');
    }
}

struct Integers<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

fn integers<T: ArrowPrimitiveType<Native: itoa::Integer>>(array: &ArrayRef) -> Box<dyn Values + '_> {
    Box::new(Integers(array.as_primitive::<T>()))
}

impl<T: ArrowPrimitiveType<Native: itoa::Integer>> Values for Integers<'_, T> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(itoa::Buffer::new().format(self.0.value(row)).as_bytes());
    }
}

struct Floats<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: ArrowPrimitiveType<Native: zmij::Float + Into<f64>>> Values for Floats<'_, T> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        let value = self.0.value(row);
        if value.into().is_finite() {
            out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
        } else {
            out.extend_from_slice(b"null");
        }
    }
}

/// Decimals and their scale.
struct Decimals<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>, i8);

impl Values for Decimals<'_, Decimal128Type> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        write_decimal(itoa::Buffer::new().format(self.0.value(row)), self.1, out);
    }
}

impl Values for Decimals<'_, Decimal256Type> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        write_decimal(&self.0.value(row).to_string(), self.1, out);
    }
}

/// Writes an integer times `10^-scale`, with exactly `scale` digits after the point.
fn write_decimal(integer: &str, scale: i8, out: &mut Vec<u8>) {
    let digits = integer.strip_prefix('-').unwrap_or(integer);
    if digits.len() < integer.len() {
        out.push(b'-');
    }
    if scale <= 0 {
        let zeros = if digits == "0" { 0 } else { scale.unsigned_abs() };
        out.extend_from_slice(digits.as_bytes());
        out.extend(std::iter::repeat_n(b'0', usize::from(zeros)));
        return;
    }
    let scale = usize::from(scale.unsigned_abs());
    let whole = digits.len().saturating_sub(scale);
    out.extend_from_slice(if whole == 0 { b"0" } else { &digits.as_bytes()[..whole] });
    out.push(b'.');
    out.extend(std::iter::repeat_n(b'0', scale.saturating_sub(digits.len())));
    out.extend_from_slice(&digits.as_bytes()[whole..]);
}

struct Dates<'a>(&'a PrimitiveArray<Date32Type>);

impl Values for Dates<'_> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        temporal::write_date(i64::from(self.0.value(row)), out);
        out.push(b'"');
    }
}

/// Times of day and how many of their units make a second.
struct Times<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>, i64);

impl<T: ArrowPrimitiveType<Native = i64>> Values for Times<'_, T> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        let value = self.0.value(row);
        out.push(b'"');
        temporal::write_time(value.div_euclid(self.1), (value.rem_euclid(self.1) * (1_000_000_000 / self.1)) as u32, out);
        out.push(b'"');
    }
}

/// Timestamps as ISO text and how many of their units make a second.
struct Timestamps<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>, i64);

fn timestamps<'a, T: ArrowPrimitiveType<Native = i64>>(field: &Field, array: &'a ArrayRef, per_second: i64) -> Box<dyn Values + 'a> {
    if field.metadata().get(TEXT_KEY).is_some_and(|text| text == TEXT_ISO) {
        Box::new(Timestamps(array.as_primitive::<T>(), per_second))
    } else {
        integers::<T>(array)
    }
}

impl<T: ArrowPrimitiveType<Native = i64>> Values for Timestamps<'_, T> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        temporal::write_timestamp(self.0.value(row), self.1, out);
        out.push(b'"');
    }
}

struct List<'a> {
    array: &'a GenericListArray<i32>,
    item: Cell<'a>,
}

impl Values for List<'_> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        let offsets = self.array.value_offsets();
        out.push(b'[');
        let first = offsets[row] as usize;
        for item in first..offsets[row + 1] as usize {
            if item > first {
                out.push(b',');
            }
            self.item.write(item, out);
        }
        out.push(b']');
    }
}

struct Struct<'a>(Vec<(Fixed, Cell<'a>)>);

impl Values for Struct<'_> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.0.is_empty() {
            out.push(b'{');
        }
        for (prefix, cell) in &self.0 {
            prefix.write(out);
            cell.write(row, out);
        }
        out.push(b'}');
    }
}

struct Map<'a> {
    array: &'a MapArray,
    keys: &'a StringArray,
    values: Cell<'a>,
}

impl Values for Map<'_> {
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        let offsets = self.array.value_offsets();
        out.push(b'{');
        let first = offsets[row] as usize;
        for entry in first..offsets[row + 1] as usize {
            if entry > first {
                out.push(b',');
            }
            write_string(self.keys.value(entry).as_bytes(), out);
            out.push(b':');
            self.values.write(entry, out);
        }
        out.push(b'}');
    }
}
