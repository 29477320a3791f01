//! Against a naive reference.

use super::*;
use crate::operators::testing::{self, BATCH_ROWS, Row, Step, Subtasks, batch, key_name, lines, schema, settings, sorted, steps};
use arrow::array::{Array, AsArray, Float32Array, Int32Array, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Schema};
use datafusion_physical_expr::expressions::col;
use proptest::prelude::*;
use standpipe_pipeline::plan::{Folding, RunningAggregate, RunningFunction};
use std::collections::BTreeMap;

fn aggregates() -> Vec<(RunningAggregate, bool)> {
    use RunningFunction::{Avg, Count, First, Last, Max, Min, Sum};
    let aggregate = |name: &str, function, argument: &str, data_type: DataType| {
        let arguments = if argument.is_empty() { Vec::new() } else { vec![col(argument, &schema()).unwrap()] };
        let is_null_at_first = function != Count;
        let function = Folding::BuiltIn(function);
        (RunningAggregate { name: name.to_owned(), function, arguments, data_type, text: String::new() }, is_null_at_first)
    };
    vec![
        aggregate("rows", Count, "", DataType::Int64),
        aggregate("n", Count, "value", DataType::Int64),
        aggregate("total", Sum, "value", DataType::Float64),
        aggregate("low", Min, "value", DataType::Float64),
        aggregate("high", Max, "text", DataType::Utf8),
        aggregate("mean", Avg, "value", DataType::Float64),
        aggregate("first", First, "value", DataType::Float64),
        aggregate("last", Last, "text", DataType::Utf8),
    ]
}

fn output_schema(emit: Emit) -> SchemaRef {
    let mut fields = vec![schema().field(1).clone()];
    fields.extend(aggregates().into_iter().map(|(aggregate, nullable)| Field::new(aggregate.name, aggregate.data_type, nullable)));
    if emit == Emit::Changes {
        let role = HashMap::from([(ROLE.to_owned(), ROLE_ROW_KIND.to_owned())]);
        fields.push(Field::new("op", DataType::Utf8, false).with_metadata(role));
    }
    Arc::new(Schema::new(fields))
}

fn boxed(emit: Emit) -> impl Fn() -> Box<dyn Operator> {
    move || {
        let aggregates = aggregates().into_iter().map(|(aggregate, _)| aggregate).collect();
        let node = AggregateNode { keys: vec![1], emit, aggregates };
        Box::new(Aggregate::new("transforms.totals", &node, &schema(), output_schema(emit), &settings()).unwrap())
    }
}

fn line(key: Option<u8>, values: &[Option<i32>]) -> String {
    let known: Vec<i32> = values.iter().flatten().copied().collect();
    let total: i32 = known.iter().sum();
    let or_null = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:?}"));
    let some = (!known.is_empty()).then_some(());
    [
        key_name(key).unwrap_or("-".to_owned()),
        values.len().to_string(),
        known.len().to_string(),
        or_null(some.map(|()| f64::from(total))),
        or_null(known.iter().min().map(|low| f64::from(*low))),
        known.iter().map(|value| testing::text(Some(*value)).unwrap()).max().unwrap_or("-".to_owned()),
        or_null(some.map(|()| f64::from(total) / known.len() as f64)),
        or_null(values[0].map(f64::from)),
        values.last().and_then(|last| testing::text(*last)).unwrap_or("-".to_owned()),
    ]
    .join(" ")
}

fn all_rows(steps: &[Step]) -> Vec<Row> {
    let rows = steps.iter().filter_map(|step| if let Step::Rows(rows) = step { Some(rows) } else { None });
    rows.flatten().cloned().collect()
}

/// The lines of each key in their order.
fn by_key(lines: impl IntoIterator<Item = String>) -> BTreeMap<String, Vec<String>> {
    let mut of_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let key = line.split(' ').next().unwrap_or_default().to_owned();
        of_key.entry(key).or_default().push(line);
    }
    of_key
}

