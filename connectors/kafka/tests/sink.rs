//! The sink against the mock brokers and, where STANDPIPE_TEST_KAFKA names one, a real Kafka: what it writes, where, what it acknowledges and what it refuses.
//! What it wrote is read back by the connector's own source.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss, reason = "a test fails by a panic")]

mod support;

use arrow_array::{
    ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    builder::{BinaryBuilder, MapBuilder, StringBuilder},
    cast::AsArray,
    types::{Int32Type, TimestampMillisecondType},
};
use serde_json::{Value, json};
use standpipe_connector_kafka::KafkaSink;
use standpipe_sdk::{
    ErrorCode, Written,
    testing::{Harness, SinkHarness},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use support::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn values(values: impl IntoIterator<Item = Option<String>>) -> ArrayRef {
    let values: Vec<_> = values.into_iter().collect();
    Arc::new(BinaryArray::from_iter(values.iter().map(|value| value.as_ref().map(String::as_bytes))))
}

fn numbered(from: usize, to: usize) -> RecordBatch {
    batch(vec![("value", values((from..to).map(|n| Some(format!("{n:06}")))))])
}

fn expected(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("{n:06}")).collect()
}

/// A sink for batches like this one.
fn sink(config: &Value, like: &RecordBatch) -> SinkHarness {
    Harness::sink::<KafkaSink>(config.clone(), like.schema())
}

/// Gives a batch again until the sink takes it.
fn write(sink: &mut SinkHarness, batch: &RecordBatch) {
    await_that("the sink takes the batch", || sink.write(batch).unwrap() == Written::Taken);
}

fn read_back(cluster: &Cluster, topic: &str, splits: usize, metadata: Value) -> Vec<Read> {
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true, "metadata": metadata });
    read_to_end(&mut reading(&config), splits)
}

