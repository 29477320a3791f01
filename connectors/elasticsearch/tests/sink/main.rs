//! The sink through the SDK's harness, against the stand-in with its faults, and against a real OpenSearch and Elasticsearch where
//! `STANDPIPE_TEST_OPENSEARCH` and `STANDPIPE_TEST_ELASTICSEARCH` name one (`tests/services/opensearch.sh start DIR` prints its url).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod delivery;
mod open;
mod order;
mod real;
mod support;
mod trouble;
