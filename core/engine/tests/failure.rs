//! A failure anywhere ends the job with its cause soon, and everything is closed. The engine means a second; the tests allow for a machine that is busy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Schema},
};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;
use serde_json::{Value, json};
use standpipe_engine::{Cause, ErrorClass, JobError, JobHandle, Outcome, RunOptions, run};
use standpipe_pipeline::plan::Exchange;
use standpipe_sdk::CloseReason;
use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use support::{
    ended,
    plan::{Builder, config},
    plugins::Probe,
    start, try_start, until,
};

/// From a plugin's failure to the job's end.
const SOON: Duration = Duration::from_secs(5);

/// The failure of the job, which must have come soon after a plugin or operator failed.
fn ended_soon(job: &JobHandle, probe: &Probe) -> JobError {
    let error = ended(job).unwrap_err();
    let took = probe.failed.lock().unwrap().expect("a plugin says when it fails").elapsed();
    assert!(took < SOON, "it took {took:?}");
    error
}

/// A job without end on four workers in which one part fails.
fn failing(name: &str, source: Value, pass: Value, sink: Value) -> JobError {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 2, config(name, source));
    let calm = plan.numbers("calm", 1, config(name, json!({"rate": 1000})));
    let passed = plan.pass("pass", 4, numbers, config(name, pass), true);
    let window = plan.window("stats", 3, passed, Duration::from_secs(1));
    plan.collect("out", 2, window, config(name, sink));
    plan.collect("other", 1, calm, config(name, json!({"forget": true})));
    let job = start(plan.build(), 4);
    let probe = Probe::of(name);
    let error = ended_soon(&job, &probe);
    until("everything that was open is closed", || {
        let closed = probe.closed.lock().unwrap();
        closed.iter().any(|(node, ..)| node == "calm") && closed.iter().any(|(node, ..)| node == "other")
    });
    assert!(probe.closed.lock().unwrap().iter().all(|(_, _, reason)| *reason == CloseReason::Failed));
    assert!(probe.committed.lock().unwrap().is_empty());
    error
}

#[test]
fn a_source_that_fails() {
    let error = failing("source-fails", json!({"splits": 2, "fail_at": 5000}), json!({}), json!({}));
    assert_eq!((error.node.as_str(), error.class()), ("sources.numbers", ErrorClass::Job));
    assert!(error.to_string().contains("row 5000 is broken"), "{error}");
}

#[test]
fn a_source_that_panics() {
    let error = failing("source-panics", json!({"splits": 2, "panic_at": 5000}), json!({}), json!({}));
    assert_eq!(error.node, "sources.numbers");
    assert!(error.to_string().contains("the source is broken at row 5000"), "{error}");
}

#[test]
fn something_outside_that_is_missing() {
    let error = failing("source-missing", json!({"missing": "there is no topic \"x\""}), json!({}), json!({}));
    assert_eq!((error.class(), error.class().exit_code()), (ErrorClass::Outside, 3));
    assert!(error.to_string().contains("there is no topic \"x\""), "{error}");
}

#[test]
fn a_transform_that_fails() {
    let error = failing("transform-fails", json!({"splits": 2}), json!({"fail_at": 3}), json!({}));
    assert_eq!((error.node.as_str(), error.class()), ("transforms.pass", ErrorClass::Job));
    assert!(error.to_string().contains("cannot pass"), "{error}");
}

#[test]
fn a_transform_that_panics() {
    let error = failing("transform-panics", json!({"splits": 2}), json!({"panic_at": 3}), json!({}));
    assert!(error.to_string().contains("the transform is broken"), "{error}");
}

#[test]
fn a_sink_that_fails() {
    let error = failing("sink-fails", json!({"splits": 2}), json!({}), json!({"fail_at": 2}));
    assert_eq!(error.node, "sinks.out");
    assert!(error.to_string().contains("the disk is full"), "{error}");
}

#[test]
fn a_sink_that_acknowledges_what_it_never_got() {
    let error = failing("sink-boasts", json!({"splits": 2}), json!({}), json!({"boast": 1}));
    assert_eq!(error.node, "sinks.out");
    assert!(error.to_string().contains("the sink acknowledged batch"), "{error}");
}

