//! A soak: a job that is rescaled again and again, and meanwhile suffers what `plan` says. Knows the job's processes, its store and its control socket, not what it reads and writes.

pub(crate) mod plan;

use plan::{Fault, Round};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;
use standpipe_tests::{Folder, Run, Running, Signal, has_ended, processes, signal, standpipe, wait_until};
use std::{thread, time::Duration};

/// No single thing takes longer, also on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// The job's folder of checkpoints, in [`Soak::folder`].
pub(crate) const STORE: &str = "ckpt";
/// What is there while the store fails: a file, in which there can be no files.
const NO_STORE: &str = "away";

/// A job, and where it stands.
pub(crate) struct Soak {
    /// All that it writes, and its current directory.
    pub(crate) folder: Folder,
    name: String,
    /// The savepoint with which it was stopped.
    savepoint: Option<u64>,
}

impl Soak {
    /// A job that has not begun. Its checkpoints are to be in [`STORE`], and its `restart:` is to try again whatever comes.
    pub(crate) fn new(pipeline: &Value) -> Self {
        let folder = Folder::new();
        folder.write("soak.yaml", pipeline.to_string());
        folder.write(NO_STORE, "");
        Self { folder, name: pipeline["name"].as_str().unwrap().to_owned(), savepoint: None }
    }

    /// From its savepoint, if it has one, through all faults to the next one.
    pub(crate) fn round(&mut self, round: &Round) {
        let crash_at = round.crash_at.map(|(step, after)| format!("{step}:{}", self.savepoint.unwrap_or(0) + after));
        let run = self.run(round.parallelism, round.processes);
        let mut job = match &crash_at {
            Some(crash_at) => run.env("STANDPIPE_CRASH_AT", crash_at).start(),
            None => run.start(),
        };
        if crash_at.is_some() {
            job.wait_until("the step at which a process is to die", PATIENCE, |job| job.stderr().contains("was killed by signal 6"));
        }
        for fault in &round.faults {
            taken(&mut job, fault.checkpoints);
            // Into the next checkpoint, or between two.
            thread::sleep(Duration::from_millis(fault.millis));
            job = self.suffer(job, round, &fault.fault);
        }
        taken(&mut job, 1);
        let stop = standpipe(["job", "stop", &self.name, "--savepoint"]).env("STANDPIPE_RUN_DIR", self.folder.at("run"));
        let number = stop.finish().code(0).stdout;
        self.savepoint = Some(number.trim().parse().unwrap());
        job.wait().success();
    }

    /// From its savepoint to its end, with another value of a key of the pipeline.
    pub(crate) fn finish(&self, set: (&str, &str)) {
        self.run(4, 2).set(set.0, set.1).start().wait().success();
    }

    fn run(&self, parallelism: u32, processes: u32) -> Run {
        let restore = self.savepoint.map(|number| number.to_string());
        self.start(parallelism, processes, restore.as_deref())
    }

    fn start(&self, parallelism: u32, processes: u32, restore: Option<&str>) -> Run {
        let run = standpipe(["run", "soak.yaml", "--log-level", "info", "-p", &parallelism.to_string()]);
        let run =
            run.args(["--processes", &processes.to_string()]).args(restore.map(|restore| ["--restore", restore]).into_iter().flatten());
        run.in_directory(self.folder.path()).env("STANDPIPE_RUN_DIR", self.folder.at("run")).timeout(10 * PATIENCE)
    }

    /// The job's run afterwards, which is another one if it was its supervisor that was lost.
    fn suffer(&self, mut job: Running, round: &Round, fault: &Fault) -> Running {
        match *fault {
            Fault::Kill(process) => restarted(&mut job, |job| send(job, process, Signal::KILL)),
            Fault::KillAll => return self.lose_all(job, round),
            Fault::Pause(process, millis) => {
                let id = send(&mut job, process, Signal::STOP);
                thread::sleep(Duration::from_millis(millis));
                assert!(signal(id, Signal::CONT), "a pause ends a process");
            }
            Fault::Stop(process) => restarted(&mut job, |job| send(job, process, Signal::STOP)),
            Fault::StoreFails(millis, lost) => {
                self.exchange_store();
                if let Some(process) = lost {
                    restarted(&mut job, |job| send(job, process, Signal::KILL));
                }
                thread::sleep(Duration::from_millis(millis));
                self.exchange_store();
            }
        }
        job
    }

    /// The machine is lost: nobody is there to start the job again, but who starts it then has to know nothing.
    fn lose_all(&self, mut job: Running, round: &Round) -> Running {
        let all = processes(&job);
        job.signal(Signal::KILL);
        _ = job.wait();
        wait_until("the end of all processes", PATIENCE, || all.values().all(|id| has_ended(*id)));
        self.start(round.parallelism, round.processes, Some("latest")).start()
    }

    /// At once, so that there is never nothing: a folder that is missing would be made anew.
    fn exchange_store(&self) {
        renameat_with(CWD, self.folder.at(STORE), CWD, self.folder.at(NO_STORE), RenameFlags::EXCHANGE).unwrap();
    }
}

/// Waits for so many more checkpoints.
fn taken(job: &mut Running, checkpoints: usize) {
    let durable = |job: &Running| job.stderr().matches("is durable after").count();
    let before = durable(job);
    job.wait_until("checkpoints", PATIENCE, |job| durable(job) >= before + checkpoints);
}

/// Sends a signal to one of the job's processes, whose numbers go round; gives its id.
fn send(job: &mut Running, process: u32, what: Signal) -> i32 {
    let mut sent = None;
    job.wait_until("a process", PATIENCE, |job| {
        let all = processes(job);
        sent = all.values().nth(process as usize % all.len().max(1)).copied().filter(|id| signal(*id, what));
        sent.is_some()
    });
    sent.unwrap()
}

/// Does what must make the supervisor start the job again, and waits until it says so.
fn restarted(job: &mut Running, fault: impl FnOnce(&mut Running) -> i32) {
    let restarts = |job: &Running| job.stderr().matches("it is started again in").count();
    let before = restarts(job);
    fault(job);
    job.wait_until("a restart", PATIENCE, |job| restarts(job) > before);
}
