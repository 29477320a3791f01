//! `pair-average` as the host runs it, with keyed state, against the obvious way to do it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, UInt64Array,
    cast::AsArray,
    types::{Float64Type, Int32Type, Int64Type},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use standpipe_sdk::testing::{Harness, TransformHarness};
use standpipe_transforms_examples::PairAverage;
use std::{collections::HashMap, sync::Arc};

/// (key, value)
type Row = (i32, Option<f64>);

fn batch(rows: &[Row]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0)));
    let values: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1)));
    RecordBatch::try_from_iter_with_nullable([("value", values, true), ("id", keys, true)]).unwrap()
}

fn transform(config: Value) -> TransformHarness {
    Harness::transform::<PairAverage>(config, batch(&[]).schema()).keyed(&["id"])
}

fn pairs(batches: &[RecordBatch]) -> Vec<(i32, f64)> {
    let rows = |batch: &RecordBatch| {
        let averages = batch.column(1).as_primitive::<Float64Type>().values().to_vec();
        batch.column(0).as_primitive::<Int32Type>().values().iter().copied().zip(averages).collect::<Vec<_>>()
    };
    batches.iter().flat_map(rows).collect()
}

fn naive(rows: &[Row], sliding: bool) -> Vec<(i32, f64)> {
    let mut seen: HashMap<i32, Vec<f64>> = HashMap::new();
    let mut pairs = Vec::new();
    for (key, value) in rows {
        let Some(value) = value else { continue };
        let values = seen.entry(*key).or_default();
        values.push(*value);
        if values.len() > 1 && (sliding || values.len().is_multiple_of(2)) {
            pairs.push((*key, values[values.len() - 2] / 2.0 + value / 2.0));
        }
    }
    pairs
}

proptest! {
    #[test]
    fn pairs_are_those_of_the_obvious_way_whatever_the_batches(
        rows in prop::collection::vec((0..4, prop::option::weighted(0.9, -9.0_f64..9.0)), 0..100),
        sizes in prop::collection::vec(1_usize..20, 1..20),
        sliding in any::<bool>(),
    ) {
        let mut transform = transform(json!({ "column": "value", "sliding": sliding }));
        let (mut found, mut rest) = (Vec::new(), &rows[..]);
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*size).min(rest.len()));
            found.extend(pairs(&transform.process(&batch(now)).unwrap()));
            rest = later;
        }
        prop_assert_eq!(found, naive(&rows, sliding));
    }
}

#[test]
fn numbers_of_any_type_make_pairs_and_large_ones_do_not_overflow() {
    let columns: [(ArrayRef, f64); 3] = [
        (Arc::new(Int64Array::from(vec![1, 2])), 1.5),
        (Arc::new(UInt64Array::from(vec![u64::MAX, u64::MAX])), u64::MAX as f64),
        (Arc::new(Float64Array::from(vec![f64::MAX, f64::MAX])), f64::MAX),
    ];
    for (values, average) in columns {
        let keys: ArrayRef = Arc::new(Int32Array::from(vec![7, 7]));
        let batch = RecordBatch::try_from_iter([("id", keys), ("value", values)]).unwrap();
        let config = json!({ "column": "value", "keep": ["value"] });
        let out = Harness::transform::<PairAverage>(config, batch.schema()).keyed(&["id"]).process(&batch).unwrap();
        assert_eq!(pairs(&out), [(7, average)], "{}", batch.column(1).data_type());
        assert_eq!(out[0].column(2), &batch.column(1).slice(1, 1), "what is kept is of the second row");
    }
}

#[test]
fn wrong_values_are_named_with_their_path() {
    let problems = |config: Value| {
        let problems = transform(config).validate().unwrap().details.problems;
        problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>()
    };
    assert_eq!(
        problems(json!({ "column": "valu", "keep": ["x"] })),
        ["column: the input has no column \"valu\"", "keep[0]: the input has no column \"x\""]
    );
    assert_eq!(problems(json!({ "column": "value", "keep": ["id"] })), [": two columns of the output would be called \"id\""]);
    let texts: ArrayRef = Arc::new(arrow_array::StringArray::from(vec!["a"]));
    let schema = RecordBatch::try_from_iter([("text", texts)]).unwrap().schema();
    let text = Harness::transform::<PairAverage>(json!({ "column": "text" }), schema).keyed(&["text"]).validate().unwrap();
    assert_eq!(text.details.problems[0].message, "\"text\" has the type Utf8, which is no number");
}

#[test]
fn int64_values_are_taken_as_they_are() {
    let keys: ArrayRef = Arc::new(Int32Array::from(vec![1; 4]));
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(10), None, Some(20), Some(5)]));
    let batch = RecordBatch::try_from_iter([("id", keys), ("value", values)]).unwrap();
    let mut transform = Harness::transform::<PairAverage>(json!({ "column": "value", "keep": ["value"] }), batch.schema()).keyed(&["id"]);
    let out = transform.process(&batch).unwrap();
    assert_eq!(pairs(&out), [(1, 15.0)]);
    assert_eq!(out[0].column(2).as_primitive::<Int64Type>().values()[..], [20]);
}
