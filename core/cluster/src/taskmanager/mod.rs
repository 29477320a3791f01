//! A task manager as a process: it tells the manager of its slots and workers, and runs what it is ordered to, each job in a worker process of its own. The decisions are
//! those of [`crate::agent`]; here are the clock, the network, the disk and the processes.
//!
//! Workers die with it: the kernel ends them when the thread that has started them ends, which is the one that [`run`] is called on.

mod asking;
mod client;
pub mod collect;
mod doing;
mod folders;
mod hearing;
pub mod lease;
mod limits;
mod options;
mod worker;

pub use limits::{Limits, LimitsError};
pub use options::{Launcher, Observer, TaskManagerError, TaskManagerOptions, WorkerSpec};

use crate::{
    agent::Agent,
    blobs::Blobs,
    bundle::Bundle,
    protocol::{Answered, Attempt, Beat, JobId, Order, Orders, Ready},
    tls,
};
use client::Client;
use hearing::{PATIENCE, listen};
use lease::Lease;
use limits::Groups;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    process::ExitStatus,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};
use worker::Worker;

/// Between two beats when nothing happens.
const INTERVAL: Duration = Duration::from_millis(1_000);
/// In the folder of sockets: until when workers may run.
const LEASE: &str = "lease";
/// Of a folder of sockets: a path has at most 107 bytes, and the name of a socket up to 44.
const LONGEST_FOLDER: usize = 60;
/// How long workers have to be gone when it ends.
const LEAVING: Duration = Duration::from_secs(5);
/// Between two looks for files that nobody needs any more.
const CLEANING: Duration = Duration::from_secs(600);
/// Files that were used so lately are needed soon: a job that failed comes back.
const RECENT: Duration = Duration::from_secs(3_600);
/// Orders that are on their way may still have a request that was answered.
const REMEMBERED: Duration = Duration::from_secs(120);
/// Before a manager that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(250);

/// What a worker that has ended leaves in its folder of sockets, under its job's id: how the job did, as JSON.
pub const LAST_STATUS: &str = "status";

/// What comes to the thread that decides.
enum Event {
    /// Orders that were waited for; when they were asked for.
    Orders(Orders, Duration),
    /// The files of a worker are here, or why not.
    Fetched(Attempt, Result<PathBuf, String>),
    Ready(Attempt, Ready),
    Status(Attempt, Value),
    Ended(Attempt, io::Result<ExitStatus>),
    Answered(Answered),
    /// Somebody wants it to end.
    End,
}

/// Ends a task manager from another thread.
#[derive(Clone)]
pub struct Ender(Sender<Event>);

impl Ender {
    /// It ends its workers and goes.
    pub fn end(&self) {
        // It may have gone already.
        drop(self.0.send(Event::End));
    }
}

/// A worker that is to run.
struct Ordered {
    order: Order,
    /// It is not any more: its files need not be laid out.
    dropped: Arc<AtomicBool>,
}

impl Drop for Ordered {
    fn drop(&mut self) {
        self.dropped.store(true, SeqCst);
    }
}

struct TaskManager {
    options: TaskManagerOptions,
    client: Arc<Client>,
    blobs: Blobs,
    sockets: PathBuf,
    events: Sender<Event>,
    /// Who lays out files of a job has it: two starts of a job have one folder.
    laying_out: Arc<Mutex<()>>,
    groups: Option<Groups>,
    lease_file: Lease,
    cleaned: Instant,
    /// As the manager has said.
    lease: Option<Duration>,
    agent: Agent,
    ordered: BTreeMap<Attempt, Ordered>,
    /// What was laid out for jobs of which a start is over.
    left: BTreeMap<JobId, Arc<Bundle>>,
    workers: BTreeMap<Attempt, Worker>,
    /// When they were answered, if they were.
    asked: BTreeMap<String, Option<Instant>>,
    answers: Vec<Answered>,
    /// The manager has answered last time.
    heard: bool,
    /// It has ever.
    known: bool,
}

