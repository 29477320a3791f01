//! The key encoding and its hash: what decides which rows are of one key, and which subtask gets them. Ours and frozen: checkpoints and routing depend on it.
//! Called by the exchange and by keyed operators, once per batch; [`crate::keys`] numbers the encoded keys and turns them back into columns.
//!
//! A key is the concatenation of its columns' values, each of which begins with a byte that is 0 for null (and then ends there):
//!
//! | type | not null |
//! |---|---|
//! | string, binary (plain, large, view) | length + 1 as LEB128, then the bytes |
//! | fixed-size binary | the same |
//! | boolean | 1, then 0 or 1 |
//! | signed integers, date, time, timestamp, duration, decimal of 32 or 64 bits | 1, then the value as 64-bit little endian (in its own unit) |
//! | unsigned integers | 1, then 64-bit little endian |
//! | floats | 1, then the value as float64, its bits little endian; -0.0 is 0.0, every NaN is `7ff8000000000000` |
//! | decimal of 128 or 256 bits | 1, then 16 or 32 bytes little endian |
//! | interval | 1, then 8 bytes (months, or days and milliseconds) or 16 (months, days, nanoseconds) |
//!
//! A dictionary is its values. No encoding is the prefix of another, so that `("a", "bc")` and `("ab", "c")` differ. Nested types are no keys. The hash is xxh3-64
//! with seed 0 of all the bytes; no columns at all are one key, the empty one.

use arrow::array::{Array, ArrayRef, AsArray, downcast_primitive};
use arrow::datatypes::{DataType, IntervalDayTime, IntervalMonthDayNano, i256};
use text::Text;
use xxhash_rust::xxh3::xxh3_64;

mod text;

/// Why columns cannot be keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Nested and run-end encoded types.
    #[error("a column of type {0} cannot be a key")]
    Type(DataType),
    /// An encoded key that does not fit the types it is read by.
    #[error("an encoded key does not fit the key's types")]
    Corrupt,
    /// More distinct keys than a subtask can number.
    #[error("more than {} distinct keys in one subtask", u32::MAX)]
    TooMany,
    /// Arrow refused.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

/// Whether a column of this type can be a key.
///
/// # Errors
/// When it cannot.
pub fn check_type(data_type: &DataType) -> Result<(), KeyError> {
    match data_type {
        DataType::Dictionary(_, values) => check_type(values),
        DataType::Boolean | DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(()),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Ok(()),
        other if other.is_primitive() => Ok(()),
        other => Err(KeyError::Type(other.clone())),
    }
}

/// The encoded keys of a batch's rows and their hashes. One value is used for batch after batch: its memory is kept.
#[derive(Debug, Default)]
pub struct EncodedKeys {
    /// What is behind the last offset is of earlier batches.
    bytes: Vec<u8>,
    /// `rows + 1` of them.
    offsets: Vec<usize>,
    hashes: Vec<u64>,
    cursors: Vec<usize>,
}

impl EncodedKeys {
    /// No keys yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Encodes and hashes the keys of `rows` rows; the columns have that length.
    ///
    /// # Errors
    /// When a column cannot be a key.
    pub fn encode(&mut self, columns: &[ArrayRef], rows: usize) -> Result<(), KeyError> {
        self.offsets.clear();
        self.offsets.reserve(rows + 1);
        self.offsets.push(0);
        match (Text::all(columns), columns) {
            (Some(texts), _) => text::encode(&texts, rows, &mut self.bytes, &mut self.offsets),
            (None, [column]) => {
                self.bytes.clear();
                visit(column.as_ref(), &mut Append { bytes: &mut self.bytes, offsets: &mut self.offsets })?;
            }
            (None, columns) => self.encode_columns(columns, rows)?,
        }
        self.hashes.clear();
        self.hashes.extend(self.offsets.windows(2).map(|ends| xxh3_64(&self.bytes[ends[0]..ends[1]])));
        Ok(())
    }

    /// Column by column: first the lengths, then the bytes, each at its row's cursor.
    fn encode_columns(&mut self, columns: &[ArrayRef], rows: usize) -> Result<(), KeyError> {
        self.offsets.resize(rows + 1, 0);
        for column in columns {
            visit(column.as_ref(), &mut Measure { lengths: &mut self.offsets[1..] })?;
        }
        let mut end = 0;
        for offset in &mut self.offsets {
            end += *offset;
            *offset = end;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.cursors.clear();
        self.cursors.extend_from_slice(&self.offsets[..rows]);
        for column in columns {
            visit(column.as_ref(), &mut Write { bytes: &mut self.bytes, cursors: &mut self.cursors })?;
        }
        Ok(())
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hash of each row's key.
    #[must_use]
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The encoded key of a row below [`Self::len`].
    #[must_use]
    #[inline]
    pub fn key(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row]..self.offsets[row + 1]]
    }
}

