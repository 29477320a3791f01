//! The source while something is wrong with the cluster: partitions without leaders, followers that are behind, topics that are deleted, brokers that go away. Against the
//! mock brokers, whose leaders can be taken away, and a real Kafka where only that will do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod support;

use rdkafka::types::RDKafkaApiKey;
use serde_json::json;
use standpipe_sdk::hosting::Polled;
use std::time::{Duration, Instant};
use support::*;

/// A mock cluster whose partitions may lose their leaders: beyond this version its answer to a fetch from such a one ends the process (librdkafka 2.12).
fn mock_without_leaders() -> Cluster {
    let cluster = Cluster::mock();
    cluster.mock.as_ref().unwrap().apiversion(RDKafkaApiKey::Fetch, Some(0), Some(11)).unwrap();
    cluster
}

#[test]
fn a_bounded_read_does_not_end_where_a_follower_ends() {
    let cluster = Cluster::mock_of(2);
    let topic = cluster.topic("follower", 1);
    cluster.produce(&topic, numbered(0, 0, 50));
    cluster.produce(&topic, numbered(0, 50, 100));
    let mock = cluster.mock.as_ref().unwrap();
    mock.partition_leader(&topic, 0, Some(1)).unwrap();
    mock.partition_follower(&topic, 0, 2).unwrap();
    // The follower has the first half, the leader told the end of both. (The mock's last stable offset is the leader's everywhere.)
    mock.follower_watermarks(&topic, 0, None, Some(50)).unwrap();
    let properties = json!({ "client.rack": "here", "isolation.level": "read_uncommitted" });
    let mut source = reading(&json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true, "properties": properties }));
    // A batch that is full does not hide the end that stands behind it, even if more has come by then.
    let reads = read_to_end_by(&mut source, 1, 50);
    assert_eq!(all_values(&reads), expected(0, 0, 100));
    assert!(reads.iter().any(|read| read.batch.num_rows() == 0 && read.position == b"50"), "the end of the follower was never seen");
}

#[test]
fn a_partition_that_has_not_answered_is_not_said_to_be_read() {
    let cluster = mock_without_leaders();
    let topic = cluster.topic("leaderless", 2);
    let mock = cluster.mock.as_ref().unwrap();
    mock.partition_leader(&topic, 1, None).unwrap();
    cluster.produce(&topic, numbered(0, 0, 5));
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": { "topic.metadata.refresh.interval.ms": 200 } });
    let mut source = reading(&config);
    assert_eq!(all_values(&read_rows(&mut source, 5)), expected(0, 0, 5));
    let begun = Instant::now();
    for _ in 0..2 {
        let Polled::Batch { split, batch, .. } = poll(source.reader().unwrap()) else { panic!("idle, although one has not answered") };
        assert_eq!((split, batch.num_rows()), (format!("{topic}-0"), 0));
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}: it does not spin meanwhile", begun.elapsed());
    // What comes is not held up.
    cluster.produce(&topic, numbered(0, 5, 6));
    let begun = Instant::now();
    assert_eq!(all_values(&read_rows(&mut source, 1)), expected(0, 5, 6));
    assert!(begun.elapsed() < Duration::from_secs(5));
    mock.partition_leader(&topic, 1, Some(1)).unwrap();
    await_that("idle", || matches!(poll(source.reader().unwrap()), Polled::Idle));
}

