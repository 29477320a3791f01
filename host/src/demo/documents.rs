//! The documents that the pipeline wrote, fetched by `_search`.

use super::{
    jobs::{Names, SINKS},
    services::Elasticsearch,
    truth::{Position, Run, Window, millis},
};
use crate::exit::{Code, Failure};
use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};
use ureq::Agent;

/// Documents of an answer.
const PAGE: usize = 1_000;

/// Everything that is in the indices, by what identifies it.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Windows and their means, by baseline and start in milliseconds.
    pub(super) windows: BTreeMap<(i32, i64), (Window, f64)>,
    /// Runs by the place of the record that ended them.
    pub(super) runs: BTreeMap<Position, Run>,
    /// The current flag and its time in milliseconds, by baseline.
    pub(super) flags: BTreeMap<i32, (i32, i64)>,
    /// Where the late signals are in the log.
    pub(super) late: HashSet<Position>,
    /// Documents that stand for something that another document stands for already.
    pub(super) doubled: Vec<String>,
}

#[derive(Deserialize)]
struct WindowDocument {
    baseline_id: i32,
    window_start: String,
    mean: f64,
    // float32, as the signal is: read as that, so that the shortest text of it is the same number again.
    min: f32,
    max: f32,
    n: u64,
    flags: u64,
}

#[derive(Deserialize)]
struct RunDocument {
    baseline_id: i32,
    run_length: u64,
    end_time: String,
    log_partition: i32,
    log_offset: i64,
}

#[derive(Deserialize)]
struct FlagDocument {
    baseline_id: i32,
    flag: i32,
    create_time: String,
}

#[derive(Deserialize)]
struct LateDocument {
    log_partition: i32,
    log_offset: i64,
}

/// A window as it is shown while the demo runs.
pub(super) struct NewWindow {
    pub(super) baseline: i32,
    pub(super) start: String,
    pub(super) values: Window,
    pub(super) mean: f64,
}

impl Found {
    /// How many there are.
    pub(super) fn documents(&self) -> u64 {
        (self.windows.len() + self.runs.len() + self.flags.len() + self.late.len() + self.doubled.len()) as u64
    }

    /// Fetches all documents of this run.
    pub(super) fn fetch(elasticsearch: &Elasticsearch, names: &Names) -> anyhow::Result<Self> {
        let server = Server::new(elasticsearch);
        let mut found = Self::default();
        for document in server.all::<WindowDocument>(&names.index("signal-windows"), &["baseline_id", "window_start"])? {
            let key = (document.baseline_id, time(&document.window_start)?);
            let window = document.window();
            if found.windows.insert(key, (window, document.mean)).is_some() {
                found.doubled.push(format!("window of baseline {} from {}", document.baseline_id, document.window_start));
            }
        }
        for document in server.all::<RunDocument>(&names.index("flag-runs"), &["log_partition", "log_offset"])? {
            let position = (document.log_partition, document.log_offset);
            let run = Run { baseline: document.baseline_id, length: document.run_length, end: time(&document.end_time)? };
            if found.runs.insert(position, run).is_some() {
                found.doubled.push(format!("run that ends at partition {}, offset {}", position.0, position.1));
            }
        }
        for document in server.flags(names)? {
            if found.flags.insert(document.baseline_id, (document.flag, time(&document.create_time)?)).is_some() {
                found.doubled.push(format!("flag of baseline {}", document.baseline_id));
            }
        }
        for document in server.all::<LateDocument>(&names.index("late-signals"), &["log_partition", "log_offset"])? {
            let position = (document.log_partition, document.log_offset);
            if !found.late.insert(position) {
                found.doubled.push(format!("late signal at partition {}, offset {}", position.0, position.1));
            }
        }
        Ok(found)
    }
}

impl WindowDocument {
    /// The sum is not in the document: the mean is compared by itself.
    fn window(&self) -> Window {
        Window { count: self.n, sum: self.mean * self.n as f64, min: self.min.into(), max: self.max.into(), flags: self.flags }
    }
}

/// The current flag and its time in milliseconds, by baseline, as far as there are any.
pub(super) fn flags(elasticsearch: &Elasticsearch, names: &Names) -> anyhow::Result<BTreeMap<i32, (i32, i64)>> {
    let flag = |document: FlagDocument| Ok((document.baseline_id, (document.flag, time(&document.create_time)?)));
    Server::new(elasticsearch).flags(names)?.into_iter().map(flag).collect()
}

