//! What the tests of parts share: a pipeline that writes the same rows as text, CSV and Parquet, and what must be in each.
#![allow(dead_code, reason = "each test file takes what it needs")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use arrow_array::{cast::AsArray, types::Int64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use standpipe_tests::{Random, Running, Signal, rows};
use std::{thread, time::Duration};

/// Starting, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const ROWS: i64 = 60_000;

/// A file or object: its name below the root, and its content.
pub(crate) type File = (String, Vec<u8>);

/// Writes below a root, which ends with `/`.
pub(crate) fn pipeline(root: &str, options: &Value) -> Value {
    let fields = json!({ "n": { "kind": "sequence" }, "k": { "kind": "uniform-int", "min": 0, "max": 4 }, "t": { "kind": "timestamp" } });
    let sink = |path: &str, roll: Value, format: Value| {
        let mut with = json!({ "path": format!("{root}{path}"), "roll": roll });
        if !options.is_null() {
            with["options"] = options.clone();
        }
        if !root.contains("://") {
            with["create_dirs"] = json!(true);
        }
        json!({ "input": "ticks", "connector": "file", "with": with, "format": format })
    };
    json!({
        "name": "parts",
        "checkpoint": { "interval": "100ms", "dir": "checkpoints" },
        "sources": { "ticks": { "connector": "generator", "with": { "rate": 8_000, "count": ROWS, "fields": fields } } },
        "sinks": {
            "text": sink("text/k={k}/", json!({ "size": "64KiB" }), json!("json")),
            "csv": sink("csv/", json!({ "interval": "200ms" }), json!({ "type": "csv", "header": true, "delimiter": ";" })),
            "table": sink("table/year={t:%Y}/", json!({ "size": "100KiB" }), json!({ "type": "parquet", "compression": "zstd" })),
        },
    })
}

/// A job that is killed at moments of no meaning, and goes on with another parallelism; the last run of it ends well.
pub(crate) fn killed_again_and_again(times: u32, start: impl Fn(&[&str]) -> Running) {
    let seed = Random::any_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut restore: &[&str] = &[];
    for _ in 0..times {
        let parallelism = (1 + random.below(3)).to_string();
        let mut run = start(&[&["--log-level", "info", "-p", &parallelism], restore].concat());
        let checkpoints = 1 + random.below(4) as usize;
        run.wait_until("checkpoints", PATIENCE, |run| run.stderr().matches("is durable after").count() >= checkpoints);
        // Into the next checkpoint, or between two.
        thread::sleep(Duration::from_millis(random.below(120)));
        run.signal(Signal::KILL);
        _ = run.wait();
        restore = &["--restore", "latest"];
    }
    start(&[&["-p", "2"], restore].concat()).wait().success();
}

/// Every row is there once, in every form, and nothing that a killed run has left.
pub(crate) fn assert_all_is_there_once(files: &[File]) {
    let below = |folder: &str| {
        files.iter().filter(move |(name, _)| name.starts_with(folder)).map(|(name, bytes)| (name.as_str(), bytes)).collect::<Vec<_>>()
    };
    let all = |mut numbers: Vec<i64>, what: &str| {
        numbers.sort_unstable();
        assert!(numbers == (0..ROWS).collect::<Vec<_>>(), "{what}: {} rows", numbers.len());
    };
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
    let mut numbers = Vec::new();
    for (name, bytes) in below("text/") {
        for row in rows(&text(bytes)) {
            assert!(name.starts_with(&format!("text/k={}/parts.text-", row["k"])) && name.ends_with(".jsonl"), "{name}: {row:?}");
            numbers.push(row["n"].as_i64().unwrap());
        }
    }
    all(numbers, "text");
    let mut numbers = Vec::new();
    for (name, bytes) in below("csv/") {
        let text = text(bytes);
        let mut lines = text.lines();
        assert!(lines.next() == Some("k;n;t") && name.ends_with(".csv"), "{name}");
        numbers.extend(lines.map(|line| line.split(';').nth(1).unwrap().parse::<i64>().unwrap()));
    }
    all(numbers, "csv");
    let mut numbers = Vec::new();
    for (name, bytes) in below("table/") {
        assert!(name.starts_with("table/year=2") && name.ends_with(".parquet"), "{name}");
        for batch in ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes.clone())).unwrap().build().unwrap() {
            numbers.extend(batch.unwrap().column_by_name("n").unwrap().as_primitive::<Int64Type>().values());
        }
    }
    all(numbers, "table");
    let known = ["text/", "csv/", "table/"].iter().map(|folder| below(folder).len()).sum::<usize>();
    assert_eq!(known, files.len(), "{:?}", files.iter().map(|(name, _)| name).collect::<Vec<_>>());
    assert!(files.iter().all(|(name, _)| !name.ends_with(".inprogress") && !name.contains("_standpipe")));
    assert!(below("text/").len() > 5 && below("table/").len() > 1, "there are parts");
}
