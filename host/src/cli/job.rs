//! Arguments of what asks running jobs.

use super::{CollectArguments, OutputFormat, values::http};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Which jobs.
#[derive(Debug, Args)]
pub(crate) struct JobArguments {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) command: JobCommand,
}

/// A session cluster.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// Jobs of the session cluster of this job manager, and not of this machine
    #[arg(long, global = true, value_name = "URL", value_parser = http)]
    pub(crate) jobmanager: Option<String>,
    /// A file with the job manager's token
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The authority of the job manager's certificate, PEM; without it, those that everybody knows
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// Running jobs of this user on this machine, or of a session cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List them, in the order of their start
    List {
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        format: OutputFormat,
    },
    /// Show how one does: rows, lag, watermarks, checkpoints, what is degraded and why
    Show {
        /// The pipeline's name, or the beginning of the job's id
        job: String,
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        format: OutputFormat,
    },
    /// Take a savepoint: a checkpoint that stays until it is discarded; prints its number
    Savepoint {
        /// The pipeline's name, or the beginning of the job's id
        job: String,
        /// Copy it to this folder or URL; prints where it is then
        #[arg(long, value_name = "DIR|URL")]
        to: Option<String>,
    },
    /// Stop one cleanly, as Ctrl-C does, and wait for its end
    Stop {
        /// The pipeline's name, or the beginning of the job's id
        job: String,
        /// Make the last checkpoint a savepoint; prints its number
        #[arg(long)]
        savepoint: bool,
        /// Fire the open windows, as if the sources had ended
        #[arg(long)]
        drain: bool,
        /// Copy the savepoint to this folder or URL; prints where it is then
        #[arg(long, value_name = "DIR|URL")]
        to: Option<String>,
    },
    /// End one at once; nothing more is delivered or committed
    Cancel {
        /// The pipeline's name, or the beginning of the job's id
        job: String,
    },
    /// Give one of a session cluster another parallelism: it stops with a savepoint and goes on from there
    Rescale {
        /// The pipeline's name, or the beginning of the job's id
        job: String,
        /// Subtasks of every node that does not say otherwise
        #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
        parallelism: u32,
    },
    /// The end of what the processes of one of a session cluster have written
    Logs {
        /// The pipeline's name, or the beginning of the job's id
        job: String,
    },
    /// Print the rows of a sink `collect` of a deployed job, by its handle; as `deployment collect`
    Collect(CollectArguments),
}