/// The line after each row.
fn running(rows: &[Row]) -> Vec<String> {
    let mut values: BTreeMap<Option<u8>, Vec<Option<i32>>> = BTreeMap::new();
    let after = |row: &Row| {
        let values = values.entry(row.key).or_default();
        values.push(row.value);
        line(row.key, values)
    };
    rows.iter().map(after).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn each_gives_the_running_values(steps in steps(), parallelism in 1_u32..4, batch_rows in 1_usize..40) {
        let emitted = Subtasks::new(parallelism, boxed(Emit::Each)).run(&steps, batch_rows);
        prop_assert_eq!(by_key(lines(&emitted, 0)), by_key(running(&all_rows(&steps))));
        let one = steps.iter().filter(|step| !matches!(step, Step::Restore(_))).cloned().collect::<Vec<_>>();
        let emitted = Subtasks::new(1, boxed(Emit::Each)).run(&one, batch_rows);
        prop_assert_eq!(lines(&emitted, 0), running(&all_rows(&steps)), "one subtask keeps the order of rows");
    }

    #[test]
    fn final_gives_each_key_once(steps in steps(), parallelism in 1_u32..4, batch_rows in 1_usize..40) {
        let emitted = Subtasks::new(parallelism, boxed(Emit::Final)).run(&steps, batch_rows);
        let last = by_key(running(&all_rows(&steps))).into_values().filter_map(|mut lines| lines.pop()).collect();
        prop_assert_eq!(sorted(lines(&emitted, 0)), sorted(last));
    }

    #[test]
    fn changes_lead_to_the_same_end(steps in steps(), parallelism in 1_u32..4, batch_rows in 1_usize..40) {
        let emitted = Subtasks::new(parallelism, boxed(Emit::Changes)).run(&steps, batch_rows);
        let running = by_key(running(&all_rows(&steps)));
        let mut ends = BTreeMap::new();
        for (key, lines) in by_key(lines(&emitted, 0)) {
            for (at, line) in lines.iter().enumerate() {
                let (values, op) = line.rsplit_once(' ').unwrap();
                prop_assert_eq!(op, if at == 0 { "+I" } else { "+U" });
                prop_assert!(running[&key].iter().any(|line| line == values), "every change is a value that was: {}", line);
                ends.insert(key.clone(), values.to_owned());
            }
        }
        let last: BTreeMap<_, _> = running.into_iter().filter_map(|(key, mut lines)| Some((key, lines.pop()?))).collect();
        prop_assert_eq!(ends, last);
    }
}

#[test]
fn changes_are_coalesced_per_batch_in_order_of_first_row() {
    let row = |key, value| Row { key: Some(key), time: Some(0), value: Some(value) };
    let mut operators = Subtasks::new(1, boxed(Emit::Changes));
    operators.rows(batch(0, &[row(2, 1), row(1, 5), row(2, 3)]));
    operators.rows(batch(3, &[row(3, 1), row(1, 1)]));
    let ops: Vec<String> = lines(&operators.emitted, 0)
        .into_iter()
        .map(|line| line.split(' ').take(2).chain(line.rsplit(' ').take(1)).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(ops, ["host-2 2 +I", "host-1 1 +I", "host-3 1 +I", "host-1 2 +U"]);
}

#[test]
fn final_gives_many_keys_in_batches_and_makes_no_larger_columns() {
    let mut operators = Subtasks::new(1, boxed(Emit::Final));
    let rows: Vec<Row> = (0..2 * BATCH_ROWS as u8 + 1).map(|key| Row { key: Some(key), time: None, value: Some(1) }).collect();
    operators.rows(batch(0, &rows));
    operators.advance(END);
    let given: Vec<&RecordBatch> = operators.emitted.iter().map(|(_, batch)| batch).collect();
    assert_eq!(given.iter().map(|batch| batch.num_rows()).collect::<Vec<_>>(), [BATCH_ROWS, BATCH_ROWS, 1]);
    for batch in given {
        let offsets = batch.column(0).to_data().buffers()[0].len();
        assert_eq!(offsets, (batch.num_rows() + 1) * size_of::<i32>(), "the keys of this batch alone");
    }
}

/// The value, with every NaN as the same one, and -0.0 apart from 0.0.
fn bits(value: Option<f64>) -> Option<u64> {
    value.map(|value| if value.is_nan() { f64::NAN } else { value }.to_bits())
}

proptest! {
    #[test]
    fn extremes_of_floats_do_not_depend_on_the_order_of_rows((values, shuffled) in testing::floats()) {
        let (low, high) = testing::float_extremes(&values);
        for values in [values, shuffled] {
            let array: ArrayRef = Arc::new(arrow::array::Float64Array::from(values));
            let of = |function| {
                let end = fold(function, &DataType::Float64, array.clone()).unwrap();
                bits(end.as_primitive::<arrow::datatypes::Float64Type>().iter().next().flatten())
            };
            prop_assert_eq!(of(RunningFunction::Min), bits(low));
            prop_assert_eq!(of(RunningFunction::Max), bits(high));
        }
    }
}

#[test]
fn what_has_been_given_is_not_given_again_after_a_restore() {
    let mut operators = Subtasks::new(2, boxed(Emit::Final));
    operators.rows(batch(0, &[Row { key: None, time: None, value: None }]));
    operators.advance(END);
    assert_eq!(lines(&operators.emitted, 0).len(), 1);
    operators.restore(1);
    operators.advance(END);
    assert_eq!(lines(&operators.emitted, 0).len(), 1);
}

/// Runs one accumulator over one key, also through its state.
fn fold(function: RunningFunction, data_type: &DataType, values: ArrayRef) -> accumulator::Result<ArrayRef> {
    let mut accumulator = accumulator::new(function, data_type, true)?;
    let half = values.len() / 2;
    accumulator.update(&vec![0; half], 1, &[values.slice(0, half)])?;
    let state = accumulator.state(&[0])?;
    assert_eq!(state.iter().map(|state| state.data_type().clone()).collect::<Vec<_>>(), accumulator.state_types());
    let mut restored = accumulator::new(function, data_type, true)?;
    restored.restore(&[0], 1, &state)?;
    let rest = values.slice(half, values.len() - half);
    let running = restored.update_each(&vec![0; rest.len()], 1, &[Arc::clone(&rest)])?;
    let end = restored.read(&[0])?;
    assert_eq!(&running.slice(rest.len() - 1, 1), &end);
    Ok(end)
}

#[test]
fn sums_keep_to_their_type() {
    let sum = |data_type, values| fold(RunningFunction::Sum, &data_type, values);
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![Some(i32::MAX), None, Some(i32::MAX)]));
    assert_eq!(&sum(DataType::Int64, narrow).unwrap(), &(Arc::new(Int64Array::from(vec![2 * i64::from(i32::MAX)])) as ArrayRef));
    let large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 1]));
    let error = sum(DataType::UInt64, large).unwrap_err().to_string();
    assert_eq!(error, "the sum is beyond what UInt64 can hold");
    assert!(accumulator::new(RunningFunction::Sum, &DataType::Utf8, true).is_err());
    assert!(accumulator::new(RunningFunction::Max, &DataType::Int64, false).is_err());
}

