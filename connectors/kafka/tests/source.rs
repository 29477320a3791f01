//! The source against the mock brokers and, where STANDPIPE_TEST_KAFKA names one, a real Kafka: what it reads, from where, to where, and what it says when it cannot.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss, reason = "a test fails by a panic")]

mod support;

use arrow_array::{
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMillisecondType},
};
use rdkafka::{Offset, producer::Producer};
use serde_json::{Value, json};
use standpipe_sdk::{
    CloseReason, ErrorCode,
    hosting::{Polled, SplitPosition},
    source::SplitDescription,
    testing::SourceHarness,
    wire,
};
use std::time::{Duration, Instant};
use support::*;

on_clusters! {
    /// Every record of every partition, in order, and the end.
    fn a_bounded_source_reads_all_partitions_to_their_ends(cluster) {
        let topic = cluster.topic("bounded", 4);
        for partition in 0..3 {
            cluster.produce(&topic, numbered(partition, 0, 2_500));
        }
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true });
        let mut source = source(&config);
        let found = source.assign().unwrap();
        assert_eq!(found.added.iter().map(|split| split.split.clone()).collect::<Vec<_>>(), (0..4).map(|p| format!("{topic}-{p}")).collect::<Vec<_>>());
        assert!(found.exhausted);
        // Written after the ends were taken: not part of it.
        cluster.produce(&topic, numbered(0, 2_500, 2_600));
        let reads = read_to_end(&mut source, 4);
        for partition in 0..3 {
            assert_eq!(values_of(&reads, &format!("{topic}-{partition}")), expected(partition, 0, 2_500));
        }
        assert_eq!(reads.iter().map(|read| read.batch.num_rows()).sum::<usize>(), 7_500);
        assert!(reads.iter().all(|read| read.batch.num_rows() <= 1_000));
        source.reader().unwrap().close(CloseReason::Finished).unwrap();
    }

    /// A restart from any position that a batch came with reads exactly the rest.
    fn a_position_is_where_the_rest_begins(cluster) {
        let topic = cluster.topic("positions", 1);
        cluster.produce(&topic, numbered(0, 0, 1_000));
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true });
        let mut first = reading(&config);
        let deadline = Instant::now() + PATIENCE;
        let mut taken = 0;
        while taken < 1_000 {
            assert!(Instant::now() < deadline);
            let Polled::Batch { split, batch, position, .. } = first.poll(300).unwrap() else { continue };
            taken += batch.num_rows();
            assert_eq!(String::from_utf8(position.clone()).unwrap(), taken.to_string());
            let mut second = reading_from(&config, &split, &position);
            assert_eq!(all_values(&read_to_end(&mut second, 1)), expected(0, taken, 1_000));
        }
    }

    /// The limit of bytes ends a batch as that of rows does.
    fn a_batch_keeps_to_its_bytes(cluster) {
        let topic = cluster.topic("bytes", 1);
        cluster.produce(&topic, (0..50).map(|_| Message::new(0, "x".repeat(1_000))));
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true });
        let mut source = reading(&config);
        let mut rows = 0;
        await_that("all rows", || {
            match source.reader().unwrap().poll(1_000, 10_000, Duration::from_millis(200)).unwrap() {
                Polled::Batch { batch, .. } => {
                    assert!(batch.num_rows() <= 10);
                    rows += batch.num_rows();
                    false
                }
                Polled::Idle => false,
                Polled::EndOfSplit(_) => true,
            }
        });
        assert_eq!(rows, 50);
    }

    /// Key, headers, timestamp, partition, offset and topic, under names of one's choice; null where there is nothing.
    fn metadata_become_columns(cluster) {
        let topic = cluster.topic("metadata", 2);
        let full = Message {
            key: Some("k".to_owned()),
            timestamp: Some(1_700_000_000_123),
            headers: vec![("a".to_owned(), Some("1".to_owned())), ("a".to_owned(), None), ("b".to_owned(), Some(String::new()))],
            ..Message::new(1, "v")
        };
        cluster.produce(&topic, [full, Message { timestamp: Some(1), ..Message::new(1, "w") }]);
        let metadata = json!({ "key": "k", "headers": "h", "timestamp": "t", "partition": "p", "offset": "o", "topic": "name" });
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true, "metadata": metadata });
        let mut source = reading(&config);
        let reads = read_to_end(&mut source, 2);
        let batch = &together(&reads);
        let schema = batch.schema();
        let role = |column: &str| schema.field_with_name(column).unwrap().metadata().get(wire::ROLE).cloned();
        assert_eq!((role("k").as_deref(), role("h").as_deref(), role("o").as_deref()), (Some("key"), Some("headers"), Some("position")));
        assert_eq!(texts(batch, "value"), [Some("v".to_owned()), Some("w".to_owned())]);
        assert_eq!(texts(batch, "k"), [Some("k".to_owned()), None]);
        assert_eq!(batch["t"].as_primitive::<TimestampMillisecondType>().values(), &[1_700_000_000_123, 1]);
        assert_eq!(batch["p"].as_primitive::<Int32Type>().values(), &[1, 1]);
        assert_eq!(batch["o"].as_primitive::<Int64Type>().values(), &[0, 1]);
        assert_eq!(batch["name"].as_string::<i32>().iter().collect::<Vec<_>>(), [Some(topic.as_str()); 2]);
        let headers = batch["h"].as_map();
        assert_eq!(headers.value_offsets(), [0, 3, 3]);
        assert_eq!(headers.keys().as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "a", "b"]);
        assert_eq!(headers.values().as_binary::<i32>().iter().collect::<Vec<_>>(), [Some(&b"1"[..]), None, Some(b"")]);
    }

    /// A tombstone is a null value, an empty value is not.
    fn a_tombstone_is_null(cluster) {
        let topic = cluster.topic("tombstones", 1);
        let tombstone = Message { key: Some("k".to_owned()), ..Message::default() };
        cluster.produce(&topic, [Message::new(0, "v"), tombstone, Message::new(0, "")]);
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true });
        let mut source = reading(&config);
        let reads = read_to_end(&mut source, 1);
        let values: Vec<_> = reads.iter().flat_map(|read| texts(&read.batch, "value")).collect();
        assert_eq!(values, [Some("v".to_owned()), None, Some(String::new())]);
    }

    /// `latest` is decided once, by the enumerator: what comes between its discovery and the reading is read, and after a restart too.
    fn latest_is_the_end_at_the_discovery(cluster) {
        let topic = cluster.topic("latest", 1);
        cluster.produce(&topic, numbered(0, 0, 10));
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "start": "latest" });
        let mut source = reading(&config);
        cluster.produce(&topic, numbered(0, 10, 20));
        assert_eq!(all_values(&read_rows(&mut source, 10)), expected(0, 10, 20));
    }

    /// An unbounded source goes on with what comes, says how far behind it is, and gives splits back with their positions.
    fn an_unbounded_source_follows_pauses_and_gives_back(cluster) {
        let topic = cluster.topic("follow", 2);
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic });
        let mut source = reading(&config);
        let begun = Instant::now();
        assert!(is_idle(&mut source));
        assert!(begun.elapsed() >= Duration::from_millis(290), "an idle poll waits");
        cluster.produce(&topic, numbered(0, 0, 5).chain(numbered(1, 0, 5)));
        assert_eq!(read_rows(&mut source, 10).iter().map(|read| read.batch.num_rows()).sum::<usize>(), 10);

        let paused = format!("{topic}-1");
        source.reader().unwrap().pause(std::slice::from_ref(&paused)).unwrap();
        cluster.produce(&topic, numbered(1, 5, 8).chain(numbered(0, 5, 8)));
        assert_eq!(all_values(&read_rows(&mut source, 3)), expected(0, 5, 8));
        assert!(is_idle(&mut source));
        await_that("a lag of three records in the paused split", || {
            let lag = source.reader().unwrap().lag();
            let of = |split: &str| lag.iter().find(|lag| lag.split == split).and_then(|lag| lag.records);
            of(&paused) == Some(3) && of(&format!("{topic}-0")) == Some(0)
        });
        source.reader().unwrap().resume(std::slice::from_ref(&paused)).unwrap();
        assert_eq!(all_values(&read_rows(&mut source, 3)), expected(1, 5, 8));

        let positions = source.reader().unwrap().unassign(&[paused, format!("{topic}-0")]).unwrap();
        assert_eq!(positions, [b"8", b"8"]);
        cluster.produce(&topic, numbered(0, 8, 9));
        assert!(is_idle(&mut source));
        let again = SplitPosition { split: format!("{topic}-0"), details: String::new(), position: Some(b"8".to_vec()) };
        source.reader().unwrap().assign(&[again]).unwrap();
        assert_eq!(all_values(&read_rows(&mut source, 1)), expected(0, 8, 9));
    }

    /// A partition that has been read to its end says so, once for each time, while another one goes on; idle is said when all have.
    fn the_end_of_each_partition_is_told_once(cluster) {
        let topic = cluster.topic("ends", 3);
        cluster.produce(&topic, numbered(0, 0, 20_000).chain(numbered(1, 0, 10)));
        let mut source = reading(&json!({ "bootstrap": cluster.bootstrap, "topic": topic }));
        let (mut ends, mut rows, mut idle) = (Vec::new(), 0, false);
        // Small batches: the others have their turns while the first partition is read.
        let poll = |source: &mut SourceHarness, ends: &mut Vec<(String, String)>, rows: &mut usize| {
            match source.reader().unwrap().poll(100, 1 << 20, Duration::from_millis(100)).unwrap() {
                Polled::Batch { split, batch, position, .. } if batch.num_rows() == 0 => ends.push((split, String::from_utf8(position).unwrap())),
                Polled::Batch { batch, .. } => *rows += batch.num_rows(),
                Polled::Idle => return true,
                Polled::EndOfSplit(split) => panic!("{split} ended"),
            }
            false
        };
        await_that("all ends and idle", || {
            idle = poll(&mut source, &mut ends, &mut rows);
            assert!(!idle || (rows == 20_010 && ends.iter().any(|(split, _)| split.ends_with("-2"))), "idle before all have answered: {rows}, {ends:?}");
            idle && ends.len() >= 3
        });
        let end = |partition: i32, position: &str| (format!("{topic}-{partition}"), position.to_owned());
        ends.sort();
        assert_eq!(ends, [end(0, "20000"), end(1, "10"), end(2, "0")]);
        cluster.produce(&topic, numbered(2, 0, 5));
        await_that("the news of one of them", || {
            poll(&mut source, &mut ends, &mut rows);
            ends.len() > 3
        });
        await_that("idle", || poll(&mut source, &mut ends, &mut rows));
        assert_eq!((ends.len(), &ends[3], rows), (4, &end(2, "5"), 20_015));
    }

    /// Only what a durable checkpoint covers is committed to the group.
    fn the_group_gets_the_positions_of_durable_checkpoints(cluster) {
        let topic = cluster.topic("group", 1);
        let group = format!("{topic}-group");
        cluster.produce(&topic, numbered(0, 0, 20));
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "group": group });
        let mut source = reading(&config);
        read_rows(&mut source, 20);
        source.reader().unwrap().checkpoint_committed(1, &[(format!("{topic}-0"), b"12".to_vec())]).unwrap();
        source.reader().unwrap().close(CloseReason::Stopped).unwrap();
        source.restart();
        assert_eq!(cluster.committed(&group, &topic), rdkafka::Offset::Offset(12));
    }

    /// A missing topic is named with the brokers, and with the topic that was meant.
    fn a_missing_topic_is_named(cluster) {
        let topic = cluster.topic("measurements", 1);
        let wrong = topic.replacen("measurements", "measurement", 1);
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": wrong });
        let error = source(&config).open().unwrap_err();
        assert_eq!(error.code, ErrorCode::EXTERNAL);
        assert!(error.message.contains(&wrong) && error.message.contains(&cluster.bootstrap), "{error}");
        assert_eq!(error.details["suggestion"], topic.as_str());
    }

    /// A restored enumerator keeps the ends of the job's first start, and tells all splits again.
    fn a_restart_keeps_the_ends_of_the_first_start(cluster) {
        let topic = cluster.topic("restart", 2);
        cluster.produce(&topic, numbered(0, 0, 7));
        let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true });
        let mut first = source(&config);
        let found = first.discover().unwrap();
        let snapshot = first.enumerator().unwrap().snapshot().unwrap();
        cluster.produce(&topic, numbered(0, 7, 9));
        let mut second = source(&config);
        second.enumerator().unwrap().restore(&snapshot).unwrap();
        assert_eq!(second.assign().unwrap(), found);
        assert_eq!(second.discover().unwrap().added, []);
        assert_eq!(all_values(&read_to_end(&mut second, 2)), expected(0, 0, 7));
    }
}

