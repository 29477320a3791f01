//! A row as a JSON document: 64-bit integers exactly, floats as the shortest text that reads back, dates and times as ISO 8601 in UTC, binary in base64, nulls as
//! `null`, structs as objects, lists as arrays, maps with text keys as objects. The types are looked at once per batch; a row then costs one call per column and no
//! allocation. Called by `bulk`; `id` and `index_name` use the plain texts of [`plain`].

use crate::text;
use arrow_array::{Array, ArrowPrimitiveType, GenericListArray, OffsetSizeTrait, RecordBatch, cast::AsArray, types::*};
use arrow_schema::{DataType, Schema, TimeUnit};
use base64::{Engine, engine::general_purpose::STANDARD};

/// Writes the value of a row.
pub(crate) type Cell<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + 'a>;

/// The columns of a document: their place in the batch, and the JSON of their names with what comes before.
pub(crate) struct Layout {
    columns: Vec<(usize, Vec<u8>)>,
}

impl Layout {
    /// All columns of the schema but `without`.
    pub(crate) fn new(schema: &Schema, without: Option<usize>) -> Self {
        let kept = schema.fields().iter().enumerate().filter(|(index, _)| Some(*index) != without);
        let columns = kept.enumerate().map(|(place, (index, field))| (index, member(place, field.name()))).collect();
        Self { columns }
    }

    /// The writer of a batch's rows.
    pub(crate) fn rows<'a>(&'a self, batch: &'a RecordBatch) -> Result<Rows<'a>, String> {
        let cell = |(index, name): &'a (usize, Vec<u8>)| json(batch.column(*index)).map(|cell| (name.as_slice(), cell));
        Ok(Rows(self.columns.iter().map(cell).collect::<Result<_, _>>()?))
    }
}

/// Writes the rows of a batch.
pub(crate) struct Rows<'a>(Vec<(&'a [u8], Cell<'a>)>);

impl Rows<'_> {
    /// Appends the document of a row.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        out.push(b'{');
        for (name, cell) in &self.0 {
            out.extend_from_slice(name);
            cell(row, out);
        }
        out.push(b'}');
    }
}

/// Whether values of a type can be written; else why not.
pub(crate) fn check(data_type: &DataType) -> Result<(), String> {
    json(&arrow_array::new_empty_array(data_type)).map(|_| ())
}

/// `"name":`, after a comma if it is not the first.
fn member(place: usize, name: &str) -> Vec<u8> {
    let mut out = if place == 0 { Vec::new() } else { vec![b','] };
    text::json_string(&mut out, name.as_bytes());
    out.push(b':');
    out
}

/// The JSON of a column's values.
fn json(array: &dyn Array) -> Result<Cell<'_>, String> {
    let cell: Cell<'_> = match array.data_type() {
        DataType::Null => Box::new(|_, out| out.extend_from_slice(b"null")),
        DataType::Float16 => float::<Float16Type>(array, |value, out| text::float(out, value.to_f32(), value.is_finite())),
        DataType::Float32 => float::<Float32Type>(array, |value, out| text::float(out, value, value.is_finite())),
        DataType::Float64 => float::<Float64Type>(array, |value, out| text::float(out, value, value.is_finite())),
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => plain(array)?,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => {
            let plain = plain(array)?;
            Box::new(move |row, out| {
                out.push(b'"');
                plain(row, out);
                out.push(b'"');
            })
        }
        DataType::Utf8 => bytes(array.as_string::<i32>(), |array, row, out| text::json_string(out, array.value(row).as_bytes())),
        DataType::LargeUtf8 => bytes(array.as_string::<i64>(), |array, row, out| text::json_string(out, array.value(row).as_bytes())),
        DataType::Utf8View => bytes(array.as_string_view(), |array, row, out| text::json_string(out, array.value(row).as_bytes())),
        DataType::Binary => bytes(array.as_binary::<i32>(), |array, row, out| base64(out, array.value(row))),
        DataType::LargeBinary => bytes(array.as_binary::<i64>(), |array, row, out| base64(out, array.value(row))),
        DataType::BinaryView => bytes(array.as_binary_view(), |array, row, out| base64(out, array.value(row))),
        DataType::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary(), |array, row, out| base64(out, array.value(row))),
        DataType::Struct(_) => structure(array)?,
        DataType::List(_) => list(array.as_list::<i32>())?,
        DataType::LargeList(_) => list(array.as_list::<i64>())?,
        DataType::FixedSizeList(..) => {
            let fixed = array.as_fixed_size_list();
            let width = usize::try_from(fixed.value_length()).unwrap_or(0);
            elements(json(fixed.values())?, move |row| (row * width, (row + 1) * width))
        }
        DataType::Map(..) => map(array)?,
        other => return Err(format!("values of type {other} have no JSON form here; cast the column first")),
    };
    Ok(nullable(array, b"null", cell))
}

