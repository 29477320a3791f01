//! The thread of a sink subtask: it writes the batches that its operator (`dataflow::sink`) queues, waits where the plugin is busy or fails in a way that may pass, and
//! flushes what nobody acknowledges. The queue is not bounded by itself: the byte budgets of the sources (`dataflow::budget`) bound all that is not acknowledged, queue included.

use super::{
    calls::CallTimer,
    checkpoints::{COMMITTABLES, Report, commits, committables_table},
    error::{JobError, Phase},
    host::{Deliveries, InstanceHost},
    job::Job,
    retry::Retry,
    steps::Step,
};
use crate::{dataflow::time::CheckpointId, operator::OperatorError};
use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, after, at, bounded, never, select};
use standpipe_isolation::Sink;
use standpipe_loader::{CloseReason, Committable, Error, PluginError, Recovered, Written};
use standpipe_pipeline::plan::{NodeId, Operator};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// What the operator queues.
#[derive(Debug)]
pub(crate) enum SinkCommand {
    /// The next batch; sequence numbers count from 1.
    Write(RecordBatch),
    /// All before it belongs to that checkpoint, or to a former one.
    Checkpoint(CheckpointId),
    /// Nothing follows.
    Finish,
}

/// A busy plugin that forgets to call `wake` is asked again after this.
const BUSY_RETRY: Duration = Duration::from_millis(100);
/// What has waited this long for its acknowledgement is flushed, whatever comes meanwhile.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// What the operator and the thread share.
pub(crate) struct SinkLink {
    pub(crate) deliveries: Arc<Deliveries>,
    /// `finish` has succeeded.
    pub(crate) finished: Arc<AtomicBool>,
    pub(crate) wake_operator: Arc<dyn Fn() + Send + Sync>,
}

/// Starts the thread.
pub(crate) fn spawn(job: &Arc<Job>, node: NodeId, subtask: u32, queue: Receiver<SinkCommand>, link: SinkLink) {
    let shared = Arc::clone(job);
    // Where a thread that waits for room listens.
    let (room, has_room) = bounded::<()>(1);
    job.spawn("sink", node, subtask, move || {
        let timer = CallTimer::new(&shared, node, subtask);
        let host = InstanceHost::new(Arc::clone(&shared), node, subtask, move || _ = room.try_send(()));
        let operator = Arc::clone(&link.wake_operator);
        let host = host.for_sink(Arc::clone(&link.deliveries), move || operator());
        let retry = Retry::new(&shared, node);
        let transactional = commits(shared.node(node));
        let holds = matches!(&shared.node(node).operator, Operator::Sink(sink) if sink.validation.details.capabilities.needs_log);
        let commits = shared.checkpoints.as_ref().filter(|_| transactional).map_or_else(never, |it| it.committer(node, subtask));
        let (written, waiting, phase, uncommitted) = (0, VecDeque::new(), Phase::Start, Vec::new());
        let job = Arc::clone(&shared);
        let mut thread = SinkThread {
            job,
            node,
            subtask,
            timer,
            retry,
            queue,
            has_room,
            link,
            written,
            waiting,
            phase,
            transactional,
            holds: holds && shared.checkpoints.is_some(),
            uncommitted,
            commits,
        };
        thread.run(Arc::new(host)).map_err(|error| JobError::new(&shared.node(node).path, thread.phase, error))
    });
}

struct SinkThread {
    job: Arc<Job>,
    node: NodeId,
    subtask: u32,
    timer: CallTimer,
    retry: Retry,
    queue: Receiver<SinkCommand>,
    has_room: Receiver<()>,
    link: SinkLink,
    /// The sequence number of the last batch that the plugin took.
    written: u64,
    /// When the batches that are not acknowledged were given to the plugin, oldest first, by sequence number.
    waiting: VecDeque<(u64, Instant)>,
    phase: Phase,
    transactional: bool,
    /// It keeps rows for the next checkpoint (`needs_log`): a flush before has nothing to deliver.
    holds: bool,
    /// What is prepared and not committed, oldest first.
    uncommitted: Vec<Committable>,
    /// Checkpoints that are durable.
    commits: Receiver<u64>,
}

impl SinkThread {
    fn run(&mut self, host: Arc<InstanceHost>) -> Result<(), PluginError> {
        let job = Arc::clone(&self.job);
        let Operator::Sink(sink) = &job.node(self.node).operator else { return Ok(()) };
        let context = job.context(self.node, self.subtask);
        let maker = job.maker(self.node, &sink.config, &context, host);
        let mut instance = maker.sink(&sink.kind, &job.node(self.node).name, &sink.input)?;
        let result = self.timer.time("open", || instance.open()).and_then(|()| {
            if !self.recover(&mut instance)? {
                return Ok(false);
            }
            job.opened_plugin(self.node);
            self.write_all(&mut instance)
        });
        let result = match result {
            Ok(true) => self.finish(&mut instance),
            other => other,
        };
        let reason = match result {
            Ok(true) if job.stopping() => CloseReason::Stopped,
            Ok(true) => CloseReason::Finished,
            Ok(false) if !job.failed() => CloseReason::Stopped,
            _ => CloseReason::Failed,
        };
        if let Err(error) = instance.close(reason) {
            tracing::warn!(job = %job.options.job_id, operator = %job.node(self.node).path, subtask = self.subtask, "{error}");
        }
        if matches!(result, Ok(true)) {
            self.link.finished.store(true, SeqCst);
            (self.link.wake_operator)();
        }
        result.map(drop)
    }

