//! The Kafka plugin: the source `kafka`, the sink `kafka`, and the source `kafka-stand-in`, a cluster in this process for demonstrations. The only place where
//! rdkafka (librdkafka, with TLS and zstd built in) is named.
//!
//! A record's way in: `enumerator` finds partitions (`split`), `source` reads them (`reading`, `prefetch`) through `batch` into columns, `lag` watches how far behind it is. Its way out: `sink` opens,
//! `records` makes batches into records with their key (`key`) and headers (`headers`). `live` hands them to librdkafka, `delivery` keeps the books until they are acknowledged; or
//! `exactly_once` keeps them (`epoch`) until their checkpoint is durable, and a `transaction` writes them. `config` and `values` are the `with:` of a pipeline,
//! `client` what librdkafka is told, `cluster` and `admin` what is asked of the brokers at a start,
//! `token` what they ask of us. The host encodes and decodes values: nothing here looks into one.
#![deny(unsafe_code)]

pub mod admin;
pub mod batch;
pub mod client;
pub mod cluster;
pub mod config;
pub mod delivery;
pub mod enumerator;
pub mod epoch;
mod exactly_once;
pub mod headers;
pub mod key;
pub mod lag;
mod live;
pub mod prefetch;
mod reading;
pub mod records;
pub mod signal;
pub mod sink;
pub mod source;
pub mod split;
pub mod stand_in;
pub mod token;
mod transaction;
pub mod values;

pub use config::{SinkConfig, SourceConfig, StandInConfig};
pub use sink::KafkaSink;
pub use source::KafkaSource;
pub use stand_in::KafkaStandIn;

standpipe_sdk::export_plugin! { sources: [KafkaSource, KafkaStandIn], sinks: [KafkaSink] }
