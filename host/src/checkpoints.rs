//! From a pipeline's `checkpoint:` and the command line to what a job goes on from, and where its checkpoints are taken to. Used by `run` and `checkpoint`.

use crate::{
    cli::RunArguments,
    commands::run,
    exit::{Code, Failure},
    output::say,
    supervise,
};
use standpipe_checkpoint::{CheckpointError, Found, Location, Start, Store, TakenOver};
use standpipe_engine::{CheckpointOptions, check_restore};
use standpipe_pipeline::{Checkpoint, Plan};
use std::sync::Arc;

/// Options that mean nothing without checkpoints, of a pipeline that takes none.
pub(crate) fn none(options: &str) -> anyhow::Error {
    Failure::error(Code::Usage, format!("{options} checkpoints, and the pipeline takes none: add checkpoint: {{interval: 10s}}"))
}

/// Takes over the pipeline's job: from now on no other process commits checkpoints of it. `None`: the pipeline takes none.
pub(crate) fn take_over(plan: &Plan, job_id: &str, arguments: &RunArguments) -> anyhow::Result<Option<CheckpointOptions>> {
    let Some(settings) = &plan.checkpoint else {
        if arguments.restore.is_some() || arguments.fresh {
            return Err(none("--restore and --fresh need"));
        }
        if supervise::resumes() && supervise::has_run() {
            say!("{}: it has run before, and takes no checkpoints: begins with nothing", plan.name);
        }
        return Ok(None);
    };
    let store = open(settings, &plan.name)?;
    let again = (supervise::has_run() || supervise::resumes()) && store.has_begun(job_id).map_err(|error| of_start(&error))?;
    let start = match (&arguments.restore, arguments.fresh) {
        // Started again after a failure: from the newest of its own, or from nothing where there is none. Unless it failed before it had begun: then as it was told to.
        _ if again => Start::Latest,
        (Some(start), _) => start.clone(),
        (None, true) => Start::Fresh,
        (None, false) => {
            refuse_to_forget(&store)?;
            Start::Fresh
        }
    };
    // Before anything is claimed: what does not fit disturbs nobody.
    if let Some(Found { manifest, elsewhere }) = store.find(&start).map_err(|error| failure(&error))? {
        let store = elsewhere.as_ref().map_or(&store, |(store, _)| store);
        store.check_files(&manifest).map_err(|error| failure(&error))?;
        check_restore(store, &manifest, plan, arguments.allow_non_restored_state).map_err(|error| run::failure(&error))?;
        for line in standpipe_engine::other_plugins(&manifest, plan) {
            say!("warning: checkpoint {}: {line}", manifest.id);
        }
    }
    let taken_over = store.take_over(job_id, &start).map_err(|error| failure(&error))?;
    match (&taken_over.base, &taken_over.elsewhere) {
        (Some(_), Some(place)) => say!("{}: goes on from {place}; its own checkpoints are in {}", plan.name, store.place()),
        (Some(base), None) => say!("{}: goes on from checkpoint {} in {}", plan.name, base.id, store.place()),
        (None, _) if supervise::resumes() && (again || supervise::has_run()) => {
            say!("{}: it has run before, and there is no checkpoint of its own in {}: begins with nothing", plan.name, store.place());
        }
        (None, _) if arguments.restore.is_some() => say!("{}: there is no checkpoint in {}: begins with nothing", plan.name, store.place()),
        (None, _) => {}
    }
    Ok(Some(options(settings, store, taken_over, arguments)))
}

/// What another process of the same start of the job has taken over.
pub(crate) fn taken_over(
    plan: &Plan,
    taken_over: Option<TakenOver>,
    arguments: &RunArguments,
) -> anyhow::Result<Option<CheckpointOptions>> {
    let (Some(settings), Some(taken_over)) = (&plan.checkpoint, taken_over) else { return Ok(None) };
    Ok(Some(options(settings, open(settings, &plan.name)?, taken_over, arguments)))
}

fn options(settings: &Checkpoint, store: Store, taken_over: TakenOver, arguments: &RunArguments) -> CheckpointOptions {
    CheckpointOptions {
        store: Arc::new(store),
        taken_over,
        interval: settings.interval,
        min_pause: settings.min_pause,
        timeout: settings.timeout,
        tolerated_failures: settings.tolerated_failures,
        keep: settings.keep as usize,
        allow_non_restored_state: arguments.allow_non_restored_state,
    }
}

/// The store of a pipeline's checkpoints.
pub(crate) fn open(settings: &Checkpoint, job: &str) -> anyhow::Result<Store> {
    let location = Location::open(settings.dir(), &[]).map_err(|error| failure(&error))?;
    Store::open(location, job).map_err(|error| failure(&error))
}

/// Where there are checkpoints, a job does not begin with nothing unless it is told to.
fn refuse_to_forget(store: &Store) -> anyhow::Result<()> {
    let flags = "--restore latest goes on from there, --fresh begins with nothing";
    if let Some(newest) = store.list().map_err(|error| failure(&error))?.last() {
        let message = format!("there are checkpoints in {}, up to {newest}: {flags}", store.place());
        return Err(Failure::error(Code::Usage, message));
    }
    match store.begun_elsewhere().map_err(|error| failure(&error))? {
        Some(place) => {
            Err(Failure::error(Code::Usage, format!("the job has begun from {place}, and has taken no checkpoint since: {flags}")))
        }
        None => Ok(()),
    }
}

/// The same of what is found at a start. Of a job that goes on under another manager, one that is fenced while it runs may be by a process of its own, and begins again; here it is known
/// that another job has its name, which no other start mends.
fn of_start(error: &CheckpointError) -> anyhow::Error {
    match error {
        CheckpointError::Fenced { .. } if supervise::resumes() => Failure::error(Code::Usage, error),
        other => failure(other),
    }
}

/// The exit code that an error means.
pub(crate) fn failure(error: &CheckpointError) -> anyhow::Error {
    let code = match error {
        CheckpointError::Missing { .. } | CheckpointError::Nowhere { .. } | CheckpointError::Needed { .. } => Code::Usage,
        CheckpointError::Location { .. } | CheckpointError::Store { .. } => Code::Outside,
        CheckpointError::Fenced { .. } if supervise::attempt().is_some() => Code::Superseded,
        CheckpointError::Fenced { .. } | CheckpointError::Damaged { .. } | CheckpointError::Arrow { .. } => Code::Failed,
    };
    Failure::error(code, error)
}
