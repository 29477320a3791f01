//! The binary on a real Kafka: partitions without data, broken records, missing topics, and what goes with a record besides its value.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use serde_json::{Value, json};
use services_support::{Kafka, PATIENCE, run, unique};
use standpipe_tests::{Folder, Signal, assert_same_rows, rows};

/// A pipeline from one source to one sink.
fn copy(source: &Value, sink: &Value) -> Value {
    let mut sink = sink.clone();
    sink["input"] = json!("rows");
    json!({ "name": "copy", "sources": { "rows": source }, "sinks": { "out": sink } })
}

/// A bounded source of `{n: int64}`.
fn numbers(kafka: &Kafka, topic: &str) -> Value {
    let with = kafka.with(topic, json!({ "bounded": true }));
    json!({ "connector": "kafka", "with": with, "format": "json", "schema": { "n": "int64" } })
}

fn print() -> Value {
    json!({ "connector": "print", "format": "json" })
}

#[test]
fn windows_fire_while_three_of_four_partitions_are_empty() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = unique("idle");
    // One key, so one partition. A row each second; the last one is in the eleventh window, which stays open.
    let lines: Vec<String> = (0..=100).map(|n| json!({ "k": "only", "t": n * 1_000, "n": n }).to_string()).collect();
    let create = json!({ "key": "k", "create_topic": { "partitions": 4, "replication": 1 } });
    kafka.write_rows(&topic, &lines.join("\n"), &json!({ "k": "string", "t": "timestamp_ms", "n": "int64" }), create);

    let source = json!({
        "connector": "kafka", "with": kafka.with(&topic, json!({})), "format": "json", "schema": { "k": "string", "t": "timestamp_ms", "n": "int64" },
        "event_time": { "column": "t", "out_of_orderness": "0s", "idle_timeout": "500ms" },
    });
    let sums =
        json!({ "input": "rows", "key_by": ["k"], "window": { "tumbling": "10s" }, "aggregate": { "count": "count(*)", "sum": "sum(n)" } });
    let out = json!({ "input": "sums", "connector": "print", "format": "json" });
    let pipeline = json!({ "name": "idle", "sources": { "rows": source }, "transforms": { "sums": sums }, "sinks": { "out": out } });
    let folder = Folder::new();
    let mut job = run(&folder, &pipeline).args(["-p", "4"]).start();
    job.wait_until("ten windows", PATIENCE, |job| job.stdout().lines().count() >= 10);
    job.signal(Signal::INT);
    let finished = job.wait().code(0);
    let found: Vec<(i64, i64)> =
        rows(&finished.stdout).iter().map(|row| (row["count"].as_i64().unwrap(), row["sum"].as_i64().unwrap())).collect();
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..10).map(|window| (10, window * 100 + 45)).collect::<Vec<_>>(), "{}", finished.stdout);
}

