//! Rows to try a plugin with: made up of a schema, the same for the same seed, with nulls where there may be some and values that come again, as keys do.

use crate::check::Stop;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, ListArray, MapArray, PrimitiveArray, RecordBatch,
    RecordBatchOptions, StringArray, StructArray, types::*,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use standpipe_sdk::wire::{ROLE, ROLE_ROW_KIND};
use std::sync::Arc;

/// 2024-01-01, seconds since the epoch: where times begin.
const BEGIN: i64 = 1_704_067_200;
/// Distinct values of a column of whole numbers.
const DISTINCT: u64 = 13;
const WORDS: [&str; 8] = ["alpha", "beta gamma", "", "\u{e9}t\u{e9}", "delta", "a,b;c", "\"quoted\"", "10"];

/// Numbers that look random and come again with their seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// Columns of the types that most streams have. The first is few-valued, as a key is.
pub(crate) fn broad_schema() -> SchemaRef {
    let nullable = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        nullable("name", DataType::Utf8),
        nullable("flag", DataType::Boolean),
        nullable("amount", DataType::Float64),
        nullable("count", DataType::Int32),
        nullable("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        nullable("day", DataType::Date32),
        nullable("price", DataType::Decimal128(12, 2)),
        nullable("bytes", DataType::Binary),
    ]))
}

/// Schemas to ask a plugin about, until it takes one.
pub(crate) fn candidates() -> Vec<SchemaRef> {
    let one = |name: &str, data_type: DataType| Arc::new(Schema::new(vec![Field::new(name, data_type, true)]));
    let mut candidates = vec![broad_schema()];
    candidates.extend([DataType::Utf8, DataType::Int64, DataType::Float64, DataType::Binary].map(|data_type| one("value", data_type)));
    candidates
}

/// That many rows; the column of the row kind says that all are new.
pub(crate) fn batch(schema: &SchemaRef, rows: usize, random: &mut Random) -> Result<RecordBatch, Stop> {
    let columns = schema.fields().iter().map(|field| column(field, rows, random)).collect::<Result<Vec<_>, _>>()?;
    made(schema, columns, rows)
}

/// That many rows of nulls, where there may be some.
pub(crate) fn nulls(schema: &SchemaRef, rows: usize, random: &mut Random) -> Result<RecordBatch, Stop> {
    let column = |field: &Arc<Field>| match field.is_nullable() && !is_row_kind(field) {
        true => Ok(arrow_array::new_null_array(field.data_type(), rows)),
        false => column(field, rows, random),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    made(schema, columns, rows)
}

fn made(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, Stop> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Stop::skip(format!("no rows can be made up: {error}")))
}

pub(crate) fn is_row_kind(field: &Field) -> bool {
    field.metadata().get(ROLE).is_some_and(|role| role == ROLE_ROW_KIND)
}

/// Values of a column.
pub(crate) fn column(field: &Field, rows: usize, random: &mut Random) -> Result<ArrayRef, Stop> {
    if is_row_kind(field) {
        return Ok(Arc::new(StringArray::from(vec!["+I"; rows])));
    }
    // One in eight, and never the first: it is the one to look at.
    let present: Vec<bool> = (0..rows).map(|row| row == 0 || !field.is_nullable() || random.below(8) != 0).collect();
    values(field, rows, &present, random)
}

