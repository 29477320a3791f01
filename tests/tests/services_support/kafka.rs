//! Topics, filled and read by pipelines of the binary, as a user would.

use super::{run, unique};
use serde_json::{Value, json};
use standpipe_tests::{Folder, rows};

/// A Kafka.
pub(crate) struct Kafka {
    pub(crate) bootstrap: String,
}

/// A record of a topic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) partition: i64,
    pub(crate) offset: i64,
    /// The value's text.
    pub(crate) value: String,
}

impl Kafka {
    /// The shared one; `None`: the test is to return.
    pub(crate) fn shared() -> Option<Self> {
        standpipe_tests::kafka().map(|bootstrap| Self { bootstrap })
    }

    /// The `with:` of a source or sink of that topic, with these keys too.
    pub(crate) fn with(&self, topic: &str, more: Value) -> Value {
        let mut with = json!({ "bootstrap": self.bootstrap, "topic": topic });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with
    }

    /// A new topic with these lines as values, in their order where there is one partition.
    pub(crate) fn topic_of(&self, name: &str, partitions: u32, lines: &[&str]) -> String {
        let topic = unique(name);
        let more = json!({ "create_topic": { "partitions": partitions, "replication": 1 } });
        let source = json!({ "connector": "file", "with": { "path": "lines" }, "format": "raw", "schema": { "line": "string" } });
        self.fill(&topic, lines.join("\n"), source, "raw", more);
        topic
    }

    /// Writes rows, one JSON object per line, as JSON; `more` is for the sink's `with:`.
    pub(crate) fn write_rows(&self, topic: &str, lines: &str, schema: &Value, more: Value) {
        let source = json!({ "connector": "file", "with": { "path": "lines" }, "format": "json", "schema": schema });
        self.fill(topic, lines, source, "json", more);
    }

    fn fill(&self, topic: &str, lines: impl AsRef<[u8]>, source: Value, format: &str, more: Value) {
        let folder = Folder::new();
        folder.write("lines", lines);
        let sink = json!({ "input": "lines", "connector": "kafka", "with": self.with(topic, more), "format": format });
        let pipeline = json!({ "name": "fill", "sources": { "lines": source }, "sinks": { "topic": sink } });
        run(&folder, &pipeline).finish().success();
    }

    /// Copies what a topic has, for a reader of committed records, as JSON lines with the columns of this schema into a file of the folder.
    pub(crate) fn copy_rows(&self, topic: &str, schema: &Value, folder: &Folder, file: &str) {
        let source =
            json!({ "connector": "kafka", "with": self.with(topic, json!({ "bounded": true })), "format": "json", "schema": schema });
        let sink = json!({ "input": "topic", "connector": "file", "with": { "path": file }, "format": "json" });
        run(folder, &json!({ "name": "copy", "sources": { "topic": source }, "sinks": { "out": sink } })).finish().success();
    }

    /// All records of a topic, partition after partition.
    pub(crate) fn read(&self, topic: &str) -> Vec<Record> {
        let with = self.with(topic, json!({ "bounded": true, "metadata": ["partition", "offset"] }));
        let source = json!({ "connector": "kafka", "with": with, "format": "raw", "schema": { "line": "string" } });
        let sink = json!({ "input": "topic", "connector": "print", "format": "json" });
        let pipeline = json!({ "name": "read", "sources": { "topic": source }, "sinks": { "out": sink } });
        let finished = run(&Folder::new(), &pipeline).finish().code(0);
        let record = |row: standpipe_tests::Row| Record {
            partition: row["partition"].as_i64().unwrap(),
            offset: row["offset"].as_i64().unwrap(),
            value: row["line"].as_str().unwrap().to_owned(),
        };
        let mut records: Vec<Record> = rows(&finished.stdout).into_iter().map(record).collect();
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }
}