#[test]
fn a_sink_that_panics() {
    let error = failing("sink-panics", json!({"splits": 2}), json!({}), json!({"panic_at": 2}));
    assert!(error.to_string().contains("the sink is broken"), "{error}");
}

/// An expression that goes wrong at its third batch.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Broken {
    panics: bool,
    probe: &'static str,
    calls: Calls,
}

/// Counts calls; all counts are equal, so that expressions can be compared.
#[derive(Debug, Default)]
struct Calls(AtomicU32);

impl PartialEq for Calls {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Calls {}

impl Hash for Calls {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken()")
    }
}

impl PhysicalExpr for Broken {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(false)
    }

    fn evaluate(&self, _: &RecordBatch) -> Result<ColumnarValue> {
        let call = self.calls.0.fetch_add(1, SeqCst);
        if call >= 2 {
            Probe::of(self.probe).fails();
        }
        assert!(call < 2 || !self.panics, "the operator is broken");
        if call < 2 { Ok(ColumnarValue::from(ScalarValue::from(true))) } else { exec_err!("cannot compare") }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken()")
    }
}

/// A job on four workers with an operator on an engine worker that goes wrong: fused behind the source, or behind an exchange.
fn broken_operator(name: &'static str, panics: bool, fused: bool) -> JobError {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 4, config(name, json!({"splits": 4})));
    let exchange = (!fused).then(|| Exchange::Hash(vec![0]));
    let filter = plan.filter_by("broken", numbers, Arc::new(Broken { panics, probe: name, calls: Calls::default() }), exchange);
    plan.collect("out", 4, filter, config(name, json!({"forget": true})));
    let probe = Probe::of(name);
    *probe.failed.lock().unwrap() = None;
    let error = ended_soon(&start(plan.build(), 4), &probe);
    assert_eq!((error.node.as_str(), error.class()), ("transforms.broken", ErrorClass::Job), "{error}");
    error
}

#[test]
fn an_operator_that_fails() {
    for fused in [true, false] {
        let error = broken_operator("operator-fails", false, fused).to_string();
        assert!(error.starts_with("transforms.broken: ") && error.contains("cannot compare"), "{error}");
    }
}

#[test]
fn an_operator_that_panics() {
    for fused in [true, false] {
        let error = broken_operator("operator-panics", true, fused);
        assert_eq!(error.to_string(), "transforms.broken: internal error, panicked: the operator is broken");
    }
}

#[test]
fn a_failure_ends_the_job_soon_though_a_plugin_hangs() {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 2, config("hangs", json!({"splits": 2})));
    plan.collect("hung", 2, numbers, config("hangs", json!({"hang_at": 1})));
    let slow = plan.numbers("slow", 1, config("hangs", json!({"rate": 20_000, "fail_at": 10_000})));
    plan.collect("out", 1, slow, config("hangs", json!({})));
    let error = ended_soon(&start(plan.build(), 2), &Probe::of("hangs"));
    assert_eq!(error.node, "sources.slow");
}

/// A job from a source to a sink, each with its trouble.
fn troubled(name: &str, options: RunOptions, source: Value, sink: Value) -> JobError {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 1, config(name, source));
    plan.collect("out", 1, numbers, config(name, sink));
    ended(&run(Arc::new(plan.build()), options).unwrap()).unwrap_err()
}

#[test]
fn what_was_there_when_a_source_began_is_not_missing_from_the_start() {
    for (gone_after, class) in [(0, ErrorClass::Outside), (1, ErrorClass::Job)] {
        let error = troubled(&format!("gone-{gone_after}"), RunOptions::new(), json!({"gone_after": gone_after}), json!({}));
        assert_eq!((error.node.as_str(), error.class()), ("sources.numbers", class), "{error}");
    }
}