fn values(field: &Field, rows: usize, present: &[bool], random: &mut Random) -> Result<ArrayRef, Stop> {
    let nulls = || if present.contains(&false) { Some(NullBuffer::from(present.to_vec())) } else { None };
    macro_rules! numbers {
        ($Type:ty, |$random:ident, $row:ident| $value:expr) => {{
            let values = present.iter().enumerate().map(|($row, present)| {
                let $random = &mut *random;
                let value = $value;
                present.then_some(value)
            });
            Arc::new(values.collect::<PrimitiveArray<$Type>>().with_data_type(field.data_type().clone())) as ArrayRef
        }};
    }
    let seconds = |row: usize| BEGIN + row as i64;
    Ok(match field.data_type() {
        DataType::Boolean => Arc::new(present.iter().map(|present| present.then(|| random.below(2) == 1)).collect::<BooleanArray>()),
        DataType::Int8 => numbers!(Int8Type, |random, _row| random.below(DISTINCT) as i8),
        DataType::Int16 => numbers!(Int16Type, |random, _row| random.below(DISTINCT) as i16),
        DataType::Int32 => numbers!(Int32Type, |random, _row| random.below(DISTINCT) as i32),
        DataType::Int64 => numbers!(Int64Type, |random, _row| random.below(DISTINCT) as i64),
        DataType::UInt8 => numbers!(UInt8Type, |random, _row| random.below(DISTINCT) as u8),
        DataType::UInt16 => numbers!(UInt16Type, |random, _row| random.below(DISTINCT) as u16),
        DataType::UInt32 => numbers!(UInt32Type, |random, _row| random.below(DISTINCT) as u32),
        DataType::UInt64 => numbers!(UInt64Type, |random, _row| random.below(DISTINCT)),
        // Quarters: sums of them are exact, in any order.
        DataType::Float32 => numbers!(Float32Type, |random, _row| random.below(400) as f32 / 4.0),
        DataType::Float64 => numbers!(Float64Type, |random, _row| random.below(400) as f64 / 4.0),
        DataType::Date32 => numbers!(Date32Type, |_random, row| (seconds(row) / 86_400) as i32 + row as i32),
        DataType::Date64 => numbers!(Date64Type, |_random, row| (seconds(row) / 86_400 + row as i64) * 86_400_000),
        DataType::Time32(TimeUnit::Second) => numbers!(Time32SecondType, |_random, row| row as i32 % 86_400),
        DataType::Time32(_) => numbers!(Time32MillisecondType, |_random, row| row as i32 % 86_400_000),
        DataType::Time64(TimeUnit::Microsecond) => numbers!(Time64MicrosecondType, |_random, row| row as i64),
        DataType::Time64(_) => numbers!(Time64NanosecondType, |_random, row| row as i64),
        DataType::Timestamp(TimeUnit::Second, _) => numbers!(TimestampSecondType, |_random, row| seconds(row)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => numbers!(TimestampMillisecondType, |_random, row| seconds(row) * 1000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => numbers!(TimestampMicrosecondType, |_random, row| seconds(row) * 1_000_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => numbers!(TimestampNanosecondType, |_random, row| seconds(row) * 1_000_000_000),
        DataType::Duration(TimeUnit::Second) => numbers!(DurationSecondType, |_random, row| row as i64),
        DataType::Duration(TimeUnit::Millisecond) => numbers!(DurationMillisecondType, |_random, row| row as i64),
        DataType::Duration(TimeUnit::Microsecond) => numbers!(DurationMicrosecondType, |_random, row| row as i64),
        DataType::Duration(_) => numbers!(DurationNanosecondType, |_random, row| row as i64),
        DataType::Decimal128(precision, scale) => {
            let values: Decimal128Array = present.iter().map(|present| present.then(|| i128::from(random.below(9)))).collect();
            Arc::new(values.with_precision_and_scale(*precision, *scale).map_err(|error| Stop::skip(error.to_string()))?)
        }
        DataType::Utf8 => Arc::new(present.iter().map(|present| present.then(|| word(random))).collect::<StringArray>()),
        DataType::Binary => Arc::new(present.iter().map(|present| present.then(|| word(random).as_bytes())).collect::<BinaryArray>()),
        DataType::FixedSizeBinary(width) => {
            let bytes = |present: &bool| present.then(|| vec![b'x'; usize::try_from(*width).unwrap_or_default()]);
            let values = FixedSizeBinaryArray::try_from_sparse_iter_with_size(present.iter().map(bytes), *width);
            Arc::new(values.map_err(|error| Stop::skip(error.to_string()))?)
        }
        DataType::List(item) => {
            let (offsets, items) = items(item, rows, random)?;
            Arc::new(ListArray::new(Arc::clone(item), offsets, items, nulls()))
        }
        DataType::Struct(fields) => Arc::new(members(fields, rows, nulls(), random)?),
        DataType::Map(entries, sorted) => {
            let (offsets, items) = items(entries, rows, random)?;
            let entry = items.as_any().downcast_ref::<StructArray>().cloned().ok_or_else(|| Stop::skip("a map without entries"))?;
            Arc::new(MapArray::new(Arc::clone(entries), offsets, entry, nulls(), *sorted))
        }
        DataType::Null => arrow_array::new_null_array(&DataType::Null, rows),
        // Dictionaries, views, large types: as the plain ones are.
        other => as_plain(field, other, rows, present, random)?,
    })
}

fn as_plain(field: &Field, wanted: &DataType, rows: usize, present: &[bool], random: &mut Random) -> Result<ArrayRef, Stop> {
    let plain = match wanted {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) | DataType::LargeListView(item) => {
            DataType::List(Arc::clone(item))
        }
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) | DataType::Decimal256(precision, scale) => {
            DataType::Decimal128((*precision).min(38), *scale)
        }
        other => return Err(Stop::skip(format!("no values of the type {other} can be made up: give some by --input"))),
    };
    let values = values(&field.clone().with_data_type(plain), rows, present, random)?;
    arrow_cast::cast(&values, wanted).map_err(|error| Stop::skip(format!("no values of the type {wanted} can be made up: {error}")))
}

/// Two items, none, one, two, ...
fn items(item: &Field, rows: usize, random: &mut Random) -> Result<(OffsetBuffer<i32>, ArrayRef), Stop> {
    let lengths: Vec<usize> = (0..rows).map(|row| (row + 2) % 3).collect();
    let items = values(item, lengths.iter().sum(), &vec![true; lengths.iter().sum()], random)?;
    Ok((OffsetBuffer::from_lengths(lengths), items))
}

fn members(fields: &Fields, rows: usize, nulls: Option<NullBuffer>, random: &mut Random) -> Result<StructArray, Stop> {
    let columns = fields.iter().map(|field| column(field, rows, random)).collect::<Result<Vec<_>, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, nulls, rows).map_err(|error| Stop::skip(error.to_string()))
}

