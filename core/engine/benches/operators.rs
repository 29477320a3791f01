//! Rows per second of the keyed operators alone, on one core: `cargo bench -p standpipe-engine --bench operators`. Prints, asserts nothing about speed; each figure
//! is the best of some rounds, as the machine may be busy. The numbers of a run with `W` are those of the workloads in `benches/` at the root.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark has nobody to answer to")]

use arrow::{
    array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use datafusion_functions_aggregate::{average::avg_udaf, count::count_udaf, min_max};
use datafusion_physical_expr::{
    PhysicalExpr,
    aggregate::AggregateExprBuilder,
    expressions::{col, lit},
};
use standpipe_engine::{
    exchange::Splitter,
    operator::{Emitter, Operator},
    operators::{aggregate::Aggregate, window::Window},
};
use standpipe_pipeline::plan::{
    AggregateNode, Emit, Folding, JobSettings, RunningAggregate, RunningFunction, WindowAggregate, WindowAssigner, WindowNode,
};
use standpipe_state::{Cut, EncodedKeys, KeyIndex};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

const BATCH: usize = 8192;
const BATCHES: usize = 256;
const ROUNDS: usize = 7;

fn settings() -> JobSettings {
    JobSettings {
        parallelism: 1,
        max_parallelism: 128,
        batch_rows: BATCH as u32,
        in_flight_bytes: 64 << 20,
        flush_interval: Duration::from_millis(10),
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("host", DataType::Utf8, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("value", DataType::Float64, false),
    ]))
}

/// Batches of one row per millisecond and `rate`, keys in no order.
fn batches(keys: u64, rows_per_milli: usize) -> Vec<RecordBatch> {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let batch = |at: usize| {
        let hosts = StringArray::from_iter_values((0..BATCH).map(|_| format!("host-{:05}", next() % keys)));
        let times = TimestampMillisecondArray::from_iter_values((0..BATCH).map(|row| ((at * BATCH + row) / rows_per_milli) as i64));
        let values = Float64Array::from_iter_values((0..BATCH).map(|row| (row % 1000) as f64));
        let columns: Vec<ArrayRef> = vec![Arc::new(hosts), Arc::new(times), Arc::new(values)];
        RecordBatch::try_new(schema(), columns).unwrap()
    };
    (0..BATCHES).map(batch).collect()
}

/// The best of some rounds over all batches.
fn measure(name: &str, mut round: impl FnMut()) {
    let best = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        round();
        begin.elapsed()
    });
    let best = best.min().unwrap_or_default().as_secs_f64();
    let rows = (BATCH * BATCHES) as f64;
    println!("{name:<52} {:>7.1} M rows/s {:>7.1} ns/row", rows / best / 1e6, best * 1e9 / rows);
}

fn windowed(name: &str, function: Arc<datafusion_expr::AggregateUDF>, argument: Arc<dyn PhysicalExpr>) -> WindowAggregate {
    let function = AggregateExprBuilder::new(function, vec![argument]).schema(schema()).alias(name).build().unwrap();
    WindowAggregate { name: name.to_owned(), function: Arc::new(function), state: None, text: String::new() }
}

fn window() -> Window {
    let value = || col("value", &schema()).unwrap();
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let node = WindowNode {
        keys: vec![0],
        time: 1,
        assigner: WindowAssigner::Tumbling { size: Duration::from_secs(10), offset: Duration::ZERO },
        allowed_lateness: Duration::ZERO,
        aggregates: vec![
            windowed("n", count_udaf(), lit(1_i64)),
            windowed("mean", avg_udaf(), value()),
            windowed("low", min_max::min_udaf(), value()),
            windowed("high", min_max::max_udaf(), value()),
        ],
    };
    let mut fields =
        vec![schema().field(0).clone(), Field::new("window_start", time.clone(), false), Field::new("window_end", time, false)];
    fields.push(Field::new("n", DataType::Int64, false));
    fields.extend(["mean", "low", "high"].map(|name| Field::new(name, DataType::Float64, true)));
    Window::new("transforms.stats", &node, &schema(), Arc::new(Schema::new(fields)), &settings()).unwrap()
}

