//! A chain whose head runs on the engine worker: windows, aggregates, and stateless steps that could not be fused with what is before them.

use super::{
    alarm::Alarm,
    align::{Aligner, Right},
    batch_bytes,
    chunk::{Item, Rows},
    guard::{Frontiers, Logic, earliest},
    input::{Inputs, Puller, Received},
    output::Rights,
    tail::Tail,
};
use crate::{
    operator::{Emitter, Operator, OperatorError},
    runtime::{calls::CallTimer, host::now, job::Job},
};
use standpipe_pipeline::plan::NodeId;
use std::{sync::Arc, time::Duration};

/// See the module's documentation.
pub(crate) struct OperatorHead {
    pub(crate) job: Arc<Job>,
    pub(crate) node: NodeId,
    pub(crate) subtask: u32,
    pub(crate) aligner: Aligner,
    pub(crate) operator: Box<dyn Operator>,
    /// Its state is part of checkpoints. What one without a state gives has the same origin as what it took.
    pub(crate) is_stateful: bool,
    pub(crate) pullers: Vec<Puller>,
    pub(crate) inputs: Inputs,
    pub(crate) tail: Tail,
    pub(crate) timer: CallTimer,
    pub(crate) alarm: Alarm,
    pub(crate) emitter: Emitter,
    /// The rights to send when the clock says so, while the operator has asked for it.
    pub(crate) standing: Option<Rights>,
    pub(crate) ports: usize,
}

impl OperatorHead {
    fn take(&mut self, edge: usize, right: &Right<'_>, items: Vec<Item>) -> Result<(), OperatorError> {
        for item in items {
            match self.inputs.receive(edge, item)? {
                Received::Rows { input, rows } => {
                    let metrics = self.job.node_metrics(self.node);
                    metrics.rows_in.add(self.subtask, rows.batch.num_rows() as u64);
                    metrics.bytes_in.add(self.subtask, batch_bytes(&rows.batch));
                    let (operator, emitter) = (&mut self.operator, &mut self.emitter);
                    self.timer.time("on_batch", || operator.on_batch(input, rows.batch, emitter))?;
                    for (output, batch) in self.emitter.drain() {
                        let origin = rows.origin.clone().filter(|_| !self.is_stateful);
                        self.tail.emit(output, Rows { batch, origin })?;
                    }
                }
                Received::Mark { advanced, all } => {
                    if let Some((input, time)) = advanced {
                        let (operator, emitter) = (&mut self.operator, &mut self.emitter);
                        self.timer.time("on_watermark", || operator.on_watermark(input, time, emitter))?;
                        for (output, batch) in self.emitter.drain() {
                            self.tail.emit(output, Rows { batch, origin: None })?;
                        }
                    }
                    if let Some(all) = all {
                        let delay = self.operator.watermark_delay();
                        self.tail.mark(all.behind(delay))?;
                    }
                }
            }
        }
        right.flush(&mut self.tail.outputs);
        if self.standing.is_none() && self.operator.next_wakeup().is_some() {
            self.standing = Some(right.retain(self.ports));
        }
        Ok(())
    }

    /// Reports the state at every cut that is due, and takes what is behind it.
    fn cut(&mut self, frontiers: Frontiers<'_>) -> Result<(), OperatorError> {
        while let Some(cut) = self.aligner.next_cut(frontiers) {
            if let Some(checkpoints) = self.job.checkpoints.as_ref().filter(|checkpoints| self.is_stateful && checkpoints.wants(cut)) {
                let operator = &mut self.operator;
                let state = self.timer.time("snapshot", || operator.snapshot(checkpoints.cut(cut)));
                checkpoints.report(cut, self.node, self.subtask, state.map(Into::into));
            }
            while let Some((edge, items, rights)) = self.aligner.next_held() {
                self.take(edge, &Right::Kept(&rights), items)?;
            }
        }
        Ok(())
    }

    /// Calls the operator if its time has come, and sees to it that this runs again when it comes next.
    fn watch_clock(&mut self, frontiers: Frontiers<'_>) -> Result<(), OperatorError> {
        let (Some(rights), Some(frontier)) = (&mut self.standing, earliest(frontiers)) else {
            self.standing = None;
            return Ok(());
        };
        rights.iter_mut().filter(|right| *right.time() < frontier).for_each(|right| right.downgrade(&frontier));
        let now = now();
        if self.operator.next_wakeup().is_some_and(|due| due <= now) {
            let (operator, emitter) = (&mut self.operator, &mut self.emitter);
            self.timer.time("on_processing_time", || operator.on_processing_time(now, emitter))?;
            for (output, batch) in self.emitter.drain() {
                self.tail.emit(output, Rows { batch, origin: None })?;
            }
            self.tail.outputs.flush(rights);
        }
        match self.operator.next_wakeup() {
            Some(due) => self.alarm.set(Duration::from_micros(due.saturating_sub(now).max(0).unsigned_abs())),
            None => self.standing = None,
        }
        Ok(())
    }
}

impl Logic for OperatorHead {
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
        self.watch_clock(frontiers)?;
        Ok(false)
    }
}
