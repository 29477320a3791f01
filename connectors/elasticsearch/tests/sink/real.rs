//! Against a real OpenSearch (`STANDPIPE_TEST_OPENSEARCH=http://127.0.0.1:PORT`) and a real Elasticsearch 7.10 (`STANDPIPE_TEST_ELASTICSEARCH`). Where one is missing, each test
//! notes that it is skipped there. An OpenSearch 3 (`STANDPIPE_TEST_OPENSEARCH3`) is welcome, not asked for.

use crate::support::{batch, columns, config, counts, flush, rejections, sink, write, write_rows};
use arrow_array::{Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use elasticsearch::http::{Method, headers::HeaderMap, transport::Transport};
use serde_json::{Value, json};
use standpipe_connector_elasticsearch::ElasticsearchSink;
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_sdk::{ErrorCode, testing::Harness};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// A real server, and a name for this run's indexes.
struct Real {
    url: String,
    prefix: String,
}

impl Real {
    /// All there are.
    fn each(test: &str) -> impl Iterator<Item = Self> {
        let urls = ["STANDPIPE_TEST_OPENSEARCH", "STANDPIPE_TEST_ELASTICSEARCH"].into_iter().filter_map(standpipe_sdk::testing::service);
        let urls = urls.chain(std::env::var("STANDPIPE_TEST_OPENSEARCH3"));
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        let prefix = format!("{test}-{time}");
        urls.map(move |url| Self { url, prefix: prefix.clone() })
    }

    /// Elasticsearch 7.10 under the Apache licence has none.
    fn has_data_streams(&self) -> bool {
        self.ask(Method::Get, "/", &Value::Null)["version"]["distribution"] == "opensearch"
    }

    fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let transport = Transport::single_node(&self.url).unwrap();
        let body = (!body.is_null()).then(|| body.to_string());
        runtime.block_on(async {
            transport.send(method, path, HeaderMap::new(), None::<&()>, body, None).await.unwrap().json().await.unwrap()
        })
    }

    /// The `n` of all documents, in order.
    fn numbers(&self) -> Vec<i64> {
        self.ask(Method::Post, &format!("/{}*/_refresh", self.prefix), &Value::Null);
        let search = json!({ "size": 10_000, "sort": [{ "n": "asc" }], "track_total_hits": true });
        let found = self.ask(Method::Post, &format!("/{}*/_search", self.prefix), &search);
        let numbers: Vec<i64> = found["hits"]["hits"].as_array().unwrap().iter().map(|hit| hit["_source"]["n"].as_i64().unwrap()).collect();
        assert_eq!(found["hits"]["total"]["value"], numbers.len());
        numbers
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for path in [format!("/{}*", self.prefix), format!("/_index_template/{}", self.prefix)] {
            self.ask(Method::Delete, &path, &Value::Null);
        }
    }
}

#[test]
fn real_every_row_once_through_faults() {
    Real::each("once").for_each(|real| once(&real));
}

fn once(real: &Real) {
    let faults = Faults { seed: 5, busy_every: 6, busy_items: 0.1, unavailable_items: 0.1, cut_after_apply: 0.2, ..Faults::default() };
    let proxy = StandIn::proxy("127.0.0.1:0", &real.url, faults).unwrap();
    let more = json!({
        "index": format!("{}-{{ts:%Y.%m.%d}}", real.prefix),
        "id": ["host", "n"],
        "batch": { "max_docs": 200, "max_age": "20ms" },
        "gzip": true,
        "template": { "settings": { "number_of_shards": 1, "number_of_replicas": 0 } },
    });
    let mut sink = sink(config(&proxy.url(), more));
    write_rows(&mut sink, 0..5_000, 500);
    flush(&mut sink);
    assert_eq!(real.numbers(), (0..5_000).collect::<Vec<_>>());
    let counts = counts(&sink.host);
    assert!(counts["documents_ok"] == 5_000 && counts["documents_retried"] > 0, "{counts:?}");
    let mappings = real.ask(Method::Get, &format!("/{}-1970.01.01/_mapping", real.prefix), &Value::Null);
    let properties = &mappings[format!("{}-1970.01.01", real.prefix)]["mappings"]["properties"];
    assert_eq!(["ts", "n", "host"].map(|field| properties[field]["type"].clone()), ["date", "long", "keyword"]);
}

#[test]
fn real_refused_rows_are_dead_letters() {
    Real::each("refused").for_each(|real| refused(&real));
}

