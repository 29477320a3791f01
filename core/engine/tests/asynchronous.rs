//! Transforms whose calls end later: order, watermarks, the bound, failures, time limits, cancellation. Their checkpoints are in `checkpoints`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use serde_json::{Value, json};
use standpipe_engine::{Cause, JobError, JobHandle, JobReport, Outcome, RunOptions, operator::OperatorError, run};
use standpipe_pipeline::plan::{AsyncCalls, ResultOrder};
use standpipe_sdk::ErrorCode;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::{Duration, Instant},
};
use support::{
    ended,
    plan::{Builder, config},
    plugins::{HeldCall, Probe, number},
    run_to_end, start, until,
};

/// From a failure or a request to the job's end.
const SOON: Duration = Duration::from_secs(5);

fn calls(capacity: u32, order: ResultOrder) -> AsyncCalls {
    AsyncCalls { capacity, order, timeout: Duration::from_secs(60) }
}

/// The numbers of a sink in the order in which they came.
fn as_they_came(probe: &Probe, sink: &str) -> Vec<i64> {
    let numbers = |batch: &RecordBatch| batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().values().to_vec();
    probe.rows(sink).iter().flat_map(numbers).collect()
}

/// Numbers through the transform into a sink.
fn through(name: &str, source: Value, later: Value, calls: AsyncCalls) -> standpipe_pipeline::plan::Plan {
    let mut plan = Builder::new();
    plan.idle_timeout = Duration::from_secs(3600);
    let numbers = plan.numbers("numbers", 1, config(name, source));
    let later = plan.later("later", 1, numbers, config(name, later), calls);
    plan.collect("out", 1, later, config(name, json!({})));
    plan.build()
}

#[test]
fn results_leave_in_the_order_of_the_input() {
    let name = "async-input";
    run_to_end(through(name, json!({"rows": 3000, "batch": 20}), json!({"within_ms": 20}), calls(16, ResultOrder::Input)), 1).unwrap();
    let probe = Probe::of(name);
    let all: Vec<i64> = (0..3000).map(|i| number(0, i, 10).2).collect();
    assert_eq!(as_they_came(&probe, "out"), all);
    let most = probe.most_pending.load(SeqCst);
    assert!((2..=16).contains(&most), "{most} calls at the same time");
    assert_eq!(*probe.counted.lock().unwrap(), BTreeMap::from([("later".to_owned(), 3000)]));
    assert_eq!(*probe.drains.lock().unwrap(), [None], "before the end, and only there");
}

#[test]
fn results_in_any_order_overtake_where_no_watermark_is_between() {
    // The second split is quiet and holds event time.
    let name = "async-any";
    let source = json!({"splits": 2, "rows": 1500, "batch": 20, "quiet_from": 1, "quiet_after": 0});
    let job = start(through(name, source, json!({"hold": true}), calls(8, ResultOrder::Any)), 1);
    let probe = Probe::of(name);
    let held = || probe.calls.lock().unwrap().len();
    until("there are as many calls as there may be", || held() == 8);
    // Behind the first batch it is said which split holds event time.
    let first = probe.calls.lock().unwrap().remove(0);
    let before = first.batch.num_rows();
    first.end();
    until("the next one begins", || held() == 8 && as_they_came(&probe, "out").len() == before);
    // All but the first one: their results go on and make room.
    let (first, others) = {
        let mut calls = probe.calls.lock().unwrap();
        let others = calls.split_off(1);
        (calls.remove(0), others)
    };
    let rows: usize = others.iter().map(|call| call.batch.num_rows()).sum();
    others.into_iter().rev().for_each(HeldCall::end);
    until("the others have overtaken it", || as_they_came(&probe, "out").len() == before + rows);
    until("others may begin", || held() == 7);
    let first_row = first.batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().value(0);
    assert!(!as_they_came(&probe, "out").contains(&first_row));
    first.end();
    until("it is there", || as_they_came(&probe, "out").contains(&first_row));
    probe.awake.store(true, SeqCst);
    end_all(&probe, &job).unwrap();
    let mut all: Vec<i64> = (0..2).flat_map(|split| (0..1500).map(move |i| number(split, i, 10).2)).collect();
    all.sort_unstable();
    assert_eq!(probe.values("out", "n"), all);
}

