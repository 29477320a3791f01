//! From a pipeline's `checkpoint:` and the command line to what a job goes on from, and where its checkpoints are taken to. Used by `run` and `checkpoint`.

use crate::{
    cli::RunArguments,
    exit::{Code, Failure},
    output::say,
    supervise,
};
use standpipe_checkpoint::{CheckpointError, Location, Manifest, Start, Store, TakenOver};
use standpipe_engine::{CheckpointOptions, check_restore};
use standpipe_pipeline::{Checkpoint, Plan};
use std::sync::Arc;

/// Takes over the pipeline's job: from now on no other process commits checkpoints of it. `None`: the pipeline takes none.
pub(crate) fn take_over(plan: &Plan, job_id: &str, arguments: &RunArguments) -> anyhow::Result<Option<CheckpointOptions>> {
    let Some(settings) = &plan.checkpoint else {
        if arguments.restore.is_some() || arguments.fresh {
            let message = "--restore and --fresh need checkpoints, and the pipeline takes none: add checkpoint: {interval: 10s}";
            return Err(Failure::error(Code::Usage, message));
        }
        return Ok(None);
    };
    let store = open(settings, &plan.name)?;
    let start = match (arguments.restore, arguments.fresh) {
        // Started again after a failure: from the newest of its own, or from nothing where there is none.
        _ if supervise::attempt().is_some_and(|attempt| attempt > 0) => Start::Latest,
        (Some(start), _) => start,
        (None, true) => Start::Fresh,
        (None, false) => {
            refuse_to_forget(&store)?;
            Start::Fresh
        }
    };
    // Before anything is claimed: what does not fit disturbs nobody.
    if let Some(manifest) = wanted(&store, start).map_err(|error| failure(&error))? {
        check_restore(&manifest, plan, arguments.allow_non_restored_state).map_err(|error| Failure::error(Code::Usage, error))?;
        store.check_files(&manifest).map_err(|error| failure(&error))?;
    }
    let taken_over = store.take_over(job_id, start).map_err(|error| failure(&error))?;
    match &taken_over.base {
        Some(base) => say!("{}: goes on from checkpoint {} in {}", plan.name, base.id, store.place()),
        None if arguments.restore.is_some() => say!("{}: there is no checkpoint in {}: begins with nothing", plan.name, store.place()),
        None => {}
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

/// The checkpoint that a job is to go on from.
fn wanted(store: &Store, start: Start) -> Result<Option<Manifest>, CheckpointError> {
    match start {
        Start::Fresh => Ok(None),
        Start::Latest => store.latest(),
        Start::At(id) => store.read(id).map(Some),
    }
}

/// The store of a pipeline's checkpoints.
pub(crate) fn open(settings: &Checkpoint, job: &str) -> anyhow::Result<Store> {
    let location = Location::open(settings.dir(), &[]).map_err(|error| failure(&error))?;
    Store::open(location, job).map_err(|error| failure(&error))
}

/// Where there are checkpoints, a job does not begin with nothing unless it is told to.
fn refuse_to_forget(store: &Store) -> anyhow::Result<()> {
    let Some(newest) = store.list().map_err(|error| failure(&error))?.last().copied() else { return Ok(()) };
    let place = store.place();
    let message =
        format!("there are checkpoints in {place}, up to {newest}: --restore latest goes on from there, --fresh begins with nothing");
    Err(Failure::error(Code::Usage, message))
}

/// The exit code that an error means.
pub(crate) fn failure(error: &CheckpointError) -> anyhow::Error {
    let code = match error {
        CheckpointError::Missing { .. } => Code::Usage,
        CheckpointError::Location { .. } | CheckpointError::Store { .. } => Code::Outside,
        CheckpointError::Fenced { .. } | CheckpointError::Damaged { .. } | CheckpointError::Arrow { .. } => Code::Failed,
    };
    Failure::error(code, error)
}
