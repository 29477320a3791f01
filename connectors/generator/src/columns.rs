//! What the columns hold: each is built for a whole batch, from the numbers of its rows.
//!
//! Called by `source`; the random numbers come from `random`.

use crate::{
    config::{FieldKind, GeneratorConfig, Preset},
    random::Stream,
    time::TimeText,
};
use arrow_array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    builder::StringBuilder,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::Value;
use std::{f64::consts::TAU, sync::Arc};

/// The baselines of [`Preset::Signal`].
pub const BASELINES: [i32; 5] = [42, 22, 5, 11, 3];
/// Rows of a block of [`Preset::Signal`].
pub const BLOCK: u64 = 60;

/// The numbers of some rows: `first`, `first + stride`, ...
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// The first number.
    pub first: u64,
    /// From one to the next.
    pub stride: u64,
    /// How many.
    pub count: usize,
}

impl Rows {
    fn iter(self) -> impl ExactSizeIterator<Item = u64> + Clone {
        (0..self.count).map(move |index| self.first.wrapping_add(self.stride.wrapping_mul(index as u64)))
    }
}

/// When rows are: row n at `start` + n * `step`, microseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The time of row 0.
    pub start: i64,
    /// From a row to the next.
    pub step: i64,
}

impl Clock {
    const fn of(self, row: u64) -> i64 {
        self.start.wrapping_add((row as i64).wrapping_mul(self.step))
    }
}

/// Values of one type to choose from.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `Utf8`.
    Texts(Vec<String>),
    /// `Int64`.
    Integers(Vec<i64>),
    /// `Float64`.
    Floats(Vec<f64>),
    /// `Boolean`.
    Booleans(Vec<bool>),
}

impl Values {
    /// The values in the narrowest type that all of them have.
    ///
    /// # Errors
    /// When there are none, or of several types.
    pub fn of(values: &[Value]) -> Result<Self, String> {
        fn all<'a, T>(values: &'a [Value], of: impl Fn(&'a Value) -> Option<T>) -> Option<Vec<T>> {
            values.iter().map(of).collect()
        }
        if values.is_empty() {
            return Err("is empty".to_owned());
        }
        let texts = all(values, |value| value.as_str().map(str::to_owned)).map(Self::Texts);
        let found = texts
            .or_else(|| all(values, Value::as_i64).map(Self::Integers))
            .or_else(|| all(values, Value::as_f64).map(Self::Floats))
            .or_else(|| all(values, Value::as_bool).map(Self::Booleans));
        found.ok_or_else(|| "must be strings, integers, numbers or booleans, all of one kind".to_owned())
    }

    const fn data_type(&self) -> DataType {
        match self {
            Self::Texts(_) => DataType::Utf8,
            Self::Integers(_) => DataType::Int64,
            Self::Floats(_) => DataType::Float64,
            Self::Booleans(_) => DataType::Boolean,
        }
    }

