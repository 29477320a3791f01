//! Services that are stopped and started again in the middle of a run. The test has a Kafka and an OpenSearch of its own.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use serde_json::json;
use services_support::{Kafka, OpenSearch, OwnService, PATIENCE, run, unique};
use standpipe_tests::{Folder, Signal};
use std::thread;

const ROWS: i64 = 30_000;

/// What Kafka had taken is written again where its acknowledgement was lost: the ids make each row one document.
#[test]
fn kafka_and_opensearch_start_again_and_nothing_is_lost() {
    let Some((mut kafka, mut opensearch)) = start() else { return };
    let topic = unique("restart");
    let at = Kafka { bootstrap: kafka.address.clone() };
    let search = OpenSearch::at(opensearch.address.clone());
    let schema = json!({ "n": "int64", "k": "int64" });
    at.write_rows(&topic, "", &schema, json!({ "create_topic": { "partitions": 3, "replication": 1 } }));

    let folder = Folder::new();
    let fields = json!({ "n": { "kind": "sequence" }, "k": { "kind": "uniform-int", "min": 0, "max": 99 } });
    let source = json!({ "connector": "generator", "with": { "rate": 1_500, "count": ROWS, "fields": fields } });
    // Reconnecting soon: a test has less time than a user.
    let soon = json!({ "reconnect.backoff.max.ms": 500 });
    let with = at.with(&topic, json!({ "key": "k", "properties": soon }));
    let sink = json!({ "input": "rows", "connector": "kafka", "with": with, "format": "json" });
    let produce = json!({ "name": "produce", "sources": { "rows": source }, "sinks": { "topic": sink } });
    let mut producer = run(&folder, &produce).start();

    let with = at.with(&topic, json!({ "group": topic, "properties": soon }));
    let source = json!({ "connector": "kafka", "with": with, "format": "json", "schema": schema });
    let with = search.with(&search.url, "rows", &["n"], &json!({ "batch": { "max_docs": 500 } }));
    let sink = json!({ "input": "rows", "connector": "elasticsearch", "with": with });
    let consume = json!({ "name": "consume", "sources": { "rows": source }, "sinks": { "index": sink } });
    let mut consumer = run(&folder, &consume).args(["-p", "2", "--drain", "--log-level", "info"]).start();
    let count = || search.count("rows") as i64;

    consumer.wait_until("the first documents", PATIENCE, |_| count() > 0);
    kafka.stop();
    for run in [&mut producer, &mut consumer] {
        run.wait_until("the loss of the broker is noticed", PATIENCE, |run| run.stderr().contains("no broker can be reached"));
    }
    kafka.start_again();
    let before = count();
    assert!(before < ROWS, "the broker was away too late");
    consumer.wait_until("documents of the broker that is back", PATIENCE, |_| count() > before);

    opensearch.stop();
    consumer.wait_until("the sink says that it is held back", PATIENCE, |run| run.stderr().contains("does not take documents"));
    opensearch.start_again();
    consumer.wait_until("the sink says that it goes on", PATIENCE, |run| run.stderr().contains("documents are taken again"));

    producer.wait().success();
    consumer.wait_until("all documents", PATIENCE, |_| count() >= ROWS);
    consumer.signal(Signal::INT);
    consumer.wait().success();
    let mut numbers: Vec<i64> = search.documents("rows").iter().map(|row| row["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..ROWS).collect::<Vec<_>>());

    // A drained stop commits what was read: the group has nothing before it.
    let groups = kafka.admin(&["groups", "--describe", "--group", &topic]);
    let lags: Vec<&str> =
        groups.lines().filter(|line| line.starts_with(&topic)).filter_map(|line| line.split_whitespace().nth(5)).collect();
    assert_eq!(lags, ["0", "0", "0"], "{groups}");
}

/// Both at the same time. Only where the other tests have services too: else they would be fetched for this test alone.
fn start() -> Option<(OwnService, OwnService)> {
    let (_, _) = (standpipe_tests::kafka()?, standpipe_tests::opensearch()?);
    // A test that is skipped is noted by the name of its thread.
    let named = thread::Builder::new().name(thread::current().name().unwrap_or_default().to_owned());
    let kafka = named.spawn(|| OwnService::start("kafka")).unwrap();
    let opensearch = OwnService::start("opensearch");
    Some((kafka.join().unwrap()?, opensearch?))
}
