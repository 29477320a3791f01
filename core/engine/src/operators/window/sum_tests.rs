//! Sums at the edge of their types, in windows and running: the total, or an error, never another number.

use super::*;
use crate::operators::aggregate::Aggregate;
use arrow::array::{AsArray, Decimal128Array, DurationMillisecondArray, TimestampMillisecondArray, UInt64Array};
use arrow::datatypes::{DataType, Decimal128Type, DurationMillisecondType, Field, Int64Type, Schema, TimeUnit, UInt64Type};
use datafusion_functions_aggregate::sum::sum_udaf;
use datafusion_physical_expr::{aggregate::AggregateExprBuilder, expressions::col};
use proptest::prelude::*;
use standpipe_pipeline::plan::{AggregateNode, Emit, RunningAggregate, RunningFunction, WindowAggregate};
use std::time::Duration;

const EVERYTHING: KeyGroupRange = KeyGroupRange { start: 0, end: 8 };

/// Rows of one window, all of one key.
fn batch(values: ArrayRef) -> RecordBatch {
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1; values.len()]));
    RecordBatch::try_from_iter_with_nullable([("ts", times, false), ("v", values, true)]).unwrap()
}

fn window(input: &SchemaRef, distinct: bool) -> Window {
    let call = AggregateExprBuilder::new(sum_udaf(), vec![col("v", input).unwrap()]).schema(Arc::clone(input)).alias("total");
    let function = Arc::new(call.with_distinct(distinct).build().unwrap());
    let total = function.field().as_ref().clone().with_name("total");
    let time = Field::new("window_start", DataType::Timestamp(TimeUnit::Millisecond, None), false);
    let output = Schema::new(vec![time.clone(), time.with_name("window_end"), total]);
    let node = WindowNode {
        keys: vec![],
        time: 0,
        assigner: WindowAssigner::Tumbling { size: Duration::from_secs(1), offset: Duration::ZERO },
        allowed_lateness: Duration::ZERO,
        aggregates: vec![WindowAggregate { name: "total".to_owned(), function, text: String::new() }],
    };
    Window::new("transforms.stats", &node, input, Arc::new(output), 8).unwrap()
}

/// The total over some batches, with a snapshot and a restore between them.
fn windowed(batches: &[ArrayRef], distinct: bool) -> Result<ArrayRef, String> {
    let input = batch(Arc::clone(&batches[0])).schema();
    let mut out = Emitter::default();
    let mut run = || -> Result<(), OperatorError> {
        let mut operator = window(&input, distinct);
        for values in batches {
            operator.on_batch(0, batch(Arc::clone(values)), &mut out)?;
            let snapshot = operator.snapshot()?;
            operator = window(&input, distinct);
            operator.restore(&[snapshot], EVERYTHING)?;
        }
        operator.on_watermark(0, END, &mut out)
    };
    run().map_err(|error| error.to_string())?;
    Ok(Arc::clone(out.drain().next().unwrap().1.column(2)))
}

/// The running total after the last row.
fn running(batches: &[ArrayRef]) -> Result<ArrayRef, String> {
    let input = batch(Arc::clone(&batches[0])).schema();
    let data_type = batches[0].data_type().clone();
    let total = RunningAggregate {
        name: "total".to_owned(),
        function: RunningFunction::Sum,
        argument: Some(col("v", &input).unwrap()),
        data_type: data_type.clone(),
        text: String::new(),
    };
    let node = AggregateNode { keys: vec![], emit: Emit::Final, aggregates: vec![total] };
    let output = Arc::new(Schema::new(vec![Field::new("total", data_type, true)]));
    let mut operator = Aggregate::new("transforms.stats", &node, &input, output, 8).unwrap();
    let mut out = Emitter::default();
    for values in batches {
        operator.on_batch(0, batch(Arc::clone(values)), &mut out).map_err(|error| error.to_string())?;
    }
    operator.on_watermark(0, END, &mut out).map_err(|error| error.to_string())?;
    Ok(Arc::clone(out.drain().next().unwrap().1.column(0)))
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
