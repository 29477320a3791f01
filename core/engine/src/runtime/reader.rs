//! The thread of a source subtask: it calls the plugin's reader and hands what it gives to the source's operator (`dataflow::source`) in a short bounded queue. A
//! full queue is the backpressure: the reader is not polled then. It lives until the whole job has ended, because only then its positions may be committed upstream.

use super::{
    calls::CallTimer,
    checkpoints::splits::ReadSplit,
    error::{JobError, Phase},
    host::InstanceHost,
    job::Job,
    metrics::SplitLag,
    retry::Retry,
    steps::Step,
};
use crate::{dataflow::chunk::Origin, operator::Micros};
use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select};
use hashbrown::{HashMap, HashSet};
use standpipe_isolation::Reader;
use standpipe_loader::{CloseReason, Error, ErrorCode, PluginError, Polled, SplitPosition};
use standpipe_pipeline::plan::{NodeId, Operator};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// A split to read, and how far event time has come in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) split: SplitPosition,
    pub(crate) time: Micros,
}

/// What a reader is told, by the enumerator's thread and by the job.
#[derive(Debug)]
pub(crate) enum ReaderCommand {
    /// Read these too. Empty: there are none for it yet.
    Assign(Vec<Assignment>),
    /// These are gone.
    Revoke(Vec<String>),
    /// No split will ever be added.
    NoMoreSplits,
    /// These splits are too far ahead in event time, and these are not any more.
    Align { pause: Vec<Arc<str>>, resume: Vec<Arc<str>> },
    /// Something has changed: look.
    Wake,
    /// The checkpoint is durable with these positions, and sinks have committed it.
    Committed { checkpoint: u64, positions: Vec<(String, Vec<u8>)> },
    /// The dataflow has ended, and so does the thread.
    Close {
        /// Why.
        reason: CloseReason,
        /// All that was read has been delivered, and no state holds any of it: its positions may be committed.
        commit: bool,
    },
}

/// What a reader's thread tells the operator, in order.
#[derive(Debug)]
pub(crate) enum ReaderEvent {
    /// These splits will be read by this subtask, from there on.
    Assigned(Vec<ReadSplit>),
    /// These will not be read any more.
    Removed(Vec<Arc<str>>),
    /// Rows of a split; none: it has been read up to its end, and there is nothing in it now.
    Rows { batch: RecordBatch, origin: Arc<Origin>, watermark: Option<Micros> },
    /// There is nothing to read now, in any split; told once until there is something again.
    Idle,
    /// That split has been read to its end.
    EndOfSplit(Arc<str>),
    /// Nothing follows. `complete`: because all has been read, or as if it had.
    End { complete: bool },
}

/// Batches that wait for the operator.
pub(crate) const QUEUE: usize = 4;
/// How long a call of an idle reader may last, so that it hears of a stop soon.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// The operator's end of the queue.
pub(crate) struct EventSender {
    pub(crate) queue: Sender<ReaderEvent>,
    /// Set when the operator is woken, cleared by it before it looks.
    pub(crate) notified: Arc<AtomicBool>,
    pub(crate) wake: Box<dyn Fn() + Send>,
}

impl EventSender {
    fn notify(&self) {
        if !self.notified.swap(true, SeqCst) {
            (self.wake)();
        }
    }
}

/// Starts the thread.
pub(crate) fn spawn(
    job: &Arc<Job>,
    node: NodeId,
    subtask: u32,
    commands: (Sender<ReaderCommand>, Receiver<ReaderCommand>),
    events: EventSender,
) {
    let shared = Arc::clone(job);
    let (sender, commands) = commands;
    job.on_change({
        let sender = sender.clone();
        move || drop(sender.send(ReaderCommand::Wake))
    });
    job.spawn("source", node, subtask, move || {
        let woken = Arc::new(AtomicBool::new(false));
        let host = InstanceHost::new(Arc::clone(&shared), node, subtask, {
            let woken = Arc::clone(&woken);
            move || {
                if !woken.swap(true, SeqCst) {
                    drop(sender.send(ReaderCommand::Wake));
                }
            }
        });
        let timer = CallTimer::new(&shared, node, subtask);
        let mut thread = ReaderThread {
            phase: Phase::Start,
            timer,
            retry: Retry::new(&shared, node),
            node,
            commands,
            events,
            woken,
            splits: HashMap::new(),
            paused: HashSet::new(),
            cannot_pause: false,
            positions: HashMap::new(),
            more_splits: true,
            idle: false,
            empty_batches: 0,
            close: None,
            job: Arc::clone(&shared),
        };
        thread.run(Arc::new(host), subtask).map_err(|error| JobError::new(&shared.node(node).path, thread.phase, error))
    });
}

