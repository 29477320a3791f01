//! `plugin ...`.

use super::{
    OutputFormat, PluginPath,
    values::{duration, key_value},
};
use clap::{Args, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Write the crate of a new plugin, which builds, tests and runs as it is
    New(NewArguments),
    /// What is found, and where
    List {
        #[command(flatten)]
        plugins: PluginPath,
    },
    /// All that a plugin file says of itself: its functions run in a process of its own
    Inspect {
        /// The plugin file
        file: PathBuf,
        /// Tables for people, or JSON, in which each configuration is a JSON Schema
        #[arg(long, value_enum, default_value = "text")]
        format: OutputFormat,
        /// As `--format json`
        #[arg(long)]
        json: bool,
    },
    /// Write the lock of a pipeline: the plugin files that it runs with, by their content
    Lock(LockArguments),
    /// Try what a host relies on: the conformance suite, each kind in a process of its own
    Check(Box<CheckArguments>),
    /// Runs checks as its standard input says: the child process of `check`
    #[command(hide = true)]
    Try,
    /// What a plugin's kinds can do, as JSON: the child process of `inspect`
    #[command(hide = true)]
    Declared {
        /// The plugin file
        file: PathBuf,
    },
    /// Reads a manifest and prints it as JSON: the child process of `inspect`
    #[command(hide = true)]
    Manifest {
        /// The plugin file
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct LockArguments {
    /// The pipeline file, YAML or JSON
    pub(crate) file: PathBuf,
    /// Where it is written; plugins.lock beside the pipeline file if nobody says
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// Set a key of the pipeline file, as `run --set` does
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) plugins: PluginPath,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The plugin file
    #[arg(required_unless_present = "list")]
    pub(crate) file: Option<PathBuf>,
    /// Kinds of this kind alone: source, transform, sink, scalar, aggregate, deployment
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Kinds of that name alone
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The configuration, `{"path": "in.jsonl"}`, or @FILE with it; without it the defaults
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) config: Option<String>,
    /// Take configuration, input and key from a node of a pipeline
    #[arg(long, value_name = "FILE", requires = "node", conflicts_with_all = ["config", "kind", "name", "schema"])]
    pub(crate) pipeline: Option<PathBuf>,
    /// That node: `sinks.out`, or `out`
    #[arg(long, requires = "pipeline")]
    pub(crate) node: Option<String>,
    /// Set a key of that pipeline file
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, requires = "pipeline")]
    pub(crate) set: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) plugins: PluginPath,
    /// The columns of its input, of which rows are made up: `id:int64 not null, name:string`; without it a schema is sought that the plugin takes
    #[arg(long, value_name = "COLUMN:TYPE,...")]
    pub(crate) schema: Option<String>,
    /// Rows to try it with, in place of those that are made up: .parquet, or with a schema .jsonl and .csv
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// The columns of its key
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub(crate) key: Vec<String>,
    /// The types of a function's arguments: `int64,string`; without it some are sought that it takes
    #[arg(long, value_name = "TYPE,...")]
    pub(crate) arguments: Option<String>,
    /// Another number gives other rows
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Batches in the search for leaks; without it 20000, or what can be done in 20 seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(64..))]
    pub(crate) batches: Option<u64>,
    /// A million batches
    #[arg(long, conflicts_with = "batches")]
    pub(crate) thorough: bool,
    /// Within what a call must come back that is cancelled, or is to wait no longer
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) deadline: Duration,
    /// These checks alone
    #[arg(long, value_name = "CHECK,...", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// How the report is printed
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: OutputFormat,
    /// Print all checks and what a host relies on, and try nothing
    #[arg(long)]
    pub(crate) list: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NewArguments {
    /// Of the crate, and of the kind in pipelines
    pub(crate) name: String,
    /// What it is to be
    #[arg(long, value_enum)]
    pub(crate) kind: ScaffoldKind,
    /// Where it is written; a folder of that name if nobody says
    #[arg(long, value_name = "FOLDER")]
    pub(crate) path: Option<PathBuf>,
    /// A clone of Standpipe's repository to build with, in place of the SDK's source that comes with the binary
    #[arg(long, value_name = "FOLDER")]
    pub(crate) sdk: Option<PathBuf>,
}

/// Kinds of plugins to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScaffoldKind {
    /// Reads rows from somewhere.
    Source,
    /// Makes rows of rows.
    Transform,
    /// Makes rows of rows by key, with state and timers.
    KeyedTransform,
    /// Writes rows somewhere.
    Sink,
    /// Scalar and aggregate functions for expressions.
    Function,
    /// Runs pipelines somewhere.
    Deployment,
}
