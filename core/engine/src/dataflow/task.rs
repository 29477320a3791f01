//! A chain whose head is a plugin's transform: its batches and watermarks go to the task thread (`runtime::task`) in order, and what comes back is sent by the right
//! of what it answers. The right is kept until then, so that progress and backpressure see the task's queue, and the calls of an asynchronous transform that are pending.

use super::{
    align::{Aligner, Right},
    batch_bytes,
    chunk::{Item, Mark, Rows},
    guard::{Frontiers, Logic, earliest},
    input::{Inputs, Puller, Received},
    output::Rights,
    tail::Tail,
    time::{CheckpointId, Tick, Time, time},
};
use crate::{
    operator::OperatorError,
    runtime::{
        job::Job,
        task::{Answers, TaskInput, TaskOutput},
    },
};
use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender};
use standpipe_pipeline::plan::NodeId;
use std::{collections::VecDeque, sync::Arc};

/// What the task has not answered.
enum Pending {
    /// A call; `mark` is sent behind what it gives.
    Call { rights: Rights, mark: Option<Mark> },
    /// A question for its state, which gives nothing.
    Cut(CheckpointId),
}

/// See the module's documentation.
pub(crate) struct TaskHead {
    pub(crate) job: Arc<Job>,
    pub(crate) node: NodeId,
    pub(crate) subtask: u32,
    pub(crate) aligner: Aligner,
    /// `None` once all inputs have ended and everything is answered.
    pub(crate) calls: Option<Sender<TaskInput>>,
    pub(crate) answers: Receiver<TaskOutput>,
    pub(crate) pending: Unanswered,
    pub(crate) pullers: Vec<Puller>,
    pub(crate) inputs: Inputs,
    pub(crate) tail: Tail,
    /// The rights to send when a timer of processing time fires, while one is set.
    pub(crate) standing: Option<Rights>,
    /// Results of a call may come before those of an earlier one.
    pub(crate) overtaking: bool,
    pub(crate) ports: usize,
}

/// Calls in the order in which they will be answered.
#[derive(Default)]
pub(crate) struct Unanswered(VecDeque<Pending>);

impl TaskHead {
    fn call(&mut self, right: &Right<'_>, call: TaskInput, mark: Option<Mark>) {
        // The thread is gone only when the job has failed.
        if let Some(calls) = &self.calls
            && calls.send(call).is_ok()
        {
            self.pending.0.push_back(Pending::Call { rights: right.retain(self.ports), mark });
        }
    }

    fn take(&mut self, edge: usize, right: &Right<'_>, items: Vec<Item>) -> Result<(), OperatorError> {
        for item in items {
            match self.inputs.receive(edge, item)? {
                Received::Rows { input, rows } => {
                    let metrics = self.job.node_metrics(self.node);
                    metrics.rows_in.add(self.subtask, rows.batch.num_rows() as u64);
                    metrics.bytes_in.add(self.subtask, batch_bytes(&rows.batch));
                    self.call(right, TaskInput::Rows { input, batch: rows.batch }, None);
                }
                Received::Mark { advanced: Some((input, time)), all } => self.call(right, TaskInput::Watermark { input, time }, all),
                Received::Mark { advanced: None, all: Some(all) } => match self.pending.0.back_mut() {
                    Some(Pending::Call { mark, .. }) if !self.overtaking => *mark = Some(all),
                    // What is behind it is not to come before it.
                    Some(Pending::Call { .. }) => self.call(right, TaskInput::Nothing, Some(all)),
                    // Behind a cut, and not to be sent by a right that is before it.
                    Some(Pending::Cut(_)) => self.call(right, TaskInput::Nothing, Some(all)),
                    None => self.tail.mark(all)?,
                },
                Received::Mark { advanced: None, all: None } => {}
            }
        }
        right.flush(&mut self.tail.outputs);
        Ok(())
    }

    /// Asks for the state at every cut that is due, and takes what is behind it.
    fn cut(&mut self, frontiers: Frontiers<'_>) -> Result<(), OperatorError> {
        while let Some(cut) = self.aligner.next_cut(frontiers) {
            let wanted = self.job.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.wants(cut));
            if wanted
                && let Some(calls) = &self.calls
                && calls.send(TaskInput::Snapshot(cut)).is_ok()
            {
                self.pending.0.push_back(Pending::Cut(cut));
            }
            while let Some((edge, items, rights)) = self.aligner.next_held() {
                self.take(edge, &Right::Kept(&rights), items)?;
            }
        }
        Ok(())
    }

    fn advance_standing(&mut self, to: Time) {
        let rights = self.standing.iter_mut().flatten();
        rights.filter(|right| *right.time() < to).for_each(|right| right.downgrade(&to));
    }

    /// Sends what an input behind others gave, which is answered in its turn.
    fn answer_early(&mut self, at: usize, emitted: Vec<(u32, RecordBatch)>) -> Result<(), OperatorError> {
        let Some(Pending::Call { rights, .. }) = self.pending.0.get(at) else { return Ok(()) };
        for (port, batch) in emitted {
            self.tail.emit(port, Rows { batch, origin: None })?;
        }
        self.tail.outputs.flush(rights);
        Ok(())
    }

    fn answer(&mut self, output: TaskOutput) -> Result<(), OperatorError> {
        let answered = match output.answers {
            Answers::First => self.pending.0.pop_front(),
            Answers::Nothing => None,
            Answers::Early(at) => return self.answer_early(at, output.emitted),
        };
        if answered.is_none() && self.standing.is_none() {
            // A timer fired after the inputs had ended.
            let rows = output.emitted.iter().map(|(_, batch)| batch.num_rows() as u64).sum();
            self.job.node_metrics(self.node).unread_rows.add(self.subtask, rows);
            return Ok(());
        }
        for (port, batch) in output.emitted {
            self.tail.emit(port, Rows { batch, origin: None })?;
        }
        let (rights, mark) = match answered {
            Some(Pending::Call { rights, mark }) => (Some(rights), mark),
            Some(Pending::Cut(cut)) => {
                // What a timer gives from now on is behind the cut.
                self.advance_standing(time(cut, Tick::FIRST));
                (None, None)
            }
            None => (None, None),
        };
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
                if result.is_ok() && !self.aligner.hold(edge, &right, &mut chunk.0, self.ports) {
                    result = self.take(edge, &Right::Lent(&right), std::mem::take(&mut chunk.0));
                }
            });
        }
        self.pullers = pullers;
        result?;
        self.cut(frontiers)?;
        while let Ok(output) = self.answers.try_recv() {
            self.answer(output)?;
        }
        match earliest(frontiers) {
            // What a timer gives before the state is asked for is before the cut, and is not to be sent behind it.
            Some(_) if self.pending.0.iter().any(|pending| matches!(pending, Pending::Cut(_))) => {}
            Some(frontier) => self.advance_standing(frontier),
            None if self.pending.0.is_empty() => (self.standing, self.calls) = (None, None),
            None => {}
        }
        Ok(false)
    }
}
