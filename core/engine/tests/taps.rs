//! Looks at the rows of a job that runs: every node's, of every subtask, without holding it up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
};
use serde_json::json;
use standpipe_engine::{JobHandle, Keep, Outcome, RunOptions, Tap, TapError, Tapped};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use support::{
    PATIENCE, ended,
    over::start_over,
    plan::{Builder, config},
    plugins::Probe,
    start,
};

const ALL: Keep = Keep { rows: 100_000, newest: false };

fn numbers(batches: &[RecordBatch], column: &str) -> Vec<i64> {
    let values = |batch: &RecordBatch| batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec();
    batches.iter().flat_map(values).collect()
}

/// Looks until that many rows have come.
fn look(tap: &Tap, rows: usize) -> Vec<RecordBatch> {
    let (begin, mut seen) = (Instant::now(), Vec::new());
    while seen.iter().map(RecordBatch::num_rows).sum::<usize>() < rows {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {rows} rows");
        let taken: Tapped = tap.take(rows, Duration::from_millis(100));
        assert!(!taken.ended, "it has ended before there were {rows} rows");
        seen.extend(taken.batches);
    }
    seen
}

/// Source, a fused filter, a plugin's transform, a window, and two sinks.
fn job(name: &str, rate: u64, rows: Option<u64>) -> Builder {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 2, config(name, json!({"splits": 2, "rows": rows, "rate": rate})));
    let some = plan.filter("some", source, 1_000_000_000);
    let same = plan.filter("same", some, 0);
    let pass = plan.pass("pass", 1, same, json!({}), false);
    let stats = plan.window("stats", 2, pass, Duration::from_millis(100));
    plan.collect("out", 1, stats, config(name, json!({})));
    plan.collect("late", 1, (stats.0, 1), config(name, json!({})));
    plan
}

#[test]
fn every_node_is_seen_fused_or_not() {
    let job = start(job("taps-all", 20_000, None).build(), 2);
    let control = job.control();
    for name in ["numbers", "sources.numbers"] {
        // One of the two may be far ahead for a while.
        let tap = control.tap(name, ALL).unwrap();
        let (begin, mut first, mut second) = (Instant::now(), false, false);
        while !(first && second) {
            assert!(begin.elapsed() < PATIENCE, "waited in vain for rows of both subtasks");
            let seen = numbers(&look(&tap, 1), "n");
            first |= seen.iter().any(|n| *n < 1_000_000_000);
            second |= seen.iter().any(|n| *n >= 1_000_000_000);
        }
    }
    for name in ["some", "same", "pass", "transforms.pass"] {
        let seen = numbers(&look(&control.tap(name, ALL).unwrap(), 100), "n");
        assert!(seen.iter().all(|n| *n >= 1_000_000_000), "{name}");
    }
    for name in ["stats", "sinks.out"] {
        let tap = control.tap(name, ALL).unwrap();
        assert_eq!(tap.schema().field(1).name(), "window_start", "{name}: of a sink, what goes into it");
        assert!(numbers(&look(&tap, 10), "count").iter().all(|count| *count > 0));
    }
    assert_eq!(control.tap("stats.late", ALL).unwrap().schema().field(2).name(), "n");
    let unknown = control.tap("other", ALL).unwrap_err().to_string();
    assert!(unknown.contains("no node \"other\"") && unknown.contains("transforms.stats"), "{unknown}");
    assert!(control.tap("stats.errors", ALL).is_err() && control.tap("out.errors", ALL).is_err());
    let taps: Vec<Tap> = (0..32).map(|_| control.tap("stats", ALL).unwrap()).collect();
    assert_eq!(control.tap("stats", ALL).unwrap_err(), TapError::Many);
    drop(taps);
    control.tap("stats", ALL).unwrap();
    control.stop(false);
    assert_eq!(ended(&job).unwrap().end, Outcome::Stopped);
}

#[test]
fn who_is_slow_holds_up_nothing_and_is_told_what_was_passed_over() {
    let rows = 300_000;
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 1, config("taps-slow", json!({"rows": rows, "rate": 1_000_000})));
    plan.collect("out", 1, source, config("taps-slow", json!({})));
    let job = start(plan.build(), 1);
    let tap = job.control().tap("numbers", Keep { rows: 50, newest: false }).unwrap();
    let newest = job.control().tap("numbers", Keep { rows: 50, newest: true }).unwrap();
    let probe = Probe::of("taps-slow");
    // Nobody asks the taps, and all rows come through.
    support::until("all rows are through", || probe.row_count("out") == rows);
    let first = tap.take(1_000, Duration::ZERO);
    let last = newest.take(1_000, Duration::ZERO);
    let seen = numbers(&first.batches, "n");
    assert_eq!(seen, (seen[0]..seen[0] + 50).collect::<Vec<_>>(), "rows as they have passed, one after the other");
    assert_eq!(numbers(&last.batches, "n"), (rows as i64 - 50..rows as i64).collect::<Vec<_>>());
    drop(newest);
    // What is behind them counts when the job has ended: nobody misses it before.
    let rest = if first.ended { first } else { tap.take(1_000, PATIENCE) };
    assert!(rest.ended && rest.dropped == rows as u64 - seen[0] as u64 - 50, "{rest:?} of {rows} from {}", seen[0]);
    drop(tap);
    assert_eq!(ended(&job).unwrap().end, Outcome::Finished);
}

#[test]
fn the_end_of_the_job_is_seen_behind_its_last_rows() {
    let job = start(job("taps-end", 100_000, Some(20_000)).build(), 2);
    let tap = job.control().tap("out", ALL).unwrap();
    let (begin, mut rows) = (Instant::now(), 0);
    loop {
        assert!(begin.elapsed() < PATIENCE);
        let taken = tap.take(7, Duration::from_secs(1));
        rows += taken.batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        if taken.ended {
            break;
        }
    }
    assert_eq!(ended(&job).unwrap().end, Outcome::Finished);
    assert_eq!(rows, Probe::of("taps-end").row_count("out"), "it was there from the first row of the window to the last");
}

#[test]
fn each_process_shows_the_rows_of_its_subtasks() {
    let over = start_over(job("taps-over", 20_000, None).build(), &[1, 1], RunOptions::new());
    let seen = |job: &JobHandle| {
        let tap = job.control().tap("numbers", ALL).unwrap();
        numbers(&look(&tap, 500), "n").into_iter().map(|n| n / 1_000_000_000).collect::<BTreeSet<_>>()
    };
    let (first, second) = (seen(&over.0[0]), seen(&over.0[1]));
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second);
    over.first().control().stop(false);
    assert_eq!(over.ended().unwrap().end, Outcome::Stopped);
}
