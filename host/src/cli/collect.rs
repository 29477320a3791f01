//! Arguments of what prints rows of a job.

use super::{DeployedJob, DeploymentSettings, PluginPath, values::duration};
use clap::{Args, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Rows of a deployed job.
#[derive(Debug, Args)]
pub(crate) struct CollectArguments {
    /// The node; not needed if there is one sink of the connector collect
    pub(crate) name: Option<String>,
    /// The node, by its name in the pipeline, with that of an output behind it where it is not the main one: stats.late. Of a sink `collect` all rows are given, from the first that is kept; of any
    /// other node those that pass from now on
    #[arg(long, value_name = "NODE", conflicts_with = "name")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) job: DeployedJob,
    #[command(flatten)]
    pub(crate) rows: CollectedRows,
}

/// Rows of a running job.
#[derive(Debug, Args)]
pub(crate) struct JobCollectArguments {
    /// The pipeline's name, or the beginning of the job's id; with --handle, the node
    #[arg(required_unless_present = "handle")]
    pub(crate) job: Option<String>,
    /// The node, by its name in the pipeline, with that of an output behind it where it is not the main one: stats.late; rows are given as they pass, from now on
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// The handle that `deploy` gave, instead of a job: as `deployment collect`
    #[arg(long, value_name = "FILE")]
    pub(crate) handle: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: DeploymentSettings,
    #[command(flatten)]
    pub(crate) plugins: PluginPath,
    #[command(flatten)]
    pub(crate) rows: CollectedRows,
}

/// How many rows, and where they go.
#[derive(Debug, Args)]
pub(crate) struct CollectedRows {
    /// Rows at most; a job that does not end by itself needs this or --timeout
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Rows that come until then
    #[arg(long, value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: CollectFormat,
    /// Write to this file instead of stdout; it is there when all of it is
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Formats of collected rows.
#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum CollectFormat {
    /// For people, when all rows are there.
    Table,
    /// One JSON object per line, as they come.
    Json,
    /// With a header, as they come.
    Csv,
    /// An Arrow IPC stream, as they come.
    Arrow,
    /// A Parquet file.
    Parquet,
}
