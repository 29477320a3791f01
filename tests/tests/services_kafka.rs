//! The binary on a real Kafka: partitions without data, broken records, missing topics, and what goes with a record besides its value.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use base64::Engine;
use serde_json::{Value, json};
use services_support::{Kafka, OwnService, PATIENCE, run, unique};
use standpipe_tests::{Folder, Signal, assert_same_rows, rows};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// By how many seconds two partitions (`p`) drift apart at most in the order of the rows, while both have some left.
fn drift_of_partitions(rows: &[standpipe_tests::Row]) -> i64 {
    let of = |row: &standpipe_tests::Row| {
        let partition = row["p"].as_i64().unwrap() as usize;
        (partition, row["n"].as_i64().unwrap() * [10, 1][partition])
    };
    let (mut left, mut times, mut drift) = ([0, 0], [0, 0], 0);
    rows.iter().for_each(|row| left[of(row).0] += 1);
    for (partition, time) in rows.iter().map(of) {
        left[partition] -= 1;
        times[partition] = time.max(times[partition]);
        if left.iter().all(|left| *left > 0) {
            drift = drift.max((times[0] - times[1]).abs());
        }
    }
    drift
}

#[test]
fn partitions_that_are_far_apart_in_event_time_are_read_together() {
    let Some(kafka) = Kafka::shared() else { return };
    let topic = unique("aligned");
    // 5000 rows in each of two partitions, one of which is ten times as long in event time.
    let line = |(p, n): (i64, i64)| json!({ "p": p, "n": n, "t": n * if p == 0 { 10_000 } else { 1_000 } }).to_string();
    let lines: Vec<String> = (0..5_000).flat_map(|n| [(0, n), (1, n)]).map(line).collect();
    let create = json!({ "partition": "p", "create_topic": { "partitions": 2, "replication": 1 } });
    let schema = json!({ "p": "int32", "n": "int64", "t": "timestamp_ms" });
    kafka.write_rows(&topic, &lines.join("\n"), &schema, create);
    let read = |alignment: Value, arguments: &[&str]| {
        let with = kafka.with(&topic, json!({ "bounded": true }));
        let mut source = json!({ "connector": "kafka", "with": with, "format": "json", "schema": schema, "event_time": { "column": "t" } });
        source["event_time"].as_object_mut().unwrap().extend(alignment.as_object().cloned().unwrap());
        let mut sink = json!({ "connector": "file", "with": { "path": "out.jsonl" }, "format": "json" });
        sink["parallelism"] = json!(1);
        let mut pipeline = copy(&source, &sink);
        pipeline["engine"] = json!({ "batch_rows": 10 });
        let folder = Folder::new();
        run(&folder, &pipeline).args(arguments).finish().success();
        let found = rows(&folder.read("out.jsonl"));
        let all: std::collections::BTreeSet<_> = found.iter().map(|row| (row["p"].as_i64(), row["n"].as_i64())).collect();
        assert_eq!((found.len(), all.len()), (10_000, 10_000));
        drift_of_partitions(&found)
    };
    let apart = read(json!({}), &[]);
    assert!(apart > 20_000, "without max_drift they are far apart: {apart} s");
    // A batch of the long one is 100 s.
    let together = read(json!({ "max_drift": "60s" }), &[]);
    assert!(together <= 60 + 100, "{together} s");
    for over in [&["-p", "2"][..], &["-p", "2", "--processes", "2"]] {
        let together = read(json!({ "max_drift": "60s" }), over);
        assert!(together <= 60 + 20 * 100, "{over:?}: {together} s");
    }
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
fn tombstones_come_as_rows_and_deletes_go_as_tombstones() {
    let Some(kafka) = Kafka::shared() else { return };
    // The raw text of a null is a null record.
    let (raw, counts) = (unique("tombstones"), unique("deleted"));
    let folder = Folder::new();
    folder.write("lines", "{\"v\":\"{\\\"n\\\":1}\"}\n{\"v\":null}\n");
    let lines = json!({ "connector": "file", "with": { "path": "lines" }, "format": "json", "schema": { "v": "string" } });
    let with = kafka.with(&raw, json!({ "create_topic": { "partitions": 1, "replication": 1 } }));
    run(&folder, &copy(&lines, &json!({ "connector": "kafka", "with": with, "format": "raw" }))).finish().success();
    let read = |on_null: &str| {
        let mut source = numbers(&kafka, &raw);
        source["format"] = json!({ "type": "json", "on_null": on_null });
        source["with"]["metadata"] = json!(["offset"]);
        run(&Folder::new(), &copy(&source, &print())).finish()
    };
    assert_eq!(read("row").code(0).stdout, "{\"n\":1,\"offset\":0}\n{\"n\":null,\"offset\":1}\n");
    let skipped = read("skip").code(0);
    assert_eq!(skipped.stdout, "{\"n\":1,\"offset\":0}\n");
    assert!(!skipped.stderr.contains("broken"), "{}", skipped.stderr);
    assert!(read("broken").one_error(1).contains("a tombstone"));

    // An upsert stream: what a filter does not let pass any more is a delete.
    let rows = json!({ "k": "string", "n": "int64" });
    folder.write("lines", r#"{"k":"a","n":1}"#.to_owned() + "\n" + r#"{"k":"b","n":5}"# + "\n");
    let source = json!({ "connector": "file", "with": { "path": "lines" }, "format": "json", "schema": rows });
    let with = json!({ "deletes": "tombstone", "create_topic": { "partitions": 1, "replication": 1, "properties": { "cleanup.policy": "compact" } } });
    let pipeline = json!({
        "name": "deletes",
        "sources": { "rows": source },
        "transforms": {
            "sums": { "input": "rows", "key_by": ["k"], "aggregate": { "sum": "sum(n)" }, "emit": "changes" },
            "small": { "input": "sums", "filter": "sum < 3" },
        },
        "sinks": { "out": { "input": "small", "connector": "kafka", "with": kafka.with(&counts, with), "format": "json" } },
    });
    run(&folder, &pipeline).finish().success();
    let with = kafka.with(&counts, json!({ "bounded": true, "metadata": { "key": "key" } }));
    let source =
        json!({ "connector": "kafka", "with": with, "format": { "type": "json", "on_null": "row" }, "schema": { "sum": "int64" } });
    let found = run(&Folder::new(), &copy(&source, &print())).finish().code(0).stdout;
    let mut found: Vec<(Value, Value)> = standpipe_tests::rows(&found).iter().map(|row| (row["key"].clone(), row["sum"].clone())).collect();
    found.sort_by_key(|(key, _)| key.to_string());
    // Bytes are written as base64: a, b.
    assert_eq!(found, [(json!("YQ=="), json!(1)), (json!("Yg=="), Value::Null)]);
}

#[test]
fn partitions_that_are_added_while_a_job_runs_are_read() {
    let Some(kafka) = OwnService::start("kafka") else { return };
    let kafka_at = Kafka { bootstrap: kafka.address.clone() };
    let topic = kafka_at.topic_of("growing", 1, &[r#"{"n":0}"#]);
    let with = kafka_at.with(&topic, json!({ "start": "latest", "discovery_interval": "200ms", "metadata": ["partition"] }));
    let source = json!({ "connector": "kafka", "with": with, "format": "json", "schema": { "n": "int64" } });
    let folder = Folder::new();
    let mut job = run(&folder, &copy(&source, &print())).args(["--log-level", "info", "-p", "2"]).start();
    let add = |n: i64, partition: i32| {
        let line = json!({ "n": n, "p": partition }).to_string();
        kafka_at.write_rows(&topic, &line, &json!({ "n": "int64", "p": "int32" }), json!({ "partition": "p" }));
    };
    job.wait_until("the first row", PATIENCE, |job| {
        add(1, 0);
        job.stdout().contains("\"n\":1")
    });
    kafka.admin(&["topics", "--alter", "--topic", &topic, "--partitions", "3"]);
    // They are there before the job knows of them.
    (1..3).for_each(|partition| add(10 + i64::from(partition), partition));
    job.wait_until("rows of the new partitions", PATIENCE, |job| (11..13).all(|n| job.stdout().contains(&format!("\"n\":{n}"))));
    job.signal(Signal::INT);
    let found = job.wait().code(0).stdout;
    assert!(!found.contains("\"n\":0"), "{found}");
    assert_eq!(found.matches("\"n\":11").count() + found.matches("\"n\":12").count(), 2, "{found}");
}

/// An unsecured JSON Web Token of that many seconds.
fn token(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let part = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "sub": "pipeline", "iat": now, "exp": now + seconds });
    format!("{}.{}.", part(json!({ "alg": "none" })), part(claims))
}

#[test]
fn a_bearer_token_is_fetched_again_before_it_expires() {
    let Some(service) = OwnService::start("kafka") else { return };
    let plain = Kafka { bootstrap: service.address.clone() };
    let topic = plain.topic_of("bearer", 1, &[r#"{"n":0}"#]);
    let secured = |more: Value| {
        let mut with = json!({ "bootstrap": service.bearer, "topic": topic, "oauth_token": "$${file:token}",
            "properties": { "security.protocol": "sasl_plaintext", "sasl.mechanisms": "OAUTHBEARER" } });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with
    };
    let source = json!({ "connector": "kafka", "with": secured(json!({})), "format": "json", "schema": { "n": "int64" } });
    let folder = Folder::new();
    // A token that is none is refused at the start.
    folder.write("token", "nonsense");
    let refused = run(&folder, &copy(&source, &print())).finish().code(3);
    let line = refused.stderr.lines().last().unwrap();
    assert!(
        line.starts_with("error: sources.rows: ") && line.contains("refuse the connection") && line.contains("invalid_token"),
        "{line}"
    );

    // The brokers end a connection when its token expires, unless there is a new one.
    let (begun, lifetime) = (Instant::now(), 6);
    folder.write("token", token(lifetime));
    let mut job = run(&folder, &copy(&source, &print())).start();
    job.wait_until("the first row", PATIENCE, |job| job.stdout().contains("\"n\":0"));
    folder.write("token", token(3_600));
    job.wait_until("the first token's end", PATIENCE, |_| begun.elapsed() > Duration::from_secs(lifetime + 2));
    // The sink has the new token from the beginning, exactly once too.
    let with = secured(json!({ "delivery": "exactly-once" }));
    let lines = json!({ "connector": "file", "with": { "path": "lines" }, "format": "json", "schema": { "n": "int64" } });
    let mut write = copy(&lines, &json!({ "connector": "kafka", "with": with, "format": "json" }));
    (write["checkpoint"], write["name"]) = (json!({ "interval": "1s", "dir": "checkpoints" }), json!("write"));
    folder.write("lines", r#"{"n":1}"#);
    run(&folder, &write).finish().success();
    job.wait_until("the row behind it", PATIENCE, |job| job.stdout().contains("\"n\":1"));
    job.signal(Signal::INT);
    assert_eq!(job.wait().code(0).stdout, "{\"n\":0}\n{\"n\":1}\n");
}

#[test]
fn huge_records_go_through_and_what_is_too_large_goes_to_the_errors() {
    let Some(kafka) = Kafka::shared() else { return };
    let (huge, copied) = (unique("huge"), unique("copied"));
    let create =
        |bytes: u32| json!({ "create_topic": { "partitions": 1, "replication": 1, "properties": { "max.message.bytes": bytes } } });
    let sizes = [10, 9_000_000, 20, 4_000_000, 30];
    let folder = Folder::new();
    folder.write("lines", sizes.map(|size| "x".repeat(size)).join("\n"));
    let lines = json!({ "connector": "file", "with": { "path": "lines" }, "format": "raw", "schema": { "line": "string" } });
    run(&folder, &copy(&lines, &json!({ "connector": "kafka", "with": kafka.with(&huge, create(10_000_000)), "format": "raw" })))
        .finish()
        .success();
    // Larger than what is asked for at once.
    let with = kafka.with(&huge, json!({ "bounded": true, "properties": { "fetch.message.max.bytes": 100_000 } }));
    let source = json!({ "connector": "kafka", "with": with, "format": "raw", "schema": { "line": "string" } });
    for delivery in ["at-least-once", "exactly-once"] {
        let topic = format!("{copied}-{delivery}");
        let mut sink = json!({ "connector": "kafka", "with": kafka.with(&topic, create(5_000_000)), "format": "raw" });
        sink["with"]["delivery"] = json!(delivery);
        let mut pipeline = copy(&source, &sink);
        pipeline["checkpoint"] = json!({ "interval": "1s", "dir": format!("checkpoints-{delivery}") });
        pipeline["transforms"] = json!({ "why": { "input": "out.errors", "select": { "reason": "reason" } } });
        pipeline["sinks"]["refused"] = json!({ "input": "why", "connector": "file", "with": { "path": delivery }, "format": "json" });
        run(&folder, &pipeline).finish().success();
        let found: Vec<usize> = kafka.read(&topic).iter().map(|record| record.value.len()).collect();
        assert_eq!(found, [10, 20, 4_000_000, 30], "{delivery}");
        let refused = folder.read(delivery);
        assert_eq!(refused.lines().count(), 1, "{refused}");
        assert!(refused.contains("9000000 bytes"), "{refused}");
    }
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
