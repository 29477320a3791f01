//! What the end-to-end tests share: they run the built `standpipe` binary with its plugins as a user does, and look at what it prints, writes and ends with.
//!
//! Nothing here knows pipelines or the engine. The tests are in `tests/`; those of real services take the addresses from [`kafka`],
//! [`opensearch`], [`s3`] and [`flink`].
//! `cargo xtask test` builds and runs everything; by hand: `cargo build --profile ci --workspace`, then `cargo test --profile ci -p standpipe-tests`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod browser;
mod children;
mod files;
mod folder;
mod holding;
mod network;
mod once;
mod process;
mod random;
mod rows;
mod services;
mod wait;
mod yaml;

pub use browser::{Browser, keys};
pub use children::{has_ended, plugin_processes, processes, signal};
pub use files::{binary, bundled_plugins, example_plugin, fixture_plugin, on_path, plugin, repository};
pub use folder::Folder;
pub use holding::Holding;
pub use network::{Lan, Machine, has_networks, in_own_network, in_own_network_with};
pub use once::{Seen, assert_counted, assert_windows};
pub use process::{Finished, Run, Running, standpipe};
pub use random::Random;
pub use rows::{Row, assert_same_rows, last_rows, read_rows, rows};
pub use rustix::process::Signal;
pub use services::{
    KubernetesNode, all, elasticsearch, flink, helm, kafka, kubernetes, kubernetes_node, opensearch, opensearch3, python, s3, skip,
};
pub use wait::{free_port, wait_until};
pub use yaml::yaml;