/// The plain text of a column of scalars; nothing for null.
pub(crate) fn plain(array: &dyn Array) -> Result<Cell<'_>, String> {
    let cell: Cell<'_> = match array.data_type() {
        DataType::Boolean => {
            let array = array.as_boolean();
            Box::new(|row, out| out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }))
        }
        DataType::Int8 => integer::<Int8Type>(array),
        DataType::Int16 => integer::<Int16Type>(array),
        DataType::Int32 => integer::<Int32Type>(array),
        DataType::Int64 => integer::<Int64Type>(array),
        DataType::UInt8 => integer::<UInt8Type>(array),
        DataType::UInt16 => integer::<UInt16Type>(array),
        DataType::UInt32 => integer::<UInt32Type>(array),
        DataType::UInt64 => integer::<UInt64Type>(array),
        DataType::Decimal32(..) => decimal::<Decimal32Type>(array),
        DataType::Decimal64(..) => decimal::<Decimal64Type>(array),
        DataType::Decimal128(..) => decimal::<Decimal128Type>(array),
        DataType::Decimal256(..) => decimal::<Decimal256Type>(array),
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) => temporal(array)?,
        DataType::Utf8 => bytes(array.as_string::<i32>(), |array, row, out| out.extend_from_slice(array.value(row).as_bytes())),
        DataType::LargeUtf8 => bytes(array.as_string::<i64>(), |array, row, out| out.extend_from_slice(array.value(row).as_bytes())),
        DataType::Utf8View => bytes(array.as_string_view(), |array, row, out| out.extend_from_slice(array.value(row).as_bytes())),
        other => return Err(format!("values of type {other} cannot be part of a name or an id")),
    };
    Ok(nullable(array, b"", cell))
}

/// Instants of a date or timestamp column: seconds since the epoch, nanoseconds of the second. A null gives anything.
pub(crate) type Instants<'a> = Box<dyn Fn(usize) -> (i64, u32) + 'a>;

/// The instants of a date or timestamp column; `None` if it is neither.
pub(crate) fn instants(array: &dyn Array) -> Option<Instants<'_>> {
    fn of<T: ArrowPrimitiveType<Native = i64>>(array: &dyn Array, per_second: i64) -> Instants<'_> {
        let array = array.as_primitive::<T>();
        Box::new(move |row| split(array.value(row), per_second))
    }
    Some(match array.data_type() {
        DataType::Date32 => {
            let array = array.as_primitive::<Date32Type>();
            Box::new(|row| (i64::from(array.value(row)) * 86_400, 0))
        }
        DataType::Date64 => of::<Date64Type>(array, 1_000),
        DataType::Timestamp(TimeUnit::Second, _) => of::<TimestampSecondType>(array, 1),
        DataType::Timestamp(TimeUnit::Millisecond, _) => of::<TimestampMillisecondType>(array, 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of::<TimestampMicrosecondType>(array, 1_000_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => of::<TimestampNanosecondType>(array, 1_000_000_000),
        _ => return None,
    })
}

/// Seconds and nanoseconds of a count of units.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "less than a second")]
fn split(value: i64, per_second: i64) -> (i64, u32) {
    (value.div_euclid(per_second), (value.rem_euclid(per_second) * (1_000_000_000 / per_second)) as u32)
}

fn temporal(array: &dyn Array) -> Result<Cell<'_>, String> {
    fn clock<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &dyn Array, per_second: i64) -> Cell<'_> {
        let array = array.as_primitive::<T>();
        Box::new(move |row, out| {
            let (seconds, nanos) = split(array.value(row).into(), per_second);
            text::time(out, u32::try_from(seconds).unwrap_or(0), nanos);
        })
    }
    Ok(match (array.data_type(), instants(array)) {
        (DataType::Date32 | DataType::Date64, Some(instant)) => {
            Box::new(move |row, out| text::date(out, instant(row).0.div_euclid(86_400)))
        }
        (_, Some(instant)) => Box::new(move |row, out| {
            let (seconds, nanos) = instant(row);
            text::timestamp(out, seconds, nanos);
        }),
        (DataType::Time32(TimeUnit::Second), None) => clock::<Time32SecondType>(array, 1),
        (DataType::Time32(TimeUnit::Millisecond), None) => clock::<Time32MillisecondType>(array, 1_000),
        (DataType::Time64(TimeUnit::Microsecond), None) => clock::<Time64MicrosecondType>(array, 1_000_000),
        (DataType::Time64(TimeUnit::Nanosecond), None) => clock::<Time64NanosecondType>(array, 1_000_000_000),
        (other, None) => return Err(format!("{other} is no time")),
    })
}

