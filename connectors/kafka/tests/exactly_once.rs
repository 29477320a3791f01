//! Delivery exactly once against a real Kafka: when records are there, what a repetition, a crash and a second start of the job make of them, and what is refused. The mock
//! brokers know too little of transactions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use arrow_array::{ArrayRef, BinaryArray, Int32Array, RecordBatch, StringArray};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    producer::Producer,
};
use serde_json::{Value, json};
use standpipe_connector_kafka::{KafkaSink, admin::block_on};
use standpipe_sdk::{
    Committable, ErrorCode, Recovered, Written,
    testing::{Harness, SinkHarness},
    wire::ChangeMode,
};
use std::sync::Arc;
use support::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn records(from: usize, to: usize) -> RecordBatch {
    let values: Vec<String> = (from..to).map(|n| format!("{n:06}")).collect();
    batch(vec![("value", Arc::new(BinaryArray::from_iter_values(&values)))])
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("{n:06}")).collect()
}

fn config(cluster: &Cluster, topic: &str) -> Value {
    json!({ "bootstrap": cluster.bootstrap, "topic": topic, "delivery": "exactly-once", "transactional_id_prefix": topic })
}

/// The start of a job with that number.
fn start(config: &Value, run: u32, restored: bool, subtask: u32) -> SinkHarness {
    Harness::sink::<KafkaSink>(config.clone(), records(0, 0).schema()).with_context(|context| {
        context.job_id = format!("{run:032x}");
        (context.generation, context.restored, context.subtask) = (u64::from(run), restored, subtask);
    })
}

fn write(sink: &mut SinkHarness, batch: &RecordBatch) {
    assert_eq!(sink.write(batch).unwrap(), Written::Taken);
}

fn prepare(sink: &mut SinkHarness, checkpoint: u64, subtask: u32) -> Committable {
    Committable { checkpoint, subtask, bytes: sink.instance().unwrap().prepare(checkpoint).unwrap() }
}

fn commit(sink: &mut SinkHarness, prepared: &[Committable]) {
    let up_to = prepared.last().unwrap().checkpoint;
    sink.instance().unwrap().commit(up_to, prepared).unwrap();
}

fn recover(sink: &mut SinkHarness, prepared: &[Committable]) -> Vec<Recovered> {
    sink.instance().unwrap().recover(prepared).unwrap()
}

/// What a reader of committed records sees, in the order of the one partition.
fn committed(cluster: &Cluster, topic: &str) -> Vec<String> {
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true });
    values_of(&read_to_end(&mut reading(&config), 1), &format!("{topic}-0"))
}

#[test]
fn records_are_there_when_their_checkpoint_is_committed() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("epochs", 1);
    let config = config(&cluster, &topic);
    let mut sink = start(&config, 1, false, 0);
    let capabilities = sink.validate().unwrap().details.capabilities;
    assert!(capabilities.transactional && capabilities.needs_log);
    write(&mut sink, &records(0, 10));
    assert_eq!(sink.host.acknowledged(), 1);
    write(&mut sink, &records(10, 20));
    sink.flush().unwrap();
    let first = prepare(&mut sink, 1, 0);
    write(&mut sink, &records(20, 30));
    // Nothing is in the log of the topic, not even for readers that do not wait for the end of transactions.
    let all =
        json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true, "properties": { "isolation.level": "read_uncommitted" } });
    assert_eq!(all_values(&read_to_end(&mut reading(&all), 1)), [""; 0]);
    commit(&mut sink, std::slice::from_ref(&first));
    assert_eq!(committed(&cluster, &topic), numbers(0, 20));
    // A commit that is repeated changes nothing; one that covers several checkpoints has them in order.
    let (second, empty) = (prepare(&mut sink, 2, 0), prepare(&mut sink, 3, 0));
    assert_eq!(empty.bytes, b"");
    write(&mut sink, &records(30, 40));
    let last = prepare(&mut sink, 4, 0);
    commit(&mut sink, &[first, second, empty, last]);
    assert_eq!(committed(&cluster, &topic), numbers(0, 40));
    sink.finish().unwrap();
}

