//! The transform against a server of the test: what is asked and what comes of the answers, repeats, failures, several requests at the same time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod server;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::{Value, json};
use server::{Answer, Server};
use standpipe_sdk::{
    ErrorCode,
    testing::{Harness, TransformHarness},
};
use standpipe_transforms_http_enrich::HttpEnrich;
use std::{
    sync::{Arc, Condvar, Mutex, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

fn rows(sensors: &[Option<&str>], numbers: &[i64]) -> RecordBatch {
    let sensors: ArrayRef = Arc::new(StringArray::from(sensors.to_vec()));
    let numbers: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
    RecordBatch::try_from_iter_with_nullable([("sensor", sensors, true), ("n", numbers, true)]).unwrap()
}

fn enrich(more: Value) -> TransformHarness {
    let mut config = json!({"url": "http://127.0.0.1:1/", "keys": ["sensor"], "columns": {"room": "string", "limit": "float64"}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Harness::transform::<HttpEnrich>(config, rows(&[], &[]).schema())
}

/// A room and a limit of each sensor but `x`.
fn rooms(_: u64, keys: &[Value]) -> Answer {
    let room = |key: &Value| match key["sensor"].as_str() {
        Some("x") | None => Value::Null,
        Some(name) => json!({"room": format!("room of {name}"), "limit": name.len(), "more": [1]}),
    };
    (200, Value::Array(keys.iter().map(room).collect()).to_string())
}

#[test]
fn each_key_is_asked_once_and_its_answer_is_in_all_its_rows() {
    let server = Server::start(rooms);
    let mut enrich = enrich(json!({"url": server.url, "headers": {"Authorization": "Bearer abc"}}));
    let batch = rows(&[Some("bb"), Some("a"), Some("bb"), None, Some("x")], &[1, 2, 3, 4, 5]);
    let [out] = <[RecordBatch; 1]>::try_from(enrich.process(&batch).unwrap()).unwrap();
    let limits: ArrayRef = Arc::new(Float64Array::from(vec![Some(2.0), Some(1.0), Some(2.0), None, None]));
    let names = vec![Some("room of bb"), Some("room of a"), Some("room of bb"), None, None];
    assert_eq!(out.columns(), [batch.column(0).clone(), batch.column(1).clone(), limits, Arc::new(StringArray::from(names))]);
    assert_eq!(out.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["sensor", "n", "limit", "room"]);
    let questions = server.seen.questions.lock().unwrap();
    let (head, body) = &questions[0];
    assert_eq!(*body, json!([{"sensor": "bb"}, {"sensor": "a"}, {"sensor": null}, {"sensor": "x"}]));
    let head = head.to_lowercase();
    assert!(head.starts_with("post /keys http/1.1\r\n") && head.contains("authorization: bearer abc\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
}

#[test]
fn what_may_pass_is_tried_again() {
    let server = Server::start(|number, keys| match number {
        1 => (503, "come back\nlater".to_owned()),
        2 => (429, String::new()),
        _ => rooms(number, keys),
    });
    let retry = json!({"attempts": 3, "initial": "1ms"});
    let mut again = enrich(json!({"url": server.url, "retry": retry}));
    assert_eq!(again.process(&rows(&[Some("a")], &[1])).unwrap()[0].num_rows(), 1);
    assert_eq!(server.seen.requests.load(SeqCst), 3);

    let server = Server::start(|_, _| (503, "come back\nlater".to_owned()));
    let error = enrich(json!({"url": server.url, "retry": retry})).process(&rows(&[Some("a")], &[1])).unwrap_err();
    assert_eq!(error.to_string(), "transforms.node: http-enrich: the service answers 503 Service Unavailable: come back later, 3 times");
    assert_eq!((error.code, error.retryable, server.seen.requests.load(SeqCst)), (ErrorCode::EXTERNAL, true, 3));
    let unreachable = enrich(json!({"retry": retry})).process(&rows(&[Some("a")], &[1])).unwrap_err();
    assert!(
        unreachable.message.starts_with("the service does not answer: ") && unreachable.message.ends_with(", 3 times"),
        "{unreachable}"
    );
    let slow = Server::start(|number, keys| {
        std::thread::sleep(Duration::from_millis(500));
        rooms(number, keys)
    });
    let late =
        enrich(json!({"url": slow.url, "timeout": "50ms", "retry": {"attempts": 1}})).process(&rows(&[Some("a")], &[1])).unwrap_err();
    assert!(late.retryable && late.message.starts_with("the service does not answer: timeout"), "{late}");
}

#[test]
fn what_does_not_pass_ends_it_at_once() {
    let failure = |answer: Answer| {
        let server = Server::start(move |_, _| answer.clone());
        let error = enrich(json!({"url": server.url})).process(&rows(&[Some("a"), Some("b")], &[1, 2])).unwrap_err();
        assert_eq!((server.seen.requests.load(SeqCst), error.retryable), (1, false));
        error.message
    };
    assert_eq!(failure((401, "who are you?".to_owned())), "the service answers 401 Unauthorized: who are you?");
    assert_eq!(failure((200, "[null]".to_owned())), "the service was asked for 2 keys and answers 1");
    let cannot = "the service's answer cannot be read, inside of {\"answers\": ...}: ";
    for answer in ["", "no", "[", "{}", "[{\"room\": \"r\", \"limit\": \"high\"}, null]"] {
        let said = failure((200, answer.to_owned()));
        assert!(said.starts_with(cannot), "{said}");
    }
}

#[test]
fn several_requests_are_under_way_at_the_same_time_and_no_thread_is_one_too_many() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let held = Arc::clone(&gate);
    let server = Server::start(move |number, keys| {
        let (open, changed) = &*held;
        drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        rooms(number, keys)
    });
    let mut enrich = enrich(json!({"url": server.url}));
    let calls: Vec<_> = (0..4).map(|n| enrich.begin(0, &rows(&[Some("a")], &[n])).unwrap()).collect();
    let begin = Instant::now();
    while server.seen.open.load(SeqCst) < 4 {
        assert!(begin.elapsed() < Duration::from_secs(30), "they are one after another");
        std::thread::sleep(Duration::from_millis(1));
    }
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for (n, call) in (0..).zip(calls) {
        let out = enrich.wait(call).unwrap();
        assert_eq!(out[0].batch.column(1).as_ref(), &Int64Array::from(vec![n]) as &dyn arrow_array::Array);
    }
    // One after another they need one connection, which is one of the four.
    for n in 0..50 {
        enrich.process(&rows(&[Some("a")], &[n])).unwrap();
    }
    assert_eq!((server.seen.most.load(SeqCst), server.seen.requests.load(SeqCst)), (4, 54));
}

#[test]
fn wrong_configurations_are_problems() {
    let problems = |config: Value| {
        let details = enrich(config).validate().unwrap().details;
        details.problems.into_iter().map(|p| format!("{}: {} {:?}", p.path, p.message, p.suggestion)).collect::<Vec<_>>()
    };
    assert_eq!(problems(json!({})), Vec::<String>::new());
    assert_eq!(problems(json!({"url": "localhost:80"})), ["url: \"localhost:80\" is no http:// or https:// address None"]);
    assert_eq!(problems(json!({"url": "${env:URL}"})), Vec::<String>::new());
    assert_eq!(problems(json!({"keys": []})), ["keys: at least one column is needed None"]);
    assert_eq!(problems(json!({"keys": ["senso"]})), ["keys[0]: the input has no column \"senso\" Some(\"sensor\")"]);
    assert_eq!(problems(json!({"keys": ["n", "n"]})), ["keys[1]: \"n\" is there twice None"]);
    assert_eq!(problems(json!({"columns": {}})), ["columns: at least one column is needed None"]);
    assert_eq!(problems(json!({"columns": {"n": "string"}})), ["columns.n: the input has a column of that name None"]);
    assert!(problems(json!({"columns": {"m": "strin"}}))[0].starts_with("columns.m: "));
    assert_eq!(problems(json!({"headers": {"a b": "c"}})), ["headers.a b: \"a b\" is no name of a header None"]);
    assert_eq!(problems(json!({"headers": {"a": "b\nc"}})), ["headers.a: the value has characters that a header cannot have None"]);
    assert_eq!(problems(json!({"retry": {"attempts": 0}})), ["retry.attempts: must be at least 1 None"]);
    assert_eq!(problems(json!({"timeout": "0s"})), ["timeout: must be longer than 0s None"]);
}

#[test]
fn the_host_is_told_how_long_a_call_may_take() {
    let timeout = |config: Value| enrich(config).validate().unwrap().details.asynchronous.unwrap().timeout_ms;
    // 5 requests, waits of 0.2, 0.4, 0.8 and 1.6 s, and 10 s.
    assert_eq!(timeout(json!({})), Some(63_000));
    assert_eq!(
        timeout(json!({"timeout": "1s", "retry": {"attempts": 100, "max": "1s"}})),
        Some(32_000 + 28_000 + 1400 + 68 * 2_000 + 10_000)
    );
}
