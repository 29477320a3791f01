//! A chain whose head is a plugin's transform: its batches and watermarks go to the task thread (`runtime::task`) in order, and what comes back is sent by the right
//! of what it answers. The right is kept until then, so that progress and backpressure see the task's queue.

use super::{
    chunk::{Item, Mark, Rows},
    guard::{Frontiers, Logic, earliest},
    input::{Inputs, Puller, Received},
    output::{Outputs, Rights},
    tail::Tail,
    time::Time,
};
use crate::{
    operator::OperatorError,
    runtime::{
        job::Job,
        task::{TaskInput, TaskOutput},
    },
};
use crossbeam_channel::{Receiver, Sender};
use standpipe_pipeline::plan::NodeId;
use std::{collections::VecDeque, sync::Arc};
use timely::dataflow::operators::InputCapability;

/// A call that the task has not answered.
struct Pending {
    rights: Rights,
    /// Sent behind what the call gives.
    mark: Option<Mark>,
}

/// See the module's documentation.
pub(crate) struct TaskHead {
    pub(crate) job: Arc<Job>,
    pub(crate) node: NodeId,
    /// `None` once all inputs have ended and everything is answered.
    pub(crate) calls: Option<Sender<TaskInput>>,
    pub(crate) answers: Receiver<TaskOutput>,
    pub(crate) pending: Unanswered,
    pub(crate) pullers: Vec<Puller>,
    pub(crate) inputs: Inputs,
    pub(crate) tail: Tail,
    /// The rights to send when a timer of processing time fires, while one is set.
    pub(crate) standing: Option<Rights>,
    pub(crate) ports: usize,
}

/// Calls in the order in which they will be answered.
#[derive(Default)]
pub(crate) struct Unanswered(VecDeque<Pending>);

impl TaskHead {
    fn call(&mut self, right: &InputCapability<Time>, call: TaskInput, mark: Option<Mark>) {
        // The thread is gone only when the job has failed.
        if let Some(calls) = &self.calls
            && calls.send(call).is_ok()
        {
            self.pending.0.push_back(Pending { rights: Outputs::retain(right, self.ports), mark });
        }
    }

    fn take(&mut self, edge: usize, right: &InputCapability<Time>, items: Vec<Item>) -> Result<(), OperatorError> {
        for item in items {
            match self.inputs.receive(edge, item)? {
                Received::Rows { input, rows } => {
                    self.job.node_metrics(self.node).rows_in.add(rows.batch.num_rows() as u64);
                    self.call(right, TaskInput::Rows { input, batch: rows.batch }, None);
                }
                Received::Mark { advanced: Some((input, time)), all } => self.call(right, TaskInput::Watermark { input, time }, all),
                Received::Mark { advanced: None, all: Some(all) } => match self.pending.0.back_mut() {
                    Some(last) => last.mark = Some(all),
                    None => self.tail.mark(all)?,
                },
                Received::Mark { advanced: None, all: None } => {}
            }
        }
        self.tail.outputs.flush_for(right);
        Ok(())
    }

    fn answer(&mut self, output: TaskOutput) -> Result<(), OperatorError> {
        let answered = if output.answers { self.pending.0.pop_front() } else { None };
        if answered.is_none() && self.standing.is_none() {
            // A timer fired after the inputs had ended.
            let rows = output.emitted.iter().map(|(_, batch)| batch.num_rows() as u64).sum();
            self.job.node_metrics(self.node).unread_rows.add(rows);
            return Ok(());
        }
        for (port, batch) in output.emitted {
            self.tail.emit(port, Rows { batch, origin: None })?;
        }
        let (rights, mark) = answered.map_or((None, None), |answered| (Some(answered.rights), answered.mark));
        if let Some(mark) = mark {
            self.tail.mark(mark)?;
        }
        if let Some(rights) = rights.as_ref().or(self.standing.as_ref()) {
            self.tail.outputs.flush(rights);
        }
        if !output.timer {
            self.standing = None;
        } else if self.standing.is_none() {
            self.standing = rights;
        }
        Ok(())
    }
}

impl Logic for TaskHead {
    fn run(&mut self, frontiers: Frontiers<'_>) -> Result<bool, OperatorError> {
        let mut pullers = std::mem::take(&mut self.pullers);
        let mut result = Ok(());
        for (edge, pull) in pullers.iter_mut().enumerate() {
            pull(&mut |right, chunk| {
                if result.is_ok() {
                    result = self.take(edge, &right, std::mem::take(&mut chunk.0));
                }
            });
        }
        self.pullers = pullers;
        result?;
        while let Ok(output) = self.answers.try_recv() {
            self.answer(output)?;
        }
        match earliest(frontiers) {
            Some(frontier) => {
                let rights = self.standing.iter_mut().flatten();
                rights.filter(|right| *right.time() < frontier).for_each(|right| right.downgrade(&frontier));
            }
            None if self.pending.0.is_empty() => (self.standing, self.calls) = (None, None),
            None => {}
        }
        Ok(false)
    }
}