#[test]
fn a_restart_commits_what_is_missing_and_nothing_twice() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("restart", 1);
    let config = config(&cluster, &topic);
    let mut sink = start(&config, 1, false, 0);
    write(&mut sink, &records(0, 10));
    let there = prepare(&mut sink, 1, 0);
    commit(&mut sink, std::slice::from_ref(&there));
    write(&mut sink, &records(10, 20));
    let missing = prepare(&mut sink, 2, 0);
    drop(sink);
    for run in 2..4 {
        let mut sink = start(&config, run, true, 0);
        let prepared = [there.clone(), missing.clone()];
        let expected = if run == 2 { Recovered::Commit } else { Recovered::Committed };
        assert_eq!(recover(&mut sink, &prepared), [Recovered::Committed, expected], "start {run}");
        // Asked again, after a failure on the way, it says the same.
        assert_eq!(recover(&mut sink, &prepared), [Recovered::Committed, expected], "start {run}");
        commit(&mut sink, &prepared);
        assert_eq!(committed(&cluster, &topic), numbers(0, 20));
    }
    // Numbers of another folder of checkpoints begin anew: that is not committed, though the marker says 2.
    let mut sink = start(&config, 4, false, 0);
    write(&mut sink, &records(20, 30));
    let first = prepare(&mut sink, 1, 0);
    drop(sink);
    let mut sink = start(&config, 5, true, 0);
    assert_eq!(recover(&mut sink, std::slice::from_ref(&first)), [Recovered::Commit]);
    commit(&mut sink, &[first]);
    assert_eq!(committed(&cluster, &topic), numbers(0, 30));
}

#[test]
fn a_former_start_is_fenced_for_good() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("zombie", 1);
    let config = config(&cluster, &topic);
    let mut zombie = start(&config, 1, false, 0);
    write(&mut zombie, &records(0, 10));
    let prepared = prepare(&mut zombie, 1, 0);
    let mut sink = start(&config, 2, true, 0);
    assert_eq!(recover(&mut sink, std::slice::from_ref(&prepared)), [Recovered::Commit]);
    // The first attempt finds its producer fenced, the next one finds out why.
    let mut attempt = || zombie.instance().unwrap().commit(1, std::slice::from_ref(&prepared)).unwrap_err();
    assert!(attempt().retryable);
    let error = attempt();
    assert!(!error.retryable && error.code == ErrorCode::EXTERNAL, "{error}");
    assert!(error.message.contains("has taken over") && error.message.contains("transactional_id_prefix"), "{error}");
    // Its attempts have fenced the owner's producer, which claims its own id again.
    let owner = sink.instance().unwrap();
    await_that("the owner goes on", || match owner.commit(1, std::slice::from_ref(&prepared)) {
        Ok(()) => true,
        Err(error) => {
            assert!(error.retryable, "{error}");
            false
        }
    });
    assert_eq!(committed(&cluster, &topic), numbers(0, 10));
}

#[test]
fn a_dangling_transaction_is_ended_by_the_next_start() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("dangling", 1);
    let config = config(&cluster, &topic);
    let mut sink = start(&config, 1, false, 0);
    write(&mut sink, &records(0, 10));
    let prepared = prepare(&mut sink, 1, 0);
    // A process that was killed in the middle of a commit: its transaction is open, and readers wait behind it.
    let killed = cluster.producer(&[("transactional.id", &format!("{topic}-{topic}-0")), ("transaction.timeout.ms", "600000")]);
    killed.init_transactions(PATIENCE).unwrap();
    killed.begin_transaction().unwrap();
    support::cluster::send(&killed, &topic, numbered(0, 0, 5));
    killed.flush(PATIENCE).unwrap();
    cluster.produce(&topic, [Message::new(0, "behind")]);
    assert_eq!(committed(&cluster, &topic), [""; 0]);
    let mut next = start(&config, 2, true, 0);
    assert_eq!(recover(&mut next, std::slice::from_ref(&prepared)), [Recovered::Commit]);
    assert_eq!(committed(&cluster, &topic), ["behind"]);
    commit(&mut next, &[prepared]);
    assert_eq!(committed(&cluster, &topic), [vec!["behind".to_owned()], numbers(0, 10)].concat());
    assert!(killed.commit_transaction(PATIENCE).is_err());
}

