//! A running job's talk with the other processes it runs in, beside timely (`cluster::frame` has the words). The first process talks with each of the others, and
//! passes on what concerns all: ticks, checkpoints, stops. Per connection a thread reads and one writes; one more counts the beats of the others' hearts: a process that is
//! not heard of for the length of its lease has failed, whatever the reason, and so has the job.

mod hear;
pub(crate) mod numbers;

use super::{
    checkpoints::Checkpoints,
    error::{Cause, JobError, Phase},
    job::{Job, panic_message},
    reader::ReaderCommand,
};
use crate::cluster::{
    Cluster, Connections, Control, Wire,
    frame::{self, Frame, Told},
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use numbers::Numbers;
use parking_lot::Mutex;
use standpipe_pipeline::plan::NodeId;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Shutdown,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// Beats of a heart in a lease.
const BEATS: u32 = 10;
/// How long what was said last may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where frames for another process go; `None`: the last has been said.
type Outbox = Sender<Option<Frame>>;

/// See the module's documentation.
pub(crate) struct Peers {
    pub(crate) process: u32,
    pub(crate) processes: u32,
    others: Vec<Other>,
    /// For timely, until the workers start.
    data: Mutex<Option<Vec<Option<Wire>>>>,
    /// The readers of this process' subtasks, by source.
    readers: Mutex<BTreeMap<u32, Vec<Sender<ReaderCommand>>>>,
    /// Processes that wait for room in the byte budget of a source, as the first one knows.
    waiting: Mutex<BTreeSet<u32>>,
    /// Some other process does.
    waiting_elsewhere: AtomicBool,
    /// The first process knows why something stands still.
    explained: AtomicBool,
    lease: Duration,
    /// Dropped when plugins may be opened.
    beginning: Mutex<Option<Sender<()>>>,
    begun: Receiver<()>,
    /// Dropped when all has been said.
    open: Mutex<Option<Sender<()>>>,
    closed: Receiver<()>,
    /// The first process is not there any more to be told why this one has failed.
    alone: AtomicBool,
}

/// Another process.
struct Other {
    process: u32,
    /// The system's id.
    id: u32,
    stream: Wire,
    outbox: Outbox,
    /// Until the thread that writes takes it.
    outgoing: Mutex<Option<Receiver<Option<Frame>>>>,
    /// Disconnected when everything is written.
    written: Mutex<Option<Receiver<()>>>,
    /// Beats since something was heard of it.
    missed: AtomicU32,
    /// Everything has ended there.
    done: AtomicBool,
    /// What it was told of [`Frame::Throttled`].
    throttled: AtomicBool,
    /// What it has counted by now.
    numbers: Mutex<Numbers>,
}

impl Other {
    fn new(control: Control) -> Self {
        let (outbox, outgoing) = unbounded();
        let Control { process, id, stream } = control;
        Self {
            process,
            id,
            stream,
            outbox,
            outgoing: Mutex::new(Some(outgoing)),
            written: Mutex::default(),
            missed: AtomicU32::new(0),
            done: AtomicBool::new(false),
            throttled: AtomicBool::new(false),
            numbers: Mutex::default(),
        }
    }

    fn tell(&self, frame: Frame) {
        // The thread that writes is gone only when the job is.
        drop(self.outbox.send(Some(frame)));
    }
}

/// How a source's subtask is told something, wherever it runs.
#[derive(Clone)]
pub(crate) enum Reach {
    /// In this process.
    Here(Sender<ReaderCommand>),
    /// In another one.
    There { node: NodeId, subtask: u32, outbox: Outbox },
}

impl Reach {
    /// Tells it; one that is gone does not hear it.
    pub(crate) fn tell(&self, command: ReaderCommand) {
        match self {
            Self::Here(sender) => drop(sender.send(command)),
            Self::There { node, subtask, outbox } => {
                if let Some(command) = Told::of(command) {
                    drop(outbox.send(Some(Frame::Reader { node: node.0, subtask: *subtask, command })));
                }
            }
        }
    }
}

impl Peers {
    /// Of a cluster whose connections nobody has taken.
    pub(crate) fn new(cluster: &Cluster, lease: Duration) -> Option<Self> {
        let Connections { data, control } = cluster.take()?;
        let (open, closed) = bounded(0);
        let (beginning, begun) = bounded(0);
        Some(Self {
            process: cluster.process(),
            processes: cluster.processes(),
            others: control.into_iter().map(Other::new).collect(),
            data: Mutex::new(Some(data)),
            readers: Mutex::default(),
            waiting: Mutex::default(),
            waiting_elsewhere: AtomicBool::new(false),
            explained: AtomicBool::new(false),
            lease,
            beginning: Mutex::new(Some(beginning)),
            begun,
            open: Mutex::new(Some(open)),
            closed,
            alone: AtomicBool::new(false),
        })
    }

    pub(crate) const fn is_first(&self) -> bool {
        self.process == 0
    }

    /// Timely's connections, by process; once.
    pub(crate) fn take_data(&self) -> Option<Vec<Option<Wire>>> {
        self.data.lock().take()
    }

    /// Whether the first process is not there to be told why this one has failed.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(SeqCst)
    }

    /// How to reach a subtask of a source in another process.
    pub(crate) fn reach(&self, process: u32, node: NodeId, subtask: u32) -> Option<Reach> {
        let other = self.others.iter().find(|other| other.process == process)?;
        Some(Reach::There { node, subtask, outbox: other.outbox.clone() })
    }

    /// What the job goes on from fits, and is noted in the store. The first process says so to the others, which wait for it: before that nothing may be changed outside.
    pub(crate) fn begin(&self) {
        self.tell_all(&Frame::Begun);
        drop(self.beginning.lock().take());
    }

    /// Disconnected once [`Self::begin`] was called in the first process; also there.
    pub(crate) fn begun(&self) -> &Receiver<()> {
        &self.begun
    }

    /// Disconnected when all has been said.
    pub(crate) const fn closed(&self) -> &Receiver<()> {
        &self.closed
    }

    /// Tells the first process, from another one.
    pub(crate) fn tell_first(&self, frame: Frame) {
        if let Some(first) = self.others.first().filter(|_| !self.is_first()) {
            first.tell(frame);
        }
    }

    /// Tells all others, from the first process.
    pub(crate) fn tell_all(&self, frame: &Frame) {
        self.tell_all_but(self.process, frame);
    }

    fn tell_all_but(&self, process: u32, frame: &Frame) {
        if self.is_first() {
            self.others.iter().filter(|other| other.process != process).for_each(|other| other.tell(frame.clone()));
        }
    }

    /// The job is given up here; with the failure, if it is one of this process.
    pub(crate) fn given_up(&self, failure: Option<&JobError>) {
        self.tell_all(&Frame::Cancel);
        if let Some(error) = failure {
            self.tell_first(Frame::Failed { node: error.node.clone(), class: error.class(), message: error.to_string() });
        }
    }

    /// A source of this process begins or ends to wait for room in its byte budget, and no other one here does.
    pub(crate) fn throttled(&self, is: bool) {
        match self.is_first() {
            true => self.waits(self.process, is),
            false => self.tell_first(Frame::Throttled(is)),
        }
    }

    /// Whether a source in another process waits.
    pub(crate) fn throttled_elsewhere(&self) -> bool {
        self.waiting_elsewhere.load(SeqCst)
    }

    /// In the first process: notes whether a process waits, and tells whom it is news to.
    fn waits(&self, process: u32, is: bool) {
        let mut waiting = self.waiting.lock();
        if is {
            waiting.insert(process)
        } else {
            waiting.remove(&process)
        };
        let elsewhere = |than: u32| waiting.iter().any(|process| *process != than);
        self.waiting_elsewhere.store(elsewhere(self.process), SeqCst);
        for other in &self.others {
            let is = elsewhere(other.process);
            if other.throttled.swap(is, SeqCst) != is {
                other.tell(Frame::Throttled(is));
            }
        }
    }

    /// Starts the talk. `readers` are all of this process.
    ///
    /// # Errors
    /// When the system gives no thread or no second handle of a connection.
    pub(crate) fn start(job: &Arc<Job>, readers: &[(NodeId, Vec<Sender<ReaderCommand>>)]) -> std::io::Result<()> {
        let Some(peers) = &job.peers else { return Ok(()) };
        *peers.readers.lock() = readers.iter().map(|(node, subtasks)| (node.0, subtasks.clone())).collect();
        let outboxes: Vec<Outbox> = peers.others.iter().map(|other| other.outbox.clone()).collect();
        job.ticker.tell_others(Box::new(move |time| outboxes.iter().for_each(|outbox| drop(outbox.send(Some(Frame::Time(time)))))));
        for (index, other) in peers.others.iter().enumerate() {
            let (mut incoming, mut outgoing) = (other.stream.try_clone()?, other.stream.try_clone()?);
            // A process that takes nothing any more is not to hold this one's end.
            outgoing.set_write_timeout(Some(peers.lease))?;
            let Some(frames) = other.outgoing.lock().take() else { continue };
            let (done, written) = bounded::<()>(0);
            *other.written.lock() = Some(written);
            spawn(job, "peer-out", move |job, _| {
                while let Ok(Some(frame)) = frames.recv() {
                    // That it is broken the reading thread sees too, or the lease does.
                    if let Err(error) = frame::write(&mut outgoing, &frame) {
                        tracing::debug!(job = %job.options.job_id, "what was said to another process is lost: {error}");
                        if error.kind() == std::io::ErrorKind::InvalidData {
                            let cause = Cause::Engine(format!("what there is to say to another process cannot be said: {error}"));
                            job.fail(JobError::new("", Phase::Running, cause));
                        }
                        break;
                    }
                }
                drop(done);
            })?;
            spawn(job, "peer-in", move |job, peers| {
                let Some(other) = peers.others.get(index) else { return };
                while let Ok(frame) = frame::read(&mut incoming).inspect_err(|error| peers.lost(job, other, error)) {
                    other.missed.store(0, SeqCst);
                    peers.hear(job, other, frame);
                }
            })?;
        }
        spawn(job, "heartbeat", |job, peers| peers.beat(job))
    }

    /// A connection has ended.
    fn lost(&self, job: &Job, other: &Other, error: &std::io::Error) {
        if other.done.load(SeqCst) || self.open.lock().is_none() {
            return;
        }
        let why = match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => "has ended without a word".to_owned(),
            _ => format!("is not understood: {error}"),
        };
        // A second signal ends the first process at once, and the user knows.
        self.fail(job, other, &why, !job.stopping());
    }

    /// `tells`: this process is the one to tell the user, if the first one is gone.
    fn fail(&self, job: &Job, other: &Other, why: &str, tells: bool) {
        if tells && !self.is_first() && !job.cancelled() {
            self.alone.store(true, SeqCst);
        }
        let message = format!("process {} (pid {}) {why}", other.process, other.id);
        job.fail(JobError::new("", Phase::Running, Cause::Peer(message)));
    }

    /// Says now and then that this process is there, and counts how long nothing has been heard of the others. In beats of this process' own heart: one that was stopped itself
    /// has not missed anything.
    fn beat(&self, job: &Arc<Job>) {
        let beat = (self.lease / BEATS).max(Duration::from_millis(1));
        while self.closed.recv_timeout(beat) == Err(RecvTimeoutError::Timeout) {
            match self.is_first() {
                true => self.tell_all(&Frame::Beat(self.explains_standstill(job))),
                false => self.tell_first(self.numbers(job)),
            }
            for other in self.others.iter().filter(|other| !other.done.load(SeqCst)) {
                if other.missed.fetch_add(1, SeqCst) >= BEATS {
                    self.fail(job, other, &format!("has not been heard of for {:.0} s", self.lease.as_secs_f64()), true);
                }
            }
        }
    }

    fn numbers(&self, job: &Job) -> Frame {
        Frame::Numbers(Box::new(Numbers::of(&job.metrics, job.calls.is_slow())))
    }

    /// Whether something in another process is slow or degraded, so that it is no wonder if something stands still.
    pub(crate) fn explains_standstill(&self, job: &Job) -> bool {
        match self.is_first() {
            true => job.calls.is_slow() || job.metrics.waits_outside() || self.others.iter().any(|other| other.numbers.lock().is_slow()),
            false => self.explained.load(SeqCst),
        }
    }

    /// Everything has ended in this process. The first one waits for the others, so that its numbers are of the whole job.
    pub(crate) fn finish(&self, job: &Job) {
        if self.is_first() {
            let cancelled = job.cancel_signal();
            while !job.cancelled() && self.others.iter().any(|other| !other.done.load(SeqCst)) {
                // It ends when the job is given up; that another one is done it does not tell.
                _ = cancelled.recv_timeout(Duration::from_millis(5));
            }
        } else {
            self.tell_first(self.numbers(job));
            // One that has ended otherwise than by its end has not done all there was to do.
            if !job.cancelled() {
                self.tell_first(Frame::Done);
            }
        }
        drop(self.open.lock().take());
        let begin = Instant::now();
        for other in &self.others {
            drop(other.outbox.send(None));
            if let Some(written) = other.written.lock().take() {
                _ = written.recv_timeout(LAST_WORDS.saturating_sub(begin.elapsed()));
            }
        }
        // What was said last is read by the other end all the same.
        self.others.iter().for_each(|other| drop(other.stream.shutdown(Shutdown::Both)));
    }
}

/// Starts a thread of the talk, which outlives those of the job's plugins; its panic ends the job.
pub(super) fn spawn(job: &Arc<Job>, name: &'static str, body: impl FnOnce(&Arc<Job>, &Peers) + Send + 'static) -> std::io::Result<()> {
    let job = Arc::clone(job);
    let run = move || {
        let Some(peers) = &job.peers else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&job, peers))) {
            let cause = Cause::Engine(format!("the thread {name} panicked: {}", panic_message(&*panic)));
            job.fail(JobError::new("", Phase::Running, cause));
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

/// Where checkpoints are on.
fn with_checkpoints(job: &Job, then: impl FnOnce(&Checkpoints)) {
    if let Some(checkpoints) = &job.checkpoints {
        then(checkpoints);
    }
}
