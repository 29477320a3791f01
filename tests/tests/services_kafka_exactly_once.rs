//! The binary between topics of a real Kafka, exactly once: killed again and again, in the middle of its commits, it leaves every record once for readers of committed
//! records, and no transaction that keeps them waiting.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use serde_json::{Value, json};
use services_support::{Kafka, OwnService, PATIENCE, run, unique};
use standpipe_tests::{Folder, Running, Signal, standpipe};

const ROWS: i64 = 20_000;

fn pipeline(kafka: &Kafka, from: &str, to: &str, more: Value) -> Value {
    let source = json!({ "connector": "kafka", "with": kafka.with(from, json!({})), "format": "json", "schema": { "n": "int64" } });
    let mut with = kafka.with(to, more);
    with["delivery"] = json!("exactly-once");
    json!({
        "name": to,
        "checkpoint": { "interval": "100ms", "dir": "checkpoints" },
        "sources": { "rows": source },
        "sinks": { "copy": { "input": "rows", "connector": "kafka", "with": with, "format": "json" } },
    })
}

/// The numbers that a reader of committed records sees, sorted.
fn committed(kafka: &Kafka, topic: &str) -> Vec<i64> {
    let records = kafka.read(topic);
    let mut numbers: Vec<i64> =
        records.iter().map(|record| serde_json::from_str::<Value>(&record.value).unwrap()["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_job_that_is_killed_in_its_commits_writes_every_record_once() {
    let Some(kafka) = Kafka::shared() else { return };
    let (from, to) = (unique("from"), unique("to"));
    let create = json!({ "create_topic": { "partitions": 3, "replication": 1 } });
    for topic in [&from, &to] {
        kafka.write_rows(topic, "", &json!({ "n": "int64" }), create.clone());
    }
    let source = json!({ "connector": "generator", "with": { "rate": 2_000, "count": ROWS, "fields": { "n": { "kind": "sequence" } } } });
    let sink = json!({ "input": "rows", "connector": "kafka", "with": kafka.with(&from, json!({ "key": "n" })), "format": "json" });
    let produced = Folder::new();
    let produce = json!({ "name": "produce", "sources": { "rows": source }, "sinks": { "topic": sink } });
    let producer = run(&produced, &produce).start();

    let folder = Folder::new();
    let pipeline = pipeline(&kafka, &from, &to, json!({}));
    let start = |parallelism: &str, restore: &[&str]| {
        run(&folder, &pipeline).args(["-p", parallelism, "--log-level", "info"]).args(restore.iter().copied()).start()
    };
    let mut restore: &[&str] = &[];
    for (checkpoints, parallelism) in (2..).zip(["1", "2", "3", "1", "2"]) {
        let mut job = start(parallelism, restore);
        // What is durable is committed at this moment.
        job.wait_until("checkpoints", PATIENCE, |job| job.stderr().matches("is durable after").count() >= checkpoints);
        job.signal(Signal::KILL);
        _ = job.wait();
        restore = &["--restore", "latest"];
    }
    producer.wait().success();
    let mut job = start("2", restore);
    job.wait_until("every record", PATIENCE, |_| committed(&kafka, &to).len() as i64 >= ROWS);
    job.signal(Signal::INT);
    job.wait().success();
    let found = committed(&kafka, &to);
    assert!(found == (0..ROWS).collect::<Vec<_>>(), "{} records", found.len());

    // A stop commits what it has: a start behind it finds nothing to write again.
    let mut job = start("1", restore);
    job.wait_until("a checkpoint", PATIENCE, |job| job.stderr().contains("is durable after"));
    job.signal(Signal::INT);
    job.wait().success();
    assert_eq!(committed(&kafka, &to).len() as i64, ROWS);

    // What a checkpoint holds for a commit is not dropped in silence by a sink that does not commit.
    let mut other = pipeline.clone();
    other["sinks"]["copy"]["with"]["delivery"] = json!("at-least-once");
    let refused = run(&folder, &other).args(restore.iter().copied()).finish();
    let line = refused.stderr.lines().last().unwrap();
    assert!(refused.code != Some(0) && line.starts_with("error: sinks.copy: ") && line.contains("does not commit any more"), "{line}");
}

/// A process that stands still while another one takes its job over, in its commits: when it goes on, it writes nothing and ends.
#[test]
fn a_process_that_was_thought_dead_writes_nothing_more() {
    let Some(kafka) = Kafka::shared() else { return };
    let (from, to) = (unique("from"), kafka.topic_of("to", 3, &[]));
    let source =
        json!({ "connector": "generator", "with": { "rate": 2_000, "count": ROWS / 2, "fields": { "n": { "kind": "sequence" } } } });
    let with = kafka.with(&from, json!({ "create_topic": { "partitions": 3, "replication": 1 } }));
    let sink = json!({ "input": "rows", "connector": "kafka", "with": with, "format": "json" });
    let produced = Folder::new();
    let produce = json!({ "name": "produce", "sources": { "rows": source }, "sinks": { "topic": sink } });
    kafka.write_rows(&from, "", &json!({ "n": "int64" }), json!({ "create_topic": { "partitions": 3, "replication": 1 } }));
    let producer = run(&produced, &produce).start();

    let folder = Folder::new();
    let pipeline = pipeline(&kafka, &from, &to, json!({}));
    let start = |restore: &[&str]| run(&folder, &pipeline).args(["-p", "2", "--log-level", "info"]).args(restore.iter().copied()).start();
    let durable = |count: usize| move |job: &Running| job.stderr().matches("is durable after").count() >= count;
    let mut zombie = start(&[]);
    zombie.wait_until("checkpoints", PATIENCE, durable(5));
    zombie.signal(Signal::STOP);
    let mut job = start(&["--restore", "latest"]);
    job.wait_until("checkpoints", PATIENCE, durable(3));
    zombie.signal(Signal::CONT);
    let ended = zombie.wait().code(1);
    assert!(ended.stderr.contains("another"), "{}", ended.stderr);
    producer.wait().success();
    job.wait_until("every record", PATIENCE, |_| committed(&kafka, &to).len() as i64 >= ROWS / 2);
    job.signal(Signal::INT);
    job.wait().success();
    let found = committed(&kafka, &to);
    assert!(found == (0..ROWS / 2).collect::<Vec<_>>(), "{} records", found.len());
}

#[test]
fn a_broker_that_goes_away_and_comes_back_loses_and_doubles_nothing() {
    let Some(mut service) = OwnService::start("kafka") else { return };
    let kafka = Kafka { bootstrap: service.address.clone() };
    let to = kafka.topic_of("to", 2, &[]);
    let count = 15_000;
    let source = json!({ "connector": "generator", "with": { "rate": 1_500, "count": count, "fields": { "n": { "kind": "sequence" } } } });
    let mut with = kafka.with(&to, json!({ "delivery": "exactly-once", "properties": { "reconnect.backoff.max.ms": 500 } }));
    with["max_pending"] = json!("10MiB");
    let pipeline = json!({
        "name": "write",
        "checkpoint": { "interval": "100ms", "dir": "checkpoints" },
        "sources": { "rows": source },
        "sinks": { "topic": { "input": "rows", "connector": "kafka", "with": with, "format": "json" } },
    });
    let folder = Folder::new();
    let mut job = run(&folder, &pipeline).args(["--log-level", "info"]).start();
    job.wait_until("checkpoints", PATIENCE, |job| job.stderr().matches("is durable after").count() >= 5);
    service.stop();
    // Records that cannot be sent are given up after 10 s; a marker that is on its way waits in librdkafka until a broker comes back, whatever it is told.
    let is_noticed = |job: &Running| ["trying again", "commit has not returned"].iter().any(|words| job.stderr().contains(words));
    job.wait_until("the loss of the broker is noticed", PATIENCE, is_noticed);
    service.start_again();
    job.wait().success();
    let found = committed(&kafka, &to);
    assert!(found == (0..count).collect::<Vec<_>>(), "{} records", found.len());
}

#[test]
fn a_bounded_job_commits_its_last_records_and_passes_on_what_is_refused() {
    let Some(kafka) = Kafka::shared() else { return };
    let lines: Vec<String> = (0..1_000).map(|n| json!({ "n": n }).to_string()).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (from, to) = (kafka.topic_of("from", 2, &lines), kafka.topic_of("to", 1, &[]));
    let mut pipeline = pipeline(&kafka, &from, &to, json!({ "max_pending": "4KiB", "properties": { "message.max.bytes": 1_000 } }));
    pipeline["sources"]["rows"]["with"]["bounded"] = json!(true);
    pipeline["checkpoint"]["interval"] = json!("1s");
    // One record in a hundred is too large.
    pipeline["transforms"] =
        json!({ "padded": { "input": "rows", "select": { "n": "n", "pad": "repeat('x', case when n % 100 = 0 then 2000 else 0 end)" } } });
    pipeline["sinks"]["copy"]["input"] = json!("padded");
    pipeline["sinks"]["refused"] =
        json!({ "input": "copy.errors", "connector": "file", "with": { "path": "refused.jsonl" }, "format": "json" });
    let folder = Folder::new();
    run(&folder, &pipeline).finish().success();
    let expected: Vec<i64> = (0..1_000).filter(|n| n % 100 != 0).collect();
    assert_eq!(committed(&kafka, &to), expected);
    let refused = standpipe_tests::read_rows(folder.at("refused.jsonl"));
    assert_eq!(refused.len(), 10);
    assert!(refused.iter().all(|row| row["reason"].as_str().unwrap().contains("take 1000 bytes")), "{refused:?}");
}

#[test]
fn without_checkpoints_it_is_refused_before_the_start() {
    let kafka = Kafka { bootstrap: "127.0.0.1:1".to_owned() };
    let mut pipeline = pipeline(&kafka, "from", "to", json!({}));
    pipeline.as_object_mut().unwrap().remove("checkpoint");
    let folder = Folder::new();
    let file = folder.write("job.yaml", pipeline.to_string());
    let line = standpipe(["check"]).args([file]).finish().one_error(2);
    assert!(line.contains("sinks.copy.with") && line.contains("add `checkpoint: {interval: 10s}`"), "{line}");
}
