//! What the tests of keyed operators share: random input, and an operator on any number of subtasks that can be restored with another number.

use crate::{
    exchange::Splitter,
    operator::{END, Emitter, Micros, Operator, Snapshot},
};
use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray},
    compute::concat_batches,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    ipc::writer::FileWriter,
    util::display::{ArrayFormatter, FormatOptions},
};
use proptest::prelude::*;
use standpipe_formats::ipc::read_file;
use standpipe_hostile::bytes;
use standpipe_pipeline::plan::JobSettings;
use standpipe_state::{Cut, range_of};
use std::{sync::Arc, time::Duration};

pub(super) const GROUPS: u32 = 32;
/// Rows of a batch that a window or an aggregate gives when it fires: so few that most results are in several batches.
pub(super) const BATCH_ROWS: usize = 3;

pub(super) fn settings() -> JobSettings {
    JobSettings {
        parallelism: 1,
        max_parallelism: GROUPS,
        batch_rows: BATCH_ROWS as u32,
        in_flight_bytes: 1 << 20,
        flush_interval: Duration::from_millis(10),
    }
}

/// A row of the input: column `n` is its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) key: Option<u8>,
    /// Milliseconds.
    pub(super) time: Option<i64>,
    /// A whole number, so that sums are exact in any order.
    pub(super) value: Option<i32>,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Rows(Vec<Row>),
    /// How far the watermark advances, milliseconds.
    Advance(i64),
    /// Snapshot, and go on with that many subtasks.
    Restore(u32),
}

fn row() -> impl Strategy<Value = Row> {
    let time = prop_oneof![20 => (0_i64..400).prop_map(Some), 1 => Just(None), 1 => Just(Some(i64::MIN + 3))];
    let value = prop_oneof![5 => (-9_i32..10).prop_map(Some), 1 => Just(None)];
    (prop::option::weighted(0.9, 0_u8..7), time, value).prop_map(|(key, time, value)| Row { key, time, value })
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(row(), 1..30).prop_map(Step::Rows),
        2 => (0_i64..120).prop_map(Step::Advance),
        1 => (1_u32..5).prop_map(Step::Restore),
    ];
    prop::collection::vec(step, 1..16)
}

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("key", DataType::Utf8, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("value", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
    ]))
}

pub(super) fn key_name(key: Option<u8>) -> Option<String> {
    key.map(|key| format!("host-{key}"))
}

pub(super) fn text(value: Option<i32>) -> Option<String> {
    value.map(|value| format!("t{value}"))
}

/// Rows as a batch; the first has that number.
pub(super) fn batch(first: usize, rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values((first as i64..).take(rows.len()))),
        Arc::new(rows.iter().map(|row| key_name(row.key)).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.time).collect::<TimestampMillisecondArray>()),
        Arc::new(rows.iter().map(|row| row.value.map(f64::from)).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| text(row.value)).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// An operator keyed by the column `key`, on some subtasks.
pub(super) struct Subtasks<F> {
    make: F,
    operators: Vec<Box<dyn Operator>>,
    splitter: Splitter,
    watermark: i64,
    pub(super) emitted: Vec<(u32, RecordBatch)>,
}

impl<F: Fn() -> Box<dyn Operator>> Subtasks<F> {
    pub(super) fn new(parallelism: u32, make: F) -> Self {
        let operators = (0..parallelism).map(|_| make()).collect();
        Self { make, operators, splitter: splitter(parallelism), watermark: 0, emitted: Vec::new() }
    }

    /// Takes all steps, in batches of at most that many rows, and ends the input. What was emitted.
    pub(super) fn run(mut self, steps: &[Step], batch_rows: usize) -> Vec<(u32, RecordBatch)> {
        let mut first = 0;
        for step in steps {
            match step {
                Step::Rows(rows) => {
                    for rows in rows.chunks(batch_rows) {
                        self.rows(batch(first, rows));
                        first += rows.len();
                    }
                }
                Step::Advance(by) => {
                    self.watermark += by;
                    self.advance(self.watermark * 1000);
                }
                Step::Restore(parallelism) => self.restore(*parallelism),
            }
        }
        self.advance(END);
        self.emitted
    }

    pub(super) fn rows(&mut self, batch: RecordBatch) {
        let (operators, emitted) = (&mut self.operators, &mut self.emitted);
        let mut out = Emitter::default();
        let give = |subtask: u32, part: RecordBatch| {
            operators[subtask as usize].on_batch(0, part, &mut out).unwrap();
            emitted.extend(out.drain());
        };
        self.splitter.split(batch, give).unwrap();
    }

    pub(super) fn advance(&mut self, watermark: Micros) {
        let mut out = Emitter::default();
        for operator in &mut self.operators {
            operator.on_watermark(0, watermark, &mut out).unwrap();
            self.emitted.extend(out.drain());
        }
    }

