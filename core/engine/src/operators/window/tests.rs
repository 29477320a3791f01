//! Against a naive reference, and what the reference cannot see: order, memory, refusals.

use super::*;
use crate::operators::testing::{self, BATCH_ROWS, GROUPS, Row, Step, Subtasks, batch, key_name, lines, schema, settings, sorted, steps};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use datafusion_expr::AggregateUDF;
use datafusion_functions_aggregate::{average::avg_udaf, count::count_udaf, first_last::first_value_udaf, min_max, sum::sum_udaf};
use datafusion_physical_expr::{
    aggregate::AggregateExprBuilder,
    expressions::{col, lit},
};
use proptest::prelude::*;
use standpipe_pipeline::plan::WindowAggregate;
use std::time::Duration;

const SIZE: i64 = 50;
const OFFSET: i64 = 20;

fn aggregate(name: &str, function: Arc<AggregateUDF>, argument: Arc<dyn PhysicalExpr>) -> WindowAggregate {
    let function = AggregateExprBuilder::new(function, vec![argument]).schema(schema()).alias(name).build().unwrap();
    WindowAggregate { name: name.to_owned(), function: Arc::new(function), state: None, text: String::new() }
}

fn node(lateness: i64) -> WindowNode {
    let value = || col("value", &schema()).unwrap();
    WindowNode {
        keys: vec![1],
        time: 2,
        assigner: WindowAssigner::Tumbling { size: Duration::from_millis(SIZE as u64), offset: Duration::from_millis(OFFSET as u64) },
        allowed_lateness: Duration::from_millis(lateness as u64),
        aggregates: vec![
            aggregate("rows", count_udaf(), lit(1_i64)),
            aggregate("n", count_udaf(), value()),
            aggregate("total", sum_udaf(), value()),
            aggregate("mean", avg_udaf(), value()),
            aggregate("low", min_max::min_udaf(), value()),
            aggregate("high", min_max::max_udaf(), col("text", &schema()).unwrap()),
            aggregate("first", first_value_udaf(), value()),
        ],
    }
}

fn output_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let float = |name| Field::new(name, DataType::Float64, true);
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, true),
        Field::new("window_start", time.clone(), false),
        Field::new("window_end", time, false),
        Field::new("rows", DataType::Int64, false),
        Field::new("n", DataType::Int64, false),
        float("total"),
        float("mean"),
        float("low"),
        Field::new("high", DataType::Utf8, true),
        float("first"),
    ]))
}

fn window(lateness: i64) -> Window {
    Window::new("transforms.stats", &node(lateness), &schema(), output_schema(), &settings()).unwrap()
}

fn boxed(lateness: i64) -> impl Fn() -> Box<dyn Operator> {
    move || Box::new(window(lateness))
}

/// Windows and late rows, as lines.
fn truth(steps: &[Step], lateness: i64) -> (Vec<String>, Vec<i64>) {
    let mut panes: BTreeMap<(i64, Option<u8>), Vec<Option<i32>>> = BTreeMap::new();
    let (mut late, mut watermark, mut number) = (Vec::new(), i64::MIN / 2, 0);
    for step in steps {
        match step {
            Step::Advance(by) => watermark = watermark.max(0) + by,
            Step::Restore(_) => {}
            Step::Rows(rows) => {
                for row in rows {
                    let start = row.time.filter(|time| *time >= 0).map(|time| (time - OFFSET).div_euclid(SIZE) * SIZE + OFFSET);
                    match start.filter(|start| start + SIZE + lateness > watermark) {
                        Some(start) => panes.entry((start, row.key)).or_default().push(row.value),
                        None => late.push(number),
                    }
                    number += 1;
                }
            }
        }
    }
    (panes.into_iter().map(|((start, key), values)| line(start, key, &values)).collect(), late)
}

fn line(start: i64, key: Option<u8>, values: &[Option<i32>]) -> String {
    let known: Vec<i32> = values.iter().flatten().copied().collect();
    let total: i32 = known.iter().sum();
    let or_null = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:?}"));
    let some = (!known.is_empty()).then_some(());
    let time = |time: i64| {
        let array: ArrayRef = Arc::new(arrow::array::TimestampMillisecondArray::from(vec![time]));
        arrow::util::display::array_value_to_string(&array, 0).unwrap()
    };
    [
        key_name(key).unwrap_or("-".to_owned()),
        time(start),
        time(start + SIZE),
        values.len().to_string(),
        known.len().to_string(),
        or_null(some.map(|()| f64::from(total))),
        or_null(some.map(|()| f64::from(total) / known.len() as f64)),
        or_null(known.iter().min().map(|low| f64::from(*low))),
        known.iter().map(|value| testing::text(Some(*value)).unwrap()).max().unwrap_or("-".to_owned()),
        or_null(values[0].map(f64::from)),
    ]
    .join(" ")
}

