//! A plugin in Rust, from its file: load, validate, create, run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use arrow_array::{cast::AsArray, types::Int64Type};
use common::{catalogue, context, example, input, keyed, numbers};
use serde_json::json;
use standpipe_loader::{CloseReason, ErrorCode, Flavour, KeyedCall, Polled, SplitPosition, TimeDomain, TransformInstance, Written};
use standpipe_sdk::testing::{MemoryState, TestHost};
use std::{sync::Arc, time::Duration};

#[test]
fn a_source_gets_its_secret_and_tells_logs_and_metrics() {
    let catalogue = catalogue(&[&example("loader_fixture")]);
    let source = catalogue.source("fixture_numbers").unwrap();
    assert_eq!((source.plugin().flavour, source.plugin().abi.to_string().as_str()), (Flavour::Rust, "1.1"));
    assert_eq!(source.plugin().description.build["sdk"], "1.1.0");
    let config = json!({ "rows": 3, "token": "${env:TOKEN}" });
    assert!(source.validate("in", &config).unwrap().details.problems.is_empty());
    let problems = source.validate("in", &json!({ "row": 3 })).unwrap().details.problems;
    assert_eq!((problems[0].path.as_str(), problems[0].suggestion.as_deref()), ("row", Some("rows")));

    let host = Arc::new(TestHost::default());
    let error = source.reader(&config, &context(), host.clone()).err().unwrap();
    assert_eq!((error.to_string().as_str(), error.code), ("sources.node: fixture_numbers: token: env:TOKEN is not set", ErrorCode::CONFIG));
    host.set_secret("env:TOKEN", "hunter2");
    let mut reader = source.reader(&config, &context(), host.clone()).unwrap();
    reader.open().unwrap();
    reader.assign(&[SplitPosition { split: "0".to_owned(), ..Default::default() }]).unwrap();
    let polled = reader.poll(100, 1 << 20, Duration::ZERO).unwrap();
    assert!(matches!(polled, Polled::Batch { batch, .. } if batch.columns() == numbers(&[0, 1, 2]).columns()));
    assert_eq!(host.logs()[0].1, json!({ "message": "opened", "token": "hunter2" }));
    assert_eq!(host.metric("rows"), Some(3.0));
    reader.close(CloseReason::Stopped).unwrap();
}

#[test]
fn panics_are_errors_with_message_and_place() {
    let catalogue = catalogue(&[&example("loader_fixture")]);
    let kind = catalogue.transform("fixture_panic").unwrap();
    let rows = numbers(&[1]);
    let inputs = [input(&rows, &[])];
    let instance = |at: &str| {
        let host = Arc::new(TestHost::default());
        kind.instance(&json!({ "at": at }), "p", &inputs, false, &context(), host)
    };
    let place = "core/loader/examples/loader_fixture.rs:";
    let text = kind.validate("p", &json!({ "at": "validate" }), &inputs, false).unwrap_err().to_string();
    assert!(text.starts_with(&format!("transforms.p: plugin \"fixture_panic\" panicked in validate: as asked at {place}")), "{text}");
    let text = instance("open").unwrap().open().unwrap_err().to_string();
    assert!(text.contains(&format!("panicked in open: as asked at {place}")), "{text}");
    let mut poisoned = instance("process").unwrap();
    poisoned.open().unwrap();
    let error = poisoned.process(0, &rows, None).unwrap_err();
    assert!(error.to_string().contains(&format!("panicked in process: as asked at {place}")) && error.code == ErrorCode::PANIC, "{error}");
    assert!(error.location().unwrap().starts_with(place));
    let again = poisoned.process(0, &rows, None).unwrap_err();
    assert!(again.to_string().contains("is poisoned, it panicked in process before: as asked at"), "{again}");
    poisoned.close(CloseReason::Failed).unwrap();
    drop(poisoned);
    // The panic of a value that is no text, and of the author's own Drop.
    let mut odd = instance("any").unwrap();
    odd.open().unwrap();
    assert!(odd.process(0, &rows, None).unwrap_err().message.starts_with("panicked in process: a value that is no text at"));
    let mut dropped = instance("drop").unwrap();
    dropped.open().unwrap();
    drop(dropped);
}

