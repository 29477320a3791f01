//! The stand-in over HTTP: what a client of Elasticsearch sees, with and without faults, direct and as a proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use standpipe_elasticsearch_stand_in::{Faults, StandIn};
use std::{io::Write, time::Duration};

struct Http {
    runtime: tokio::runtime::Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Http {
    fn new(url: String) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, client: Client::builder(TokioExecutor::new()).build_http(), url }
    }

    fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Option<(u16, Value)> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        self.runtime.block_on(async {
            let response = self.client.request(request).await.ok()?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            Some((status, serde_json::from_slice(&body).unwrap_or_default()))
        })
    }

    fn ask(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(method, path, &[], body).expect("an answer")
    }

    fn bulk(&self, lines: &str) -> Option<(u16, Value)> {
        self.send(Method::POST, "/_bulk", &[], lines.as_bytes().to_vec())
    }
}

fn lines(index: &str, ids: impl Iterator<Item = u32>) -> String {
    ids.map(|id| format!("{{\"index\":{{\"_index\":\"{index}\",\"_id\":\"{id}\"}}}}\n{{\"n\":{id}}}\n")).collect()
}

fn statuses(answer: &Value) -> Vec<u64> {
    answer["items"].as_array().unwrap().iter().map(|item| item["index"]["status"].as_u64().unwrap()).collect()
}

#[test]
fn an_index_lives_from_its_first_document_to_its_deletion() {
    let server = StandIn::start("127.0.0.1:0", Faults::default()).unwrap();
    let http = Http::new(server.url());
    assert_eq!(http.ask(Method::GET, "/", &Value::Null).1["tagline"], "You Know, for Search");
    assert_eq!(http.ask(Method::GET, "/a-1/_search", &Value::Null).0, 404);
    let (status, answer) = http.bulk(&lines("a-1", 0..25)).unwrap();
    assert_eq!((status, answer["errors"].as_bool(), statuses(&answer)), (200, Some(false), vec![201; 25]));
    let (_, page) = http.ask(
        Method::POST,
        "/a-*/_search",
        &json!({ "size": 3, "sort": [{ "n": "desc" }], "search_after": [10], "track_total_hits": true }),
    );
    assert_eq!(page["hits"]["total"]["value"], 25);
    let page: Vec<_> = page["hits"]["hits"].as_array().unwrap().iter().map(|hit| hit["_source"]["n"].as_u64().unwrap()).collect();
    assert_eq!(page, [9, 8, 7]);
    assert_eq!(http.ask(Method::GET, "/a-1/_count", &Value::Null).1["count"], 25);
    assert_eq!(http.ask(Method::POST, "/a-1/_refresh", &Value::Null).0, 200);
    assert_eq!(http.ask(Method::PUT, "/a-1", &Value::Null).1["error"]["type"], "resource_already_exists_exception");
    assert_eq!(http.ask(Method::DELETE, "/a-1", &Value::Null).0, 200);
    assert_eq!(http.ask(Method::GET, "/a-1", &Value::Null).1["error"]["type"], "index_not_found_exception");
    assert_eq!(http.ask(Method::GET, "/_nodes", &Value::Null).0, 400);
}

#[test]
fn templates_are_kept() {
    let server = StandIn::start("127.0.0.1:0", Faults::default()).unwrap();
    let http = Http::new(server.url());
    let template = json!({ "index_patterns": ["a-*"], "template": { "mappings": { "properties": { "n": { "type": "date" } } } } });
    assert_eq!(http.ask(Method::HEAD, "/_index_template/t", &Value::Null).0, 404);
    assert_eq!(http.ask(Method::PUT, "/_index_template/t", &template).0, 200);
    assert_eq!(http.ask(Method::PUT, "/_index_template/t?create=true", &template).0, 400);
    assert_eq!(http.ask(Method::GET, "/_index_template/t", &Value::Null).1["index_templates"][0]["index_template"], template);
    assert_eq!(server.template("t"), Some(template));
    assert_eq!(http.ask(Method::DELETE, "/_index_template/t", &Value::Null).0, 200);
    assert_eq!(server.template("t"), None);
}

