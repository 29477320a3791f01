//! The engine workers: timely threads that build the dataflow and step it until it has ended or the job is given up. A worker sleeps until something wakes it: data
//! of another worker, a thread of a source, sink or task, or the job's end.

use super::{
    error::{Cause, JobError, Phase},
    job::{Job, panic_message},
};
use crate::dataflow::build::{self, Wiring};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use timely::{CommunicationConfig, Config, WorkerConfig, worker::Worker};

/// Starts the workers of this process; what is returned waits for their end.
pub(crate) fn start(job: &Arc<Job>, wiring: Wiring) -> Result<impl FnOnce() + Send + 'static, String> {
    let communication = match job.placement.workers_per_process {
        1 => CommunicationConfig::Thread,
        n => CommunicationConfig::Process(n as usize),
    };
    let (job, wiring) = (Arc::clone(job), Arc::new(wiring));
    let workers = timely::execute(Config { communication, worker: WorkerConfig::default() }, move |worker| run(worker, &job, &wiring))?;
    Ok(move || drop(workers.join()))
}

/// Runs one worker to the end. A panic that got past the guards of the operators would leave the other workers hanging: it ends the job like any failure.
fn run(worker: &mut Worker, job: &Arc<Job>, wiring: &Wiring) {
    let index = worker.index();
    let mut own = worker.clone();
    let stepped = catch_unwind(AssertUnwindSafe(|| {
        // Whoever ends the job must wake this thread, wherever it sleeps.
        let path = vec![own.next_dataflow_index()];
        let wake = own.sync_activator_for(path);
        build::dataflow(&mut own, job, wiring);
        job.opened();
        job.on_change(move || _ = wake.activate());
        while own.has_dataflows() && !job.cancelled() {
            own.step_or_park(None);
        }
    }));
    if let Err(panic) = stepped {
        let cause = Cause::Engine(format!("engine worker {index} panicked: {}", panic_message(&*panic)));
        job.fail(JobError::new("", Phase::Running, cause));
    }
    tracing::debug!(job = %job.options.job_id, worker = index, "engine worker ends");
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}
