//! The coordinator's thread: it tells the decisions of [`Coordinator`] what happens, and does what they say. One per job; where a job has several processes, in the first.

use super::{
    Checkpoints, Message, Report, plugins,
    restore::operator_name,
    savepoint::{Reply, SavepointError, When},
    spans::{About, Collecting},
    splits::Positions,
    tables_of,
    write::{self, Work},
};
use crate::{
    cluster::frame::Frame,
    dataflow::time::CheckpointId,
    operator::Snapshot,
    runtime::{
        error::{Cause, JobError, Phase},
        host,
        job::Job,
        metrics::PastCheckpoint,
        peers::Reach,
        reader::ReaderCommand,
    },
};
use crossbeam_channel::{Receiver, Sender, after, never, select};
use standpipe_checkpoint::{
    CheckpointError, FileRef, Kind, Manifest, NodeState, PluginUsed,
    coordinator::{Action, Coordinator, Event, Micros, Part, Reason, Settings},
    manifest::FORMAT,
};
use standpipe_pipeline::plan::{Node, NodeId, Operator};
use standpipe_state::Base;
use standpipe_trace::Span;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// A store that does not take one is not asked again at once.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How to reach the readers of each source.
pub(crate) type Readers = Vec<(NodeId, Vec<Reach>)>;

/// Starts the thread, if the job takes checkpoints.
pub(crate) fn spawn(job: &Arc<Job>, readers: Readers) {
    let Some(inbox) = job.checkpoints.as_ref().and_then(|checkpoints| checkpoints.inbox.lock().take()) else { return };
    let (shared, writer) = (Arc::clone(job), write::spawn(job));
    let changed = Arc::downgrade(job);
    job.on_change(move || {
        if let Some(job) = changed.upgrade()
            && let Some(checkpoints) = &job.checkpoints
        {
            checkpoints.tell(Message::Changed);
        }
    });
    job.spawn_engine("checkpoints", move || {
        if let Some(checkpoints) = &shared.checkpoints {
            let mut thread = Thread::new(&shared, checkpoints, readers, writer);
            thread.run(&inbox);
            thread.leave();
        }
    });
}

/// What has come of the checkpoint that is being collected.
struct Collected {
    id: u64,
    kind: Kind,
    begun: Instant,
    triggered: i64,
    /// By path of the node.
    nodes: BTreeMap<String, NodeState>,
    /// Who waits for it, if it is a savepoint.
    wanted: Vec<(Reply, When)>,
    /// A source had been drained at the cut.
    drained: bool,
    /// Its manifest is on its way.
    complete: bool,
    spans: Collecting,
}

impl Collected {
    /// For people: it is durable now, or given up.
    fn past(&self, bytes: u64, written: u64, trouble: Option<String>) -> PastCheckpoint {
        let (id, is_savepoint) = (self.id, self.kind == Kind::Savepoint);
        PastCheckpoint { id, is_savepoint, triggered_micros: self.triggered, took: self.begun.elapsed(), bytes, written, trouble }
    }
}

struct Thread<'a> {
    job: &'a Arc<Job>,
    checkpoints: &'a Checkpoints,
    readers: Readers,
    writer: Sender<Work>,
    opened: bool,
    /// Once the first interval has begun.
    coordinator: Option<Coordinator>,
    clock: Instant,
    collected: Option<Collected>,
    /// The newest durable checkpoint, if nothing else may have become the newest since: on it the next one builds.
    base: Option<u64>,
    /// Of checkpoints that are durable and not committed upstream: the whole, and the commit.
    committing: BTreeMap<u64, (Span, Span)>,
    /// By checkpoint that is not committed upstream.
    positions: BTreeMap<u64, Vec<(NodeId, u32, Positions)>>,
    /// Of those that were given up, until there is a next one: a split that has ended is in one alone.
    carried: BTreeMap<(NodeId, u32), BTreeMap<String, Vec<u8>>>,
    /// Source subtasks that have not ended.
    reading: BTreeSet<(NodeId, u32)>,
    /// Who waits for a savepoint that has not begun, and for which.
    wanted: Vec<(Reply, When)>,
    /// Since when a last checkpoint has failed that a stop waits for.
    stopping: Option<Instant>,
    over: bool,
    /// For manifests.
    plugins: BTreeMap<String, PluginUsed>,
}