#[test]
fn a_gzip_body_is_read_and_a_large_one_refused() {
    let server = StandIn::start("127.0.0.1:0", Faults { max_body_bytes: Some(600), ..Faults::default() }).unwrap();
    let http = Http::new(server.url());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(lines("a", 0..40).as_bytes()).unwrap();
    let (status, answer) = http.send(Method::POST, "/_bulk", &[("content-encoding", "gzip")], encoder.finish().unwrap()).unwrap();
    assert_eq!((status, statuses(&answer).len()), (200, 40));
    assert_eq!(http.send(Method::POST, "/_bulk", &[("content-encoding", "gzip")], b"plain".to_vec()).unwrap().0, 400);
    assert_eq!(http.bulk(&lines("a", 0..40)).unwrap().0, 413);
    assert_eq!(server.documents("a").len(), 40);
}

#[test]
fn faults_of_a_request_as_a_whole() {
    let server = StandIn::start("127.0.0.1:0", Faults { busy_every: 2, ..Faults::default() }).unwrap();
    let http = Http::new(server.url());
    let seen: Vec<_> = (0..4).map(|n| http.bulk(&lines("a", n..n + 1)).unwrap().0).collect();
    assert_eq!(seen, [200, 429, 200, 429]);
    server.set_faults(Faults { cut_after_apply: 1.0, ..Faults::default() });
    assert_eq!(http.bulk(&lines("a", 7..8)), None);
    assert!(server.documents("a").iter().any(|document| document.id == "7"), "a request is cut after it was applied");
    server.set_faults(Faults { cut_before_apply: 1.0, ..Faults::default() });
    assert_eq!(http.bulk(&lines("a", 8..9)), None);
    assert!(!server.documents("a").iter().any(|document| document.id == "8"), "a request is cut before it is applied");
    server.set_faults(Faults { authorization: Some("ApiKey x".to_owned()), ..Faults::default() });
    assert_eq!(http.ask(Method::GET, "/", &Value::Null).1["error"]["type"], "security_exception");
    assert_eq!(http.send(Method::GET, "/", &[("authorization", "ApiKey x")], Vec::new()).unwrap().0, 200);
    server.set_faults(Faults { latency: Duration::from_millis(50), ..Faults::default() });
    let start = std::time::Instant::now();
    assert_eq!(http.ask(Method::GET, "/", &Value::Null).0, 200);
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[test]
fn a_stopped_server_answers_nothing_and_comes_back_with_its_documents() {
    let server = StandIn::start("127.0.0.1:0", Faults::default()).unwrap();
    let http = Http::new(server.url());
    assert_eq!(http.bulk(&lines("a", 0..3)).unwrap().0, 200);
    server.set_running(false);
    assert_eq!(http.bulk(&lines("b", 0..1)), None);
    server.set_running(true);
    assert_eq!(http.bulk(&lines("a", 4..5)).unwrap().0, 200);
    assert!(server.documents("a").len() == 4 && server.documents("b").is_empty());
}

#[test]
fn a_proxy_sends_on_what_is_not_faulted_and_answers_in_order() {
    let server = StandIn::start("127.0.0.1:0", Faults::default()).unwrap();
    let faults = Faults { seed: 3, busy_items: 0.3, refused_indices: vec!["closed".to_owned()], ..Faults::default() };
    let proxy = StandIn::proxy("127.0.0.1:0", &server.url(), faults).unwrap();
    let http = Http::new(proxy.url());
    let (status, answer) = http.bulk(&lines("a", 0..100)).unwrap();
    let seen = statuses(&answer);
    assert_eq!((status, seen.len()), (200, 100));
    let refused = seen.iter().filter(|status| **status == 429).count();
    assert!((10..50).contains(&refused), "{refused}");
    let applied: Vec<u64> = server.documents("a").iter().map(|document| document.source["n"].as_u64().unwrap()).collect();
    for (n, status) in (0..100).zip(seen) {
        assert_eq!(applied.contains(&n), status == 201, "{n}");
    }
    assert_eq!(statuses(&http.bulk(&lines("closed", 0..2)).unwrap().1), [403, 403]);
    assert_eq!(http.ask(Method::POST, "/a/_count", &Value::Null).1["count"], 100 - refused);
    assert_eq!(proxy.documents("a"), []);
    assert!(StandIn::proxy("127.0.0.1:0", "ftp://x", Faults::default()).is_err());
}
