//! A source in a process that runs none of its subtasks. It gives nothing, but its timestamp follows this process' ticker like that of the others: so no operator here is past a
//! cut before this process has heard of the checkpoint, though timely's connections may be ahead of the one that says so.

use super::{
    guard::{Frontiers, Logic},
    output::Rights,
};
use crate::{
    operator::OperatorError,
    runtime::{checkpoints::Checkpoints, job::Job},
};
use standpipe_pipeline::{placement::WorkerIndex, plan::NodeId};
use std::sync::Arc;

/// See the module's documentation.
pub(crate) struct Follower {
    job: Arc<Job>,
    /// `None` when nothing follows, not even a checkpoint.
    rights: Option<Rights>,
}

impl Follower {
    pub(crate) fn new(job: &Arc<Job>, rights: Rights) -> Self {
        Self { job: Arc::clone(job), rights: Some(rights) }
    }

    /// Whether a worker has to follow for that source: one of each process without a subtask of it, where checkpoints are taken.
    pub(crate) fn is_due(job: &Job, source: NodeId, worker: WorkerIndex) -> bool {
        let process = job.placement.process(worker);
        let is_first = worker.0.checked_rem(job.placement.workers_per_process) == Some(0);
        let is_here = |subtask: &WorkerIndex| job.placement.process(*subtask) == process;
        job.checkpoints.is_some() && job.peers.is_some() && is_first && !job.placement.workers(source).iter().any(is_here)
    }
}

impl Logic for Follower {
    fn run(&mut self, _: Frontiers<'_>) -> Result<bool, OperatorError> {
        if self.job.checkpoints.as_ref().is_none_or(Checkpoints::over) {
            self.rights = None;
        }
        let now = self.job.ticker.current();
        let rights = self.rights.iter_mut().flatten();
        rights.filter(|right| *right.time() < now).for_each(|right| right.downgrade(&now));
        Ok(false)
    }
}
