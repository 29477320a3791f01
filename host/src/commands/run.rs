//! `run`: the pipeline in this process, in the foreground, until its sources end or a signal comes.

use crate::{
    checkpoints,
    cli::RunArguments,
    exit::{Code, Failure},
    load::load,
    output::say,
    progress::Progress,
    secrets,
    signals::Listener,
    supervise,
};
use standpipe_engine::{Cause, ErrorClass, JobError, JobReport, RunOptions};
use standpipe_pipeline::RestartStrategy;
use std::sync::Arc;

/// `standpipe run FILE`.
pub(super) fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let plan = Arc::new(load(&arguments.pipeline)?);
    match supervise::attempt() {
        None if plan.restart != RestartStrategy::None => return supervise::supervise(&plan),
        None => {}
        Some(_) => supervise::be_supervised()?,
    }
    let mut options = RunOptions { secrets: secrets::resolver(), ..RunOptions::new() };
    options.checkpoints = checkpoints::take_over(&plan, &options.job_id, arguments)?;
    if let Some(checkpoints) = &options.checkpoints {
        options.generation = checkpoints.taken_over.generation;
    }
    let job = standpipe_engine::run(Arc::clone(&plan), options).map_err(|error| failure(&error))?;
    let control = job.control();
    let drain = arguments.drain;
    let signals = Listener::start("in-flight data is finished", move || control.stop(drain))?;
    let progress = (!arguments.quiet).then(|| Progress::start(&plan.name, job.metrics()));
    let result = job.wait();
    drop(signals);
    if let Some(progress) = progress {
        progress.finish();
    }
    let report = result.map_err(|error| failure(&error))?;
    if !arguments.quiet {
        say!("{}", summary(&plan.name, &report));
    }
    Ok(())
}

/// The exit code that a job's error means.
pub(crate) fn failure(error: &JobError) -> anyhow::Error {
    let code = match error.class() {
        ErrorClass::Job if matches!(*error.cause, Cause::Superseded(_)) && supervise::attempt().is_some() => Code::Superseded,
        ErrorClass::Job => Code::Failed,
        ErrorClass::Configuration => Code::Usage,
        ErrorClass::Outside => Code::Outside,
    };
    Failure::error(code, error)
}

fn summary(name: &str, report: &JobReport) -> String {
    let totals = &report.totals;
    let mut text = format!(
        "{name}: {} in {:.1} s: {} rows in, {} rows out",
        report.end,
        report.elapsed.as_secs_f64(),
        totals.rows_in,
        totals.rows_out
    );
    for (count, what) in [(totals.late, "late"), (totals.broken, "broken"), (totals.rejected, "rejected")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}