/// How many documents can be found, by sink.
pub(super) fn counts(elasticsearch: &Elasticsearch, names: &Names) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let server = Server::new(elasticsearch);
    SINKS.into_iter().map(|sink| Ok((sink, server.count(&names.index(sink))?))).collect()
}

/// The windows that end last.
pub(super) fn newest_windows(elasticsearch: &Elasticsearch, names: &Names) -> anyhow::Result<Vec<NewWindow>> {
    let server = Server::new(elasticsearch);
    let query = json!({ "size": 10, "sort": [{ "window_start": "desc" }, { "baseline_id": "asc" }] });
    let hits = server.search(&names.index("signal-windows"), &query)?.hits.hits;
    let window = |hit: Hit| {
        let document: WindowDocument = serde_json::from_value(hit.source)?;
        let values = document.window();
        Ok(NewWindow { baseline: document.baseline_id, start: document.window_start, values, mean: document.mean })
    };
    hits.into_iter().map(window).collect()
}

fn time(text: &str) -> anyhow::Result<i64> {
    millis(text).with_context(|| format!("{text:?} in a document is no time"))
}

#[derive(Deserialize)]
struct Answer {
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_source")]
    source: Value,
    #[serde(default)]
    sort: Vec<Value>,
}

/// Asks Elasticsearch or OpenSearch.
struct Server<'a> {
    agent: Agent,
    url: &'a str,
    authorization: Option<String>,
}

impl<'a> Server<'a> {
    fn new(elasticsearch: &'a Elasticsearch) -> Self {
        let config = Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).http_status_as_error(false).build();
        let authorization =
            elasticsearch.login.as_ref().map(|(user, password)| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))));
        Self { agent: config.into(), url: &elasticsearch.url, authorization }
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let url = format!("{}/{path}", self.url);
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let outside = |error: ureq::Error| Failure::error(Code::Outside, format!("{url}: {error}"));
        let mut answer = request.send(body.to_string()).map_err(outside)?;
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().map_err(outside)?;
        Ok((answer.status().as_u16(), serde_json::from_str(&text).with_context(|| format!("{url}: the answer is no JSON"))?))
    }

    /// One page of an index. An index that is not there has no documents: a sink makes it with the first one.
    fn search(&self, index: &str, query: &Value) -> anyhow::Result<Answer> {
        match self.post(&format!("{index}/_search"), query)? {
            (200, answer) => Ok(serde_json::from_value(answer)?),
            (404, _) => Ok(Answer { hits: Hits { hits: Vec::new() } }),
            (status, answer) => Err(Failure::error(Code::Outside, format!("{}/{index}/_search: status {status}: {answer}", self.url))),
        }
    }

    fn flags(&self, names: &Names) -> anyhow::Result<Vec<FlagDocument>> {
        self.all(&names.index("current-flag"), &["baseline_id"])
    }

    /// Documents of an index. One that is not there has none, nor has one of which no part is there yet.
    fn count(&self, index: &str) -> anyhow::Result<u64> {
        match self.post(&format!("{index}/_count"), &json!({"query": {"match_all": {}}}))? {
            (200, answer) => Ok(answer.get("count").and_then(Value::as_u64).unwrap_or(0)),
            (404 | 503, _) => Ok(0),
            (status, answer) => Err(Failure::error(Code::Outside, format!("{}/{index}/_count: status {status}: {answer}", self.url))),
        }
    }

    /// All documents of an index, in the order of fields that tell them apart.
    fn all<T: for<'de> Deserialize<'de>>(&self, index: &str, order: &[&str]) -> anyhow::Result<Vec<T>> {
        // What was written a moment ago must be seen.
        let (status, answer) = self.post(&format!("{index}/_refresh"), &json!({}))?;
        if !matches!(status, 200 | 404) {
            return Err(Failure::error(Code::Outside, format!("{}/{index}/_refresh: status {status}: {answer}", self.url)));
        }
        let mut documents = Vec::new();
        let mut query = json!({ "size": PAGE, "sort": order });
        loop {
            let hits = self.search(index, &query)?.hits.hits;
            let Some(last) = hits.last() else { return Ok(documents) };
            query["search_after"] = Value::Array(last.sort.clone());
            for hit in hits {
                let text = hit.source.to_string();
                documents.push(
                    serde_json::from_value(hit.source)
                        .with_context(|| format!("{index}: a document is not what the pipeline writes: {text}"))?,
                );
            }
        }
    }
}