#[test]
fn an_unreachable_broker_is_named_within_the_deadline() {
    // Nobody listens on port 1.
    let config = json!({ "bootstrap": "127.0.0.1:1", "topic": "t", "connect_timeout": "700ms" });
    let begun = Instant::now();
    let error = source(&config).open().unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.message.contains("127.0.0.1:1") && error.message.contains("refused"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn a_bearer_token_that_is_missing_is_asked_for_at_once() {
    let cluster = Cluster::mock();
    let properties = json!({ "security.protocol": "sasl_plaintext", "sasl.mechanisms": "OAUTHBEARER" });
    let error = source(&json!({ "bootstrap": cluster.bootstrap, "topic": "t", "properties": properties })).open().unwrap_err();
    assert!(error.message.contains("refuse the connection") && error.message.contains("`oauth_token` is missing"), "{error}");
}

#[test]
fn a_wrong_property_is_a_problem_with_its_path() {
    let config = json!({ "bootstrap": "a:1", "topic": "t", "properties": { "fetch.max.byts": 1, "enable.auto.commit": true } });
    let problems = source(&config).validate().unwrap().details.problems;
    let found: Vec<_> = problems.iter().map(|problem| (problem.path.as_str(), problem.suggestion.as_deref())).collect();
    assert_eq!(found, [("properties.enable.auto.commit", None), ("properties.fetch.max.byts", Some("fetch.max.bytes"))]);
}

#[test]
fn a_position_that_was_deleted_is_an_error_and_no_silent_gap() {
    // The mock brokers keep some 5 MB of a partition.
    let cluster = Cluster::mock();
    let topic = cluster.topic("retention", 1);
    for _ in 0..16 {
        cluster.produce(&topic, (0..10).map(|_| Message::new(0, "x".repeat(50_000))));
    }
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic });
    let read_from = |config: &Value, position: &[u8]| {
        let mut source = reading_from(config, &format!("{topic}-0"), position);
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline);
            match source.reader().unwrap().poll(100, 1 << 20, Duration::from_millis(200)) {
                Ok(Polled::Idle) => {}
                other => return other,
            }
        }
    };
    let error = read_from(&config, b"0").unwrap_err();
    assert!(error.message.contains("position 0") && error.message.contains("retention"), "{error}");
    let skipping = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": { "auto.offset.reset": "earliest" } });
    assert!(matches!(read_from(&skipping, b"0"), Ok(Polled::Batch { .. })));
    assert!(matches!(read_from(&config, b""), Ok(Polled::Batch { .. })), "without a position the oldest record is the beginning");
}