fn nullable<'a>(array: &'a dyn Array, null: &'static [u8], cell: Cell<'a>) -> Cell<'a> {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        Some(nulls) => Box::new(move |row, out| if nulls.is_null(row) { out.extend_from_slice(null) } else { cell(row, out) }),
        None => cell,
    }
}

fn integer<T: ArrowPrimitiveType<Native: itoa::Integer>>(array: &dyn Array) -> Cell<'_> {
    let array = array.as_primitive::<T>();
    Box::new(|row, out| text::integer(out, array.value(row)))
}

fn float<T: ArrowPrimitiveType>(array: &dyn Array, write: fn(T::Native, &mut Vec<u8>)) -> Cell<'_> {
    let array = array.as_primitive::<T>();
    Box::new(move |row, out| write(array.value(row), out))
}

fn decimal<T: DecimalType>(array: &dyn Array) -> Cell<'_> {
    let array = array.as_primitive::<T>();
    Box::new(|row, out| out.extend_from_slice(array.value_as_string(row).as_bytes()))
}

fn bytes<'a, A>(array: &'a A, write: fn(&'a A, usize, &mut Vec<u8>)) -> Cell<'a> {
    Box::new(move |row, out| write(array, row, out))
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

fn structure(array: &dyn Array) -> Result<Cell<'_>, String> {
    let array = array.as_struct();
    let named = array.fields().iter().zip(array.columns()).enumerate();
    let named = named.map(|(place, (field, column))| json(column).map(|cell| (member(place, field.name()), cell)));
    let members: Vec<_> = named.collect::<Result<_, _>>()?;
    Ok(Box::new(move |row, out| {
        out.push(b'{');
        for (name, cell) in &members {
            out.extend_from_slice(name);
            cell(row, out);
        }
        out.push(b'}');
    }))
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> Result<Cell<'_>, String> {
    let offsets = array.value_offsets();
    Ok(elements(json(array.values())?, move |row| (offsets[row].as_usize(), offsets[row + 1].as_usize())))
}

fn elements<'a>(cell: Cell<'a>, range: impl Fn(usize) -> (usize, usize) + 'a) -> Cell<'a> {
    Box::new(move |row, out| {
        let (from, to) = range(row);
        out.push(b'[');
        for at in from..to {
            if at > from {
                out.push(b',');
            }
            cell(at, out);
        }
        out.push(b']');
    })
}

fn map(array: &dyn Array) -> Result<Cell<'_>, String> {
    let array = array.as_map();
    if !matches!(array.keys().data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        return Err(format!("a map with keys of type {} has no JSON form here; its keys must be strings", array.keys().data_type()));
    }
    let (keys, values, offsets) = (json(array.keys())?, json(array.values())?, array.value_offsets());
    Ok(Box::new(move |row, out| {
        let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
        out.push(b'{');
        for at in from..to {
            if at > from {
                out.push(b',');
            }
            keys(at, out);
            out.push(b':');
            values(at, out);
        }
        out.push(b'}');
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{
        ArrayRef, Date32Array, Decimal128Array, FixedSizeListArray, Float32Array, Int64Array, LargeStringArray, ListArray, MapArray,
        StringArray, StringViewArray, StructArray, Time64MicrosecondArray, TimestampNanosecondArray, UInt64Array,
        builder::{BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, MapBuilder, StringBuilder},
    };
    use arrow_schema::Field;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn documents(batch: &RecordBatch) -> Vec<String> {
        let layout = Layout::new(&batch.schema(), None);
        let rows = layout.rows(batch).unwrap();
        let document = |row| {
            let mut out = Vec::new();
            rows.write(row, &mut out);
            String::from_utf8(out).unwrap()
        };
        (0..batch.num_rows()).map(document).collect()
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
    }

    #[test]
    fn every_type_has_its_form() {
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
        map.keys().append_value("k\"");
        map.values().append_value(1);
        map.append(true).unwrap();
        let map: MapArray = map.finish();
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None])]);
        let fixed = FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)])], 2);
        let member: ArrayRef = Arc::new(StringViewArray::from(vec!["v"]));
        let structure = StructArray::from(vec![(Arc::new(Field::new("m", DataType::Utf8View, true)), member)]);
        let decimal = Decimal128Array::from(vec![-1_234_567_890_123_456_789_i128]).with_precision_and_scale(30, 3).unwrap();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("int64", Arc::new(Int64Array::from(vec![i64::MIN]))),
            ("uint64", Arc::new(UInt64Array::from(vec![u64::MAX]))),
            ("float32", Arc::new(Float32Array::from(vec![0.1]))),
            ("nan", Arc::new(Float32Array::from(vec![f32::NAN]))),
            ("decimal", Arc::new(decimal)),
            ("large", Arc::new(LargeStringArray::from(vec!["\u{1}é\n"]))),
            ("null", Arc::new(StringArray::from(vec![None::<&str>]))),
            ("date", Arc::new(Date32Array::from(vec![-1]))),
            ("time", Arc::new(Time64MicrosecondArray::from(vec![3_723_000_001]))),
            ("ts", Arc::new(TimestampNanosecondArray::from(vec![1_500_000_000]).with_timezone("+02:00"))),
            ("bytes", Arc::new(arrow_array::BinaryArray::from_vec(vec![b"ab"]))),
            ("list", Arc::new(list)),
            ("fixed", Arc::new(fixed)),
            ("struct", Arc::new(structure)),
            ("map", Arc::new(map)),
        ];
        let expected = concat!(
            r#"{"int64":-9223372036854775808,"uint64":18446744073709551615,"float32":0.1,"nan":null,"decimal":-1234567890123456.789,"#,
            r#""large":"\u0001é\n","null":null,"date":"1969-12-31","time":"01:02:03.000001","ts":"1970-01-01T00:00:01.500Z","bytes":"YWI=","#,
            r#""list":[1,null],"fixed":[1,2],"struct":{"m":"v"},"map":{"k\"":1}}"#,
        );
        assert_eq!(documents(&batch(columns)), [expected]);
    }

    #[test]
    fn a_slice_gives_its_own_rows() {
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None, Some(vec![Some(2), Some(3)])]);
        let member: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let structure = StructArray::from(vec![(Arc::new(Field::new("m", DataType::Int64, true)), member)]);
        let all = batch(vec![("l", Arc::new(list)), ("s", Arc::new(structure))]);
        assert_eq!(documents(&all.slice(1, 2)), [r#"{"l":null,"s":{"m":null}}"#, r#"{"l":[2,3],"s":{"m":3}}"#]);
    }

    #[test]
    fn what_has_no_form_is_named() {
        let interval = DataType::Interval(arrow_schema::IntervalUnit::DayTime);
        assert!(check(&interval).unwrap_err().contains("cast the column"));
        let keys = Field::new("key", DataType::Int64, false);
        let entries = Field::new("entries", DataType::Struct(vec![keys, Field::new("value", DataType::Int64, true)].into()), false);
        assert!(check(&DataType::Map(Arc::new(entries), false)).unwrap_err().contains("keys must be strings"));
        assert!(check(&DataType::List(Arc::new(Field::new("item", interval, true)))).is_err());
    }

    type Row = (Option<i64>, Option<f64>, Option<String>, Option<bool>, Option<Vec<u8>>, Option<Vec<Option<String>>>);

    proptest! {
        /// Whatever the values: each document is JSON and says what serde_json would have said.
        #[test]
        fn documents_say_what_the_rows_say(rows in proptest::collection::vec(any::<Row>(), 0..20), from in 0_usize..4) {
            let mut lists = ListBuilder::new(StringBuilder::new());
            let (mut bytes, mut flags, mut floats) = (BinaryBuilder::new(), BooleanBuilder::new(), Float64Builder::new());
            for row in &rows {
                floats.append_option(row.1);
                flags.append_option(row.3);
                bytes.append_option(row.4.as_deref());
                for item in row.5.iter().flatten() {
                    lists.values().append_option(item.as_deref());
                }
                lists.append(row.5.is_some());
            }
            let columns: Vec<(&str, ArrayRef)> = vec![
                ("i\"", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>())),
                ("f", Arc::new(floats.finish())),
                ("s", Arc::new(rows.iter().map(|row| row.2.as_deref()).collect::<StringArray>())),
                ("b", Arc::new(flags.finish())),
                ("x", Arc::new(bytes.finish())),
                ("l", Arc::new(lists.finish())),
            ];
            let from = from.min(rows.len());
            let written = documents(&batch(columns).slice(from, rows.len() - from));
            for (row, document) in rows[from..].iter().zip(written) {
                let read: Value = serde_json::from_str(&document).unwrap();
                let base64 = row.4.as_ref().map(|bytes| STANDARD.encode(bytes));
                prop_assert_eq!(&read["i\""], &json!(row.0));
                prop_assert_eq!(&read["s"], &json!(row.2));
                prop_assert_eq!(&read["b"], &json!(row.3));
                prop_assert_eq!(&read["x"], &json!(base64));
                prop_assert_eq!(&read["l"], &json!(row.5));
                prop_assert_eq!(read["f"].is_null(), row.1.is_none_or(|value| !value.is_finite()));
                prop_assert_eq!(read.as_object().unwrap().len(), 6);
            }
        }
    }
}