#[test]
fn what_a_sink_cannot_find_at_its_first_batch_was_missing_unless_that_comes_late() {
    let long = RunOptions { start_period: Duration::from_secs(3600), ..RunOptions::new() };
    let none = RunOptions { start_period: Duration::ZERO, ..RunOptions::new() };
    for (missing_at, options, class) in [(1, long.clone(), ErrorClass::Outside), (2, long, ErrorClass::Job), (1, none, ErrorClass::Job)] {
        let error = troubled(&format!("lost-{missing_at}-{class:?}"), options, json!({}), json!({"missing_at": missing_at}));
        assert_eq!((error.node.as_str(), error.class()), ("sinks.out", class), "{error}");
    }
}

/// A job whose sink does not answer, when it has been said so.
fn unreachable(name: &str, options: RunOptions) -> (JobHandle, Arc<Probe>) {
    let probe = Probe::of(name);
    "write".clone_into(&mut probe.unreachable.lock().unwrap());
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 1, config(name, json!({"rate": 1000})));
    plan.collect("out", 1, numbers, config(name, json!({})));
    let job = run(Arc::new(plan.build()), options).unwrap();
    until("the sink is degraded", || job.metrics().nodes()[1].degraded().is_some_and(|why| why.contains("the index does not answer")));
    (job, probe)
}

#[test]
fn a_stop_does_not_wait_for_ever_for_a_sink_that_does_not_answer() {
    let (job, probe) = unreachable("no-answer-stop", RunOptions { stop_patience: Duration::ZERO, ..RunOptions::new() });
    job.control().stop(false);
    let error = ended(&job).unwrap_err();
    assert_eq!((error.node.as_str(), error.class()), ("sinks.out", ErrorClass::Outside));
    assert!(error.to_string().contains("the index does not answer"), "{error}");
    assert!(probe.committed.lock().unwrap().is_empty(), "what was not written is not committed");
}

#[test]
fn a_drain_waits_for_a_sink_that_does_not_answer() {
    let (job, probe) = unreachable("no-answer-drain", RunOptions { stop_patience: Duration::ZERO, ..RunOptions::new() });
    job.control().stop(true);
    let before = probe.attempts.load(SeqCst);
    until("it has tried again", || probe.attempts.load(SeqCst) >= before + 2);
    probe.unreachable.lock().unwrap().clear();
    assert_eq!(ended(&job).unwrap().end, Outcome::Stopped);
    assert_eq!(probe.row_count("out") as u64, probe.read.load(SeqCst), "all that was read is written");
}

#[test]
fn a_cancelled_job_does_not_wait_for_a_sink_that_does_not_answer() {
    let (job, _) = unreachable("no-answer-cancel", RunOptions::new());
    job.control().stop(false);
    job.control().cancel();
    assert_eq!(ended(&job).unwrap().end, Outcome::Cancelled);
}

#[test]
fn a_call_that_does_not_return_is_named() {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 1, config("named", json!({})));
    plan.collect("out", 1, numbers, config("named", json!({"hang_at": 1})));
    let options = RunOptions { call_budget: Duration::from_millis(50), ..RunOptions::new() };
    let job = run(Arc::new(plan.build()), options).unwrap();
    until("the call is named", || job.metrics().nodes()[1].slow_calls.get() == 1);
    job.control().cancel();
    ended(&job).unwrap();
}

#[test]
fn too_few_slots_are_refused() {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 3, config("slots", json!({"rows": 1})));
    plan.collect("out", 1, numbers, config("slots", json!({})));
    let error = try_start(plan.build(), 2).err().unwrap();
    assert!(matches!(*error.cause, Cause::Slots(_)));
    assert_eq!(error.to_string(), "the job needs 3 slots, there are 2");
}

#[test]
fn a_cancelled_job_ends_at_once() {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 2, config("cancelled", json!({"splits": 2})));
    plan.collect("out", 2, numbers, config("cancelled", json!({"forget": true})));
    let job = start(plan.build(), 2);
    let probe = Probe::of("cancelled");
    until("rows have come", || job.metrics().nodes()[1].rows_out.get() > 0);
    probe.stuck.store(true, SeqCst);
    job.control().cancel();
    assert_eq!(ended(&job).unwrap().end, Outcome::Cancelled);
    assert!(probe.committed.lock().unwrap().is_empty());
    assert!(probe.closed.lock().unwrap().iter().all(|(_, _, reason)| *reason == CloseReason::Stopped));
}
