//! The `with:` of the Kafka kinds, and what can be said of it without a connection. The doc comments become the reference of the connector.
//! Read by `source`, `enumerator`, `sink` and `stand_in`; what librdkafka makes of the properties is in `client`.

use crate::{
    client::{self, Role},
    values::{ColumnNames, Interval, MetadataColumns, PropertyValue, Size, StartTime},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use standpipe_sdk::{Secret, is_reference, wire::Problem};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

/// Where a partition is read from at the job's first start. A partition that is added later is read from its oldest record.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// From its oldest record.
    #[default]
    Earliest,
    /// From its end.
    Latest,
    /// From the position that the consumer group `group` has committed.
    Group,
    /// From the first record that is not older than this.
    Timestamp(StartTime),
}

impl JsonSchema for Start {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Start".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let time = generator.subschema_for::<StartTime>();
        json_schema!({
            "anyOf": [
                { "enum": ["earliest", "latest", "group"] },
                { "type": "object", "properties": { "timestamp": time }, "required": ["timestamp"], "additionalProperties": false },
            ],
        })
    }
}

/// What to do about a partition of which the group has no position.
#[derive(Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum MissingPosition {
    /// Read it from its oldest record.
    Earliest,
    /// Read it from its end.
    Latest,
    /// The job fails.
    Fail,
}

/// See [`SinkConfig::max_pending`].
const LARGEST_PENDING: usize = 512 << 20;

/// Reads topics of Apache Kafka. Every partition is a split with its offset as position; partitions are assigned to the subtasks, not by a consumer group.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The brokers to ask first: `host:port`, several with commas.
    pub bootstrap: String,
    /// The topic to read.
    pub topic: Option<String>,
    /// Several topics, instead of `topic`.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Where a partition is read from at the job's first start: `earliest` (default: its oldest record), `latest` (its end), `group` (where the consumer group `group` stands)
    /// or `{timestamp: "2026-01-31T12:00:00Z"}` (the first record that is not older; also milliseconds since the epoch). A job that goes on from a checkpoint goes on from its own positions.
    #[serde(default)]
    pub start: Start,
    /// With `start: group`: a partition of which the group has no position is read from `earliest` (default) or `latest`, or the job fails (`fail`).
    pub missing_position: Option<MissingPosition>,
    /// Reads to the end that each partition has at the job's start, then ends. Default: reads for ever.
    #[serde(default)]
    pub bounded: bool,
    /// A consumer group to which the positions of durable checkpoints are committed, for tools that watch its lag. They are read from it with `start: group` alone.
    pub group: Option<String>,
    /// What Kafka knows of a record, as further columns: a list of `key`, `headers`, `timestamp`, `partition`, `offset`, `topic`, or a map from these to column names.
    #[serde(default)]
    pub metadata: MetadataColumns,
    /// How often to look for new partitions. Default 30s.
    #[serde(default = "default_discovery_interval")]
    pub discovery_interval: Interval,
    /// How long to wait for the first connection. Default 10s.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Interval,
    /// Further properties of librdkafka: TLS, SASL (PLAIN, SCRAM, OAUTHBEARER), fetch sizes. `isolation.level` is `read_committed` unless set here; `auto.offset.reset`
    /// says what to do when a position has been deleted: `error` unless set here.
    #[serde(default)]
    pub properties: BTreeMap<String, PropertyValue>,
    /// The bearer token for the property `sasl.mechanisms: OAUTHBEARER`. A reference that is written with two dollar signs, like `$${file:/run/token}`, is looked up again
    /// before the token expires.
    pub oauth_token: Option<Secret>,
}

/// How a sink delivers.
#[derive(Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// As the records come. After a failure some are there twice.
    #[default]
    AtLeastOnce,
    /// In a transaction when their checkpoint is durable. Readers with `isolation.level: read_committed` see each record once.
    ExactlyOnce,
}

/// What becomes of a delete.
#[derive(Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "snake_case")]
pub enum Deletes {
    /// A record like the others, with its row kind.
    #[default]
    Record,
    /// A record without a value.
    Tombstone,
}

