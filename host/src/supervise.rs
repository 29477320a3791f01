//! `run` with a `restart:` strategy: the job runs in a child process of this one, which is started again when it fails, from its newest checkpoint. So also a plugin that
//! crashes or calls `exit` is a failure like any other.
//!
//! The child hears of signals from here alone: one that comes to both from the terminal would count twice. It dies with this process, also when this one is killed.

use crate::{
    control::{
        self, Answer, Request, client,
        server::{Handler, Server},
        status::Identity,
    },
    exit::{Code, Failure},
    output::say,
    restarts::Restarts,
};
use chrono::Utc;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use standpipe_engine::RunOptions;
use standpipe_pipeline::Plan;
use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    io,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, exit},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Instant,
};

/// Set in a child: how often the job has been started before, the process that supervises it, and the job's id.
const ATTEMPT: &str = "STANDPIPE_ATTEMPT";
const SUPERVISOR: &str = "STANDPIPE_SUPERVISOR";
const JOB: &str = "STANDPIPE_JOB";

/// How often this process' job has been started before, if it is a child.
pub(crate) fn attempt() -> Option<u32> {
    env::var(ATTEMPT).ok()?.parse().ok()
}

/// The job's id, if this is a child.
pub(crate) fn job_id() -> Option<String> {
    attempt()?;
    env::var(JOB).ok()
}

/// What a child does first: it dies with its supervisor.
pub(crate) fn be_supervised() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let supervisor = env::var(SUPERVISOR).ok().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
    if rustix::process::getppid() != supervisor {
        // It has died before it could be said.
        exit(i32::from(Code::Interrupted as u8));
    }
    // The terminal's; the supervisor passes them on as SIGTERM.
    signal_hook::flag::register(SIGINT, std::sync::Arc::default()).map(drop)
}

enum Event {
    Ended(io::Result<ExitStatus>),
    /// The job is to stop, and its process has not been told.
    Signalled,
    /// It has been told.
    Stopping,
}

/// How it all ended.
enum End {
    /// As the last child did.
    Child(ExitStatus),
    /// While no child ran.
    Stopped,
}

/// What the thread that answers for the job knows of it.
struct Watched {
    identity: Identity,
    /// Why the job's process is not there.
    reason: String,
}

/// Runs the job until it ends otherwise than by a failure, or is not to be started again.
pub(crate) fn supervise(plan: &Plan) -> anyhow::Result<()> {
    let id = RunOptions::new().job_id;
    let (events, happened) = mpsc::channel();
    listen(events.clone())?;
    let identity = Identity {
        job: plan.name.clone(),
        id: id.clone(),
        started: Utc::now(),
        restarts: 0,
        generation: 0,
        checkpoints: plan.checkpoint.is_some(),
    };
    let watched = Arc::new(Mutex::new(Watched { identity, reason: "it is being started".to_owned() }));
    let server = Server::start_if_possible(control::socket(&id), answer(&id, &watched, events.clone()));
    let end = Supervisor { plan, id: &id, events, happened, watched }.run()?;
    if let Some(server) = server {
        server.finish(match &end {
            End::Child(status) if !status.success() => Answer::Failed(format!("its process has ended: {status}")),
            End::Child(_) | End::Stopped => Answer::Ended(format!("{}: ended", plan.name)),
        });
    }
    // Of a child that was killed.
    drop(control::socket_of_child(&id).and_then(fs::remove_file));
    match end {
        End::Child(status) => end_as(status),
        End::Stopped => Ok(()),
    }
}

struct Supervisor<'a> {
    plan: &'a Plan,
    id: &'a str,
    events: Sender<Event>,
    happened: Receiver<Event>,
    watched: Arc<Mutex<Watched>>,
}

