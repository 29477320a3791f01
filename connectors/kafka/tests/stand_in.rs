//! The stand-in cluster: it says where it is, has the topics asked for, serves the connector's own sink and source, and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss, reason = "a test fails by a panic")]

mod support;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, cast::AsArray};
use serde_json::json;
use standpipe_connector_kafka::{KafkaSink, KafkaStandIn};
use standpipe_sdk::{CloseReason, hosting::Polled, testing::Harness};
use std::sync::Arc;
use support::*;

#[test]
fn it_serves_a_pipeline_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("address");
    let mut stand_in = Harness::source::<KafkaStandIn>(json!({ "topics": { "signal": 4 }, "address_file": file }));
    assert!(stand_in.assign().unwrap().exhausted);
    let Polled::Batch { batch, .. } = stand_in.poll(10).unwrap() else { panic!("no row") };
    let bootstrap = batch["bootstrap"].as_string::<i32>().value(0).to_owned();
    assert!(batch["message"].as_string::<i32>().value(0).contains("stand-in"));
    assert_eq!(batch.num_rows(), 1);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), bootstrap);
    assert!(matches!(stand_in.poll(10).unwrap(), Polled::Idle));

    let values: ArrayRef = Arc::new(BinaryArray::from_iter_values(["a", "b"]));
    let rows = RecordBatch::try_from_iter_with_nullable([("value", values, true)]).unwrap();
    let mut sink = Harness::sink::<KafkaSink>(json!({ "bootstrap": bootstrap, "topic": "signal" }), rows.schema());
    sink.write(&rows).unwrap();
    sink.finish().unwrap();
    let config = json!({ "bootstrap": bootstrap, "topic": "signal", "bounded": true });
    assert_eq!(all_values(&read_to_end(&mut reading(&config), 4)), ["a", "b"]);

    stand_in.reader().unwrap().close(CloseReason::Stopped).unwrap();
    assert!(!file.exists());
    let gone = json!({ "bootstrap": bootstrap, "topic": "signal", "connect_timeout": "300ms" });
    assert!(source(&gone).open().is_err());
}

#[test]
fn it_names_what_is_wrong() {
    let problems = Harness::source::<KafkaStandIn>(json!({ "topics": { "a": 0 }, "brokers": 0 })).validate().unwrap().details.problems;
    assert_eq!(problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["topics.a", "brokers"]);
}
