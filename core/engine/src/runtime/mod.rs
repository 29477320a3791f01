//! A job in this process: [`run`] starts it, [`JobHandle`] is what the host holds of it. Around the engine workers (`worker`) it has a thread per source, sink and
//! transform subtask (`reader`, `sink`, `task`), one per source that finds splits (`enumerator`) and one that ticks (`ticker`); all share `job`. `peers` talks with the other processes of the job.

pub(crate) mod alignment;
pub(crate) mod calls;
pub(crate) mod checkpoints;
mod enumerator;
pub(crate) mod error;
pub(crate) mod host;
pub(crate) mod job;
pub(crate) mod metrics;
pub(crate) mod peers;
mod pending;
pub(crate) mod reader;
mod retry;
pub(crate) mod sink;
pub(crate) mod standstill;
pub(crate) mod starting;
pub(crate) mod steps;
pub(crate) mod tap;
pub(crate) mod task;
mod ticker;
mod worker;

pub use checkpoints::{
    CheckpointOptions, check_restore, other_plugins,
    savepoint::{PendingSavepoint, SavepointError},
};
use error::Phase;
pub use error::{Cause, ErrorClass, JobError};
pub use job::{JobControl, JobState, RunOptions, Secrets};
pub use metrics::{
    CheckpointTotals, Counter, Drift, LastCheckpoint, Metrics, NodeMetrics, PastCheckpoint, Position, Role, Sample, SplitLag, Totals, Value,
};

pub use steps::Step;
pub use tap::{Keep, Tap, TapError, Tapped};

use crate::dataflow::build::Wiring;
use alignment::Alignments;
use checkpoints::{Readers, Restored};
use crossbeam_channel::{Receiver, Sender, bounded};
use job::Job;
use peers::{Peers, Reach};
use reader::ReaderCommand;
use standpipe_loader::CloseReason;
use standpipe_pipeline::{
    placement::Placement,
    plan::{Node, NodeId, Operator, Plan, StateBackend},
};
use standpipe_state::scratch::Scratch;
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// How a job ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All sources ended and all output is delivered.
    Finished,
    /// Stopped on request; what was in flight is delivered.
    Stopped,
    /// Cancelled on request; what was in flight is lost to this run.
    Cancelled,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
        })
    }
}

/// What is left of a job that did not fail.
#[derive(Debug, Clone)]
pub struct JobReport {
    /// How it ended.
    pub end: Outcome,
    /// How long it ran.
    pub elapsed: Duration,
    /// What it did.
    pub totals: Totals,
}

/// A running job. Dropping it lets the job run on.
pub struct JobHandle {
    control: JobControl,
    metrics: Arc<Metrics>,
    result: Receiver<Result<JobReport, JobError>>,
}

impl JobHandle {
    /// Stops or cancels it.
    #[must_use]
    pub fn control(&self) -> JobControl {
        self.control.clone()
    }

    /// Its numbers, valid after its end too.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the job failed; the first cause.
    pub fn wait(self) -> Result<JobReport, JobError> {
        self.result.recv().unwrap_or_else(|_| Err(engine_error("the job's supervisor ended without a result")))
    }

    /// The result, if the job ends in time. It is given once: after that there is nothing to wait for.
    #[must_use]
    pub fn wait_for(&self, at_most: Duration) -> Option<Result<JobReport, JobError>> {
        self.result.recv_timeout(at_most).ok()
    }
}

/// How long workers and threads have to give up after a failure before the job ends without them.
const GRACE: Duration = Duration::from_millis(400);

fn engine_error(message: impl Into<String>) -> JobError {
    JobError::new("", Phase::Running, Cause::Engine(message.into()))
}

