//! `jobmanager` and `taskmanager`: the processes of a cluster, with what only the binary knows: how a pipeline is planned, how a worker is started.

mod application;
mod client;
mod local;
mod planner;
mod settings;
mod wait;

pub(crate) use client::Client;
pub(crate) use local::{cluster, is_ready, spawn};
pub(crate) use planner::print_plan;

use crate::{
    cli::{JobManagerArguments, TaskManagerArguments},
    exit::{Code, Failure},
    output::say,
    processes, supervise, traces,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use standpipe_checkpoint::{Kind, Store};
use standpipe_cluster::{
    bundle::Bundle,
    manager::Settings,
    protocol::Go,
    server::{ManagerOptions, Server, ServerError},
    taskmanager::{self, Limits, TaskManagerError, TaskManagerOptions, WorkerSpec, collect},
    tls,
};
use standpipe_engine::{Identity, Secret};
use std::{
    env,
    ffi::OsString,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

/// How long what a manager is at has to be finished when it ends.
const LEAVING: Duration = Duration::from_secs(2);

/// The folder of a manager's or task manager's data if none is given.
fn default_data(name: &str) -> anyhow::Result<PathBuf> {
    let of = |variable| env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let state = of("XDG_STATE_HOME").or_else(|| of("HOME").map(|home| home.join(".local/state")));
    let missing = || Failure::error(Code::Usage, "there is no HOME to keep data in: give --data DIR");
    Ok(state.ok_or_else(missing)?.join("standpipe").join(name))
}

/// A token in a file that others cannot read.
fn token(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let text = fs::read_to_string(file).map_err(|error| Failure::error(Code::Outside, format!("{}: {error}", file.display())))?;
    let text = text.trim();
    if text.len() < 16 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("{}: a token has at least 16 characters of ASCII without spaces", file.display());
        return Err(Failure::error(Code::Usage, message));
    }
    let (mode, owner) = fs::metadata(file).map_or((0, 0), |found| (found.permissions().mode(), found.uid()));
    // A secret that Kubernetes mounts is root's, and its group's to read: that of the pod.
    let others = if owner == rustix::process::geteuid().as_raw() { 0o077 } else { 0o027 };
    if mode & others != 0 {
        say!("warning: {}: others on this machine may read the token (mode {:o}); chmod 600 keeps it yours", file.display(), mode & 0o777);
    }
    Ok(Some(text.to_owned()))
}

/// A token that others can read on its way is none.
fn warn_of_clear_token(url: &str, has_token: bool) {
    let Some(authority) = url.strip_prefix("http://").filter(|_| has_token) else { return };
    let host = authority.split('/').next().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or_else(|| host.split(':').next().unwrap_or_default());
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !is_here {
        say!("warning: the token goes to {authority} in the clear; a job manager with --tls-cert and --tls-key is reached by https://");
    }
}

/// Ends with the process that has started this one, if that is wanted.
fn end_with(parent: Option<i32>) -> io::Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    if rustix::process::getppid().map(|pid| pid.as_raw_pid()) != Some(parent) {
        return Err(io::Error::other("the process that has started this one has ended"));
    }
    Ok(())
}

/// `standpipe jobmanager`.
pub(crate) fn job_manager(arguments: &JobManagerArguments) -> anyhow::Result<()> {
    end_with(arguments.parent)?;
    let data = arguments.data.clone().map_or_else(|| default_data("jobmanager"), Ok)?;
    let application = match application::new(&arguments.application) {
        Ok(application) => application,
        Err(application::Refused::Outside(why)) => return Err(Failure::error(Code::Outside, why)),
        Err(application::Refused::Ended(ended)) => return application::end(&arguments.application, &ended),
    };
    let lease = u64::try_from(arguments.lease.as_millis()).unwrap_or(u64::MAX);
    let tls = arguments.tls_cert.as_ref().zip(arguments.tls_key.as_ref()).map(|(certificate, key)| tls::server(certificate, key));
    let options = ManagerOptions {
        bind: arguments.bind,
        data: data.clone(),
        token: token(arguments.token_file.as_deref())?,
        open: arguments.open,
        tls: tls.transpose().map_err(|error| Failure::error(Code::Usage, error))?,
        settings: Settings { lease, ..Settings::default() },
        planner: Arc::new(planner::plan),
        introducer: Arc::new(introduce),
        disposer: Arc::new(dispose),
        assets: crate::dashboard::asset,
        traces: traces::traces(),
        application,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (end, ended) = tokio::sync::oneshot::channel();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            _ = end.send(());
        }
    })?;
    let served = runtime.block_on(async {
        let server = Server::open(options).await?;
        let scheme = if arguments.tls_cert.is_some() { "https" } else { "http" };
        say!("job manager: {scheme}://{}, data in {}", server.address()?, data.display());
        if arguments.open && arguments.token_file.is_none() {
            say!("warning: whoever reaches it may look at its jobs and be a task manager of it: --token-file keeps others out");
        }
        server.run(async { _ = ended.await }).await
    });
    // A pipeline may be being planned: nobody waits for it any more.
    runtime.shutdown_timeout(LEAVING);
    let ended = served.map_err(|error| {
        let code = if matches!(error, ServerError::Open(_) | ServerError::Others { .. }) { Code::Usage } else { Code::Outside };
        Failure::error(code, error)
    })?;
    match (ended, &arguments.application.jobid) {
        (Some(ended), _) => application::over(&arguments.application, &ended),
        (None, Some(job)) => Err(Failure::error(Code::Terminated, format!("told to end: the job {job} has not ended"))),
        (None, None) => Ok(()),
    }
}

