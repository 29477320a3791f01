//! A source on an engine worker: takes what the reader's thread queued (`runtime::reader`), decodes it, keeps the watermarks of its splits, and emits while its byte
//! budget allows. Its timestamp is the ticker's; its feedback edge tells what has been delivered.

use super::{
    alarm::Alarm,
    aligned::Aligned,
    batch_bytes,
    budget::Budget,
    chunk::{Mark, Origin, Rows},
    guard::{Frontiers, Logic, earliest},
    output::Rights,
    progress::Progress,
    tail::Tail,
    time::{Time, checkpoint},
};
use crate::{
    operator::{END, Emitter, Micros, OperatorError},
    operators::{self, decode::Decode},
    runtime::{calls::CallTimer, job::Job, metrics::Drift, reader::ReaderEvent},
    watermark::SplitWatermarks,
};
use arrow::array::RecordBatch;
use crossbeam_channel::Receiver;
use standpipe_pipeline::plan::{NodeId, Operator};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Instant,
};

/// Bytes that a source emits before the operators behind it get their turn.
const TURN: u64 = 1 << 20;

/// What a source operator is made of.
pub(crate) struct Parts<'a> {
    pub(crate) job: &'a Arc<Job>,
    pub(crate) node: NodeId,
    pub(crate) subtask: u32,
    pub(crate) events: Receiver<ReaderEvent>,
    /// Set by the reader when it wakes this, cleared here before it looks.
    pub(crate) notified: Arc<AtomicBool>,
    pub(crate) tail: Tail,
    pub(crate) alarm: Alarm,
    pub(crate) rights: Rights,
    /// If its splits are not to run far ahead.
    pub(crate) aligned: Option<Aligned>,
}

/// See the module's documentation.
pub(crate) struct SourceHead {
    job: Arc<Job>,
    node: NodeId,
    subtask: u32,
    events: Receiver<ReaderEvent>,
    notified: Arc<AtomicBool>,
    tail: Tail,
    alarm: Alarm,
    /// `None` when nothing follows, not even a checkpoint.
    rights: Option<Rights>,
    /// It gives nothing any more.
    ended: bool,
    progress: Progress,
    decode: Option<Decode>,
    emitter: Emitter,
    splits: SplitWatermarks,
    aligned: Option<Aligned>,
    budget: Budget,
    /// Since when it waits for room in its budget.
    throttled: Option<Instant>,
    timer: CallTimer,
}

impl SourceHead {
    pub(crate) fn new(parts: Parts<'_>) -> Result<Self, OperatorError> {
        let Parts { job, node, subtask, events, notified, tail, alarm, rights, aligned } = parts;
        let description = job.node(node);
        let Operator::Source(source) = &description.operator else {
            return Err(OperatorError::Data { node: description.path.clone(), message: "is no source".to_owned() });
        };
        Ok(Self {
            job: Arc::clone(job),
            node,
            subtask,
            events,
            notified,
            tail,
            alarm,
            rights: Some(rights),
            ended: false,
            progress: Progress::default(),
            decode: operators::decode(description, source)?,
            emitter: Emitter::default(),
            splits: SplitWatermarks::new(source.event_time.as_ref()),
            aligned,
            budget: Budget::new(job.plan.settings.in_flight_bytes),
            throttled: None,
            timer: CallTimer::new(job, node, subtask),
        })
    }

    fn time(&self) -> Option<Time> {
        self.rights.as_ref().and_then(|rights| rights.first()).map(|right| *right.time())
    }

    /// Takes the ticker's time as its own, and notes what has left the dataflow.
    fn keep_time(&mut self, frontiers: Frontiers<'_>) {
        let before = self.budget.in_flight();
        self.budget.release(earliest(frontiers));
        let released = before - self.budget.in_flight();
        if released > 0 {
            self.job.node_metrics(self.node).in_flight_bytes.fetch_sub(released as i64, SeqCst);
        }
        let tick = self.job.ticker.current();
        if let Some(checkpoints) = self.job.checkpoints.as_ref().filter(|_| self.rights.is_some()) {
            if checkpoints.over() {
                self.rights = None;
                return;
            }
            let cut = checkpoint(tick);
            if self.time().is_some_and(|time| checkpoint(time) < cut) && checkpoints.wants(cut) {
                checkpoints.report(cut, self.node, self.subtask, self.progress.report(&self.job.node(self.node).path, &self.splits));
            }
        }
        let rights = self.rights.iter_mut().flatten();
        rights.filter(|right| *right.time() < tick).for_each(|right| right.downgrade(&tick));
    }

    /// Decodes rows and sends them through the chain.
    fn rows(&mut self, batch: RecordBatch, origin: &Arc<Origin>, hint: Option<Micros>) -> Result<u64, OperatorError> {
        let metrics = self.job.node_metrics(self.node);
        let read = batch_bytes(&batch);
        metrics.rows_in.add(self.subtask, batch.num_rows() as u64);
        metrics.bytes_in.add(self.subtask, read);
        match &mut self.decode {
            Some(decode) => {
                let emitter = &mut self.emitter;
                self.timer.time("decode", || decode.decode(&origin.split, &batch, emitter))?;
            }
            None => self.emitter.emit(0, batch),
        }
        let mut emitted = 0;
        let mut emitter = std::mem::take(&mut self.emitter);
        for (output, batch) in emitter.drain() {
            if output == 0 {
                self.splits.rows(&origin.split, &batch, Instant::now()).map_err(|message| self.data_error(message))?;
            }
            emitted += batch_bytes(&batch);
            self.tail.emit(output, Rows { batch, origin: Some(Arc::clone(origin)) })?;
        }
        self.emitter = emitter;
        if let Some(hint) = hint {
            self.splits.hint(&origin.split, hint, Instant::now());
        }
        Ok(emitted)
    }