    pub(super) fn snapshots(&mut self) -> Vec<Snapshot> {
        self.operators.iter_mut().map(|operator| operator.snapshot(Cut::ALONE).unwrap()).collect()
    }

    /// Goes on from a snapshot with that many subtasks; the old ones take no harm from the snapshot, and are dropped.
    pub(super) fn restore(&mut self, parallelism: u32) {
        let parts = self.snapshots();
        let restored = |subtask: u32| {
            let mut operator = (self.make)();
            operator.restore(&parts, range_of(subtask, parallelism, GROUPS)).unwrap();
            operator
        };
        self.operators = (0..parallelism).map(restored).collect();
        self.splitter = splitter(parallelism);
    }
}

/// Restores an operator from a table that was damaged so that Arrow still takes it, and goes on: a refusal or results, no panic.
pub(super) fn survives(make: impl Fn() -> Box<dyn Operator> + Copy, which: usize, changes: &[bytes::Change]) {
    let rows: Vec<Row> =
        (0..40).map(|n| Row { key: (n % 7 < 6).then_some(n as u8 % 7), time: Some(i64::from(n) * 9), value: Some(n - 20) }).collect();
    let mut subtasks = Subtasks::new(1, make);
    subtasks.rows(batch(0, &rows));
    subtasks.advance(60_000);
    let mut tables: Vec<(String, RecordBatch)> = subtasks.snapshots().into_iter().flat_map(|snapshot| snapshot.tables).collect();
    let place = which % tables.len();
    let Some(table) = damaged(&tables[place].1, changes) else { return };
    tables[place].1 = table;
    let (mut operator, mut out) = (make(), Emitter::default());
    if operator.restore(&[Snapshot::from(tables)], range_of(0, 1, GROUPS)).is_err() {
        return;
    }
    // Numbers that are not what they were may be too large together: that is an error of the data.
    let _ = operator.on_batch(0, batch(40, &rows), &mut out);
    let _ = operator.snapshot(Cut::ALONE);
    for watermark in [70_000, 1_000_000, END] {
        let _ = operator.on_watermark(0, watermark, &mut out);
    }
}

/// The table with another column in the place of one of its own.
pub(super) fn with_column(table: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let at = table.schema().index_of(name).unwrap();
    let mut columns = table.columns().to_vec();
    columns[at] = column;
    RecordBatch::try_new(table.schema(), columns).unwrap()
}

/// The table after changes of its bytes, if it still is one; not packed, so that bytes are values.
pub(crate) fn damaged(table: &RecordBatch, changes: &[bytes::Change]) -> Option<RecordBatch> {
    let mut writer = FileWriter::try_new(Vec::new(), table.schema_ref()).unwrap();
    writer.write(table).unwrap();
    read_file(bytes::changed(&writer.into_inner().unwrap(), changes)).ok()?.pop()
}

/// Floats with all that is special about them, and the same in another order.
pub(super) fn floats() -> impl Strategy<Value = (Vec<Option<f64>>, Vec<Option<f64>>)> {
    const SPECIAL: [f64; 8] = [f64::NAN, -f64::NAN, 0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN];
    let value = prop_oneof![3 => prop::sample::select(&SPECIAL[..]), 1 => -3.0..3.0_f64];
    let values = prop::collection::vec(prop::option::weighted(0.9, value), 2..9);
    values.prop_flat_map(|values| (Just(values.clone()), Just(values).prop_shuffle()))
}

/// Their smallest and their largest value, the slow way.
pub(super) fn float_extremes(values: &[Option<f64>]) -> (Option<f64>, Option<f64>) {
    let (nans, mut numbers): (Vec<f64>, Vec<f64>) = values.iter().flatten().partition(|value| value.is_nan());
    numbers.sort_by(f64::total_cmp);
    (numbers.first().or(nans.first()).copied(), nans.first().or(numbers.last()).copied())
}

fn splitter(parallelism: u32) -> Splitter {
    Splitter::new("test", &schema(), &[1], GROUPS, parallelism).unwrap()
}

/// The rows of all batches of an output as text, columns separated by a space.
pub(super) fn lines(emitted: &[(u32, RecordBatch)], output: u32) -> Vec<String> {
    let batches: Vec<&RecordBatch> = emitted.iter().filter(|(of, _)| *of == output).map(|(_, batch)| batch).collect();
    let Some(first) = batches.first() else { return Vec::new() };
    let whole = concat_batches(&first.schema(), batches).unwrap();
    let options = FormatOptions::default().with_null("-");
    let columns: Vec<_> = whole.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    (0..whole.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(" ")).collect()
}

pub(super) fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}
