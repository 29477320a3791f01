//! `run` with a `restart:` strategy or several processes: the job runs in child processes of this one, which are started again when one of them fails, from the newest
//! checkpoint. So also a plugin that crashes or calls `exit` is a failure like any other. Processes of one job end together: when one has failed, the others are given
//! a moment to end too, and are then killed.
//!
//! A child hears of signals from here alone: one that comes to both from the terminal would count twice. It dies with this process, also when this one is
//! killed. Of several, only the first is told to stop; it tells the others.

use crate::{
    control::{
        self, Answer, Look, Request, Rows, client,
        server::{Handler, Server},
        status::Identity,
    },
    exit::{Code, Failure},
    output::say,
    processes::{Launch, Member, PROCESS, warn_of_idle},
    traces,
};
use chrono::Utc;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use standpipe_cluster::{
    ends::{Ended, decisive},
    restarts::Restarts,
};
use standpipe_engine::RunOptions;
use standpipe_pipeline::Plan;
use standpipe_trace::Span;
use std::{
    collections::BTreeMap,
    env, fs,
    hash::{BuildHasher, RandomState},
    io,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio, exit},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

/// Set in a child: how often the job has been started before, the process that supervises it, and the job's id.
const ATTEMPT: &str = "STANDPIPE_ATTEMPT";
const SUPERVISOR: &str = "STANDPIPE_SUPERVISOR";
const JOB: &str = "STANDPIPE_JOB";

/// Set in a child of a task manager: the file that says until when it may run.
pub(crate) const LEASE: &str = "STANDPIPE_LEASE";

/// Set in a child of a task manager: how many of these starts have followed a failure.
pub(crate) const RESTARTS: &str = "STANDPIPE_RESTARTS";

/// Set in a child of a task manager: the job manager does not know whether the job has begun under another one.
pub(crate) const RESUMES: &str = "STANDPIPE_RESUMES";

/// Whether that is so of this process' job.
pub(crate) fn resumes() -> bool {
    attempt().is_some() && env::var_os(RESUMES).is_some()
}

/// Whether this process' job has run before as far as whoever has started it knows.
pub(crate) fn has_run() -> bool {
    attempt().is_some_and(|attempt| attempt > 0)
}

/// How often this process' job has been started before, if it is a child.
pub(crate) fn attempt() -> Option<u32> {
    env::var(ATTEMPT).ok()?.parse().ok()
}

/// How often this process' job was started again after a failure, if it is a child: under a supervisor there are no other starts.
pub(crate) fn restarts() -> Option<u32> {
    let attempt = attempt()?;
    Some(env::var(RESTARTS).ok().and_then(|text| text.parse().ok()).unwrap_or(attempt))
}

/// The job's id, if this is a child.
pub(crate) fn job_id() -> Option<String> {
    attempt()?;
    env::var(JOB).ok()
}

/// Makes a command a child of this process: the start of a job with that number.
pub(crate) fn be_child(command: &mut Command, attempt: u32, job_id: &str) {
    command.env(ATTEMPT, attempt.to_string()).env(SUPERVISOR, std::process::id().to_string());
    command.env(JOB, job_id).env_remove(PROCESS).env_remove(RESTARTS).env_remove(RESUMES).env_remove(traces::PARENT);
}

/// What a child does first: it dies with its supervisor.
pub(crate) fn be_supervised() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let supervisor = env::var(SUPERVISOR).ok().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
    if rustix::process::getppid() != supervisor {
        // It has died before it could be said.
        exit(i32::from(Code::Interrupted as u8));
    }
    if let Some(lease) = env::var_os(LEASE) {
        // The task manager does not say any more that it may run: it may be stopped, and the job runs elsewhere.
        standpipe_cluster::taskmanager::lease::watch(lease.as_ref(), || {
            say!("error: the task manager has not renewed the lease of this process");
            _ = kill_process(rustix::process::getpid(), Signal::KILL);
        })?;
    }
    // The terminal's; the supervisor passes them on as SIGTERM.
    signal_hook::flag::register(SIGINT, std::sync::Arc::default()).map(drop)
}