#[test]
fn gaps_of_transactions_do_not_hide_the_end() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("transactions", 1);
    let producer = cluster.producer(&[("transactional.id", &topic)]);
    producer.init_transactions(PATIENCE).unwrap();
    let transaction = |from, to, commit: bool| {
        producer.begin_transaction().unwrap();
        support::cluster::send(&producer, &topic, numbered(0, from, to));
        producer.flush(PATIENCE).unwrap();
        if commit { producer.commit_transaction(PATIENCE).unwrap() } else { producer.abort_transaction(PATIENCE).unwrap() }
    };
    transaction(0, 10, true);
    transaction(10, 20, false);
    transaction(20, 30, true);
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true });
    let mut committed = source(&config);
    let found = committed.assign().unwrap();
    assert!(found.added[0].details.contains("\"end\":33"), "three markers are in the log: {found:?}");
    assert_eq!(all_values(&read_to_end(&mut committed, 1)), [expected(0, 0, 10), expected(0, 20, 30)].concat());
    let all =
        json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true, "properties": { "isolation.level": "read_uncommitted" } });
    assert_eq!(all_values(&read_to_end(&mut reading(&all), 1)), expected(0, 0, 30));
    // The position at the end is behind the last marker: nothing is left to read, and no lag.
    let mut following = reading(&json!({ "bootstrap": cluster.bootstrap, "topic": topic }));
    read_rows(&mut following, 20);
    await_that("the end", || matches!(poll(following.reader().unwrap()), Polled::Batch { position, .. } if position == b"33"));
    assert_eq!(following.reader().unwrap().unassign(&[format!("{topic}-0")]).unwrap(), [b"33"]);
    // A bounded read that starts before the last marker alone ends too.
    let mut rest = source(&config);
    rest.discover().unwrap();
    let last = SplitPosition { position: Some(b"32".to_vec()), ..split_of(&found.added[0]) };
    rest.reader().unwrap().assign(&[last]).unwrap();
    assert_eq!(all_values(&read_to_end(&mut rest, 1)), [""; 0]);
}

