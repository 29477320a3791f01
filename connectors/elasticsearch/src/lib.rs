//! The Elasticsearch sink: rows of an append or upsert stream become documents of Elasticsearch 7 to 9 or OpenSearch 1 to 3, by the `_bulk` interface.
//!
//! A batch goes `sink` (the host's calls) -> `bulk` (rows to action and document lines, with `index_name`, `id`, `version`, `document`) -> `lane` (order per id, what to send
//! next) -> `sender` (the thread that owns the connections, back-off and back-pressure) -> `response` (each item's fate) -> `progress` (acknowledgements, counts).
//! `config`, `plan` and `operation` check the configuration without I/O; `client` (with `credentials`) and `template` are what `open` does.
//!
//! Delivery: every row is delivered or rejected before its batch is acknowledged. With `id` (always, for upserts) a repeated row is the same document: effectively
//! once. Without `id` the server makes the ids and a replay writes a row twice.
#![deny(unsafe_code)]

mod bulk;
mod client;
mod config;
mod credentials;
mod document;
mod id;
mod index_name;
mod lane;
mod operation;
mod plan;
mod pressure;
mod progress;
mod response;
mod sender;
mod sink;
mod template;
mod text;
mod version;

use standpipe_sdk::units;

pub use config::Config;
pub use sink::ElasticsearchSink;

standpipe_sdk::export_plugin! { sinks: [ElasticsearchSink] }
