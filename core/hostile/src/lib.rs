//! Input that is wrong on purpose, for the tests of whatever reads bytes from outside: files of plugins, pipelines, checkpoints, bodies of requests, frames. Noise alone ends at the first check, so
//! here are changes of what is right: as bytes ([`bytes`]) and as JSON ([`json`]).
//!
//! Only tests depend on it. How many cases they try is bounded ([`cases`]), by `PROPTEST_CASES` also otherwise.

#![forbid(unsafe_code)]

pub mod bytes;
pub mod json;

use proptest::{prelude::ProptestConfig, test_runner::RngSeed};

/// What every run can afford begins with: the same commit gives the same answer.
const SEED: u64 = 20_261_122;

/// As many cases as every run of the tests can afford, the same ones each time. By the environment's `PROPTEST_CASES` as many as it says, others each time; `PROPTEST_RNG_SEED` says which.
#[must_use]
pub fn cases(bounded: u32) -> ProptestConfig {
    // What fails gets a test of its own with its input: the seeds that proptest would leave in files say nothing to readers.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return config;
    }
    let rng_seed = if config.rng_seed == RngSeed::Random { RngSeed::Fixed(SEED) } else { config.rng_seed };
    ProptestConfig { cases: bounded, rng_seed, ..config }
}
