//! `deployment status`, `wait`, `cancel`, `stop`, `rescale`, `logs`, `collect`, `remove`: a deployed job by its handle, through the plugin that made it.

use super::deploy::{failure, refuse, warn};
use crate::{
    cli::{DeployedJob, DeploymentCommand, DeploymentSettings, OutputFormat, PluginPath},
    deployment::{
        mode::{self, MODE},
        services::Services,
        settings,
    },
    exit::{Code, Failure},
    output::{print, say, write},
    plugins,
    signals::Listener,
};
use serde_json::Value;
use standpipe_loader::{DeploymentInstance, Handle, PluginError, wire::JobStatus};
use std::{
    fs,
    io::{Read, stdin},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// How long a job may take to end once it has been cancelled.
const ENDING: Duration = Duration::from_secs(60);

/// `standpipe deployment ...`.
pub(super) fn deployment(command: &DeploymentCommand) -> anyhow::Result<()> {
    match command {
        DeploymentCommand::Status { job, format } => with(job, |mode, handle, _| tell(&asked(mode.status(handle))?, *format)),
        DeploymentCommand::Wait { job, timeout, format } => with(job, |mode, handle, _| {
            let status = asked(mode.wait(handle, *timeout))?;
            tell(&status, *format)?;
            match status.state.as_str() {
                "FAILED" => {
                    let cause = status.cause.unwrap_or_else(|| "its mode does not say why".to_owned());
                    Err(Failure::error(Code::Failed, format!("the job failed: {cause}")))
                }
                _ => ended(&status),
            }
        }),
        DeploymentCommand::Cancel { job, format } => with(job, |mode, handle, _| {
            asked(mode.cancel(handle))?;
            let status = asked(mode.wait(handle, Some(ENDING)))?;
            tell(&status, *format)?;
            ended(&status)
        }),
        DeploymentCommand::Stop { job, savepoint, drain } => with(job, |mode, handle, _| {
            let savepoint = asked(mode.stop(handle, savepoint.as_deref().unwrap_or_default(), *drain))?;
            print(&format!("{}\n", savepoint.location))?;
            // Whoever goes on from it must not meet the job that took it.
            ended(&asked(mode.wait(handle, Some(ENDING)))?)
        }),
        DeploymentCommand::Rescale { job, parallelism } => with(job, |mode, handle, _| {
            asked(mode.rescale(handle, *parallelism))?;
            say!("it has stopped with a savepoint, and goes on from there with a parallelism of {parallelism}");
            Ok(())
        }),
        DeploymentCommand::Logs { job } => with(job, |mode, handle, _| logs(mode, handle)),
        DeploymentCommand::Collect(arguments) => super::collect::collect(arguments),
        DeploymentCommand::Remove { job } => with(job, |mode, handle, _| asked(mode.cleanup(handle))),
    }
}

/// Calls the mode that the handle names.
pub(super) fn with(
    job: &DeployedJob,
    call: impl FnOnce(&mut DeploymentInstance, &Handle, &Services) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    with_handle(&read(&job.handle)?, &job.handle.display().to_string(), &job.settings, &job.plugins, call)
}

/// As [`with`], for a handle that is known; `origin` says of its members where they are from.
pub(super) fn with_handle(
    handle: &Handle,
    origin: &str,
    arguments: &DeploymentSettings,
    plugin_path: &PluginPath,
    call: impl FnOnce(&mut DeploymentInstance, &Handle, &Services) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let services = Arc::new(Services::default());
    let _signals = Listener::start("the job itself goes on", services.canceller())?;
    let mut instance = open(handle, origin, arguments, plugin_path, Arc::clone(&services))?;
    call(&mut instance, handle, &services)
}

/// An instance of the mode that a handle names.
///
/// # Errors
/// When there is no such mode, or the handle and the settings are not what it takes.
pub(crate) fn open(
    handle: &Handle,
    origin: &str,
    arguments: &DeploymentSettings,
    plugin_path: &PluginPath,
    services: Arc<Services>,
) -> anyhow::Result<DeploymentInstance> {
    let no_mode = || Failure::error(Code::Usage, format!("{origin}: no handle: it does not name its {MODE}"));
    let name = handle.get(MODE).and_then(Value::as_str).ok_or_else(no_mode)?;
    let of_handle = [settings::plain(MODE, name, origin)];
    let named = settings::layered(of_handle.clone(), arguments)?;
    let home = mode::home(&named)?;
    let catalogue = plugins::discover_in(home.as_deref(), &[], &plugin_path.plugin_path)?;
    let kind = mode::find(&catalogue, &of_handle.into_iter().map(|setting| (setting.key.clone(), setting)).collect())?;
    let members = handle.iter().filter(|(key, _)| mode::property(kind.config_schema(), key).is_some());
    let mut of_handle: Vec<_> = members.map(|(key, value)| settings::plain(key, &text(value), origin)).collect();
    let mut settings = settings::layered(of_handle.drain(..), arguments)?;
    // The handle is of one mode, whatever else is said.
    settings.insert(MODE.to_owned(), settings::plain(MODE, name, origin));
    let mode = mode::configure(&catalogue, kind, &settings)?;
    refuse(&mode.problems)?;
    warn(&mode, arguments.strict)?;
    asked(mode.kind.instance(&mode.config, services))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Reads a handle; `-` is stdin.
pub(super) fn read(path: &Path) -> anyhow::Result<Handle> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") { stdin().read_to_end(&mut bytes).map(|_| ()) } else { fs::read(path).map(|read| bytes = read) };
    read.map_err(|error| Failure::error(Code::Outside, format!("--handle {}: {error}", path.display())))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::error(Code::Usage, format!("--handle {}: no JSON object: {error}", path.display())))
}

pub(crate) fn asked<T>(answer: Result<T, PluginError>) -> anyhow::Result<T> {
    answer.map_err(|error| failure(&error))
}

/// That a job has not ended is a failure of a command that waits for it.
fn ended(status: &JobStatus) -> anyhow::Result<()> {
    if status.is_terminal() {
        return Ok(());
    }
    Err(Failure::error(Code::Failed, format!("the job has not ended: it is {}", status.state)))
}

fn tell(status: &JobStatus, format: OutputFormat) -> anyhow::Result<()> {
    let text = match (format, &status.cause) {
        (OutputFormat::Json, _) => serde_json::to_string(status)?,
        (OutputFormat::Text, Some(cause)) => format!("{}: {cause}", status.state),
        (OutputFormat::Text, None) => status.state.clone(),
    };
    Ok(print(&format!("{text}\n"))?)
}

/// All that there is so far.
fn logs(mode: &mut DeploymentInstance, handle: &Handle) -> anyhow::Result<()> {
    let mut cursor = String::new();
    loop {
        let part = asked(mode.logs(handle, &cursor))?;
        let lines: String = part.lines.iter().map(|line| format!("{line}\n")).collect();
        if !write(&lines)? || part.lines.is_empty() || part.cursor == cursor {
            return Ok(());
        }
        cursor = part.cursor;
    }
}
