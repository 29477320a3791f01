//! The `with:` of the sink, as a user writes it. Its doc comments are the reference. What the types cannot say is checked in `plan`.

use crate::units::{Size, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use standpipe_sdk::Secret;
use std::{path::PathBuf, time::Duration};

/// Writes rows as documents into Elasticsearch or OpenSearch.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Addresses of nodes, `http://HOST:PORT` or `https://...`. Requests take turns; a node that cannot be reached is left out for a while.
    pub hosts: Vec<String>,
    /// The index: a name, or a template that each row fills in, such as `stats-{window_start:%Y.%m.%d}` or `logs-{host}`. Timestamps (UTC) need a strftime format.
    pub index: String,
    /// The index of rows for which the template gives no name: a value is null or has characters that a name may not have. Without it such rows are rejected.
    #[serde(default)]
    pub index_fallback: Option<String>,
    /// Columns that make the document's id, so that a repeated row is the same document: values are joined by `|`; `\` and `|` in texts are written `\\` and `\|`,
    /// null is `\N`. Default: the key of an upsert stream, else none (the server makes an id, and a replay makes another document).
    #[serde(default)]
    pub id: Option<Vec<String>>,
    /// What a row does. Default: `create` for a data stream, else `index`. A deleted row of an upsert stream deletes its document in any case.
    #[serde(default)]
    pub op_type: Option<OpType>,
    /// A column of which a null makes the row a tombstone: it deletes the document of its id, in order with the writes of that id. Needs ids.
    #[serde(default)]
    pub tombstone: Option<String>,
    /// Where the version of a document comes from, if not from the server. With one, a row that is older than its document changes nothing and counts as delivered: also
    /// where several jobs or retries write in another order. Only with `op_type: index` and `delete`. The server remembers the version of a deleted document for
    /// `index.gc_deletes` (60 s).
    #[serde(default)]
    pub version: Version,
    /// The column of `version: column`: a whole number, or a time, which counts in microseconds.
    #[serde(default)]
    pub version_column: Option<String>,
    /// Whether the index is a data stream, which takes `create` alone and needs a time in the column `@timestamp`. A `template` that is put makes data streams then.
    #[serde(default)]
    pub data_stream: bool,
    /// Puts an index template at start, with a mapping derived from the columns.
    #[serde(default)]
    pub template: Option<Template>,
    /// For basic authentication.
    #[serde(default)]
    pub username: Option<String>,
    /// For basic authentication.
    #[serde(default)]
    pub password: Option<Secret>,
    /// An API key, encoded as the server gave it (base64 of `id:key`). Instead of username and password.
    #[serde(default)]
    pub api_key: Option<Secret>,
    /// Certificates of https.
    #[serde(default)]
    pub tls: Tls,
    /// What goes into a request.
    #[serde(default)]
    pub batch: Batch,
    /// Requests at the same time, at most; fewer while the server answers 429 or slowly. 1 to 64.
    #[serde(default = "in_flight")]
    pub in_flight: usize,
    /// Documents that wait or are under way, at most; above it the pipeline is held back.
    #[serde(default = "buffer")]
    pub buffer: Size,
    /// The pause before something is sent again. There is no last attempt: what is not rejected for good is sent until it is taken.
    #[serde(default)]
    pub retry: Retry,
    /// Whether requests are compressed.
    #[serde(default)]
    pub gzip: bool,
    /// Requests a second at most, of each subtask. Default: no limit.
    #[serde(default)]
    pub requests_per_second: Option<f64>,
    /// An answer that takes longer counts as one that says 429: fewer and smaller requests are under way then.
    #[serde(default = "slow_after")]
    pub slow_after: Time,
    /// How long an answer may take.
    #[serde(default = "timeout")]
    pub timeout: Time,
    /// How long the first answer may take when the job starts.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Time,
    /// What happens to a row that the server refuses for good, such as a value that does not fit the mapping.
    #[serde(default)]
    pub on_reject: OnReject,
}

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OpType {
    /// It is the document, whatever was there.
    #[default]
    Index,
    /// It is the document if there is none of its id; else nothing changes and the row counts as delivered, for it is a repeated one. Append streams only.
    Create,
    /// Its columns replace those of the document and leave other fields alone; without a document it is one. Needs ids.
    Update,
    /// It deletes the document of its id. Needs ids. Append streams only.
    Delete,
}