/// Removes a savepoint whose manifest this machine can see.
fn dispose(place: &str) -> Result<(), String> {
    let (store, number) = Store::at(place).map_err(|error| error.to_string())?;
    let number = number.ok_or_else(|| format!("{place} is no savepoint: expected the path or URL of its manifest"))?;
    let manifest = store.read(number).map_err(|error| error.to_string())?;
    if manifest.kind != Kind::Savepoint {
        return Err(format!("{place} is a checkpoint: its job removes it when it does not need it any more"));
    }
    store.discard(number).map_err(|error| error.to_string())
}

/// A secret for the processes of one start of a job; certificates where they talk over a network.
fn introduce(addresses: &[SocketAddr], taken_over: Option<serde_json::Value>) -> io::Result<Vec<Go>> {
    let secret = Secret::random()?.to_hex();
    let is_local = addresses.iter().all(|address| address.ip().is_loopback());
    let processes = u32::try_from(addresses.len()).map_err(io::Error::other)?;
    let mut identities = if is_local { Vec::new() } else { Identity::of_processes(processes)? }.into_iter();
    let go = |_| {
        let tls = identities.next().map(serde_json::to_value).transpose()?;
        Ok(Go { secret: secret.clone(), addresses: addresses.to_vec(), taken_over: taken_over.clone(), tls })
    };
    addresses.iter().map(go).collect()
}

/// `standpipe taskmanager`.
pub(crate) fn task_manager(arguments: &TaskManagerArguments) -> anyhow::Result<()> {
    end_with(arguments.parent)?;
    let options = TaskManagerOptions {
        manager: arguments.jobmanager.clone(),
        token: token(arguments.token_file.as_deref())?,
        authority: arguments.ca_file.clone(),
        slots: arguments.slots,
        host: arguments.host.clone(),
        data: arguments.data.clone().map_or_else(|| default_data(&format!("taskmanager-{}", std::process::id())), Ok)?,
        limits: Limits { memory: arguments.memory_per_slot, cpus: arguments.cpus_per_slot },
        launcher: Box::new(worker),
        observer: arguments.metrics.map(crate::exposition::of_task_manager).transpose()?,
    };
    warn_of_clear_token(&options.manager, options.token.is_some());
    say!("task manager: {} slots for the job manager at {}", options.slots, options.manager);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let ended = taskmanager::run(options, |ender| {
        // Without it a signal does nothing, and the next one ends the process.
        drop(thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for _ in signals.forever() {
                ender.end();
            }
        }));
    });
    ended.map_err(|error| {
        let code = if matches!(error, TaskManagerError::Refused { .. } | TaskManagerError::Tls(_)) { Code::Usage } else { Code::Outside };
        Failure::error(code, error)
    })
}

/// The pipeline, its plugins and its settings, as the command line has them; in the folder where the bundle is laid out.
fn pipeline_arguments(bundle: &Bundle) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![bundle.pipeline.path.clone().into()];
    // One by one: a file that the bundle names as a plugin must be one.
    for plugin in &bundle.plugins {
        let place: PathBuf = [standpipe_cluster::bundle::PLUGINS, plugin.path.as_str()].iter().collect();
        arguments.extend(["--plugin-path".into(), place.into()]);
    }
    if let Some(parallelism) = bundle.options.parallelism {
        arguments.extend(["--parallelism".into(), parallelism.to_string().into()]);
    }
    // Weaker than what the pipeline says itself.
    for (key, value) in bundle.configuration.iter().filter_map(|(key, value)| Some((key.strip_prefix("engine.")?, value))) {
        arguments.extend(["--engine".into(), format!("{key}={value}").into()]);
    }
    arguments
}

/// The process of a worker: `run`, told by its environment which one of which job it is.
fn worker(spec: &WorkerSpec<'_>) -> io::Result<Command> {
    let (order, bundle) = (spec.order, &spec.order.bundle);
    let mut command = Command::new(env::current_exe()?);
    command.arg("run").args(pipeline_arguments(bundle)).arg("--quiet");
    if let Some(restore) = &bundle.options.restore {
        command.arg(format!("--restore={restore}"));
    }
    if bundle.options.allow_non_restored_state {
        command.arg("--allow-non-restored-state");
    }
    supervise::be_child(&mut command, order.attempt.number, &order.attempt.job);
    command.env(crate::control::FOLDER, spec.sockets).env(processes::HOST, spec.host).env(supervise::LEASE, spec.lease);
    if order.resumes {
        command.env(supervise::RESUMES, "1");
    }
    command.env(supervise::RESTARTS, order.restarts.to_string()).env(collect::FOLDER, collect::folder(spec.folder));
    if let Some(traceparent) = &bundle.options.traceparent {
        command.env(traces::PARENT, traceparent);
    }
    if let (processes @ 2.., process) = (u32::try_from(order.slots.len()).map_err(io::Error::other)?, order.process) {
        command.env(processes::PROCESS, processes::Member { process, processes }.to_text());
        let slots: Vec<String> = order.slots.iter().map(u32::to_string).collect();
        command.env(processes::SLOTS, slots.join(","));
    }
    Ok(command)
}
