//! A task manager as a process: it tells the manager of its slots and workers, and runs what it is ordered to, each job in a worker process of its own. The decisions are
//! those of [`crate::agent`]; here are the clock, the network, the disk and the processes.
//!
//! Workers die with it: the kernel ends them when the thread that has started them ends, which is the one that [`run`] is called on.

mod client;
mod worker;

use crate::{
    agent::{Agent, Do},
    blobs::{BlobError, Blobs},
    ends::Ended,
    protocol::{Answered, Attempt, Beat, LOG, Order, Orders, Ready, Request},
};
use client::{Client, Trouble};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        Arc,
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
/// Of a folder of sockets: a path has at most 107 bytes, and the name of a socket up to 44.
const LONGEST_FOLDER: usize = 60;
/// How long a beat waits for its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long workers have to be gone when it ends.
const LEAVING: Duration = Duration::from_secs(5);
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
    /// How many.
    pub slots: u32,
    /// The name or address that other machines reach this one by.
    pub host: String,
    /// Blobs, jobs' folders and logs; none else may use it.
    pub data: PathBuf,
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

struct TaskManager {
    options: TaskManagerOptions,
    client: Arc<Client>,
    blobs: Blobs,
    sockets: PathBuf,
    events: Sender<Event>,
    begun: Instant,
    /// As the manager has said.
    lease: Option<Duration>,
    agent: Agent,
    ordered: BTreeMap<Attempt, Order>,
    workers: BTreeMap<Attempt, Worker>,
    asked: BTreeSet<String>,
    answers: Vec<Answered>,
    heard: bool,
}

/// Runs until it is told to end by the [`Ender`] that `begun` is given, or the manager refuses it.
///
/// # Errors
/// When its folder cannot be used, or the manager does not want it.
pub fn run(options: TaskManagerOptions, begun: impl FnOnce(Ender)) -> Result<(), TaskManagerError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.data)?;
    let data = fs::canonicalize(&options.data)?;
    let blobs = Blobs::open(data.join("blobs"))?;
    // Nobody knows what of it is still needed; what is will be fetched.
    blobs.keep_only(&BTreeSet::new())?;
    let of_data = data.join("run");
    // Short, as the path of a socket must be.
    let is_short = of_data.as_os_str().len() <= LONGEST_FOLDER;
    let sockets = if is_short { of_data } else { std::env::temp_dir().join(format!("standpipe-tm-{}", std::process::id())) };
    drop(fs::remove_dir_all(&sockets));
    fs::DirBuilder::new().mode(0o700).create(&sockets)?;
    let id = crate::server::random_id()?;
    let client = Arc::new(Client::new(&options.manager, options.token.clone(), id));
    let (events, happened) = mpsc::channel();
    begun(Ender(events.clone()));
    let start = Instant::now();
    listen(&client, &events, start)?;
    let mut task_manager = TaskManager {
        options: TaskManagerOptions { data, ..options },
        client,
        blobs,
        sockets: sockets.clone(),
        events,
        begun: start,
        lease: None,
        agent: Agent::default(),
        ordered: BTreeMap::new(),
        workers: BTreeMap::new(),
        asked: BTreeSet::new(),
        answers: Vec::new(),
        heard: false,
    };
    let result = task_manager.run(&happened);
    task_manager.leave(&happened);
    drop(fs::remove_dir_all(&sockets));
    result
}

