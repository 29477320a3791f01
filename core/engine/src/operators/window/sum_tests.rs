//! Sums at the edge of their types, in windows and running: the total, or an error, never another number.

use super::one_key;
use arrow::array::{ArrayRef, AsArray, Decimal128Array, DurationMillisecondArray, Int64Array, UInt64Array};
use arrow::datatypes::{Decimal128Type, DurationMillisecondType, Int64Type, UInt64Type};
use datafusion_functions_aggregate::sum::sum_udaf;
use proptest::prelude::*;
use standpipe_pipeline::plan::RunningFunction;
use std::sync::Arc;

fn windowed(batches: &[ArrayRef], distinct: bool) -> Result<ArrayRef, String> {
    one_key::windowed(&sum_udaf(), batches, distinct)
}

fn running(batches: &[ArrayRef]) -> Result<ArrayRef, String> {
    one_key::running(RunningFunction::Sum, batches)
}

fn beyond(data_type: &str) -> String {
    format!("transforms.stats: total: the sum is beyond what {data_type} can hold")
}

/// Values at both ends of the type, so that a total often leaves it.
fn extremes() -> impl Strategy<Value = Vec<Vec<Option<i64>>>> {
    let value = prop_oneof![2 => any::<i64>(), 1 => Just(i64::MAX), 1 => Just(i64::MIN), 3 => -9_i64..10];
    prop::collection::vec(prop::collection::vec(prop::option::weighted(0.9, value), 1..5), 1..4)
}

proptest! {
    #[test]
    fn a_sum_is_right_or_an_error_with_and_without_a_window(batches in extremes()) {
        let mut truth = Some(0_i64);
        for value in batches.iter().flatten().flatten() {
            truth = truth.and_then(|total| total.checked_add(*value));
        }
        let seen = batches.iter().flatten().any(Option::is_some);
        let arrays: Vec<ArrayRef> = batches.iter().map(|batch| Arc::new(Int64Array::from(batch.clone())) as ArrayRef).collect();
        for found in [windowed(&arrays, false), running(&arrays)] {
            let found = found.map(|total| total.as_primitive::<Int64Type>().iter().next().flatten());
            prop_assert_eq!(found, truth.map(|total| seen.then_some(total)).ok_or_else(|| beyond("Int64")));
        }
    }

    #[test]
    fn a_distinct_sum_is_right_or_an_error_whatever_the_order(batches in extremes()) {
        let distinct: std::collections::BTreeSet<i64> = batches.iter().flatten().flatten().copied().collect();
        let truth: i128 = distinct.iter().copied().map(i128::from).sum();
        let truth = i64::try_from(truth).map(|total| (!distinct.is_empty()).then_some(total)).map_err(|_| beyond("Int64"));
        let arrays: Vec<ArrayRef> = batches.iter().map(|batch| Arc::new(Int64Array::from(batch.clone())) as ArrayRef).collect();
        let found = windowed(&arrays, true).map(|total| total.as_primitive::<Int64Type>().iter().next().flatten());
        prop_assert_eq!(found, truth);
    }
}

#[test]
fn unsigned_integers_decimals_and_durations_do_not_wrap_either() {
    let unsigned = |values: &[u64]| vec![Arc::new(UInt64Array::from(values.to_vec())) as ArrayRef];
    for distinct in [false, true] {
        let total = windowed(&unsigned(&[u64::MAX - 1, 1]), distinct).unwrap();
        assert_eq!(total.as_primitive::<UInt64Type>().value(0), u64::MAX);
        assert_eq!(windowed(&unsigned(&[u64::MAX, 1]), distinct).unwrap_err(), beyond("UInt64"));
    }

    let most = 10_i128.pow(38) - 1;
    let decimals = |values: &[i128]| {
        let array = Decimal128Array::from(values.to_vec()).with_precision_and_scale(38, 0).unwrap();
        vec![Arc::new(array) as ArrayRef]
    };
    assert_eq!(windowed(&decimals(&[most - 1, 1]), false).unwrap().as_primitive::<Decimal128Type>().value(0), most);
    for values in [[most, 1], [-most, -1]] {
        assert_eq!(windowed(&decimals(&values), false).unwrap_err(), beyond("Decimal128(38, 0)"));
    }

    let durations = |values: &[i64]| vec![Arc::new(DurationMillisecondArray::from(values.to_vec())) as ArrayRef];
    assert_eq!(windowed(&durations(&[i64::MAX - 5, 5]), false).unwrap().as_primitive::<DurationMillisecondType>().value(0), i64::MAX);
    assert_eq!(windowed(&durations(&[i64::MAX, 1]), false).unwrap_err(), beyond("Duration(ms)"));
}