fn refused(real: &Real) {
    real.ask(Method::Put, &format!("/{}", real.prefix), &json!({ "mappings": { "properties": { "v": { "type": "long" } } } }));
    let values: StringArray = (0..100).map(|n| Some(if n % 10 == 4 { "x".to_owned() } else { n.to_string() })).collect();
    let rows = columns(vec![("n", Arc::new(Int64Array::from_iter_values(0..100))), ("v", Arc::new(values))]);
    let settings = config(&real.url, json!({ "index": real.prefix, "id": ["n"], "on_reject": "dead-letter" }));
    let mut sink = Harness::sink::<ElasticsearchSink>(settings, rows.schema());
    write(&mut sink, &rows);
    flush(&mut sink);
    let seen = rejections(&sink.host);
    assert_eq!(seen.keys().map(|(_, row)| *row).collect::<Vec<_>>(), (0..10).map(|n| n * 10 + 4).collect::<Vec<_>>());
    assert_eq!(seen[&(1, 4)]["status"], 400);
    let kind = seen[&(1, 4)]["type"].as_str().unwrap();
    assert!(["mapper_parsing_exception", "document_parsing_exception"].contains(&kind), "{kind}");
    assert_eq!(real.numbers(), (0..100).filter(|n| n % 10 != 4).collect::<Vec<_>>());
}

#[test]
fn real_creates_are_replayed() {
    Real::each("create").for_each(|real| create(&real));
}

fn create(real: &Real) {
    for _ in 0..2 {
        let mut sink = sink(config(&real.url, json!({ "index": real.prefix, "id": ["n"], "op_type": "create" })));
        write(&mut sink, &batch(0..500));
        flush(&mut sink);
        assert_eq!(counts(&sink.host)["documents_ok"], 500);
    }
    assert_eq!(real.numbers(), (0..500).collect::<Vec<_>>());
}

#[test]
fn real_blocked_index_is_waited_for_if_it_took_something_before() {
    Real::each("blocked").for_each(|real| blocked(&real));
}

fn blocked(real: &Real) {
    let block = |on: bool| real.ask(Method::Put, &format!("/{}/_settings", real.prefix), &json!({ "index.blocks.write": on }));
    real.ask(Method::Put, &format!("/{}", real.prefix), &json!({}));
    block(true);
    let made = || sink(config(&real.url, json!({ "index": real.prefix, "id": ["n"] })));
    let error = made().write(&batch(0..1)).unwrap_err();
    assert_eq!(error.code, ErrorCode::EXTERNAL);
    assert!(error.message.contains("does not let us write (cluster_block_exception"), "{error}");
    block(false);
    let mut sink = made();
    write(&mut sink, &batch(0..1));
    flush(&mut sink);
    block(true);
    write(&mut sink, &batch(1..100));
    let host = Arc::clone(&sink.host);
    assert!(host.wait_until(crate::support::PATIENCE, |host| host.metric("degraded") == Some(1.0)));
    assert!(host.messages().iter().any(|message| message.contains("cluster_block_exception")), "{:?}", host.messages());
    block(false);
    flush(&mut sink);
    assert_eq!(real.numbers(), (0..100).collect::<Vec<_>>());
}

#[test]
fn real_updates_and_tombstones_are_in_order() {
    Real::each("updates").for_each(|real| updates(&real));
}

/// `n` from 0 on, null where it is a multiple of 5, for keys from 0 to 9.
fn states(rows: Range<i64>) -> RecordBatch {
    let keys = Arc::new(Int64Array::from_iter_values(rows.clone().map(|n| n * n % 10)));
    let numbers: Int64Array = rows.map(|n| (n % 5 != 0).then_some(n)).collect();
    columns(vec![("key", keys), ("n", Arc::new(numbers))])
}

