//! For tests: one aggregate over batches of values of one key, in a window and running.

use super::*;
use crate::operators::{aggregate::Aggregate, testing};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion_expr::AggregateUDF;
use datafusion_physical_expr::{aggregate::AggregateExprBuilder, expressions::col};
use standpipe_pipeline::plan::{AggregateNode, Emit, Folding, RunningAggregate, RunningFunction, WindowAggregate};
use std::time::Duration;

const EVERYTHING: KeyGroupRange = KeyGroupRange { start: 0, end: testing::GROUPS as u16 };

/// Rows of one window, all of one key.
fn batch(values: ArrayRef) -> RecordBatch {
    let times: ArrayRef = Arc::new(arrow::array::TimestampMillisecondArray::from(vec![1; values.len()]));
    RecordBatch::try_from_iter_with_nullable([("ts", times, false), ("v", values, true)]).unwrap()
}

fn window(input: &SchemaRef, function: &Arc<AggregateUDF>, distinct: bool) -> Window {
    let call = AggregateExprBuilder::new(Arc::clone(function), vec![col("v", input).unwrap()]).schema(Arc::clone(input)).alias("total");
    let function = Arc::new(call.with_distinct(distinct).build().unwrap());
    let total = function.field().as_ref().clone().with_name("total");
    let time = Field::new("window_start", DataType::Timestamp(TimeUnit::Millisecond, None), false);
    let output = Schema::new(vec![time.clone(), time.with_name("window_end"), total]);
    let node = WindowNode {
        keys: vec![],
        time: 0,
        assigner: WindowAssigner::Tumbling { size: Duration::from_secs(1), offset: Duration::ZERO },
        allowed_lateness: Duration::ZERO,
        aggregates: vec![WindowAggregate { name: "total".to_owned(), function, state: None, text: String::new() }],
    };
    Window::new("transforms.stats", &node, input, Arc::new(output), &testing::settings()).unwrap()
}

/// The aggregate over some batches, with a snapshot and a restore between them.
pub(super) fn windowed(function: &Arc<AggregateUDF>, batches: &[ArrayRef], distinct: bool) -> Result<ArrayRef, String> {
    let input = batch(Arc::clone(&batches[0])).schema();
    let mut out = Emitter::default();
    let mut run = || -> Result<(), OperatorError> {
        let mut operator = window(&input, function, distinct);
        for values in batches {
            operator.on_batch(0, batch(Arc::clone(values)), &mut out)?;
            let snapshot = operator.snapshot(Cut::ALONE)?;
            operator = window(&input, function, distinct);
            operator.restore(&[snapshot], EVERYTHING)?;
        }
        operator.on_watermark(0, END, &mut out)
    };
    run().map_err(|error| error.to_string())?;
    Ok(Arc::clone(out.drain().next().unwrap().1.column(2)))
}

/// The running aggregate after the last row.
pub(super) fn running(function: RunningFunction, batches: &[ArrayRef]) -> Result<ArrayRef, String> {
    let input = batch(Arc::clone(&batches[0])).schema();
    let data_type = batches[0].data_type().clone();
    let arguments = vec![col("v", &input).unwrap()];
    let function = Folding::BuiltIn(function);
    let total = RunningAggregate { name: "total".to_owned(), function, arguments, data_type: data_type.clone(), text: String::new() };
    let node = AggregateNode { keys: vec![], emit: Emit::Final, aggregates: vec![total] };
    let output = Arc::new(Schema::new(vec![Field::new("total", data_type, true)]));
    let mut operator = Aggregate::new("transforms.stats", &node, &input, output, &testing::settings()).unwrap();
    let mut out = Emitter::default();
    for values in batches {
        operator.on_batch(0, batch(Arc::clone(values)), &mut out).map_err(|error| error.to_string())?;
    }
    operator.on_watermark(0, END, &mut out).map_err(|error| error.to_string())?;
    Ok(Arc::clone(out.drain().next().unwrap().1.column(0)))
}
