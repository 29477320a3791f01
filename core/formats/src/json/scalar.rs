//! Columns of one value per record: booleans, numbers, strings, binary, dates, times, timestamps.
//!
//! A number may also be a JSON string that holds just a number, since many writers quote what JavaScript would round. Binary is base64, with or
//! without padding. Dates, times and ISO timestamps are strings; see `crate::temporal`.

use std::str::FromStr;
use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, BinaryArray, BooleanArray, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer, i256};
use arrow_schema::{ArrowError, DataType, Field, TimeUnit};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::column::Values;
use super::cursor::{Cursor, Result};
use super::nested::Offsets;
use super::number::Number;
use crate::{TEXT_ISO, TEXT_KEY, temporal, types};

const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// The values of a field of a scalar type.
pub(super) fn values(field: &Field) -> Option<Box<dyn Values>> {
    let data_type = field.data_type();
    Some(match data_type {
        DataType::Boolean => Box::new(Booleans::default()),
        DataType::Int8 => integers::<Int8Type>(field),
        DataType::Int16 => integers::<Int16Type>(field),
        DataType::Int32 => integers::<Int32Type>(field),
        DataType::Int64 => integers::<Int64Type>(field),
        DataType::UInt8 => integers::<UInt8Type>(field),
        DataType::UInt16 => integers::<UInt16Type>(field),
        DataType::UInt32 => integers::<UInt32Type>(field),
        DataType::UInt64 => integers::<UInt64Type>(field),
        DataType::Float32 => numbers::<Float32Type>(field, |number| number.float32(), float_text),
        DataType::Float64 => numbers::<Float64Type>(field, |number| number.float64(), float_text),
        &DataType::Decimal128(precision, scale) if precision <= 38 => {
            let end = 10_i128.pow(u32::from(precision));
            numbers::<Decimal128Type>(field, move |number| number.scaled(scale).filter(|value| value.abs() < end), |_| None)
        }
        &DataType::Decimal256(precision, scale) => {
            let end = i256::from(10).checked_pow(u32::from(precision))?;
            let convert = move |number: &Number| number.scaled_256(scale).filter(|value| *value < end && value.wrapping_neg() < end);
            numbers::<Decimal256Type>(field, convert, |_| None)
        }
        DataType::Utf8 => Box::new(Text::default()),
        DataType::Binary => Box::new(Base64Text::default()),
        DataType::Date32 => texts::<Date32Type>(data_type, "a date such as \"2024-01-31\"", temporal::parse_date),
        DataType::Time64(TimeUnit::Microsecond) => {
            texts::<Time64MicrosecondType>(data_type, "a time such as \"23:59:59.5\"", temporal::parse_time)
        }
        DataType::Timestamp(unit, _) => timestamps(field, *unit)?,
        _ => return None,
    })
}

/// Timestamps from ISO text have microseconds; those from epoch numbers have any unit.
fn timestamps(field: &Field, unit: TimeUnit) -> Option<Box<dyn Values>> {
    let iso = field.metadata().get(TEXT_KEY).is_some_and(|text| text == TEXT_ISO);
    Some(match (unit, iso) {
        (TimeUnit::Microsecond, true) => {
            let expected = "a timestamp such as \"2024-01-31T23:59:59Z\"";
            texts::<TimestampMicrosecondType>(field.data_type(), expected, temporal::parse_timestamp)
        }
        (_, true) => return None,
        (TimeUnit::Second, false) => integers::<TimestampSecondType>(field),
        (TimeUnit::Millisecond, false) => integers::<TimestampMillisecondType>(field),
        (TimeUnit::Microsecond, false) => integers::<TimestampMicrosecondType>(field),
        (TimeUnit::Nanosecond, false) => integers::<TimestampNanosecondType>(field),
    })
}

fn integers<T: ArrowPrimitiveType<Native: TryFrom<i128>>>(field: &Field) -> Box<dyn Values> {
    let convert = |number: &Number| number.integer().and_then(|value| T::Native::try_from(value).ok());
    numbers::<T>(field, convert, |text| text.parse().ok().and_then(|value: i128| T::Native::try_from(value).ok()))
}

