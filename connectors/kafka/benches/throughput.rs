//! Records a second through the sink and the source, both driven through their tables by one thread, on the Kafka that STANDPIPE_TEST_KAFKA names, or on the mock brokers
//! (which hold some 5 MB of a partition: fewer records). `cargo bench --profile ci -p standpipe-connector-kafka`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss, reason = "a test fails by a panic")]

#[path = "../tests/support/mod.rs"]
mod support;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
use serde_json::json;
use standpipe_connector_kafka::KafkaSink;
use standpipe_sdk::{Written, hosting::Polled, testing::Harness};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use support::{Cluster, PATIENCE, source};

const PARTITIONS: i32 = 4;
const ROWS: usize = 8_192;

fn main() {
    let (cluster, batches) = Cluster::real().map_or_else(|| (Cluster::mock(), 5), |cluster| (cluster, 256));
    let topic = cluster.topic("throughput", PARTITIONS);
    let values: ArrayRef = Arc::new(BinaryArray::from_iter_values((0..ROWS).map(|n| format!("{n:0>100}"))));
    let batch = RecordBatch::try_from_iter_with_nullable([("value", values, true)]).unwrap();
    let rows = batches * ROWS;

    let mut sink = Harness::sink::<KafkaSink>(json!({ "bootstrap": cluster.bootstrap, "topic": topic }), batch.schema());
    sink.open().unwrap();
    let begun = Instant::now();
    for _ in 0..batches {
        while sink.write(&batch).unwrap() == Written::Busy {
            let wakes = sink.host.wakes();
            sink.host.wait_until(Duration::from_millis(20), |host| host.wakes() > wakes);
        }
    }
    sink.flush().unwrap();
    report("sink", rows, begun.elapsed());

    for metadata in [json!([]), json!(["key", "timestamp", "partition", "offset"])] {
        let mut source = source(&json!({ "bootstrap": cluster.bootstrap, "topic": topic, "bounded": true, "metadata": metadata }));
        let begun = Instant::now();
        source.assign().unwrap();
        let (mut read, mut ended, mut batches) = (0, 0, 0);
        while ended < PARTITIONS && begun.elapsed() < PATIENCE {
            match source.reader().unwrap().poll(8_192, 4 << 20, Duration::from_millis(100)).unwrap() {
                Polled::Batch { batch, .. } => {
                    read += batch.num_rows();
                    batches += 1;
                }
                Polled::EndOfSplit(_) => ended += 1,
                Polled::Idle => {}
            }
        }
        assert_eq!(read, rows);
        report(&format!("source, metadata {metadata}, {} rows a batch", read / batches), rows, begun.elapsed());
    }
}

fn report(what: &str, rows: usize, took: Duration) {
    println!("{what}: {rows} records of 100 bytes in {took:.2?}: {:.0} records/s", rows as f64 / took.as_secs_f64());
}
