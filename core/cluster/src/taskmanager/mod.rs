//! A task manager as a process: it tells the manager of its slots and workers, and runs what it is ordered to, each job in a worker process of its own. The decisions are
//! those of [`crate::agent`]; here are the clock, the network, the disk and the processes.
//!
//! Workers die with it: the kernel ends them when the thread that has started them ends, which is the one that [`run`] is called on.

mod client;
pub mod collect;
mod folders;
pub mod lease;
mod limits;
mod worker;

pub use limits::{Limits, LimitsError};

use crate::{
    agent::{Agent, Do},
    blobs::{BlobError, Blobs},
    bundle::Bundle,
    ends::Ended,
    protocol::{Answered, Attempt, Beat, COLLECT, JobId, LOG, Order, Orders, Ready, Request, TAP, is_id},
    tls,
};
use client::{Client, Trouble};
use lease::Lease;
use limits::Groups;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};
use worker::Worker;

/// Between two beats when nothing happens.
const INTERVAL: Duration = Duration::from_millis(1_000);
/// Of a log, for a user.
const LOG_BYTES: u64 = 256 << 10;
/// In the folder of sockets: until when workers may run.
const LEASE: &str = "lease";
/// Of a folder of sockets: a path has at most 107 bytes, and the name of a socket up to 44.
const LONGEST_FOLDER: usize = 60;
/// How long a beat waits for its answer.
const PATIENCE: Duration = Duration::from_secs(2);
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

/// What a worker process is to be.
pub struct WorkerSpec<'a> {
    /// What it runs.
    pub order: &'a Order,
    /// Where the bundle is laid out: its current directory.
    pub folder: &'a Path,
    /// Where its sockets are; nobody else's are there.
    pub sockets: &'a Path,
    /// Until when it may run: see [`lease::watch`].
    pub lease: &'a Path,
    /// The name or address that other machines reach this one by.
    pub host: &'a str,
}

