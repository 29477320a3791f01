//! What the tests share: a cluster (librdkafka's mock brokers, or the real Kafka that STANDPIPE_TEST_KAFKA names), a host that keeps what it is told, and the plugin's
//! kinds driven through their tables as the host drives them.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod cluster;

#[allow(unused_imports, reason = "each test file uses a part of it")]
pub(crate) use cluster::{Cluster, Message};

use arrow_array::{BinaryArray, RecordBatch, cast::AsArray};
use serde_json::Value;
use standpipe_connector_kafka::KafkaSource;
use standpipe_sdk::{
    hosting::{Polled, SourceReader, SplitPosition},
    testing::{Harness, SourceHarness},
};
use std::time::{Duration, Instant};

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on the mock brokers, and on a real Kafka if STANDPIPE_TEST_KAFKA names one.
#[macro_export]
macro_rules! on_clusters {
    ($($(#[$doc:meta])* fn $name:ident($cluster:ident) $body:block)*) => {
        $(
            mod $name {
                use super::*;
                fn run($cluster: &$crate::support::Cluster) $body
                $(#[$doc])*
                #[test]
                fn mock() {
                    run(&$crate::support::Cluster::mock());
                }
                $(#[$doc])*
                #[test]
                fn real() {
                    if let Some(cluster) = $crate::support::Cluster::real() {
                        run(&cluster);
                    }
                }
            }
        )*
    };
}

/// The source, not open yet.
pub(crate) fn source(config: &Value) -> SourceHarness {
    Harness::source::<KafkaSource>(config.clone())
}

/// An open source that reads all splits that a fresh job finds.
pub(crate) fn reading(config: &Value) -> SourceHarness {
    let mut source = source(config);
    source.assign().unwrap();
    source
}

/// An open source that reads one split from a position; an empty one is the beginning.
pub(crate) fn reading_from(config: &Value, split: &str, position: &[u8]) -> SourceHarness {
    let mut source = source(config);
    let position = SplitPosition { split: split.to_owned(), details: String::new(), position: Some(position.to_vec()) };
    source.reader().unwrap().assign(&[position]).unwrap();
    source
}

/// Records of a partition, each with its number.
pub(crate) fn numbered(partition: i32, from: usize, to: usize) -> impl Iterator<Item = Message> {
    (from..to).map(move |n| Message::new(partition, format!("{partition}:{n:06}")))
}

/// Their values.
pub(crate) fn expected(partition: i32, from: usize, to: usize) -> Vec<String> {
    numbered(partition, from, to).filter_map(|message| message.value).collect()
}

/// A batch as it came.
pub(crate) struct Read {
    pub(crate) split: String,
    pub(crate) batch: RecordBatch,
    pub(crate) position: Vec<u8>,
}

/// What was read as one batch: a broker may give records of one partition one by one.
pub(crate) fn together(reads: &[Read]) -> RecordBatch {
    arrow_select::concat::concat_batches(&reads[0].batch.schema(), reads.iter().map(|read| &read.batch)).unwrap()
}

/// Polls until so many splits have ended; all batches.
pub(crate) fn read_to_end(source: &mut SourceHarness, splits: usize) -> Vec<Read> {
    read_to_end_by(source, splits, 1_000)
}

/// The same, with so many rows at most in a batch.
pub(crate) fn read_to_end_by(source: &mut SourceHarness, mut splits: usize, max_rows: u32) -> Vec<Read> {
    let reader = source.reader().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    while splits > 0 {
        assert!(Instant::now() < deadline, "{splits} splits have not ended");
        match reader.poll(max_rows, 1 << 20, Duration::from_millis(200)).unwrap() {
            Polled::Batch { split, batch, position, .. } => all.push(Read { split, batch, position }),
            Polled::EndOfSplit(_) => splits -= 1,
            Polled::Idle => {}
        }
    }
    all
}

/// Polls until so many rows have come.
pub(crate) fn read_rows(source: &mut SourceHarness, rows: usize) -> Vec<Read> {
    let reader = source.reader().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut all: Vec<Read> = Vec::new();
    let count = |all: &[Read]| all.iter().map(|read| read.batch.num_rows()).sum::<usize>();
    while count(&all) < rows {
        assert!(Instant::now() < deadline, "{} of {rows} rows", count(&all));
        match reader.poll(1_000, 1 << 20, Duration::from_millis(200)).unwrap() {
            Polled::Batch { split, batch, position, .. } if batch.num_rows() > 0 => all.push(Read { split, batch, position }),
            _ => {}
        }
    }
    assert_eq!(count(&all), rows);
    all
}

/// The values of a binary column as text.
pub(crate) fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let array: &BinaryArray = batch.column_by_name(column).unwrap().as_binary();
    array.iter().map(|value| value.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())).collect()
}

/// All values of one split, in order.
pub(crate) fn values_of(reads: &[Read], split: &str) -> Vec<String> {
    reads.iter().filter(|read| read.split == split).flat_map(|read| texts(&read.batch, "value")).flatten().collect()
}

/// All values, sorted.
pub(crate) fn all_values(reads: &[Read]) -> Vec<String> {
    let mut all: Vec<String> = reads.iter().flat_map(|read| texts(&read.batch, "value")).flatten().collect();
    all.sort();
    all
}

/// Whether nothing comes for a while but the news that splits are at their ends.
pub(crate) fn is_idle(source: &mut SourceHarness) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "it is never idle");
        match poll(source.reader().unwrap()) {
            Polled::Batch { batch, .. } if batch.num_rows() == 0 => {}
            other => return matches!(other, Polled::Idle),
        }
    }
}

/// One poll that waits a little.
pub(crate) fn poll(reader: &mut SourceReader) -> Polled {
    reader.poll(1_000, 1 << 20, Duration::from_millis(300)).unwrap()
}

/// Waits for a condition.
pub(crate) fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
