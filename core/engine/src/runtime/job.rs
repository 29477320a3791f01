//! What all threads of a job share: its plan and place, whether it is to stop, why it failed, and how to wake whoever sleeps. Workers, source, sink and task threads
//! hold it; [`JobControl`] is the host's end of it.

use super::{
    alignment::Alignments,
    calls::Calls,
    checkpoints::{
        CheckpointOptions, Checkpoints,
        savepoint::{PendingSavepoint, SavepointError, When},
    },
    error::{JobError, Phase},
    metrics::{Metrics, NodeMetrics},
    peers::Peers,
    standstill::Standstill,
    starting::Starting,
    steps::Step,
    tap::{Keep, Tap, TapError, Taps},
    ticker::Ticker,
};
use crate::{
    cluster::{Cluster, frame::Frame},
    dataflow::time::{self, CheckpointId, Tick},
    runtime::error::Cause,
};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};
use standpipe_isolation::{Launcher, Maker};
use standpipe_loader::{HostServices, InstanceContext};
use standpipe_pipeline::{
    placement::Placement,
    plan::{Node, NodeId, Operator, Plan},
};
use standpipe_state::scratch::Scratch;
use standpipe_trace::{Context, Traces};
use std::{
    any::Any,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Resolves a template with references to secrets: its text and a version that changes when it rotates, or why it cannot.
pub type Secrets = Arc<dyn Fn(&str) -> Result<(String, u64), String> + Send + Sync>;

/// How a job is run; what the plan does not say.
#[derive(Clone)]
pub struct RunOptions {
    /// 32 hexadecimal digits.
    pub job_id: String,
    /// How often the job has been started, from 1.
    pub generation: u64,
    /// Asked when a plugin wants a secret.
    pub secrets: Secrets,
    /// Slots of each process, in their order; empty: this one alone, with as many as the plan needs. A slot is an engine worker thread.
    pub slots: Vec<u32>,
    /// The other processes that the job runs in, and which of them this one is; `None`: it runs in this one alone.
    pub cluster: Option<Arc<Cluster>>,
    /// A process of the job that is not heard of for so long has failed.
    pub lease: Duration,
    /// An input that stands still for so long without a known cause is named in log and metrics.
    pub standstill: Duration,
    /// A plugin call that takes longer is named in log and metrics.
    pub call_budget: Duration,
    /// How long a call that fails in a way that may pass is made again after a stop was asked for; then it ends the job. A drain waits for it.
    pub stop_patience: Duration,
    /// A sink that is not given anything for so long after its opening has started: what goes wrong with its first batch then was not missing from the start.
    pub start_period: Duration,
    /// Where checkpoints are taken to; `None`: none are taken.
    pub checkpoints: Option<CheckpointOptions>,
    /// Who is told of the job's start and its checkpoints.
    pub traces: Traces,
    /// The span of the job itself: its start is a part of it, and checkpoints are linked with it.
    pub parent: Option<Context>,
    /// How a process of a plugin is started, of a node with `isolation: process`: this program, by default, which is then to call [`standpipe_isolation::run`].
    pub plugin_process: Launcher,
    /// For tests: at this step of that checkpoint the process ends as if it were killed.
    pub crash_at: Option<(Step, u64)>,
}

impl RunOptions {
    /// For a first start in this process alone, under a new id, without secrets.
    #[must_use]
    pub fn new() -> Self {
        let random = || RandomState::new().hash_one(std::process::id());
        let secrets: Secrets = Arc::new(|reference| Err(format!("there is no secret {reference:?}")));
        let job_id = format!("{:016x}{:016x}", random(), random());
        Self {
            job_id,
            generation: 1,
            secrets,
            slots: Vec::new(),
            cluster: None,
            lease: Duration::from_secs(10),
            standstill: Duration::from_secs(30),
            call_budget: Duration::from_secs(10),
            stop_patience: Duration::from_secs(10),
            start_period: Duration::from_secs(10),
            checkpoints: None,
            traces: Traces::off(),
            parent: None,
            plugin_process: Launcher::this_program(["plugin-process"]),
            crash_at: None,
        }
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        Self::new()
    }
}

const RUNNING: u8 = 0;
const STOPPING: u8 = 1;
const DRAINING: u8 = 2;

type Wake = Box<dyn Fn() + Send + Sync>;

/// See the module's documentation.
pub(crate) struct Job {
    pub(crate) plan: Arc<Plan>,
    pub(crate) options: RunOptions,
    pub(crate) placement: Placement,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ticker: Ticker,
    pub(crate) calls: Calls,
    pub(crate) checkpoints: Option<Checkpoints>,
    /// Of a job whose keyed state is on disk, until it ends.
    pub(crate) scratch: Mutex<Option<Arc<Scratch>>>,
    pub(crate) peers: Option<Peers>,
    pub(crate) standstill: Standstill,
    pub(crate) starting: Starting,
    pub(crate) alignments: Alignments,
    pub(crate) taps: Arc<Taps>,
    /// Source subtasks of this process that wait for room in their byte budget.
    throttled: Mutex<usize>,
    is_throttled: AtomicBool,
    stop: AtomicU8,
    /// Plugins' instances of this process that are not open yet, and workers of it that have not built their dataflow; in the first process, also other processes that have some.
    opening: AtomicUsize,
    stopped_at_start: AtomicBool,
    cancelled: AtomicBool,
    failure: Mutex<Option<JobError>>,
    wakers: Mutex<Vec<Wake>>,
    /// Dropped when the job is given up, which closes `cancel_signal`.
    cancel_guard: Mutex<Option<Sender<()>>>,
    cancel_signal: Receiver<()>,
    threads: Mutex<usize>,
    thread_ended: Condvar,
}

impl Job {
    pub(crate) fn new(plan: Arc<Plan>, options: RunOptions, placement: Placement, peers: Option<Peers>) -> Self {
        let (metrics, taps) = (Arc::new(Metrics::new(&plan)), Arc::new(Taps::new(&plan)));
        let (process, others) = peers.as_ref().map_or((0, 0), |peers| (peers.process, peers.processes as usize - 1));
        let instances: usize = plan.nodes.iter().map(|node| instances(node, &placement, process)).sum();
        let opening = instances + placement.workers_per_process as usize + if process == 0 { others } else { 0 };
        let (cancel_guard, cancel_signal) = bounded(0);
        let checkpoints = options.checkpoints.clone().map(Checkpoints::new);
        let starting = Starting::begin(&options);
        let alignments = Alignments::new(&plan, &placement, process, peers.is_none());
        let start = checkpoints.as_ref().and_then(Checkpoints::before_first).unwrap_or(CheckpointId::NONE);
        Self {
            plan,
            options,
            placement,
            metrics,
            ticker: Ticker::new(time::time(start, Tick::FIRST)),
            calls: Calls::default(),
            checkpoints,
            scratch: Mutex::default(),
            peers,
            standstill: Standstill::default(),
            starting,
            alignments,
            taps,
            throttled: Mutex::new(0),
            is_throttled: AtomicBool::new(false),
            stop: AtomicU8::new(RUNNING),
            opening: AtomicUsize::new(opening),
            stopped_at_start: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            failure: Mutex::default(),
            wakers: Mutex::default(),
            cancel_guard: Mutex::new(Some(cancel_guard)),
            cancel_signal,
            threads: Mutex::new(0),
            thread_ended: Condvar::new(),
        }
    }

    /// Which process of the job this is, from 0.
    pub(crate) fn process(&self) -> u32 {
        self.peers.as_ref().map_or(0, |peers| peers.process)
    }

    /// Whether enumerators, the coordinator and the user's hand are here.
    pub(crate) fn is_first(&self) -> bool {
        self.process() == 0
    }

    /// Tells the other processes, if this is the first of several.
    pub(crate) fn tell_others(&self, frame: &Frame) {
        if let Some(peers) = &self.peers {
            peers.tell_all(frame);
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.plan.node(id)
    }

    pub(crate) fn node_metrics(&self, id: NodeId) -> &NodeMetrics {
        &self.metrics.nodes()[id.0 as usize]
    }

    /// Where a plugin's instance runs.
    pub(crate) fn context(&self, id: NodeId, subtask: u32) -> InstanceContext {
        let node = self.node(id);
        InstanceContext {
            job_id: self.options.job_id.clone(),
            job_name: self.plan.name.clone(),
            node: node.name.clone(),
            subtask,
            parallelism: node.parallelism,
            max_parallelism: self.plan.settings.max_parallelism,
            generation: self.options.generation,
            restored: self.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.options.taken_over.base.is_some()),
        }
    }

    /// What an instance of a node's plugin is made of, where the plan wants it.
    pub(crate) fn maker<'a>(
        &'a self,
        node: NodeId,
        config: &'a serde_json::Value,
        context: &'a InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Maker<'a> {
        Maker { apart: self.node(node).isolation().map(|limits| (&self.options.plugin_process, limits)), config, context, host }
    }

    /// Calls `wake` whenever the job is to stop, is cancelled or fails; at once if that has happened.
    pub(crate) fn on_change(&self, wake: impl Fn() + Send + Sync + 'static) {
        let mut wakers = self.wakers.lock();
        if self.cancelled() || self.stopping() {
            wake();
        }
        wakers.push(Box::new(wake));
    }

    /// A channel on which nothing is ever sent; it closes when the job fails or is cancelled.
    pub(crate) fn cancel_signal(&self) -> Receiver<()> {
        self.cancel_signal.clone()
    }

    fn changed(&self) {
        self.wakers.lock().iter().for_each(|wake| wake());
    }

    /// Ends the job with this cause, if it is the first.
    pub(crate) fn fail(&self, error: JobError) {
        {
            let mut failure = self.failure.lock();
            if self.cancelled.swap(true, SeqCst) {
                drop(failure);
                tracing::debug!(job = %self.options.job_id, operator = %error.node, "after the job ended: {error}");
                return;
            }
            if let Some(peers) = &self.peers {
                peers.given_up(Some(&error));
            }
            *failure = Some(error);
        }
        self.give_up();
    }

    fn give_up(&self) {
        self.ticker.stop();
        drop(self.cancel_guard.lock().take());
        self.changed();
    }

    /// Ends the job with the failure of a node.
    pub(crate) fn fail_node(&self, node: NodeId, phase: Phase, cause: impl Into<Cause>) {
        self.fail(JobError::new(&self.node(node).path, phase, cause));
    }

    /// Ends the job because code of the node panicked.
    pub(crate) fn fail_panic(&self, node: NodeId, panic: &(dyn Any + Send)) {
        let path = self.node(node).path.clone();
        self.fail_node(node, Phase::Running, Cause::Panic { node: path, message: panic_message(panic) });
    }

    /// Ends the job at once, without a failure.
    pub(crate) fn cancel(&self) {
        if !self.cancelled.swap(true, SeqCst) {
            if let Some(peers) = &self.peers {
                peers.given_up(None);
            }
            self.give_up();
        }
    }

    /// Failed or cancelled: whatever runs gives up.
    pub(crate) fn cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    pub(crate) fn failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// The node that has failed, and what happened, for the log.
    pub(crate) fn why_failed(&self) -> Option<(String, String)> {
        self.failure.lock().as_ref().map(|error| (error.node.clone(), error.to_string()))
    }

    pub(crate) fn take_failure(&self) -> Option<JobError> {
        self.failure.lock().take()
    }

    /// Sources are to stop; with `drain` open windows fire. Whether all plugins of the job are open the first process knows.
    pub(crate) fn stop(&self, drain: bool) {
        let wanted = if drain { DRAINING } else { STOPPING };
        if self.stop.compare_exchange(RUNNING, wanted, SeqCst, SeqCst).is_err() {
            return;
        }
        self.changed();
        self.tell_others(&Frame::Stop { drain });
        if self.is_first() && self.opening.load(SeqCst) > 0 {
            self.stopped_at_start.store(true, SeqCst);
            self.cancel();
        }
    }

    /// A source subtask of this process begins or ends to wait for room in its byte budget.
    pub(crate) fn throttle(&self, waits: bool) {
        // Held while others are told, so that they hear of it in its order.
        let mut throttled = self.throttled.lock();
        let before = *throttled;
        *throttled = if waits { before + 1 } else { before.saturating_sub(1) };
        if (before > 0) != (*throttled > 0) {
            self.is_throttled.store(*throttled > 0, SeqCst);
            if let Some(peers) = &self.peers {
                peers.throttled(*throttled > 0);
            }
        }
    }

    /// Whether a source subtask, in any process, waits for room.
    pub(crate) fn is_throttled(&self) -> bool {
        self.is_throttled.load(SeqCst) || self.peers.as_ref().is_some_and(Peers::throttled_elsewhere)
    }

    /// Sources are to stop.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(SeqCst) != RUNNING
    }

    /// Sources are to stop, and open windows fire.
    pub(crate) fn draining(&self) -> bool {
        self.stop.load(SeqCst) == DRAINING
    }

    /// It was stopped before all plugins were open, and ended at once.
    pub(crate) fn stopped_at_start(&self) -> bool {
        self.stopped_at_start.load(SeqCst)
    }

    /// An instance of that node's plugin is open.
    pub(crate) fn opened_plugin(&self, node: NodeId) {
        self.starting.opened(node);
        self.opened();
    }

    /// An instance of a plugin is open, or a worker has built its dataflow; in the first process, or all of those of another process.
    pub(crate) fn opened(&self) {
        if self.opening.fetch_sub(1, SeqCst) > 1 {
            return;
        }
        self.starting.over();
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.opened();
        }
        if let Some(peers) = &self.peers {
            peers.tell_first(Frame::Opened);
        }
    }

    /// Runs `body` on a thread of its own; its error or panic ends the job.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        kind: &str,
        node: NodeId,
        subtask: u32,
        body: impl FnOnce() -> Result<(), JobError> + Send + 'static,
    ) {
        let job = Arc::clone(self);
        // Linux shows 15 bytes of it.
        let name = format!("{kind}:{}-{subtask}", self.node(node).name);
        self.spawn_thread(name, move || match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => job.fail(error),
            Err(panic) => job.fail_panic(node, &*panic),
        });
    }

    /// Runs a part of the engine on a thread of its own; its panic ends the job.
    pub(crate) fn spawn_engine(self: &Arc<Self>, name: &'static str, body: impl FnOnce() + Send + 'static) {
        let job = Arc::clone(self);
        self.spawn_thread(name.to_owned(), move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                let cause = Cause::Engine(format!("the thread {name} panicked: {}", panic_message(&*panic)));
                job.fail(JobError::new("", Phase::Running, cause));
            }
        });
    }

    fn spawn_thread(self: &Arc<Self>, name: String, body: impl FnOnce() + Send + 'static) {
        let job = Arc::clone(self);
        *self.threads.lock() += 1;
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            body();
            job.thread_gone();
        });
        if let Err(error) = spawned {
            self.thread_gone();
            self.fail(JobError::new("", Phase::Start, Cause::Engine(format!("cannot start a thread: {error}"))));
        }
    }

    fn thread_gone(&self) {
        *self.threads.lock() -= 1;
        self.thread_ended.notify_all();
    }

    /// Waits until all threads of [`Self::spawn`] have ended; after a failure or cancellation for `grace` at most. Returns how many still run.
    pub(crate) fn wait_for_threads(&self, grace: Duration) -> usize {
        let mut given_up_at = None;
        let mut threads = self.threads.lock();
        while *threads > 0 {
            let deadline = self.cancelled().then(|| *given_up_at.get_or_insert_with(|| Instant::now() + grace));
            match deadline {
                Some(deadline) if Instant::now() >= deadline => break,
                Some(deadline) => drop(self.thread_ended.wait_until(&mut threads, deadline)),
                // A failure of the last threads wakes nobody here: look again now and then.
                None => drop(self.thread_ended.wait_for(&mut threads, Duration::from_millis(100))),
            }
        }
        *threads
    }
}

