//! `run-length` as the host runs it, with keyed state, against the obvious way to do it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMillisecondType},
};
use arrow_schema::{DataType, TimeUnit};
use proptest::prelude::*;
use serde_json::{Value, json};
use standpipe_sdk::{
    hosting::NodeInput,
    testing::{Harness, TransformHarness},
    wire::{ChangeMode, InputDetails},
};
use standpipe_transforms_examples::RunLength;
use std::{collections::HashMap, sync::Arc};

/// (key, flag, time)
type Row = (i32, Option<i32>, i64);
/// (key, length, end time)
type Run = (i32, i64, i64);

fn batch(rows: &[Row]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0)));
    let flags: ArrayRef = Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.1)));
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.2)));
    RecordBatch::try_from_iter_with_nullable([("flag", flags, true), ("id", keys, true), ("time", times, true)]).unwrap()
}

fn transform(config: Value) -> TransformHarness {
    Harness::transform::<RunLength>(config, batch(&[]).schema()).keyed(&["id"])
}

fn runs(batches: &[RecordBatch]) -> Vec<Run> {
    let rows = |batch: &RecordBatch| {
        let keys = batch.column(0).as_primitive::<Int32Type>().values().to_vec();
        let lengths = batch.column(1).as_primitive::<Int64Type>().values().to_vec();
        let times = batch.column(2).as_primitive::<TimestampMillisecondType>().values().to_vec();
        keys.into_iter().zip(lengths).zip(times).map(|((key, length), time)| (key, length, time)).collect::<Vec<_>>()
    };
    batches.iter().flat_map(rows).collect()
}

fn naive(rows: &[Row]) -> Vec<Run> {
    let mut flags: HashMap<i32, Vec<i32>> = HashMap::new();
    let mut runs = Vec::new();
    for (key, flag, time) in rows {
        let Some(flag) = flag else { continue };
        let before = flags.entry(*key).or_default();
        let length = before.iter().rev().take_while(|flag| **flag != 0).count();
        if *flag == 0 && length > 0 {
            runs.push((*key, length as i64, *time));
        }
        before.push(*flag);
    }
    runs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn runs_are_those_of_the_obvious_way_whatever_the_batches(
        rows in prop::collection::vec((0..4, prop::option::weighted(0.95, 0..2), any::<i64>()), 0..200),
        sizes in prop::collection::vec(1_usize..20, 1..20),
    ) {
        let mut transform = transform(json!({ "column": "flag", "time": "time" }));
        let (mut found, mut rest) = (Vec::new(), &rows[..]);
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*size).min(rest.len()));
            found.extend(runs(&transform.process(&batch(now)).unwrap()));
            rest = later;
        }
        prop_assert_eq!(found, naive(&rows));
    }
}

#[test]
fn a_run_is_given_when_it_ends_and_forgotten() {
    let mut transform = transform(json!({ "column": "flag", "time": "time" }));
    assert!(transform.process(&batch(&[(1, Some(1), 10), (1, Some(1), 11), (2, Some(0), 12)])).unwrap().is_empty(), "nothing has ended");
    assert_eq!(runs(&transform.process(&batch(&[(1, None, 13), (2, Some(1), 14), (1, Some(0), 15)])).unwrap()), [(1, 2, 15)]);
    assert!(transform.process(&batch(&[(1, Some(0), 16)])).unwrap().is_empty());
    assert!(transform.finish().unwrap().is_empty(), "the run of 2 has not ended");
}

#[test]
fn the_output_has_the_key_the_length_the_time_and_what_is_kept() {
    let columns = |config: Value| {
        let validation = transform(config).validate().unwrap();
        let (output, schema) = &validation.outputs[0];
        assert_eq!(output.mode, ChangeMode::Append);
        assert!(validation.details.requires_key);
        schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect::<Vec<_>>()
    };
    let named = |name: &str, data_type| (name.to_owned(), data_type);
    let (id, length) = (named("id", DataType::Int32), named("run_length", DataType::Int64));
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    assert_eq!(columns(json!({ "column": "flag" })), [id.clone(), length.clone()]);
    let kept = json!({ "column": "flag", "time": "time", "keep": ["flag", "time"] });
    assert_eq!(columns(kept.clone()), [id, length, named("end_time", time.clone()), named("flag", DataType::Int32), named("time", time)]);
    let out = transform(kept).process(&batch(&[(9, Some(1), 1), (9, Some(0), 2)])).unwrap();
    assert_eq!(out[0].column(4).as_primitive::<TimestampMillisecondType>().values()[..], [2]);
}

#[test]
fn booleans_and_numbers_are_flags() {
    let flags: [ArrayRef; 3] = [
        Arc::new(BooleanArray::from(vec![true, true, false])),
        Arc::new(Float64Array::from(vec![0.5, -1.0, -0.0])),
        Arc::new(Int64Array::from(vec![7, i64::MIN, 0])),
    ];
    for flags in flags {
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["a"; 3]));
        let batch = RecordBatch::try_from_iter([("key", keys), ("flag", flags)]).unwrap();
        let mut transform = Harness::transform::<RunLength>(json!({ "column": "flag" }), batch.schema()).keyed(&["key"]);
        let out = transform.process(&batch).unwrap();
        assert_eq!(out[0].column(1).as_primitive::<Int64Type>().values()[..], [2], "{}", batch.column(1).data_type());
    }
}

#[test]
fn wrong_values_are_named_with_their_path() {
    let problems = |config: Value| {
        let problems = transform(config).validate().unwrap().details.problems;
        problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>()
    };
    assert_eq!(
        problems(json!({ "column": "flg", "time": "id", "keep": ["tim"] })),
        [
            "column: the input has no column \"flg\"",
            "time: \"id\" has the type Int32, which is no timestamp",
            "keep[0]: the input has no column \"tim\"",
        ]
    );
    assert_eq!(
        problems(json!({ "column": "time" })),
        ["column: \"time\" has the type Timestamp(ms), which is neither a boolean nor a number"]
    );
    assert_eq!(problems(json!({ "column": "flag", "keep": ["id"] })), [": two columns of the output would be called \"id\""]);
}

#[test]
fn a_stream_of_changes_is_refused() {
    let details = InputDetails { name: "totals".to_owned(), mode: ChangeMode::Upsert, key: vec!["id".to_owned()], ..Default::default() };
    let upsert = transform(json!({ "column": "flag" })).with_inputs(vec![NodeInput { schema: batch(&[]).schema(), details }]);
    let problems = upsert.validate().unwrap().details.problems;
    assert!(problems[0].message.contains("totals changes rows"), "{problems:?}");
}
