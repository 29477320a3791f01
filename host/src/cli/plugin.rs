//! `plugin ...`.

use super::{PluginPath, values::key_value};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Write the crate of a new plugin, which builds, tests and runs as it is
    New(NewArguments),
    /// What is found, and where
    List {
        #[command(flatten)]
        plugins: PluginPath,
    },
    /// All that a plugin file says of itself; only its manifest function runs, in a process of its own
    Inspect {
        /// The plugin file
        file: PathBuf,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Write the lock of a pipeline: the plugin files that it runs with, by their content
    Lock(LockArguments),
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
