//! A job between a real Kafka and a real OpenSearch that is killed again and again, while its topic grows: what it has written is as if nothing had happened.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use serde_json::{Value, json};
use services_support::{Kafka, OpenSearch, PATIENCE, run, unique};
use standpipe_tests::{Folder, Signal, read_rows};
use std::collections::BTreeMap;

const ROWS: i64 = 20_000;
const KEYS: i64 = 50;

/// Reads the topic, counts by key; every row to a file, exactly once, and the newest count of every key to an index.
fn pipeline(kafka: &Kafka, search: &OpenSearch, topic: &str) -> Value {
    let with = kafka.with(topic, json!({ "group": topic }));
    let source = json!({ "connector": "kafka", "with": with, "format": "json", "schema": { "n": "int64", "k": "int64" } });
    let aggregate = json!({ "count": "count(*)", "sum": "sum(n)" });
    let index = search.with(&search.url, "totals", &["k"], &json!({}));
    json!({
        "name": "counts",
        "checkpoint": { "interval": "100ms", "dir": "checkpoints" },
        "sources": { "rows": source },
        "transforms": { "totals": { "input": "rows", "key_by": ["k"], "aggregate": aggregate, "emit": "changes" } },
        "sinks": {
            "all": { "input": "rows", "connector": "file", "with": { "path": "all.jsonl" }, "format": "json" },
            "index": { "input": "totals", "connector": "elasticsearch", "with": index },
        },
    })
}

#[test]
fn a_job_that_is_killed_again_and_again_counts_every_record_once() {
    let (Some(kafka), Some(search)) = (Kafka::shared(), OpenSearch::shared()) else { return };
    let topic = unique("killed");
    let produced = Folder::new();
    let fields = json!({ "n": { "kind": "sequence" }, "k": { "kind": "uniform-int", "min": 0, "max": KEYS - 1 } });
    let source = json!({ "connector": "generator", "with": { "rate": 4_000, "count": ROWS, "fields": fields } });
    kafka.write_rows(&topic, "", &json!({ "n": "int64" }), json!({ "create_topic": { "partitions": 3, "replication": 1 } }));
    let with = kafka.with(&topic, json!({ "key": "k" }));
    let sink = json!({ "input": "rows", "connector": "kafka", "with": with, "format": "json" });
    let produce = json!({ "name": "produce", "sources": { "rows": source }, "sinks": { "topic": sink } });
    let producer = run(&produced, &produce).start();

    let folder = Folder::new();
    let pipeline = pipeline(&kafka, &search, &topic);
    let start = |parallelism: &str, restore: &[&str]| {
        run(&folder, &pipeline).args(["-p", parallelism, "--log-level", "info"]).args(restore.iter().copied()).start()
    };
    let mut restore: &[&str] = &[];
    for parallelism in ["1", "2", "3", "1"] {
        let mut job = start(parallelism, restore);
        job.wait_until("checkpoints", PATIENCE, |job| job.stderr().matches("is durable after").count() >= 4);
        job.signal(Signal::KILL);
        _ = job.wait();
        restore = &["--restore", "latest"];
    }
    producer.wait().success();
    let mut job = start("2", restore);
    // All may be there before it does anything, and a signal would find nobody.
    job.wait_until("the start", PATIENCE, |job| job.stderr().contains("starts on"));
    job.wait_until("the last checkpoint of every record", PATIENCE, |_| {
        let counts = search.documents("totals");
        counts.iter().map(|row| row["count"].as_i64().unwrap()).sum::<i64>() == ROWS
    });
    job.signal(Signal::INT);
    job.wait().success();

    let mut numbers: Vec<i64> = read_rows(folder.at("all.jsonl")).iter().map(|row| row["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers == (0..ROWS).collect::<Vec<_>>(), "{} rows in the file", numbers.len());
    let mut expected: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for row in read_rows(folder.at("all.jsonl")) {
        let total = expected.entry(row["k"].as_i64().unwrap()).or_default();
        *total = (total.0 + 1, total.1 + row["n"].as_i64().unwrap());
    }
    let value = |row: &standpipe_tests::Row, name: &str| row[name].as_i64().unwrap();
    let found = search.documents("totals");
    let found: BTreeMap<i64, (i64, i64)> = found.iter().map(|row| (value(row, "k"), (value(row, "count"), value(row, "sum")))).collect();
    assert_eq!(found, expected);
}
