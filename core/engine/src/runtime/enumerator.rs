//! The thread of a source's enumerator, one per job: it finds splits and gives them to the source's subtasks in turns, in the order found. It runs in the first
//! process; how a subtask is reached is [`Assignments`]' business.

use super::{
    checkpoints::splits::{EnumeratorState, FoundSplit, RestoredSource},
    error::{JobError, Phase},
    host::InstanceHost,
    job::Job,
    peers::Reach,
    reader::{Assignment, ReaderCommand},
};
use crossbeam_channel::{Receiver, bounded};
use standpipe_isolation::Enumerator;
use standpipe_loader::{CloseReason, PluginError, SplitDescription};
use standpipe_pipeline::plan::{NodeId, Operator};
use std::{
    collections::BTreeMap,
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

impl Assignments for Vec<Reach> {
    fn subtasks(&self) -> usize {
        self.len()
    }

    fn tell(&self, subtask: usize, command: ReaderCommand) {
        if let Some(reach) = self.get(subtask) {
            reach.tell(command);
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
        let restored = shared.checkpoints.as_ref().and_then(|checkpoints| checkpoints.restored());
        let restored = restored.map(|restored| restored.source(node));
        let (next, phase, found) = (0, Phase::Start, BTreeMap::new());
        let mut thread = EnumeratorThread { node, assignments, woken, next, phase, found, job: Arc::clone(&shared) };
        thread.run(Arc::new(host), restored).map_err(|error| JobError::new(&shared.node(node).path, thread.phase, error))
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
    /// What there is to remember of every split, where checkpoints are on.
    found: BTreeMap<String, FoundSplit>,
}

impl<A: Assignments> EnumeratorThread<A> {
    fn run(&mut self, host: Arc<InstanceHost>, restored: Option<RestoredSource>) -> Result<(), PluginError> {
        let job = Arc::clone(&self.job);
        let Operator::Source(source) = &job.node(self.node).operator else { return Ok(()) };
        let context = job.context(self.node, 0);
        let mut enumerator = job.maker(self.node, &source.config, &context, host).enumerator(&source.kind)?;
        let result = enumerator.open().and_then(|()| {
            if let Some(restored) = restored {
                self.restore(&mut enumerator, restored)?;
            }
            job.opened_plugin(self.node);
            self.discover(&mut enumerator)
        });
        let reason = match (&result, job.stopping() || job.cancelled()) {
            (Err(_), _) => CloseReason::Failed,
            (Ok(()), true) => CloseReason::Stopped,
            (Ok(()), false) => CloseReason::Finished,
        };
        if let Err(error) = enumerator.close(reason) {
            tracing::warn!(job = %job.options.job_id, operator = %job.node(self.node).path, "{error}");
        }
        result
    }

    fn discover(&mut self, enumerator: &mut Enumerator) -> Result<(), PluginError> {
        let mut backoff = DISCOVERY;
        // The first look is for all cases: the checkpoint that a stop takes must know what there is.
        while !self.job.cancelled() && (self.phase == Phase::Start || !self.job.stopping()) {
            let begin = Instant::now();
            match enumerator.discover(DISCOVERY) {
                Ok(found) => {
                    backoff = DISCOVERY;
                    let exhausted = found.exhausted;
                    let is_news = self.phase == Phase::Start || !found.added.is_empty() || !found.removed.is_empty();
                    let added = self.added(found.added);
                    found.removed.iter().for_each(|split| drop(self.found.remove(split)));
                    if is_news {
                        self.remember(enumerator)?;
                    }
                    self.assign(added, self.phase == Phase::Start);
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
                    let operator = &self.job.node(self.node).path;
                    tracing::warn!(job = %self.job.options.job_id, %operator, "{error}; trying again");
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

    /// Goes on: what a former run knew is dealt out anew, from where it was left.
    fn restore(&mut self, enumerator: &mut Enumerator, restored: RestoredSource) -> Result<(), PluginError> {
        if !restored.snapshot.is_empty() {
            enumerator.restore(&restored.snapshot)?;
        }
        let known = restored.known();
        self.found = restored.splits;
        self.remember(enumerator)?;
        // That there is nothing for a subtask is for the first discovery to say: more may have come to be since.
        self.assign(known, false);
        Ok(())
    }

    /// What is to be read of what was found: not again what a former run has read or this one reads.
    fn added(&mut self, added: Vec<SplitDescription>) -> Vec<Assignment> {
        let mut assignments = Vec::with_capacity(added.len());
        for SplitDescription { split, details } in added {
            let known = self.found.entry(split.clone()).or_default();
            if known.ended || known.details.is_some() {
                continue;
            }
            known.details = Some(details.clone());
            assignments.push(known.assignment(&split, details));
        }
        assignments
    }

    /// Notes what a checkpoint is to hold, before the readers are told: then no split can be between the two.
    fn remember(&self, enumerator: &mut Enumerator) -> Result<(), PluginError> {
        if let Some(checkpoints) = &self.job.checkpoints {
            let snapshot = enumerator.snapshot()?;
            checkpoints.found(self.node, EnumeratorState { snapshot, found: self.found.clone() });
        }
        Ok(())
    }

    /// With `all`, every subtask hears of it, also that there is nothing for it: until then it does not know that it is idle.
    fn assign(&mut self, added: Vec<Assignment>, all: bool) {
        let subtasks = self.assignments.subtasks();
        let mut shares: Vec<Vec<Assignment>> = vec![Vec::new(); subtasks];
        for assignment in added {
            shares[self.next % subtasks].push(assignment);
            self.next += 1;
        }
        for (subtask, share) in shares.into_iter().enumerate() {
            if all || !share.is_empty() {
                self.assignments.tell(subtask, ReaderCommand::Assign(share));
            }
        }
    }
}