/// Where the version of a document comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// From the server, which counts writes: the last write stands.
    #[default]
    None,
    /// The row's place in its source, of which it must have the column (Kafka's offset, a file's position). Only places of one partition or file can be compared: all rows
    /// of an id must come from the same.
    Position,
    /// The column `version_column`.
    Column,
}

/// What happens to a row that is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnReject {
    /// The job fails.
    #[default]
    Fail,
    /// The row goes to the sink's `errors` output with status, type and reason.
    DeadLetter,
    /// The row is counted and forgotten.
    Drop,
}

/// An index template, put at start.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Whether it is put.
    #[serde(default = "yes")]
    pub create: bool,
    /// Whether a template of the same name is replaced; else it is left alone.
    #[serde(default)]
    pub overwrite: bool,
    /// Its name. Default: the text of `index` before the first column.
    #[serde(default)]
    pub name: Option<String>,
    /// The settings of new indexes, such as `{number_of_shards: 1, number_of_replicas: 0}`.
    #[serde(default)]
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// Certificates of https.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with the certificates of authorities to trust besides the well-known ones.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether the server's certificate is checked.
    #[serde(default = "yes")]
    pub verify: bool,
}

/// What goes into a request.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Documents at most.
    #[serde(default = "max_docs")]
    pub max_docs: usize,
    /// Bytes at most, before compression; a larger document goes alone.
    #[serde(default = "max_bytes")]
    pub max_bytes: Size,
    /// How long the first document waits for others.
    #[serde(default = "max_age")]
    pub max_age: Time,
}

/// The pause before something is sent again: it doubles from `initial` to `max`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The first pause.
    #[serde(default = "initial")]
    pub initial: Time,
    /// The longest pause.
    #[serde(default = "max")]
    pub max: Time,
    /// The share of a pause, 0 to 1, that is left to chance, so that many clients do not come at once.
    #[serde(default = "jitter")]
    pub jitter: f64,
}

impl Config {
    /// What a row does that is no deletion.
    pub(crate) fn op(&self) -> OpType {
        self.op_type.unwrap_or(if self.data_stream { OpType::Create } else { OpType::Index })
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { ca_file: None, verify: true }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self { max_docs: max_docs(), max_bytes: max_bytes(), max_age: max_age() }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { initial: initial(), max: max(), jitter: jitter() }
    }
}

const fn yes() -> bool {
    true
}

const fn in_flight() -> usize {
    2
}

const fn buffer() -> Size {
    Size(32 << 20)
}

const fn slow_after() -> Time {
    Time(Duration::from_secs(10))
}

const fn timeout() -> Time {
    Time(Duration::from_secs(30))
}

const fn connect_timeout() -> Time {
    Time(Duration::from_secs(5))
}

const fn max_docs() -> usize {
    1000
}

const fn max_bytes() -> Size {
    Size(5 << 20)
}

const fn max_age() -> Time {
    Time(Duration::from_millis(200))
}

const fn initial() -> Time {
    Time(Duration::from_millis(100))
}

const fn max() -> Time {
    Time(Duration::from_secs(10))
}

const fn jitter() -> f64 {
    0.3
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_left_out_has_its_documented_default() {
        let config: Config =
            serde_json::from_value(json!({ "hosts": ["http://a:9200"], "index": "i", "template": {}, "retry": { "max": "1m" } })).unwrap();
        assert_eq!(
            (config.batch.max_docs, config.batch.max_bytes, config.batch.max_age),
            (1000, Size(5 << 20), Time(Duration::from_millis(200)))
        );
        assert_eq!((config.in_flight, config.gzip, config.on_reject, config.op_type), (2, false, OnReject::Fail, None));
        assert_eq!((config.version, config.data_stream, config.requests_per_second), (Version::None, false, None));
        assert_eq!((config.retry.initial, config.retry.max), (Time(Duration::from_millis(100)), Time(Duration::from_secs(60))));
        let template = config.template.unwrap();
        assert!(template.create && !template.overwrite && config.tls.verify);
    }

    #[test]
    fn a_unit_is_asked_for() {
        let wrong = serde_json::from_value::<Config>(json!({ "hosts": [], "index": "i", "timeout": "30" })).unwrap_err().to_string();
        assert!(wrong.contains("\"30\" is no duration; write a number and a unit"), "{wrong}");
    }
}
