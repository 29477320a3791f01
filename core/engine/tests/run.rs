//! Whole jobs: what goes in comes out, by key, in windows, at any parallelism, with a clean end or a clean stop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use serde_json::json;
use standpipe_engine::{Outcome, RunOptions, Sample, Value, run};
use standpipe_sdk::CloseReason;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use support::{
    ended,
    plan::{Builder, config},
    plugins::{Probe, event_times, number},
    run_to_end, start, until,
};

/// Every row of a source, by its number.
fn all_numbers(splits: u64, rows: u64) -> Vec<i64> {
    let mut all: Vec<i64> = (0..splits).flat_map(|split| (0..rows).map(move |i| number(split, i, 1).2)).collect();
    all.sort_unstable();
    all
}

#[test]
fn rows_in_are_rows_out_at_any_parallelism() {
    for parallelism in [1, 2, 4] {
        let name = format!("rows-{parallelism}");
        let mut plan = Builder::new();
        let source = plan.numbers("numbers", parallelism, config(&name, json!({"splits": 5, "rows": 20_000})));
        let filter = plan.filter("some", source, 1_000);
        plan.collect("out", parallelism, filter, config(&name, json!({})));
        let report = run_to_end(plan.build(), parallelism).unwrap();
        assert_eq!(report.end, Outcome::Finished);
        let probe = Probe::of(&name);
        let expected: Vec<i64> = all_numbers(5, 20_000).into_iter().filter(|n| *n >= 1_000).collect();
        assert_eq!(probe.values("out", "n"), expected, "parallelism {parallelism}");
        assert_eq!(probe.finished.load(SeqCst), u64::from(parallelism));
        let committed = probe.committed.lock().unwrap();
        assert_eq!(committed.len(), 5, "the end commits the position of every split");
        assert!(committed.values().all(|position| position == b"20000"));
        let closed = probe.closed.lock().unwrap();
        assert_eq!(closed.len(), 2 * parallelism as usize);
        assert!(closed.iter().all(|(_, _, reason)| *reason == CloseReason::Finished));
    }
}

#[test]
fn each_key_comes_to_one_subtask_in_order() {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 2, config("keys", json!({"splits": 2, "rows": 30_000, "keys": 97})));
    let pass = plan.pass("pass", 4, source, json!({}), true);
    plan.collect("out", 4, pass, config("keys", json!({})));
    run_to_end(plan.build(), 4).unwrap();
    let probe = Probe::of("keys");
    assert_eq!(probe.values("out", "n"), all_numbers(2, 30_000));
    let written = probe.written.lock().unwrap();
    let mut subtask_of_key: BTreeMap<String, u32> = BTreeMap::new();
    let mut last: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for ((_, subtask), batches) in written.iter() {
        for batch in batches {
            let keys = batch.column(0).as_string::<i32>();
            for (key, n) in keys.iter().flatten().zip(batch.column(2).as_primitive::<Int64Type>().values()) {
                assert_eq!(subtask_of_key.entry(key.to_owned()).or_insert(*subtask), subtask, "{key} is on two subtasks");
                let before = last.insert((key.to_owned(), n / 1_000_000_000), *n);
                assert!(before.is_none_or(|before| before < *n), "{key} is out of order");
            }
        }
    }
    assert_eq!(subtask_of_key.len(), 97);
    assert_eq!(subtask_of_key.into_values().collect::<BTreeSet<_>>().len(), 4, "all subtasks have keys");
}

type Totals = BTreeMap<(String, i64), (i64, i64, i64)>;

/// Count, sum and maximum per key and window of 1 s, the slow way.
fn naive_windows(splits: u64, rows: u64, keys: u64) -> Totals {
    let mut totals = Totals::new();
    for (key, ts, n) in (0..splits).flat_map(|split| (0..rows).map(move |i| number(split, i, keys))) {
        let total = totals.entry((key, ts - ts.rem_euclid(1_000_000))).or_insert((0, 0, i64::MIN));
        *total = (total.0 + 1, total.1 + n, total.2.max(n));
    }
    totals
}