#[test]
fn what_former_subtasks_prepared_is_committed_by_those_that_are() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("rescaled", 1);
    let config = config(&cluster, &topic);
    let mut prepared = Vec::new();
    for subtask in [0, 1, 2] {
        let mut sink = start(&config, 1, false, subtask);
        let from = subtask as usize * 10;
        write(&mut sink, &records(from, from + 10));
        prepared.push(prepare(&mut sink, 1, subtask));
        if subtask == 1 {
            commit(&mut sink, &prepared[1..2]);
        }
    }
    let mut only = start(&config, 2, true, 0);
    assert_eq!(recover(&mut only, &prepared), [Recovered::Commit, Recovered::Committed, Recovered::Commit]);
    let open = [prepared[0].clone(), prepared[2].clone()];
    commit(&mut only, &open);
    let mut found = committed(&cluster, &topic);
    found.sort();
    assert_eq!(found, numbers(0, 30));
    write(&mut only, &records(30, 40));
    only.checkpoint(2).unwrap();
    assert_eq!(committed(&cluster, &topic).len(), 40);
}

#[test]
fn a_marker_that_is_gone_is_an_error_and_no_guess() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("forgotten", 1);
    let config = config(&cluster, &topic);
    let mut sink = start(&config, 1, false, 0);
    write(&mut sink, &records(0, 10));
    let prepared = prepare(&mut sink, 1, 0);
    commit(&mut sink, std::slice::from_ref(&prepared));
    drop(sink);
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", &cluster.bootstrap).create().unwrap();
    let group = format!("{topic}-{topic}-0");
    block_on(admin.delete_groups(&[&group], &AdminOptions::new()), PATIENCE).unwrap().unwrap()[0].as_ref().unwrap();
    for run in 2..4 {
        let error = start(&config, run, true, 0).instance().unwrap().recover(std::slice::from_ref(&prepared)).unwrap_err();
        assert!(!error.retryable && error.message.contains("not known any more") && error.message.contains(&group), "{error}");
    }
    assert_eq!(committed(&cluster, &topic), numbers(0, 10));
}

#[test]
fn what_the_brokers_would_refuse_is_refused_when_it_is_written() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic_with("refused", 2, &[("max.message.bytes", "20000"), ("cleanup.policy", "compact")]);
    let mut config = config(&cluster, &topic);
    (config["key"], config["partition"]) = (json!("k"), json!("p"));
    let rows = batch(vec![
        ("value", Arc::new(BinaryArray::from_iter_values(["small", &"x".repeat(19_990), "no key", "nowhere", "last"]))),
        ("k", Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("d"), Some("e")]))),
        ("p", Arc::new(Int32Array::from(vec![0, 0, 0, 2, 1]))),
    ]);
    let mut sink = Harness::sink::<KafkaSink>(config, rows.schema());
    write(&mut sink, &rows);
    let refused: Vec<_> = sink.host.rejections().into_iter().map(|(seq, refused)| (seq, refused.row, refused.reason)).collect();
    let rows_of: Vec<_> = refused.iter().map(|(seq, row, _)| (*seq, *row)).collect();
    assert_eq!(rows_of, [(1, 1), (1, 2), (1, 3)], "{refused:?}");
    for (reason, part) in refused.iter().map(|(.., reason)| reason).zip(["take 20000 bytes", "no key", "no partition 2"]) {
        assert!(reason.contains(part), "{reason}");
    }
    // A partition that is added later is found.
    cluster.grow(&topic, 3);
    await_that("the new partition", || {
        let row = rows.slice(3, 1);
        let before = sink.host.rejections().len();
        write(&mut sink, &row);
        sink.host.rejections().len() == before
    });
    sink.checkpoint(1).unwrap();
    let read = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true });
    assert_eq!(all_values(&read_to_end(&mut reading(&read), 3)), ["last", "nowhere", "small"]);
}

#[test]
fn beyond_its_room_it_holds_up_its_sources_until_the_next_checkpoint() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("room", 1);
    let mut config = config(&cluster, &topic);
    config["max_pending"] = json!("64KiB");
    let mut sink = start(&config, 1, false, 0);
    while sink.host.acknowledged() == sink.written() {
        write(&mut sink, &records(0, 1_000));
        assert!(sink.written() < 100, "there is no end to its room");
    }
    let (written, acknowledged) = (sink.written(), sink.host.acknowledged());
    assert!(acknowledged > 0 && written == acknowledged + 1);
    let prepared = prepare(&mut sink, 1, 0);
    write(&mut sink, &records(0, 1));
    assert_eq!(sink.host.acknowledged(), acknowledged, "what is prepared is held too");
    commit(&mut sink, &[prepared]);
    assert_eq!(sink.host.acknowledged(), written + 1);
    assert_eq!(committed(&cluster, &topic).len() as u64, written * 1_000);
}