/// Writes records to a topic of Apache Kafka, in order, at least once or exactly once.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// The brokers to ask first: `host:port`, several with commas.
    pub bootstrap: String,
    /// The topic to write. It must exist, unless `create_topic` is there, or the property `allow.auto.create.topics` is true and the brokers create topics.
    pub topic: String,
    /// Creates the topic at the start if it is missing: `{partitions: 5, replication: 1}`. Absent: a missing topic is an error.
    pub create_topic: Option<CreateTopic>,
    /// The column or columns of the record's key. One text or binary column is the key as it is; anything else is written as JSON. For a stream with keys the default is
    /// its key. Records of one key are in one partition, the one that Java's producer chooses too.
    #[serde(default)]
    pub key: ColumnNames,
    /// An integer column with the partition; null lets the key decide.
    pub partition: Option<String>,
    /// A column with the record's timestamp: a timestamp, or an integer of milliseconds since the epoch. Default: the time of writing.
    pub timestamp: Option<String>,
    /// A column with the record's headers: a map from text to text or binary, as the source gives them; null is no headers.
    pub headers: Option<String>,
    /// What becomes of a delete of an upsert or retract stream: `record` (default; the field `op` of the value says what it is) or `tombstone`, a record with the key and no
    /// value, as compacted topics want it; the old value of an update (`-U`) is then not written.
    #[serde(default)]
    pub deletes: Deletes,
    /// `at-least-once` (default): records are sent as they come. `exactly-once`: those of a checkpoint are sent when it is durable, in one transaction; needs
    /// `checkpoint:`.
    #[serde(default)]
    pub delivery: Delivery,
    /// With `exactly-once`: how the transactional ids begin, and the names of the groups that hold what they have committed; topic and subtask follow. Two jobs must not
    /// have the same. Default: the pipeline's and the sink's name.
    pub transactional_id_prefix: Option<String>,
    /// With `exactly-once`: how much a subtask holds in memory for the next checkpoint before its sources are held up until then. Default 64MiB, at most 512MiB.
    #[serde(default = "default_max_pending")]
    pub max_pending: Size,
    /// How long to wait for the first connection. Default 10s.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Interval,
    /// Further properties of librdkafka: TLS, SASL (PLAIN, SCRAM, OAUTHBEARER), compression, batching. `message.timeout.ms` is 0 (never give up) unless set here.
    #[serde(default)]
    pub properties: BTreeMap<String, PropertyValue>,
    /// The bearer token for the property `sasl.mechanisms: OAUTHBEARER`. A reference that is written with two dollar signs, like `$${file:/run/token}`, is looked up again
    /// before the token expires.
    pub oauth_token: Option<Secret>,
}

/// How a missing topic is created. A topic that exists is left as it is.
#[derive(Deserialize, JsonSchema, Debug, Clone, Default)]
#[serde(deny_unknown_fields)]
pub struct CreateTopic {
    /// Its partitions. Default: what the brokers' `num.partitions` says.
    #[schemars(range(min = 1))]
    pub partitions: Option<i32>,
    /// On how many brokers each record is kept. Default: what the brokers' `default.replication.factor` says.
    #[schemars(range(min = 1))]
    pub replication: Option<i16>,
    /// Kafka's own properties of the topic: `{cleanup.policy: compact, retention.ms: 86400000}`.
    #[serde(default)]
    pub properties: BTreeMap<String, PropertyValue>,
}

/// Starts a stand-in for a Kafka cluster inside this process, for demonstrations and tests without a server, and gives one row with its address (`bootstrap`) and a
/// remark (`message`). It lives until the source is closed. It is librdkafka's mock cluster: the real protocol on the loopback interface, in memory, without transactions that
/// hold, without creation of topics by clients, and it silently drops the oldest records of a partition beyond some 5 MB.
#[derive(Deserialize, JsonSchema, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct StandInConfig {
    /// Topics to create, with their numbers of partitions: `{baseline_signal: 4}`.
    pub topics: BTreeMap<String, u16>,
    /// How many brokers to play. Default 1.
    #[serde(default = "default_brokers")]
    pub brokers: u8,
    /// A file that gets the address when the cluster is up, and is removed when it ends.
    pub address_file: Option<std::path::PathBuf>,
}

fn default_discovery_interval() -> Interval {
    Interval::seconds(30)
}