#[test]
fn extremes_of_every_type_with_an_order() {
    let integers: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), Some(-7), None, Some(5)]));
    let strings: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), Some(""), None, Some("é")]));
    let booleans: ArrayRef = Arc::new(arrow::array::BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]));
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![Some(f32::NEG_INFINITY), Some(-1.0), None, Some(2.0)]));
    let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let cast = |array: &ArrayRef, data_type: &DataType| arrow::compute::cast(array, data_type).unwrap();
    let decimal = DataType::Decimal128(20, 2);
    let timestamp = DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, Some("+01:00".into()));
    let cases = [
        (integers.clone(), 1, 3),
        (cast(&integers, &decimal), 1, 3),
        (cast(&integers, &timestamp), 1, 3),
        (floats, 0, 3),
        (booleans, 1, 0),
        (cast(&strings, &DataType::LargeUtf8), 1, 3),
        (cast(&strings, &DataType::Utf8View), 1, 3),
        (cast(&strings, &DataType::LargeBinary), 1, 3),
        (cast(&strings, &dictionary), 1, 3),
        (strings, 1, 3),
    ];
    for (values, low, high) in cases {
        let data_type = values.data_type().clone();
        let of = |function| fold(function, &data_type, values.clone()).unwrap();
        assert_eq!(&of(RunningFunction::Min), &values.slice(low, 1), "{data_type}");
        assert_eq!(&of(RunningFunction::Max), &values.slice(high, 1), "{data_type}");
        assert_eq!(&of(RunningFunction::First), &values.slice(0, 1), "{data_type}");
        assert_eq!(&of(RunningFunction::Last), &values.slice(3, 1), "{data_type}");
    }
}

#[test]
fn a_row_kind_elsewhere_is_refused() {
    let node = AggregateNode { keys: vec![1], emit: Emit::Changes, aggregates: vec![] };
    let error = Aggregate::new("transforms.totals", &node, &schema(), output_schema(Emit::Each), &settings()).err().unwrap().to_string();
    assert!(error.starts_with("transforms.totals: the row kind"), "{error}");
}

proptest! {
    #![proptest_config(standpipe_hostile::cases(500))]

    #[test]
    fn damaged_tables_are_restored_or_refused(which in 0..8_usize, changes in standpipe_hostile::bytes::changes(&["n.0", "total.0", "first.1", "window_start"])) {
        testing::survives(&boxed(Emit::Final), which, &changes);
    }
}

/// Found by the test above: what is counted on to it would not fit.
#[test]
fn a_count_that_no_job_has_is_refused() {
    let mut subtasks = Subtasks::new(1, boxed(Emit::Final));
    subtasks.rows(batch(0, &[Row { key: Some(1), time: Some(1), value: Some(1) }]));
    for count in [i64::MAX, -1] {
        let mut snapshot = subtasks.snapshots().remove(0);
        for (_, table) in snapshot.tables.iter_mut().filter(|(_, table)| table.column_by_name("n.0").is_some()) {
            let counts = arrow::array::Int64Array::from(vec![count; table.num_rows()]);
            *table = testing::with_column(table, "n.0", std::sync::Arc::new(counts));
        }
        let restored = boxed(Emit::Final)().restore(&[snapshot], standpipe_state::range_of(0, 1, testing::GROUPS));
        let (error, expected) = (restored.unwrap_err().to_string(), format!("no job has counted {count} rows"));
        assert!(error.contains(&expected), "{error}");
    }
}
