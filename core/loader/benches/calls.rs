//! What loading and calling costs, one line per number: `cargo bench --profile ci -p standpipe-loader`, after the tests, which build the plugins. Directories given
//! as arguments (`-- target/ci`) are searched first, as the host does at its start.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a measurement")]

#[path = "../tests/common/mod.rs"]
mod common;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use common::{catalogue, context, example, input, keyed};
use serde_json::json;
use standpipe_loader::KeyedCall;
use standpipe_sdk::testing::{MemoryState, TestHost};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

/// The best of 50 rounds: the machine is shared.
fn best(calls: u32, mut call: impl FnMut()) -> Duration {
    let round = || {
        let begin = Instant::now();
        (0..calls).for_each(|_| call());
        begin.elapsed() / calls
    };
    std::iter::repeat_with(round).take(50).min().unwrap()
}

fn batch(columns: usize, rows: usize) -> RecordBatch {
    let column = |index: usize| -> (String, ArrayRef) {
        let values: ArrayRef = match index % 2 {
            0 => Arc::new((0..rows as i64).map(|row| (row % 10 != 0).then_some(row)).collect::<Int64Array>()),
            _ => Arc::new((0..rows).map(|row| Some(format!("value {row}"))).collect::<StringArray>()),
        };
        (format!("c{index}"), values)
    };
    RecordBatch::try_from_iter((0..columns).map(column)).unwrap()
}

fn main() {
    for directory in std::env::args().skip(1).filter(|argument| !argument.starts_with('-')) {
        let begin = Instant::now();
        let found = catalogue(&[directory.as_ref()]);
        println!("discover {directory}: {} plugins, {} failures, {:?}", found.plugins().len(), found.failures().len(), begin.elapsed());
    }
    for plugin in ["loader_fixture", "loader_other"] {
        let begin = Instant::now();
        let found = catalogue(&[&example(plugin)]);
        let elapsed = begin.elapsed();
        assert_eq!(found.plugins().len(), 1);
        let size = std::fs::metadata(example(plugin)).unwrap().len();
        println!("load {plugin} ({} KiB): {elapsed:?}", size >> 10);
        let begin = Instant::now();
        black_box(found.plugins()[0].hash());
        println!("hash {plugin}: {:?}", begin.elapsed());
    }
    let found = catalogue(&[&example("loader_other"), &example("loader_fixture")]);
    let host = Arc::new(TestHost::default());
    for (columns, rows) in [(1, 0), (1, 1), (5, 1), (5, 8192), (20, 8192)] {
        let batch = batch(columns, rows);
        let inputs = [input(&batch, &[])];
        let pass = found.transform("other_pass").unwrap();
        let mut pass = pass.instance(&json!({}), "n", &inputs, false, &context(), host.clone()).unwrap();
        pass.open().unwrap();
        let empty = best(2000, || drop(black_box(pass.on_watermark(0, 1).unwrap())));
        let both = best(500, || drop(black_box(pass.process(0, &batch, None).unwrap())));
        println!("{columns:>2} columns, {rows:>4} rows: empty call {empty:?}, there and back {both:?}");
    }
    let keys: Vec<String> = (0..8192).map(|row| format!("key {}", row % 100)).collect();
    let batch = keyed(&keys.iter().map(String::as_str).collect::<Vec<_>>(), &vec![1; 8192]);
    let count = found.transform("fixture_count").unwrap();
    let mut count = count.instance(&json!({}), "n", &[input(&batch, &["key"])], true, &context(), host).unwrap();
    count.open().unwrap();
    let mut state = MemoryState::new(count.states().to_vec());
    let mut spent = Duration::MAX;
    for _ in 0..20 {
        let grouped = state.begin(&batch.project(&[0]).unwrap());
        let begin = Instant::now();
        count.process(0, &batch, Some(KeyedCall { key_of_row: &grouped.key_of_row, keys: &grouped.keys, state: &mut state })).unwrap();
        spent = spent.min(begin.elapsed());
    }
    println!("keyed, 8192 rows, 100 keys, value state, a timer call per row: {spent:?}");
}