fn count(config: serde_json::Value, host: &Arc<TestHost>) -> (TransformInstance, MemoryState) {
    let catalogue = catalogue(&[&example("loader_fixture")]);
    let inputs = [input(&keyed(&[], &[]), &["key"])];
    let kind = catalogue.transform("fixture_count").unwrap();
    let mut instance = kind.instance(&config, "c", &inputs, true, &context(), host.clone()).unwrap();
    instance.open().unwrap();
    let state = MemoryState::new(instance.states().to_vec());
    (instance, state)
}

#[test]
fn state_and_timers_cross() {
    let host = Arc::new(TestHost::default());
    let (mut count, mut state) = count(json!({}), &host);
    let mut process = |state: &mut MemoryState, keys: &[&str], values: &[i64]| {
        let batch = keyed(keys, values);
        let grouped = state.begin(&batch.project(&[0]).unwrap());
        count.process(0, &batch, Some(KeyedCall { key_of_row: &grouped.key_of_row, keys: &grouped.keys, state }))
    };
    assert!(process(&mut state, &["a", "b", "a"], &[1, 2, 3]).unwrap().is_empty());
    let value = |state: &MemoryState, key: &str| {
        let key = keyed(&[key], &[0]).project(&[0]).unwrap();
        state.value("count", &key).map(|value| value.as_primitive::<Int64Type>().value(0))
    };
    assert_eq!((value(&state, "a"), value(&state, "b")), (Some(2), Some(1)));
    assert_eq!(state.timers(), [(TimeDomain::EventTime, 3, 100), (TimeDomain::EventTime, 3, 100)]);

    // A row of 13 fails the call after it has written and emitted: none of that has been.
    let error = process(&mut state, &["a", "c"], &[1, 13]).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.code), ("transforms.c: fixture_count: 13 is no number", ErrorCode::DATA));
    assert_eq!((value(&state, "a"), value(&state, "c"), state.timers().len()), (Some(2), None, 2));

    let (time, slots, columns) = state.due(TimeDomain::EventTime, 100).unwrap();
    let grouped = state.begin(&columns);
    let timers: Vec<_> =
        grouped.key_of_row.iter().zip(slots).map(|(&ordinal, slot)| standpipe_loader::Timer { ordinal, slot, time }).collect();
    let keys = KeyedCall { key_of_row: &grouped.key_of_row, keys: &grouped.keys, state: &mut state };
    let emitted = count.on_timer(TimeDomain::EventTime, &timers, keys).unwrap();
    assert_eq!(emitted[0].batch, keyed(&["a", "b"], &[2, 1]));
    assert_eq!(value(&state, "a"), None);
}

#[test]
fn a_call_without_keys_where_they_are_needed_is_an_error() {
    let host = Arc::new(TestHost::default());
    let (mut count, _) = count(json!({}), &host);
    let error = count.process(0, &keyed(&["a"], &[1]), None).unwrap_err();
    assert!(error.message.starts_with("there is no keyed state in this call"), "{error}");
}

#[test]
fn a_sink_takes_batches() {
    let catalogue = catalogue(&[&example("loader_fixture")]);
    let sink = catalogue.sink("fixture_collect").unwrap();
    let host = Arc::new(TestHost::default());
    let mut instance = sink.instance(&json!({}), "out", &input(&numbers(&[]), &[]), &context(), host.clone()).unwrap();
    assert_eq!(instance.write(1, &numbers(&[1])).unwrap_err().message, "write was called on an instance that is not open");
    instance.open().unwrap();
    assert_eq!(instance.write(1, &numbers(&[1, 2])).unwrap(), Written::Taken);
    instance.flush(0).unwrap();
    assert_eq!((host.acknowledged(), host.metric("written")), (1, Some(2.0)));
    instance.finish().unwrap();
    instance.close(CloseReason::Finished).unwrap();
}