/// The command of a worker.
pub type Launcher = Box<dyn Fn(&WorkerSpec<'_>) -> io::Result<Command>>;

/// Hears every beat, and whether the manager has answered the one before it.
pub type Observer = Box<dyn Fn(&Beat, bool) + Send>;

/// What a worker that has ended leaves in its folder of sockets, under its job's id: how the job did, as JSON.
pub const LAST_STATUS: &str = "status";

/// How a task manager is run.
pub struct TaskManagerOptions {
    /// Of the manager: `http://127.0.0.1:8081`.
    pub manager: String,
    /// Of the manager, if it wants one.
    pub token: Option<String>,
    /// By whom a manager is known that speaks TLS; none: by those that everybody knows.
    pub authority: Option<PathBuf>,
    /// How many.
    pub slots: u32,
    /// The name or address that other machines reach this one by.
    pub host: String,
    /// Blobs, jobs' folders and logs; none else may use it.
    pub data: PathBuf,
    /// Of its workers, by slot.
    pub limits: Limits,
    /// See there.
    pub launcher: Launcher,
    /// Hears what the manager is told.
    pub observer: Option<Observer>,
}

/// Why a task manager does not run.
#[derive(Debug, thiserror::Error)]
pub enum TaskManagerError {
    /// The manager does not want it.
    #[error("{manager}: {reason}")]
    Refused {
        /// Which.
        manager: String,
        /// What it said.
        reason: String,
    },
    /// Another one has it.
    #[error("{0}: another task manager uses this data; give each one a --data folder of its own")]
    Taken(PathBuf),
    /// Its workers' limits.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// Its authority.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Its folder.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The system refused.
    #[error("the task manager cannot run: {0}")]
    System(#[from] io::Error),
}

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

/// Waits for orders on a thread of its own.
fn listen(client: &Arc<Client>, events: &Sender<Event>) -> io::Result<()> {
    let (client, events) = (Arc::clone(client), events.clone());
    let wait = move || {
        let mut seen = None;
        loop {
            let sent = lease::now();
            match client.orders(seen) {
                Ok(orders) => {
                    seen = Some(orders.version);
                    let has_requests = !orders.requests.is_empty();
                    if events.send(Event::Orders(orders, sent)).is_err() {
                        return;
                    }
                    if has_requests {
                        // Until they are answered, every answer comes at once.
                        thread::sleep(RETRY);
                    }
                }
                // Beats say what is wrong.
                Err(_) => {
                    seen = None;
                    thread::sleep(RETRY);
                }
            }
        }
    };
    thread::Builder::new().name("orders".to_owned()).spawn(wait).map(drop)
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
        let (seen, host) = (self.agent.seen(), self.options.host.clone());
        let farewell =
            Beat { slots: 0, host, pid: std::process::id(), seen, workers: Vec::new(), leaving: true, answers: self.answers.clone() };
        if self.client.beat(&farewell, PATIENCE).is_err() {
            tracing::warn!("the job manager does not know that its work has ended here, before its lease is over");
        }
    }

    /// Tells all; `false`: the manager does not answer.
    fn beat(&mut self) -> Result<bool, TaskManagerError> {
        let sent = lease::now();
        let beat = Beat {
            slots: self.options.slots,
            host: self.options.host.clone(),
            pid: std::process::id(),
            seen: self.agent.seen(),
            workers: self.agent.report(),
            leaving: false,
            answers: self.answers.clone(),
        };
        if let Some(observer) = &self.options.observer {
            observer(&beat, self.heard);
        }
        // While it is waited for, the end of the lease is not seen: what is left of it then is enough.
        let patience = self.lease.map_or(PATIENCE, |lease| (lease / 8).min(PATIENCE));
        match self.client.beat(&beat, patience) {
            Ok(orders) => {
                self.lease = Some(Duration::from_millis(orders.lease_millis));
                self.known = true;
                if !std::mem::replace(&mut self.heard, true) {
                    tracing::info!("{} slots are with the job manager at {}", self.options.slots, self.options.manager);
                }
                self.answers.clear();
                self.extend(&orders, sent);
                self.follow(&orders, sent);
                Ok(true)
            }
            // One that has known it may have been started with something wrong, or be busy: its workers have their lease.
            Err(Trouble::Refused(reason)) if !self.known => {
                Err(TaskManagerError::Refused { manager: self.options.manager.clone(), reason })
            }
            Err(Trouble::Passing(why) | Trouble::Refused(why)) => {
                if std::mem::replace(&mut self.heard, false) {
                    tracing::warn!("the job manager at {} does not answer: {why}", self.options.manager);
                }
                Ok(false)
            }
        }
    }

    /// The manager has heard a beat, and counts from then. Orders that were waited for extend nothing: who asks for them is not heard.
    fn extend(&mut self, orders: &Orders, sent: Duration) {
        self.agent.answered(orders, millis(sent));
        if let Some(until) = self.agent.lease_ends()
            && let Err(error) = self.lease_file.extend(Duration::from_millis(until))
        {
            tracing::warn!("workers cannot be told that they may go on: {error}");
        }
    }

    fn follow(&mut self, orders: &Orders, sent: Duration) {
        // They become names of files.
        if !orders.workers.iter().all(|order| is_id(&order.attempt.job)) {
            tracing::warn!("orders of the job manager at {} are not followed: they name a job by what is no id", self.options.manager);
            return;
        }
        let all = self.agent.orders(orders, millis(sent), millis(lease::now()));
        self.do_all(all);
        if orders.version >= self.agent.seen() {
            orders.requests.iter().for_each(|request| self.pass_on(request));
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
            // Without a lease nothing may run: the next beat that is answered has the same orders.
            Event::Orders(orders, sent) => {
                if self.agent.lease_ends().is_some_and(|until| until > millis(lease::now())) {
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

    fn do_all(&mut self, all: Vec<Do>) {
        for one in all {
            match one {
                Do::Start(order) => self.fetch(order),
                Do::Kill(attempt) => self.kill(&attempt),
                Do::Introduce(attempt, go) => {
                    if let Some(worker) = self.workers.get_mut(&attempt) {
                        worker.introduce(&go);
                    }
                }
            }
        }
    }

    /// Gets what the worker needs, on a thread of its own.
    fn fetch(&mut self, order: Order) {
        let (client, blobs, events) = (Arc::clone(&self.client), self.blobs.clone(), self.events.clone());
        let folder = self.options.data.join(folders::JOBS).join(&order.attempt.job);
        let (attempt, bundle, laying_out) = (order.attempt.clone(), Arc::clone(&order.bundle), Arc::clone(&self.laying_out));
        let dropped = Arc::new(AtomicBool::new(false));
        self.ordered.insert(attempt.clone(), Ordered { order, dropped: Arc::clone(&dropped) });
        let own = attempt.clone();
        let fetch = move || {
            let fetch = || {
                bundle.check().into_iter().next().map_or(Ok(()), |problem| Err(problem.to_string()))?;
                for hash in blobs.missing(bundle.files().map(|file| file.hash)) {
                    client.fetch(hash, &blobs)?;
                }
                // It guards no data: a panic leaves nothing half done that the next one does not do anew.
                let _one = laying_out.lock().unwrap_or_else(PoisonError::into_inner);
                if !dropped.load(SeqCst) {
                    blobs.lay_out(&bundle, &folder).map_err(|error| error.to_string())?;
                }
                Ok(())
            };
            let fetched = fetch();
            drop(events.send(Event::Fetched(own, fetched.map(|()| folder))));
        };
        if let Err(error) = thread::Builder::new().name("fetch".to_owned()).spawn(fetch) {
            self.failed(&attempt, error.to_string());
        }
    }

    /// It is not to run any more: its files go, unless another start of its job needs them.
    fn forget(&mut self, attempt: &Attempt) -> Option<Ordered> {
        let ordered = self.ordered.remove(attempt)?;
        ordered.dropped.store(true, SeqCst);
        self.left.insert(attempt.job.clone(), Arc::clone(&ordered.order.bundle));
        self.take_in();
        Some(ordered)
    }

    /// Removes files of starts that are over. While others are being laid out, which may take long, nobody here waits for that: another time.
    fn take_in(&mut self) {
        let one = match self.laying_out.try_lock() {
            Ok(one) => one,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        for (job, bundle) in std::mem::take(&mut self.left) {
            if !self.ordered.keys().any(|other| other.job == job) {
                Blobs::take_in(&bundle, &self.options.data.join(folders::JOBS).join(&job));
            }
        }
        drop(one);
    }

    fn failed(&mut self, attempt: &Attempt, why: String) {
        if let Some(ordered) = self.forget(attempt) {
            self.agent.ended(attempt, Ended::failed(ordered.order.process, why));
        }
    }

    fn start(&mut self, attempt: &Attempt, folder: &Path) {
        // It may have been killed before it has begun.
        let Some(Ordered { order, .. }) = self.ordered.get(attempt) else { return };
        let lease = self.sockets.join(LEASE);
        let spec = WorkerSpec { order, folder, sockets: &self.sockets, lease: &lease, host: &self.options.host };
        let alone = order.slots.len() == 1;
        let slots = order.slots.get(order.process as usize).copied().unwrap_or(1);
        let group = self.groups.as_ref().map(|groups| groups.group(&format!("{}-{}", attempt.job, attempt.number), slots));
        let started = group.transpose().map_err(io::Error::other).and_then(|group| {
            let command = (self.options.launcher)(&spec)?;
            Worker::start(command, &spec, group, &self.events)
        });
        match started {
            Ok(worker) => {
                _ = self.workers.insert(attempt.clone(), worker);
                if alone {
                    self.agent.running(attempt);
                }
            }
            Err(error) => self.failed(attempt, format!("its process cannot be started: {error}")),
        }
    }

    fn kill(&mut self, attempt: &Attempt) {
        match self.workers.get_mut(attempt) {
            Some(worker) => worker.kill(),
            None => {
                if let Some(ordered) = self.forget(attempt) {
                    let ended = Ended::lost(ordered.order.process, true, "it was ended before it had begun".to_owned());
                    self.agent.ended(attempt, ended);
                }
            }
        }
    }

    fn ended(&mut self, attempt: &Attempt, status: io::Result<ExitStatus>) {
        let Some(worker) = self.workers.remove(attempt) else { return };
        let Some(ordered) = self.forget(attempt) else { return };
        let process = ordered.order.process;
        let mut ended = match status {
            Ok(status) => Ended::new(process, status, worker.is_killed()),
            Err(error) => Ended::failed(process, error.to_string()),
        };
        if !ended.is_success() && ended.said.is_none() {
            ended.said = worker.verdict().or_else(|| worker.last_words());
        }
        if let Some(status) = worker.last_status() {
            self.agent.status(attempt, status);
        }
        worker.tidy();
        self.agent.ended(attempt, ended);
    }

    /// Asks a worker, on a thread of its own.
    fn pass_on(&mut self, request: &Request) {
        if self.asked.contains_key(&request.id) {
            return;
        }
        self.asked.insert(request.id.clone(), None);
        let what = request.ask.get("do").and_then(Value::as_str);
        let (is_of_log, is_of_rows, is_of_tap) = (what == Some(LOG), what == Some(COLLECT), what == Some(TAP));
        let refused = |why: &str| Answered { id: request.id.clone(), answers: Err(why.to_owned()) };
        if !is_id(&request.attempt.job) {
            return self.answer(refused("there is no such job"));
        }
        let over = self.workers.get(&request.attempt).map(Worker::over);
        if !is_of_log && !is_of_rows && over.is_none() {
            return self.answer(refused("the job's process is not there"));
        }
        let (own, events, client) = (request.clone(), self.events.clone(), Arc::clone(&self.client));
        let socket = worker::control_socket(&self.sockets, &request.attempt.job);
        let log = self.options.data.join(folders::JOBS).join(&request.attempt.job).with_extension("log");
        let rows = collect::folder(&self.options.data.join(folders::JOBS).join(&request.attempt.job));
        let ask = move || {
            let answers = if is_of_rows {
                client.collect(&own, &rows)
            } else if is_of_log {
                worker::tail(&log, 0, LOG_BYTES).map(|text| vec![text.into()]).map_err(|error| format!("its log cannot be read: {error}"))
            } else if is_of_tap {
                client.tap(&own, &socket)
            } else {
                worker::ask_when_it_listens(&socket, &own.ask, &over.unwrap_or_default())
                    .map_err(|error| format!("the job's process does not answer: {error}"))
            };
            drop(events.send(Event::Answered(Answered { id: own.id, answers })));
        };
        if let Err(error) = thread::Builder::new().name("ask".to_owned()).spawn(ask) {
            self.answer(refused(&format!("it cannot be passed on: {error}")));
        }
    }

    fn answer(&mut self, answered: Answered) {
        self.asked.insert(answered.id.clone(), Some(Instant::now()));
        self.answers.push(answered);
    }
}
