//! Against a real OpenSearch (or Elasticsearch): `STANDPIPE_TEST_OPENSEARCH=http://127.0.0.1:PORT`. Without it each test notes that it is skipped.

use crate::support::{batch, columns, config, counts, flush, rejections, sink, write, write_rows};
use arrow_array::{Int64Array, StringArray};
use elasticsearch::http::{Method, headers::HeaderMap, transport::Transport};
use serde_json::{Value, json};
use standpipe_connector_elasticsearch::ElasticsearchSink;
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use standpipe_sdk::{ErrorCode, testing::Harness};
use std::sync::Arc;

/// A real server, and a name for this run's indexes.
struct Real {
    url: String,
    prefix: String,
}

impl Real {
    fn new(test: &str) -> Option<Self> {
        let url = standpipe_sdk::testing::service("STANDPIPE_TEST_OPENSEARCH")?;
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        Some(Self { url, prefix: format!("{test}-{time}") })
    }

    fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let transport = Transport::single_node(&self.url).unwrap();
        let body = (!body.is_null()).then(|| body.to_string());
        runtime.block_on(async {
            transport.send(method, path, HeaderMap::new(), None::<&()>, body, None).await.unwrap().json().await.unwrap()
        })
    }

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
    let Some(real) = Real::new("once") else { return };
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
    let Some(real) = Real::new("refused") else { return };
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
    let Some(real) = Real::new("create") else { return };
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
    let Some(real) = Real::new("blocked") else { return };
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