on_clusters! {
    /// All rows of all batches, in order, acknowledged by the end of the flush.
    fn what_is_written_is_there_in_order(cluster) {
        let topic = cluster.topic("written", 1);
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic });
        let mut sink = sink(&config, &numbered(0, 0));
        for n in 0..10 {
            write(&mut sink, &numbered(n * 500, (n + 1) * 500));
        }
        write(&mut sink, &numbered(0, 0));
        sink.flush().unwrap();
        assert_eq!(sink.host.acknowledged(), 11);
        let reads = read_back(cluster, &topic, 1, json!([]));
        assert_eq!(values_of(&reads, &format!("{topic}-0")), expected(0, 5_000));
        sink.finish().unwrap();
    }

    /// Acknowledgements come by themselves: a host that waits for one before it writes more is not stuck.
    fn a_batch_is_acknowledged_without_a_flush(cluster) {
        let topic = cluster.topic("acknowledged", 1);
        let mut sink = sink(&json!({ "bootstrap": cluster.bootstrap, "topic": topic }), &numbered(0, 0));
        write(&mut sink, &numbered(0, 10));
        assert!(sink.host.wait_until(PATIENCE, |host| host.acknowledged() == 1));
    }

    /// Keys go to the partitions to which Java's producer sends them: murmur2, the sign bit cleared, modulo the number of partitions.
    /// The hashes are those of Kafka's own test (org.apache.kafka.common.utils.UtilsTest.testMurmur2).
    fn keys_go_where_java_sends_them(cluster) {
        let topic = cluster.topic("keys", 4);
        let hashes: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        let keys: Vec<&str> = hashes.iter().map(|(key, _)| *key).collect();
        let rows = batch(vec![("value", values(keys.iter().map(|key| Some((*key).to_owned())))), ("k", Arc::new(StringArray::from(keys.clone())))]);
        let mut sink = sink(&json!({ "bootstrap": cluster.bootstrap, "topic": topic, "key": "k" }), &rows);
        write(&mut sink, &rows);
        sink.flush().unwrap();
        let mut found = BTreeMap::new();
        for read in read_back(cluster, &topic, 4, json!(["key", "partition"])) {
            let partition = read.batch["partition"].as_primitive::<Int32Type>().value(0);
            for (key, value) in texts(&read.batch, "key").into_iter().zip(texts(&read.batch, "value")) {
                assert_eq!(key, value);
                found.insert(key.unwrap(), partition);
            }
        }
        let expected: BTreeMap<String, i32> = hashes.iter().map(|(key, hash)| ((*key).to_owned(), (hash & 0x7fff_ffff) % 4)).collect();
        assert_eq!(found, expected);
    }

    /// A number as key is its text; partition and timestamp come from columns; a null value is a tombstone.
    fn key_partition_and_timestamp_come_from_columns(cluster) {
        let topic = cluster.topic("columns", 3);
        let rows = batch(vec![
            ("value", values([Some("a".to_owned()), None, Some(String::new())])),
            ("id", Arc::new(Int64Array::from(vec![Some(42), Some(22), None]))),
            ("p", Arc::new(Int32Array::from(vec![Some(2), Some(2), Some(2)]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_123_999), Some(5_000), Some(7_000)]))),
        ]);
        let mut sink = sink(&json!({ "bootstrap": cluster.bootstrap, "topic": topic, "key": ["id"], "partition": "p", "timestamp": "at" }), &rows);
        assert_eq!(sink.validate().unwrap().details.columns, ["id", "p", "at"]);
        write(&mut sink, &rows);
        sink.flush().unwrap();
        let reads = read_back(cluster, &topic, 3, json!(["key", "timestamp"]));
        assert!(reads.iter().all(|read| read.split == format!("{topic}-2")));
        let batch = &together(&reads);
        assert_eq!(texts(batch, "value"), [Some("a".to_owned()), None, Some(String::new())]);
        assert_eq!(texts(batch, "key"), [Some("42".to_owned()), Some("22".to_owned()), None]);
        assert_eq!(batch["timestamp"].as_primitive::<TimestampMillisecondType>().values(), &[1_700_000_000_123, 5, 7]);
    }

    /// Headers come from a map column and are read as they were: in order, a name twice, null and empty values, rows without any.
    fn headers_come_from_a_map_column(cluster) {
        let topic = cluster.topic("headers", 1);
        let mut headers = MapBuilder::new(None, StringBuilder::new(), BinaryBuilder::new());
        for (name, value) in [("a", Some("1")), ("a", None), ("b", Some(""))] {
            headers.keys().append_value(name);
            headers.values().append_option(value);
        }
        headers.append(true).unwrap();
        headers.append(false).unwrap();
        headers.append(true).unwrap();
        headers.keys().append_value("c");
        headers.values().append_value("last");
        headers.append(true).unwrap();
        let rows = batch(vec![("value", values((0..4).map(|n| Some(n.to_string())))), ("h", Arc::new(headers.finish()))]);
        let mut sink = sink(&json!({ "bootstrap": cluster.bootstrap, "topic": topic, "headers": "h" }), &rows);
        assert_eq!(sink.validate().unwrap().details.columns, ["h"]);
        write(&mut sink, &rows.slice(0, 2));
        // A part of an array, whose offsets do not begin with 0.
        write(&mut sink, &rows.slice(2, 2));
        sink.flush().unwrap();
        let reads = read_back(cluster, &topic, 1, json!(["headers"]));
        let found: Vec<Vec<(String, Option<Vec<u8>>)>> = reads.iter().flat_map(|read| {
            let column = read.batch["headers"].as_map();
            column.iter().map(|entry| {
                let entry = entry.unwrap();
                let names = entry.column(0).as_string::<i32>().iter().map(|name| name.unwrap().to_owned());
                names.zip(entry.column(1).as_binary::<i32>().iter().map(|value| value.map(<[u8]>::to_vec))).collect()
            }).collect::<Vec<_>>()
        }).collect();
        let header = |name: &str, value: Option<&str>| (name.to_owned(), value.map(|value| value.as_bytes().to_vec()));
        assert_eq!(found, [vec![header("a", Some("1")), header("a", None), header("b", Some(""))], vec![], vec![], vec![header("c", Some("last"))]]);
    }

    /// A record that can never be delivered is refused alone, with the reason, before its batch is acknowledged.
    fn what_cannot_be_delivered_is_refused_alone(cluster) {
        let topic = cluster.topic("refused", 2);
        let rows = batch(vec![
            ("value", values(["small".to_owned(), "x".repeat(60_000), "last".to_owned()].map(Some))),
            ("p", Arc::new(Int32Array::from(vec![0, 0, 1]))),
        ]);
        let bad_partition = batch(vec![("value", values([Some("lost".to_owned())])), ("p", Arc::new(Int32Array::from(vec![7])))]);
        let properties = json!({ "message.max.bytes": 50_000 });
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "partition": "p", "properties": properties });
        let mut sink = sink(&config, &rows);
        write(&mut sink, &rows);
        write(&mut sink, &bad_partition);
        sink.flush().unwrap();
        let refused = sink.host.rejections();
        assert_eq!(refused.iter().map(|(seq, refused)| (*seq, refused.row)).collect::<Vec<_>>(), [(1, 1), (2, 0)]);
        assert!(refused[0].1.reason.contains("60000 bytes") && refused[0].1.reason.contains("message.max.bytes"), "{:?}", refused[0]);
        assert!(refused[1].1.reason.contains("no partition 7"), "{:?}", refused[1]);
        assert_eq!(sink.host.acknowledged(), 2);
        assert_eq!(all_values(&read_back(cluster, &topic, 2, json!([]))), ["last", "small"]);
    }

    /// A full queue is no wait and no loss: the batch is offered again and goes on where it stopped.
    fn a_full_queue_is_busy_and_wakes(cluster) {
        let topic = cluster.topic("busy", 1);
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": { "queue.buffering.max.messages": 100 } });
        let mut sink = sink(&config, &numbered(0, 0));
        let mut busy = 0;
        for n in 0..5 {
            while sink.write(&numbered(n * 1_000, (n + 1) * 1_000)).unwrap() == Written::Busy {
                busy += 1;
                assert!(sink.host.wait_until(PATIENCE, |host| host.wakes() >= busy), "no wake after busy {busy}");
            }
        }
        assert!(busy > 0);
        sink.flush().unwrap();
        assert_eq!(sink.host.acknowledged(), 5);
        assert_eq!(values_of(&read_back(cluster, &topic, 1, json!([])), &format!("{topic}-0")), expected(0, 5_000));
    }

    /// A missing topic is an error at the start, and is not created.
    fn a_missing_topic_is_named(cluster) {
        let topic = cluster.topic("summaries", 1);
        let wrong = topic.replacen("summaries", "summary", 1);
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": wrong });
        for _ in 0..2 {
            let error = sink(&config, &numbered(0, 0)).open().unwrap_err();
            assert_eq!(error.code, ErrorCode::EXTERNAL);
            assert!(error.message.contains(&wrong) && error.message.contains(&cluster.bootstrap), "{error}");
        }
    }
}