/// What one walk over a column does with each row, in order.
trait Pass {
    fn null(&mut self, row: usize);
    fn fixed(&mut self, row: usize, value: &[u8]);
    fn bytes(&mut self, row: usize, value: &[u8]);
}

/// Adds each value's length to its row's.
struct Measure<'a> {
    lengths: &'a mut [usize],
}

impl Pass for Measure<'_> {
    fn null(&mut self, row: usize) {
        self.lengths[row] += 1;
    }

    fn fixed(&mut self, row: usize, value: &[u8]) {
        self.lengths[row] += 1 + value.len();
    }

    fn bytes(&mut self, row: usize, value: &[u8]) {
        self.lengths[row] += length_width(value.len()) + value.len();
    }
}

/// Writes each value where its row's cursor is.
struct Write<'a> {
    bytes: &'a mut [u8],
    cursors: &'a mut [usize],
}

impl Pass for Write<'_> {
    fn null(&mut self, row: usize) {
        self.bytes[self.cursors[row]] = 0;
        self.cursors[row] += 1;
    }

    fn fixed(&mut self, row: usize, value: &[u8]) {
        let at = self.cursors[row];
        self.bytes[at] = 1;
        self.bytes[at + 1..at + 1 + value.len()].copy_from_slice(value);
        self.cursors[row] = at + 1 + value.len();
    }

    fn bytes(&mut self, row: usize, value: &[u8]) {
        let at = self.cursors[row];
        let start = at + write_length(value.len(), &mut self.bytes[at..]);
        self.bytes[start..start + value.len()].copy_from_slice(value);
        self.cursors[row] = start + value.len();
    }
}

/// The only column: each row's key is appended in one go.
struct Append<'a> {
    bytes: &'a mut Vec<u8>,
    offsets: &'a mut Vec<usize>,
}

impl Pass for Append<'_> {
    fn null(&mut self, _: usize) {
        self.bytes.push(0);
        self.offsets.push(self.bytes.len());
    }

    fn fixed(&mut self, _: usize, value: &[u8]) {
        self.bytes.push(1);
        self.bytes.extend_from_slice(value);
        self.offsets.push(self.bytes.len());
    }

    fn bytes(&mut self, _: usize, value: &[u8]) {
        if value.len() < 127 {
            self.bytes.push(value.len() as u8 + 1);
        } else {
            let mut length = [0; MAX_LENGTH_WIDTH];
            let width = write_length(value.len(), &mut length);
            self.bytes.extend_from_slice(&length[..width]);
        }
        self.bytes.extend_from_slice(value);
        self.offsets.push(self.bytes.len());
    }
}

const MAX_LENGTH_WIDTH: usize = 10;

