//! Arguments of the processes of a session cluster.

use super::values::{cpus, duration, http, job_id, lease, memory};
use clap::{Args, Subcommand};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

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
    #[command(flatten)]
    pub(crate) application: ApplicationArguments,
    /// It ends with the process of that number, which has started it
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent: Option<i32>,
}

/// Of a manager that has one job alone and ends with it.
#[derive(Debug, Args)]
pub(crate) struct ApplicationArguments {
    /// Run the job of this bundle alone, and end with it: 0 it has finished, 20 it has failed, 21 it was cancelled
    #[arg(long, value_name = "DIR", requires = "jobid")]
    pub(crate) application: Option<PathBuf>,
    /// The job's id
    #[arg(long, value_name = "HEX", requires = "application", value_parser = job_id)]
    pub(crate) jobid: Option<String>,
    /// Wait so long for files of the job that are not here, from when something of them has come last
    #[arg(long, value_name = "DURATION", default_value = "120s", requires = "application", value_parser = duration)]
    pub(crate) application_timeout: Duration,
    /// The job's handle: when the job has ended, its deployment mode is asked to clean up
    #[arg(long, value_name = "FILE", requires = "application")]
    pub(crate) handle: Option<PathBuf>,
    /// Write there how the job has ended, as JSON
    #[arg(long, value_name = "FILE", requires = "application")]
    pub(crate) termination_file: Option<PathBuf>,
    /// When the job has ended, wait so long for rows of a sink collect to be read
    #[arg(long, value_name = "DURATION", default_value = "60s", requires = "application", value_parser = duration)]
    pub(crate) linger: Duration,
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
    /// It ends with the process of that number, which has started it
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent: Option<i32>,
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
