//! Arguments of what looks into checkpoints.

use super::{OutputFormat, values::key_value};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Checkpoints of a pipeline.
#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointCommand {
    /// List them, oldest first
    List(CheckpointArguments),
    /// Show what one of them holds
    Inspect {
        #[command(flatten)]
        of: CheckpointArguments,
        /// Its number; the newest if none is given
        id: Option<u64>,
    },
    /// Remove one of them, a savepoint too, with the files that only it needs
    Discard {
        #[command(flatten)]
        of: CheckpointArguments,
        /// Its number
        id: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointArguments {
    /// The pipeline file, which says where its checkpoints are
    pub(crate) file: PathBuf,
    /// Set a key of the pipeline file: `--set checkpoint.dir=/tmp/checkpoints`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: OutputFormat,
}

/// The state in a checkpoint.
#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Ask a checkpoint in SQL
    Query(StateQuery),
}

#[derive(Debug, Args)]
pub(crate) struct StateQuery {
    /// A pipeline file, a job's folder or URL (`checkpoints/counts`, `s3://bucket/counts`), or a manifest in it
    pub(crate) checkpoint: String,
    /// The query, over tables NODE.TABLE; without one, the tables are listed
    pub(crate) sql: Option<String>,
    /// The checkpoint's number; the newest if none is given
    #[arg(long, short)]
    pub(crate) number: Option<u64>,
    /// Set a key of the pipeline file: `--set checkpoint.dir=/tmp/checkpoints`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: StateFormat,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum StateFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
    /// With a header.
    Csv,
}