    /// A batch without rows: its split has been read up to its end. Nothing of it goes on.
    fn no_rows(&mut self, split: &str, hint: Option<Micros>) {
        let now = Instant::now();
        self.splits.read_up_to_its_end(split, now);
        if let Some(hint) = hint {
            self.splits.hint(split, hint, now);
        }
    }

    fn data_error(&self, message: String) -> OperatorError {
        OperatorError::Data { node: self.job.node(self.node).path.clone(), message }
    }

    /// Sends the watermark as it stands now, if it is new.
    fn mark(&mut self) -> Result<(), OperatorError> {
        let mark = self.splits.current(Instant::now());
        self.tail.mark(mark)
    }

    /// Tells the group how far this subtask is, and holds back what is too far ahead of it.
    fn align(&mut self, now: Instant) {
        let Some(aligned) = &mut self.aligned else { return };
        let mark = self.splits.current(now);
        if aligned.settle(&mut self.splits, Some(mark.time).filter(|_| !mark.idle), now) {
            self.alarm.again();
        }
        self.job.node_metrics(self.node).set_drift(self.subtask, aligned.drift(&self.splits));
    }

    /// Ends this subtask's output.
    fn end(&mut self, complete: bool) -> Result<(), OperatorError> {
        if complete {
            if self.job.draining() {
                self.progress.drained();
            }
            self.tail.mark(Mark { time: END, idle: false, holder: None })?;
        }
        self.ship();
        self.ended = true;
        if let Some(aligned) = &self.aligned {
            aligned.ended();
            self.job.node_metrics(self.node).set_drift(self.subtask, Drift::default());
        }
        match &self.job.checkpoints {
            // There is one more, of this end.
            Some(checkpoints) => checkpoints.ended(self.node, self.subtask),
            None => self.rights = None,
        }
        Ok(())
    }

    fn ship(&mut self) {
        if let Some(rights) = &self.rights {
            self.tail.outputs.flush(rights);
        }
    }

    /// Takes events while there is room. True: there may be more.
    fn take(&mut self) -> Result<bool, OperatorError> {
        let mut turn = 0;
        while turn < TURN {
            let Some(time) = self.time() else { return Ok(false) };
            if self.budget.is_spent() {
                self.throttle(true);
                return Ok(false);
            }
            if self.ended {
                return Ok(false);
            }
            let event = match &mut self.aligned {
                Some(aligned) => aligned.next(&mut self.splits, &self.events),
                None => self.events.try_recv().ok(),
            };
            // There is none, or the reader's thread has failed, and with it the job.
            let Some(event) = event else { return Ok(false) };
            match event {
                ReaderEvent::Rows { batch, origin, watermark } if batch.num_rows() == 0 => {
                    self.progress.taken(&origin.split, &origin.upto);
                    self.no_rows(&origin.split, watermark);
                }
                ReaderEvent::Rows { batch, origin, watermark } => {
                    let bytes = self.rows(batch, &origin, watermark)?;
                    self.progress.taken(&origin.split, &origin.upto);
                    self.mark()?;
                    turn += bytes.max(1);
                    self.budget.spend(time, bytes);
                    self.job.node_metrics(self.node).in_flight_bytes.fetch_add(bytes as i64, SeqCst);
                    self.job.ticker.emitted();
                }
                ReaderEvent::Assigned(splits) => {
                    self.progress.assigned(&splits);
                    self.splits.assigned(splits.into_iter().map(|split| (split.split, split.watermark)));
                }
                ReaderEvent::Idle => self.splits.nothing_to_read(Instant::now()),
                ReaderEvent::Removed(splits) => splits.iter().for_each(|split| {
                    self.splits.ended(split);
                    self.progress.removed(split);
                }),
                ReaderEvent::EndOfSplit(split) => {
                    self.splits.ended(&split);
                    self.progress.ended(split);
                }
                ReaderEvent::End { complete } => {
                    self.end(complete)?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Notes that it waits for room, or that it does not.
    fn throttle(&mut self, throttled: bool) {
        match (self.throttled, throttled) {
            (None, true) => {
                self.throttled = Some(Instant::now());
                self.job.throttle(true);
                self.job.node_metrics(self.node).set_waiting(self.subtask, true);
            }
            (Some(since), false) => {
                self.throttled = None;
                self.job.throttle(false);
                self.job.node_metrics(self.node).set_waiting(self.subtask, false);
                // What was not taken was not missing.
                self.splits.not_taken_for(since.elapsed());
            }
            _ => {}
        }
    }
}

impl Drop for SourceHead {
    fn drop(&mut self) {
        self.throttle(false);
    }
}

impl Logic for SourceHead {
    fn run(&mut self, frontiers: Frontiers<'_>) -> Result<bool, OperatorError> {
        self.notified.store(false, SeqCst);
        self.keep_time(frontiers);
        if !self.budget.is_spent() {
            self.throttle(false);
        }
        if let Some(aligned) = self.aligned.as_mut().filter(|_| self.job.stopping()) {
            aligned.free();
        }
        let more = self.take()?;
        if self.rights.is_some() && !self.ended && self.throttled.is_none() {
            self.mark()?;
            let now = Instant::now();
            self.align(now);
            if let Some(due) = self.splits.next_change(now) {
                self.alarm.set(due - now);
            }
        }
        self.ship();
        if more {
            self.alarm.again();
        }
        if let Some(time) = self.time()
            && self.budget.wants_tick(time)
        {
            self.job.ticker.advance(time);
        }
        Ok(false)
    }
}
