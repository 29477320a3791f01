//! How many documents a second the sink delivers: `throughput [URL [DOCUMENTS [IN_FLIGHT]]]`; without a URL into the stand-in in this process. Prints the rate, and
//! leaves a body of 1,000 such documents in `bulk.ndjson`, for a comparison with a plain client:
//! `curl -s -o /dev/null -w '%{time_total}\n' -H 'content-type: application/x-ndjson' --data-binary @bulk.ndjson URL/_bulk`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement by hand")]

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use standpipe_connector_elasticsearch::ElasticsearchSink;
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_sdk::{Written, testing::Harness};
use std::{io::Write, sync::Arc, time::Duration, time::Instant};

const ROWS: i64 = 8_192;

fn batch(from: i64, rows: i64) -> RecordBatch {
    let all = from..from + rows;
    let hosts: StringArray = all.clone().map(|n| Some(format!("host-{}", n % 100))).collect();
    let times: TimestampMillisecondArray = all.clone().map(|n| Some(1_767_225_600_000 + n * 7)).collect();
    #[allow(clippy::cast_precision_loss, reason = "any number will do")]
    let values = Float64Array::from_iter_values(all.clone().map(|n| (n as f64).sin()));
    let columns: [(&str, ArrayRef); 4] = [
        ("host", Arc::new(hosts)),
        ("n", Arc::new(Int64Array::from_iter_values(all))),
        ("ts", Arc::new(times)),
        ("value", Arc::new(values)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next();
    let documents: i64 = arguments.next().map_or(500_000, |count| count.parse().unwrap());
    let in_flight: usize = arguments.next().map_or(2, |count| count.parse().unwrap());
    let server = url.is_none().then(|| StandIn::start("127.0.0.1:0", Faults::default()).unwrap());
    let url = url.unwrap_or_else(|| server.as_ref().unwrap().url());
    let index = format!("throughput-{}", std::process::id());
    let config = serde_json::json!({
        "hosts": [url],
        "index": index,
        "id": ["n"],
        "in_flight": in_flight,
        "template": { "settings": { "number_of_shards": 1, "number_of_replicas": 0 } },
    });
    let batches: Vec<RecordBatch> = (0..documents / ROWS).map(|number| batch(number * ROWS, ROWS)).collect();
    let mut sink = Harness::sink::<ElasticsearchSink>(config, batch(0, 0).schema());
    sink.open().unwrap();
    let host = Arc::clone(&sink.host);
    let start = Instant::now();
    for batch in &batches {
        loop {
            let wakes = host.wakes();
            if sink.write(batch).unwrap() == Written::Taken {
                break;
            }
            host.wait_until(Duration::from_secs(60), |host| host.wakes() > wakes);
        }
    }
    sink.flush().unwrap();
    let took = start.elapsed();
    let count = batches.len() as i64 * ROWS;
    println!(
        "{count} documents in {took:?}: {:.0} a second ({} bytes sent)",
        count as f64 / took.as_secs_f64(),
        host.metric("bulk_bytes").unwrap()
    );
    let mut body = std::fs::File::create("bulk.ndjson").unwrap();
    for n in 0..1_000 {
        let time = format!("2026-01-01T00:00:{:02}.{:03}Z", n * 7 / 1_000, n * 7 % 1_000);
        writeln!(body, "{{\"index\":{{\"_index\":\"{index}-curl\",\"_id\":\"{n}\"}}}}").unwrap();
        writeln!(body, "{{\"host\":\"host-{}\",\"n\":{n},\"ts\":\"{time}\",\"value\":{}}}", n % 100, (n as f64).sin()).unwrap();
    }
}