#[test]
fn deletes_are_tombstones_where_that_is_asked_for() {
    let Some(cluster) = Cluster::real() else { return };
    let fields = batch(vec![
        ("value", Arc::new(BinaryArray::from_iter_values(["1", "old", "new", "gone"]))),
        ("k", Arc::new(StringArray::from(vec!["a", "b", "b", "a"]))),
        ("op", Arc::new(StringArray::from(vec!["+I", "-U", "+U", "-D"]))),
    ]);
    let role = std::collections::HashMap::from([("standpipe.role".to_owned(), "row_kind".to_owned())]);
    let plain = fields.schema();
    let typed = plain.fields().iter().map(|field| {
        let field = field.as_ref().clone();
        if field.name() == "op" { field.with_metadata(role.clone()) } else { field }
    });
    let schema = Arc::new(arrow_schema::Schema::new(typed.collect::<Vec<_>>()));
    let rows = fields.with_schema(schema.clone()).unwrap();
    for delivery in ["at-least-once", "exactly-once"] {
        let topic = cluster.topic_with("deletes", 1, &[("cleanup.policy", "compact")]);
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "delivery": delivery, "deletes": "tombstone" });
        let mut sink = Harness::sink::<KafkaSink>(config, schema.clone()).with_mode(ChangeMode::Retract, &["k"]);
        assert_eq!(sink.validate().unwrap().details.columns, ["k", "op"]);
        write(&mut sink, &rows);
        sink.checkpoint(1).unwrap();
        assert_eq!(sink.host.acknowledged(), 1);
        let read = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true, "metadata": ["key"] });
        let reads = read_to_end(&mut reading(&read), 1);
        let found: Vec<_> = reads.iter().flat_map(|read| texts(&read.batch, "key").into_iter().zip(texts(&read.batch, "value"))).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(found, [(some("a"), some("1")), (some("b"), some("new")), (some("a"), None)], "{delivery}");
    }
}

#[test]
fn a_transaction_longer_than_the_brokers_allow_is_refused_at_the_start() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("timeout", 1);
    let mut config = config(&cluster, &topic);
    config["properties"] = json!({ "transaction.timeout.ms": 7_200_000 });
    let error = start(&config, 1, false, 0).open().unwrap_err();
    assert_eq!(error.code, ErrorCode::CONFIG, "{error}");
    assert!(error.to_string().contains("transaction.max.timeout.ms"), "{error}");
}

#[test]
fn settings_that_cannot_hold_are_refused() {
    let problems = |more: Value| {
        let mut config = json!({ "bootstrap": "a:1", "topic": "t" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let problems = Harness::sink::<KafkaSink>(config, records(0, 0).schema()).validate().unwrap().details.problems;
        problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    let exactly = |properties: Value| problems(json!({ "delivery": "exactly-once", "properties": properties }));
    assert_eq!(exactly(json!({ "transaction.timeout.ms": 60_000, "message.timeout.ms": 30_000 })), [""; 0]);
    for wrong in ["transactional.id", "acks", "enable.idempotence"] {
        assert_eq!(exactly(json!({ wrong: "0" })), [format!("properties.{wrong}")]);
    }
    assert_eq!(exactly(json!({ "transaction.timeout.ms": 5_000 })), ["properties.transaction.timeout.ms"]);
    assert_eq!(exactly(json!({ "message.timeout.ms": 0 })), ["properties.message.timeout.ms"]);
    assert_eq!(exactly(json!({ "delivery.timeout.ms": 70_000 })), ["properties.delivery.timeout.ms"]);
    assert_eq!(exactly(json!({ "allow.auto.create.topics": true })), ["properties.allow.auto.create.topics"]);
    assert_eq!(problems(json!({ "transactional_id_prefix": "x" })), ["transactional_id_prefix"]);
    assert_eq!(problems(json!({ "properties": { "transaction.timeout.ms": 60_000 } })), ["properties.transaction.timeout.ms"]);
    assert_eq!(problems(json!({ "delivery": "exactly-once", "transactional_id_prefix": "" })), ["transactional_id_prefix"]);
    assert_eq!(problems(json!({ "max_pending": "2GiB" })), ["max_pending"]);
    assert_eq!(problems(json!({ "deletes": "tombstone" })), ["deletes"]);
}
