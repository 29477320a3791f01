//! `running-sum` as the host runs it, with reducing state, against the obvious way to do it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{
    Array, ArrayRef, Decimal128Array, Float64Array, Int16Array, Int64Array, RecordBatch, StringArray, UInt64Array,
    cast::AsArray,
    types::{Decimal128Type, Float64Type, Int64Type, UInt64Type},
};
use arrow_schema::DataType;
use proptest::prelude::*;
use serde_json::{Value, json};
use standpipe_sdk::testing::{Harness, TransformHarness};
use standpipe_transforms_examples::RunningSum;
use std::{collections::HashMap, sync::Arc};

fn batch(keys: &[&str], values: ArrayRef) -> RecordBatch {
    let keys: ArrayRef = Arc::new(StringArray::from(keys.to_vec()));
    RecordBatch::try_from_iter_with_nullable([("team", keys, true), ("amount", values, true)]).unwrap()
}

fn transform(batch: &RecordBatch) -> TransformHarness {
    Harness::transform::<RunningSum>(json!({ "column": "amount", "output": "total" }), batch.schema()).keyed(&["team"])
}

fn decimals(values: Vec<Option<i128>>) -> ArrayRef {
    Arc::new(Decimal128Array::from(values).with_precision_and_scale(10, 2).unwrap())
}

proptest! {
    #[test]
    fn sums_are_those_of_the_obvious_way_whatever_the_batches(
        rows in prop::collection::vec((0_usize..3, prop::option::weighted(0.9, -999_i128..999)), 1..60),
        size in 1_usize..20,
    ) {
        let names = ["a", "b", "c"];
        let mut sums: HashMap<usize, Option<i128>> = HashMap::new();
        let mut transform = transform(&batch(&[], decimals(vec![])));
        for rows in rows.chunks(size) {
            let keys: Vec<&str> = rows.iter().map(|(key, _)| names[*key]).collect();
            let out = transform.process(&batch(&keys, decimals(rows.iter().map(|(_, value)| *value).collect()))).unwrap();
            let found: Vec<Option<i128>> = out[0].column(2).as_primitive::<Decimal128Type>().iter().collect();
            let expected: Vec<Option<i128>> = rows.iter().map(|(key, value)| {
                let sum = sums.entry(*key).or_default();
                *sum = match (*sum, value) {
                    (Some(sum), Some(value)) => Some(sum + value),
                    (sum, value) => sum.or(*value),
                };
                *sum
            }).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn the_type_of_the_sum_follows_from_the_column() {
    let columns: [(ArrayRef, DataType); 4] = [
        (Arc::new(Int16Array::from(vec![i16::MAX; 2])), DataType::Int64),
        (Arc::new(UInt64Array::from(vec![1; 2])), DataType::UInt64),
        (Arc::new(Float64Array::from(vec![0.5; 2])), DataType::Float64),
        (decimals(vec![Some(1); 2]), DataType::Decimal128(38, 2)),
    ];
    for (values, data_type) in columns {
        let batch = batch(&["a", "a"], values);
        let out = transform(&batch).process(&batch).unwrap();
        assert_eq!((out[0].num_columns(), out[0].column(2).data_type()), (3, &data_type));
        assert_eq!(out[0].schema().field(2).name(), "total");
    }
    let ints = batch(&["a", "a"], Arc::new(Int16Array::from(vec![i16::MAX; 2])));
    let out = transform(&ints).process(&ints).unwrap();
    assert_eq!(out[0].column(2).as_primitive::<Int64Type>().values()[..], [32_767, 65_534]);
}

#[test]
fn a_sum_that_does_not_fit_is_an_error_that_names_column_and_key_and_changes_nothing() {
    let most = 10_i128.pow(38) - 1;
    let decimal = |value: i128| -> ArrayRef { Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(38, 2).unwrap()) };
    let columns: [(ArrayRef, ArrayRef, &str); 5] = [
        (Arc::new(Int64Array::from(vec![i64::MAX])), Arc::new(Int64Array::from(vec![1])), "Int64"),
        (Arc::new(Int64Array::from(vec![i64::MIN])), Arc::new(Int64Array::from(vec![-1])), "Int64"),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), Arc::new(UInt64Array::from(vec![1])), "UInt64"),
        (Arc::new(Float64Array::from(vec![f64::MAX])), Arc::new(Float64Array::from(vec![f64::MAX])), "Float64"),
        (decimal(most), decimal(1), "Decimal128(38, 2)"),
    ];
    for (first, second, data_type) in columns {
        let first = batch(&["Blue"], first);
        let mut transform = transform(&first);
        transform.process(&first).unwrap();
        let error = transform.process(&batch(&["Blue"], second)).unwrap_err().to_string();
        assert!(error.contains(&format!("the sum of \"amount\" for the key (Blue) is more than {data_type} holds")), "{error}");
    }
}

#[test]
fn null_is_no_zero() {
    let batch = batch(&["a", "a", "b", "a"], Arc::new(UInt64Array::from(vec![None, Some(3), None, None])));
    let out = transform(&batch).process(&batch).unwrap();
    assert_eq!(out[0].column(2).as_primitive::<UInt64Type>().iter().collect::<Vec<_>>(), [None, Some(3), None, Some(3)]);
    assert_eq!(out[0].columns()[..2], batch.columns()[..]);
}

#[test]
fn wrong_values_are_named_with_their_path() {
    let problems = |config: Value| {
        let harness = Harness::transform::<RunningSum>(config, batch(&[], Arc::new(Float64Array::from(Vec::<f64>::new()))).schema());
        let problems = harness.keyed(&["team"]).validate().unwrap().details.problems;
        problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>()
    };
    assert_eq!(
        problems(json!({ "column": "team", "output": "amount" })),
        [
            "column: \"team\" has the type Utf8; the sum is of whole numbers, decimals of up to 38 digits or floats",
            "output: the input has a column \"amount\" already"
        ]
    );
    assert_eq!(problems(json!({ "column": "amont" })), ["column: the input has no column \"amont\""]);
}

#[test]
fn infinity_stays_infinity() {
    let batch = batch(&["a", "a"], Arc::new(Float64Array::from(vec![f64::INFINITY, 1.0])));
    let out = transform(&batch).process(&batch).unwrap();
    assert_eq!(out[0].column(2).as_primitive::<Float64Type>().values()[..], [f64::INFINITY, f64::INFINITY]);
}