impl Supervisor<'_> {
    fn run(&self) -> anyhow::Result<End> {
        let name = &self.plan.name;
        let mut restarts = Restarts::new(self.plan.restart.clone());
        let mut attempt = 0;
        loop {
            let begin = Instant::now();
            let (status, stopping) = self.run_child(attempt)?;
            let Some(why) = failure(status, attempt) else { return Ok(End::Child(status)) };
            if stopping {
                // It was told before it could listen.
                let is_told = status.signal() == Some(SIGTERM);
                return Ok(if is_told { End::Stopped } else { End::Child(status) });
            }
            let random = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
            let Some(wait) = restarts.failed(Instant::now(), begin.elapsed(), random) else {
                if attempt > 0 {
                    say!("{name}: {why}; it has been started {} times and is given up", attempt + 1);
                }
                return Ok(End::Child(status));
            };
            attempt += 1;
            let said = format!("{why}; it is started again in {:.1} s, for the {} time", wait.as_secs_f64(), ordinal(attempt));
            say!("{name}: {said}");
            {
                let mut watched = lock(&self.watched);
                (watched.identity.restarts, watched.reason) = (attempt, said);
            }
            // Whatever is heard of now is a wish to stop.
            if !matches!(self.happened.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
                say!("{name}: stopped while it waited to be started again");
                return Ok(End::Stopped);
            }
        }
    }

    /// Runs a child to its end, passing on signals. Also says whether it was to stop.
    fn run_child(&self, attempt: u32) -> io::Result<(ExitStatus, bool)> {
        let mut command = Command::new(env::current_exe()?);
        command.args(env::args_os().skip(1)).env(ATTEMPT, attempt.to_string()).env(SUPERVISOR, std::process::id().to_string());
        // Its death signal comes when the thread that started it ends: this one, which lives as long as the process.
        let child = command.env(JOB, self.id).spawn()?;
        let id = Pid::from_child(&child);
        wait(child, self.events.clone())?;
        let mut stopping = false;
        loop {
            match self.happened.recv() {
                Ok(Event::Ended(status)) => return Ok((status?, stopping)),
                Ok(Event::Stopping) => stopping = true,
                // It may have ended in this very moment: then there is nothing to signal. It is not waited for by then, or its end would be here.
                Ok(Event::Signalled) => {
                    stopping = true;
                    _ = kill_process(id, Signal::TERM);
                }
                Err(_) => return Err(io::Error::other("the thread that waits for the job is gone")),
            }
        }
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    // What is in it holds also after a panic.
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes requests on to the job's process; while there is none, answers for it.
fn answer(id: &str, watched: &Arc<Mutex<Watched>>, events: Sender<Event>) -> Handler {
    let (id, watched, events) = (id.to_owned(), Arc::clone(watched), Mutex::new(events));
    let tell = move |event| _ = events.lock().unwrap_or_else(PoisonError::into_inner).send(event);
    Box::new(move |request, send| {
        let asked = control::socket_of_child(&id).and_then(|socket| {
            client::ask(&socket, request, None, |answer| {
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
            Request::Savepoint | Request::Stop { savepoint: true, .. } => {
                send(Answer::Refused(format!("it cannot take a savepoint now: {}", watched.reason)));
            }
            Request::Stop { .. } | Request::Cancel => {
                tell(Event::Signalled);
                send(Answer::Stopping);
            }
        }
    })
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

fn wait(mut child: Child, events: Sender<Event>) -> io::Result<()> {
    let wait = move || _ = events.send(Event::Ended(child.wait()));
    thread::Builder::new().name("child".to_owned()).spawn(wait).map(drop)
}

/// Why it failed, if it is a failure that another start may help: not a wrong configuration, and what is missing outside only if it was there once.
fn failure(status: ExitStatus, attempt: u32) -> Option<String> {
    const FAILED: i32 = Code::Failed as i32;
    const OUTSIDE: i32 = Code::Outside as i32;
    match (status.code(), status.signal()) {
        (Some(FAILED), _) => Some("it has failed".to_owned()),
        (Some(OUTSIDE), _) if attempt > 0 => Some("it could not be started again".to_owned()),
        (Some(code), _) if ![0, 2, OUTSIDE, Code::Interrupted as i32, Code::Superseded as i32].contains(&code) => {
            Some(format!("its process has ended with {code}, which is none of ours: a plugin has ended it"))
        }
        (None, Some(signal)) => Some(format!("its process was killed by signal {signal}")),
        _ => None,
    }
}

/// Ends as the child has ended; it has said why.
fn end_as(status: ExitStatus) -> anyhow::Result<()> {
    let code = match status.code() {
        Some(0) => return Ok(()),
        Some(2) => Code::Usage,
        Some(3) => Code::Outside,
        Some(130) => Code::Interrupted,
        Some(_) => Code::Failed,
        None => return Err(Failure::error(Code::Failed, format!("the job's process has ended: {status}"))),
    };
    exit(code as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn what_another_start_may_help_is_a_failure() {
        let is_failure = |status, attempt| failure(status, attempt).is_some();
        for code in [0, 2, 130, Code::Superseded as i32] {
            assert!(!is_failure(exited(code), 0) && !is_failure(exited(code), 1), "{code}");
        }
        assert!(is_failure(exited(1), 0) && is_failure(exited(77), 0) && is_failure(ExitStatus::from_raw(9), 0));
        assert!(!is_failure(exited(3), 0), "what was never there is not waited for");
        assert!(is_failure(exited(3), 1));
    }

    #[test]
    fn times_are_counted_in_english() {
        let said: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 112].into_iter().map(ordinal).collect();
        assert_eq!(said, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]);
    }
}