/// `NaN`, `inf`, `+1.5`, `.5`; but a number that is too large is none.
fn float_text<F: FromStr + Into<f64> + Copy>(text: &str) -> Option<F> {
    let value: F = text.parse().ok()?;
    (!value.into().is_infinite() || text.contains(['i', 'I'])).then_some(value)
}

/// `from_text` reads what a text may hold, but no JSON number: a plus sign, leading zeros.
fn numbers<T: ArrowPrimitiveType>(
    field: &Field,
    convert: impl Fn(&Number) -> Option<T::Native> + Send + 'static,
    from_text: fn(&str) -> Option<T::Native>,
) -> Box<dyn Values> {
    let expected = match field.data_type() {
        DataType::Timestamp(..) => "an epoch number".to_owned(),
        _ => format!("a number that fits {}", types::type_text(field)),
    };
    Box::new(Numbers::<T, _> { primitives: Primitives::new(field.data_type()), expected, convert, from_text })
}

fn texts<T: ArrowPrimitiveType>(data_type: &DataType, expected: &'static str, parse: fn(&[u8]) -> Option<T::Native>) -> Box<dyn Values> {
    Box::new(Texts::<T> { primitives: Primitives::new(data_type), expected, parse })
}

/// The values of a fixed-width column.
struct Primitives<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    data_type: DataType,
}

impl<T: ArrowPrimitiveType> Primitives<T> {
    fn new(data_type: &DataType) -> Self {
        Self { values: Vec::new(), data_type: data_type.clone() }
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError> {
        let next = Vec::with_capacity(self.values.len());
        let values = std::mem::replace(&mut self.values, next);
        let array = PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), nulls)?;
        // The type's parameters: time zone, precision and scale.
        Ok(Arc::new(array.with_data_type(self.data_type.clone())))
    }
}

/// Fixed-width values from number tokens.
struct Numbers<T: ArrowPrimitiveType, F> {
    primitives: Primitives<T>,
    expected: String,
    convert: F,
    from_text: fn(&str) -> Option<T::Native>,
}

impl<T: ArrowPrimitiveType, F: Fn(&Number) -> Option<T::Native> + Send> Values for Numbers<T, F> {
    #[inline]
    fn decode(&mut self, cursor: &mut Cursor) -> Result<()> {
        let start = cursor.pos;
        let number = match cursor.peek() {
            Some(b'-' | b'0'..=b'9') => Some(cursor.number()?),
            Some(b'"') => quoted_number(cursor),
            _ => None,
        };
        match number.and_then(|number| (self.convert)(&number)) {
            Some(value) => {
                self.primitives.values.push(value);
                Ok(())
            }
            None => Err(cursor.expected(&self.expected, start)),
        }
    }

    #[inline]
    fn decode_text(&mut self, text: &[u8]) -> std::result::Result<(), String> {
        let mut cursor = Cursor::new(text);
        let number = cursor.number().ok().filter(|_| cursor.pos == text.len());
        let value = number.and_then(|number| (self.convert)(&number));
        let value = value.or_else(|| std::str::from_utf8(text).ok().and_then(self.from_text));
        self.primitives.values.push(value.ok_or_else(|| format!("expected {}", self.expected))?);
        Ok(())
    }

    fn push_masked(&mut self) {
        self.primitives.values.push(T::Native::default());
    }

    fn truncate(&mut self, len: usize) {
        self.primitives.values.truncate(len);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError> {
        self.primitives.finish(nulls)
    }
}

/// The number that is all of the string at the cursor.
fn quoted_number<'a>(cursor: &mut Cursor<'a>) -> Option<Number<'a>> {
    cursor.pos += 1;
    let number = cursor.number().ok()?;
    if cursor.peek() != Some(b'"') {
        return None;
    }
    cursor.pos += 1;
    Some(number)
}

/// Fixed-width values from strings.
struct Texts<T: ArrowPrimitiveType> {
    primitives: Primitives<T>,
    expected: &'static str,
    parse: fn(&[u8]) -> Option<T::Native>,
}

impl<T: ArrowPrimitiveType> Values for Texts<T> {
    fn decode(&mut self, cursor: &mut Cursor) -> Result<()> {
        let start = cursor.pos;
        if cursor.peek() != Some(b'"') {
            return Err(cursor.expected(self.expected, start));
        }
        let text = cursor.string()?;
        let value = (self.parse)(&text).ok_or_else(|| cursor.expected(self.expected, start))?;
        self.primitives.values.push(value);
        Ok(())
    }