fn default_connect_timeout() -> Interval {
    Interval::seconds(10)
}

fn default_max_pending() -> Size {
    Size(64 << 20)
}

fn default_brokers() -> u8 {
    1
}

impl SourceConfig {
    /// The topics to read.
    #[must_use]
    pub fn topics(&self) -> Vec<&str> {
        self.topic.iter().chain(&self.topics).map(String::as_str).collect()
    }

    /// Everything that is wrong, without a connection.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        check_bootstrap(&self.bootstrap, &mut problems);
        match (&self.topic, self.topics.as_slice()) {
            (None, []) => problems.push(problem("topic", "is missing")),
            (Some(_), [_, ..]) => problems.push(problem("topics", "stands beside `topic`: give one of the two")),
            _ => {}
        }
        let mut seen = HashSet::new();
        for (index, topic) in self.topics().into_iter().enumerate() {
            let path = if self.topic.is_some() { "topic".to_owned() } else { format!("topics[{index}]") };
            check_topic(&path, topic, &mut problems);
            if !seen.insert(topic) {
                problems.push(problem(&path, format!("{topic:?} is named twice")));
            }
        }
        self.check_metadata(&mut problems);
        if self.bounded && self.start == Start::Latest {
            problems.push(problem("start", "a bounded source that starts at the end reads nothing"));
        }
        if self.start == Start::Group && self.group.is_none() {
            problems.push(problem("start", "needs `group`, whose positions are to be read"));
        }
        if self.start != Start::Group && self.missing_position.is_some() {
            problems.push(problem("missing_position", "needs `start: group`"));
        }
        client::check_properties(Role::Consumer, &self.properties, &mut problems);
        problems
    }

    fn check_metadata(&self, problems: &mut Vec<Problem>) {
        let mut columns = HashSet::from([standpipe_sdk::wire::VALUE_COLUMN]);
        let mut kinds = HashSet::new();
        for (kind, column) in &self.metadata.0 {
            let path = format!("metadata.{}", kind.name());
            if !kinds.insert(kind) {
                problems.push(problem(&path, "is named twice"));
            } else if column.is_empty() || !columns.insert(column) {
                problems.push(problem(&path, format!("the column name {column:?} is empty or taken")));
            }
        }
    }
}

impl SinkConfig {
    /// Everything that is wrong, without a connection and without a look at the input.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        check_bootstrap(&self.bootstrap, &mut problems);
        check_topic("topic", &self.topic, &mut problems);
        if let Some(create) = &self.create_topic {
            create.check(self.oauth_token.is_some(), &mut problems);
        }
        client::check_properties(Role::Producer, &self.properties, &mut problems);
        self.check_delivery(&mut problems);
        problems
    }

    fn check_delivery(&self, problems: &mut Vec<Problem>) {
        let exactly_once = self.delivery == Delivery::ExactlyOnce;
        client::check_transactions(exactly_once, &self.properties, problems);
        match &self.transactional_id_prefix {
            Some(_) if !exactly_once => problems.push(problem("transactional_id_prefix", "needs `delivery: exactly-once`")),
            Some(prefix) if prefix.is_empty() => problems.push(problem("transactional_id_prefix", "is empty")),
            _ => {}
        }
        if self.max_pending.0 == 0 || self.max_pending.0 > LARGEST_PENDING {
            problems.push(problem("max_pending", "must be from 1B to 512MiB"));
        }
    }
}

impl CreateTopic {
    fn check(&self, has_token: bool, problems: &mut Vec<Problem>) {
        if let Some(partitions @ ..=0) = self.partitions {
            problems.push(problem("create_topic.partitions", format!("{partitions} is too few")));
        }
        if let Some(replication @ ..=0) = self.replication {
            problems.push(problem("create_topic.replication", format!("{replication} is too few")));
        }
        // librdkafka's administration client has no way to hand it a token.
        if has_token {
            problems.push(problem("create_topic", "does not work with `oauth_token`: create the topic beforehand"));
        }
    }
}

/// A wrong value.
pub(crate) fn problem(path: &str, message: impl Into<String>) -> Problem {
    Problem { path: path.to_owned(), message: message.into(), suggestion: None }
}