#[test]
fn a_partition_that_loses_its_leader_is_told_once_and_the_others_go_on() {
    let cluster = mock_without_leaders();
    let topic = cluster.topic("orphan", 3);
    let mock = cluster.mock.as_ref().unwrap();
    // A question about leaders or ends stands behind a fetch of that long.
    let properties = json!({ "topic.metadata.refresh.interval.ms": 200, "fetch.wait.max.ms": 2500 });
    let mut source = reading(&json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": properties }));
    assert!(is_idle(&mut source));
    mock.partition_leader(&topic, 1, None).unwrap();
    let host = source.host.clone();
    let count = |text: &str| host.messages().iter().filter(|message| message.contains(text)).count();
    await_that("the loss is told", || is_idle(&mut source) && count("partitions have no leader") == 1);
    cluster.produce(&topic, numbered(0, 0, 5));
    assert_eq!(all_values(&read_rows(&mut source, 5)), expected(0, 0, 5));
    // Another round of questions, by which the ends of the others are known.
    await_that("the lag of the others", || {
        assert!(is_idle(&mut source));
        source.reader().unwrap().lag().iter().any(|lag| lag.split == format!("{topic}-0") && lag.records == Some(0))
    });
    mock.partition_leader(&topic, 1, Some(1)).unwrap();
    await_that("the return is told", || is_idle(&mut source) && count("partitions have a leader again") == 1);
    cluster.produce(&topic, numbered(1, 0, 5));
    assert_eq!(all_values(&read_rows(&mut source, 5)), expected(1, 0, 5));
    assert_eq!(count("partitions have no leader"), 1);
}

#[test]
fn a_topic_that_is_deleted_is_one_warning() {
    let Some(cluster) = Cluster::real() else { return };
    let topic = cluster.topic("doomed", 3);
    cluster.produce(&topic, numbered(0, 0, 5).chain(numbered(1, 0, 5)));
    // librdkafka gives a topic that is not there the time of its propagation.
    let properties = json!({ "topic.metadata.refresh.interval.ms": 200, "topic.metadata.propagation.max.ms": 500 });
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "discovery_interval": "100ms", "properties": properties });
    let mut source = reading(&config);
    read_rows(&mut source, 10);
    cluster.delete(&topic);
    let host = source.host.clone();
    let count = |text: &str| host.logs().iter().filter(|(_, line)| line.to_string().contains(text)).count();
    await_that("the warning", || is_idle(&mut source) && count("do not know the topic or partition any more") > 0);
    await_that("that of the enumerator", || {
        assert_eq!(source.discover().unwrap().added, []);
        count("cannot look for new partitions") > 0
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert!(is_idle(&mut source), "it waits");
        source.discover().unwrap();
    }
    assert_eq!(
        (count("do not know the topic or partition any more"), count("cannot look for new partitions")),
        (1, 1),
        "{:?}",
        host.logs()
    );
}

#[test]
fn when_no_partition_answers_the_host_is_told_why() {
    let cluster = mock_without_leaders();
    let topic = cluster.topic("silent", 2);
    let mock = cluster.mock.as_ref().unwrap();
    mock.partition_leader(&topic, 0, None).unwrap();
    mock.partition_leader(&topic, 1, None).unwrap();
    let mut source =
        reading(&json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": { "topic.metadata.refresh.interval.ms": 200 } }));
    let error = source.reader().unwrap().poll(100, 1 << 20, Duration::from_millis(100)).unwrap_err();
    assert!(error.retryable && error.message.contains(&format!("cannot read {topic}-0 and 1 more yet")), "{error}");
    mock.partition_leader(&topic, 0, Some(1)).unwrap();
    mock.partition_leader(&topic, 1, Some(1)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !matches!(source.reader().unwrap().poll(100, 1 << 20, Duration::from_millis(100)), Ok(Polled::Idle)) {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn brokers_that_go_away_and_come_back_lose_nothing() {
    let cluster = Cluster::mock();
    let topic = cluster.topic("outage", 1);
    cluster.produce(&topic, numbered(0, 0, 5));
    let config = json!({ "bootstrap": cluster.bootstrap, "topic": topic, "properties": { "reconnect.backoff.max.ms": 200 } });
    let mut source = reading(&config);
    read_rows(&mut source, 5);
    let host = source.host.clone();
    let has_logged = |text: &str| host.messages().iter().any(|message| message.contains(text));
    let mock = cluster.mock.as_ref().unwrap();
    mock.broker_down(-1).unwrap();
    await_that("the outage is reported", || {
        assert!(is_idle(&mut source));
        has_logged("no broker can be reached")
    });
    mock.broker_up(-1).unwrap();
    cluster.produce(&topic, numbered(0, 5, 10));
    assert_eq!(all_values(&read_rows(&mut source, 5)), expected(0, 5, 10));
    assert!(has_logged("connected again"));
}
