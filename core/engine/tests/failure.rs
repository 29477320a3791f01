//! A failure anywhere ends the job with its cause within a second, and everything is closed.
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
use standpipe_engine::{Cause, ErrorClass, JobError, Outcome, RunOptions, run};
use standpipe_pipeline::plan::Exchange;
use standpipe_sdk::CloseReason;
use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use support::{
    ended,
    plan::{Builder, config},
    plugins::Probe,
    start, try_start, until,
};

/// A job without end on four workers in which one part fails.
fn failing(name: &str, source: Value, pass: Value, sink: Value) -> JobError {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 2, config(name, source));
    let calm = plan.numbers("calm", 1, config(name, json!({"rate": 1000})));
    let passed = plan.pass("pass", 4, numbers, pass, true);
    let window = plan.window("stats", 3, passed, Duration::from_secs(1));
    plan.collect("out", 2, window, config(name, sink));
    plan.collect("other", 1, calm, config(name, json!({"forget": true})));
    let job = start(plan.build(), 4);
    let error = ended(&job).unwrap_err();
    let probe = Probe::of(name);
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
fn broken_operator(name: &str, panics: bool, fused: bool) -> JobError {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 4, config(name, json!({"splits": 4})));
    let exchange = (!fused).then(|| Exchange::Hash(vec![0]));
    let filter = plan.filter_by("broken", numbers, Arc::new(Broken { panics, calls: Calls::default() }), exchange);
    plan.collect("out", 4, filter, config(name, json!({"forget": true})));
    let begin = Instant::now();
    let error = ended(&start(plan.build(), 4)).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(1), "it took {:?}", begin.elapsed());
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

/// From the call that fails to the job's end.
#[test]
fn a_failure_ends_the_job_within_a_second_though_a_plugin_hangs() {
    let mut plan = Builder::new();
    let numbers = plan.numbers("numbers", 2, config("hangs", json!({"splits": 2})));
    plan.collect("hung", 2, numbers, config("hangs", json!({"hang_at": 1})));
    let slow = plan.numbers("slow", 1, config("hangs", json!({"rate": 20_000, "fail_at": 10_000})));
    plan.collect("out", 1, slow, config("hangs", json!({})));
    let begin = Instant::now();
    let job = start(plan.build(), 2);
    let error = ended(&job).unwrap_err();
    assert_eq!(error.node, "sources.slow");
    // It fails half a second after its beginning.
    assert!(begin.elapsed() < Duration::from_millis(1_900), "it took {:?}", begin.elapsed());
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