    fn choose(&self, stream: Stream, rows: Rows) -> ArrayRef {
        fn pick<T>(values: &[T], stream: Stream, rows: Rows) -> impl Iterator<Item = &T> {
            rows.iter().map(move |row| &values[stream.below(row, values.len() as u64) as usize])
        }
        match self {
            Self::Texts(values) => Arc::new(StringArray::from_iter_values(pick(values, stream, rows))),
            Self::Integers(values) => Arc::new(Int64Array::from_iter_values(pick(values, stream, rows).copied())),
            Self::Floats(values) => Arc::new(Float64Array::from_iter_values(pick(values, stream, rows).copied())),
            Self::Booleans(values) => Arc::new(BooleanArray::from_iter(pick(values, stream, rows).map(|value| Some(*value)))),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Sequence { start: i64, step: i64 },
    UniformInt { min: i64, values: u64 },
    UniformFloat { min: f64, width: f64 },
    Normal { mean: f64, deviation: f64 },
    Choice(Values),
    Letters(u32),
    Boolean(f64),
    Time,
    TimeText,
    Baseline,
    Signal,
}

impl Content {
    fn of(kind: &FieldKind) -> Result<Self, String> {
        Ok(match kind {
            FieldKind::Sequence { start, step } => Self::Sequence { start: *start, step: *step },
            // Wraps to 0, which stands for all 2^64 values.
            FieldKind::UniformInt { min, max } => Self::UniformInt { min: *min, values: (max.wrapping_sub(*min) as u64).wrapping_add(1) },
            FieldKind::UniformFloat { min, max } => Self::UniformFloat { min: *min, width: max - min },
            FieldKind::Normal { mean, deviation } => Self::Normal { mean: *mean, deviation: *deviation },
            FieldKind::Choice { values } => Self::Choice(Values::of(values)?),
            FieldKind::Constant { value } => Self::Choice(Values::of(std::slice::from_ref(value))?),
            FieldKind::String { length } => Self::Letters(*length),
            FieldKind::Boolean { probability } => Self::Boolean(*probability),
            FieldKind::Timestamp { text: false } => Self::Time,
            FieldKind::Timestamp { text: true } => Self::TimeText,
        })
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Sequence { .. } | Self::UniformInt { .. } => DataType::Int64,
            Self::UniformFloat { .. } | Self::Normal { .. } => DataType::Float64,
            Self::Choice(values) => values.data_type(),
            Self::Letters(_) | Self::TimeText => DataType::Utf8,
            Self::Boolean(_) => DataType::Boolean,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Baseline => DataType::Int32,
            Self::Signal => DataType::Float32,
        }
    }

    fn build(&self, stream: Stream, clock: Clock, rows: Rows) -> ArrayRef {
        let floats = |value: &dyn Fn(u64) -> f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(rows.iter().map(value))) };
        match self {
            Self::Sequence { start, step } => {
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| start.wrapping_add(step.wrapping_mul(row as i64)))))
            }
            Self::UniformInt { min, values } => {
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| min.wrapping_add(stream.below(row, *values) as i64))))
            }
            Self::UniformFloat { min, width } => floats(&|row| stream.unit(row).mul_add(*width, *min)),
            Self::Normal { mean, deviation } => floats(&|row| stream.normal(row).mul_add(*deviation, *mean)),
            Self::Choice(values) => values.choose(stream, rows),
            Self::Letters(length) => letters(stream, rows, *length),
            Self::Boolean(probability) => Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(stream.unit(row) < *probability)))),
            Self::Time => Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| clock.of(row)))),
            Self::TimeText => time_text(clock, rows),
            Self::Baseline => {
                let baseline = |row| BASELINES[stream.below(row, BASELINES.len() as u64) as usize];
                Arc::new(Int32Array::from_iter_values(rows.iter().map(baseline)))
            }
            Self::Signal => Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| signal(stream, row)))),
        }
    }
}

/// Blocks of [`BLOCK`] rows: noise in [-1, 1], then one period of a sine, in turns.
fn signal(stream: Stream, row: u64) -> f32 {
    let in_block = row % BLOCK;
    let is_noise = (row / BLOCK).is_multiple_of(2);
    let value = if is_noise { stream.unit(row).mul_add(2.0, -1.0) } else { (TAU * in_block as f64 / BLOCK as f64).sin() };
    value as f32
}

/// Letter i of row n is number i of the stream `fork(n)`.
fn letters(stream: Stream, rows: Rows, length: u32) -> ArrayRef {
    let mut texts = StringBuilder::with_capacity(rows.count, rows.count * length as usize);
    let mut text = String::with_capacity(length as usize);
    for row in rows.iter() {
        let letters = stream.fork(row);
        text.clear();
        text.extend((0..u64::from(length)).map(|at| char::from(b'a' + letters.below(at, 26) as u8)));
        texts.append_value(&text);
    }
    Arc::new(texts.finish())
}

