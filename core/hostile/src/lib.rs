//! Input that is wrong on purpose, for the tests of whatever reads bytes from outside: files of plugins, pipelines, checkpoints, bodies of requests, frames. Noise alone ends at the first check, so
//! here are changes of what is right: as bytes ([`bytes`]) and as JSON ([`json`]).
//!
//! Only tests depend on it. How many cases they try is bounded ([`cases`]), by `PROPTEST_CASES` also otherwise.

#![forbid(unsafe_code)]

pub mod bytes;
pub mod json;

use proptest::prelude::ProptestConfig;

/// As many cases as every run of the tests can afford; more, or fewer, by the environment's `PROPTEST_CASES`.
#[must_use]
pub fn cases(bounded: u32) -> ProptestConfig {
    // What fails gets a test of its own with its input: the seeds that proptest would leave in files say nothing to readers.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: bounded, ..config } }
}
