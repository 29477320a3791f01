//! The command line, as clap sees it.

use crate::logging::LogFormat;
use clap::{Args, Parser, Subcommand, ValueEnum};
use standpipe_checkpoint::Start;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tracing_subscriber::filter::LevelFilter;

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
    pub(crate) plugins: PluginPath,
}

/// Where plugins are.
#[derive(Debug, Args)]
pub(crate) struct PluginPath {
    /// A plugin file or a directory of them; searched after the pipeline's `plugins:`, before STANDPIPE_PLUGIN_PATH
    #[arg(long = "plugin-path", value_name = "PATH")]
    pub(crate) plugin_path: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) pipeline: PipelineArguments,
    /// On Ctrl-C fire the open windows, as if the sources had ended
    #[arg(long)]
    pub(crate) drain: bool,
    /// Show no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Answer Prometheus there, at /metrics, while the job runs
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Run it in so many processes of this machine: if one of them fails, all are started again as `restart:` says
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processes: u32,
    /// Encrypt what these processes say to each other (TLS 1.3); one alone has nobody to talk to
    #[arg(long)]
    pub(crate) tls: bool,
    /// Go on from a checkpoint: `latest`, its number, or the path or URL of its manifest, also in another place than the pipeline's
    #[arg(long, value_name = "latest|NUMBER|PATH", value_parser = restore)]
    pub(crate) restore: Option<Start>,
    /// Begin with nothing, although there are checkpoints: they are passed over and removed by and by
    #[arg(long, conflicts_with = "restore")]
    pub(crate) fresh: bool,
    /// With --restore: leave behind the state of nodes that are not in the pipeline any more
    #[arg(long, requires = "restore")]
    pub(crate) allow_non_restored_state: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JobManagerArguments {
    /// Where it listens; another address than loopback needs a token
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    pub(crate) bind: SocketAddr,
    /// What it keeps: its database and the jobs' files [default: ~/.local/state/standpipe/jobmanager]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// A file with the token that requests must have (`Authorization: Bearer TOKEN`)
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Speak TLS: its certificate, and those between it and its authority, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Listen on another address than loopback without a token: whoever reaches it may look, and be a task manager; jobs are taken from this machine alone
    #[arg(long, conflicts_with = "token_file")]
    pub(crate) open: bool,
    /// A task manager that is not heard of for so long is lost, and its work goes elsewhere
    #[arg(long, default_value = "15s", value_parser = lease)]
    pub(crate) lease: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct TaskManagerArguments {
    /// How many engine workers may run here
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) slots: u32,
    /// The job manager
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081", value_parser = http)]
    pub(crate) jobmanager: String,
    /// The name or address that task managers on other machines reach this one by
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Jobs' files and logs; of this task manager alone [default: ~/.local/state/standpipe/taskmanager-PID]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// A file with the job manager's token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Answer Prometheus there, at /metrics, also with the figures of the jobs that run here
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// The authority of the job manager's certificate, PEM, if its URL is https://
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// What a worker may have for each of its slots: 2GiB; one that wants more is killed, and no other (cgroups)
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub(crate) memory_per_slot: Option<u64>,
    /// Of how many processors a worker may have all of the time, for each of its slots: 1.5 (cgroups)
    #[arg(long, value_name = "N", value_parser = cpus)]
    pub(crate) cpus_per_slot: Option<f64>,
}

/// A session cluster on this machine.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Start one in the background; prints its address
    Start(ClusterStart),
    /// End it; jobs with checkpoints that ran go on when it is started again
    Stop {
        /// As it was started with
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ClusterStart {
    /// Slots of its task manager
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) slots: u32,
    /// The port of its job manager, on 127.0.0.1
    #[arg(long, default_value_t = 8081, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Answer Prometheus there, at /metrics, with the figures of its task manager and of jobs
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Its data and logs [default: ~/.local/state/standpipe/cluster]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

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

/// Settings of a deployment, beside those of the pipeline's `deployment:`.
#[derive(Debug, Args)]
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
    #[arg(long, value_name = "latest|NUMBER|PATH")]
    pub(crate) restore: Option<String>,
    /// With --restore: leave behind the state of nodes that are not in the pipeline any more
    #[arg(long, requires = "restore")]
    pub(crate) allow_non_restored_state: bool,
    /// Write the handle to this new file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) handle: Option<PathBuf>,
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
    },
    /// Print its log so far
    Logs {
        #[command(flatten)]
        job: DeployedJob,
    },
    /// Print the rows of a sink `collect`
    Collect(CollectArguments),
    /// Remove what it left behind
    Remove {
        #[command(flatten)]
        job: DeployedJob,
    },
}

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

/// How things are printed.
#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    /// For people.
    Text,
    /// JSON; of a list, one object per line.
    Json,
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
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
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
    /// Reads a manifest and prints it as JSON: the child process of `inspect`
    #[command(hide = true)]
    Manifest {
        /// The plugin file
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// How long records are generated
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Records a second
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Subtasks
    #[arg(long, short, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) parallelism: u32,
    /// How much faster event time runs than the clock
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) speed: u32,
    /// A real Kafka, HOST:PORT; without it a stand-in that speaks Kafka's protocol runs in this process
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
    /// A real Elasticsearch or OpenSearch, `http://[USER:PASSWORD@]HOST:PORT`; without it a stand-in for `_bulk` and `_search` runs in this process
    #[arg(long, value_name = "URL")]
    pub(crate) elasticsearch: Option<String>,
    /// Give up when nothing has moved for so long
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) plugins: PluginPath,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("expected KEY=VALUE, found {text:?}"))?;
    if key.is_empty() {
        return Err(format!("expected KEY=VALUE, found {text:?}"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn restore(text: &str) -> Result<Start, String> {
    match text {
        "latest" => Ok(Start::Latest),
        path if path.contains('/') || path.ends_with(".json") => Ok(Start::From(path.to_owned())),
        number => number
            .parse()
            .map(Start::At)
            .map_err(|_| format!("expected latest, the number of a checkpoint, or the path of its manifest, found {text:?}")),
    }
}

fn http(text: &str) -> Result<String, String> {
    let is_http = ["http://", "https://"].iter().any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    if is_http { Ok(text.to_owned()) } else { Err(format!("expected http://HOST:PORT, found {text:?}")) }
}

/// Long enough for a few beats of a task manager, short enough that somebody still waits for it.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    let may_be = Duration::from_secs(3)..=Duration::from_secs(3600);
    if may_be.contains(&lease) { Ok(lease) } else { Err("expected 3s to 1h".to_owned()) }
}

/// As much as a process needs to begin at least.
fn memory(text: &str) -> Result<u64, String> {
    let bytes = standpipe_pipeline::units::parse_size(text).map_err(|error| error.to_string())?;
    if bytes >= 64 << 20 { Ok(bytes) } else { Err("expected 64MiB or more".to_owned()) }
}

fn cpus(text: &str) -> Result<f64, String> {
    let cpus: f64 = text.parse().map_err(|_| format!("expected a number of processors, found {text:?}"))?;
    if (0.01..=4096.0).contains(&cpus) { Ok(cpus) } else { Err("expected 0.01 to 4096".to_owned()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    standpipe_pipeline::units::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn set_needs_a_key_and_a_value() {
        assert_eq!(key_value("a.b=c=d"), Ok(("a.b".to_owned(), "c=d".to_owned())));
        assert!(key_value("a.b").is_err() && key_value("=x").is_err());
    }
}
