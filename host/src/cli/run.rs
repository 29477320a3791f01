//! Arguments of what runs a pipeline here.

use super::{
    DeploymentSettings, PipelineArguments, PluginPath,
    values::{duration, restore},
};
use clap::Args;
use standpipe_checkpoint::Start;
use std::{net::SocketAddr, time::Duration};

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
    /// Run the pipeline on a session cluster of two task managers, whose dashboard shows it: its address is printed
    #[arg(long)]
    pub(crate) cluster: bool,
    /// The port of the cluster's job manager and dashboard, on 127.0.0.1
    #[arg(long, default_value_t = 8081, requires = "cluster", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) settings: DeploymentSettings,
    /// Give up when nothing has moved for so long
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) plugins: PluginPath,
}