/// Sum and maximum per host.
fn totals(emit: Emit) -> Aggregate {
    let value = || vec![col("value", &schema()).unwrap()];
    let running = |name: &str, function| RunningAggregate {
        name: name.to_owned(),
        function: Folding::BuiltIn(function),
        arguments: value(),
        data_type: DataType::Float64,
        text: String::new(),
    };
    let node = AggregateNode {
        keys: vec![0],
        emit,
        aggregates: vec![running("total", RunningFunction::Sum), running("high", RunningFunction::Max)],
    };
    let mut fields = vec![schema().field(0).clone()];
    fields.extend(["total", "high"].map(|name| Field::new(name, DataType::Float64, true)));
    Aggregate::new("transforms.totals", &node, &schema(), Arc::new(Schema::new(fields)), &settings()).unwrap()
}

fn run(mut operator: impl Operator, batches: &[RecordBatch]) {
    let mut out = Emitter::default();
    for batch in batches {
        let highest = batch.column(1).as_any().downcast_ref::<TimestampMillisecondArray>().unwrap().values()[BATCH - 1];
        operator.on_batch(0, batch.clone(), &mut out).unwrap();
        operator.on_watermark(0, (highest - 1000) * 1000, &mut out).unwrap();
        black_box(out.drain().count());
    }
    operator.on_watermark(0, i64::MAX, &mut out).unwrap();
    black_box(out.drain().count());
}

fn main() {
    let w2 = batches(5000, 100);
    let w4 = batches(1000, 100);
    let wide = batches(100_000, 100);

    let mut keys = EncodedKeys::new();
    measure("encode and hash one string key", || w2.iter().for_each(|batch| keys.encode(black_box(&batch.columns()[..1]), BATCH).unwrap()));
    measure("encode and hash a string and a time", || {
        w2.iter().for_each(|batch| keys.encode(black_box(&batch.columns()[..2]), BATCH).unwrap())
    });
    for (name, batches) in [("1,000", &w4), ("5,000", &w2), ("100,000", &wide)] {
        let mut index = KeyIndex::new(vec![DataType::Utf8]).unwrap();
        let mut ids = Vec::new();
        measure(&format!("encode, hash and number keys, {name} keys"), || {
            for batch in batches {
                keys.encode(&batch.columns()[..1], BATCH).unwrap();
                index.intern(&keys, &mut ids).unwrap();
                black_box(&ids);
            }
        });
    }
    for parallelism in [2, 4, 16, 64] {
        let mut splitter = Splitter::new("transforms.stats", &schema(), &[0], 128, parallelism).unwrap();
        measure(&format!("split by key over {parallelism} subtasks"), || {
            w2.iter().for_each(|batch| splitter.split(batch.clone(), |subtask, part| drop(black_box((subtask, part)))).unwrap());
        });
    }
    measure("W2: window, 5,000 keys, count avg min max", || run(window(), &w2));
    measure("window, 100,000 keys", || run(window(), &wide));
    measure("W4: running sum and max, 1,000 keys, emit each", || run(totals(Emit::Each), &w4));
    measure("running sum and max, 1,000 keys, emit final", || run(totals(Emit::Final), &w4));
    let mut snapshots = window();
    let mut out = Emitter::default();
    w2.iter().for_each(|batch| snapshots.on_batch(0, batch.clone(), &mut out).unwrap());
    let keys = 5000 * (BATCH * BATCHES / 100 / 10_000 + 1);
    let begin = Instant::now();
    black_box(snapshots.snapshot(Cut::ALONE).unwrap());
    println!("snapshot of {keys} keys in windows: {:.1} ns/key", begin.elapsed().as_secs_f64() * 1e9 / keys as f64);
}