enum Event {
    Ended(u32, io::Result<ExitStatus>),
    /// The job is to stop, and its process has not been told.
    Signalled,
    /// It has been told.
    Stopping,
}

/// How long processes of a job have to end when another one of them has.
const GRACE: Duration = Duration::from_secs(2);

/// A process that does not show its rows by then, which waits for some 2 s at the most, does not.
const LOOKING: Duration = Duration::from_secs(5);
/// How long who looks for rows waits at the most while no process is there.
const RESTARTING: Duration = Duration::from_secs(1);

/// How it all ended.
enum End {
    /// As that child did.
    Child(Ended),
    /// While no child ran.
    Stopped,
}

/// What the thread that answers for the job knows of it.
struct Watched {
    identity: Identity,
    /// Why the job's process is not there.
    reason: String,
}

/// Runs the job until it ends otherwise than by a failure, or is not to be started again; in so many processes, which talk over TLS or in the clear.
/// `span` has all of it.
pub(crate) fn supervise(plan: &Plan, processes: u32, tls: bool, span: &mut Span) -> anyhow::Result<()> {
    warn_of_idle(plan, processes);
    let id = RunOptions::new().job_id;
    let (events, happened) = mpsc::channel();
    listen(events.clone())?;
    let identity = Identity { job: plan.name.clone(), id: id.clone(), started: Utc::now(), restarts: 0, generation: 0, checkpoints: None };
    let watched = Arc::new(Mutex::new(Watched { identity, reason: "it is being started".to_owned() }));
    let server = Server::start_if_possible(control::socket(&id), answer(&id, processes, &watched, events.clone()));
    span.set("job_id", id.as_str());
    let end = Supervisor { plan, processes, tls, id: &id, events, happened, watched, span }.run()?;
    if let Some(server) = server {
        server.finish(match &end {
            End::Child(ended) if !ended.is_success() => Answer::Failed(format!("its process has ended: {}", ended.status())),
            End::Child(_) | End::Stopped => Answer::Ended(format!("{}: ended", plan.name)),
        });
    }
    // Of children that were killed.
    (0..processes).for_each(|process| drop(control::socket_of_child(&id, process).and_then(fs::remove_file)));
    match end {
        End::Child(ended) => end_as(&ended, processes, std::mem::take(span)),
        End::Stopped => Ok(()),
    }
}

struct Supervisor<'a> {
    plan: &'a Plan,
    processes: u32,
    /// What they say to each other is to be encrypted.
    tls: bool,
    id: &'a str,
    events: Sender<Event>,
    happened: Receiver<Event>,
    watched: Arc<Mutex<Watched>>,
    span: &'a Span,
}

