//! The command line, as clap sees it.

mod checkpoint;
mod cluster;
mod collect;
mod deployment;
mod job;
mod plugin;
mod run;
mod values;

pub(crate) use checkpoint::{CheckpointCommand, StateCommand, StateFormat, StateQuery};
pub(crate) use cluster::{ApplicationArguments, ClusterCommand, ClusterStart, JobManagerArguments, TaskManagerArguments};
pub(crate) use collect::{CollectArguments, CollectFormat, CollectedRows, JobCollectArguments};
pub(crate) use deployment::{ConfigCommand, ConfigShow, DeployArguments, DeployedJob, DeploymentCommand, DeploymentSettings};
pub(crate) use job::{JobArguments, JobCommand, Remote};
pub(crate) use plugin::{CheckArguments, LockArguments, NewArguments, PluginCommand, ScaffoldKind};
pub(crate) use run::{DemoArguments, RunArguments};

use crate::logging::LogFormat;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use tracing_subscriber::filter::LevelFilter;
use values::key_value;

/// Streaming pipelines whose connectors are dynamic libraries.
#[derive(Debug, Parser)]
#[command(
    name = "standpipe",
    version,
    after_help = "Exit codes: 0 success; 1 the job failed; 2 usage, configuration or plugin error; 3 something outside; 130 second signal"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log lines for people or for machines
    #[arg(long, global = true, value_enum, default_value = "text", env = "STANDPIPE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// error, warn, info, debug, trace; STANDPIPE_LOG takes a finer filter
    #[arg(long, global = true, default_value = "warn")]
    pub(crate) log_level: LevelFilter,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline here, until its sources end or Ctrl-C
    Run(RunArguments),
    /// Find everything that is wrong with a pipeline without running it
    Check(PipelineArguments),
    /// Show the plan of a pipeline
    Explain(ExplainArguments),
    /// Print the JSON Schema of pipeline files, for editors
    Schema,
    /// What a job can go on from
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Hand a pipeline to the deployment mode that `deployment_mode` names, and print its handle
    Deploy(DeployArguments),
    /// A deployed job, by its handle
    #[command(subcommand)]
    Deployment(DeploymentCommand),
    /// Settings of deployments
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Running jobs, of this machine or of a session cluster
    Job(JobArguments),
    /// What a checkpoint holds
    #[command(subcommand)]
    State(StateCommand),
    /// Plugin files
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Run the job manager of a session cluster: REST on one port
    Jobmanager(JobManagerArguments),
    /// Run a task manager of a session cluster: jobs run in its worker processes
    Taskmanager(TaskManagerArguments),
    /// A session cluster on this machine: one job manager, one task manager
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Print what a pipeline needs, as JSON: the child process of the job manager
    #[command(hide = true)]
    Plan(PipelineArguments),
    /// Run a plugin for the process that starts this one: the child of a job
    #[command(hide = true)]
    PluginProcess(PluginProcessArguments),
    /// Run the metrics demo: generator -> Kafka -> windows, runs and flags -> Elasticsearch
    Demo(DemoArguments),
}

/// A pipeline and what changes it.
#[derive(Debug, Args)]
pub(crate) struct PipelineArguments {
    /// The pipeline file, YAML or JSON
    pub(crate) file: PathBuf,
    /// Subtasks of every node that does not say otherwise, before the pipeline's own `parallelism`
    #[arg(long, short, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) parallelism: Option<u32>,
    /// Set a key of the pipeline file: `--set sinks.out.with.path=/tmp/out.jsonl`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// A setting of the engine for where the pipeline file says nothing, as `engine.KEY` of a deployment: `--engine checkpoint.interval=10s`
    #[arg(long = "engine", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) engine: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) lock: PluginsLock,
    #[command(flatten)]
    pub(crate) plugins: PluginPath,
}

/// Where plugins are.
#[derive(Debug, Clone, Args)]
pub(crate) struct PluginPath {
    /// A plugin file or a directory of them; searched after the pipeline's `plugins:`, before STANDPIPE_PLUGIN_PATH
    #[arg(long = "plugin-path", value_name = "PATH")]
    pub(crate) plugin_path: Vec<PathBuf>,
}

/// Which plugin files may be used.
#[derive(Debug, Args)]
pub(crate) struct PluginsLock {
    /// The plugin files that may be used, as `plugin lock` writes them; plugins.lock beside the pipeline file, if it is there
    #[arg(long = "plugins-lock", value_name = "FILE")]
    pub(crate) plugins_lock: Option<PathBuf>,
}

/// What a job tells a process of a plugin.
#[derive(Debug, Args)]
pub(crate) struct PluginProcessArguments {
    /// The process that starts it
    #[arg(long)]
    pub(crate) parent: u32,
    /// The node and its plugin, for people who look at processes
    #[arg(long)]
    pub(crate) of: String,
}

/// How things are printed.
#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// For people.
    Text,
    /// JSON; of a list, one object per line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArguments,
    /// How to show it
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: ExplainFormat,
}

/// Forms of a plan.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ExplainFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