fn windows(batches: &[RecordBatch]) -> Totals {
    let mut totals = Totals::new();
    for batch in batches {
        let start = batch.column_by_name("window_start").unwrap().as_primitive::<TimestampMicrosecondType>();
        let number = |name: &str, row: usize| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row);
        for row in 0..batch.num_rows() {
            let key = batch.column(0).as_string::<i32>().value(row).to_owned();
            let total = (number("count", row), number("sum", row), number("max", row));
            assert_eq!(totals.insert((key, start.value(row)), total), None, "a window came twice");
        }
    }
    totals
}

#[test]
fn windows_are_those_of_a_naive_reference() {
    for (sources, parallelism, slots) in [(1, 1, 1), (2, 2, 2), (3, 4, 4), (4, 1, 4), (1, 3, 4)] {
        let name = format!("windows-{sources}-{parallelism}");
        let mut plan = Builder::new();
        let source = plan.numbers("numbers", sources, config(&name, json!({"splits": 6, "rows": 25_000, "keys": 13})));
        let window = plan.window("stats", parallelism, source, Duration::from_secs(1));
        plan.collect("out", parallelism, window, config(&name, json!({})));
        plan.collect("late", 1, (window.0, 1), config(&name, json!({})));
        run_to_end(plan.build(), slots).unwrap();
        let probe = Probe::of(&name);
        assert_eq!(probe.row_count("late"), 0, "rows are no more out of order than allowed");
        assert_eq!(windows(&probe.rows("out")), naive_windows(6, 25_000, 13), "{name}");
    }
}

#[test]
fn one_subtask_between_four_workers_gets_everything() {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 4, config("narrow", json!({"splits": 8, "rows": 5_000})));
    let pass = plan.pass("pass", 1, source, json!({}), false);
    plan.collect("out", 3, pass, config("narrow", json!({})));
    run_to_end(plan.build(), 4).unwrap();
    let probe = Probe::of("narrow");
    assert_eq!(probe.values("out", "n"), all_numbers(8, 5_000));
    let subtasks: BTreeSet<u32> = probe.written.lock().unwrap().keys().map(|(_, subtask)| *subtask).collect();
    assert_eq!(subtasks, BTreeSet::from([0, 1, 2]), "batches are dealt to all subtasks");
}

#[test]
fn a_union_has_the_rows_and_the_slower_watermark_of_its_inputs() {
    let mut plan = Builder::new();
    let left = plan.numbers("left", 2, config("union", json!({"splits": 2, "rows": 30_000, "keys": 5})));
    let right = plan.numbers("right", 1, config("union", json!({"splits": 2, "rows": 30_000, "keys": 5, "batch": 37, "rate": 60_000})));
    let both = plan.union("both", 2, &[left, right]);
    let window = plan.window("stats", 2, both, Duration::from_secs(1));
    plan.collect("out", 2, window, config("union", json!({})));
    plan.collect("late", 2, (window.0, 1), config("union", json!({})));
    run_to_end(plan.build(), 2).unwrap();
    let probe = Probe::of("union");
    assert_eq!(probe.row_count("late"), 0, "nothing is late though one input is far ahead");
    let twice: Totals =
        naive_windows(2, 30_000, 5).into_iter().map(|(window, (count, sum, max))| (window, (count * 2, sum * 2, max))).collect();
    assert_eq!(windows(&probe.rows("out")), twice);
}

/// A job without end, with windows, stopped after it has read something.
fn stopped(name: &str, drain: bool) -> (Outcome, Arc<Probe>) {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 2, config(name, json!({"splits": 3, "keys": 7, "rate": 100_000})));
    let window = plan.window("stats", 2, source, Duration::from_secs(1));
    plan.collect("windows", 2, window, config(name, json!({})));
    plan.collect("raw", 2, source, config(name, json!({})));
    let job = start(plan.build(), 2);
    let probe = Probe::of(name);
    until("windows have fired", || probe.row_count("windows") > 0);
    job.control().stop(drain);
    (ended(&job).unwrap().end, probe)
}

