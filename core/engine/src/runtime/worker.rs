//! The engine workers: timely threads that build the dataflow and step it until it has ended or the job is given up. A worker sleeps until something wakes it: data
//! of another worker, a thread of a source, sink or task, or the job's end. Workers of several processes reach each other by the connections of `cluster`.

use super::{
    error::{Cause, JobError, Phase},
    job::{Job, panic_message},
    peers::Peers,
};
use crate::{
    cluster::link::Link,
    dataflow::build::{self, Wiring},
};
use crossbeam_channel::{Receiver, bounded, select};
use std::{
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::{Arc, Once},
};
use timely::{
    CommunicationConfig, WorkerConfig,
    communication::{
        Hooks,
        allocator::{AllocatorBuilder, ProcessBuilder, zero_copy::initialize::initialize_networking_from_sockets},
    },
    execute::execute_from,
    worker::Worker,
};

/// Starts the workers of this process; what is returned waits for their end.
pub(crate) fn start(job: &Arc<Job>, wiring: Wiring) -> Result<impl FnOnce() + Send + 'static, String> {
    let (builders, said) = match job.placement.workers_per_process {
        _ if job.peers.is_some() => connected(job)?,
        1 => (CommunicationConfig::Thread.try_build()?.0, None),
        n => (CommunicationConfig::Process(n as usize).try_build()?.0, None),
    };
    let (shared, wiring) = (Arc::clone(job), Arc::new(wiring));
    let workers = execute_from(builders, Box::new(()), WorkerConfig::default(), move |worker| run(worker, &shared, &wiring))?;
    let job = Arc::clone(job);
    Ok(move || {
        drop(workers.join());
        if let Some(said) = said {
            // The others must hear the last word of this process, and this one theirs, or a connection would seem broken.
            select! {
                recv(said) -> _ => {}
                recv(job.cancel_signal()) -> _ => {}
            }
        }
    })
}

/// What timely's threads and the workers panic with once one of timely's threads has lost its connection.
const ECHO: &str = "MergeQueue poisoned.";

/// Keeps these panics from being printed: the job has failed by then, with the cause.
fn hush_echoes() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some(ECHO) {
                previous(info);
            }
        }));
    });
}

/// What makes the workers of one of several processes; with a channel that is disconnected when all connections have been closed cleanly.
fn connected(job: &Arc<Job>) -> Result<(Vec<AllocatorBuilder>, Option<Receiver<()>>), String> {
    let data = job.peers.as_ref().and_then(Peers::take_data).ok_or("the connections are taken")?;
    hush_echoes();
    let (threads, hooks) = (job.placement.workers_per_process as usize, Hooks::default());
    let (open, said) = bounded(0);
    let link = |(process, stream): (u32, Option<_>)| stream.map(|stream| Link::new(job, process, stream, open.clone()));
    let links = (0..).zip(data).map(link).collect();
    let inner = ProcessBuilder::new_typed_vector(threads, hooks.refill.clone(), None);
    let networking = initialize_networking_from_sockets(inner, links, job.process() as usize, threads, hooks);
    let (builders, threads) = networking.map_err(|error| format!("cannot start a thread: {error}"))?;
    // To wait for its threads would be to panic with one whose connection is broken.
    std::mem::forget(threads);
    Ok((builders.into_iter().map(AllocatorBuilder::Tcp).collect(), Some(said)))
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
