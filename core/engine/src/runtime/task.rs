//! The task thread of a transform subtask: the plugin's code runs here and never on an engine worker. Batches, watermarks and processing time reach it by one queue
//! in order; what it emits goes back to its operator (`dataflow::task`), which holds the right to send it.
//!
//! Of an asynchronous transform several calls may be pending. Then the thread goes on with further inputs while there is room, and answers each when it and what is before
//! it has ended (`pending`). Before a cut, and before an input is finished, it takes nothing more and waits for all calls: none is ever in a checkpoint.

use super::{
    calls::CallTimer,
    error::{Cause, JobError, Phase},
    host::now,
    job::Job,
    pending::{Given, Release, Unanswered},
};
use crate::{
    dataflow::time::CheckpointId,
    operator::{END, Emitter, Micros, Operator, OperatorError},
    operators::transform::{Transform, emit},
};
use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, after, never, select};
use standpipe_loader::{Begun, CloseReason};
use standpipe_pipeline::plan::{AsyncCalls, NodeId};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

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

/// Which [`TaskInput`] an output is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// The first that is not answered.
    First,
    /// One behind it, by its distance, which is still to be answered.
    Early(usize),
    /// None: it comes from a timer of processing time.
    Nothing,
}

/// What a call gave.
#[derive(Debug)]
pub(crate) struct TaskOutput {
    /// What it is of.
    pub(crate) answers: Answers,
    /// By output.
    pub(crate) emitted: Given,
    /// A timer of processing time is set: more may come without input.
    pub(crate) timer: bool,
}

/// How the thread hears and answers.
pub(crate) struct Channels {
    pub(crate) inputs: Receiver<TaskInput>,
    pub(crate) outputs: Sender<TaskOutput>,
    /// A call that was pending has ended.
    pub(crate) ended: Receiver<()>,
}

/// Starts the thread. `make` creates and opens the operator there.
pub(crate) fn spawn(
    job: &Arc<Job>,
    node: NodeId,
    subtask: u32,
    make: impl FnOnce() -> Result<Transform, OperatorError> + Send + 'static,
    asynchronous: Option<AsyncCalls>,
    channels: Channels,
    wake_operator: impl Fn() + Send + 'static,
) {
    let shared = Arc::clone(job);
    job.spawn("task", node, subtask, move || {
        let failed = |phase, error: OperatorError| JobError::new(&shared.node(node).path, phase, Cause::from(error));
        let operator = make().map_err(|error| failed(Phase::Start, error))?;
        shared.opened_plugin(node);
        let timer = CallTimer::new(&shared, node, subtask);
        let calls = asynchronous.map(|calls| PendingCalls { calls, unanswered: Unanswered::new(calls), awaited: None, shown: 0 });
        let (job, emitter) = (Arc::clone(&shared), Emitter::default());
        let mut thread = TaskThread { job, node, subtask, operator, timer, channels, emitter, calls, wake_operator };
        let result = thread.run();
        let reason = match (result.is_err() || shared.failed(), shared.cancelled() || shared.stopping()) {
            (true, _) => CloseReason::Failed,
            (false, true) => CloseReason::Stopped,
            (false, false) => CloseReason::Finished,
        };
        thread.operator.close(reason);
        result.map_err(|error| failed(Phase::Running, error))
    });
}

struct TaskThread<W> {
    job: Arc<Job>,
    node: NodeId,
    subtask: u32,
    operator: Transform,
    timer: CallTimer,
    channels: Channels,
    emitter: Emitter,
    /// Of an asynchronous transform.
    calls: Option<PendingCalls>,
    wake_operator: W,
}

/// The calls of an asynchronous transform.
struct PendingCalls {
    calls: AsyncCalls,
    unanswered: Unanswered,
    /// What comes when all of them have ended; until then nothing more is taken.
    awaited: Option<Awaited>,
    /// Calls as the metrics have them.
    shown: u32,
}

/// What waits for all calls.
enum Awaited {
    /// An input is finished; what its last watermark gave.
    Finish { input: u32, given: Given },
    /// The state is reported.
    Snapshot(CheckpointId),
}

/// The operator on the worker is gone: so is the job.
struct Gone;

impl<W: Fn()> TaskThread<W> {
    /// Runs until the operator on the worker closes the queue.
    fn run(&mut self) -> Result<(), OperatorError> {
        let (cancelled, nothing) = (self.job.cancel_signal(), never());
        // Timers may have been restored.
        let mut answered = self.send(Answers::Nothing, Vec::new());
        while answered.is_ok() {
            let due = self.operator.next_wakeup().map(|at| Duration::from_micros(u64::try_from(at.saturating_sub(now())).unwrap_or(0)));
            let timer = due.map_or_else(never, after);
            let overdue = self.calls.as_ref().and_then(PendingCalls::left).map_or_else(never, after);
            let inputs = if self.calls.as_ref().is_none_or(PendingCalls::takes_inputs) { &self.channels.inputs } else { &nothing };
            answered = select! {
                recv(inputs) -> input => match input {
                    Ok(input) if self.calls.is_some() => self.begin(input)?,
                    Ok(input) => self.call(input)?,
                    Err(_) => return Ok(()),
                },
                recv(timer) -> _ => {
                    let (operator, emitter) = (&mut self.operator, &mut self.emitter);
                    self.timer.time("on_timer", || operator.on_processing_time(now(), emitter))?;
                    let given = self.given();
                    self.send(Answers::Nothing, given)
                }
                recv(self.channels.ended) -> _ => Ok(()),
                recv(overdue) -> _ => Ok(()),
                recv(cancelled) -> _ => return Ok(()),
            };
            if let Some(mut calls) = self.calls.take() {
                answered = answered.and(self.answer(&mut calls)?);
                self.calls = Some(calls);
            }
        }
        Ok(())
    }

