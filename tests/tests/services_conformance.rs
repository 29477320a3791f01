//! `standpipe plugin check` on the Kafka connector, on a real broker.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod services_support;

use serde_json::{Value, json};
use services_support::{Kafka, unique};
use standpipe_tests::{Folder, plugin, standpipe};
use std::time::Duration;

/// Checks one kind of the connector, which must pass, and these checks must have been made.
fn passed(kind: &str, name: &str, config: &Value, batches: &str, passes: &[&str]) {
    let folder = Folder::new();
    let config = config.to_string();
    let run = standpipe(["plugin", "check"]).args([plugin("connector_kafka")]).args(["--kind", kind, "--name", name, "--config", &config]);
    let run = run.args(["--batches", batches, "--deadline", "15s", "--format", "json"]).in_directory(folder.path());
    let finished = run.timeout(Duration::from_secs(400)).finish();
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{}{}", finished.stdout, finished.stderr));
    let findings = report["reports"][0]["findings"].as_array().unwrap_or_else(|| panic!("{report:#}{}", finished.stderr));
    let failed: Vec<&Value> = findings.iter().filter(|found| found["verdict"] == "failed").collect();
    assert!(failed.is_empty(), "{kind} {name}: {failed:#?}");
    for check in passes {
        let finding = findings.iter().find(|found| found["check"] == *check).unwrap();
        assert_eq!(finding["verdict"], "passed", "{kind} {name}: {finding:#}");
    }
}

#[test]
fn the_kafka_source_passes() {
    let Some(kafka) = Kafka::shared() else { return };
    let lines: Vec<String> = (0..300).map(|n| format!("{{\"n\":{n}}}")).collect();
    let topic = kafka.topic_of("conformance", 3, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let always = [
        "lifecycle",
        "enumerator",
        "schema",
        "limits",
        "poll-deadline",
        "positions",
        "end",
        "commits",
        "nonsense",
        "cancellation",
        "threads",
        "leaks",
    ];
    passed("source", "kafka", &kafka.with(&topic, json!({"bounded": true, "metadata": ["offset"]})), "500", &always);
    passed("source", "kafka", &kafka.with(&topic, json!({"group": unique("group")})), "500", &always);
    let folder = Folder::new();
    passed(
        "source",
        "kafka-stand-in",
        &json!({"topics": {"a": 2}, "address_file": folder.at("address")}),
        "100",
        &["lifecycle", "cancellation"],
    );
}

#[test]
fn the_kafka_sink_passes() {
    let Some(kafka) = Kafka::shared() else { return };
    let always = [
        "lifecycle",
        "acknowledgements",
        "batches",
        "change-modes",
        "busy",
        "finish",
        "nonsense",
        "cancellation",
        "release",
        "threads",
        "leaks",
    ];
    let create = json!({"create_topic": {"partitions": 2, "replication": 1}, "key": "id"});
    passed("sink", "kafka", &kafka.with(&unique("conformance"), create.clone()), "3000", &always);
    let mut exactly_once = create;
    exactly_once["delivery"] = json!("exactly-once");
    let always = ["lifecycle", "transactions", "recovery", "finish", "nonsense", "cancellation", "release", "threads", "leaks"];
    passed("sink", "kafka", &kafka.with(&unique("conformance"), exactly_once), "320", &always);
}