/// How many instances of plugins a node has in a process.
pub(crate) fn instances(node: &Node, placement: &Placement, process: u32) -> usize {
    let subtasks = placement.workers(node.id).iter().filter(|worker| placement.process(**worker) == process).count();
    match node.operator {
        // And its enumerator.
        Operator::Source(_) => subtasks + usize::from(process == 0),
        Operator::Sink(_) | Operator::Transform(_) => subtasks,
        _ => 0,
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// What a job does, as far as it has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Not all plugins are open.
    Starting,
    /// All is well.
    Running,
    /// Something outside does not answer or says no; it is tried again and nothing is lost ([`NodeMetrics::degraded`] says what).
    Degraded,
    /// It is to end.
    Stopping,
}

/// The host's hand on a running job. Cheap to clone; outlives the job harmlessly.
#[derive(Clone)]
pub struct JobControl(pub(crate) Arc<Job>);

impl JobControl {
    /// Stops cleanly: sources stop, what is in flight is finished, sinks finish. With `drain` all open windows fire as if the sources had ended. A job whose plugins
    /// are not all open yet, because a server does not answer, ends at once.
    pub fn stop(&self, drain: bool) {
        self.0.stop(drain);
    }

    /// Stops as [`Self::stop`] does; the last checkpoint is a savepoint. One that fails is tried again for [`RunOptions::stop_patience`], then the job fails.
    ///
    /// # Errors
    /// [`SavepointError::NoCheckpoints`]; then nothing is stopped.
    pub fn stop_with_savepoint(&self, drain: bool) -> Result<PendingSavepoint, SavepointError> {
        let pending = self.want(When::Stopped)?;
        self.stop(drain);
        Ok(pending)
    }

    /// Takes a savepoint: a checkpoint that stays until it is removed on request. The job goes on.
    ///
    /// # Errors
    /// [`SavepointError::NoCheckpoints`].
    pub fn savepoint(&self) -> Result<PendingSavepoint, SavepointError> {
        self.want(When::Now)
    }

    /// Takes an ordinary checkpoint now. The job goes on.
    ///
    /// # Errors
    /// [`SavepointError::NoCheckpoints`].
    pub fn checkpoint(&self) -> Result<PendingSavepoint, SavepointError> {
        self.want(When::Checkpoint)
    }

    fn want(&self, when: When) -> Result<PendingSavepoint, SavepointError> {
        self.0.checkpoints.as_ref().map(|checkpoints| checkpoints.want(when)).ok_or(SavepointError::NoCheckpoints)
    }

    /// Looks at rows of a node as they pass in this process: by its name or path, `stats` or `transforms.stats`, with that of an output behind it where it is not the main
    /// one, `stats.late`. Of a sink it shows what goes into it.
    ///
    /// # Errors
    /// When there is no such node or output, or too many look.
    pub fn tap(&self, node: &str, keep: Keep) -> Result<Tap, TapError> {
        self.0.taps.open(&self.0.plan, node, keep)
    }

    /// Ends at once; nothing is finished or committed.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether the job has failed in this process because its first process is gone: then nobody else can say why.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.0.peers.as_ref().is_some_and(Peers::is_alone)
    }

    /// What it does now.
    #[must_use]
    pub fn state(&self) -> JobState {
        if self.0.stopping() || self.0.cancelled() {
            JobState::Stopping
        } else if self.0.opening.load(SeqCst) > 0 {
            JobState::Starting
        } else if self.0.metrics.is_degraded() {
            JobState::Degraded
        } else {
            JobState::Running
        }
    }
}
