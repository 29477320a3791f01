//! The connector `generator`: a source of made-up rows, for demos, load and tests.
//!
//! A row is a function of the seed and the row's number, so a replay gives the same rows, and so does any number of splits: split s of k has the rows
//! s, s + k, s + 2k, ... The configuration is in `config`, what the columns hold in `columns`, the random numbers, simple enough to be recomputed anywhere,
//! in `random`, when rows come in `source`.
#![deny(unsafe_code)]

pub mod columns;
pub mod config;
pub mod random;
mod source;
mod time;

pub use config::GeneratorConfig;
pub use source::{GeneratorEnumerator, GeneratorSource};

standpipe_sdk::export_plugin! { sources: [GeneratorSource] }