fn time_text(clock: Clock, rows: Rows) -> ArrayRef {
    let mut texts = StringBuilder::with_capacity(rows.count, rows.count * "2024-01-01 00:00:00".len());
    let (mut writer, mut text) = (TimeText::default(), String::new());
    for row in rows.iter() {
        text.clear();
        writer.write(clock.of(row), &mut text);
        texts.append_value(&text);
    }
    Arc::new(texts.finish())
}

/// All columns.
#[derive(Debug, Clone)]
pub struct Columns {
    schema: SchemaRef,
    contents: Vec<(Content, Stream)>,
}

impl Columns {
    /// The columns of a configuration.
    ///
    /// # Errors
    /// When [`GeneratorConfig::problems`] has found something.
    pub fn of(config: &GeneratorConfig) -> Result<Self, String> {
        let contents: Vec<(&str, Content)> = match config.preset {
            Some(Preset::Signal) => {
                vec![("createTime", Content::TimeText), ("baselineId", Content::Baseline), ("signalValue", Content::Signal)]
            }
            None => config.fields.iter().map(|(name, kind)| Ok((name.as_str(), Content::of(kind)?))).collect::<Result<_, String>>()?,
        };
        let fields: Vec<_> = contents.iter().map(|(name, content)| Field::new(*name, content.data_type(), false)).collect();
        let contents = contents.into_iter().map(|(name, content)| (content, Stream::of_field(config.seed, name))).collect();
        Ok(Self { schema: Arc::new(Schema::new(fields)), contents })
    }