struct ReaderThread {
    job: Arc<Job>,
    node: NodeId,
    phase: Phase,
    timer: CallTimer,
    retry: Retry,
    commands: Receiver<ReaderCommand>,
    events: EventSender,
    /// A wake-up by the plugin waits in `commands`.
    woken: Arc<AtomicBool>,
    /// Splits that are being read.
    splits: HashMap<Arc<str>, Option<Arc<[u8]>>>,
    /// Those of them that are not read for now. When that is all, the plugin is not called.
    paused: HashSet<Arc<str>>,
    /// The plugin has said that it cannot.
    cannot_pause: bool,
    /// The position after the last row that was handed over, of every split ever read.
    positions: HashMap<Arc<str>, Arc<[u8]>>,
    more_splits: bool,
    /// The operator knows that there is nothing to read.
    idle: bool,
    /// Batches without rows since the last that had some.
    empty_batches: usize,
    close: Option<(CloseReason, bool)>,
}

impl ReaderThread {
    fn run(&mut self, host: Arc<InstanceHost>, subtask: u32) -> Result<(), PluginError> {
        let job = Arc::clone(&self.job);
        let Operator::Source(source) = &job.node(self.node).operator else { return Ok(()) };
        let context = job.context(self.node, subtask);
        let mut reader = job.maker(self.node, &source.config, &context, host).reader(&source.kind)?;
        let read = self.timer.time("open", || reader.open()).and_then(|()| {
            job.opened_plugin(self.node);
            self.read(&mut reader)
        });
        if read.is_ok() {
            self.wait_for_close(&mut reader);
        }
        let (reason, commit) = self.close.unwrap_or((CloseReason::Failed, false));
        if commit && read.is_ok() && !self.positions.is_empty() {
            let positions: Vec<_> = self.positions.iter().map(|(split, position)| (split.to_string(), position.to_vec())).collect();
            self.commit(&mut reader, 0, &positions);
        }
        if let Err(error) = reader.close(reason) {
            tracing::warn!(job = %job.options.job_id, operator = %job.node(self.node).path, subtask, "{error}");
        }
        read
    }