#[test]
fn brokers_that_go_away_and_come_back_lose_nothing() {
    let cluster = Cluster::mock();
    let topic = cluster.topic("outage", 1);
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": { "reconnect.backoff.max.ms": 200 } });
    let mut sink = sink(&config, &numbered(0, 0));
    write(&mut sink, &numbered(0, 10));
    sink.flush().unwrap();
    let mock = cluster.mock.as_ref().unwrap();
    mock.broker_down(-1).unwrap();
    write(&mut sink, &numbered(10, 20));
    let host = sink.host.clone();
    let reported =
        |host: &standpipe_sdk::testing::TestHost| host.messages().iter().any(|message| message.contains("no broker can be reached"));
    assert!(host.wait_until(PATIENCE, reported));
    assert_eq!(host.acknowledged(), 1);
    mock.broker_up(-1).unwrap();
    sink.flush().unwrap();
    assert_eq!(host.acknowledged(), 2);
    assert_eq!(values_of(&read_back(&cluster, &topic, 1, json!([])), &format!("{topic}-0")), expected(0, 20));
}

#[test]
fn a_record_that_no_queue_can_hold_is_refused() {
    let cluster = Cluster::mock();
    let topic = cluster.topic("queue", 1);
    let rows = batch(vec![("value", values(["first".to_owned(), "x".repeat(5_000), "last".to_owned()].map(Some)))]);
    let mut sink =
        sink(&json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": { "queue.buffering.max.kbytes": 2 } }), &rows);
    write(&mut sink, &rows);
    sink.flush().unwrap();
    let refused = sink.host.rejections();
    assert_eq!(refused.iter().map(|(seq, refused)| (*seq, refused.row)).collect::<Vec<_>>(), [(1, 1)]);
    assert!(refused[0].1.reason.contains("queue.buffering.max.kbytes"), "{:?}", refused[0]);
    assert_eq!(values_of(&read_back(&cluster, &topic, 1, json!([])), &format!("{topic}-0")), ["first", "last"]);
}

#[test]
fn a_flush_without_brokers_ends_when_the_host_cancels() {
    let cluster = Cluster::mock();
    let topic = cluster.topic("cancelled", 1);
    let mut sink = sink(&json!({ "bootstrap": cluster.bootstrap, "topic": topic }), &numbered(0, 0));
    sink.open().unwrap();
    cluster.mock.as_ref().unwrap().broker_down(-1).unwrap();
    write(&mut sink, &numbered(0, 10));
    let host = sink.host.clone();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let reported = host.wait_until(PATIENCE, |host| !host.messages().is_empty());
            host.cancel();
            assert!(reported);
        });
        assert_eq!(sink.flush().unwrap_err().code, ErrorCode::CANCELLED);
    });
    assert!(begun.elapsed() < PATIENCE);
    assert_eq!(host.acknowledged(), 0);
}