/// Ends calls as they come until the job is over.
fn end_all(probe: &Probe, job: &JobHandle) -> Result<JobReport, JobError> {
    let begin = Instant::now();
    loop {
        let calls = std::mem::take(&mut *probe.calls.lock().unwrap());
        calls.into_iter().for_each(HeldCall::end);
        match job.wait_for(Duration::from_millis(1)) {
            Some(result) => return result,
            None => assert!(begin.elapsed() < support::PATIENCE, "the job hangs"),
        }
    }
}

#[test]
fn no_row_is_late_behind_an_asynchronous_transform() {
    for order in [ResultOrder::Input, ResultOrder::Any] {
        let name = format!("async-late-{order:?}");
        let mut plan = Builder::new();
        let numbers = plan.numbers("numbers", 2, config(&name, json!({"splits": 4, "rows": 3000, "batch": 37, "keys": 7})));
        let later = plan.later("later", 2, numbers, config(&name, json!({"within_ms": 15})), calls(8, order));
        let stats = plan.window("stats", 2, later, Duration::from_millis(50));
        plan.collect("windows", 1, stats, config(&name, json!({})));
        plan.collect("late", 1, (stats.0, 1), config(&name, json!({})));
        run_to_end(plan.build(), 2).unwrap();
        let mut expected: BTreeMap<(String, i64), i64> = BTreeMap::new();
        for (key, ts, _) in (0..4).flat_map(|split| (0..3000).map(move |i| number(split, i, 7))) {
            *expected.entry((key, ts - ts.rem_euclid(50_000))).or_default() += 1;
        }
        let probe = Probe::of(&name);
        assert_eq!(probe.row_count("late"), 0, "{order:?}");
        let mut found = BTreeMap::new();
        for batch in probe.rows("windows") {
            let (keys, start) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<TimestampMicrosecondType>());
            let counts = batch.column_by_name("count").unwrap().as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let before = found.insert((keys.value(row).to_owned(), start.value(row)), counts.value(row));
                assert_eq!(before, None, "{order:?}: a window came twice");
            }
        }
        assert_eq!(found, expected, "{order:?}");
        assert_eq!(probe.counted.lock().unwrap().len(), 1);
    }
}

#[test]
fn no_more_calls_are_pending_than_may_be() {
    let name = "async-bound";
    let job = start(through(name, json!({"rows": 1000, "batch": 10}), json!({"hold": true}), calls(3, ResultOrder::Input)), 1);
    let probe = Probe::of(name);
    let held = || probe.calls.lock().unwrap().len();
    let shown = || job.metrics().nodes()[1].pending_calls.load(Relaxed);
    until("three are pending", || held() == 3 && shown() == 3);
    // The last one: its results wait for those before it, and it still takes its place.
    let last = probe.calls.lock().unwrap().pop().unwrap();
    last.end();
    assert!(job.metrics().nodes()[0].in_flight_bytes.load(Relaxed) > 0, "the source's budget sees them");
    let first = probe.calls.lock().unwrap().remove(0);
    first.end();
    until("the next one begins, and the first batch is through", || held() == 2 && as_they_came(&probe, "out").len() == 10);
    end_all(&probe, &job).unwrap();
    assert_eq!(as_they_came(&probe, "out").len(), 1000);
    assert_eq!((probe.most_pending.load(SeqCst), shown()), (3, 0));
}

#[test]
fn what_is_put_off_is_begun_before_the_end() {
    let name = "async-together";
    run_to_end(through(name, json!({"rows": 100, "batch": 10}), json!({"together": 4}), calls(6, ResultOrder::Input)), 1).unwrap();
    let probe = Probe::of(name);
    assert_eq!(as_they_came(&probe, "out"), (0..100).map(|i| number(0, i, 10).2).collect::<Vec<_>>());
}

/// The failure of a job of which a call goes wrong.
fn failing(name: &str, later: Value, calls: AsyncCalls) -> JobError {
    let job = start(through(name, json!({"rate": 5000}), later, calls), 1);
    let error = ended(&job).unwrap_err();
    let took = Probe::of(name).failed.lock().unwrap().expect("a plugin says when it fails").elapsed();
    assert!(took < SOON + calls.timeout.min(SOON), "it took {took:?}");
    assert_eq!(error.node, "transforms.later");
    error
}