/// Waits for orders on a thread of its own.
fn listen(client: &Arc<Client>, events: &Sender<Event>, begun: Instant) -> io::Result<()> {
    let (client, events) = (Arc::clone(client), events.clone());
    let wait = move || {
        let mut seen = None;
        loop {
            let sent = begun.elapsed();
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
            let due = self.agent.wake(millis(self.begun.elapsed()));
            self.do_all(due);
            if urgent || Instant::now() >= next {
                next = Instant::now() + if self.beat()? { INTERVAL } else { RETRY };
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
        let (seen, host) = (self.agent.seen(), self.options.host.clone());
        let farewell =
            Beat { slots: 0, host, pid: std::process::id(), seen, workers: Vec::new(), leaving: true, answers: self.answers.clone() };
        if self.client.beat(&farewell, PATIENCE).is_err() {
            tracing::warn!("the job manager does not know that its work has ended here, before its lease is over");
        }
    }

    /// Tells all; `false`: the manager does not answer.
    fn beat(&mut self) -> Result<bool, TaskManagerError> {
        let sent = self.begun.elapsed();
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
                if !std::mem::replace(&mut self.heard, true) {
                    tracing::info!("{} slots are with the job manager at {}", self.options.slots, self.options.manager);
                }
                self.answers.clear();
                self.agent.answered(&orders, millis(sent));
                self.follow(&orders, sent);
                Ok(true)
            }
            Err(Trouble::Passing(why)) => {
                if std::mem::replace(&mut self.heard, false) {
                    tracing::warn!("the job manager at {} does not answer: {why}", self.options.manager);
                }
                Ok(false)
            }
            Err(Trouble::Refused(reason)) => Err(TaskManagerError::Refused { manager: self.options.manager.clone(), reason }),
        }
    }

    fn follow(&mut self, orders: &Orders, sent: Duration) {
        let all = self.agent.orders(orders, millis(sent), millis(self.begun.elapsed()));
        self.do_all(all);
        for request in &orders.requests {
            self.pass_on(request);
        }
    }

    /// True: the manager is to hear of it now.
    fn on(&mut self, event: Event) -> bool {
        match event {
            Event::Orders(orders, sent) => self.follow(&orders, sent),
            Event::Fetched(attempt, Ok(folder)) => self.start(&attempt, &folder),
            Event::Fetched(attempt, Err(why)) => self.failed(&attempt, why),
            Event::Ready(attempt, ready) => self.agent.ready(&attempt, ready),
            Event::Status(attempt, status) => return self.agent.status(&attempt, status),
            Event::Ended(attempt, status) => self.ended(&attempt, status),
            Event::Answered(answered) => {
                self.asked.remove(&answered.id);
                self.answers.push(answered);
            }
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
        let folder = self.options.data.join("jobs").join(&order.attempt.job);
        let (attempt, bundle) = (order.attempt.clone(), Arc::clone(&order.bundle));
        self.ordered.insert(attempt.clone(), order);
        let own = attempt.clone();
        let fetch = move || {
            let problems = bundle.check();
            let fetched = if let Some(problem) = problems.first() {
                Err(problem.to_string())
            } else {
                let missing = blobs.missing(bundle.files().map(|file| file.hash));
                let got = missing.into_iter().try_for_each(|hash| client.fetch(hash, &blobs));
                got.and_then(|()| blobs.lay_out(&bundle, &folder).map_err(|error| error.to_string()))
            };
            drop(events.send(Event::Fetched(own, fetched.map(|()| folder))));
        };
        if let Err(error) = thread::Builder::new().name("fetch".to_owned()).spawn(fetch) {
            self.failed(&attempt, error.to_string());
        }
    }

    fn failed(&mut self, attempt: &Attempt, why: String) {
        if let Some(order) = self.ordered.remove(attempt) {
            self.agent.ended(attempt, Ended::failed(order.process, why));
        }
    }

    fn start(&mut self, attempt: &Attempt, folder: &Path) {
        // It may have been killed before it has begun.
        let Some(order) = self.ordered.get(attempt) else { return };
        let spec = WorkerSpec { order, folder, sockets: &self.sockets, host: &self.options.host };
        let alone = order.slots.len() == 1;
        match (self.options.launcher)(&spec).and_then(|command| Worker::start(command, &spec, &self.events)) {
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
                if let Some(order) = self.ordered.remove(attempt) {
                    self.agent.ended(attempt, Ended::lost(order.process, true, "it was ended before it had begun".to_owned()));
                }
            }
        }
    }

    fn ended(&mut self, attempt: &Attempt, status: io::Result<ExitStatus>) {
        let (Some(worker), Some(order)) = (self.workers.remove(attempt), self.ordered.remove(attempt)) else { return };
        let mut ended = match status {
            Ok(status) => Ended::new(order.process, status, worker.is_killed()),
            Err(error) => Ended::failed(order.process, error.to_string()),
        };
        if !ended.is_success() && ended.said.is_none() {
            ended.said = worker.last_words();
        }
        if let Some(status) = worker.last_status() {
            self.agent.status(attempt, status);
        }
        worker.tidy();
        self.agent.ended(attempt, ended);
    }

    /// Asks a worker, on a thread of its own.
    fn pass_on(&mut self, request: &Request) {
        if self.answers.iter().any(|answered| answered.id == request.id) || !self.asked.insert(request.id.clone()) {
            return;
        }
        let (request, events) = (request.clone(), self.events.clone());
        let socket = worker::control_socket(&self.sockets, &request.attempt.job);
        let log = self.options.data.join("jobs").join(&request.attempt.job).with_extension("log");
        let ask = move || {
            let answers = if request.ask.get("do").and_then(Value::as_str) == Some(LOG) {
                worker::tail(&log, 0, LOG_BYTES).map(|text| vec![text.into()]).map_err(|error| format!("its log cannot be read: {error}"))
            } else {
                worker::ask(&socket, &request.ask, None).map_err(|error| format!("the job's process does not answer: {error}"))
            };
            drop(events.send(Event::Answered(Answered { id: request.id, answers })));
        };
        if let Err(error) = thread::Builder::new().name("ask".to_owned()).spawn(ask) {
            tracing::warn!("a request cannot be passed on: {error}");
        }
    }
}
