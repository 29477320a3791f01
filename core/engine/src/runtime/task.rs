//! The task thread of a transform subtask: the plugin's code runs here and never on an engine worker. Batches, watermarks and processing time reach it by one queue
//! in order; what it emits goes back to its operator (`dataflow::task`), which holds the right to send it.

use super::{
    calls::CallTimer,
    error::{Cause, JobError, Phase},
    host::now,
    job::Job,
};
use crate::{
    dataflow::time::CheckpointId,
    operator::{Emitter, Micros, Operator, OperatorError},
};
use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, after, never, select};
use standpipe_loader::CloseReason;
use standpipe_pipeline::plan::NodeId;
use std::{sync::Arc, time::Duration};

/// What the operator queues; each gets exactly one answer, in order.
#[derive(Debug)]
pub(crate) enum TaskInput {
    /// Rows of an input.
    Rows { input: u32, batch: RecordBatch },
    /// The watermark of an input.
    Watermark { input: u32, time: Micros },
    /// The state is to be reported to that checkpoint.
    Snapshot(CheckpointId),
    /// Nothing, to be answered in its turn.
    Nothing,
}

/// What a call gave.
#[derive(Debug)]
pub(crate) struct TaskOutput {
    /// It answers a [`TaskInput`]; otherwise it comes from a timer of processing time.
    pub(crate) answers: bool,
    /// By output.
    pub(crate) emitted: Vec<(u32, RecordBatch)>,
    /// A timer of processing time is set: more may come without input.
    pub(crate) timer: bool,
}

/// Starts the thread. `make` creates and opens the operator there.
pub(crate) fn spawn(
    job: &Arc<Job>,
    node: NodeId,
    subtask: u32,
    make: impl FnOnce() -> Result<Box<dyn Operator>, OperatorError> + Send + 'static,
    inputs: Receiver<TaskInput>,
    outputs: Sender<TaskOutput>,
    wake_operator: impl Fn() + Send + 'static,
) {
    let shared = Arc::clone(job);
    job.spawn("task", node, subtask, move || {
        let failed = |phase, error: OperatorError| JobError::new(&shared.node(node).path, phase, Cause::from(error));
        let operator = make().map_err(|error| failed(Phase::Start, error))?;
        shared.opened_plugin(node);
        let timer = CallTimer::new(&shared, node, subtask);
        let emitter = Emitter::default();
        let mut thread = TaskThread { job: Arc::clone(&shared), node, subtask, operator, timer, inputs, outputs, emitter };
        let result = thread.run(&wake_operator);
        let reason = match (result.is_err() || shared.failed(), shared.cancelled() || shared.stopping()) {
            (true, _) => CloseReason::Failed,
            (false, true) => CloseReason::Stopped,
            (false, false) => CloseReason::Finished,
        };
        thread.operator.close(reason);
        result.map_err(|error| failed(Phase::Running, error))
    });
}

struct TaskThread {
    job: Arc<Job>,
    node: NodeId,
    subtask: u32,
    operator: Box<dyn Operator>,
    timer: CallTimer,
    inputs: Receiver<TaskInput>,
    outputs: Sender<TaskOutput>,
    emitter: Emitter,
}

impl TaskThread {
    /// Runs until the operator on the worker closes the queue.
    fn run(&mut self, wake_operator: &dyn Fn()) -> Result<(), OperatorError> {
        let cancelled = self.job.cancel_signal();
        // Timers may have been restored.
        let first = TaskOutput { answers: false, emitted: Vec::new(), timer: self.operator.next_wakeup().is_some() };
        if self.outputs.send(first).is_err() {
            return Ok(());
        }
        wake_operator();
        loop {
            let due = self.operator.next_wakeup().map(|at| Duration::from_micros(u64::try_from(at.saturating_sub(now())).unwrap_or(0)));
            let timer = due.map_or_else(never, after);
            let (operator, emitter) = (&mut self.operator, &mut self.emitter);
            let answers = select! {
                recv(self.inputs) -> input => {
                    let Ok(input) = input else { return Ok(()) };
                    match input {
                        TaskInput::Rows { input, batch } => self.timer.time("process", || operator.on_batch(input, batch, emitter))?,
                        TaskInput::Watermark { input, time } => {
                            self.timer.time("process", || operator.on_watermark(input, time, emitter))?;
                        }
                        TaskInput::Snapshot(checkpoint) => {
                            if let Some(checkpoints) = &self.job.checkpoints {
                                let state = self.timer.time("snapshot", || operator.snapshot(checkpoints.cut(checkpoint)));
                                checkpoints.report(checkpoint, self.node, self.subtask, state.map(Into::into));
                            }
                        }
                        TaskInput::Nothing => {}
                    }
                    true
                }
                recv(timer) -> _ => {
                    self.timer.time("on_timer", || operator.on_processing_time(now(), emitter))?;
                    false
                }
                recv(cancelled) -> _ => return Ok(()),
            };
            let emitted = self.emitter.drain().collect();
            let output = TaskOutput { answers, emitted, timer: self.operator.next_wakeup().is_some() };
            if self.outputs.send(output).is_err() {
                return Ok(());
            }
            wake_operator();
        }
    }
}