    /// Writes until the input ends; false: the job was given up.
    fn write_all(&mut self, instance: &mut Sink) -> Result<bool, PluginError> {
        let cancelled = self.job.cancel_signal();
        let opened = Instant::now();
        loop {
            if self.flush_is_due() && !self.flush(instance, 0)? {
                return Ok(false);
            }
            let look = self.waiting.front().filter(|_| !self.holds).map_or_else(never, |(_, since)| self.next_look(*since));
            let command = select! {
                recv(self.queue) -> command => command,
                recv(self.commits) -> checkpoint => match checkpoint {
                    Ok(checkpoint) if !self.commit(instance, checkpoint)? => return Ok(false),
                    _ => continue,
                },
                recv(cancelled) -> _ => return Ok(false),
                recv(look) -> _ => continue,
            };
            if opened.elapsed() >= self.job.options.start_period {
                self.phase = Phase::Running;
            }
            match command {
                Ok(SinkCommand::Write(batch)) if !self.write(instance, &batch)? => return Ok(false),
                Ok(SinkCommand::Write(_)) => {}
                Ok(SinkCommand::Checkpoint(checkpoint)) if !self.checkpoint(instance, checkpoint)? => return Ok(false),
                Ok(SinkCommand::Checkpoint(_)) => {}
                Ok(SinkCommand::Finish) => return Ok(!self.job.cancelled()),
                Err(_) => return Ok(false),
            }
        }
    }

    /// How long a batch waits for its acknowledgement while a source waits for room: it may be waiting for just this.
    fn pause(&self) -> Duration {
        self.job.plan.settings.flush_interval.clamp(Duration::from_millis(10), FLUSH_AFTER)
    }

    /// Whether the oldest batch has waited long enough for its acknowledgement. Asked between two writes too, or a queue that never empties would put it off for ever; not while
    /// the plugin is busy with a part of a batch.
    fn flush_is_due(&mut self) -> bool {
        let acknowledged = self.link.deliveries.acknowledged();
        while self.waiting.pop_front_if(|(seq, _)| *seq <= acknowledged).is_some() {}
        let Some((_, since)) = self.waiting.front().filter(|_| !self.holds) else { return false };
        let patience = if self.job.is_throttled() { self.pause() } else { FLUSH_AFTER };
        since.elapsed() >= patience
    }

    /// When to ask [`Self::flush_is_due`] again, for a batch that has waited since then: a source may come to wait at any time.
    fn next_look(&self, since: Instant) -> Receiver<Instant> {
        let pause = self.pause();
        if since.elapsed() < pause { at(since + pause) } else { after(pause) }
    }

    /// Makes a call, again and again while it fails in a way that may pass; `None`: the job was given up.
    fn persist<R>(&mut self, function: &'static str, mut call: impl FnMut() -> Result<R, PluginError>) -> Result<Option<R>, PluginError> {
        let cancelled = self.job.cancel_signal();
        loop {
            match self.timer.time(function, &mut call) {
                Ok(result) => {
                    self.retry.succeeded();
                    return Ok(Some(result));
                }
                Err(error) => {
                    let wait = self.retry.failed(error)?;
                    select! {
                        recv(cancelled) -> _ => return Ok(None),
                        default(wait) => {}
                    }
                }
            }
        }
    }

    /// Writes a batch, as often as it takes; false: the job was given up.
    fn write(&mut self, instance: &mut Sink, batch: &RecordBatch) -> Result<bool, PluginError> {
        let (seq, cancelled) = (self.written + 1, self.job.cancel_signal());
        let mut waited = false;
        loop {
            match self.persist("write", || instance.write(seq, batch))? {
                None => return Ok(false),
                Some(Written::Taken) => break,
                Some(Written::Busy) => self.job.node_metrics(self.node).set_waiting(self.subtask, true),
            }
            waited = true;
            select! {
                recv(self.has_room) -> _ => {}
                recv(cancelled) -> _ => return Ok(false),
                default(BUSY_RETRY) => {}
            }
        }
        if waited {
            self.job.node_metrics(self.node).set_waiting(self.subtask, false);
        }
        (self.written, self.phase) = (seq, Phase::Running);
        self.waiting.push_back((seq, Instant::now()));
        Ok(true)
    }

    /// After a flush everything is delivered, whether the plugin says so or not. False: the job was given up.
    fn flush(&mut self, instance: &mut Sink, checkpoint: u64) -> Result<bool, PluginError> {
        let flushed = self.persist("flush", || instance.flush(checkpoint))?.is_some();
        if flushed {
            self.acknowledge_all();
        }
        Ok(flushed)
    }