fn length_width(length: usize) -> usize {
    let bits = usize::BITS - (length + 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// LEB128 of `length + 1`, so that it is never the byte of null.
fn write_length(length: usize, into: &mut [u8]) -> usize {
    let mut rest = length + 1;
    let mut at = 0;
    while rest >= 0x80 {
        into[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    into[at] = rest as u8;
    at + 1
}

/// Reads what [`write_length`] wrote, or the byte of null: the length, and what follows.
pub(crate) fn read_length(key: &[u8]) -> Result<(Option<usize>, &[u8]), KeyError> {
    let mut value = 0_usize;
    for (at, byte) in key.iter().enumerate().take(MAX_LENGTH_WIDTH) {
        value |= usize::from(byte & 0x7F).checked_shl(7 * at as u32).ok_or(KeyError::Corrupt)?;
        if byte & 0x80 == 0 {
            return Ok((value.checked_sub(1), &key[at + 1..]));
        }
    }
    Err(KeyError::Corrupt)
}

fn visit(column: &dyn Array, pass: &mut impl Pass) -> Result<(), KeyError> {
    macro_rules! primitive {
        ($type:ty) => {
            visit_fixed(column, column.as_primitive::<$type>().values().iter().map(|value| value.to_key()), pass)
        };
    }
    match column.data_type() {
        DataType::Utf8 => visit_bytes(column.as_string::<i32>().iter().map(|text| text.map(str::as_bytes)), pass),
        DataType::LargeUtf8 => visit_bytes(column.as_string::<i64>().iter().map(|text| text.map(str::as_bytes)), pass),
        DataType::Utf8View => visit_bytes(column.as_string_view().iter().map(|text| text.map(str::as_bytes)), pass),
        DataType::Binary => visit_bytes(column.as_binary::<i32>().iter(), pass),
        DataType::LargeBinary => visit_bytes(column.as_binary::<i64>().iter(), pass),
        DataType::BinaryView => visit_bytes(column.as_binary_view().iter(), pass),
        DataType::FixedSizeBinary(_) => visit_bytes(column.as_fixed_size_binary().iter(), pass),
        DataType::Boolean => visit_fixed(column, column.as_boolean().values().iter().map(|value| [u8::from(value)]), pass),
        DataType::Null => (0..column.len()).for_each(|row| pass.null(row)),
        DataType::Dictionary(_, values) => visit(arrow::compute::cast(column, values)?.as_ref(), pass)?,
        data_type => {
            downcast_primitive! {
                data_type => (primitive),
                other => return Err(KeyError::Type(other.clone()))
            }
        }
    }
    Ok(())
}

fn visit_bytes<'a>(values: impl Iterator<Item = Option<&'a [u8]>>, pass: &mut impl Pass) {
    for (row, value) in values.enumerate() {
        match value {
            Some(value) => pass.bytes(row, value),
            None => pass.null(row),
        }
    }
}

fn visit_fixed<B: AsRef<[u8]>>(column: &dyn Array, values: impl Iterator<Item = B>, pass: &mut impl Pass) {
    match column.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => values.enumerate().for_each(|(row, value)| pass.fixed(row, value.as_ref())),
        Some(nulls) => values.zip(nulls).enumerate().for_each(|(row, (value, valid))| match valid {
            true => pass.fixed(row, value.as_ref()),
            false => pass.null(row),
        }),
    }
}

/// A native value in a key: see the module's table.
pub(crate) trait KeyValue: Copy {
    type Bytes: AsRef<[u8]> + for<'a> TryFrom<&'a [u8]>;
    fn to_key(self) -> Self::Bytes;
    fn from_key(bytes: Self::Bytes) -> Self;
}

macro_rules! integer_key {
    ($wide:ty: $($native:ty),*) => {$(
        impl KeyValue for $native {
            type Bytes = [u8; size_of::<$wide>()];
            #[inline]
            fn to_key(self) -> Self::Bytes {
                <$wide>::from(self).to_le_bytes()
            }
            fn from_key(bytes: Self::Bytes) -> Self {
                <$wide>::from_le_bytes(bytes) as Self
            }
        }
    )*};
}
integer_key!(i64: i8, i16, i32, i64);
integer_key!(u64: u8, u16, u32, u64);
integer_key!(i128: i128);

#[inline]
fn float_to_key(value: f64) -> [u8; 8] {
    let bits = if value.is_nan() { 0x7FF8_0000_0000_0000 } else { (value + 0.0).to_bits() };
    bits.to_le_bytes()
}

impl KeyValue for f64 {
    type Bytes = [u8; 8];
    #[inline]
    fn to_key(self) -> [u8; 8] {
        float_to_key(self)
    }
    fn from_key(bytes: [u8; 8]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

impl KeyValue for f32 {
    type Bytes = [u8; 8];
    #[inline]
    fn to_key(self) -> [u8; 8] {
        float_to_key(f64::from(self))
    }
    fn from_key(bytes: [u8; 8]) -> Self {
        f64::from_le_bytes(bytes) as Self
    }
}

impl KeyValue for half::f16 {
    type Bytes = [u8; 8];
    fn to_key(self) -> [u8; 8] {
        float_to_key(self.to_f64())
    }
    fn from_key(bytes: [u8; 8]) -> Self {
        Self::from_f64(f64::from_le_bytes(bytes))
    }
}

impl KeyValue for i256 {
    type Bytes = [u8; 32];
    fn to_key(self) -> [u8; 32] {
        self.to_le_bytes()
    }
    fn from_key(bytes: [u8; 32]) -> Self {
        Self::from_le_bytes(bytes)
    }
}

impl KeyValue for IntervalDayTime {
    type Bytes = [u8; 8];
    fn to_key(self) -> [u8; 8] {
        (u64::from(self.days.cast_unsigned()) | u64::from(self.milliseconds.cast_unsigned()) << 32).to_le_bytes()
    }
    fn from_key(bytes: [u8; 8]) -> Self {
        let bits = u64::from_le_bytes(bytes);
        Self::new(bits as u32 as i32, (bits >> 32) as u32 as i32)
    }
}

impl KeyValue for IntervalMonthDayNano {
    type Bytes = [u8; 16];
    fn to_key(self) -> [u8; 16] {
        let days = u128::from(self.days.cast_unsigned()) << 32;
        let nanoseconds = u128::from(self.nanoseconds.cast_unsigned()) << 64;
        (u128::from(self.months.cast_unsigned()) | days | nanoseconds).to_le_bytes()
    }
    fn from_key(bytes: [u8; 16]) -> Self {
        let bits = u128::from_le_bytes(bytes);
        Self::new(bits as u32 as i32, (bits >> 32) as u32 as i32, (bits >> 64) as u64 as i64)
    }
}

#[cfg(test)]
mod tests;
