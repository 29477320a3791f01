//! The thread of a source's enumerator, one per job: it finds splits and gives them to the source's subtasks in turns, in the order found. It runs in the first
//! process; how a subtask is reached is [`Assignments`]' business.

use super::{
    error::{JobError, Phase},
    host::InstanceHost,
    job::Job,
    reader::ReaderCommand,
};
use crossbeam_channel::{Receiver, Sender, bounded};
use standpipe_loader::{CloseReason, PluginError, SourceEnumerator, SplitPosition};
use standpipe_pipeline::plan::{NodeId, Operator};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Reaches the subtasks of a source, wherever they run.
pub(crate) trait Assignments: Send {
    /// How many there are.
    fn subtasks(&self) -> usize;
    /// Tells one something. A subtask that is gone does not hear it.
    fn tell(&self, subtask: usize, command: ReaderCommand);
}

/// Subtasks of this process.
pub(crate) struct LocalAssignments(pub(crate) Vec<Sender<ReaderCommand>>);

impl Assignments for LocalAssignments {
    fn subtasks(&self) -> usize {
        self.0.len()
    }

    fn tell(&self, subtask: usize, command: ReaderCommand) {
        if let Some(sender) = self.0.get(subtask) {
            drop(sender.send(command));
        }
    }
}

/// How long one discovery may take, and how often one begins at most.
const DISCOVERY: Duration = Duration::from_millis(500);

/// Starts the thread.
pub(crate) fn spawn(job: &Arc<Job>, node: NodeId, assignments: impl Assignments + 'static) {
    let shared = Arc::clone(job);
    let (wake, woken) = bounded::<()>(1);
    job.on_change({
        let wake = wake.clone();
        move || _ = wake.try_send(())
    });
    job.spawn("enumerator", node, 0, move || {
        let host = InstanceHost::new(Arc::clone(&shared), node, 0, move || _ = wake.try_send(()));
        let mut thread = EnumeratorThread { node, assignments, woken, next: 0, phase: Phase::Start, job: Arc::clone(&shared) };
        thread.run(Arc::new(host)).map_err(|error| JobError::new(&shared.node(node).path, thread.phase, error))
    });
}

struct EnumeratorThread<A> {
    job: Arc<Job>,
    node: NodeId,
    assignments: A,
    woken: Receiver<()>,
    /// Whose turn it is.
    next: usize,
    phase: Phase,
}

impl<A: Assignments> EnumeratorThread<A> {
    fn run(&mut self, host: Arc<InstanceHost>) -> Result<(), PluginError> {
        let job = Arc::clone(&self.job);
        let Operator::Source(source) = &job.node(self.node).operator else { return Ok(()) };
        let mut enumerator = source.kind.enumerator(&source.config, &job.context(self.node, 0), host)?;
        let result = enumerator.open().and_then(|()| {
            job.opened();
            self.discover(&mut enumerator)
        });
        let reason = match (&result, job.stopping() || job.cancelled()) {
            (Err(_), _) => CloseReason::Failed,
            (Ok(()), true) => CloseReason::Stopped,
            (Ok(()), false) => CloseReason::Finished,
        };
        if let Err(error) = enumerator.close(reason) {
            tracing::warn!(job = %job.options.job_id, "{error}");
        }
        result
    }

    fn discover(&mut self, enumerator: &mut SourceEnumerator) -> Result<(), PluginError> {
        let mut backoff = DISCOVERY;
        while !self.job.stopping() && !self.job.cancelled() {
            let begin = Instant::now();
            match enumerator.discover(DISCOVERY) {
                Ok(found) => {
                    backoff = DISCOVERY;
                    let exhausted = found.exhausted;
                    self.assign(found.added);
                    if !found.removed.is_empty() {
                        (0..self.assignments.subtasks())
                            .for_each(|i| self.assignments.tell(i, ReaderCommand::Revoke(found.removed.clone())));
                    }
                    if exhausted {
                        (0..self.assignments.subtasks()).for_each(|i| self.assignments.tell(i, ReaderCommand::NoMoreSplits));
                        return Ok(());
                    }
                    self.phase = Phase::Running;
                }
                Err(error) if error.retryable && self.phase == Phase::Running => {
                    tracing::warn!(job = %self.job.options.job_id, "{error}; trying again");
                    backoff = (backoff * 2).min(Duration::from_secs(10));
                }
                Err(error) => return Err(error),
            }
            // An enumerator that does not wait itself must not spin.
            let rest = backoff.saturating_sub(begin.elapsed());
            if !rest.is_zero() {
                _ = self.woken.recv_timeout(rest);
            }
        }
        Ok(())
    }

    /// Every subtask hears of every discovery, also that there is nothing for it: until then it does not know that it is idle.
    fn assign(&mut self, added: Vec<standpipe_loader::SplitDescription>) {
        let subtasks = self.assignments.subtasks();
        let mut shares: Vec<Vec<SplitPosition>> = vec![Vec::new(); subtasks];
        for split in added {
            shares[self.next % subtasks].push(SplitPosition { split: split.split, details: split.details, position: None });
            self.next += 1;
        }
        for (subtask, share) in shares.into_iter().enumerate() {
            if !share.is_empty() || self.phase == Phase::Start {
                self.assignments.tell(subtask, ReaderCommand::Assign(share));
            }
        }
    }
}