#[test]
fn a_stop_finishes_what_is_in_flight_and_fires_no_window() {
    let (outcome, probe) = stopped("stop", false);
    assert_eq!(outcome, Outcome::Stopped);
    let raw = probe.values("raw", "n");
    let counted: i64 = windows(&probe.rows("windows")).values().map(|total| total.0).sum();
    assert!(counted > 0 && (counted as usize) < raw.len(), "{counted} of {} rows are in windows that fired", raw.len());
    // Every split was read from its beginning without a gap.
    let mut next: BTreeMap<i64, i64> = BTreeMap::new();
    for n in &raw {
        let next = next.entry(n / 1_000_000_000).or_default();
        assert_eq!(n % 1_000_000_000, *next);
        *next += 1;
    }
    assert!(probe.committed.lock().unwrap().is_empty(), "open windows hold rows, so nothing is committed");
    assert!(probe.closed.lock().unwrap().iter().all(|(_, _, reason)| *reason == CloseReason::Stopped));
}

#[test]
fn a_drain_fires_every_window_and_commits_what_was_read() {
    let (outcome, probe) = stopped("drain", true);
    assert_eq!(outcome, Outcome::Stopped);
    let raw = probe.values("raw", "n");
    let counted: i64 = windows(&probe.rows("windows")).values().map(|total| total.0).sum();
    assert_eq!(counted as usize, raw.len(), "every row is in a window that fired");
    let committed: i64 = probe.committed.lock().unwrap().values().map(|p| String::from_utf8_lossy(p).parse::<i64>().unwrap()).sum();
    assert_eq!(committed as usize, raw.len(), "exactly what was delivered is committed");
}

#[test]
fn a_stop_without_state_commits_exactly_what_was_delivered() {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 1, config("stateless", json!({"splits": 2})));
    plan.collect("out", 1, source, config("stateless", json!({"forget": true})));
    let job = start(plan.build(), 1);
    let probe = Probe::of("stateless");
    until("rows have come", || job.metrics().nodes()[1].rows_out.get() > 10_000);
    job.control().stop(false);
    assert_eq!(ended(&job).unwrap().end, Outcome::Stopped);
    let committed: u64 = probe.committed.lock().unwrap().values().map(|p| String::from_utf8_lossy(p).parse::<u64>().unwrap()).sum();
    assert_eq!(committed, job.metrics().nodes()[1].rows_out.get());
}

#[test]
fn a_task_that_holds_rows_until_the_end_gives_them_then() {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 1, config("held", json!({"rows": 10_000})));
    let pass = plan.pass("pass", 1, source, json!({"hold": true}), false);
    let window = plan.window("stats", 2, pass, Duration::from_secs(1));
    plan.collect("out", 1, pass, config("held", json!({})));
    plan.collect("windows", 1, window, config("held", json!({})));
    run_to_end(plan.build(), 2).unwrap();
    assert_eq!(Probe::of("held").values("out", "n"), all_numbers(1, 10_000));
}

#[test]
fn a_split_that_falls_silent_does_not_hold_the_windows() {
    let mut plan = Builder::new();
    plan.idle_timeout = Duration::from_millis(200);
    let source = plan.numbers("numbers", 2, config("silent", json!({"splits": 2, "quiet_after": 1000, "rate": 50_000})));
    let window = plan.window("stats", 2, source, Duration::from_secs(1));
    plan.collect("out", 1, window, config("silent", json!({})));
    let job = start(plan.build(), 2);
    let probe = Probe::of("silent");
    // Split 1 ends in the first window; that one and the next fire only without it.
    until("two windows have fired", || windows(&probe.rows("out")).keys().map(|(_, start)| *start).max() >= Some(1_000_000));
    let (holder, idle) = job.metrics().nodes()[0].event_time().map(|at| (at.holder, at.idle)).unwrap();
    assert_eq!((holder.as_deref(), idle), (Some("split-0"), false), "status can say which split holds the windows");
    job.control().cancel();
    ended(&job).unwrap();
}

