//! One module per subcommand.

mod check;
mod checkpoint;
mod cluster_job;
mod collect;
pub(crate) mod deploy;
pub(crate) mod deployment;
mod inspect;
mod job;
mod lock;
mod look;
mod plugin;
pub(crate) mod run;
mod scaffold;
mod state;

use crate::cli::Command;

/// The name of the service that a subcommand's traces are of; none: it has none.
pub(crate) const fn service(command: &Command) -> Option<&'static str> {
    match command {
        Command::Run(_) | Command::Deploy(_) => Some("standpipe"),
        Command::Jobmanager(_) => Some("standpipe-jobmanager"),
        _ => None,
    }
}

/// Runs a subcommand.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Explain(arguments) => check::explain(&arguments),
        Command::Schema => check::schema(),
        Command::Checkpoint(command) => checkpoint::checkpoint(&command),
        Command::Deploy(arguments) => deploy::deploy(&arguments),
        Command::Deployment(command) => deployment::deployment(&command),
        Command::Config(command) => deploy::config(&command),
        Command::Job(arguments) => job::job(&arguments),
        Command::State(command) => state::state(&command),
        Command::Plugin(command) => plugin::plugin(&command),
        Command::Jobmanager(arguments) => crate::cluster::job_manager(&arguments),
        Command::Taskmanager(arguments) => crate::cluster::task_manager(&arguments),
        Command::Cluster(command) => crate::cluster::cluster(&command),
        Command::Plan(arguments) => crate::cluster::print_plan(&arguments),
        Command::PluginProcess(arguments) => Ok(standpipe_isolation::run(arguments.parent)?),
        Command::Demo(arguments) => crate::demo::run(&arguments),
    }
}