#[test]
fn a_missing_topic_is_created_on_demand() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = format!("{}-new", cluster.topic("created", 1));
    let mut config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": { "compression.type": "gzip" } });
    let error = sink(&config, &numbered(0, 0)).open().unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.message.contains(&topic) && error.message.contains("create_topic"), "{error}");

    config["create_topic"] = json!({ "partitions": 3, "replication": 1, "properties": { "retention.bytes": 123_456_789 } });
    // Two subtasks at the same time: one is late, and that is no failure.
    std::thread::scope(|scope| {
        for half in 0..2 {
            let config = &config;
            scope.spawn(move || {
                let mut sink = sink(config, &numbered(0, 0));
                write(&mut sink, &numbered(half * 50, half * 50 + 50));
                sink.flush().unwrap();
            });
        }
    });
    assert_eq!(all_values(&read_back(&cluster, &topic, 3, json!([]))), expected(0, 100));
    assert_eq!(cluster.topic_setting(&topic, "retention.bytes"), "123456789");

    // A topic that exists is left as it is.
    config["create_topic"] = json!({ "partitions": 7 });
    let mut sink = sink(&config, &numbered(0, 0));
    write(&mut sink, &numbered(100, 110));
    sink.flush().unwrap();
    assert_eq!(all_values(&read_back(&cluster, &topic, 3, json!([]))), expected(0, 110));
}

#[test]
fn a_topic_that_the_brokers_refuse_to_create_is_an_error() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = format!("{}-new", cluster.topic("created", 1));
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "create_topic": { "replication": 99 } });
    let error = sink(&config, &numbered(0, 0)).open().unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.message.contains(&topic) && error.message.to_lowercase().contains("replication"), "{error}");
}

#[test]
fn a_topic_with_a_small_limit_refuses_no_small_record() {
    let Some(cluster) = Cluster::real() else { return };
    // The brokers refuse a batch of more than 20,000 bytes as a whole: the producer must make smaller ones.
    let topic = cluster.topic_with("limit", 1, &[("max.message.bytes", "20000")]);
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": { "linger.ms": 100 } });
    let rows = batch(vec![(
        "value",
        values((0..500).map(|n| Some(format!("{n:06}{}", if n == 250 { "x".repeat(30_000) } else { "y".repeat(500) })))),
    )]);
    let mut sink = sink(&config, &rows);
    write(&mut sink, &rows);
    sink.flush().unwrap();
    let refused = sink.host.rejections();
    assert_eq!(refused.iter().map(|(seq, refused)| (*seq, refused.row)).collect::<Vec<_>>(), [(1, 250)]);
    assert_eq!(all_values(&read_back(&cluster, &topic, 1, json!([]))).len(), 499);
}

#[test]
fn wrong_columns_are_problems_with_what_was_meant() {
    let rows = batch(vec![("value", values([])), ("device", Arc::new(StringArray::from(vec![""; 0])))]);
    let config = json!({ "bootstrap": "a:1", "topic": "t", "key": ["devise"], "partition": "device", "timestamp": "when", "headers": "device", "properties": { "acks": 1 } });
    let problems = sink(&config, &rows).validate().unwrap().details.problems;
    let found: Vec<_> = problems.iter().map(|problem| (problem.path.as_str(), problem.suggestion.as_deref())).collect();
    assert_eq!(found, [("properties.acks", None), ("key[0]", Some("device")), ("partition", None), ("timestamp", None), ("headers", None)]);
}

#[test]
fn an_unreachable_broker_is_named_within_the_deadline() {
    let begun = Instant::now();
    let error = sink(&json!({ "bootstrap": "127.0.0.1:1", "topic": "t", "connect_timeout": "500ms" }), &numbered(0, 0)).open().unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.message.contains("127.0.0.1:1") && error.message.contains("refused"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