#[test]
fn a_split_that_says_it_is_quiet_does_not_hold_the_windows_though_others_are_never_idle() {
    let mut plan = Builder::new();
    plan.idle_timeout = Duration::from_millis(200);
    // Split 1 has nothing from the beginning; split 0 always has something.
    let source = plan.numbers("numbers", 1, config("quiet", json!({"splits": 2, "quiet_after": 0, "says_quiet": true})));
    let window = plan.window("stats", 1, source, Duration::from_secs(1));
    plan.collect("out", 1, window, config("quiet", json!({})));
    let job = start(plan.build(), 1);
    let probe = Probe::of("quiet");
    until("a window has fired", || probe.row_count("out") > 0);
    job.control().cancel();
    ended(&job).unwrap();
}

#[test]
fn the_end_of_one_subtask_is_not_the_end_of_one_that_is_idle() {
    let mut plan = Builder::new();
    plan.idle_timeout = Duration::from_millis(100);
    let config = |more| config("half-ended", more);
    let source = plan.numbers("numbers", 2, config(json!({"splits": 2, "rows": 1_000, "quiet_after": 500, "keys": 3})));
    let window = plan.window("stats", 2, source, Duration::from_secs(1));
    plan.collect("out", 1, window, config(json!({})));
    plan.collect("late", 1, (window.0, 1), config(json!({})));
    let job = start(plan.build(), 2);
    let probe = Probe::of("half-ended");
    let has_settled = |node: usize| job.metrics().nodes()[node].event_time().is_some_and(|at| at.idle || at.time == i64::MAX);
    until("split 0 has ended and split 1 is idle", || has_settled(1) && has_settled(2));
    probe.awake.store(true, SeqCst);
    ended(&job).unwrap();
    assert_eq!(probe.row_count("late"), 0, "no window had fired");
    assert_eq!(windows(&probe.rows("out")), naive_windows(2, 1_000, 3));
}

#[test]
fn a_sink_that_can_try_again_loses_nothing() {
    for function in ["write", "flush", "finish"] {
        let name = format!("unreachable-{function}");
        let probe = Probe::of(&name);
        function.clone_into(&mut probe.unreachable.lock().unwrap());
        let mut plan = Builder::new();
        plan.settings.in_flight_bytes = 64 << 10;
        let source = plan.numbers("numbers", 1, config(&name, json!({"splits": 2, "rows": 5_000})));
        plan.collect("out", 1, source, config(&name, json!({"acknowledge": "flush"})));
        let job = start(plan.build(), 1);
        let metrics = job.metrics();
        let sink = &metrics.nodes()[1];
        until("it says why it cannot go on", || sink.degraded().is_some_and(|why| why.contains("the index does not answer")));
        until("it has tried again", || probe.attempts.load(SeqCst) >= 2);
        probe.unreachable.lock().unwrap().clear();
        ended(&job).unwrap();
        assert_eq!(sink.degraded(), None);
        assert_eq!(probe.values("out", "n"), all_numbers(2, 5_000), "{function}");
    }
}

#[test]
fn a_source_that_can_try_again_loses_nothing() {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 1, config("flaky", json!({"splits": 2, "rows": 5_000, "flaky": 2})));
    plan.collect("out", 1, source, config("flaky", json!({})));
    let job = start(plan.build(), 1);
    let metrics = job.metrics();
    let source = &metrics.nodes()[0];
    until("it says why it cannot go on", || source.degraded().is_some_and(|why| why.contains("the broker does not answer")));
    ended(&job).unwrap();
    assert_eq!(source.degraded(), None);
    assert_eq!(Probe::of("flaky").values("out", "n"), all_numbers(2, 5_000));
}

