//! `flag` as the host runs it. The expected values come from `examples/truth.py`, which has the definition a second time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{ArrayRef, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, UInt64Array, cast::AsArray, types::Int32Type};
use serde_json::{Value, json};
use standpipe_sdk::{ErrorCode, testing::Harness};
use standpipe_transforms_examples::{Flag, flag::flag_of};
use std::sync::Arc;

fn input(partition: ArrayRef, offset: ArrayRef) -> RecordBatch {
    let name: ArrayRef = Arc::new(StringArray::from_iter_values((0..offset.len()).map(|row| row.to_string())));
    RecordBatch::try_from_iter_with_nullable([("name", name, true), ("partition", partition, true), ("offset", offset, true)]).unwrap()
}

fn flags(config: Value, input: &RecordBatch) -> Vec<i32> {
    let out = Harness::transform::<Flag>(config, input.schema()).process(input).unwrap();
    assert_eq!(out[0].columns()[..input.num_columns()], *input.columns(), "the other columns stay as they are");
    out[0].column(input.num_columns()).as_primitive::<Int32Type>().values().to_vec()
}

#[test]
fn flags_are_the_documented_hash() {
    // python3 -c 'from truth import flag; print([flag(7, 0, n) for n in range(16)]); print([flag(7, p, n) for p in (3, -1) for n in (5, 1 << 40)])'
    let from_python = [0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1];
    let found: Vec<i32> = (0..16).map(|offset| flag_of(7, 0, offset)).collect();
    assert_eq!(found, from_python);
    let found: Vec<i32> =
        [(3, 5), (3, 1 << 40), (-1, 5), (-1, 1 << 40)].into_iter().map(|(partition, offset)| flag_of(7, partition, offset)).collect();
    assert_eq!(found, [1, 1, 0, 1]);
}

#[test]
fn a_flag_depends_on_seed_partition_and_offset_alone() {
    let partitions: ArrayRef = Arc::new(Int32Array::from_iter_values((0..1_000).map(|row| row % 5)));
    let offsets: ArrayRef = Arc::new(Int64Array::from_iter_values((0..1_000).map(|row| row * 17)));
    let all = input(partitions, offsets);
    let config = json!({ "seed": 7, "partition": "partition" });
    let found = flags(config.clone(), &all);
    let expected: Vec<i32> = (0..1_000).map(|row| flag_of(7, row % 5, row * 17)).collect();
    assert_eq!(found, expected);
    assert_eq!(flags(config, &all.slice(300, 40)), expected[300..340]);
    assert!((450..550).contains(&found.iter().sum::<i32>()), "about as many as not: {}", found.iter().sum::<i32>());
    assert_ne!(flags(json!({ "seed": 8, "partition": "partition" }), &all), expected);
    assert_eq!(flags(json!({ "seed": 7 }), &all), (0..1_000).map(|row| flag_of(7, 0, row * 17)).collect::<Vec<_>>());
}

#[test]
fn integers_of_any_width_will_do() {
    let narrow = input(Arc::new(Int16Array::from(vec![-1, 2])), Arc::new(UInt64Array::from(vec![u64::MAX, 3])));
    assert_eq!(flags(json!({ "seed": 1, "partition": "partition" }), &narrow), [flag_of(1, -1, -1), flag_of(1, 2, 3)]);
}

#[test]
fn a_row_without_a_place_is_an_error() {
    let broken = input(Arc::new(Int32Array::from(vec![1, 1])), Arc::new(Int64Array::from(vec![Some(1), None])));
    let error = Harness::transform::<Flag>(json!({}), broken.schema()).process(&broken).unwrap_err();
    assert_eq!(error.code, ErrorCode::DATA);
    assert!(error.to_string().contains("column \"offset\" is null"), "{error}");
}

#[test]
fn wrong_values_are_named_with_their_path() {
    let input = input(Arc::new(Int32Array::from(vec![1])), Arc::new(Int64Array::from(vec![1])));
    let problems = |config: Value| {
        let problems = Harness::transform::<Flag>(config, input.schema()).validate().unwrap().details.problems;
        problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>()
    };
    assert_eq!(
        problems(json!({ "partition": "partitoin", "offset": "name" })),
        ["partition: the input has no column \"partitoin\"", "offset: \"name\" has the type Utf8, which is no integer",]
    );
    assert_eq!(problems(json!({ "output": "name" })), ["output: the input has a column \"name\" already"]);
}