    fn decode_text(&mut self, text: &[u8]) -> std::result::Result<(), String> {
        self.primitives.values.push((self.parse)(text).ok_or_else(|| format!("expected {}", self.expected.replace('"', "")))?);
        Ok(())
    }

    fn push_masked(&mut self) {
        self.primitives.values.push(T::Native::default());
    }

    fn truncate(&mut self, len: usize) {
        self.primitives.values.truncate(len);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError> {
        self.primitives.finish(nulls)
    }
}

#[derive(Default)]
struct Booleans(Vec<bool>);

impl Values for Booleans {
    fn decode(&mut self, cursor: &mut Cursor) -> Result<()> {
        let value = match cursor.peek() {
            Some(b't') => cursor.literal("true").map(|()| true)?,
            Some(b'f') => cursor.literal("false").map(|()| false)?,
            _ => return Err(cursor.expected("true or false", cursor.pos)),
        };
        self.0.push(value);
        Ok(())
    }

    fn decode_text(&mut self, text: &[u8]) -> std::result::Result<(), String> {
        let is_true = text.eq_ignore_ascii_case(b"true");
        if !is_true && !text.eq_ignore_ascii_case(b"false") {
            return Err("expected true or false".to_owned());
        }
        self.0.push(is_true);
        Ok(())
    }

    fn push_masked(&mut self) {
        self.0.push(false);
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError> {
        let values = BooleanBuffer::from(self.0.as_slice());
        self.0.clear();
        Ok(Arc::new(BooleanArray::new(values, nulls)))
    }
}

/// Variable-width bytes.
#[derive(Default)]
struct Bytes {
    offsets: Offsets,
    bytes: Vec<u8>,
}

impl Bytes {
    fn push_masked(&mut self) {
        self.offsets.push(self.offsets.last());
    }

    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.offsets.start(len));
        self.offsets.truncate(len);
    }

    fn take(&mut self) -> Buffer {
        let next = Vec::with_capacity(self.bytes.len());
        Buffer::from_vec(std::mem::replace(&mut self.bytes, next))
    }
}

/// Strings; also the keys of a map.
#[derive(Default)]
pub(super) struct Text(Bytes);

impl Text {
    /// The string of a row.
    pub(super) fn get(&self, row: usize) -> &[u8] {
        &self.0.bytes[self.0.offsets.start(row)..self.0.offsets.start(row + 1)]
    }
}

impl Values for Text {
    #[inline]
    fn decode(&mut self, cursor: &mut Cursor) -> Result<()> {
        cursor.string_into(&mut self.0.bytes)?;
        self.0.offsets.push(self.0.bytes.len());
        Ok(())
    }

    #[inline]
    fn decode_text(&mut self, text: &[u8]) -> std::result::Result<(), String> {
        self.0.bytes.extend_from_slice(text);
        self.0.offsets.push(self.0.bytes.len());
        Ok(())
    }

    fn push_masked(&mut self) {
        self.0.push_masked();
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError> {
        Ok(Arc::new(StringArray::try_new(self.0.offsets.finish(), self.0.take(), nulls)?))
    }
}

#[derive(Default)]
struct Base64Text(Bytes);

impl Values for Base64Text {
    fn decode(&mut self, cursor: &mut Cursor) -> Result<()> {
        let start = cursor.pos;
        let text = cursor.string()?;
        BASE64.decode_vec(text, &mut self.0.bytes).map_err(|_| cursor.expected("base64 text", start))?;
        self.0.offsets.push(self.0.bytes.len());
        Ok(())
    }

    fn decode_text(&mut self, text: &[u8]) -> std::result::Result<(), String> {
        BASE64.decode_vec(text, &mut self.0.bytes).map_err(|_| "expected base64 text".to_owned())?;
        self.0.offsets.push(self.0.bytes.len());
        Ok(())
    }

    fn push_masked(&mut self) {
        self.0.push_masked();
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError> {
        Ok(Arc::new(BinaryArray::try_new(self.0.offsets.finish(), self.0.take(), nulls)?))
    }
}
