//! Questions to OpenSearch and Elasticsearch, past the sink.

use super::unique;
use serde_json::{Map, Value, json};
use standpipe_tests::Row;
use std::time::Duration;
use ureq::{Agent, http::Request};

/// Documents of a page.
const PAGE: usize = 5_000;

/// An OpenSearch, and a test's own part of its names, which is emptied when this is dropped.
pub(crate) struct OpenSearch {
    pub(crate) url: String,
    prefix: String,
    agent: Agent,
}

impl OpenSearch {
    /// The shared one; `None`: the test is to return.
    pub(crate) fn shared() -> Option<Self> {
        standpipe_tests::opensearch().map(Self::at)
    }

    /// The shared one, the shared Elasticsearch and the shared OpenSearch 3, those that there are.
    pub(crate) fn each() -> impl Iterator<Item = Self> {
        let urls = [standpipe_tests::opensearch(), standpipe_tests::elasticsearch(), standpipe_tests::opensearch3()];
        urls.into_iter().flatten().map(Self::at)
    }

    pub(crate) fn at(url: String) -> Self {
        let config = Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).http_status_as_error(false).proxy(None);
        Self { url, prefix: unique("test"), agent: config.build().into() }
    }

    /// The name of an index of this test.
    pub(crate) fn index(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Asks; the status and the answer.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(format!("{}/{path}", self.url)).header("content-type", "application/json");
        let mut answer = self.agent.run(request.body(body).unwrap()).unwrap_or_else(|error| panic!("{}/{path}: {error}", self.url));
        let text = answer.body_mut().with_config().limit(256 << 20).read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or_default())
    }

    /// Asks for what must succeed.
    pub(crate) fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// How many documents an index has that can be found; one that is not there has none.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.count_of(&self.index(name))
    }

    /// As [`Self::count`], of an index that is not this test's own.
    pub(crate) fn count_of(&self, index: &str) -> u64 {
        self.ask("POST", &format!("{index}/_refresh"), &Value::Null);
        match self.ask("GET", &format!("{index}/_count"), &Value::Null) {
            (200, answer) => answer["count"].as_u64().unwrap(),
            // Its shards are not there yet, or it is not.
            (404 | 503, _) => 0,
            (status, answer) => panic!("{index}: {status} {answer}"),
        }
    }

    /// All documents of an index of this test.
    pub(crate) fn documents(&self, name: &str) -> Vec<Row> {
        self.documents_of(&self.index(name))
    }

    /// All documents of an index; one that is not there has none.
    pub(crate) fn documents_of(&self, index: &str) -> Vec<Row> {
        self.ask("POST", &format!("{index}/_refresh"), &Value::Null);
        if self.ask("GET", index, &Value::Null).0 == 404 {
            return Vec::new();
        }
        let mut page = self.must("POST", &format!("{index}/_search?scroll=1m"), &json!({ "size": PAGE, "sort": ["_doc"] }));
        let mut documents = Vec::new();
        loop {
            let hits = page["hits"]["hits"].as_array().unwrap();
            if hits.is_empty() {
                self.must("DELETE", "_search/scroll", &json!({ "scroll_id": page["_scroll_id"] }));
                return documents;
            }
            documents.extend(hits.iter().map(|hit| hit["_source"].as_object().unwrap().clone()));
            page = self.must("POST", "_search/scroll", &json!({ "scroll": "1m", "scroll_id": page["_scroll_id"] }));
        }
    }

    /// The `with:` of a sink of that index at `url`, with these keys too.
    pub(crate) fn with(&self, url: &str, name: &str, id: &[&str], more: &Value) -> Value {
        // Short pauses: a test has less time than a user.
        let mut with = Map::from_iter([
            ("hosts".to_owned(), json!([url])),
            ("index".to_owned(), json!(self.index(name))),
            ("id".to_owned(), json!(id)),
            ("retry".to_owned(), json!({ "initial": "10ms", "max": "200ms" })),
        ]);
        with.extend(more.as_object().unwrap().clone());
        Value::Object(with)
    }
}

impl Drop for OpenSearch {
    fn drop(&mut self) {
        // The server of a test's own may be gone.
        let request = Request::builder().method("DELETE").uri(format!("{}/{}*", self.url, self.prefix)).body(()).unwrap();
        let _ = self.agent.run(request);
    }
}
