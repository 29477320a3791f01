//! The part of a chain behind its head: the fused stateless steps, and the edges that leave the chain. What the head gives goes through here; on the way rows are
//! counted for every node, and shown to whoever looks (`runtime::tap`).

use super::{
    batch_bytes,
    chunk::{Mark, Rows},
    output::Outputs,
};
use crate::{
    operator::{Emitter, Operator, OperatorError},
    runtime::{calls::nanos, job::Job},
};
use standpipe_pipeline::plan::NodeId;
use std::{cell::Cell, rc::Rc, sync::Arc, time::Instant};

/// Stateless operators behind a head, in order.
pub(crate) type Steps = Vec<(NodeId, Box<dyn Operator>)>;

/// A fused step.
struct Step {
    node: NodeId,
    operator: Box<dyn Operator>,
    emitter: Emitter,
}

/// See the module's documentation.
pub(crate) struct Tail {
    job: Arc<Job>,
    head: NodeId,
    steps: Vec<Step>,
    pub(crate) outputs: Outputs,
    /// The node whose code runs, to blame for a panic.
    running: Rc<Cell<NodeId>>,
    subtask: u32,
    /// The last watermark that was sent.
    sent: Option<Mark>,
}

impl Tail {
    pub(crate) fn new(job: &Arc<Job>, head: NodeId, subtask: u32, steps: Steps, outputs: Outputs, running: Rc<Cell<NodeId>>) -> Self {
        let steps = steps.into_iter().map(|(node, operator)| Step { node, operator, emitter: Emitter::default() }).collect();
        Self { job: Arc::clone(job), head, steps, outputs, running, subtask, sent: None }
    }

    /// Rows that an output of the head gave.
    pub(crate) fn emit(&mut self, output: u32, rows: Rows) -> Result<(), OperatorError> {
        self.step(0, output, rows)
    }

    /// Rows of an output of the node at `depth` (0 is the head).
    fn step(&mut self, depth: usize, output: u32, rows: Rows) -> Result<(), OperatorError> {
        let from = depth.checked_sub(1).and_then(|i| self.steps.get(i)).map_or(self.head, |step| step.node);
        let metrics = self.job.node_metrics(from);
        let (count, bytes) = (rows.batch.num_rows() as u64, batch_bytes(&rows.batch));
        self.job.taps.pass(from, output, &rows.batch);
        metrics.rows_out.add(self.subtask, count);
        metrics.bytes_out.add(self.subtask, bytes);
        if output == 0
            && let Some(step) = self.steps.get_mut(depth)
        {
            self.running.set(step.node);
            let metrics = self.job.node_metrics(step.node);
            metrics.rows_in.add(self.subtask, count);
            metrics.bytes_in.add(self.subtask, bytes);
            let begin = Instant::now();
            step.operator.on_batch(0, rows.batch, &mut step.emitter)?;
            metrics.busy_nanos.add(self.subtask, nanos(begin.elapsed()));
            // The emitter is lent out so that the next step can use `self`.
            let mut emitter = std::mem::take(&mut step.emitter);
            for (output, batch) in emitter.drain() {
                self.step(depth + 1, output, Rows { batch, origin: rows.origin.clone() })?;
            }
            self.steps[depth].emitter = emitter;
            self.running.set(from);
            return Ok(());
        }
        match self.job.node(from).outputs.get(output as usize).map(|output| output.name.as_str()) {
            Some("late") => metrics.late_rows.add(self.subtask, count),
            Some("errors") => metrics.broken_records.add(self.subtask, count),
            _ => {}
        }
        let job = Arc::clone(&self.job);
        self.outputs.rows(from, output, rows, job.node_metrics(from))
    }

    /// The watermark of the head is now this; steps are told, it is sent on behind what they give. The same one twice is sent once.
    pub(crate) fn mark(&mut self, mark: Mark) -> Result<(), OperatorError> {
        if self.sent.as_ref() == Some(&mark) {
            return Ok(());
        }
        let advanced = self.sent.as_ref().is_none_or(|sent| sent.time < mark.time);
        for depth in 0..self.steps.len() {
            let step = &mut self.steps[depth];
            if advanced {
                self.running.set(step.node);
                step.operator.on_watermark(0, mark.time, &mut step.emitter)?;
                let mut emitter = std::mem::take(&mut step.emitter);
                for (output, batch) in emitter.drain() {
                    self.step(depth + 1, output, Rows { batch, origin: None })?;
                }
                self.steps[depth].emitter = emitter;
            }
            self.job.node_metrics(self.steps[depth].node).set_event_time(self.subtask, mark.time, mark.idle, mark.holder.clone());
        }
        self.running.set(self.head);
        self.job.node_metrics(self.head).set_event_time(self.subtask, mark.time, mark.idle, mark.holder.clone());
        self.outputs.mark(&mark);
        self.sent = Some(mark);
        Ok(())
    }
}