    /// Their names and types.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// About so many bytes a row has.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        let bytes = |content: &Content| match content {
            Content::Letters(length) => *length as usize + 4,
            Content::TimeText => 23,
            Content::Choice(Values::Texts(texts)) => texts.iter().map(String::len).max().unwrap_or_default() + 4,
            _ => 8,
        };
        self.contents.iter().map(|(content, _)| bytes(content)).sum()
    }

    /// Some rows.
    ///
    /// # Errors
    /// When Arrow refuses the columns, which it has no reason for.
    pub fn build(&self, clock: Clock, rows: Rows) -> Result<RecordBatch, ArrowError> {
        let columns = self.contents.iter().map(|(content, stream)| content.build(*stream, clock, rows)).collect();
        RecordBatch::try_new(self.schema.clone(), columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{cast::AsArray, types::Float64Type};
    use arrow_select::concat::concat_batches;
    use serde_json::json;

    const CLOCK: Clock = Clock { start: 1_704_067_200_000_000, step: 500_000 };

    fn columns(config: Value) -> Columns {
        Columns::of(&serde_json::from_value(config).unwrap()).unwrap()
    }

    fn rows(first: u64, stride: u64, count: usize) -> Rows {
        Rows { first, stride, count }
    }

    fn every_kind() -> Columns {
        columns(json!({ "seed": 3, "fields": {
            "sequence": { "kind": "sequence", "start": 10, "step": -2 },
            "int": { "kind": "uniform-int", "min": -3, "max": 3 },
            "any": { "kind": "uniform-int", "min": i64::MIN, "max": i64::MAX },
            "float": { "kind": "uniform-float", "min": 5.0, "max": 6.0 },
            "normal": { "kind": "normal", "mean": 100.0, "deviation": 0.5 },
            "choice": { "kind": "choice", "values": ["a", "b"] },
            "mixed": { "kind": "choice", "values": [1, 2.5] },
            "text": { "kind": "string", "length": 7 },
            "bool": { "kind": "boolean", "probability": 1.0 },
            "time": { "kind": "timestamp" },
            "time_text": { "kind": "timestamp", "text": true },
            "constant": { "kind": "constant", "value": true },
        }}))
    }

    #[test]
    fn every_kind_gives_what_it_says() {
        let batch = every_kind().build(CLOCK, rows(0, 1, 1_000)).unwrap();
        let column = |name| batch.column_by_name(name).unwrap();
        let ints = |name| column(name).as_primitive::<arrow_array::types::Int64Type>().values().to_vec();
        let floats = |name| column(name).as_primitive::<Float64Type>().values().to_vec();
        assert_eq!(ints("sequence")[..3], [10, 8, 6]);
        let mut distinct = ints("int");
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct, [-3, -2, -1, 0, 1, 2, 3]);
        assert!(ints("any").iter().any(|value| *value < i64::MIN / 2) && ints("any").iter().any(|value| *value > i64::MAX / 2));
        assert!(floats("float").iter().all(|value| (5.0..6.0).contains(value)));
        let mean = floats("normal").iter().sum::<f64>() / 1_000.0;
        assert!((mean - 100.0).abs() < 0.1, "{mean}");
        assert!(column("choice").as_string::<i32>().iter().all(|text| matches!(text, Some("a" | "b"))));
        assert!(floats("mixed").contains(&1.0) && floats("mixed").contains(&2.5));
        assert!(column("text").as_string::<i32>().iter().all(|text| text.is_some_and(|text| text.len() == 7)));
        assert_eq!(column("bool").as_boolean().true_count(), 1_000);
        assert_eq!(column("constant").as_boolean().true_count(), 1_000);
        let times = column("time").as_primitive::<arrow_array::types::TimestampMicrosecondType>();
        assert_eq!(times.values()[..3], [CLOCK.start, CLOCK.start + 500_000, CLOCK.start + 1_000_000]);
        assert_eq!(column("time_text").as_string::<i32>().value(3), "2024-01-01 00:00:01");
    }

    #[test]
    fn rows_do_not_depend_on_batches_and_splits() {
        for columns in [every_kind(), columns(json!({ "preset": "signal", "seed": 9 }))] {
            let whole = columns.build(CLOCK, rows(0, 1, 600)).unwrap();
            let parts = [columns.build(CLOCK, rows(0, 1, 123)).unwrap(), columns.build(CLOCK, rows(123, 1, 477)).unwrap()];
            assert_eq!(concat_batches(&columns.schema(), &parts).unwrap(), whole);
            for split in 0..3 {
                let part = columns.build(CLOCK, rows(split, 3, 200)).unwrap();
                for row in 0..200 {
                    assert_eq!(part.slice(row, 1), whole.slice(split as usize + 3 * row, 1));
                }
            }
        }
    }

    #[test]
    fn signals_are_blocks_of_noise_and_sine() {
        let batch = columns(json!({ "preset": "signal" })).build(CLOCK, rows(0, 1, 240)).unwrap();
        let names: Vec<_> = batch.schema_ref().fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        assert_eq!(names, ["createTime Utf8", "baselineId Int32", "signalValue Float32"]);
        assert_eq!(batch.column(0).as_string::<i32>().value(239), "2024-01-01 00:01:59");
        let baselines = batch.column(1).as_primitive::<arrow_array::types::Int32Type>().values().to_vec();
        assert!(
            BASELINES.iter().all(|baseline| baselines.contains(baseline)) && baselines.iter().all(|baseline| BASELINES.contains(baseline))
        );
        let signal = batch.column(2).as_primitive::<arrow_array::types::Float32Type>().values().to_vec();
        for block in [1, 3] {
            for (at, value) in signal[block * 60..][..60].iter().enumerate() {
                assert_eq!(*value, (TAU * at as f64 / 60.0).sin() as f32);
            }
        }
        let noise = &signal[..60];
        assert!(noise.iter().all(|value| (-1.0..=1.0).contains(value)));
        assert!(noise.windows(2).filter(|pair| pair[0] * pair[1] < 0.0).count() > 10, "noise crosses zero often");
        assert_ne!(signal[..60], signal[120..180]);
    }

    #[test]
    fn another_seed_gives_other_rows() {
        let build = |seed| {
            columns(json!({ "seed": seed, "fields": { "x": { "kind": "uniform-int", "min": 0, "max": 1_000_000_000 } } }))
                .build(CLOCK, rows(0, 1, 9))
                .unwrap()
        };
        assert_eq!(build(1), build(1));
        assert_ne!(build(1), build(2));
    }
}
