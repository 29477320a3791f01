//! From the loss of a worker, or of its task manager, to the first row that had not come before, where another task manager has the slots.

use super::{Costs, PATIENCE, PERIOD, Session, TaskManager, percentile, state, trickle};
use crate::process;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// A second.
const RATE: u32 = 1_000;
const SETTINGS: [(Loss, &str, usize); 4] =
    [(Loss::Worker, "15s", 3), (Loss::Stopped, "15s", 3), (Loss::Killed, "3s", 3), (Loss::Killed, "15s", 1)];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    /// SIGKILL of the job's process.
    Worker,
    /// SIGTERM of its task manager.
    Stopped,
    /// SIGKILL of its task manager.
    Killed,
}

impl Loss {
    const fn title(self) -> &'static str {
        match self {
            Self::Worker => "the worker, SIGKILL",
            Self::Stopped => "the task manager, SIGTERM",
            Self::Killed => "the task manager, SIGKILL",
        }
    }
}

pub(super) fn run(costs: &Costs<'_>) -> Result<()> {
    let mut results = Vec::new();
    for (loss, lease, losses) in SETTINGS {
        // At a small scale only what needs little time.
        if costs.scale >= 1.0 || lease != "15s" || loss != Loss::Killed {
            results.push((loss, lease, lose(costs, loss, lease, losses * costs.rounds)?));
        }
    }
    println!("From the loss to the first new row, ms; {RATE} rows a second, checkpoints every 100 ms, restart delay 10 ms:\n");
    println!("| lost | lease | losses | RUNNING again: p50 | worst | first new row: p50 | worst |");
    println!("|---|---|---|---|---|---|---|");
    for (loss, lease, times) in &results {
        let of = |figure: fn(&(f64, f64)) -> f64, percent| percentile(&times.iter().map(figure).collect::<Vec<_>>(), percent);
        println!(
            "| {} | {lease} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            loss.title(),
            times.len(),
            of(|one| one.0, 50),
            of(|one| one.0, 100),
            of(|one| one.1, 50),
            of(|one| one.1, 100)
        );
    }
    println!();
    Ok(())
}

/// Milliseconds to RUNNING and to the first new row, of each loss.
fn lose(costs: &Costs<'_>, loss: Loss, lease: &str, losses: usize) -> Result<Vec<(f64, f64)>> {
    let mut session = Session::start(costs, lease)?;
    let checkpoints = session.folder.join("checkpoints");
    let more =
        format!("checkpoint: {{interval: 100ms, dir: {checkpoints:?}}}\nrestart: {{strategy: fixed-delay, attempts: 1000, delay: 10ms}}\n");
    session.join(1)?;
    let job = session.submit("recovery", &trickle("recovery", RATE, &more, "connector: print"), 1)?;
    session.join(1)?;
    let mut times = Vec::new();
    for number in 0..losses {
        let has_some = |job: &Value| job.pointer("/status/checkpoints/completed").and_then(Value::as_u64).is_some_and(|taken| taken > 5);
        let found = session.wait_for(&job, "checkpoints", |job| state(job) == "RUNNING" && has_some(job))?;
        let at = session.place(&found)?;
        let attempt = found.get("attempt").and_then(Value::as_u64).context("a job has attempts")?;
        // Spread over the time between two beats.
        thread::sleep(Duration::from_millis(1_000 * (number as u64 % 4) / 4));
        let begun = Instant::now();
        let log = session.task_managers.get(at).context("it is there")?.log(&job);
        match loss {
            Loss::Worker => {
                let worker = session.task_managers.get(at).and_then(|one| process::children(one.id()).first().copied());
                let worker = worker.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).context("the job has a process")?;
                kill_process(worker, Signal::KILL)?;
            }
            Loss::Stopped => session.task_managers.remove(at).end(Signal::TERM)?,
            Loss::Killed => session.task_managers.remove(at).end(Signal::KILL)?,
        }
        let newest = newest(&log, 0)?.context("the job has printed rows")?;
        let from = if loss == Loss::Worker { fs::metadata(&log)?.len() } else { 0 };
        times.push(session.recovered(&job, attempt + 1, begun, newest, from)?);
        eprintln!("{loss:?}, lease {lease}, {number}: {:.0?} ms", times.last());
        if loss != Loss::Worker {
            session.join(1)?;
        }
    }
    Ok(times)
}

impl Session<'_> {
    /// Which of the task managers has the job.
    fn place(&self, job: &Value) -> Result<usize> {
        let id = job.pointer("/workers/0/taskmanager").and_then(Value::as_str).context("the job has a worker")?;
        let pid = *self.task_manager_ids()?.get(id).context("its task manager is known")?;
        self.task_managers.iter().position(|one| one.id() == pid).context("it is one of ours")
    }

    fn recovered(&self, job: &str, attempt: u64, begun: Instant, newest_before: u64, from: u64) -> Result<(f64, f64)> {
        let millis = || begun.elapsed().as_secs_f64() * 1e3;
        let (mut running, mut row) = (None, None);
        while running.is_none() || row.is_none() {
            if running.is_none() {
                let found = self.ask("GET", &format!("/jobs/{job}"), &[])?;
                ensure!(state(&found) != "FAILED", "{:?}", found.get("why"));
                let is_next = found.get("attempt").and_then(Value::as_u64) == Some(attempt);
                running = (is_next && state(&found) == "RUNNING").then(millis);
            }
            if row.is_none() {
                let mut logs = self.task_managers.iter().map(|one: &TaskManager| one.log(job));
                let is_new = logs.any(|log| newest(&log, from).ok().flatten().is_some_and(|newest| newest > newest_before));
                row = is_new.then(millis);
            }
            ensure!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for a new row");
            thread::sleep(PERIOD);
        }
        Ok((running.context("waited for above")?, row.context("waited for above")?))
    }
}

/// The greatest number that was printed from that byte on.
fn newest(log: &Path, from: u64) -> Result<Option<u64>> {
    let mut file = fs::File::open(log)?;
    file.seek(SeekFrom::Start(from))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let number = |line: &str| line.strip_prefix("{\"n\":")?.strip_suffix('}')?.parse().ok();
    Ok(text.lines().filter_map(number).max())
}