impl Supervisor<'_> {
    fn run(&self) -> anyhow::Result<End> {
        let name = &self.plan.name;
        let mut restarts = Restarts::new(self.plan.restart.clone());
        let (mut attempt, first) = (0, Instant::now());
        loop {
            let begin = Instant::now();
            let (all, stopping) = self.run_children(attempt)?;
            let Some(ended) = decisive(&all).cloned() else { return Ok(End::Stopped) };
            let Some(why) = ended.failure(self.processes, attempt) else { return Ok(End::Child(ended)) };
            if stopping {
                // It was told before it could listen.
                let is_told = ended.status().signal() == Some(SIGTERM);
                return Ok(if is_told { End::Stopped } else { End::Child(ended) });
            }
            let random = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
            let Some(wait) = restarts.failed(first.elapsed(), begin.elapsed(), random) else {
                if attempt > 0 {
                    say!("{name}: {why}; it has been started {} times and is given up", attempt + 1);
                }
                return Ok(End::Child(ended));
            };
            attempt += 1;
            let said = format!("{why}; it is started again in {:.1} s, for the {} time", wait.as_secs_f64(), ordinal(attempt));
            say!("{name}: {said}");
            {
                let mut watched = lock(&self.watched);
                (watched.identity.restarts, watched.reason) = (attempt, said);
            }
            let restart = self.span.child("restart").with("attempt", attempt).with("cause", why);
            // Whatever is heard of now is a wish to stop.
            if !matches!(self.happened.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
                say!("{name}: stopped while it waited to be started again");
                return Ok(End::Stopped);
            }
            restart.end();
        }
    }

    /// Runs the job's processes until all have ended, in the order in which they have, passing on signals. Also says whether the job was to stop.
    fn run_children(&self, attempt: u32) -> anyhow::Result<(Vec<Ended>, bool)> {
        let launch = (self.processes > 1).then(|| Launch::start(self.id, self.processes, self.tls)).transpose();
        let launch =
            launch.map_err(|error| Failure::error(Code::Outside, format!("several processes need a socket to begin with: {error}")))?;
        let mut running = BTreeMap::new();
        for process in 0..self.processes {
            match self.start(process, attempt) {
                Ok(id) => _ = running.insert(process, id),
                Err(error) => {
                    running.values().for_each(|id| _ = kill_process(*id, Signal::KILL));
                    return Err(error.into());
                }
            }
        }
        Ok(self.watch(running, launch.as_ref())?)
    }

    /// Starts one of the job's processes.
    fn start(&self, process: u32, attempt: u32) -> io::Result<Pid> {
        let mut command = Command::new(env::current_exe()?);
        command.args(env::args_os().skip(1));
        be_child(&mut command, attempt, self.id);
        if let Some(context) = self.span.context() {
            command.env(traces::PARENT, context.to_string());
        }
        if self.processes > 1 {
            command.env(PROCESS, Member { process, processes: self.processes }.to_text());
        }
        if process > 0 {
            // What this process' stdin gives is for one of them alone; to read it elsewhere is an error, not an end.
            command.stdin(Stdio::from(fs::OpenOptions::new().write(true).open("/dev/null")?));
        }
        // Its death signal comes when the thread that started it ends: this one, which lives as long as the process.
        let child = command.spawn()?;
        let id = Pid::from_child(&child);
        wait(process, child, self.events.clone())?;
        Ok(id)
    }

    /// Until all have ended.
    fn watch(&self, mut running: BTreeMap<u32, Pid>, launch: Option<&Launch>) -> io::Result<(Vec<Ended>, bool)> {
        let (mut all, mut stopping, mut killed) = (Vec::new(), false, false);
        // Once the others are to end too.
        let mut deadline: Option<Instant> = None;
        while !running.is_empty() {
            let left = deadline.filter(|_| !killed).map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let event = match left {
                Some(left) => self.happened.recv_timeout(left),
                None => self.happened.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Ended(process, status)) => {
                    let status = status?;
                    running.remove(&process);
                    all.push(Ended::new(process, status, killed));
                    if process == 0 || !status.success() {
                        launch.into_iter().for_each(Launch::give_up);
                        deadline = deadline.or_else(|| Instant::now().checked_add(GRACE));
                    }
                }
                Ok(Event::Stopping) => stopping = true,
                // It may have ended in this very moment: then there is nothing to signal. It is not waited for by then, or its end would be here.
                Ok(Event::Signalled) => {
                    stopping = true;
                    if let Some(first) = running.get(&0) {
                        _ = kill_process(*first, Signal::TERM);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    killed = true;
                    running.values().for_each(|id| _ = kill_process(*id, Signal::KILL));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the thread that waits for the job is gone")),
            }
        }
        Ok((all, stopping))
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    // What is in it holds also after a panic.
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes requests on to the job's process; while there is none, answers for it.
fn answer(id: &str, processes: u32, watched: &Arc<Mutex<Watched>>, events: Sender<Event>) -> Handler {
    let (id, watched, events) = (id.to_owned(), Arc::clone(watched), Mutex::new(events));
    let tell = move |event| _ = events.lock().unwrap_or_else(PoisonError::into_inner).send(event);
    Box::new(move |request, send| {
        if let Request::Tap(look) = request {
            return look_at_all(&id, processes, &look, send);
        }
        let asked = control::socket_of_child(&id, 0).and_then(|socket| {
            client::ask(&socket, &request, None, |answer| {
                if answer == Answer::Stopping {
                    tell(Event::Stopping);
                }
                send(of_supervised(answer));
            })
        });
        if asked.is_ok() {
            return;
        }
        let watched = lock(&watched);
        match request {
            Request::Status => send(Answer::Status(Box::new(watched.identity.restarting(&watched.reason)))),
            Request::Savepoint { .. } | Request::Checkpoint | Request::Stop { savepoint: true, .. } => {
                send(Answer::Refused(format!("it cannot take a savepoint now: {}", watched.reason)));
            }
            Request::Stop { .. } | Request::Cancel => {
                tell(Event::Signalled);
                send(Answer::Stopping);
            }
            // The first is answered above, the other by the server.
            Request::Tap(_) | Request::End => {}
        }
    })
}

/// Asks all processes of a job for their rows, at once. One that is not there has none; while none is, there are none yet.
fn look_at_all(id: &str, processes: u32, look: &Look, send: &mut dyn FnMut(Answer)) {
    let begun = Instant::now();
    let ask = |process| {
        let mut answers = Vec::new();
        let socket = control::socket_of_child(id, process)?;
        client::look(&socket, look, LOOKING, |answer| answers.push(answer)).map(|()| answers)
    };
    let answers: Vec<Answer> = thread::scope(|scope| {
        let spawn = |process| thread::Builder::new().name("look".to_owned()).spawn_scoped(scope, move || ask(process)).ok();
        let asked: Vec<_> = (0..processes).filter_map(spawn).collect();
        asked.into_iter().filter_map(|asked| asked.join().ok()?.ok()).flatten().collect()
    });
    // Processes that show nothing more answer at once.
    let nothing_follows = answers.iter().all(|answer| matches!(answer, Answer::Rows(rows) if rows.ended));
    if answers.is_empty() {
        send(Answer::Rows(Rows::default()));
    }
    for answer in answers {
        send(match answer {
            // The process has ended; whether the job has, is seen when nobody answers any more.
            Answer::Rows(rows) => Answer::Rows(Rows { ended: false, ..rows }),
            other => other,
        });
    }
    if nothing_follows {
        // Whoever looks hears all of this, and asks again when it is over, not at once.
        thread::sleep(Duration::from_millis(look.wait).min(RESTARTING).saturating_sub(begun.elapsed()));
    }
}

/// The process that users know is the supervisor.
fn of_supervised(answer: Answer) -> Answer {
    match answer {
        Answer::Status(mut status) => {
            status.process = std::process::id();
            Answer::Status(status)
        }
        other => other,
    }
}

fn ordinal(n: u32) -> String {
    let suffix = match (n % 10, n % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        _ => "th",
    };
    format!("{n}{suffix}")
}

fn listen(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            if events.send(Event::Signalled).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

fn wait(process: u32, mut child: Child, events: Sender<Event>) -> io::Result<()> {
    let wait = move || _ = events.send(Event::Ended(process, child.wait()));
    thread::Builder::new().name("child".to_owned()).spawn(wait).map(drop)
}

/// Ends as the child has ended, and so does `span`; it has said why.
fn end_as(ended: &Ended, processes: u32, mut span: Span) -> anyhow::Result<()> {
    let (process, status) = (ended.process, ended.status());
    if !status.success() {
        span.fail(&format!("process {process} has ended: {status}"));
    }
    span.end();
    let code = match status.code() {
        Some(0) => return Ok(()),
        Some(2) => Code::Usage,
        Some(3) => Code::Outside,
        Some(130) => Code::Interrupted,
        Some(_) => Code::Failed,
        None if processes > 1 => return Err(Failure::error(Code::Failed, format!("process {process} of {processes} has ended: {status}"))),
        None => return Err(Failure::error(Code::Failed, format!("the job's process has ended: {status}"))),
    };
    traces::exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_in_english() {
        let said: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 112].into_iter().map(ordinal).collect();
        assert_eq!(said, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]);
    }
}