fn check_bootstrap(bootstrap: &str, problems: &mut Vec<Problem>) {
    if is_reference(bootstrap) {
        return;
    }
    for address in bootstrap.split(',').map(str::trim) {
        let address_only = address.rsplit_once("://").map_or(address, |(_, rest)| rest);
        let port = address_only.rsplit_once(':').map(|(host, port)| (!host.is_empty(), port.parse::<u16>().is_ok_and(|port| port > 0)));
        if port != Some((true, true)) {
            problems.push(problem("bootstrap", format!("{address:?} is no address like host:9092")));
        }
    }
}

/// Kafka's rule for topic names (`org.apache.kafka.common.internals.Topic`).
fn check_topic(path: &str, topic: &str, problems: &mut Vec<Problem>) {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !is_reference(topic) && (topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.bytes().all(legal)) {
        problems.push(problem(path, format!("{topic:?} is no topic name: up to 249 letters, digits, dots, dashes and underscores")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths(config: serde_json::Value) -> Vec<String> {
        serde_json::from_value::<SourceConfig>(config).unwrap().problems().into_iter().map(|p| p.path).collect()
    }

    #[test]
    fn a_plain_configuration_is_right() {
        assert_eq!(paths(json!({ "bootstrap": "a:9092, [::1]:9093", "topics": ["x", "y.z-1"] })), [""; 0]);
        assert_eq!(paths(json!({ "bootstrap": "${env:BROKERS}", "topic": "${env:TOPIC}" })), [""; 0]);
    }

    #[test]
    fn a_start_is_a_word_or_a_time() {
        let start = |start: serde_json::Value| serde_json::from_value::<Start>(start).map_err(|error| error.to_string());
        assert_eq!(start(json!("group")), Ok(Start::Group));
        let noon = Ok(Start::Timestamp(StartTime(1_700_000_000_123)));
        for text in [
            json!("2023-11-14T22:13:20.123Z"),
            json!("2023-11-15T00:13:20.123+02:00"),
            json!("2023-11-14 22:13:20.123"),
            json!(1_700_000_000_123_i64),
        ] {
            assert_eq!(start(json!({ "timestamp": text })), noon);
        }
        let error = start(json!({ "timestamp": "noon" })).unwrap_err();
        assert!(error.contains("\"noon\" is no time"), "{error}");
        assert!(start(json!({ "timestamp": -1 })).is_err() && start(json!({ "timestamp": "1969-12-31T23:59:59Z" })).is_err());
        let with = |more: serde_json::Value| {
            let mut config = json!({ "bootstrap": "a:1", "topic": "t" });
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            paths(config)
        };
        assert_eq!(with(json!({ "start": "group", "group": "g", "missing_position": "fail" })), [""; 0]);
        assert_eq!(with(json!({ "start": "group" })), ["start"]);
        assert_eq!(with(json!({ "missing_position": "latest" })), ["missing_position"]);
    }

    #[test]
    fn a_topic_to_create_is_checked() {
        let wrong = json!({ "bootstrap": "a:1", "topic": "t", "oauth_token": "x", "create_topic": { "partitions": 0, "replication": -1 } });
        let found = serde_json::from_value::<SinkConfig>(wrong).unwrap().problems();
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["create_topic.partitions", "create_topic.replication", "create_topic"]);
        let right =
            json!({ "bootstrap": "a:1", "topic": "t", "create_topic": { "partitions": 1, "properties": { "retention.ms": 1000 } } });
        assert_eq!(serde_json::from_value::<SinkConfig>(right).unwrap().problems(), []);
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let wrong = json!({
            "bootstrap": "broker", "topics": ["a b", "c", "c"], "bounded": true, "start": "latest",
            "metadata": { "key": "value", "offset": "o", "partition": "o" },
        });
        assert_eq!(paths(wrong), ["bootstrap", "topics[0]", "topics[2]", "metadata.key", "metadata.partition", "start"]);
        assert_eq!(paths(json!({ "bootstrap": "a:1" })), ["topic"]);
        assert_eq!(paths(json!({ "bootstrap": "a:1", "topic": "x", "topics": ["y"] })), ["topics"]);
    }
}
