//! Names what stands still without a known cause: an input whose frontier stays behind what the sources have emitted although no call is slow or pending and nothing is degraded. That is a
//! process that works no more, or a bug. An operator notes its frontier whenever it runs; the job's supervisor looks now and then.

use super::job::Job;
use crate::dataflow::time::{self, Time};
use parking_lot::Mutex;
use standpipe_pipeline::plan::{NodeId, Operator};
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// There is none any more, or it is not known yet.
const NONE: Time = Time::MAX;

/// The frontier of an operator's inputs.
#[derive(Debug)]
pub(crate) struct Watched {
    node: NodeId,
    subtask: u32,
    frontier: AtomicU64,
    seen: Mutex<Option<Seen>>,
}

/// A frontier that is behind.
#[derive(Debug)]
struct Seen {
    frontier: Time,
    since: Instant,
    named: bool,
}

impl Watched {
    /// The earliest timestamp that may still come.
    pub(crate) fn note(&self, frontier: Option<Time>) {
        self.frontier.store(frontier.unwrap_or(NONE), Relaxed);
    }
}

/// All of a job's operators in this process.
#[derive(Debug, Default)]
pub(crate) struct Standstill(Mutex<Vec<Weak<Watched>>>);

impl Standstill {
    /// Watches an operator until what this gives is dropped.
    pub(crate) fn watch(&self, node: NodeId, subtask: u32) -> Arc<Watched> {
        let watched = Arc::new(Watched { node, subtask, frontier: AtomicU64::new(NONE), seen: Mutex::default() });
        self.0.lock().push(Arc::downgrade(&watched));
        watched
    }

    /// Names those that have stood still for too long and have not been named.
    pub(crate) fn name(&self, job: &Job) {
        let mut all = self.0.lock();
        all.retain(|watched| watched.strong_count() > 0);
        let elsewhere = || job.peers.as_ref().is_some_and(|peers| peers.explains_standstill(job));
        let is_explained = job.calls.is_slow() || job.metrics.waits_outside() || elsewhere();
        let current = job.ticker.current();
        for watched in all.iter().filter_map(Weak::upgrade) {
            let frontier = watched.frontier.load(Relaxed);
            let mut seen = watched.seen.lock();
            match seen.as_mut().filter(|seen| seen.frontier == frontier && !is_explained) {
                _ if frontier == NONE || frontier >= current => *seen = None,
                None => *seen = Some(Seen { frontier, since: Instant::now(), named: false }),
                Some(seen) if !seen.named && seen.since.elapsed() >= job.options.standstill => {
                    seen.named = true;
                    name(job, &watched, frontier, seen.since);
                }
                Some(_) => {}
            }
        }
    }
}

fn name(job: &Job, watched: &Watched, frontier: Time, since: Instant) {
    let (id, node) = (&job.options.job_id, job.node(watched.node));
    job.node_metrics(watched.node).standstills.add(watched.subtask, 1);
    let what = match node.operator {
        Operator::Source(_) => "what it has emitted does not leave the job",
        _ => "its input does not go on, though the sources have",
    };
    let (process, subtask) = (job.process(), watched.subtask);
    let (checkpoint, seconds) = (time::checkpoint(frontier), since.elapsed().as_secs_f64());
    tracing::warn!(job = %id, operator = %node.path, subtask, process, %checkpoint, "{what}: it has stood still for {seconds:.0} s without a known cause");
}
