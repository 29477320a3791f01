//! Arguments of what prints rows of a job.

use super::{DeployedJob, values::duration};
use clap::{Args, ValueEnum};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Args)]
pub(crate) struct CollectArguments {
    /// The sink's name in the pipeline; not needed if there is one of the connector collect
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) job: DeployedJob,
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
