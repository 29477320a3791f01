//! The thread of a sink subtask: it writes the batches that its operator (`dataflow::sink`) queues, waits where the plugin is busy, and flushes what nobody
//! acknowledges. The queue is not bounded by itself: the byte budgets of the sources (`dataflow::budget`) bound all that is not acknowledged, queue included.

use super::{
    calls::CallTimer,
    error::{JobError, Phase},
    host::{Deliveries, InstanceHost},
    job::Job,
};
use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, after, bounded, never, select};
use standpipe_loader::{CloseReason, Committable, PluginError, SinkInstance, Written};
use standpipe_pipeline::plan::{NodeId, Operator};
use std::{
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
    /// Nothing follows.
    Finish,
}

/// A busy plugin that forgets to call `wake` is asked again after this.
const BUSY_RETRY: Duration = Duration::from_millis(100);
/// What waits for its acknowledgement is flushed when nothing has come for this long.
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
        let mut thread = SinkThread { node, timer, queue, has_room, link, written: 0, phase: Phase::Start, job: Arc::clone(&shared) };
        thread.run(Arc::new(host), subtask).map_err(|error| JobError::new(&shared.node(node).path, thread.phase, error))
    });
}

struct SinkThread {
    job: Arc<Job>,
    node: NodeId,
    timer: CallTimer,
    queue: Receiver<SinkCommand>,
    has_room: Receiver<()>,
    link: SinkLink,
    /// The sequence number of the last batch that the plugin took.
    written: u64,
    phase: Phase,
}

impl SinkThread {
    fn run(&mut self, host: Arc<InstanceHost>, subtask: u32) -> Result<(), PluginError> {
        let job = Arc::clone(&self.job);
        let Operator::Sink(sink) = &job.node(self.node).operator else { return Ok(()) };
        let mut instance =
            sink.kind.instance(&sink.config, &job.node(self.node).name, &sink.input, &job.context(self.node, subtask), host)?;
        let transactional = sink.validation.details.capabilities.transactional;
        let result = self.timer.time("open", || instance.open()).and_then(|()| self.write_all(&mut instance));
        let result = match result {
            Ok(true) => self.finish(&mut instance, transactional, subtask).map(|()| true),
            other => other,
        };
        let reason = match result {
            Ok(true) if job.stopping() => CloseReason::Stopped,
            Ok(true) => CloseReason::Finished,
            Ok(false) if !job.failed() => CloseReason::Stopped,
            _ => CloseReason::Failed,
        };
        if let Err(error) = instance.close(reason) {
            tracing::warn!(job = %job.options.job_id, "{error}");
        }
        if matches!(result, Ok(true)) {
            self.link.finished.store(true, SeqCst);
            (self.link.wake_operator)();
        }
        result.map(drop)
    }

    /// Writes until the input ends; false: the job was given up.
    fn write_all(&mut self, instance: &mut SinkInstance) -> Result<bool, PluginError> {
        let pause = self.job.plan.settings.flush_interval.clamp(Duration::from_millis(10), FLUSH_AFTER);
        let cancelled = self.job.cancel_signal();
        let mut last_write = Instant::now();
        loop {
            let unacknowledged = self.link.deliveries.acknowledged() < self.written;
            let patience = if unacknowledged { after(pause) } else { never() };
            select! {
                recv(self.queue) -> command => match command {
                    Ok(SinkCommand::Write(batch)) => {
                        if !self.write(instance, &batch)? {
                            return Ok(false);
                        }
                        last_write = Instant::now();
                    }
                    Ok(SinkCommand::Finish) => return Ok(!self.job.cancelled()),
                    Err(_) => return Ok(false),
                },
                recv(cancelled) -> _ => return Ok(false),
                recv(patience) -> _ => {
                    // A source that waits for room may wait for what this sink holds back.
                    if self.job.throttled.load(SeqCst) > 0 || last_write.elapsed() >= FLUSH_AFTER {
                        self.flush(instance)?;
                        last_write = Instant::now();
                    }
                }
            }
        }
    }

    /// Writes a batch, as often as it takes; false: the job was given up.
    fn write(&mut self, instance: &mut SinkInstance, batch: &RecordBatch) -> Result<bool, PluginError> {
        let (seq, cancelled) = (self.written + 1, self.job.cancel_signal());
        while let Written::Busy = self.timer.time("write", || instance.write(seq, batch))? {
            select! {
                recv(self.has_room) -> _ => {}
                recv(cancelled) -> _ => return Ok(false),
                default(BUSY_RETRY) => {}
            }
        }
        (self.written, self.phase) = (seq, Phase::Running);
        Ok(true)
    }

    /// After a flush everything is delivered, whether the plugin says so or not.
    fn flush(&mut self, instance: &mut SinkInstance) -> Result<(), PluginError> {
        self.timer.time("flush", || instance.flush(0))?;
        self.acknowledge_all();
        Ok(())
    }

    fn acknowledge_all(&self) {
        self.link.deliveries.acknowledge(self.written);
        (self.link.wake_operator)();
    }

    /// The end of the input: without checkpoints, the one transaction is committed here.
    fn finish(&mut self, instance: &mut SinkInstance, transactional: bool, subtask: u32) -> Result<(), PluginError> {
        if transactional && self.written > 0 {
            let prepared = Committable { checkpoint: 1, subtask, bytes: instance.prepare(1)? };
            instance.commit(1, &[prepared])?;
        }
        self.timer.time("finish", || instance.finish())?;
        self.acknowledge_all();
        Ok(())
    }
}