#[test]
fn a_call_that_fails_fails_the_job() {
    let some = calls(8, ResultOrder::Input);
    let error = failing("async-fails", json!({"within_ms": 5, "fail_at": 7}), some);
    assert_eq!(error.to_string(), "transforms.later: later: the service says 503");
    let Cause::Operator(OperatorError::Plugin(plugin)) = &*error.cause else { panic!("{error:?}") };
    assert_eq!((plugin.retryable, plugin.code), (true, ErrorCode::EXTERNAL));
    let error = failing("async-drops", json!({"within_ms": 5, "drop_at": 3}), some);
    assert_eq!(error.to_string(), "transforms.later: later: dropped the completion of a call without ending it");
    let error = failing("async-panics", json!({"within_ms": 5, "panic_at": 3}), some).to_string();
    let begin = "transforms.later: plugin \"later\" panicked in a thread of its own, before a call had ended: the thread is broken at ";
    assert!(error.starts_with(begin) && error.contains("later.rs:"), "{error}");
}

#[test]
fn a_call_that_never_ends_is_given_up() {
    for order in [ResultOrder::Input, ResultOrder::Any] {
        let calls = AsyncCalls { capacity: 4, order, timeout: Duration::from_millis(300) };
        let name = format!("async-never-{order:?}");
        let error = failing(&name, json!({"never_at": 5}), calls);
        let Cause::Operator(OperatorError::Plugin(plugin)) = &*error.cause else { panic!("{error:?}") };
        assert!(plugin.retryable);
        let text = error.to_string();
        let age = text.strip_prefix("transforms.later: later: a call has been pending for ").unwrap_or_else(|| panic!("{text}"));
        let (age, rest) = age.split_once(' ').unwrap();
        assert_eq!(rest, "s, longer than async.timeout, 0.3 s");
        assert!((0.3..5.0).contains(&age.parse::<f64>().unwrap()), "{text}");
    }
}

#[test]
fn a_cancelled_job_waits_for_no_call() {
    let name = "async-cancelled";
    let job = start(through(name, json!({"rate": 5000}), json!({"hold": true}), calls(4, ResultOrder::Input)), 1);
    let probe = Probe::of(name);
    until("calls are pending", || probe.calls.lock().unwrap().len() == 4);
    let begin = Instant::now();
    job.control().cancel();
    assert_eq!(ended(&job).unwrap().end, Outcome::Cancelled);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    // The instance is gone, and whoever still has its calls finds nobody.
    for HeldCall { completion, batch, .. } in std::mem::take(&mut *probe.calls.lock().unwrap()) {
        assert!(completion.cancelled());
        assert_eq!(completion.emit(batch).unwrap_err().code, ErrorCode::CANCELLED);
        completion.done();
    }
    assert_eq!(probe.row_count("out"), 0);
}

#[test]
fn a_stop_waits_for_the_calls() {
    let name = "async-stopped";
    let plan = through(name, json!({"rate": 20_000}), json!({"within_ms": 30}), calls(8, ResultOrder::Any));
    let job = run(Arc::new(plan), RunOptions::new()).unwrap();
    let probe = Probe::of(name);
    until("rows have come", || probe.row_count("out") > 0);
    job.control().stop(false);
    assert_eq!(ended(&job).unwrap().end, Outcome::Stopped);
    assert_eq!(probe.row_count("out") as u64, probe.read.load(SeqCst), "all that was read is written");
}

#[test]
fn a_keyed_transform_cannot_end_its_calls_later() {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 1, config("async-keyed", json!({})));
    let later = plan.keyed_later("later", numbers, config("async-keyed", json!({})));
    plan.collect("out", 1, later, config("async-keyed", json!({})));
    let error = ended(&start(plan.build(), 1)).unwrap_err();
    let what = "a call of a node with key_by cannot end later: its keyed state is of one call";
    assert_eq!(error.to_string(), format!("transforms.later: later: {what}"));
}
