//! The project's own commands: `cargo xtask test`, `cargo xtask demo`, `cargo xtask lint`, `cargo xtask docs`, `cargo xtask bench`.
//!
//! They build what they need and say plainly what is missing. This binary starts other programs and holds no logic of Standpipe; people and `.ci/run` call it.
#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod docs;
mod services;
mod suite;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Standpipe's build, test and demo commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and run all tests, against a real Kafka, OpenSearch and Elasticsearch and an S3-compatible server
    Test(suite::Options),
    /// Formatting, clippy, rustdoc, the generated tables of docs/, licences and sources of dependencies
    Lint,
    /// Write the tables of docs/connectors.md and docs/deployment.md from what the plugins say of themselves
    Docs(docs::Options),
    /// Build the release binary with its plugins and run the metrics demo
    Demo {
        /// Passed on to `standpipe demo`: --duration, --kafka, --elasticsearch, ...
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the benchmark workloads W1-W4 on the release binary, or with --costs what checkpoints, recovery, state, processes and services cost
    Bench(bench::Options),
}

fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Test(options) => suite::test(&options),
        Command::Lint => suite::lint(),
        Command::Docs(options) => docs::docs(&options),
        Command::Demo { arguments } => {
            let binary = cargo::release()?;
            cargo::run_and_exit(&binary, "demo", &arguments)
        }
        Command::Bench(options) => bench::bench(&options),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