/// Starts a job.
///
/// # Errors
/// When there are too few slots for the plan, or the system gives no thread.
pub fn run(plan: Arc<Plan>, options: RunOptions) -> Result<JobHandle, JobError> {
    let processes = options.cluster.as_ref().map_or(1, |cluster| cluster.processes() as usize);
    let slots = match options.slots.as_slice() {
        [] if processes == 1 => vec![plan.slots()],
        slots if slots.len() == processes => slots.to_vec(),
        slots => return Err(engine_error(format!("there are slots of {} processes, and {processes} are connected", slots.len()))),
    };
    let placement = Placement::new(&plan, &slots).map_err(|error| JobError::new("", Phase::Start, error))?;
    let peers = match &options.cluster {
        Some(cluster) => {
            Some(Peers::new(cluster, options.lease).ok_or_else(|| engine_error("a job has the cluster's connections already"))?)
        }
        None => None,
    };
    let job = Arc::new(Job::new(plan, options, placement, peers));
    let (done, result) = bounded(1);
    let handle = JobHandle { control: JobControl(Arc::clone(&job)), metrics: Arc::clone(&job.metrics), result };
    // The host may have gone: then nobody wants the result.
    let supervisor = std::thread::Builder::new().name("job".to_owned()).spawn(move || _ = done.send(supervise(&job)));
    supervisor.map_err(|error| engine_error(format!("cannot start a thread: {error}")))?;
    Ok(handle)
}

/// Runs a job to its end.
fn supervise(job: &Arc<Job>) -> Result<JobReport, JobError> {
    let begin = Instant::now();
    let (id, name) = (&job.options.job_id, &job.plan.name);
    let (process, processes) = job.peers.as_ref().map_or((0, 1), |peers| (peers.process, peers.processes));
    tracing::info!(job = %id, process, processes, "job {name:?} starts on {} workers", job.placement.workers_per_process);
    let wiring = Wiring::new(job);
    let readers = wiring.readers();
    match start(job, wiring, &readers) {
        Ok(workers) => wait_for_workers(job, workers),
        Err(error) => job.fail(error),
    }
    job.ticker.stop();
    let reason = match (job.failed(), job.cancelled() || job.stopping()) {
        (true, _) => CloseReason::Failed,
        (false, true) => CloseReason::Stopped,
        (false, false) => CloseReason::Finished,
    };
    for (node, subtasks) in &readers {
        // With checkpoints, what is durable has been committed.
        let commit = job.checkpoints.is_none() && !job.cancelled() && (!job.stopping() || job.draining() || !feeds_state(&job.plan, *node));
        subtasks.iter().for_each(|subtask| drop(subtask.send(ReaderCommand::Close { reason, commit })));
    }
    let left = job.wait_for_threads(GRACE);
    *job.scratch.lock() = None;
    job.taps.end(!job.cancelled());
    if left > 0 {
        tracing::warn!(job = %job.options.job_id, left, "calls of plugins do not return; they are left behind");
    }
    if let Some(peers) = &job.peers {
        peers.finish(job);
    }
    let end = match (job.cancelled() && !job.stopped_at_start(), job.stopping()) {
        (true, _) => Outcome::Cancelled,
        (false, true) => Outcome::Stopped,
        (false, false) => Outcome::Finished,
    };
    let elapsed = begin.elapsed();
    let seconds = elapsed.as_secs_f64();
    match job.why_failed() {
        Some((operator, why)) => {
            tracing::info!(job = %id, operator, failed = true, "job {name:?} failed after {seconds:.1} s: {why}");
            job.starting.give_up(&why);
        }
        None => {
            tracing::info!(job = %id, failed = false, %end, "job {name:?} ended after {seconds:.1} s");
            job.starting.give_up(&format!("the job was {end} before it ran"));
        }
    }
    job.take_failure().map_or(Ok(JobReport { end, elapsed, totals: job.metrics.totals() }), Err)
}

type Senders = [(NodeId, Vec<Sender<ReaderCommand>>)];

/// Starts whatever the job has in this process; what is given waits for the workers.
fn start(job: &Arc<Job>, wiring: Wiring, readers: &Senders) -> Result<impl FnOnce() + Send + 'static, JobError> {
    let no_thread = |error| engine_error(format!("cannot start a thread: {error}"));
    // From now on the other processes hear of a failure here.
    Peers::start(job, readers).map_err(no_thread)?;
    Alignments::spawn(job).map_err(no_thread)?;
    restore(job)?;
    open_scratch(job)?;
    if let Some(peers) = &job.peers {
        if job.is_first() {
            peers.begin();
        }
        crossbeam_channel::select! {
            recv(peers.begun()) -> _ => {}
            recv(job.cancel_signal()) -> _ => return Err(engine_error("the job was given up before it began")),
        }
    }
    job.starting.opening(&job.plan, &job.placement, job.process(), job.metrics.nodes());
    if job.is_first() {
        let readers = reach(job, readers);
        checkpoints::spawn(job, readers.clone());
        readers.into_iter().for_each(|(node, subtasks)| enumerator::spawn(job, node, subtasks));
    } else {
        checkpoints::relay::spawn(job);
    }
    let ticking = Arc::clone(job);
    let ticker = move || ticking.ticker.run(ticking.plan.settings.flush_interval);
    std::thread::Builder::new().name("ticker".to_owned()).spawn(ticker).map_err(no_thread)?;
    worker::start(job, wiring).map_err(engine_error)
}