/// A broker gives at least one record, however little is asked for; what librdkafka is told to refuse is named.
#[test]
fn a_record_larger_than_an_answer_may_be_is_named_with_the_property() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic_with("huge", 1, &[("max.message.bytes", "20000000")]);
    let producer = cluster.producer(&[("message.max.bytes", "20000000")]);
    support::cluster::send(&producer, &topic, [Message::new(0, "small"), Message::new(0, "x".repeat(8_000_000)), Message::new(0, "last")]);
    producer.flush(PATIENCE).unwrap();
    let small = json!({ "message.max.bytes": 100_000, "fetch.max.bytes": 100_000, "receive.message.max.bytes": 1_000_000, "fetch.message.max.bytes": 1_000 });
    let mut source = reading(&json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": small }));
    read_rows(&mut source, 1);
    let is_told = |source: &SourceHarness| source.host.messages().iter().any(|message| message.contains("receive.message.max.bytes"));
    await_that("the log", || {
        let _ = source.reader().unwrap().poll(1_000, 1 << 20, Duration::from_millis(100));
        is_told(&source)
    });
    let read =
        json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true, "properties": { "fetch.message.max.bytes": 1_000 } });
    let lengths: Vec<usize> = values_of(&read_to_end(&mut reading(&read), 1), &format!("{topic}-0")).iter().map(String::len).collect();
    assert_eq!(lengths, [5, 8_000_000, 4]);
}