impl<'a> Thread<'a> {
    fn new(job: &'a Arc<Job>, checkpoints: &'a Checkpoints, readers: Readers, writer: Sender<Work>) -> Self {
        let subtasks = |(node, subtasks): &(NodeId, Vec<_>)| (0..subtasks.len() as u32).map(|i| (*node, i)).collect::<Vec<_>>();
        let reading = readers.iter().flat_map(subtasks).collect();
        let (positions, clock) = (BTreeMap::new(), Instant::now());
        Self {
            job,
            checkpoints,
            readers,
            writer,
            opened: false,
            coordinator: None,
            clock,
            collected: None,
            base: None,
            committing: BTreeMap::new(),
            positions,
            carried: BTreeMap::new(),
            reading,
            wanted: Vec::new(),
            stopping: None,
            over: false,
            plugins: plugins::used(&job.plan),
        }
    }

    /// Until the last checkpoint is committed or the job is given up.
    fn run(&mut self, inbox: &Receiver<Message>) {
        let cancelled = self.job.cancel_signal();
        while !self.over {
            let wait = self.coordinator.as_ref().and_then(Coordinator::deadline).map(|due| due.saturating_sub(self.now()).max(0));
            let due = wait.map_or_else(never, |micros| after(Duration::from_micros(micros.unsigned_abs())));
            select! {
                recv(inbox) -> message => match message {
                    Ok(message) => self.take(message),
                    Err(_) => return,
                },
                recv(due) -> _ => {
                    let now = self.now();
                    let actions = self.coordinator.as_mut().map(|coordinator| coordinator.wake(now));
                    self.act(actions.unwrap_or_default());
                }
                recv(cancelled) -> _ => return,
            }
        }
    }

    /// What is collected is for nothing, and what is not committed is left to the next start.
    fn leave(self) {
        if let Some(collected) = self.collected {
            collected.spans.give_up("the job has ended");
        }
        for (_, mut commit) in self.committing.into_values() {
            commit.fail("the job has ended before all of it was committed");
        }
    }