/// How the first process reaches the readers of each source, wherever they run.
fn reach(job: &Job, readers: &Senders) -> Readers {
    let one = |node: NodeId, (subtask, sender): (u32, &Sender<ReaderCommand>)| {
        let worker = job.placement.workers(node).get(subtask as usize);
        let process = worker.map_or(0, |worker| job.placement.process(*worker));
        let there = job.peers.as_ref().and_then(|peers| peers.reach(process, node, subtask));
        there.unwrap_or_else(|| Reach::Here(sender.clone()))
    };
    readers.iter().map(|(node, subtasks)| (*node, (0..).zip(subtasks).map(|subtask| one(*node, subtask)).collect())).collect()
}

/// Reads the checkpoint that the job goes on from, and begins.
fn restore(job: &Job) -> Result<(), JobError> {
    let Some(checkpoints) = &job.checkpoints else { return Ok(()) };
    let options = &checkpoints.options;
    let span = options.taken_over.base.as_ref().map(|base| job.starting.part("restore").with("checkpoint", base.id));
    let restored = span.unwrap_or_default().end_as(Restored::load(options, &job.plan))?;
    if let Some(restored) = restored {
        checkpoints.set_restored(restored);
    }
    if !job.is_first() {
        return Ok(());
    }
    // Only now: what cannot be gone on from must not make later checkpoints passed over.
    let begun = options.store.begin(&options.taken_over);
    begun.map_err(|error| JobError::new("", Phase::Start, Cause::Checkpoint(error.to_string())))
}

/// Makes the place for keyed state on disk, if there is any.
fn open_scratch(job: &Job) -> Result<(), JobError> {
    let keyed = |node: &Node| matches!(&node.operator, Operator::Transform(transform) if !transform.keys.is_empty());
    if let StateBackend::Disk(disk) = &job.plan.state
        && job.plan.nodes.iter().any(keyed)
    {
        let scratch = Scratch::open(Path::new(disk.dir()), &job.plan.name, &job.options.job_id);
        *job.scratch.lock() = Some(scratch.map_err(|error| JobError::new("", Phase::Start, error))?);
    }
    Ok(())
}

/// Waits until the workers have ended; once the job is given up for [`GRACE`] at most, because an operator may be deep in a call.
fn wait_for_workers(job: &Arc<Job>, join: impl FnOnce() + Send + 'static) {
    let (ended, wait) = bounded::<()>(0);
    let joined = std::thread::Builder::new().name("join".to_owned()).spawn(move || {
        join();
        drop(ended);
    });
    if joined.is_err() {
        return;
    }
    let look = (job.options.call_budget.min(job.options.standstill) / 2).clamp(Duration::from_millis(10), Duration::from_secs(5));
    let cancelled = job.cancel_signal();
    loop {
        crossbeam_channel::select! {
            recv(wait) -> _ => return,
            recv(cancelled) -> _ => break,
            default(look) => {
                job.calls.name_slow(job);
                job.standstill.name(job);
            }
        }
    }
    if wait.recv_timeout(GRACE) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
        tracing::warn!(job = %job.options.job_id, "an engine worker does not come back; it is left behind");
    }
}

/// Whether state holds rows of a source when the job stops without draining: then its positions must not be committed.
fn feeds_state(plan: &Plan, source: NodeId) -> bool {
    let mut reached = vec![source];
    while let Some(node) = reached.pop() {
        if matches!(plan.node(node).operator, Operator::Window(_) | Operator::Aggregate(_) | Operator::Transform(_)) {
            return true;
        }
        // A plan is a graph without cycles.
        reached.extend(plan.readers(node).map(|edge| edge.to));
    }
    false
}