/// A time lies between two records, before all and behind all; what comes after the discovery is read too.
#[test]
fn a_start_at_a_time_begins_with_the_first_record_that_is_not_older() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("since", 2);
    let at = |partition, n: i64| Message {
        timestamp: Some(1_700_000_000_000 + n * 1_000),
        ..Message::new(partition, format!("{partition}:{n}"))
    };
    cluster.produce(&topic, (0..10).map(|n| at(0, n)).chain((0..5).map(|n| at(1, n))));
    let since = |time: Value, bounded: bool| json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": bounded, "start": { "timestamp": time } });
    let read = |time: Value| all_values(&read_to_end(&mut reading(&since(time, true)), 2));
    assert_eq!(read(json!("2023-11-14T22:13:28Z")), ["0:8", "0:9"]);
    assert_eq!(read(json!(1_700_000_003_001_i64)), ["0:4", "0:5", "0:6", "0:7", "0:8", "0:9", "1:4"]);
    assert_eq!(read(json!("2023-11-14 22:13:20")).len(), 15);
    assert_eq!(read(json!("2030-01-01T00:00:00Z")), [""; 0]);
    let mut following = reading(&since(json!("2030-01-01T00:00:00Z"), false));
    cluster.produce(&topic, [at(1, 5)]);
    assert_eq!(all_values(&read_rows(&mut following, 1)), ["1:5"]);
}

/// Where the group stands; where it stands nowhere, as the configuration says.
#[test]
fn a_start_at_the_groups_position_begins_where_it_stands() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("stored", 2);
    cluster.produce(&topic, numbered(0, 0, 10).chain(numbered(1, 0, 10)));
    let mut config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "group": topic });
    let mut first = reading(&config);
    read_rows(&mut first, 20);
    first.reader().unwrap().checkpoint_committed(1, &[(format!("{topic}-0"), b"7".to_vec())]).unwrap();
    await_that("the group's position", || {
        poll(first.reader().unwrap());
        cluster.committed(&topic, &topic) == Offset::Offset(7)
    });
    (config["start"], config["bounded"]) = (json!("group"), json!(true));
    let read = |config: &Value| all_values(&read_to_end(&mut reading(config), 2));
    assert_eq!(read(&config), [expected(0, 7, 10), expected(1, 0, 10)].concat());
    config["missing_position"] = json!("latest");
    assert_eq!(read(&config), expected(0, 7, 10));
    config["missing_position"] = json!("fail");
    let error = source(&config).discover().unwrap_err();
    assert!(error.message.contains(&format!("no position in {topic}-1")) && !error.retryable, "{error}");
}

fn split_of(found: &SplitDescription) -> SplitPosition {
    SplitPosition { split: found.split.clone(), details: found.details.clone(), position: None }
}

#[test]
fn new_partitions_are_discovered_and_read_from_their_oldest_record() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("growing", 1);
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "start": "latest", "discovery_interval": "200ms" });
    let mut source = reading(&config);
    cluster.grow(&topic, 2);
    cluster.produce(&topic, numbered(1, 0, 5));
    let mut found = Vec::new();
    await_that("the new partition", || {
        found.extend(source.assign().unwrap().added);
        !found.is_empty()
    });
    assert_eq!(found.iter().map(|split| split.split.clone()).collect::<Vec<_>>(), [format!("{topic}-1")]);
    assert_eq!(all_values(&read_rows(&mut source, 5)), expected(1, 0, 5));
}