fn numbers(emitted: &[(u32, RecordBatch)], output: u32) -> Vec<i64> {
    let of_output = emitted.iter().filter(|(of, _)| *of == output);
    of_output.flat_map(|(_, batch)| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn windows_and_late_rows_are_those_of_the_reference(
        steps in steps(), lateness in prop_oneof![Just(0_i64), 1_i64..90], parallelism in 1_u32..4, batch_rows in 1_usize..40,
    ) {
        let emitted = Subtasks::new(parallelism, boxed(lateness)).run(&steps, batch_rows);
        let (windows, late) = truth(&steps, lateness);
        prop_assert_eq!(sorted(lines(&emitted, 0)), sorted(windows));
        let mut numbers = numbers(&emitted, LATE);
        numbers.sort_unstable();
        prop_assert_eq!(numbers, late);
    }

    #[test]
    fn the_order_does_not_depend_on_the_size_of_batches(steps in steps(), batch_rows in 1_usize..40) {
        let steps: Vec<Step> = steps.into_iter().filter(|step| !matches!(step, Step::Restore(_))).collect();
        let rows_at_once = Subtasks::new(1, boxed(30)).run(&steps, 1000);
        let in_pieces = Subtasks::new(1, boxed(30)).run(&steps, batch_rows);
        prop_assert_eq!(lines(&in_pieces, 0), lines(&rows_at_once, 0));
        prop_assert_eq!(numbers(&in_pieces, LATE), numbers(&rows_at_once, LATE), "late rows stay in arrival order");
        prop_assert!(numbers(&in_pieces, LATE).is_sorted());
    }

    #[test]
    fn a_snapshot_changes_nothing(steps in steps(), batch_rows in 1_usize..40) {
        let once_more = |step: &Step| match step {
            Step::Restore(_) => vec![],
            step => vec![step.clone(), Step::Restore(1)],
        };
        let plain: Vec<Step> = steps.iter().filter(|step| !matches!(step, Step::Restore(_))).cloned().collect();
        let interrupted: Vec<Step> = steps.iter().flat_map(once_more).collect();
        let expected = Subtasks::new(1, boxed(0)).run(&plain, batch_rows);
        let emitted = Subtasks::new(1, boxed(0)).run(&interrupted, batch_rows);
        prop_assert_eq!(lines(&emitted, 0), lines(&expected, 0));
        prop_assert_eq!(lines(&emitted, LATE), lines(&expected, LATE));
    }
}

fn rows(times: &[(u8, i64)]) -> RecordBatch {
    let rows: Vec<Row> = times.iter().map(|(key, time)| Row { key: Some(*key), time: Some(*time), value: Some(1) }).collect();
    batch(0, &rows)
}

#[test]
fn a_window_fires_at_its_end_plus_lateness_and_keys_come_in_order_of_arrival() {
    let mut window = window(10);
    let mut out = Emitter::default();
    window.on_batch(0, rows(&[(5, 75), (2, 30), (3, 69), (2, 21)]), &mut out).unwrap();
    window.on_watermark(0, 79_999, &mut out).unwrap();
    assert_eq!(out.drain().count(), 0);
    window.on_batch(0, rows(&[(1, 20)]), &mut out).unwrap();
    assert_eq!(out.drain().count(), 0, "within the lateness");
    window.on_watermark(0, 80_000, &mut out).unwrap();
    let fired: Vec<_> = out.drain().collect();
    let keys: Vec<_> = fired[0].1.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!((fired.len(), keys), (1, vec!["host-2", "host-3", "host-1"]));
    assert_eq!(fired[0].1.schema(), output_schema());
    window.on_batch(0, rows(&[(1, 69), (1, 70), (9, 120)]), &mut out).unwrap();
    let late: Vec<_> = out.drain().collect();
    assert_eq!((late.len(), late[0].0, late[0].1.num_rows()), (1, LATE, 1));
    window.on_watermark(0, END, &mut out).unwrap();
    assert_eq!(out.drain().map(|(_, batch)| batch.num_rows()).collect::<Vec<_>>(), [2, 1]);
    assert!(window.panes.is_empty());
    window.on_batch(0, rows(&[(1, 1_000_000)]), &mut out).unwrap();
    assert_eq!(out.drain().map(|(output, _)| output).collect::<Vec<_>>(), [LATE], "after the end everything is late");
}

#[test]
fn a_pane_of_many_keys_comes_in_batches_and_makes_no_larger_columns_of_keys() {
    let mut window = window(0);
    let mut out = Emitter::default();
    let times: Vec<(u8, i64)> = (0..2 * BATCH_ROWS as u8 + 1).map(|key| (key, 20)).collect();
    window.on_batch(0, rows(&times), &mut out).unwrap();
    window.on_watermark(0, END, &mut out).unwrap();
    let fired: Vec<(u32, RecordBatch)> = out.drain().collect();
    assert_eq!(fired.iter().map(|(_, batch)| batch.num_rows()).collect::<Vec<_>>(), [BATCH_ROWS, BATCH_ROWS, 1]);
    for (_, batch) in &fired {
        let offsets = batch.column(0).to_data().buffers()[0].len();
        assert_eq!(offsets, (batch.num_rows() + 1) * size_of::<i32>(), "the keys of this batch alone");
    }
    let keys: Vec<String> = lines(&fired, 0).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(keys, (0..2 * BATCH_ROWS as u8 + 1).map(|key| key_name(Some(key)).unwrap()).collect::<Vec<_>>());
}

#[test]
fn only_a_pane_newer_than_all_others_reserves_room_for_their_keys() {
    let mut window = window(0);
    let all: Vec<(u8, i64)> = (0..200).map(|key| (key, 1_000_000)).collect();
    window.on_batch(0, rows(&all), &mut Emitter::default()).unwrap();
    let stray: Vec<(u8, i64)> = (0..100).map(|pane| (1, pane * SIZE)).chain((0..100).map(|pane| (1, 2_000_000 + pane * SIZE))).collect();
    window.on_batch(0, rows(&stray), &mut Emitter::default()).unwrap();
    let sizes: Vec<usize> = window.panes.values().map(|pane| pane.index().size()).collect();
    let small = Pane::new(&window.key_fields, &[], 1).unwrap();
    assert_eq!(sizes.len(), 201);
    let large = sizes.iter().filter(|size| **size > small.index().size() + 256).count();
    assert_eq!(large, 2, "the full pane and the one right after it: {sizes:?}");
    assert_eq!(window.likely_keys(2_000_000 + 100 * SIZE), 1);
}

#[test]
fn what_follows_is_behind_by_the_lateness() {
    assert_eq!((window(0).watermark_delay(), window(40).watermark_delay()), (0, 40_000));
}

#[test]
fn a_window_without_keys_has_one_row() {
    let keyless = WindowNode { keys: vec![], ..node(0) };
    let fields: Vec<_> = output_schema().fields()[1..].to_vec();
    let make = || Window::new("transforms.all", &keyless, &schema(), Arc::new(Schema::new(fields.clone())), &settings()).unwrap();
    let mut window = make();
    let mut out = Emitter::default();
    window.on_batch(0, rows(&[(1, 20), (2, 69), (3, 70)]), &mut out).unwrap();
    let snapshot = window.snapshot(Cut::ALONE).unwrap();
    let mut restored = make();
    restored.restore(&[snapshot], KeyGroupRange { start: 0, end: GROUPS as u16 }).unwrap();
    for mut window in [window, restored] {
        window.on_watermark(0, END, &mut out).unwrap();
        let counts: Vec<_> = out.drain().map(|(_, batch)| batch["rows"].as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(counts, [[2], [1]]);
    }
}

#[test]
fn snapshots_are_tables_for_others_to_read() {
    let mut window = window(0);
    window.on_batch(0, rows(&[(1, 20), (2, 20), (1, 70)]), &mut Emitter::default()).unwrap();
    window.on_watermark(0, 5, &mut Emitter::default()).unwrap();
    let snapshot = window.snapshot(Cut::ALONE).unwrap();
    let names: Vec<_> = snapshot.tables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["watermark", "panes"]);
    let panes = &snapshot.tables[1].1;
    let columns: Vec<_> = panes.schema().fields().iter().take(6).map(|field| field.name().clone()).collect();
    assert_eq!((panes.num_rows(), columns.join(" ")), (3, "key_group key window_start rows.0 n.0 total.0".to_owned()));

    let mut other = Snapshot::default();
    other.tables.push(("keys".to_owned(), panes.clone()));
    let error = window.restore(&[other], KeyGroupRange { start: 0, end: 1 }).unwrap_err().to_string();
    assert_eq!(error, "transforms.stats: the snapshot does not fit: a window has no table \"keys\"");
}

#[test]
fn an_event_time_of_another_type_is_refused() {
    let node = WindowNode { time: 3, ..node(0) };
    let error = Window::new("transforms.stats", &node, &schema(), output_schema(), &settings()).err().unwrap().to_string();
    assert_eq!(error, "transforms.stats: the event time is Float64, not a timestamp");
}

proptest! {
    #![proptest_config(standpipe_hostile::cases(500))]

    #[test]
    fn damaged_tables_are_restored_or_refused(which in 0..8_usize, changes in standpipe_hostile::bytes::changes(&["n.0", "total.0", "first.1", "window_start"])) {
        testing::survives(&boxed(0), which, &changes);
    }
}

/// Found by the test above: what is counted on to it would not fit.
#[test]
fn a_count_that_no_job_has_is_refused() {
    let mut subtasks = Subtasks::new(1, boxed(0));
    subtasks.rows(batch(0, &[Row { key: Some(1), time: Some(1), value: Some(1) }]));
    for count in [i64::MAX, -1] {
        let mut snapshot = subtasks.snapshots().remove(0);
        for (_, table) in snapshot.tables.iter_mut().filter(|(_, table)| table.column_by_name("n.0").is_some()) {
            let counts = arrow::array::Int64Array::from(vec![count; table.num_rows()]);
            *table = testing::with_column(table, "n.0", std::sync::Arc::new(counts));
        }
        let restored = boxed(0)().restore(&[snapshot], standpipe_state::range_of(0, 1, testing::GROUPS));
        let (error, expected) = (restored.unwrap_err().to_string(), "no job has counted what \"n\" has".to_owned());
        assert!(error.contains(&expected), "{error}");
    }
}