#[test]
fn splits_that_are_found_later_are_read_too() {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 2, config("later", json!({"splits": 3, "rows": 2_000, "one_by_one": true})));
    plan.collect("out", 1, source, config("later", json!({})));
    run_to_end(plan.build(), 2).unwrap();
    assert_eq!(Probe::of("later").values("out", "n"), all_numbers(3, 2_000));
}

#[test]
fn a_plugin_has_the_services_of_the_host() {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 1, config("services", json!({"rows": 3_000})));
    plan.collect("out", 2, source, config("services", json!({"secret": "${PASSWORD}"})));
    let mut options = RunOptions { slots: vec![2], ..RunOptions::new() };
    options.secrets = Arc::new(|reference| Ok((format!("secret of {reference}"), 1)));
    let job = run(Arc::new(plan.build()), options).unwrap();
    ended(&job).unwrap();
    assert_eq!(*Probe::of("services").secret.lock().unwrap(), "secret of ${PASSWORD}");
    let samples = job.metrics().snapshot();
    let label = |sample: &Sample, name: &str| sample.labels.get(name).cloned().unwrap_or_default();
    let collected: Vec<&Sample> = samples.iter().filter(|s| s.name == "collected_rows" && label(s, "kind") == "test").collect();
    assert_eq!(collected.len(), 2, "one per subtask: {samples:?}");
    assert!(collected.iter().all(|sample| label(sample, "node") == "sinks.out"));
    let rows = |sample: &&Sample| if let Value::Counter(rows) = sample.value { rows } else { f64::NAN };
    assert!((collected.iter().map(rows).sum::<f64>() - 3_000.0).abs() < 0.5);
}

#[test]
fn what_nothing_reads_is_dropped_and_counted() {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 2, config("unread", json!({"splits": 2, "rows": 5_000})));
    plan.collect("out", 2, source, config("unread", json!({"refuse": 1000})));
    let job = start(plan.build(), 2);
    ended(&job).unwrap();
    assert_eq!(job.metrics().nodes()[1].unread_rows.get(), 10);
}

#[test]
fn refused_rows_go_to_the_errors_output() {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 1, config("refused", json!({"rows": 5_000})));
    let out = plan.collect("out", 1, source, config("refused", json!({"refuse": 1000, "busy": 1})));
    plan.collect("dead", 1, out, config("refused", json!({})));
    let job = start(plan.build(), 1);
    ended(&job).unwrap();
    let probe = Probe::of("refused");
    assert_eq!(probe.values("dead", "n"), [0, 1000, 2000, 3000, 4000]);
    let dead = probe.rows("dead");
    assert_eq!(dead[0].column_by_name("reason").unwrap().as_string::<i32>().value(0), "0 is refused");
    assert_eq!(job.metrics().nodes()[1].broken_records.get(), 5);
    assert_eq!(probe.row_count("out"), 5_000);
}

#[test]
fn the_metrics_say_what_happened() {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 2, config("metrics", json!({"splits": 2, "rows": 20_000, "keys": 3})));
    let some = plan.filter("some", source, 500);
    plan.collect("out", 2, some, config("metrics", json!({})));
    let job = start(plan.build(), 2);
    ended(&job).unwrap();
    let metrics = job.metrics();
    let counts: Vec<_> = metrics.nodes().iter().map(|node| (node.path.as_str(), node.rows_in.get(), node.rows_out.get())).collect();
    assert_eq!(counts, [("sources.numbers", 40_000, 40_000), ("transforms.some", 40_000, 39_500), ("sinks.out", 39_500, 39_500)]);
    assert!(job.metrics().nodes()[2].bytes_out.get() >= 39_500 * 16);
    assert!(job.metrics().nodes().iter().all(|node| node.in_flight_bytes.load(SeqCst) == 0), "nothing is left on its way");
    let newest = Probe::of("metrics").rows("out").iter().flat_map(event_times).max().unwrap();
    assert!(newest > 0 && job.metrics().nodes()[2].event_time().unwrap().time == i64::MAX, "the end is the last watermark");
}
