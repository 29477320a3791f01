//! Arguments of deployments and of their settings.

use super::{
    CollectArguments, OutputFormat, PluginPath, PluginsLock,
    values::{duration, key_value, restore_text},
};
use clap::{Args, Subcommand};
use std::{path::PathBuf, time::Duration};

/// Settings of a deployment, beside those of the pipeline's `deployment:`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeploymentSettings {
    /// A file of settings, a YAML map of flat dotted keys; of several the later one is stronger
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,
    /// A setting: `-D rest.port=8081`; stronger than the files
    #[arg(short = 'D', value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) define: Vec<(String, String)>,
    /// Take warnings for errors
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeployArguments {
    /// The pipeline file, YAML or JSON
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) settings: DeploymentSettings,
    /// Subtasks of every node that does not say otherwise, before the pipeline's own `parallelism`
    #[arg(long, short, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) parallelism: Option<u32>,
    /// A file or folder that the pipeline reads by a relative path and that is to go with it
    #[arg(long, value_name = "PATH")]
    pub(crate) resource: Vec<PathBuf>,
    /// Go on from a checkpoint: `latest`, its number, or the path or URL of its manifest
    #[arg(long, value_name = "latest|NUMBER|PATH", value_parser = restore_text)]
    pub(crate) restore: Option<String>,
    /// With --restore: leave behind the state of nodes that are not in the pipeline any more
    #[arg(long, requires = "restore")]
    pub(crate) allow_non_restored_state: bool,
    /// Print what would be submitted, for Kubernetes the manifests, and submit nothing
    #[arg(long, conflicts_with = "handle")]
    pub(crate) dry_run: bool,
    /// Write the handle to this new file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) handle: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) lock: PluginsLock,
    #[command(flatten)]
    pub(crate) plugins: PluginPath,
}

/// A deployed job, by the handle that `deploy` gave.
#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentCommand {
    /// Show its state, and why
    Status {
        #[command(flatten)]
        job: DeployedJob,
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        format: OutputFormat,
    },
    /// Wait for its end and show how it was; 1 if it failed
    Wait {
        #[command(flatten)]
        job: DeployedJob,
        /// Wait no longer
        #[arg(long, value_parser = duration)]
        timeout: Option<Duration>,
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        format: OutputFormat,
    },
    /// End it without a savepoint, and show how it ended
    Cancel {
        #[command(flatten)]
        job: DeployedJob,
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        format: OutputFormat,
    },
    /// End it with a savepoint; prints where that is
    Stop {
        #[command(flatten)]
        job: DeployedJob,
        /// Where to put the savepoint; where the job keeps its checkpoints if nothing is said
        #[arg(long, value_name = "PLACE")]
        savepoint: Option<String>,
        /// Fire its open windows behind the savepoint, as if the sources had ended
        #[arg(long)]
        drain: bool,
    },
    /// Let it go on with another parallelism, from a savepoint that is taken for it
    Rescale {
        #[command(flatten)]
        job: DeployedJob,
        /// Subtasks of every node that does not say otherwise
        #[arg(value_parser = clap::value_parser!(u32).range(1..=4096))]
        parallelism: u32,
    },
    /// Print its log so far
    Logs {
        #[command(flatten)]
        job: DeployedJob,
    },
    /// Print the rows of a sink `collect`, or those that pass another node
    Collect(CollectArguments),
    /// Remove what it left behind
    Remove {
        #[command(flatten)]
        job: DeployedJob,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DeployedJob {
    /// The handle that `deploy` gave; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) handle: PathBuf,
    #[command(flatten)]
    pub(crate) settings: DeploymentSettings,
    #[command(flatten)]
    pub(crate) plugins: PluginPath,
}

/// Settings of deployments.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the settings of a pipeline's deployment, each with its origin
    Show(ConfigShow),
    /// Print the JSON Schema of files of settings, for editors
    Schema {
        #[command(flatten)]
        plugins: PluginPath,
        /// Only the keys of every mode
        #[arg(long, hide = true)]
        own: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShow {
    /// The pipeline file, YAML or JSON
    pub(crate) file: PathBuf,
    /// Defaults too
    #[arg(long)]
    pub(crate) effective: bool,
    #[command(flatten)]
    pub(crate) settings: DeploymentSettings,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: OutputFormat,
    #[command(flatten)]
    pub(crate) plugins: PluginPath,
}
