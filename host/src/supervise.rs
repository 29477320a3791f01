//! `run` with a `restart:` strategy: the job runs in a child process of this one, which is started again when it fails, from its newest checkpoint. So also a plugin that
//! crashes or calls `exit` is a failure like any other.
//!
//! The child hears of signals from here alone: one that comes to both from the terminal would count twice. It dies with this process, also when this one is killed.

use crate::{
    exit::{Code, Failure},
    output::say,
    restarts::Restarts,
};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use standpipe_pipeline::Plan;
use std::{
    env,
    hash::{BuildHasher, RandomState},
    io,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, exit},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

/// Set in a child: how often the job has been started before, and the process that supervises it.
const ATTEMPT: &str = "STANDPIPE_ATTEMPT";
const SUPERVISOR: &str = "STANDPIPE_SUPERVISOR";

/// How often this process' job has been started before, if it is a child.
pub(crate) fn attempt() -> Option<u32> {
    env::var(ATTEMPT).ok()?.parse().ok()
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
    Signalled,
}

/// Runs the job until it ends otherwise than by a failure, or is not to be started again.
pub(crate) fn supervise(plan: &Plan) -> anyhow::Result<()> {
    let mut restarts = Restarts::new(plan.restart.clone());
    let (events, happened) = mpsc::channel();
    listen(events.clone())?;
    for attempt in 0.. {
        let begin = Instant::now();
        let status = run(attempt, &events, &happened)?;
        let Some(why) = failure(status, attempt) else { return end(status) };
        let random = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
        let Some(wait) = restarts.failed(Instant::now(), begin.elapsed(), random) else {
            if attempt > 0 {
                say!("{}: {why}; it has been started {} times and is given up", plan.name, attempt + 1);
            }
            return end(status);
        };
        say!("{}: {why}; it is started again in {:.1} s, for the {} time", plan.name, wait.as_secs_f64(), ordinal(attempt + 1));
        if stopped_within(wait, &happened) {
            say!("{}: stopped while it waited to be started again", plan.name);
            return Ok(());
        }
    }
    Ok(())
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

/// Runs a child to its end, passing on signals.
fn run(attempt: u32, events: &Sender<Event>, happened: &Receiver<Event>) -> io::Result<ExitStatus> {
    let mut command = Command::new(env::current_exe()?);
    command.args(env::args_os().skip(1)).env(ATTEMPT, attempt.to_string()).env(SUPERVISOR, std::process::id().to_string());
    // Its death signal comes when the thread that started it ends: this one, which lives as long as the process.
    let child = command.spawn()?;
    let id = Pid::from_child(&child);
    wait(child, events.clone())?;
    loop {
        match happened.recv() {
            Ok(Event::Ended(status)) => return status,
            // It may have ended in this very moment: then there is nothing to signal. It is not waited for by then, or its end would be here.
            Ok(Event::Signalled) => _ = kill_process(id, Signal::TERM),
            Err(_) => return Err(io::Error::other("the thread that waits for the job is gone")),
        }
    }
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
fn end(status: ExitStatus) -> anyhow::Result<()> {
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

/// Waits; true: a signal came.
fn stopped_within(wait: Duration, happened: &Receiver<Event>) -> bool {
    !matches!(happened.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
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