    /// What was emitted since the last time.
    fn given(&mut self) -> Given {
        self.emitter.drain().collect()
    }

    fn send(&mut self, answers: Answers, emitted: Given) -> Result<(), Gone> {
        let output = TaskOutput { answers, emitted, timer: self.operator.next_wakeup().is_some() };
        self.channels.outputs.send(output).map_err(|_| Gone)?;
        (self.wake_operator)();
        Ok(())
    }

    /// Takes an input and answers it.
    fn call(&mut self, input: TaskInput) -> Result<Result<(), Gone>, OperatorError> {
        let (operator, emitter) = (&mut self.operator, &mut self.emitter);
        match input {
            TaskInput::Rows { input, batch } => self.timer.time("process", || operator.on_batch(input, batch, emitter))?,
            TaskInput::Watermark { input, time } => self.timer.time("process", || operator.on_watermark(input, time, emitter))?,
            TaskInput::Snapshot(checkpoint) => self.report(checkpoint),
            TaskInput::Nothing => {}
        }
        let given = self.given();
        Ok(self.send(Answers::First, given))
    }

    /// Reports the state to a checkpoint.
    fn report(&mut self, checkpoint: CheckpointId) {
        if let Some(checkpoints) = &self.job.checkpoints {
            let operator = &mut self.operator;
            let state = self.timer.time("snapshot", || operator.snapshot(checkpoints.cut(checkpoint)));
            checkpoints.report(checkpoint, self.node, self.subtask, state.map(Into::into));
        }
    }

    /// Takes an input of an asynchronous transform, which is answered in its turn.
    fn begin(&mut self, input: TaskInput) -> Result<Result<(), Gone>, OperatorError> {
        let Some(calls) = &mut self.calls else { return Ok(Ok(())) };
        let (operator, emitter) = (&mut self.operator, &mut self.emitter);
        match input {
            TaskInput::Rows { input, batch } => {
                let since = Instant::now();
                match self.timer.time("process", || operator.begin(input, &batch))? {
                    Begun::Pending(token) => calls.unanswered.pending(token, since),
                    Begun::Done(emitted) => {
                        emit(emitted, emitter);
                        calls.unanswered.ended_at_once(emitter.drain().collect());
                    }
                }
            }
            TaskInput::Watermark { input, time: END } => {
                self.timer.time("process", || operator.advance(input, END, emitter).and_then(|()| operator.drain(None)))?;
                calls.awaited = Some(Awaited::Finish { input, given: emitter.drain().collect() });
            }
            TaskInput::Watermark { input, time } => {
                self.timer.time("process", || operator.advance(input, time, emitter))?;
                calls.unanswered.barrier(emitter.drain().collect());
            }
            TaskInput::Snapshot(checkpoint) => {
                self.timer.time("drain", || operator.drain(Some(checkpoint.number())))?;
                calls.awaited = Some(Awaited::Snapshot(checkpoint));
            }
            TaskInput::Nothing => calls.unanswered.barrier(Vec::new()),
        }
        Ok(Ok(()))
    }

    /// Answers what can be answered, and does what has waited for it.
    fn answer(&mut self, calls: &mut PendingCalls) -> Result<Result<(), Gone>, OperatorError> {
        for ended in self.operator.ended() {
            emit(ended.result?, &mut self.emitter);
            let given = self.given();
            calls.unanswered.ended(ended.token, given);
        }
        if let Some(age) = calls.unanswered.oldest(Instant::now()).filter(|age| *age >= calls.calls.timeout) {
            return Err(self.operator.overdue(age, calls.calls.timeout));
        }
        while let Some(release) = calls.unanswered.release() {
            let sent = match release {
                Release::First(given) => self.send(Answers::First, given),
                Release::Early(at, given) => self.send(Answers::Early(at), given),
            };
            if sent.is_err() {
                return Ok(sent);
            }
        }
        self.show(calls);
        match calls.awaited.take() {
            Some(awaited) if calls.unanswered.is_empty() => self.go_on(awaited),
            awaited => {
                calls.awaited = awaited;
                Ok(Ok(()))
            }
        }
    }

    /// Nothing is pending.
    fn go_on(&mut self, awaited: Awaited) -> Result<Result<(), Gone>, OperatorError> {
        let mut given = Vec::new();
        match awaited {
            Awaited::Finish { input, given: by_watermark } => {
                let (operator, emitter) = (&mut self.operator, &mut self.emitter);
                self.timer.time("finish", || operator.finish(input, emitter))?;
                given = by_watermark;
                given.extend(self.given());
            }
            Awaited::Snapshot(checkpoint) => self.report(checkpoint),
        }
        Ok(self.send(Answers::First, given))
    }

    fn show(&self, calls: &mut PendingCalls) {
        let held = calls.unanswered.held();
        if held != calls.shown {
            let more = i64::from(held) - i64::from(std::mem::replace(&mut calls.shown, held));
            self.job.node_metrics(self.node).pending_calls.fetch_add(more, Relaxed);
        }
    }
}

impl PendingCalls {
    /// Whether another input may be taken.
    fn takes_inputs(&self) -> bool {
        self.awaited.is_none() && self.unanswered.has_room()
    }

    /// How long the oldest call may still be pending.
    fn left(&self) -> Option<Duration> {
        Some(self.calls.timeout.saturating_sub(self.unanswered.oldest(Instant::now())?))
    }
}