    /// After a restart: what became of what former subtasks had prepared. False: the job was given up.
    fn recover(&mut self, instance: &mut Sink) -> Result<bool, PluginError> {
        let restored = self.job.checkpoints.as_ref().and_then(|checkpoints| checkpoints.restored());
        let Some(restored) = restored else { return Ok(true) };
        let prepared = restored.sink(self.node, self.subtask, self.job.node(self.node).parallelism);
        if !self.transactional {
            let message = "the checkpoint holds what this sink had prepared, and it does not commit any more; change it back, or give it another name and restore with \
                           --allow-non-restored-state if that was committed";
            return if prepared.is_empty() { Ok(true) } else { Err(instance.failure(Error::data(message))) };
        }
        let Some(decisions) = self.persist("recover", || instance.recover(&prepared))? else { return Ok(false) };
        let mut open = Vec::new();
        for (committable, decision) in prepared.into_iter().zip(decisions) {
            match decision {
                Recovered::Committed => {}
                Recovered::Commit => open.push(committable),
                Recovered::Lost => {
                    let message = format!("what was prepared for checkpoint {} is lost; restore an earlier one", committable.checkpoint);
                    return Err(instance.failure(Error::data(message)));
                }
            }
        }
        self.uncommitted = open;
        let aborted = restored.aborted(self.node, self.subtask, self.job.node(self.node).parallelism);
        if !aborted.is_empty() && self.persist("abort", || instance.abort(&aborted))?.is_none() {
            return Ok(false);
        }
        match self.uncommitted.iter().map(|committable| committable.checkpoint).max() {
            Some(newest) => self.commit_up_to(instance, newest),
            None => Ok(true),
        }
    }

    /// Delivers, or prepares, what belongs to a checkpoint, and reports it. False: the job was given up.
    fn checkpoint(&mut self, instance: &mut Sink, checkpoint: CheckpointId) -> Result<bool, PluginError> {
        let job = Arc::clone(&self.job);
        // One that was given up meanwhile: what there is belongs to the next.
        let Some(checkpoints) = job.checkpoints.as_ref().filter(|checkpoints| checkpoints.wants(checkpoint)) else { return Ok(true) };
        let number = checkpoint.number();
        job.reached(Step::Prepare, number);
        if !self.transactional {
            let flushed = self.flush(instance, number)?;
            job.reached(Step::Prepared, number);
            checkpoints.report(checkpoint, self.node, self.subtask, Ok(Report::default()));
            return Ok(flushed);
        }
        let Some(bytes) = self.persist("prepare", || instance.prepare(number))? else { return Ok(false) };
        job.reached(Step::Prepared, number);
        self.acknowledge_all();
        self.uncommitted.push(Committable { checkpoint: number, subtask: self.subtask, bytes });
        let path = &job.node(self.node).path;
        let table = committables_table(&self.uncommitted).map_err(|source| OperatorError::Arrow { node: path.clone(), source });
        let report = table.map(|table| Report { tables: vec![(COMMITTABLES.to_owned(), table)], rest: None, ..Report::default() });
        checkpoints.report(checkpoint, self.node, self.subtask, report);
        Ok(true)
    }

    /// That checkpoint is durable. False: the job was given up.
    fn commit(&mut self, instance: &mut Sink, checkpoint: u64) -> Result<bool, PluginError> {
        self.job.reached(Step::Commit, checkpoint);
        let committed = self.commit_up_to(instance, checkpoint)?;
        self.job.reached(Step::Committed, checkpoint);
        if let Some(checkpoints) = self.job.checkpoints.as_ref().filter(|_| committed) {
            checkpoints.committed(checkpoint, self.node, self.subtask);
        }
        Ok(committed)
    }

    fn commit_up_to(&mut self, instance: &mut Sink, checkpoint: u64) -> Result<bool, PluginError> {
        let prepared: Vec<Committable> = self.uncommitted.extract_if(.., |committable| committable.checkpoint <= checkpoint).collect();
        Ok(prepared.is_empty() || self.persist("commit", || instance.commit(checkpoint, &prepared))?.is_some())
    }

    fn acknowledge_all(&mut self) {
        self.waiting.clear();
        self.link.deliveries.acknowledge(self.written);
        (self.link.wake_operator)();
    }

    /// The end of the input: without checkpoints, the one transaction is committed here. False: the job was given up.
    fn finish(&mut self, instance: &mut Sink) -> Result<bool, PluginError> {
        if self.transactional && self.job.checkpoints.is_none() && self.written > 0 {
            let Some(bytes) = self.persist("prepare", || instance.prepare(1))? else { return Ok(false) };
            let prepared = [Committable { checkpoint: 1, subtask: self.subtask, bytes }];
            if self.persist("commit", || instance.commit(1, &prepared))?.is_none() {
                return Ok(false);
            }
        }
        let finished = self.persist("finish", || instance.finish())?.is_some();
        if finished {
            self.acknowledge_all();
        }
        Ok(finished)
    }
}