fn word(random: &mut Random) -> &'static str {
    WORDS[random.below(WORDS.len() as u64) as usize]
}

/// What a sink of encoded records gets: each row a JSON object, the other columns as those of the row are.
pub(crate) fn records(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, Stop> {
    let mut lines: Vec<serde_json::Map<String, serde_json::Value>> = vec![serde_json::Map::new(); batch.num_rows()];
    let options = arrow_cast::display::FormatOptions::default();
    for (field, values) in batch.schema().fields().iter().zip(batch.columns()) {
        let shown =
            arrow_cast::display::ArrayFormatter::try_new(values.as_ref(), &options).map_err(|error| Stop::skip(error.to_string()))?;
        for (row, line) in lines.iter_mut().enumerate().filter(|(row, _)| arrow_array::Array::is_valid(values, *row)) {
            let text = shown.value(row).to_string();
            let value = match field.data_type() {
                data_type if data_type.is_numeric() || *data_type == DataType::Boolean => {
                    serde_json::from_str(&text).unwrap_or(text.into())
                }
                _ => text.into(),
            };
            line.insert(field.name().clone(), value);
        }
    }
    let texts = lines.into_iter().map(|line| Some(serde_json::Value::Object(line).to_string().into_bytes()));
    let column = |field: &Arc<Field>| match batch.column_by_name(field.name()) {
        _ if field.name() == standpipe_sdk::wire::VALUE_COLUMN => Ok(Arc::new(texts.clone().collect::<BinaryArray>()) as ArrayRef),
        Some(column) => Ok(Arc::clone(column)),
        None => Err(Stop::skip(format!("the sink asks for the column {:?}, which is not in the rows", field.name()))),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    made(schema, columns, batch.num_rows())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;

    #[test]
    fn rows_are_valid_come_again_with_their_seed_and_have_nulls() {
        let mut fields = broad_schema().fields().to_vec();
        let word: Arc<Field> = Arc::new(Field::new("item", DataType::Utf8, true));
        for (name, data_type) in [
            ("dictionary", DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))),
            ("view", DataType::Utf8View),
            ("list", DataType::List(word.clone())),
            ("large", DataType::LargeList(word.clone())),
            ("struct", DataType::Struct(vec![word.clone(), Arc::new(Field::new("n", DataType::Int8, false))].into())),
            ("fixed", DataType::FixedSizeBinary(3)),
        ] {
            fields.push(Arc::new(Field::new(name, data_type, true)));
        }
        let schema = Arc::new(Schema::new(fields));
        let made = |seed| batch(&schema, 64, &mut Random::new(seed)).unwrap();
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        crate::rows::valid("made up", &made(3)).unwrap();
        assert_eq!(made(3).column(0).null_count(), 0);
        assert!(made(3).columns()[1..].iter().all(|column| column.null_count() > 0));
        let empty = nulls(&schema, 4, &mut Random::new(1)).unwrap();
        assert!(empty.columns()[1..].iter().all(|column| column.null_count() == 4));
        assert_eq!(batch(&schema, 0, &mut Random::new(1)).unwrap().num_rows(), 0);
    }
}
