//! What the tests share: batches, configurations, writing until the sink takes a batch, and the counts that must hold.

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use serde_json::{Value, json};
use standpipe_connector_elasticsearch::ElasticsearchSink;
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_sdk::{
    Written,
    testing::{Harness, SinkHarness, TestHost},
};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// Long enough for a slow machine; nothing waits for it in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn stand_in(faults: Faults) -> StandIn {
    StandIn::start("127.0.0.1:0", faults).unwrap()
}

/// Small requests and short pauses, so that much happens in little time; `more` overrides.
pub(crate) fn config(url: &str, more: Value) -> Value {
    let mut config = json!({
        "hosts": [url],
        "index": "rows",
        "batch": { "max_docs": 50, "max_age": "5ms" },
        "retry": { "initial": "2ms", "max": "40ms" },
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// Rows `{host: "h{n % 7}", n, ts: n minutes after the epoch}`.
pub(crate) fn batch(rows: Range<i64>) -> RecordBatch {
    let hosts: StringArray = rows.clone().map(|n| Some(format!("h{}", n % 7))).collect();
    let times: TimestampMillisecondArray = rows.clone().map(|n| Some(n * 60_000)).collect();
    let columns: [(&str, ArrayRef); 3] =
        [("host", Arc::new(hosts)), ("n", Arc::new(Int64Array::from_iter_values(rows))), ("ts", Arc::new(times))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

pub(crate) fn sink(config: Value) -> SinkHarness {
    Harness::sink::<ElasticsearchSink>(config, batch(0..0).schema())
}

/// Writes a batch, waiting for room as a host does, also while the sink says why there is none.
pub(crate) fn write(sink: &mut SinkHarness, batch: &RecordBatch) {
    let host = Arc::clone(&sink.host);
    loop {
        let wakes = host.wakes();
        match sink.write(batch) {
            Ok(Written::Taken) => return,
            Ok(Written::Busy) => {}
            Err(error) => assert!(error.retryable, "{error}"),
        }
        assert!(host.wait_until(PATIENCE, |host| host.wakes() > wakes), "the sink is busy and never wakes the host");
    }
}

/// Delivers all that was written, as a host does: a flush that fails in a way that may pass is called again.
pub(crate) fn flush(sink: &mut SinkHarness) {
    let end = Instant::now() + PATIENCE;
    while let Err(error) = sink.flush() {
        assert!(error.retryable && Instant::now() < end, "{error}");
    }
}

/// Writes rows in batches of `size`.
pub(crate) fn write_rows(sink: &mut SinkHarness, rows: Range<i64>, size: i64) {
    let mut from = rows.start;
    while from < rows.end {
        let to = rows.end.min(from + size);
        write(sink, &batch(from..to));
        from = to;
    }
}

/// `in = ok + dead-lettered + dropped + in flight`.
pub(crate) fn counts(host: &TestHost) -> BTreeMap<&'static str, u64> {
    let names = [
        "documents_in",
        "documents_ok",
        "documents_dead_lettered",
        "documents_dropped",
        "documents_in_flight",
        "documents_retried",
        "index_fallbacks",
    ];
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    let counts: BTreeMap<_, _> = names.map(|name| (name, host.metric(name).unwrap() as u64)).into();
    let done = counts["documents_ok"] + counts["documents_dead_lettered"] + counts["documents_dropped"];
    assert_eq!(counts["documents_in"], done + counts["documents_in_flight"], "{counts:?}");
    counts
}

/// The `n` of the documents of an index, in order.
pub(crate) fn numbers(server: &StandIn, index: &str) -> Vec<i64> {
    let mut numbers: Vec<i64> = server.documents(index).iter().map(|document| document.source["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// The details of the rejections, by batch and row.
pub(crate) fn rejections(host: &TestHost) -> BTreeMap<(u64, u32), Value> {
    let each =
        host.rejections().into_iter().map(|(seq, rejection)| ((seq, rejection.row), serde_json::from_str(&rejection.details).unwrap()));
    each.collect()
}

/// A batch of these columns; all may be null.
pub(crate) fn columns(columns: Vec<(&str, Arc<dyn Array>)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}