    /// Polls until all is read or the job stops.
    fn read(&mut self, reader: &mut Reader) -> Result<(), PluginError> {
        let settings = &self.job.plan.settings;
        let (rows, flush) = (settings.batch_rows, settings.flush_interval.clamp(Duration::from_millis(1), LONGEST_WAIT));
        let bytes = (settings.in_flight_bytes / 8).clamp(64 << 10, 8 << 20);
        let mut wait = flush;
        let mut lag_due = Instant::now() + LAG_INTERVAL;
        loop {
            self.obey_all(reader)?;
            if self.given_up() {
                return Ok(());
            }
            if self.job.stopping() {
                return self.send(reader, ReaderEvent::End { complete: self.job.draining() }).map(drop);
            }
            if self.splits.is_empty() {
                if !self.more_splits {
                    return self.send(reader, ReaderEvent::End { complete: true }).map(drop);
                }
                self.obey_next(reader, None)?;
                continue;
            }
            if Instant::now() >= lag_due {
                lag_due = Instant::now() + LAG_INTERVAL;
                self.report_lag(reader);
            }
            if self.paused.len() == self.splits.len() {
                self.obey_next(reader, Some(lag_due.saturating_duration_since(Instant::now())))?;
                continue;
            }
            let (polled, took) = self.timer.watch("poll", || reader.poll(rows, bytes, wait));
            if polled.is_ok() {
                self.retry.succeeded();
                self.phase = Phase::Running;
            }
            match polled {
                Ok(Polled::Batch { split, batch, position, watermark }) => {
                    self.timer.busy(took);
                    let rows = batch.num_rows();
                    self.hand_over(reader, &split, batch, position, watermark)?;
                    if rows > 0 {
                        (wait, self.empty_batches) = (flush, 0);
                    } else if self.all_are_empty() {
                        // As with `Idle`.
                        self.obey_next(reader, Some(wait.saturating_sub(took)))?;
                        wait = (wait * 2).min(LONGEST_WAIT);
                    }
                }
                Ok(Polled::EndOfSplit(split)) => {
                    let split: Arc<str> = split.into();
                    self.splits.remove(&split);
                    self.paused.remove(&split);
                    self.job.node_metrics(self.node).remove_lag(&split);
                    self.send(reader, ReaderEvent::EndOfSplit(split))?;
                }
                Ok(Polled::Idle) => {
                    if !std::mem::replace(&mut self.idle, true) {
                        self.send(reader, ReaderEvent::Idle)?;
                    }
                    // A reader that does not wait itself must not spin.
                    self.obey_next(reader, Some(wait.saturating_sub(took)))?;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                Err(error) => {
                    let wait = self.retry.failed(error)?;
                    self.obey_next(reader, Some(wait))?;
                }
            }
        }
    }

    /// Whether the job has no use for this thread any more.
    fn given_up(&self) -> bool {
        self.job.cancelled() || self.close.is_some()
    }

    /// Counts a batch without rows. True: all splits may have given one since the last row.
    fn all_are_empty(&mut self) -> bool {
        self.empty_batches += 1;
        self.empty_batches >= self.splits.len() - self.paused.len()
    }

    fn hand_over(
        &mut self,
        reader: &mut Reader,
        split: &str,
        batch: RecordBatch,
        position: Vec<u8>,
        watermark: Option<Micros>,
    ) -> Result<(), PluginError> {
        let Some((split, after)) = self.splits.get_key_value(split).map(|(split, after)| (Arc::clone(split), after.clone())) else {
            tracing::warn!(job = %self.job.options.job_id, operator = %self.job.node(self.node).path, split, "rows of a split that is not assigned are dropped");
            return Ok(());
        };
        if self.paused.contains(&split) {
            return Err(reader.error(Error::data(format!("gives rows of the split {split:?}, which it was told to pause"))));
        }
        // That there is nothing of one split is no news of the others.
        self.idle &= batch.num_rows() == 0;
        let upto: Arc<[u8]> = position.into();
        let origin = Arc::new(Origin { split: Arc::clone(&split), after, upto: Arc::clone(&upto) });
        if self.send(reader, ReaderEvent::Rows { batch, origin, watermark })? {
            // While the queue was full it may have been taken away.
            if let Some(after) = self.splits.get_mut(&split) {
                *after = Some(Arc::clone(&upto));
            }
            self.positions.insert(split, upto);
        }
        Ok(())
    }

    /// Puts an event into the queue, obeying commands while it is full. False: the job has no use for it any more.
    fn send(&mut self, reader: &mut Reader, event: ReaderEvent) -> Result<bool, PluginError> {
        let mut event = event;
        loop {
            event = match self.events.queue.try_send(event) {
                Ok(()) => {
                    self.events.notify();
                    return Ok(true);
                }
                Err(full) if full.is_disconnected() => return Ok(false),
                Err(full) => full.into_inner(),
            };
            if self.given_up() {
                return Ok(false);
            }
            let (queue, commands) = (self.events.queue.clone(), self.commands.clone());
            select! {
                send(queue, event) -> sent => {
                    self.events.notify();
                    return Ok(sent.is_ok());
                }
                recv(commands) -> command => match command {
                    Ok(command) => self.obey(reader, command)?,
                    Err(_) => return Ok(false),
                },
            }
        }
    }

    fn obey_all(&mut self, reader: &mut Reader) -> Result<(), PluginError> {
        while let Ok(command) = self.commands.try_recv() {
            self.obey(reader, command)?;
        }
        Ok(())
    }

    /// Waits for a command.
    fn obey_next(&mut self, reader: &mut Reader, at_most: Option<Duration>) -> Result<(), PluginError> {
        let command = match at_most {
            Some(at_most) => self.commands.recv_timeout(at_most),
            None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        command.map_or(Ok(()), |command| self.obey(reader, command))
    }

    fn obey(&mut self, reader: &mut Reader, command: ReaderCommand) -> Result<(), PluginError> {
        match command {
            ReaderCommand::Assign(assignments) => self.assign(reader, assignments)?,
            ReaderCommand::Revoke(splits) => {
                let ours: Vec<String> = splits.into_iter().filter(|s| self.splits.contains_key(s.as_str())).collect();
                if !ours.is_empty() {
                    reader.unassign(&ours)?;
                    let gone: Vec<Arc<str>> = ours.iter().map(|s| s.as_str().into()).collect();
                    gone.iter().for_each(|split| {
                        drop(self.splits.remove(split));
                        self.paused.remove(split);
                        self.job.node_metrics(self.node).remove_lag(split);
                    });
                    self.send(reader, ReaderEvent::Removed(gone))?;
                }
            }
            ReaderCommand::NoMoreSplits => self.more_splits = false,
            ReaderCommand::Align { pause, resume } => {
                self.resume(reader, &resume)?;
                self.pause(reader, pause)?;
            }
            ReaderCommand::Wake => self.woken.store(false, SeqCst),
            ReaderCommand::Committed { checkpoint, positions } => self.commit(reader, checkpoint, &positions),
            ReaderCommand::Close { reason, commit } => self.close = Some((reason, commit)),
        }
        Ok(())
    }

    fn assign(&mut self, reader: &mut Reader, assignments: Vec<Assignment>) -> Result<(), PluginError> {
        let read = |assignment: &Assignment| ReadSplit {
            split: assignment.split.split.as_str().into(),
            position: assignment.split.position.as_deref().map(Into::into),
            watermark: assignment.time,
            ended: false,
        };
        let told: Vec<ReadSplit> = assignments.iter().map(read).collect();
        let splits: Vec<SplitPosition> = assignments.into_iter().map(|assignment| assignment.split).collect();
        self.idle = false;
        self.splits.extend(told.iter().map(|split| (Arc::clone(&split.split), split.position.clone())));
        if !splits.is_empty() {
            self.timer.time("assign", || reader.assign(&splits))?;
        }
        self.send(reader, ReaderEvent::Assigned(told)).map(drop)
    }

    fn pause(&mut self, reader: &mut Reader, splits: Vec<Arc<str>>) -> Result<(), PluginError> {
        // One that it has given up in the meantime needs none.
        let ours: Vec<Arc<str>> = splits.into_iter().filter(|split| self.splits.contains_key(split)).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = ours.iter().map(|split| split.to_string()).collect();
        self.paused.extend(ours);
        self.read_others();
        if !self.cannot_pause {
            match self.timer.time("pause", || reader.pause(&names)) {
                Err(error) if error.code == ErrorCode::UNSUPPORTED => self.cannot_pause = true,
                paused => return paused,
            }
        }
        if self.paused.len() == self.splits.len() {
            return Ok(());
        }
        let job = Arc::clone(&self.job);
        let path = &job.node(self.node).path;
        let why = "a subtask reads several splits of it: write as much parallelism as it has splits, or no max_drift";
        Err(reader.error(Error::unsupported(format!("cannot pause a split ({path}.event_time.max_drift) while {why}"))))
    }

    fn resume(&mut self, reader: &mut Reader, splits: &[Arc<str>]) -> Result<(), PluginError> {
        let ours: Vec<String> = splits.iter().filter(|split| self.paused.remove(*split)).map(|split| split.to_string()).collect();
        if ours.is_empty() {
            return Ok(());
        }
        self.read_others();
        if self.cannot_pause { Ok(()) } else { self.timer.time("resume", || reader.resume(&ours)) }
    }

    /// What was said of nothing being there was said of other splits than those that are read from now on.
    const fn read_others(&mut self) {
        (self.idle, self.empty_batches) = (false, 0);
    }

    /// After the end: nothing but what is durable and the job's end matters.
    fn wait_for_close(&mut self, reader: &mut Reader) {
        while self.close.is_none() {
            match self.commands.recv() {
                Ok(ReaderCommand::Close { reason, commit }) => self.close = Some((reason, commit)),
                Ok(ReaderCommand::Committed { checkpoint, positions }) => self.commit(reader, checkpoint, &positions),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn commit(&self, reader: &mut Reader, checkpoint: u64, positions: &[(String, Vec<u8>)]) {
        self.job.reached(Step::Upstream, checkpoint);
        if let Err(error) = self.timer.time("checkpoint_committed", || reader.checkpoint_committed(checkpoint, positions)) {
            let operator = &self.job.node(self.node).path;
            tracing::warn!(job = %self.job.options.job_id, %operator, "positions are not committed upstream: {error}");
        }
        self.job.reached(Step::Done, checkpoint);
    }

    fn report_lag(&self, reader: &mut Reader) {
        let metrics = self.job.node_metrics(self.node);
        for lag in reader.lag() {
            metrics.set_lag(lag.split, SplitLag { records: lag.records, millis: lag.millis });
        }
    }
}