/// Good records and, at offset 2 and 4, broken ones.
const RECORDS: [&str; 6] = [r#"{"n":0}"#, r#"{"n":1}"#, r#"{"n":"#, r#"{"n":3}"#, "no JSON", r#"{"n":5}"#];

#[test]
fn a_broken_record_fails_the_job_with_its_place() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic_of("broken", 1, &RECORDS);
    let mut source = numbers(&kafka, &topic);
    source["with"]["metadata"] = json!(["offset"]);
    let folder = Folder::new();
    let sink = json!({ "connector": "file", "with": { "path": "out.jsonl" }, "format": "json" });
    let line = run(&folder, &copy(&source, &sink)).finish().one_error(1);
    assert!(line.starts_with(&format!("sources.rows: split \"{topic}-0\", offset 2: ")), "{line}");
    assert!(line.ends_with(r#" in {"n":"#), "{line}");
    assert_eq!(folder.names(), ["copy.yaml"], "a job that failed left a file");
}

#[test]
fn broken_records_are_skipped_and_counted() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic_of("broken", 1, &RECORDS);
    let mut source = numbers(&kafka, &topic);
    source["format"] = json!({ "type": "json", "on_error": "skip" });
    let finished = run(&Folder::new(), &copy(&source, &print())).finish().code(0);
    assert_eq!(finished.stdout, "{\"n\":0}\n{\"n\":1}\n{\"n\":3}\n{\"n\":5}\n");
    assert!(finished.stderr.trim_end().ends_with(": 6 rows in, 4 rows out, 2 broken"), "{}", finished.stderr);
}

#[test]
fn broken_records_go_to_another_topic_and_to_a_file() {
    let Some(kafka) = Kafka::shared() else { return };
    let (topic, letters) = (kafka.topic_of("broken", 1, &RECORDS), unique("letters"));
    let mut source = numbers(&kafka, &topic);
    source["format"] = json!({ "type": "json", "on_error": "dead-letter" });
    let mut pipeline = copy(&source, &print());
    let with = kafka.with(&letters, json!({ "key": "split", "create_topic": { "partitions": 1, "replication": 1 } }));
    pipeline["sinks"]["topic"] = json!({ "input": "rows.errors", "connector": "kafka", "with": with, "format": "json" });
    pipeline["sinks"]["file"] =
        json!({ "input": "rows.errors", "connector": "file", "with": { "path": "letters.jsonl" }, "format": "json" });
    let folder = Folder::new();
    let finished = run(&folder, &pipeline).finish().code(0);
    assert_eq!(finished.stdout, "{\"n\":0}\n{\"n\":1}\n{\"n\":3}\n{\"n\":5}\n");
    assert!(finished.stderr.trim_end().ends_with(", 2 broken"), "{}", finished.stderr);
    let in_topic: String = kafka.read(&letters).into_iter().map(|record| record.value + "\n").collect();
    assert_eq!(in_topic, folder.read("letters.jsonl"));
    let letters = rows(&in_topic);
    // Bytes are written as base64.
    for (letter, (record, reason)) in letters.iter().zip([("eyJuIjo=", "end of the record"), ("bm8gSlNPTg==", "expected an object")]) {
        assert_eq!((&letter["record"], &letter["split"]), (&json!(record), &json!(format!("{topic}-0"))));
        assert!(letter["reason"].as_str().unwrap().contains(reason), "{letter:?}");
    }
    assert_eq!(letters.len(), 2);
}

#[test]
fn a_missing_topic_is_named_with_the_one_that_was_meant() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = kafka.topic_of("measurements", 1, &RECORDS[..2]);
    let wrong = topic.replacen("measurements", "measurement", 1);
    let message = format!("kafka: there is no topic \"{wrong}\" on {}", kafka.bootstrap);
    let meant = format!(", did you mean \"{topic}\"?");

    let line = run(&Folder::new(), &copy(&numbers(&kafka, &wrong), &print())).finish().one_error(3);
    assert_eq!(line, format!("sources.rows: {message}{meant}"));

    let sink = json!({ "connector": "kafka", "with": kafka.with(&wrong, json!({})), "format": "json" });
    let line = run(&Folder::new(), &copy(&numbers(&kafka, &topic), &sink)).finish().one_error(3);
    assert_eq!(line, format!("sinks.out: {message} (`create_topic: {{partitions: N}}` would create it){meant}"));
}

#[test]
fn key_headers_timestamp_and_place_go_along_with_a_record() {
    let Some(kafka) = Kafka::shared() else { return };
    let (first, second) = (unique("metadata"), unique("mirror"));
    let lines = [
        json!({ "v": 1, "k": "a", "p": 1, "at": 1_700_000_000_123_u64, "h": { "trace": "x1", "empty": "" } }),
        json!({ "v": 2, "k": "b", "p": 0, "at": 1_700_000_000_456_u64, "h": {} }),
        json!({ "v": 3, "k": null, "p": 1, "at": 1_700_000_000_789_u64, "h": null }),
    ];
    let schema = json!({ "v": "int64", "k": "string", "p": "int32", "at": "timestamp_ms", "h": "map<string, string>" });
    let create = json!({ "partitions": 2, "replication": 1 });
    let text = lines.map(|line| line.to_string()).join("\n");
    let columns = json!({ "key": "k", "partition": "p", "timestamp": "at", "headers": "h", "create_topic": create });
    kafka.write_rows(&first, &text, &schema, columns);

    // A copy of the topic by what the source gives.
    let metadata = ["key", "headers", "timestamp", "partition", "offset", "topic"];
    let source = |topic: &str| {
        let with = kafka.with(topic, json!({ "bounded": true, "metadata": metadata }));
        json!({ "connector": "kafka", "with": with, "format": "json", "schema": { "v": "int64" } })
    };
    let with = json!({ "key": "key", "partition": "partition", "timestamp": "timestamp", "headers": "headers", "create_topic": create });
    let mirror = json!({ "connector": "kafka", "with": kafka.with(&second, with), "format": "json" });
    run(&Folder::new(), &copy(&source(&first), &mirror)).finish().success();

    for topic in [first, second] {
        let finished = run(&Folder::new(), &copy(&source(&topic), &print())).finish().code(0);
        let row = |v: i64, key: Value, headers: Value, time: i64, partition: i64, offset: i64| {
            let row = json!({ "v": v, "key": key, "headers": headers, "timestamp": time, "partition": partition, "offset": offset, "topic": topic });
            row.as_object().unwrap().clone()
        };
        // Bytes are written as base64.
        let expected = [
            row(1, json!("YQ=="), json!({ "trace": "eDE=", "empty": "" }), 1_700_000_000_123, 1, 0),
            row(2, json!("Yg=="), json!({}), 1_700_000_000_456, 0, 0),
            row(3, Value::Null, json!({}), 1_700_000_000_789, 1, 1),
        ];
        assert_same_rows(&topic, &rows(&finished.stdout), &expected);
    }
}
