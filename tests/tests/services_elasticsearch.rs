//! What the sink promises on a real OpenSearch and a real Elasticsearch: a job that is killed has written each document once, an index that is read-only and a password that
//! rotates hold it up and lose nothing, tombstones, versions and data streams as a pipeline has them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use serde_json::{Value, json};
use services_support::{OpenSearch, PATIENCE, run};
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_tests::{Folder, Signal};
use std::{fmt::Write, time::Instant};

const ROWS: i64 = 12_000;

fn numbers(search: &OpenSearch, index: &str) -> Vec<i64> {
    let mut numbers: Vec<i64> = search.documents(index).iter().map(|row| row["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// A generator of so many rows `{n, k}` a second into an index.
fn generate(rate: u64, count: i64, with: &Value) -> Value {
    let fields = json!({ "n": { "kind": "sequence" }, "k": { "kind": "uniform-int", "min": 0, "max": 9 } });
    let source = json!({ "connector": "generator", "with": { "rate": rate, "count": count, "fields": fields } });
    let sink = json!({ "input": "rows", "connector": "elasticsearch", "with": with });
    json!({ "name": "numbers", "sources": { "rows": source }, "sinks": { "out": sink } })
}

/// The source is always far ahead of the sink, which the pace holds back: a checkpoint that did not wait for what was under way would lose it with the process.
#[test]
fn a_job_that_is_killed_writes_each_document_once() {
    for (search, op_types) in OpenSearch::each().zip([&["index", "create", "update"][..], &["index"], &["index"]]) {
        for op_type in op_types.iter().copied() {
            let folder = Folder::new();
            let text = "x".repeat(200);
            let lines = (0..ROWS).fold(String::new(), |mut lines, n| {
                writeln!(lines, "{{\"n\":{n},\"text\":\"{text}\"}}").unwrap();
                lines
            });
            folder.write("in.jsonl", lines);
            let source = json!({ "connector": "file", "with": { "path": "in.jsonl" }, "format": "json", "schema": { "n": "int64", "text": "string" } });
            let more =
                json!({ "op_type": op_type, "batch": { "max_docs": 250 }, "requests_per_second": 15.0, "in_flight": 3, "gzip": true });
            let sink = json!({ "input": "rows", "connector": "elasticsearch", "with": search.with(&search.url, op_type, &["n"], &more) });
            let pipeline = json!({
                "name": "killed",
                "checkpoint": { "interval": "50ms", "dir": "checkpoints" },
                "engine": { "in_flight_bytes": "256KiB", "batch_rows": 500 },
                "sources": { "rows": source },
                "sinks": { "out": sink },
            });
            let mut restore: &[&str] = &[];
            for _ in 0..2 {
                let mut job = run(&folder, &pipeline).args(["--log-level", "info"]).args(restore.iter().copied()).start();
                job.wait_until("checkpoints", PATIENCE, |job| job.stderr().matches("is durable after").count() >= 2);
                assert!(!job.has_ended(), "the job is done before it is killed");
                job.signal(Signal::KILL);
                _ = job.wait();
                restore = &["--restore", "latest"];
            }
            assert!(search.count(op_type) < ROWS as u64, "all was written before the last start");
            run(&folder, &pipeline).args(restore.iter().copied()).finish().success();
            assert!(numbers(&search, op_type) == (0..ROWS).collect::<Vec<_>>(), "{op_type}: {} documents", search.count(op_type));
        }
    }
}

#[test]
fn a_read_only_index_holds_the_job_up_and_loses_nothing() {
    for search in OpenSearch::each() {
        let block =
            |on: bool| _ = search.must("PUT", &format!("{}/_settings", search.index("blocked")), &json!({ "index.blocks.write": on }));
        let folder = Folder::new();
        let pipeline = generate(2_000, 20_000, &search.with(&search.url, "blocked", &["n"], &json!({})));
        let mut job = run(&folder, &pipeline).args(["--log-level", "info"]).start();
        job.wait_until("the first documents", PATIENCE, |_| search.count("blocked") > 0);
        block(true);
        let says = |text: &'static str| move |job: &standpipe_tests::Running| job.stderr().contains(text);
        job.wait_until("the engine says that the sink is degraded", PATIENCE, says("; trying again"));
        assert!(job.stderr().contains("does not take documents (cluster_block_exception"), "{}", job.stderr());
        block(false);
        job.wait_until("the sink says that it goes on", PATIENCE, says("documents are taken again"));
        job.wait().success();
        assert_eq!(numbers(&search, "blocked"), (0..20_000).collect::<Vec<_>>());
    }
}

/// Ten seconds after the signal the job ends, and says why.
#[test]
fn a_stop_does_not_wait_for_ever_for_an_index_that_is_read_only() {
    let Some(search) = OpenSearch::shared() else { return };
    let folder = Folder::new();
    let mut job = run(&folder, &generate(2_000, 1_000_000, &search.with(&search.url, "stopped", &["n"], &json!({})))).start();
    job.wait_until("the first documents", PATIENCE, |_| search.count("stopped") > 0);
    search.must("PUT", &format!("{}/_settings", search.index("stopped")), &json!({ "index.blocks.write": true }));
    job.wait_until("the sink is held up", PATIENCE, |job| job.stderr().contains("; trying again"));
    job.signal(Signal::INT);
    let stopped = Instant::now();
    let finished = job.wait().code(1);
    let error = finished.stderr.lines().last().unwrap();
    assert!(error.starts_with("error: sinks.out: elasticsearch: ") && error.contains("cluster_block_exception"), "{error}");
    assert!(stopped.elapsed() < PATIENCE / 2, "it took {:?}", stopped.elapsed());
}

/// The real server has no security here; the door before it has.
#[test]
fn a_password_that_rotates_is_read_again() {
    let Some(search) = OpenSearch::shared() else { return };
    // elastic:first and elastic:second, in base64.
    let asks = |user: &str| Faults { authorization: Some(format!("Basic {user}")), ..Faults::default() };
    let door = StandIn::proxy("127.0.0.1:0", &search.url, asks("ZWxhc3RpYzpmaXJzdA==")).unwrap();
    let folder = Folder::new();
    let password = folder.write("password", "first");
    let secret = format!("${{file:{}}}", password.display());
    let more = json!({ "username": "elastic", "password": secret, "batch": { "max_docs": 200, "max_age": "20ms" } });
    let pipeline = generate(2_000, 15_000, &search.with(&door.url(), "rotated", &["n"], &more));
    let mut job = run(&folder, &pipeline).args(["--log-level", "info"]).start();
    job.wait_until("the first documents", PATIENCE, |_| search.count("rotated") > 0);
    door.set_faults(asks("ZWxhc3RpYzpzZWNvbmQ="));
    job.wait_until("the sink says that it is refused", PATIENCE, |job| {
        job.stderr().contains("does not take documents (security_exception")
    });
    folder.write("password", "second");
    job.wait_until("the sink has read the file again", PATIENCE, |job| job.stderr().contains("the credentials have changed"));
    let finished = job.wait().success();
    assert!(!finished.stderr.contains("second"), "{}", finished.stderr);
    assert_eq!(numbers(&search, "rotated"), (0..15_000).collect::<Vec<_>>());
}

/// The rows are not in the order of their places: two writers, or a replay, would write them so.
#[test]
fn an_older_row_does_not_undo_a_newer_one() {
    for search in OpenSearch::each() {
        let folder = Folder::new();
        let lines = |versions: &[(i64, i64, &str)]| {
            versions.iter().fold(String::new(), |mut lines, (k, v, text)| {
                writeln!(lines, "{{\"k\":{k},\"v\":{v},\"text\":{text}}}").unwrap();
                lines
            })
        };
        let schema = json!({ "k": "int64", "v": "int64", "text": "string" });
        let source = |path: &str| json!({ "connector": "file", "with": { "path": path }, "format": "json", "schema": schema });
        let more = json!({ "version": "column", "version_column": "v", "tombstone": "text" });
        let sink = json!({ "input": "rows", "connector": "elasticsearch", "with": search.with(&search.url, "newest", &["k"], &more) });
        let job = |path: &str| json!({ "name": "newest", "sources": { "rows": source(path) }, "sinks": { "out": sink } });
        folder.write("new", lines(&[(1, 5, "\"new\""), (2, 7, "null"), (3, 1, "\"old\"")]));
        folder.write("old", lines(&[(1, 4, "\"old\""), (2, 6, "\"old\""), (3, 2, "\"new\""), (1, 3, "null")]));
        for (path, third) in [("new", "old"), ("old", "new"), ("new", "new"), ("old", "new")] {
            run(&folder, &job(path)).finish().success();
            let mut found: Vec<(i64, String)> = search
                .documents("newest")
                .iter()
                .map(|row| (row["k"].as_i64().unwrap(), row["text"].as_str().unwrap().to_owned()))
                .collect();
            found.sort();
            assert_eq!(found, [(1, "new".to_owned()), (3, third.to_owned())], "{path}");
        }
    }
}

#[test]
fn places_in_the_source_are_versions() {
    for search in OpenSearch::each() {
        let folder = Folder::new();
        folder.write("in.jsonl", "{\"k\":1,\"n\":1}\n{\"k\":2,\"n\":2}\n{\"k\":1,\"n\":3}\n");
        let with = json!({ "path": "in.jsonl", "metadata": ["offset"] });
        let source = json!({ "connector": "file", "with": with, "format": "json", "schema": { "k": "int64", "n": "int64" } });
        let sink = |version: &str| json!({ "input": "kept", "connector": "elasticsearch", "with": search.with(&search.url, "places", &["k"], &json!({ "version": version })) });
        let filter = json!({ "input": "rows", "filter": "n > 0" });
        let mut pipeline = json!({ "name": "places", "sources": { "rows": source }, "transforms": { "kept": filter }, "sinks": { "out": sink("position") } });
        for _ in 0..2 {
            run(&folder, &pipeline).finish().success();
            assert_eq!(numbers(&search, "places"), [2, 3]);
        }
        let version = search.must("GET", &format!("{}/_doc/1", search.index("places")), &Value::Null)["_version"].as_i64();
        assert_eq!(version, Some("{\"k\":1,\"n\":1}\n{\"k\":2,\"n\":2}\n".len() as i64));
        pipeline["sources"]["rows"]["with"] = json!({ "path": "in.jsonl" });
        let line = run(&folder, &pipeline).finish().one_error(2);
        assert!(line.contains("sinks.out.with.version: no column is the row's place in its source"), "{line}");
    }
}

#[test]
fn a_pipeline_writes_a_data_stream() {
    let Some(search) = OpenSearch::shared() else { return };
    let folder = Folder::new();
    let source = json!({
        "connector": "generator",
        "with": { "rate": 10_000, "count": 1_000, "fields": { "n": { "kind": "sequence" }, "time": { "kind": "timestamp" } } },
    });
    let select = json!({ "input": "rows", "select": { "@timestamp": "time", "n": "n" } });
    let more = json!({ "data_stream": true, "template": { "settings": { "number_of_replicas": 0 } } });
    let sink = json!({ "input": "timed", "connector": "elasticsearch", "with": search.with(&search.url, "stream", &["n"], &more) });
    let pipeline = json!({ "name": "stream", "sources": { "rows": source }, "transforms": { "timed": select }, "sinks": { "out": sink } });
    for _ in 0..2 {
        run(&folder, &pipeline).finish().success();
        assert_eq!(numbers(&search, "stream"), (0..1_000).collect::<Vec<_>>());
    }
    let name = search.index("stream");
    let streams = search.must("GET", &format!("_data_stream/{name}"), &Value::Null);
    assert_eq!(streams["data_streams"][0]["indices"].as_array().map(Vec::len), Some(1), "{streams}");
    search.must("DELETE", &format!("_data_stream/{name}"), &Value::Null);
    search.must("DELETE", &format!("_index_template/{name}"), &Value::Null);
}