fn updates(real: &Real) {
    let proxy = StandIn::proxy(
        "127.0.0.1:0",
        &real.url,
        Faults { seed: 3, busy_items: 0.2, unavailable_items: 0.1, cut_after_apply: 0.1, ..Faults::default() },
    );
    let proxy = proxy.unwrap();
    let mut expected = BTreeMap::new();
    for n in 0..500 {
        if n % 5 == 0 {
            expected.remove(&(n * n % 10))
        } else {
            expected.insert(n * n % 10, n)
        };
    }
    for op_type in ["index", "update"] {
        let settings =
            config(&proxy.url(), json!({ "index": real.prefix, "id": ["key"], "op_type": op_type, "tombstone": "n", "in_flight": 3 }));
        let mut sink = Harness::sink::<ElasticsearchSink>(settings, states(0..0).schema());
        // Its first row is a tombstone: of an index that is not there.
        for from in (0..500).step_by(50) {
            write(&mut sink, &states(from..from + 50));
        }
        flush(&mut sink);
        assert_eq!(counts(&sink.host)["documents_ok"], 500);
        let mut numbers: Vec<i64> = expected.values().copied().collect();
        numbers.sort_unstable();
        assert_eq!(real.numbers(), numbers, "{op_type}");
    }
    // An update has left what it did not name.
    let names = columns(vec![("key", Arc::new(Int64Array::from(vec![1]))), ("name", Arc::new(StringArray::from(vec!["one"])))]);
    let mut sink = Harness::sink::<ElasticsearchSink>(
        config(&real.url, json!({ "index": real.prefix, "id": ["key"], "op_type": "update" })),
        names.schema(),
    );
    write(&mut sink, &names);
    sink.finish().unwrap();
    let document = real.ask(Method::Get, &format!("/{}/_doc/1", real.prefix), &Value::Null);
    assert_eq!(document["_source"], json!({ "key": 1, "n": expected[&1], "name": "one" }));
}

#[test]
fn real_later_versions_stand() {
    Real::each("versions").for_each(|real| versions(&real));
}

fn versions(real: &Real) {
    let rows = |versions: &[i64]| {
        let keys = Arc::new(Int64Array::from_iter_values(versions.iter().map(|_| 1)));
        let numbers: Int64Array = versions.iter().map(|version| (*version < 100).then_some(*version)).collect();
        columns(vec![("key", keys), ("n", Arc::new(numbers)), ("v", Arc::new(Int64Array::from(versions.to_vec())))])
    };
    // From 100 on a tombstone.
    for (versions, expected) in [(&[5, 3, 7, 6][..], &[7][..]), (&[6, 7, 4], &[7]), (&[100, 8], &[]), (&[9, 99], &[]), (&[100], &[])] {
        let settings = json!({ "index": real.prefix, "id": ["key"], "version": "column", "version_column": "v", "tombstone": "n" });
        let mut sink = Harness::sink::<ElasticsearchSink>(config(&real.url, settings), rows(&[]).schema());
        write(&mut sink, &rows(versions));
        flush(&mut sink);
        assert_eq!(counts(&sink.host)["documents_ok"], versions.len() as u64);
        assert_eq!(real.numbers(), expected, "{versions:?}");
    }
}

#[test]
fn real_data_streams_take_a_replay() {
    Real::each("stream").for_each(|real| stream(&real));
}

fn stream(real: &Real) {
    let rows = |rows: Range<i64>| {
        let times: TimestampMillisecondArray = rows.clone().map(|n| (n != 7).then_some(n * 1_000)).collect();
        columns(vec![("@timestamp", Arc::new(times)), ("n", Arc::new(Int64Array::from_iter_values(rows)))])
    };
    let template = json!({ "settings": { "number_of_shards": 1, "number_of_replicas": 0 } });
    let settings = json!({ "index": real.prefix, "id": ["n"], "data_stream": true, "template": template, "on_reject": "dead-letter" });
    for _ in 0..2 {
        let mut sink = Harness::sink::<ElasticsearchSink>(config(&real.url, settings.clone()), rows(0..0).schema());
        if !real.has_data_streams() {
            let error = sink.open().unwrap_err();
            assert!(error.code == ErrorCode::EXTERNAL && error.message.contains("does not take the index template"), "{error}");
            return;
        }
        write(&mut sink, &rows(0..300));
        flush(&mut sink);
        // A data stream refuses what has no time.
        assert_eq!(rejections(&sink.host).keys().copied().collect::<Vec<_>>(), [(1, 7)]);
        assert_eq!(counts(&sink.host)["documents_ok"], 299);
        sink.finish().unwrap();
    }
    assert_eq!(real.numbers(), (0..300).filter(|n| *n != 7).collect::<Vec<_>>());
    let streams = real.ask(Method::Get, &format!("/_data_stream/{}", real.prefix), &Value::Null);
    assert_eq!(streams["data_streams"][0]["name"], real.prefix, "{streams}");
    real.ask(Method::Delete, &format!("/_data_stream/{}", real.prefix), &Value::Null);
}