    fn now(&self) -> Micros {
        micros(self.clock.elapsed())
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Opened => {
                self.opened = true;
                self.begin_if_ready();
            }
            Message::Found => self.begin_if_ready(),
            Message::Reported(id, node, subtask, report) => self.reported(id, node, subtask, report),
            Message::Positions(id, node, subtask, positions) => self.note_positions(id, node, subtask, positions),
            Message::Drained(id) => self.note_drained(id),
            // What is cut off in the middle goes on from before.
            Message::Changed if self.job.draining() => self.on(Event::Draining),
            Message::Changed => {}
            Message::Failed(id, reason) => self.on(Event::PartFailed(id, reason)),
            Message::Written(id, part, Ok(files)) => self.written(id, part, files),
            Message::Written(id, _, Err(error)) => self.on(Event::PartFailed(id, error.to_string())),
            Message::Manifest(id, Ok(())) => {
                self.durable(id);
                self.on(Event::Written(id));
            }
            Message::Manifest(_, Err(error @ CheckpointError::Fenced { .. })) => self.fail(Cause::Superseded(error.to_string())),
            Message::Manifest(id, Err(error)) => self.on(Event::WriteFailed(id, error.to_string())),
            Message::Committed(id, node, subtask) => self.on(Event::Committed(id, Part::Subtask(node.0, subtask))),
            Message::Ended(node, subtask) => {
                self.reading.remove(&(node, subtask));
                if self.reading.is_empty() {
                    self.on(Event::Ending);
                }
            }
            Message::Wanted(reply, when) => {
                self.wanted.push((reply, when));
                if when != When::Stopped {
                    self.on(Event::Requested);
                }
            }
            // What a coordinator says.
            Message::Newest(_) | Message::Over => {}
        }
    }

    /// Begins the first interval once all plugins are open and all enumerators have something to remember.
    fn begin_if_ready(&mut self) {
        let found = self.checkpoints.enumerators.lock().len();
        if self.opened && found == self.readers.len() && self.coordinator.is_none() {
            self.begin();
        }
    }

    /// The nodes that take part, with how many subtasks they have.
    fn nodes_with_state(&self) -> impl Iterator<Item = (NodeId, u32)> + use<'a> {
        let plan = &self.job.plan;
        plan.nodes.iter().filter(|node| operator_name(&node.operator).is_some()).map(|node| (node.id, node.parallelism))
    }

    fn begin(&mut self) {
        let options = &self.checkpoints.options;
        let settings = Settings {
            interval: Some(micros(options.interval)),
            min_pause: micros(options.min_pause),
            retry_pause: micros(RETRY_PAUSE),
            timeout: micros(options.timeout),
            tolerated_failures: options.tolerated_failures.unwrap_or(u32::MAX),
        };
        let nodes = || self.job.plan.nodes.iter().filter(|node| operator_name(&node.operator).is_some());
        let subtasks = |node: &Node| (0..node.parallelism).map(|i| Part::Subtask(node.id.0, i)).collect::<Vec<_>>();
        let sources = self.readers.iter().map(|(node, _)| Part::Enumerator(node.0));
        let parts = sources.chain(nodes().flat_map(subtasks));
        let committing = nodes().filter(|node| commits(node)).flat_map(subtasks);
        self.coordinator = Some(Coordinator::new(settings, parts, committing, options.taken_over.first_id, self.now()));
        if self.wanted.iter().any(|(_, when)| *when != When::Stopped) {
            self.on(Event::Requested);
        }
        if self.job.draining() {
            self.on(Event::Draining);
        }
        if self.reading.is_empty() {
            self.on(Event::Ending);
        }
    }

    fn on(&mut self, event: Event) {
        let now = self.now();
        let actions = self.coordinator.as_mut().map(|coordinator| coordinator.on(now, event));
        self.act(actions.unwrap_or_default());
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask(id, reason) => self.ask(id, reason),
                Action::Trigger(id, _) => self.trigger(id),
                Action::Write(id, _) => self.write(id),
                Action::CommitSinks(id) => {
                    self.checkpoints.commit_sinks(id);
                    self.job.tell_others(&Frame::CommitSinks(id));
                }
                Action::CommitUpstream(id) => self.commit_upstream(id),
                Action::GiveUp(id, reason) => self.give_up(id, &reason),
                Action::Fail(reason) => self.fail(Cause::Checkpoint(reason)),
                Action::End => {
                    self.over = true;
                    self.checkpoints.set_over();
                    self.job.tell_others(&Frame::Over);
                    self.job.ticker.wake_sources();
                }
            }
        }
    }

    fn fail(&mut self, cause: Cause) {
        self.over = true;
        self.job.fail(JobError::new("", Phase::Running, cause));
    }

    fn give_up(&mut self, id: u64, reason: &str) {
        tracing::warn!(job = %self.job.options.job_id, "checkpoint {id} is given up: {reason}");
        let begun = self.collected.as_ref().filter(|collected| collected.id == id);
        let past = begun.map(|collected| collected.past(0, 0, Some(reason.to_owned())));
        self.job.metrics.checkpoint_failed(reason, past);
        self.collecting(0);
        for (node, subtask, positions) in self.positions.remove(&id).unwrap_or_default() {
            self.carried.entry((node, subtask)).or_default().extend(positions);
        }
        let mut collected = self.collected.take();
        if let Some(collected) = &mut collected {
            std::mem::take(&mut collected.spans).give_up(reason);
        }
        let in_doubt = collected.as_ref().is_some_and(|collected| collected.complete);
        if in_doubt {
            // It may be there all the same, or come: then the one before it may be removed.
            self.base = None;
        }
        drop(self.writer.send(Work::GivenUp { id, in_doubt }));
        let wanted = collected.map(|collected| collected.wanted).unwrap_or_default();
        // Somebody waits for the last one, whether the sources have stopped or ended.
        let waiting = self.job.stopping() && self.reading.is_empty();
        if !waiting {
            wanted.into_iter().for_each(|(reply, _)| reply.send(Err(SavepointError::GivenUp(reason.to_owned()))));
            return;
        }
        // It is tried again.
        self.wanted.extend(wanted);
        if self.stopping.get_or_insert_with(Instant::now).elapsed() >= self.job.options.stop_patience {
            self.fail(Cause::Checkpoint(format!("stopped without a last checkpoint: {reason}")));
        }
    }

    /// Says what is being collected, in all processes; before any of them can be behind the cut.
    fn collecting(&self, id: u64) {
        self.checkpoints.collecting(id);
        self.job.tell_others(&Frame::Collecting(id));
    }

    /// Takes what the enumerators have found by now.
    fn ask(&mut self, id: u64, reason: Reason) {
        self.collecting(id);
        let carried = std::mem::take(&mut self.carried).into_iter();
        let carried: Vec<_> = carried.map(|((node, subtask), positions)| (node, subtask, positions.into_iter().collect())).collect();
        if !carried.is_empty() {
            self.positions.insert(id, carried);
        }
        let triggered = host::now();
        // Whoever asks from now on is for the next one; who stops the job, for the last.
        let is_for_this = |(_, when): &mut (Reply, When)| match reason {
            Reason::Interval => false,
            Reason::Savepoint => *when != When::Stopped,
            Reason::Last => true,
        };
        let wanted: Vec<(Reply, When)> = self.wanted.extract_if(.., is_for_this).collect();
        let is_savepoint = wanted.iter().any(|(_, when)| *when != When::Checkpoint);
        let kind = if is_savepoint { Kind::Savepoint } else { Kind::Checkpoint };
        let begun = Instant::now();
        // Whoever removes a savepoint need not ask who refers to it, nor whoever moves one what it refers to.
        let base = match (kind, self.base) {
            (Kind::Savepoint, _) => Base::Alone,
            (_, None) => Base::Nothing,
            (_, Some(base)) => Base::Checkpoint(base),
        };
        self.checkpoints.build_on(base);
        self.job.tell_others(&Frame::BuildOn(base.into()));
        let about = About { id, is_savepoint, reason };
        let spans = Collecting::begin(self.job, &about, self.nodes_with_state());
        let nodes = BTreeMap::new();
        self.collected = Some(Collected { id, kind, begun, triggered, nodes, wanted, drained: false, complete: false, spans });
        let sources: Vec<NodeId> = self.readers.iter().map(|(node, _)| *node).collect();
        for source in sources {
            let tables = self.checkpoints.enumerators.lock().get(&source).map(|state| state.tables());
            match tables.transpose() {
                Ok(tables) => self.send(id, source, 0, Part::Enumerator(source.0), tables.unwrap_or_default().into()),
                Err(error) => self.on(Event::PartFailed(id, error.to_string())),
            }
        }
    }

    fn trigger(&mut self, id: u64) {
        if let Some(collected) = self.collected.as_mut().filter(|collected| collected.id == id) {
            collected.spans.triggered(self.job);
        }
        match CheckpointId::new(id) {
            Some(id) => self.job.ticker.enter(id),
            None => self.fail(Cause::Checkpoint(format!("checkpoint {id}: there cannot be so many"))),
        }
    }

    fn reported(&mut self, id: u64, node: NodeId, subtask: u32, report: Report) {
        let Some(collected) = self.collected.as_mut().filter(|collected| collected.id == id) else { return };
        collected.spans.reported(self.job, node, subtask);
        self.note_positions(id, node, subtask, report.positions);
        if report.drained {
            self.note_drained(id);
        }
        self.send(id, node, subtask, Part::Subtask(node.0, subtask), Snapshot { tables: report.tables, rest: report.rest, stored: None });
    }

    fn note_drained(&mut self, id: u64) {
        if let Some(collected) = self.collected.as_mut().filter(|collected| collected.id == id) {
            collected.drained = true;
        }
    }

    /// Keeps positions until they may be committed upstream.
    fn note_positions(&mut self, id: u64, node: NodeId, subtask: u32, positions: Positions) {
        if !positions.is_empty() && self.collected.as_ref().is_some_and(|collected| collected.id == id) {
            self.positions.entry(id).or_default().push((node, subtask, positions));
        }
    }

    /// Gives the tables of a part to the writer.
    fn send(&mut self, id: u64, node: NodeId, subtask: u32, part: Part, state: Snapshot) {
        let (tables, rest) = tables_of(self.job, node, subtask, state);
        // The writer is gone only when the job is given up.
        drop(self.writer.send(Work::Tables(id, part, tables, rest)));
    }

    fn written(&mut self, id: u64, part: Part, files: Vec<(String, FileRef)>) {
        if let Some(collected) = self.collected.as_mut().filter(|collected| collected.id == id) {
            if let Part::Subtask(node, subtask) = part {
                let bytes = files.iter().map(|(_, file)| file).filter(|file| file.checkpoint == id).map(|file| file.bytes).sum();
                collected.spans.written(self.job, NodeId(node), subtask, bytes);
            }
            let (Part::Enumerator(node) | Part::Subtask(node, _)) = part;
            let node = self.job.node(NodeId(node));
            let operator = operator_name(&node.operator).unwrap_or_default().to_owned();
            let fresh = || NodeState { operator, parallelism: node.parallelism, tables: BTreeMap::new() };
            let state = collected.nodes.entry(node.path.clone()).or_insert_with(fresh);
            for (table, file) in files {
                state.tables.entry(table).or_default().push(file);
            }
        }
        self.on(Event::Part(id, part));
    }

    /// All parts are in: the manifest may be created.
    fn write(&mut self, id: u64) {
        let Some(collected) = self.collected.as_mut().filter(|collected| collected.id == id) else { return };
        collected.complete = true;
        collected.spans.manifest();
        let (plan, options) = (&self.job.plan, &self.checkpoints.options);
        let mut nodes = collected.nodes.clone();
        // Subtasks have come in any order.
        nodes.values_mut().flat_map(|node| node.tables.values_mut()).for_each(|files| files.sort_by_key(|file| file.subtask));
        let manifest = Manifest {
            format: FORMAT,
            standpipe: env!("CARGO_PKG_VERSION").to_owned(),
            job: plan.name.clone(),
            job_id: self.job.options.job_id.clone(),
            generation: options.taken_over.generation,
            id,
            kind: collected.kind,
            drained: collected.drained,
            triggered_micros: collected.triggered,
            took_micros: micros(collected.begun.elapsed()),
            plan: format!("{:016x}", plan.hash.0),
            max_parallelism: plan.settings.max_parallelism,
            plugins: self.plugins.clone(),
            nodes,
        };
        drop(self.writer.send(Work::Manifest(Box::new(manifest))));
    }

    /// The manifest is there.
    fn durable(&mut self, id: u64) {
        let Some(collected) = self.collected.take_if(|collected| collected.id == id) else { return };
        let took = collected.begun.elapsed();
        if collected.kind == Kind::Checkpoint {
            self.base = Some(id);
        }
        let files = || collected.nodes.values().flat_map(|node| node.tables.values().flatten());
        let bytes: u64 = files().map(|file| file.bytes).sum();
        let written: u64 = files().filter(|file| file.checkpoint == id).map(|file| file.bytes).sum();
        self.collecting(0);
        self.job.metrics.checkpoint_completed(collected.past(bytes, written, None));
        let millis = took.as_secs_f64() * 1000.0;
        tracing::info!(job = %self.job.options.job_id, checkpoint = id, bytes, written, "checkpoint {id} is durable after {millis:.0} ms");
        let span = collected.spans.durable(bytes, written);
        let commit = span.child("commit");
        self.committing.insert(id, (span, commit));
        collected.wanted.into_iter().for_each(|(reply, _)| reply.send(Ok(id)));
    }

    /// Tells the readers what is durable, and in what sinks have committed.
    fn commit_upstream(&mut self, id: u64) {
        // A commit covers all former ones.
        self.committing = self.committing.split_off(&(id + 1));
        let newer = self.positions.split_off(&(id + 1));
        let Some(positions) = std::mem::replace(&mut self.positions, newer).remove(&id) else { return };
        for (node, subtask, positions) in positions {
            let readers = self.readers.iter().find(|(source, _)| *source == node);
            if let Some(reader) = readers.and_then(|(_, subtasks)| subtasks.get(subtask as usize)) {
                reader.tell(ReaderCommand::Committed { checkpoint: id, positions });
            }
        }
    }
}

/// Whether a node's subtasks commit what they have prepared.
pub(crate) fn commits(node: &Node) -> bool {
    matches!(&node.operator, Operator::Sink(sink) if sink.validation.details.capabilities.transactional)
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}
