//! The source as the host runs it: splits, positions, the end, the rate. What the columns hold is tested in `columns`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use arrow_array::{RecordBatch, cast::AsArray, types::Int64Type};
use serde_json::{Value, json};
use standpipe_connector_generator::GeneratorSource;
use standpipe_sdk::{
    hosting::Polled,
    testing::{Harness, SourceHarness},
    wire::Encoding,
};
use std::time::{Duration, Instant};

fn source(config: Value) -> SourceHarness {
    Harness::source::<GeneratorSource>(config)
}

fn numbered(more: Value) -> SourceHarness {
    let mut config = json!({ "fields": { "n": { "kind": "sequence" }, "x": { "kind": "uniform-int", "min": 0, "max": 999 } } });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    source(config)
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[test]
fn count_rows_come_whatever_the_number_of_splits() {
    for splits in [1, 2, 3, 7] {
        let mut source = numbered(json!({ "count": 5_003, "splits": splits }));
        let mut all = numbers(&source.read_all().unwrap());
        all.sort_unstable();
        assert_eq!(all, (0..5_003).collect::<Vec<_>>());
        assert_eq!(source.positions().len(), splits);
    }
    assert!(numbered(json!({ "count": 0 })).read_all().unwrap().is_empty());
    assert_eq!(numbers(&numbered(json!({ "count": 1, "splits": 4 })).read_all().unwrap()), [0], "splits may be empty");
}

#[test]
fn splits_advance_together() {
    let mut source = numbered(json!({ "splits": 3 }));
    source.assign().unwrap();
    let mut highest = 0;
    for _ in 0..30 {
        let Polled::Batch { batch, .. } = source.poll(100).unwrap() else { panic!("it never ends") };
        let numbers = numbers(&[batch]);
        assert!(numbers[0] <= highest + 3 * 100, "{} after {highest}", numbers[0]);
        highest = highest.max(*numbers.last().unwrap());
    }
}

#[test]
fn a_restart_gives_the_same_rows() {
    let config = json!({ "count": 3_000, "splits": 2, "seed": 5 });
    let whole = numbered(config.clone()).read_all().unwrap();
    let mut source = numbered(config);
    source.assign().unwrap();
    let mut all = Vec::new();
    for _ in 0..3 {
        let Polled::Batch { batch, .. } = source.poll(333).unwrap() else { panic!("there are rows") };
        all.push(batch);
    }
    source.restart();
    all.extend(source.read_all().unwrap());
    let rows = |batches: &[RecordBatch]| {
        let mut rows: Vec<(i64, i64)> = numbers(batches)
            .into_iter()
            .zip(batches.iter().flat_map(|b| b.column(1).as_primitive::<Int64Type>().values().to_vec()))
            .collect();
        rows.sort_unstable();
        rows
    };
    assert_eq!(rows(&all), rows(&whole));
}

#[test]
fn now_is_the_time_of_the_first_start() {
    let config = json!({ "preset": "signal", "count": 3, "start": "now", "step": "1s" });
    let mut first = source(config.clone());
    first.host.set_now(1_700_000_000_000_000);
    let batch = first.read_all().unwrap().remove(0);
    assert_eq!(batch.column(0).as_string::<i32>().value(2), "2023-11-14 22:13:22");
    let snapshot = first.enumerator().unwrap().snapshot().unwrap();
    let mut second = source(config);
    second.host.set_now(1_800_000_000_000_000);
    second.enumerator().unwrap().restore(&snapshot).unwrap();
    assert_eq!(second.read_all().unwrap(), [batch]);
}

#[test]
fn rows_come_at_the_rate() {
    let mut source = numbered(json!({ "rate": 1_000, "count": 200 }));
    source.assign().unwrap();
    let (begin, mut rows, mut batches) = (Instant::now(), 0, 0);
    loop {
        match source.reader().unwrap().poll(1_024, 1 << 20, Duration::from_millis(100)).unwrap() {
            Polled::Batch { batch, .. } => {
                rows += batch.num_rows();
                batches += 1;
                assert!(rows as f64 <= begin.elapsed().as_secs_f64() * 1_000.0 + 1.0, "{rows} rows after {:?}", begin.elapsed());
            }
            Polled::EndOfSplit(_) => break,
            Polled::Idle => {}
        }
    }
    assert_eq!(rows, 200);
    assert!(begin.elapsed() >= Duration::from_millis(199) && batches <= 25, "{:?}, {batches} batches", begin.elapsed());
}

#[test]
fn a_batch_is_no_larger_than_asked_for() {
    let mut source = numbered(json!({}));
    source.assign().unwrap();
    let mut rows = |max_rows, max_bytes| match source.reader().unwrap().poll(max_rows, max_bytes, Duration::ZERO).unwrap() {
        Polled::Batch { batch, .. } => batch.num_rows(),
        other => panic!("{other:?}"),
    };
    assert_eq!(rows(77, u64::MAX), 77);
    assert_eq!(rows(1_000, 1_600), 100, "two columns of 8 bytes");
    assert_eq!(rows(1_000, 1), 1);
}

#[test]
fn a_split_can_be_given_back_and_paused() {
    let mut source = numbered(json!({ "splits": 2 }));
    source.assign().unwrap();
    let id = "0".to_owned();
    source.reader().unwrap().pause(std::slice::from_ref(&id)).unwrap();
    assert!((0..3).all(|_| matches!(source.poll(5).unwrap(), Polled::Batch { split, .. } if split == "1")));
    source.reader().unwrap().resume(std::slice::from_ref(&id)).unwrap();
    assert!(matches!(source.poll(5).unwrap(), Polled::Batch { split, .. } if split == "0"), "it is behind");
    assert_eq!(source.reader().unwrap().unassign(&["1".to_owned(), id]).unwrap(), [b"15".to_vec(), b"5".to_vec()]);
    assert!(matches!(source.poll(5).unwrap(), Polled::Idle));
}

#[test]
fn it_declares_what_it_gives() {
    let bounded = numbered(json!({ "count": 1 })).validate().unwrap();
    assert_eq!(bounded.details.encoding, Encoding::Rows);
    assert!(bounded.details.capabilities.bounded && bounded.details.capabilities.replayable);
    assert!(!numbered(json!({})).validate().unwrap().details.capabilities.bounded);
    assert_eq!(bounded.schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["n", "x"]);
    let wrong = numbered(json!({ "rate": -1, "splits": 0 })).validate().unwrap().details.problems;
    assert_eq!(wrong.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["rate", "splits"]);
    let unknown = source(json!({ "preset": "signals" })).validate().unwrap().details.problems;
    assert!(unknown.iter().any(|problem| problem.path == "preset"), "{unknown:?}");
}