/// Runs until it is told to end by the [`Ender`] that `begun` is given, or the manager refuses it.
///
/// # Errors
/// When its folder cannot be used, or the manager does not want it.
pub fn run(options: TaskManagerOptions, begun: impl FnOnce(Ender)) -> Result<(), TaskManagerError> {
    let authority = tls::client(options.authority.as_deref())?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.data)?;
    let data = fs::canonicalize(&options.data)?;
    let _own = folders::lock(&data)?;
    let groups = Groups::open(options.limits)?;
    let blobs = Blobs::open(data.join("blobs"))?;
    // Nobody knows what of it is still needed; what is will be fetched.
    blobs.keep_only(&BTreeSet::new(), Duration::ZERO)?;
    let of_data = data.join("run");
    // Short, as the path of a socket must be.
    let is_short = of_data.as_os_str().len() <= LONGEST_FOLDER;
    let sockets = if is_short { of_data } else { std::env::temp_dir().join(format!("standpipe-tm-{}", std::process::id())) };
    drop(fs::remove_dir_all(&sockets));
    fs::DirBuilder::new().mode(0o700).create(&sockets)?;
    let id = crate::server::random_id()?;
    let client = Arc::new(Client::new(&options.manager, options.token.clone(), authority, id));
    let (events, happened) = mpsc::channel();
    begun(Ender(events.clone()));
    listen(&client, &events)?;
    let lease_file = Lease::create(&sockets.join(LEASE))?;
    let mut task_manager = TaskManager {
        options: TaskManagerOptions { data, ..options },
        client,
        blobs,
        sockets: sockets.clone(),
        events,
        laying_out: Arc::default(),
        groups,
        lease_file,
        cleaned: Instant::now(),
        lease: None,
        agent: Agent::default(),
        ordered: BTreeMap::new(),
        left: BTreeMap::new(),
        workers: BTreeMap::new(),
        asked: BTreeMap::new(),
        answers: Vec::new(),
        heard: false,
        known: false,
    };
    let result = task_manager.run(&happened);
    task_manager.leave(&happened);
    drop(fs::remove_dir_all(&sockets));
    folders::leave(&task_manager.options.data);
    result
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl TaskManager {
    fn run(&mut self, happened: &Receiver<Event>) -> Result<(), TaskManagerError> {
        let mut next = Instant::now();
        loop {
            let event = happened.recv_timeout(next.saturating_duration_since(Instant::now()));
            let mut urgent = false;
            match event {
                Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Ok(event) => urgent = self.on(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let due = self.agent.wake(millis(lease::now()));
            self.do_all(due);
            if urgent || Instant::now() >= next {
                next = Instant::now() + if self.beat()? { INTERVAL } else { RETRY };
                self.tidy();
            }
        }
    }

    /// Ends what runs here, and says so: its work goes elsewhere at once.
    fn leave(&mut self, happened: &Receiver<Event>) {
        self.workers.values_mut().for_each(Worker::kill);
        let deadline = Instant::now() + LEAVING;
        while !self.workers.is_empty() {
            match happened.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Ended(attempt, _)) => _ = self.workers.remove(&attempt).map(Worker::tidy),
                Ok(_) => {}
                // One that does not end is the lease's.
                Err(_) => return,
            }
        }
        let over: Vec<Attempt> = self.ordered.keys().cloned().collect();
        over.iter().for_each(|attempt| drop(self.forget(attempt)));
        // A manager that had this one job ends with it.
        let is_known = !self.agent.has_unknown();
        let (seen, host) = (self.agent.seen(), self.options.host.clone());
        let farewell =
            Beat { slots: 0, host, pid: std::process::id(), seen, workers: Vec::new(), leaving: true, answers: self.answers.clone() };
        if self.client.beat(&farewell, PATIENCE).is_err() && !is_known {
            tracing::warn!("the job manager does not know that its work has ended here, before its lease is over");
        }
    }

    /// Removes what is not needed any more, from time to time, and cuts logs that have become too long.
    fn tidy(&mut self) {
        self.workers.values_mut().for_each(Worker::trim_log);
        self.take_in();
        if self.cleaned.elapsed() < CLEANING {
            return;
        }
        self.cleaned = Instant::now();
        self.asked.retain(|_, answered| answered.is_none_or(|at| at.elapsed() < REMEMBERED));
        let needed = self.ordered.values().flat_map(|ordered| ordered.order.bundle.files()).map(|file| file.hash).collect();
        let jobs: BTreeSet<String> = self.ordered.keys().map(|attempt| attempt.job.clone()).collect();
        let (blobs, folder) = (self.blobs.clone(), self.options.data.join(folders::JOBS));
        let clean = move || {
            if let Err(error) = blobs.keep_only(&needed, RECENT) {
                tracing::warn!("files that nobody needs any more cannot be removed: {error}");
            }
            folders::prune(&folder, &jobs);
        };
        // Next time.
        drop(thread::Builder::new().name("clean".to_owned()).spawn(clean));
    }

    /// True: the manager is to hear of it now.
    fn on(&mut self, event: Event) -> bool {
        match event {
            // Without a lease nothing may run: the next beat that is answered has the same orders. And another manager hears first what runs here of the former one.
            Event::Orders(orders, sent) => {
                let is_known = orders.version.generation <= self.agent.seen().generation;
                if is_known && self.agent.lease_ends().is_some_and(|until| until > millis(lease::now())) {
                    self.follow(&orders, sent);
                }
            }
            Event::Fetched(attempt, Ok(folder)) => self.start(&attempt, &folder),
            Event::Fetched(attempt, Err(why)) => self.failed(&attempt, why),
            Event::Ready(attempt, ready) => self.agent.ready(&attempt, ready),
            Event::Status(attempt, status) => return self.agent.status(&attempt, status),
            Event::Ended(attempt, status) => self.ended(&attempt, status),
            Event::Answered(answered) => self.answer(answered),
            Event::End => {}
        }
        true
    }
}
